"""The hub's pages beside the form: what its buttons ask for, and the link that opens it filled in.

Nothing here starts a session. What is asked for by JavaScript is JSON and gets JSON; the same buttons work without
it: then an ordinary form comes in, and the form's page goes out again with the answer above it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from jupyterhub.handlers import default_handlers
from jupyterhub.handlers.base import BaseHandler
from jupyterhub.handlers.pages import SpawnHandler
from jupyterhub.scopes import needs_scope
from jupyterhub.user import User
from jupyterhub.utils import maybe_future, url_escape_path, url_path_join
from tornado import web
from tornado.httputil import url_concat

from .._share import share_dir
from ..choice import request, several, summary
from ..choice.course import version
from ..choice.own import OWN
from ..choice.presets import checked_name
from ..session import admission, script
from ..session.errors import SessionError
from ..session.estimate import TooOftenError
from ..session.record import Job, job_name
from ..session.software import FRESH_FOR
from ..site.fields import FIELDS
from ..slurm.facts import JOBS_FOR
from . import availability, courses, dry_run, hub_private
from .form import COURSE
from .form_state import Server, Typed, submitted, typed

#: The fields of which one takes the place of another.
SOFTWARE = {"environment", *OWN}
_BODY_LIMIT = 64 * 1024
_YEAR = 366 * 86400
_PATIENCE = 10  # seconds that Start waits for Slurm
_COURSE_PATIENCE = 1.0  # seconds that a check waits for a person's course files, if they are being read


class StaticHandler(web.StaticFileHandler):
    """The files of share/static: the same for everybody, signed in or not."""

    def set_extra_headers(self, path: str) -> None:
        """Let browsers keep what is asked for by its content's hash; anything else they ask for again."""
        keep = f"public, max-age={_YEAR}, immutable" if self.get_argument("v", "") else "no-cache"
        self.set_header("Cache-Control", keep)
        self.set_header("X-Content-Type-Options", "nosniff")


