"""Several sessions from one choice: the page that asks whether they are meant, their starts, and ending them together.

A choice comes in by the form, by a link or by REST. Without a confirmation nothing starts: the page says of each
session what it takes, or why it cannot be started now. Each is then started as JupyterHub's form does it; one that is
refused holds up no other.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.client import responses
from typing import Any
from urllib.parse import urlencode
from weakref import WeakValueDictionary

from jupyterhub.handlers import default_handlers
from jupyterhub.scopes import needs_scope
from jupyterhub.utils import url_escape_path, url_path_join
from tornado import web
from tornado.httputil import url_concat

from ..choice import request, several, summary
from ..session import admission
from ..session.estimate import TooOftenError
from ..site.fields import FIELDS
from ..slurm.facts import JOBS_FOR
from . import hub_private
from .form_pages import PageHandler, PatientHandler, free_name, in_use, posted, remove_row
from .form_state import Typed, joined, typed
from .session_pages import EndingHandler, Session, StartingHandler

# One set of a person's at a time is looked at and started: two would each count what the other starts.
_turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()


@dataclass
class Outcome:
    """One of the sessions: whether it can be started now, and what became of it. *errors* has a sentence by field.

    What is about no field stands under ``name``, the server's, or ``start``.
    """

    session: several.Planned
    request: request.SessionRequest | None  # None: refused
    errors: dict[str, str]
    remarks: dict[str, str] = field(default_factory=dict)
    cost: str = ""
    started: bool = False
    too_often: bool = False  # it is refused for no more than that

    @property
    def possible(self) -> bool:
        """Whether it can be started, or was."""
        return not self.errors


class SeveralHandler(hub_private.TokenHandler, PatientHandler, PageHandler, StartingHandler):
    """The sessions that a choice means, started together. A GET has no effect; a POST starts them once confirmed.

    With a token, or with JSON, it answers in JSON, and starts them at once unless it is told not to.
    """

    @property
    def wants_json(self) -> bool:
        """Whether a script asks; curl says that it sends a form, whatever it sends."""
        return self.has_token or super().wants_json

    @web.authenticated
    async def get(self) -> None:
        """Show the sessions of a link, ``?opt-cores=1,4,8,16``."""
        await self.find()
        options, rest = self.asked()
        if not options:
            self.redirect(f"{self.hub.base_url}snowy")
            return
        await self._answer(options, False, rest)

    @web.authenticated
    async def post(self) -> None:
        """Start the sessions, or show them first."""
        await self.find()
        if self.wants_json:
            options, confirmed = self._read_json()
        else:
            self.fields()  # not too long
            options, confirmed = several.sent(posted(self)), self.get_body_argument("_confirm", "") == "1"
        await self._answer(options, confirmed, {})

    def _read_json(self) -> tuple[dict[str, Any], bool]:
        """Return the choice, and whether the sessions are to be started. Raises HTTPError 400."""
        body = self.fields()
        said = {name: body.pop(name) for name in ("confirm", "dry_run") if name in body}
        for name, value in said.items():
            if not isinstance(value, bool):
                raise web.HTTPError(400, f"{name}: must be true or false")
        if "user_options" in body:
            options = body.pop("user_options")
            if body:
                beside = ", ".join(sorted(body))[:64]
                raise web.HTTPError(400, f"{beside}: beside user_options stand confirm or dry_run")
            if not isinstance(options, (dict, type(None))):
                raise web.HTTPError(400, "user_options: must be an object, a value for each field")
            body = options or {}
        return body, said.get("confirm", True) and not said.get("dry_run", False)

    # -- what is meant, and what is possible -----------------------------------------------------------------------

    async def _answer(self, options: Mapping[str, Any], confirmed: bool, rest: Mapping[str, str]) -> None:
        """Show or start the sessions of *options*; *rest* is what of a link is no choice, a sentence each."""
        life = self.spawner.life
        await admission.ask_accounts(life)
        try:
            plan = several.plan(options, life.site, admission.accounts(life))
        except request.RequestError:
            errors = several.verdict(options, life.site, admission.accounts(life)).errors
            if self.wants_json:
                self.reply({"errors": errors}, 400)
            else:
                await self.show(options, {**errors, **rest}, status=400, lists=several.section(posted(self)))
            return
        group_id = self._group_id()
        if confirmed:
            outcomes = await self._start(plan, group_id)
        else:
            outcomes = await self._look(plan, group_id, JOBS_FOR)
        if self.wants_json:
            self._reply(plan, group_id, outcomes, confirmed)
        else:
            await self._show(plan, group_id, outcomes, confirmed, rest)

    def _group_id(self) -> str:
        """Return what the page that asked has called these sessions, so that pressing twice starts them once."""
        given = "" if self.wants_json else self.get_body_argument("_group", "")
        return given if re.fullmatch("[0-9a-f]{16}", given, re.ASCII) else several.new_id()

    async def _look(self, plan: several.Plan, group_id: str, age: float) -> list[Outcome]:
        """Say of each session whether it can be started now, if those before it are.

        What Slurm said *age* seconds ago of this person's jobs is good enough.
        """
        life, user, site = self.spawner.life, self.spawner.user, self.spawner.life.site
        named = {name for name in user.orm_spawners if name}
        limit = await self.get_current_user_named_server_limit()
        before: dict[str, list[str]] = {}  # names of those before it, by Slurm's partition
        outcomes = []
        wrong: dict[str, str] | None = None  # with the user's own software, which all have: one look is enough
        for session in plan.sessions:
            found = admission.review(life, session.options)
            outcome = Outcome(session, found.request, dict(found.errors), found.remarks)
            outcomes.append(outcome)
            if found.request is None:
                continue
            outcome.cost = summary.cost(found.request, site)
            if wrong is None:
                wrong = await self.wrong_software([found.request])
            outcome.errors |= wrong
            if wrong:
                continue
            name, there = session.name, before.setdefault(site.slurm_partition(found.request.partition), [])
            if not self.allow_named_servers:
                outcome.errors["name"] = "this hub gives everybody one session at a time"
            elif name in named and in_use(user.spawners[name]):
                group = user.spawners[name].group
                outcome.started = bool(group and group.id == group_id)  # pressed twice
                if not outcome.started:
                    outcome.errors["name"] = f"a session {name} runs or waits already: stop it first"
            elif name not in named and 0 < limit <= len(named):
                have = f"you have {limit} sessions with a name, as many as this hub allows"
                outcome.errors["name"] = f"{have}: remove one that has ended, or start fewer"
            else:
                outcome.errors |= await self._no_room(found.request, there, JOBS_FOR if there else age)
            if outcome.possible and not outcome.started:
                named.add(name)
                there.append(name)
        return outcomes

    async def _no_room(self, choice: request.SessionRequest, before: Sequence[str], age: float) -> dict[str, str]:
        try:
            await admission.check_room(self.spawner.life, choice, age, before)
        except request.RequestError as error:
            return error.errors
        except TooOftenError:
            return {}  # then Slurm says it
        return {}

    # -- starting --------------------------------------------------------------------------------------------------

    async def _start(self, plan: several.Plan, group_id: str) -> list[Outcome]:
        """Start each session that can be; return what became of them, when all are at Slurm or refused."""
        user = self.spawner.user
        turn = _turns.setdefault(user.name, asyncio.Lock())
        async with turn:
            outcomes = await self._look(plan, group_id, 0.0)
            rows = set(user.orm_spawners)
            possible = [outcome for outcome in outcomes if outcome.possible]
            wanted = [outcome for outcome in possible if not outcome.started]
            # What is refused is no part of what the home page shows.
            title = several.title([outcome.session for outcome in possible]) if possible else ""
            group = several.Group(id=group_id, title=title)
            await asyncio.gather(*(self._start_one(outcome, group) for outcome in wanted))
            for outcome in wanted:
                if not outcome.started and outcome.session.name not in rows:
                    await self._leave_nothing(outcome.session.name)
        return outcomes

    async def _start_one(self, outcome: Outcome, group: several.Group) -> None:
        """Start one. It runs as a task of its own, so what it sets in the context is for this start only."""
        user, name = self.spawner.user, outcome.session.name
        sent = Typed({})
        typed.set(sent)  # what is refused stands at its field
        joined.set(group)
        start: asyncio.Future[None] | None = None
        try:
            spawner = self.fresh(user, name, name)
            start = await self.patiently(self.spawn(spawner, outcome.session.options))
            if start.done():
                await start
            outcome.started = True
        except asyncio.CancelledError:
            if start is None or not start.cancelled():
                raise
            outcome.errors["start"] = "was cancelled"
        except web.HTTPError as error:  # a SessionError is one
            outcome.too_often = error.status_code == 429
            said = getattr(error, "jupyterhub_message", "") or error.log_message or error.reason or str(error)
            outcome.errors |= sent.errors or {"start": said}
        except Exception:
            self.log.exception("Cannot start %s of %s", name, user.name)
            outcome.errors["start"] = "the hub could not start it; tell support if that happens again"

    async def _leave_nothing(self, name: str) -> None:
        """Remove the row of a server that was made for a start which was refused."""
        user = self.spawner.user
        if name in user.orm_spawners and not in_use(spawner := user.spawners[name]):
            await remove_row(self, spawner)

    # -- answers ---------------------------------------------------------------------------------------------------

    def _cost(self, outcomes: Sequence[Outcome]) -> str:
        requests = [outcome.request for outcome in outcomes if outcome.possible and outcome.request]
        return summary.total(requests, self.spawner.life.site)

    def _reply(self, plan: several.Plan, group_id: str, outcomes: Sequence[Outcome], confirmed: bool) -> None:
        user = self.spawner.user
        started = any(outcome.started for outcome in outcomes)
        refused = 429 if any(outcome.too_often for outcome in outcomes) else 409
        answer = {
            "title": plan.title,
            "group": group_id if started else None,
            "cost": self._cost(outcomes),
            "sessions": [
                {
                    "name": outcome.session.name,
                    **outcome.session.values,
                    "started": outcome.started,
                    "errors": outcome.errors,
                    "remarks": outcome.remarks,
                    "cost": outcome.cost,
                    "url": user.server_url(outcome.session.name),
                }
                for outcome in outcomes
            ],
        }
        self.reply(answer, 200 if not confirmed else 201 if started else refused)

    async def _show(
        self,
        plan: several.Plan,
        group_id: str,
        outcomes: Sequence[Outcome],
        confirmed: bool,
        rest: Mapping[str, str],
    ) -> None:
        user, site, base = self.spawner.user, self.spawner.life.site, self.hub.base_url
        about = {} if user.name == self.current_user.name else {"user": user.name}
        # The form of one that runs is no form any more.
        free = self.server_name or ("" if not in_use(user.spawner) else (await free_name(self, user))[0])
        texts = {name: str(value) for name, value in plan.given.items() if name in FIELDS and isinstance(value, str)}
        possible = [outcome.request for outcome in outcomes if outcome.request]
        shared = {**texts, **plan.written}
        if possible:
            accounts = admission.accounts(self.spawner.life)
            shared = {**summary.shared_options(possible[0], site, accounts), **plan.written}
        values, lists = several.parted({**texts, **plan.written})
        section = [(f"_{name}", text) for name, members in lists.items() for text in members]
        change = summary.link(values, base, free, about.get("user", ""))
        page = await self.render_template(
            "snowy_several.html",
            for_user=user,
            title=plan.title,
            group=group_id,
            outcomes=outcomes,
            labels={name: each.label for name, each in FIELDS.items()},
            columns={name: FIELDS[name].label for name in several.LISTS},
            confirmed=confirmed,
            count=sum(outcome.possible for outcome in outcomes),
            cost=self._cost(outcomes),
            left_out=rest,
            fields={**texts, **plan.written},
            action=url_concat(f"{base}snowy/several", {**about, **({"server": free} if free else {})}),
            change_url=f"{change}{'&' if '?' in change else '?'}{urlencode(section, safe=',')}",
            share_url=summary.link(shared, base),
            line=summary.line(shared, site),
            pending_url=lambda name: url_path_join(base, "spawn-pending", user.escaped_name, url_escape_path(name)),
        )
        self.set_header("Cache-Control", "no-store")
        self.finish(page)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say what is wrong in JSON to who asks in JSON, as JupyterHub's API does."""
        if not self.wants_json:
            super().write_error(status_code, **kwargs)
            return
        error = kwargs.get("exc_info", (None, None))[1]
        said = error.log_message if isinstance(error, web.HTTPError) else ""
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"status": status_code, "message": said or responses.get(status_code, "")}))


