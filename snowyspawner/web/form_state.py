"""One person's choices: what the form shows, what was typed into it, what is kept from one time to the next."""

from __future__ import annotations

import pwd
import time
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from jupyterhub.utils import url_escape_path, url_path_join

from ..choice import request, summary
from ..choice.presets import Own, load_own, offered
from ..session import admission, estimate, messages, script
from ..session.errors import SessionError
from ..session.lifecycle import Life
from ..session.messages import Words
from ..session.record import Job, job_name
from ..site import Site
from ..site.fields import FIELDS
from ..slurm.client import SlurmError, prefix_for
from ..slurm.facts import JOBS_FOR, Facts
from . import availability
from .form import Known, render

_ALTERNATIVES = 3


@dataclass
class Typed:
    """What came in with this HTTP request, for the form that goes out with its answer."""

    values: Mapping[str, str]
    errors: dict[str, str] = field(default_factory=dict)
    server_name: str = ""
    answer: Mapping[str, Any] = field(default_factory=dict)


#: JupyterHub renders the form again with the default server's spawner even when a named one was asked for, so what
#: was typed cannot be kept in the spawner.
typed: ContextVar[Typed | None] = ContextVar("snowyspawner_typed", default=None)


class PrefillError(Exception):
    """A link with choices: the form is to be shown with them. Nothing is wrong and nothing starts."""

    jupyterhub_message = ""


def mark(errors: Mapping[str, str]) -> bool:
    """Put *errors* at their fields, if it was a form; tell whether it was, as it then comes back with them."""
    sent = typed.get()
    if sent is not None:
        sent.errors.update(errors)
    return sent is not None


class Server(Protocol):
    """What the hub's pages know of a `SnowySpawner`. What is JupyterHub's has no types."""

    life: Life
    choices: Choices
    name: str
    display_name: str
    user: Any
    hub: Any
    log: Any
    orm_spawner: Any
    pending: str | None
    active: bool
    ready: bool

    def store(self) -> None:
        """Write the state at once."""

    def target(self, job_name: str, account: pwd.struct_passwd) -> script.Target:
        """Return what the script of a job of this server needs beside the choice."""

    async def stop(self) -> None:
        """End the job."""

    async def poll_and_notify(self) -> int | None:
        """Ask whether it runs; JupyterHub learns of its end."""

    def get_options_form(self) -> Awaitable[str]:
        """Return the form's HTML."""