class PageHandler(BaseHandler):  # type: ignore[misc]  # jupyterhub has no types
    """What the form's pages have in common: whose form it is, what was sent, how it is answered."""

    server_name = ""
    spawner: Server

    @property
    def wants_json(self) -> bool:
        """Whether JavaScript asks."""
        return str(self.request.headers.get("Content-Type", "")).partition(";")[0].strip() == "application/json"

    def fields(self) -> dict[str, Any]:
        """Return what was sent, field by field; from JSON, values of any kind. Raises HTTPError 400."""
        if len(self.request.body) > _BODY_LIMIT:
            raise web.HTTPError(400, "too long")
        if not self.wants_json:
            sent = posted(self)
            return request.from_form(sent) | {key: sent[key][-1] for key in request.BUTTONS if key in sent}
        try:
            body = json.loads(self.request.body)
        except (ValueError, RecursionError):
            raise web.HTTPError(400, "not JSON") from None
        if not isinstance(body, dict):
            raise web.HTTPError(400, "must be an object: a value for each field")
        return {field: value for field, value in body.items() if not field.startswith("_")}

    async def find(self) -> Server:
        """Find the spawner whose form it is: the person's own, or that of somebody whose servers they may start.

        A named server's row may not exist yet, and looking at a form makes none: then it is the default server's.
        """
        self.server_name = self.get_query_argument("server", "")
        user_name = self.get_query_argument("user", "") or self.current_user.name
        self.spawner = await self._allowed(user_name=user_name, server_name=self.server_name)
        return self.spawner

    @needs_scope("servers")  # type: ignore[untyped-decorator]
    async def _allowed(self, user_name: str, server_name: str) -> Server:
        user = find_user(self, user_name)
        if user is None:
            raise web.HTTPError(404, "no such user")
        spawner: Server = user.spawners[server_name] if server_name in user.orm_spawners else user.spawner
        return spawner

    def asked(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return the choices of the link, and what of it is no choice."""
        query = {key: self.get_query_arguments(key)[-1] for key in self.request.query_arguments}
        options = {key[4:]: text for key, text in query.items() if key.startswith("opt-")}
        known = {"server", "user", "next", *(f"_{name}" for name in several.LISTS)}
        rest = query.keys() - known - {f"opt-{key}" for key in options}
        return options, {key[:64]: f"is not read: a choice is written opt-{key[:64]}" for key in sorted(rest)}

    async def wrong_software(self, requests: Sequence[request.SessionRequest]) -> dict[str, str]:
        """Say what is wrong with the user's own software, which all of *requests* have: one look is enough."""
        try:
            if requests:
                await admission.check_software(self.spawner.life, requests[0], FRESH_FOR)
        except request.RequestError as error:
            return error.errors
        except SessionError:  # who has no account on this machine still learns the rest
            pass
        return {}

    def reply(self, answer: dict[str, Any], status: int = 200) -> None:
        """Send *answer* as JSON."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-store")
        self.finish(json.dumps(answer))

    async def show(
        self,
        values: Mapping[str, Any],
        errors: Mapping[str, str],
        answer: dict[str, Any] | None = None,
        status: int = 200,
        lists: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Send the form's page, showing *values* and *errors*, with *answer* above them.

        *lists* is what stands in the section for several sessions.
        """
        texts = {field: text for field, text in values.items() if isinstance(text, str)}
        typed.set(Typed(texts, dict(errors), self.server_name, answer or {}, lists or {}))
        user = self.spawner.user
        form = await self.spawner.get_options_form()
        url = url_path_join(self.hub.base_url, "spawn", user.escaped_name, url_escape_path(self.server_name))
        page = await self.render_template(
            "spawn.html",
            for_user=user,
            auth_state=await user.get_auth_state(),
            spawner_options_form=form,
            error_message="",
            html_error_message="",
            url=url_concat(url, {"_xsrf": self.xsrf_token.decode("ascii")}),
            spawner=self.spawner,
        )
        self.set_status(status)
        self.set_header("Cache-Control", "no-store")
        self.finish(page)


class ActionHandler(PageHandler):
    """A button of the form: a choice comes in, something about it goes out."""

    title = ""
    whole: several.Verdict | None  # of a choice that means several sessions

    @web.authenticated
    async def get(self) -> None:
        """Go to the form: what a button has answered without JavaScript may be loaded again, or its address shared."""
        query = f"?{self.request.query}" if self.request.query else ""
        self.redirect(f"{self.hub.base_url}snowy{query}")

    @web.authenticated
    async def post(self) -> None:
        """Answer what the button asks."""
        await self.find()
        fields = self.fields()
        values = {field: value for field, value in fields.items() if field not in request.BUTTONS}
        await admission.ask_accounts(self.spawner.life)
        found = admission.review(self.spawner.life, values)
        self.whole = admission.several_of(self.spawner.life, values)
        shown = summary.as_shown(values, found)
        try:
            status, answer = await self.answer(fields, found)
        except SessionError as error:
            status, answer = error.status_code, {"errors": {}, "sentence": error.jupyterhub_message}
        if self.wants_json:
            self.reply(answer, status)
            return
        errors = (self.whole or found).errors | answer.get("errors", {})
        above = {"title": self.title, "sentences": sentences(answer), **answer}
        lists = answer.get("lists") or several.section(posted(self))
        await self.show({**shown, **answer.get("values", {})}, errors, above, status, lists)

    async def answer(self, fields: dict[str, Any], found: request.Review) -> tuple[int, dict[str, Any]]:
        """Return status and answer. Raises `SessionError`."""
        raise NotImplementedError

    def impossible(self, what: str) -> str:
        """Say why a button can say nothing of this choice: *what* there is none of."""
        if self.whole is None or self.whole.errors:
            return f"{what} as it is: look at the fields that are marked."
        names = " and ".join(FIELDS[name].in_words for name in self.whole.plan.lists) if self.whole.plan else ""
        return f"This is said of one session at a time: choose one value for {names}."

    async def target(self, server_name: str) -> script.Target:
        """Return what a server's script needs beside the choice. Raises `SessionError`.

        Made up are the job's name and, for a server that the hub does not have yet, its number (0).
        """
        spawner = self.spawner
        account = spawner.life.known_account or await spawner.life.account()
        target = spawner.target(job_name(server_name, "0" * 8), account)
        # The form of a server that is not there yet is the default server's.
        return target if server_name == spawner.name else replace(target, server=0)


class CheckHandler(ActionHandler):
    """What the server thinks of a choice, and how it reads it."""

    title = "Your choice"

    async def answer(self, fields: dict[str, Any], found: request.Review) -> tuple[int, dict[str, Any]]:
        """Say all that can be said without asking Slurm about this choice."""
        life = self.spawner.life
        availability.look_soon(life)
        await courses.look(life, _COURSE_PATIENCE)
        site, accounts = life.site, admission.accounts(life)
        said = self.whole or found
        requests = self.whole.requests if self.whole else [found.request] if found.request else []
        answer: dict[str, Any] = {
            "errors": {**said.errors, **await self.wrong_software(requests)},
            "remarks": said.remarks,
            "said": summary.said(found.read, site),
            "cost": "",
            "argv": [],
            "line": "",
            "link": "",
            "accounts": accounts,
            "courses": version(courses.cards(life)),
            **availability.live(life),
        }
        if requests and not said.errors:
            shared = summary.shared_options(requests[0], site, accounts)
            if self.whole and self.whole.plan:
                shared |= self.whole.plan.written
            answer |= {
                "cost": summary.total(requests, site),
                "line": summary.line(shared, site),
                "link": summary.link(shared, self.hub.base_url),
            }
        if found.request:
            # Who has no account on this machine still learns the rest.
            with contextlib.suppress(SessionError):
                answer["argv"] = dry_run.command(site, found.request, await self.target(self.server_name))
        return 200, answer


class EstimateHandler(ActionHandler):
    """When would this start?"""

    title = "When would this start?"

    async def answer(self, fields: dict[str, Any], found: request.Review) -> tuple[int, dict[str, Any]]:
        """Ask Slurm, unless the choice is refused here or this person asks too often."""
        if found.request is None:
            sentence = self.impossible("This cannot be started")
            errors = (self.whole or found).errors
            return 200, {"errors": errors, "sentence": sentence, "start": None, "sooner": None}
        life = self.spawner.life
        try:
            await admission.check_software(life, found.request, FRESH_FOR)
            await admission.check_room(life, found.request, JOBS_FOR)
            return 200, await dry_run.when(life, found.request, await self.target(self.spawner.name))
        except request.RequestError as error:
            sentence = f"Not now: {'; '.join(error.errors.values())}."
            return 200, {"sentence": sentence, "start": None, "errors": error.errors}
        except TooOftenError:
            sentence = "You have asked often within a minute, and Slurm has other work: try again in a while."
            return 429, {"errors": {}, "sentence": sentence, "start": None, "sooner": None}


class ScriptHandler(ActionHandler):
    """The job script of a choice, for learning. No secret is in it, as none is in the one that is submitted."""

    title = "The job script"

    async def answer(self, fields: dict[str, Any], found: request.Review) -> tuple[int, dict[str, Any]]:
        """Return the script and the command that reads it."""
        if found.request is None:
            sentence = self.impossible("There is no script for this")
            return 200, {"errors": (self.whole or found).errors, "sentence": sentence, "script": "", "argv": []}
        target = await self.target(self.server_name)
        argv, text = dry_run.job_script(self.spawner.life, found.request, target)
        return 200, {"errors": {}, "script": text, "argv": argv}


class LineHandler(ActionHandler):
    """A notebook.py line as fields of the form."""

    title = "Read from your line"

    async def answer(self, fields: dict[str, Any], found: request.Review) -> tuple[int, dict[str, Any]]:
        """Return what the line sets; 400 when it cannot be read."""
        if "line" in found.errors or not fields.get("line"):
            sentence = found.errors.get("line", "is empty: write one such as -n 4 -p devcore -t 1:00:00 -- tf-mkl")
            return 400, {"errors": {"line": sentence}}
        # Here the line was asked for, so it goes before the fields that came along.
        review = admission.review(self.spawner.life, found.line)
        whole = admission.several_of(self.spawner.life, found.line)
        if not self.wants_json:
            self.whole = None
            found.errors.clear()
        shown = summary.as_shown(found.line, review)
        if SOFTWARE & shown.keys():
            shown = dict.fromkeys(OWN, "") | shown  # what the form has of one's own would go before it
        values, lists = several.parted(shown)
        return 200, {"values": values, "lists": lists, "errors": (whole or review).errors}


class PresetHandler(ActionHandler):
    """Presets of one's own."""

    title = "Your presets"

    async def answer(self, fields: dict[str, Any], found: request.Review) -> tuple[int, dict[str, Any]]:
        """Save or delete one. 400 when that is not possible."""
        form = self.spawner.form_state
        # From the form each preset may have its own button; in JSON the name is a name.
        unwanted = fields.get("preset_delete")
        delete = bool(unwanted) or fields.get("delete") is True or fields.get("preset_action") == "delete"
        name = unwanted or fields.get("preset_name", fields.get("name"))
        beside = (*request.BUTTONS, "name", "delete")
        options = {field: value for field, value in fields.items() if field not in beside}
        wanted = admission.review(self.spawner.life, options)
        self.whole = None  # a card is of one session
        found.errors.clear()
        try:
            name = checked_name(name)
            if delete:
                form.keep(form.own.without_preset(name))
            elif wanted.request is None:
                return 400, {"errors": wanted.errors}
            else:
                form.keep(form.own.with_preset(name, wanted.request.options(form.site)))
        except ValueError as error:
            return 400, {"errors": {"preset_name": str(error)}}
        sentence = f"{name} is {'deleted' if delete else 'saved'}."
        return 200, {"errors": {}, "sentence": sentence, "own_presets": form.own.presets}


class PatientHandler(BaseHandler):  # type: ignore[misc]  # jupyterhub has no types
    """Starts servers, and answers when their jobs are at Slurm, or refused."""

    @property
    def slow_spawn_timeout(self) -> float:
        """Seconds after which the page that waits comes before that is known; 0, at once, if the hub says so."""
        configured: float = super().slow_spawn_timeout
        return max(configured, _PATIENCE) if configured else 0

    async def patiently(self, work: Coroutine[Any, Any, None]) -> asyncio.Future[None]:
        """Begin *work*, which starts a server, and return it when the job is at Slurm, or refused."""
        event = asyncio.Event()
        submitted.set(event)
        start, at_slurm = asyncio.ensure_future(work), asyncio.ensure_future(event.wait())
        await asyncio.wait([start, at_slurm], timeout=self.slow_spawn_timeout or 1, return_when=asyncio.FIRST_COMPLETED)
        at_slurm.cancel()
        start.add_done_callback(lambda done: done.cancelled() or done.exception())  # JupyterHub keeps it for the page
        return start


class FormHandler(PatientHandler, hub_private.PatientSpawnHandler):
    """JupyterHub's own page with the form, but looking at it, or being refused, leaves no server behind.

    JupyterHub makes a server's row as soon as somebody asks for its form: it would stand on the home page for good.

    Start answers when the job is at Slurm, with the page that waits, or refused, with the form as it was typed. A
    choice of several sessions is sent on to the page that asks whether they are meant.
    """

    async def get(self, user_name: str | None = None, server_name: str = "") -> None:
        """Show the form."""
        async with self._leaving_nothing(user_name, server_name):
            await maybe_future(super().get(user_name, server_name))

    async def post(self, user_name: str | None = None, server_name: str = "") -> None:
        """Start the server, unless several are meant."""
        if self._means_several(user_name):
            # The same form goes there; nothing has been looked at or changed here.
            about = {"user": user_name, "server": server_name}
            query = [(name, text) for name, text in about.items() if text]
            self.redirect(url_concat(f"{self.hub.base_url}snowy/several", query), status=307)
            return
        async with self._leaving_nothing(user_name, server_name):
            # JupyterHub has it from the row, which is not there yet.
            shown = self.get_query_argument("display_name", "")
            await maybe_future(super().post(user_name, server_name, shown))

    def _means_several(self, user_name: str | None) -> bool:
        user = find_user(self, user_name) if user_name and self.current_user else self.current_user
        fields = posted(self)
        # A course's own Start is for its choice, whatever else stands in the form.
        if user is None or not hasattr(user.spawner, "life") or COURSE in fields:
            return False
        return several.means_several(several.sent(fields), user.spawner.life.site)

    @asynccontextmanager
    async def _leaving_nothing(self, user_name: str | None, server_name: str | None) -> AsyncIterator[None]:
        user = find_user(self, user_name) if user_name else self.current_user
        new = bool(user and server_name and server_name not in user.orm_spawners)
        try:
            yield
        finally:
            if new and server_name in user.orm_spawners:
                spawner = user.spawners[server_name]
                life = getattr(spawner, "life", None)
                if life and not spawner.active and life.job is None and life.last is None:
                    await remove_row(self, spawner)


def posted(handler: BaseHandler) -> dict[str, list[str]]:
    """Return the fields of the form that came in."""
    arguments = handler.request.body_arguments
    return {key: [handler.decode_argument(text) for text in texts] for key, texts in arguments.items()}


def find_user(handler: BaseHandler, name: str) -> Any:
    """Return JupyterHub's user of this *name*, or None.

    The person who asks is known to the request already: looking them up again is a fifth of what the form costs.
    """
    asking = handler.current_user
    return asking if isinstance(asking, User) and asking.name == name else handler.find_user(name)


async def remove_row(handler: Any, spawner: Any) -> None:
    """Let the hub forget a named server that does not run."""
    user, name = spawner.user, spawner.name
    await hub_private.delete_spawner(spawner)
    handler.db.delete(spawner.orm_spawner)
    user.spawners.pop(name, None)
    handler.db.commit()


class LinkHandler(PageHandler):
    """The link that opens the form filled in: ``/hub/snowy?opt-cores=8&…``. It never starts anything."""

    @web.authenticated
    async def get(self) -> None:
        """Show the form; if the session runs already, say so, and offer to open it or to start this beside it.

        A choice of several sessions leads to their own page.
        """
        await self.find()
        options, errors = self.asked()
        if several.means_several(options, self.spawner.life.site):
            self.redirect(f"{self.hub.base_url}snowy/several?{self.request.query}")
            return
        lists = several.section({key: self.get_query_arguments(key) for key in self.request.query_arguments})
        found = admission.review(self.spawner.life, options)
        errors = {**found.errors, **errors}
        if not (self.spawner.active and self.spawner.name == self.server_name):
            await self.show(summary.as_shown(options, found), errors, lists=lists)
            return
        user = self.spawner.user
        free, note = await free_name(self, user)
        beside = url_concat(self.request.path, [("server", free), *self.others()]) if free else ""
        page = await self.render_template(
            "snowy_link.html",
            for_user=user,
            server_name=self.server_name,
            running=self.spawner.ready,
            server_url=user.server_url(self.server_name),
            what=what(self.spawner.life.job),
            beside_url=beside,
            beside_note=note,
            asked=[[field, text] for field, text in options.items()],
            errors=errors,
        )
        self.set_header("Cache-Control", "no-store")
        self.finish(page)

    def others(self) -> list[tuple[str, str]]:
        """Return the link's query without the server."""
        return [
            (key, text)
            for key in self.request.query_arguments
            if key != "server"
            for text in self.get_query_arguments(key)
        ]


async def free_name(handler: Any, user: Any, fresh: bool = False) -> tuple[str, str]:
    """Return the name of a server that *user* can start beside those that run; or an empty one, and why.

    With *fresh* it is one that no session has had, where the hub's limit of named servers lets there be one more.
    """
    if not handler.allow_named_servers:
        return "", "This hub gives everybody one session at a time: stop the one that runs first."
    named = [name for name in user.orm_spawners if name]
    limit = await handler.get_current_user_named_server_limit()
    busy = {name for name in named if in_use(user.spawners[name])}
    if limit <= 0 or len(named) < limit:
        taken = set(named) if fresh else busy
        return next(name for name in (f"lab-{number}" for number in range(2, len(named) + 3)) if name not in taken), ""
    idle = next((name for name in named if name not in busy), "")
    return idle, "" if idle else f"You have {limit} sessions beside this one already: stop one first."


def in_use(spawner: Any) -> bool:
    """Tell whether something runs or waits there: also a job that no start follows."""
    return bool(spawner.active or (spawner.job and spawner.job.alive))


def what(job: Job | None) -> str:
    """Say in a few words what the session of *job* is."""
    if job is None:
        return ""
    cores = job.request.get("cores", 0)
    parts = [f"{cores} core{'s' if cores != 1 else ''}", request.load(job.request).software]
    return ", ".join([*parts, *([f"node {job.node}"] if job.node else [])])


def sentences(answer: dict[str, Any]) -> list[str]:
    """Return what of an answer is said above the form when there is no JavaScript to put it in its place."""
    said = answer.get("said", {})
    sooner = answer.get("sooner") or {}
    texts = [
        answer.get("sentence", ""),
        answer.get("cost", ""),
        f"Time: {said['time']}." if "time" in said else "",
        f"Start: {said['begin']}." if "begin" in said else "",
        sooner.get("sentence", ""),
        f"As a line: {answer['line']}" if answer.get("line") else "",
        f"As a link: {answer['link']}" if answer.get("link") else "",
    ]
    return [text for text in texts if text]


default_handlers[:] = [
    (path, FormHandler if handler is SpawnHandler else handler, *rest) for path, handler, *rest in default_handlers
]
default_handlers += [
    (r"/snowy", LinkHandler),
    (r"/snowy/static/(.*)", StaticHandler, {"path": str(share_dir() / "static")}),
    (r"/snowy/check", CheckHandler),
    (r"/snowy/estimate", EstimateHandler),
    (r"/snowy/script", ScriptHandler),
    (r"/snowy/line", LineHandler),
    (r"/snowy/preset", PresetHandler),
]
