"""One server's form: what was typed into it, what it shows, what is kept of a person from one time to the next."""

from __future__ import annotations

import asyncio
import pwd
import time
from collections.abc import Awaitable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

from jupyterhub.utils import url_escape_path, url_path_join

from ..choice import request, several, summary
from ..choice.presets import Own, load_own, offered
from ..session import admission, script
from ..session.errors import SessionError
from ..session.lifecycle import Life
from ..session.messages import Words
from ..session.record import Job
from ..site import Site
from ..site.fields import FIELDS
from . import availability, courses
from .form import Known, render


@dataclass
class Typed:
    """What came in with this HTTP request, for the form that goes out with its answer."""

    values: Mapping[str, str]
    errors: dict[str, str] = field(default_factory=dict)
    server_name: str = ""
    answer: Mapping[str, Any] = field(default_factory=dict)
    several: Mapping[str, Sequence[str]] = field(default_factory=dict)  # in the section for several sessions


#: JupyterHub renders the form again with the default server's spawner even when a named one was asked for, so what
#: was typed cannot be kept in the spawner.
typed: ContextVar[Typed | None] = ContextVar("snowyspawner_typed", default=None)


#: The event that a start sets when its job is at Slurm; the form's handler, which began the start, waits for it.
submitted: ContextVar[asyncio.Event | None] = ContextVar("snowyspawner_submitted", default=None)


#: The sessions that the one which is being started belongs to.
joined: ContextVar[several.Group | None] = ContextVar("snowyspawner_joined", default=None)


class PrefillError(Exception):
    """A link with choices: the form is to be shown with them. Nothing is wrong and nothing starts."""

    jupyterhub_message = ""


def mark(errors: Mapping[str, str]) -> bool:
    """Put *errors* at their fields, if it was a form; tell whether it was, as it then comes back with them."""
    sent = typed.get()
    if sent is not None:
        sent.errors.update(errors)
    return sent is not None


# A Protocol, as the class is in a layer above: it imports these pages. What is JupyterHub's has no types.
class Server(Protocol):
    """What the form's pages use of a `SnowySpawner`."""

    life: Life
    form_state: FormState
    name: str
    user: Any
    hub: Any
    active: bool
    ready: bool

    def target(self, job_name: str, account: pwd.struct_passwd) -> script.Target:
        """Return what the script of a job of this server needs beside the choice."""

    def get_options_form(self) -> Awaitable[str]:
        """Return the form's HTML."""


class FormState:
    """The form of one server; `form` reads memory only, Slurm is never waited for."""

    def __init__(self, spawner: Server) -> None:
        self.spawner = spawner
        self.stored = Own()  # the default server's is the person's; see `own`

    @property
    def site(self) -> Site:
        """The cluster."""
        return self.spawner.life.site

    # -- the form ----------------------------------------------------------------------------------------------

    def form(self) -> str:
        """Return the form's HTML, with what this HTTP request brought, or else the last choice."""
        life = self.spawner.life
        availability.look_soon(life)
        courses.look_soon(life)
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
            courses=courses.cards(life),
            own_presets=self.own.presets,
            remembered=remembered,
            server_name=sent.server_name,
            user_name=self.spawner.user.name,
            base_url=self.spawner.hub.base_url,
            answer=sent.answer,
            named_servers=bool(self.spawner.user.allow_named_servers),
            several=sent.several,
        )

    def of_course(self, key: str) -> Mapping[str, str] | None:
        """Return what the card *key* of a course asks for; None: there is no such card, or it cannot be chosen now."""
        card = courses.cards(self.spawner.life).get(key)
        return card.values if card else None

    def prefill(self, options: Mapping[str, str], server_name: str) -> None:
        """Let the form of this HTTP request show *options*, and say what of them is not possible."""
        found = admission.review(self.spawner.life, options)
        whole = admission.several_of(self.spawner.life, options)
        values, lists = several.parted(summary.as_shown(options, found))
        typed.set(Typed(values, (whole or found).errors, server_name, several=lists))

    # -- what is kept ------------------------------------------------------------------------------------------

    @property
    def own(self) -> Own:
        """What is kept of this person."""
        stored: Own = self.spawner.user.spawner.form_state.stored
        return stored

    def keep(self, own: Own) -> None:
        """Save *own* in the hub's database at once: it is part of the default server's state."""
        default = self.spawner.user.spawner
        default.form_state.stored = own
        default.store()

    def remember(self, choice: request.SessionRequest) -> None:
        """Note the last accepted choice."""
        self.keep(self.own.with_last(choice.options(self.site)))

    def load(self, stored: Any) -> None:
        """Take up what an earlier hub stored."""
        self.stored = load_own(stored)

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


def is_same(choice: request.SessionRequest, job: Job) -> bool:
    """Tell whether *job* asks for *choice*; a time to begin that has passed meanwhile is now.

    So does one of which nobody knows any more what it asks for: a hub of another version stored it.
    """
    asked = request.load(job.request)
    if not asked.environment:
        return True
    begins = [max(each.begin or 0, int(time.time())) for each in (asked, choice)]
    plain = {"begin": None}
    return abs(begins[0] - begins[1]) < 60 and asked.model_copy(update=plain) == choice.model_copy(update=plain)