class Choices:
    """The form of one server; `form` reads memory only, Slurm is never waited for."""

    def __init__(self, spawner: Server) -> None:
        self.spawner = spawner
        self.stored = Own()  # the default server's is the person's; see `own`

    # -- what is known -----------------------------------------------------------------------------------------

    @property
    def site(self) -> Site:
        """The cluster."""
        return self.spawner.life.site

    @property
    def facts(self) -> Facts:
        """What Slurm says of people and partitions."""
        return self.spawner.life.facts

    @property
    def estimator(self) -> estimate.Estimator:
        """Who asks Slurm when something would start."""
        return estimate.shared_estimator(self.facts.client)

    def what(self) -> str:
        """Say in a few words what this server's session is."""
        job = self.spawner.life.job
        if job is None:
            return ""
        cores = job.request.get("cores", 0)
        parts = [f"{cores} core{'s' if cores != 1 else ''}", job.request.get("environment", "")]
        return ", ".join([*parts, *([f"node {job.node}"] if job.node else [])])

    # -- the form ----------------------------------------------------------------------------------------------

    def form(self) -> str:
        """Return the form's HTML, with what this HTTP request brought, or else the last choice."""
        life = self.spawner.life
        availability.look_soon(life)
        accounts = admission.accounts(life)
        values = request.form_values(self.site, accounts)
        sent = typed.get()
        remembered: list[str] = []
        if sent is None:
            last = self.own.last or life.last_request
            kept, remembered = offered(last, self.site, accounts) if last else ({}, [])
            sent = Typed(kept, server_name=self.spawner.name)
        values.update({name: text for name, text in sent.values.items() if name in values})
        return render(self.site, values, sent.errors, known=self.known(sent, accounts or (), remembered))

    def known(self, sent: Typed, accounts: Sequence[str], remembered: Sequence[str]) -> Known:
        """Return all that the form shows beside the values."""
        life = self.spawner.life
        return Known(
            **availability.live(life),
            accounts=accounts,
            reservations=availability.reservations(life, accounts),
            readable=availability.readable(life),
            own_presets=self.own.presets,
            remembered=remembered,
            server_name=sent.server_name,
            user_name=self.spawner.user.name,
            base_url=self.spawner.hub.base_url,
            answer=sent.answer,
        )

    def prefill(self, options: Mapping[str, str], server_name: str, answer: Mapping[str, Any] | None = None) -> None:
        """Let the form of this HTTP request show *options*, and say what of them is not possible."""
        found = admission.review(self.spawner.life, options)
        typed.set(Typed(summary.as_shown(options, found), found.errors, server_name, answer or {}))

    # -- what is kept ------------------------------------------------------------------------------------------

    @property
    def own(self) -> Own:
        """What is kept of this person."""
        stored: Own = self.spawner.user.spawner.choices.stored
        return stored

    def keep(self, own: Own) -> None:
        """Store *own* at once, in the state of the person's default server."""
        default = self.spawner.user.spawner
        default.choices.stored = own
        default.store()

    def remember(self, choice: request.SessionRequest) -> None:
        """Note the last accepted choice."""
        self.keep(self.own.with_last(choice.options(self.site)))

    def load(self, stored: Any) -> None:
        """Take up what an earlier hub stored."""
        self.stored = load_own(stored)

    def is_same(self, choice: request.SessionRequest, job: Job) -> bool:
        """Tell whether *job* asks for *choice*; a time to begin that has passed meanwhile is now.

        So does one of which nobody knows any more what it asks for: a hub of another version stored it.
        """
        asked = request.load(job.request)
        if not asked.environment:
            return True
        begins = [max(each.begin or 0, int(time.time())) for each in (asked, choice)]
        plain = {"begin": None}
        return abs(begins[0] - begins[1]) < 60 and asked.model_copy(update=plain) == choice.model_copy(update=plain)

    def already_waits(self, job: Job, choice: request.SessionRequest) -> SessionError:
        """Return what a start with *choice* ends with while *job* waits: the person decides which it shall be."""
        before, after = request.load(job.request).options(self.site), choice.options(self.site)
        changed = [
            f"{FIELDS[name].in_words} {before[name] or 'none'} (now {after[name] or 'none'})"
            for name in before
            if before[name] != after[name]
        ]
        number = job.job_id or job.name
        said = Words(
            f"Job {number} is already waiting for this session, with other choices: {'; '.join(changed)}.",
            "Keep waiting for it, or replace it with what you have chosen now. So far nothing has changed.",
        )
        sent = typed.get()
        if sent is not None:  # a form: it comes back with the two ways on
            server = self.spawner
            path = url_path_join(server.user.escaped_name, url_escape_path(server.name))
            sent.answer = {
                "title": "A job is already waiting",
                "sentences": [str(said)],
                "waiting": {"job": number, "resume": f"{server.hub.base_url}snowy/resume/{path}"},
            }
            said = Words("Nothing was started: another job is already waiting for this session.")
        detail = f'REST: "user_options": null keeps waiting, "replace": "{number}" in user_options replaces it'
        return SessionError(said, reason="request", detail="" if sent else detail)

    # -- a choice, as Slurm gets it ----------------------------------------------------------------------------

    async def job_script(self, choice: request.SessionRequest, server_name: str | None = None) -> tuple[list[str], str]:
        """Return the command that would be run for a server and the script it would read.

        Made up are the job's name and, for a server that the hub does not have yet, its number (0). Raises
        `SessionError` when there is no such script.
        """
        target = await self._target(server_name)
        return self.spawner.life.watcher.client.submit_command(), script.build(self.site, choice, target)

    async def command(self, choice: request.SessionRequest, server_name: str | None = None) -> list[str]:
        """Return the choice as one sbatch command, for people to read; the hub sends the same as a script."""
        cluster = ["-M", self.site.cluster] if self.site.cluster else []
        return ["sbatch", *cluster, *script.sbatch_options(self.site, choice, await self._target(server_name))]

    async def _target(self, server_name: str | None = None) -> script.Target:
        spawner = self.spawner
        account = spawner.life.known_account or await spawner.life.account()
        name = spawner.name if server_name is None else server_name
        target = spawner.target(job_name(name, "0" * 8), account)
        # The form of a server that is not there yet is the default server's.
        return target if name == spawner.name else replace(target, server=0)

    # -- when would it start -----------------------------------------------------------------------------------

    async def when(self, choice: request.SessionRequest) -> dict[str, Any]:
        """Say when Slurm expects this very choice to start, and what would start sooner.

        Raises `estimate.TooOftenError`, `SessionError`.
        """
        try:
            await admission.check_room(self.spawner.life, choice, JOBS_FOR)
        except request.RequestError as error:
            return {"sentence": f"Not now: {'; '.join(error.errors.values())}.", "start": None, "errors": error.errors}
        answer, now = await self._ask(choice), time.time()
        if not answer.answered:
            sentence = f"There is no estimate: {str(answer.refused).replace('; nothing was started', '')}"
            return {"sentence": sentence, "start": None, "errors": {}, "sooner": None}
        if answer.refused:
            at_fault = {answer.refused.field: str(answer.refused)} if answer.refused.field else {}
            sentence = f"{answer.refused} (Slurm says: {answer.detail})"
            return {"sentence": sentence, "start": None, "errors": at_fault, "sooner": None}
        if answer.start is None:
            sentence = "Slurm would take this, but does not say when it would start."
            return {"sentence": sentence, "start": None, "errors": {}, "sooner": None}
        wait = estimate.say_wait(answer.start, now)
        sentence = "Slurm expects this to start now."
        if wait != "now":
            sentence = f"Slurm expects this to start {wait}, {summary.say_moment(answer.start, self.site)}."
            sentence += " That is a guess: jobs that end early or come before yours change it."
        late = answer.start - max(now, choice.begin or 0) > estimate.NOW
        sooner = await self._sooner(choice, answer.start) if late else None
        return {"sentence": sentence, "start": answer.start, "errors": {}, "sooner": sooner}

    async def _ask(self, choice: request.SessionRequest) -> estimate.Answer:
        _, text = await self.job_script(choice)
        life = self.spawner.life
        account = await life.account()
        env = script.environment(account, "")
        # Nothing starts, so there is no secret; and the rest is what the job would inherit.
        del env["SNOWYSPAWNER_SECRET"]
        try:
            prefix = prefix_for(account, env)
        except SlurmError as error:
            raise SessionError(messages.refusal(error.stderr, ()), reason="slurm", detail=error.stderr) from None
        sent = messages.fields_sent(choice.model_dump())
        return await self.estimator.ask(await life.slurm_name(), text, prefix, env, sent)

    async def _sooner(self, choice: request.SessionRequest, start: int) -> dict[str, Any] | None:
        """Try a few other ways to have nearly the same; return the one that starts first, if any does sooner."""
        best: tuple[int, request.SessionRequest] | None = None
        for tried, other in enumerate(self.alternatives(choice)):
            if tried == _ALTERNATIVES:
                break
            try:
                await admission.check_room(self.spawner.life, other, JOBS_FOR)
                answer = await self._ask(other)
            except request.RequestError:
                continue
            except estimate.TooOftenError:
                break
            if answer.good and answer.start and answer.start < (best[0] if best else start) - estimate.NOW:
                best = answer.start, other
        if best is None:
            return None
        before, after = choice.options(self.site), best[1].options(self.site)
        what = summary.difference(choice, best[1], self.site)
        sentence = f"{what[:1].upper()}{what[1:]} it would start {estimate.say_wait(best[0], time.time())}."
        values = {field: text for field, text in after.items() if text != before[field]}
        return {"sentence": sentence, "start": best[0], "values": values}

    def alternatives(self, choice: request.SessionRequest) -> Iterator[request.SessionRequest]:
        """Yield what is nearly the same and possible: in another partition, then as the presets have it."""
        options = choice.options(self.site)
        ways = [{"partition": key} for key in self.site.partitions]
        for preset in self.site.presets.values():
            given = preset.choices.model_dump(exclude_none=True)
            ways.append({name: str(given[name]) for name in ("environment", "partition", "gpu") if name in given})
        seen = [choice]
        whole = self.site.partitions[choice.partition].whole_node
        for way in ways:
            other = admission.review(self.spawner.life, {**options, **way}).request
            # A whole node is sooner only for who is ready to pay for it.
            if other and other not in seen and (whole or not self.site.partitions[other.partition].whole_node):
                seen.append(other)
                yield other