class GroupHandler(EndingHandler):
    """What is done to all sessions that were started together."""

    @web.authenticated
    async def post(self, user_name: str, group_id: str) -> None:
        """Do it, and show the home page."""
        await self._post(user_name=user_name, group_id=group_id)

    def members(self, user_name: str, group_id: str) -> list[Session]:
        """Return the spawners of the group. 404 if there is none; asking makes nothing."""
        user = self.session(user_name, "").user
        spawners: list[Session] = [user.spawners[name] for name in user.orm_spawners if name]
        found = [spawner for spawner in spawners if spawner.group and spawner.group.id == group_id]
        if not found:
            raise web.HTTPError(404, "No such sessions")
        return found


class StopAllHandler(GroupHandler):
    """End every session of a group that runs or waits."""

    @needs_scope("delete:servers")  # type: ignore[untyped-decorator]
    async def _post(self, user_name: str, group_id: str) -> None:
        members = [spawner for spawner in self.members(user_name, group_id) if in_use(spawner)]
        await self.begin(self._end_all(members))
        self.go_on("home")

    async def _end_all(self, members: Sequence[Session]) -> None:
        # One that fails is in JupyterHub's log, and holds up no other.
        await asyncio.gather(*(self.end(spawner) for spawner in members), return_exceptions=True)


class RemoveAllHandler(GroupHandler):
    """Remove the sessions of a group from the home page when all of them have ended."""

    @needs_scope("delete:servers")  # type: ignore[untyped-decorator]
    async def _post(self, user_name: str, group_id: str) -> None:
        members = self.members(user_name, group_id)
        if any(in_use(spawner) for spawner in members):
            raise web.HTTPError(409, "Not all of these sessions have ended: stop them first.")
        for spawner in members:
            await remove_row(self, spawner)
        self.go_on("home")


default_handlers += [
    (r"/snowy/several", SeveralHandler),
    (r"/snowy/stop-all/([^/]+)/([0-9a-f]+)", StopAllHandler),
    (r"/snowy/remove-all/([^/]+)/([0-9a-f]+)", RemoveAllHandler),
]
