"""What a person does with a session from the hub's pages: cancel, stop, start again, remove, read its log.

Each is an ordinary form or link, for JupyterHub's own buttons need JavaScript and know only the default server. A GET
never has an effect; a POST carries JupyterHub's XSRF token, and answers with a page to go on from.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine
from typing import Any, Protocol

from jupyterhub.handlers import default_handlers
from jupyterhub.handlers.base import BaseHandler
from jupyterhub.scopes import needs_scope
from jupyterhub.utils import url_escape_path, url_path_join
from tornado import web

from ..choice.request import load
from ..choice.several import Group
from ..session.as_person import ReadError, shared_reader
from ..session.errors import SessionError
from ..session.record import Job
from ..session.support import Whose
from . import hub_private
from .card import Card
from .form_pages import PatientHandler, find_user, free_name, in_use, remove_row
from .form_state import Server, joined

# Seconds that a POST waits for what it began, so that the page it leads to shows the outcome; it goes on without.
_PATIENCE = 3.0
# Seconds in which a hub that has just started knows whether a server still runs.
_CHECKED = 30.0
# Seconds that a cancelled start has to let go.
_LET_GO = 1.0
#: Any of these lets somebody read a log: whoever may open a server reads more than that in it, and a server's state has
#: the last lines in it.
READS_LOGS = ("access:servers", "admin:server_state")
#: What an address says of a server: whose it is, and its name unless it is the default one.
SERVER = r"/([^/]+)(?:/([^/]+))?"
# Tasks that nobody awaits are kept here, or they could be collected half done.
_tasks: set[asyncio.Task[Any]] = set()


# A Protocol for the same reason as `Server`.
class Session(Server, Protocol):
    """What is used here of a `SnowySpawner` beside what the form's pages use."""

    display_name: str
    pending: str | None
    attaches: bool
    group: Group | None  # of those that were started together
    orm_spawner: Any

    @property
    def job(self) -> Job | None:
        """The job of this server, if there is one."""

    def card(self) -> Card:
        """Return what pages show of this server."""

    async def stop(self) -> None:
        """End the job."""

    def whose(self) -> Whose:
        """Return whose session it is, for a text that goes to others."""

    async def poll_and_notify(self) -> int | None:
        """Ask whether it runs; JupyterHub learns of its end."""


class SessionHandler(BaseHandler):  # type: ignore[misc]  # jupyterhub has no types
    """What they have in common: whose session it is, and where to go on."""

    def session(self, user_name: str, server_name: str) -> Session:
        """Return the spawner. 404 if there is no such server; asking does not make one."""
        user = find_user(self, user_name)
        if user is None or (server_name and server_name not in user.orm_spawners):
            raise web.HTTPError(404, "No such session")
        spawner: Session = user.spawners[server_name]
        if not hasattr(spawner, "life"):
            raise web.HTTPError(404, "Not a session of Slurm's")
        return spawner

    def go_on(self, page: str, spawner: Session | None = None) -> None:
        """Send the browser to a page of the hub, of this server if one is given."""
        where = (spawner.user.escaped_name, url_escape_path(spawner.name)) if spawner else ()
        self.redirect(url_path_join(self.hub.base_url, page, *where), status=303)

    async def begin(self, work: Coroutine[Any, Any, Any], patience: float = _PATIENCE) -> asyncio.Task[Any]:
        """Have *work* done, whether the person waits or not; return it after *patience* seconds at most."""
        task = asyncio.ensure_future(work)
        _tasks.add(task)
        task.add_done_callback(_finished)
        await asyncio.wait([task], timeout=patience)
        return task


def _finished(task: asyncio.Task[Any]) -> None:
    _tasks.discard(task)
    if not task.cancelled():
        task.exception()  # it is in JupyterHub's log already


class EndingHandler(SessionHandler):
    """Ends sessions."""

    async def end(self, spawner: Session) -> None:
        """End what runs or waits there, whatever JupyterHub takes it for."""
        for _ in range(int(_CHECKED / 0.2)):
            if spawner.pending != "check":
                break
            await asyncio.sleep(0.2)
        if spawner.pending in ("stop", "rename"):
            return
        if spawner.pending:
            # As JupyterHub's own API does it.
            start = hub_private.start_of(spawner)
            if start and not start.done():
                start.cancel()
                await asyncio.wait([start], timeout=_LET_GO)
            if spawner.pending != "stop":
                await self.stop_single_user(spawner.user, spawner.name)
        elif spawner.ready:
            # A server that died is noticed by this.
            if await spawner.poll_and_notify() is None:
                await self.stop_single_user(spawner.user, spawner.name)
        elif spawner.job and spawner.job.alive:
            # A hub before this one started it, or could not end it.
            await spawner.life.tasks.begin("stop", spawner.stop())


class StopHandler(EndingHandler):
    """Cancel a job that waits, stop a session that runs: this one, whether JupyterHub remembers it or not."""

    @web.authenticated
    async def post(self, user_name: str, server_name: str | None = None) -> None:
        """End it, and show the home page."""
        await self._post(user_name=user_name, server_name=server_name or "")

    @needs_scope("delete:servers")  # type: ignore[untyped-decorator]
    async def _post(self, user_name: str, server_name: str) -> None:
        spawner = self.session(user_name, server_name)
        await self.begin(self.end(spawner))
        self.go_on("home")


class StartingHandler(SessionHandler):
    """Starts servers, as JupyterHub's form does."""

    async def spawn(self, spawner: Session, options: dict[str, Any] | None) -> None:
        """Start the server with *options*; without any, go on with the job that waits for it."""
        spawner.attaches = options is None
        try:
            await self.spawn_single_user(spawner.user, spawner.name, spawner.display_name, options=options)
        except Exception:
            # JupyterHub may have refused it before the spawner was asked: the next start is somebody's own.
            spawner.attaches = False
            raise

    def fresh(self, user: Any, name: str, display_name: str) -> Session:
        """Return the server's spawner, to be started; none that has failed before. Makes its row if there is none."""
        spawner: Session = user.get_or_create_spawner(name, display_name, replace_failed=True)
        hub_private.forget_failed_start(spawner)
        return spawner


class AgainHandler(PatientHandler, StartingHandler):
    """Start again with the same choices, or go on waiting for a job that is there already."""

    @web.authenticated
    async def post(self, user_name: str, server_name: str | None = None) -> None:
        """Start it, and show how it goes; without choices to start with, show the form."""
        await self._post(user_name=user_name, server_name=server_name or "")

    @needs_scope("start:servers")  # type: ignore[untyped-decorator]
    async def _post(self, user_name: str, server_name: str) -> None:
        spawner = self.session(user_name, server_name)
        if not spawner.active:
            options = None if spawner.life.resumable else self.options(spawner)
            if options is None and not spawner.life.resumable:
                self.go_on("spawn", spawner)
                return
            await self.start(spawner, options)
        self.go_on("spawn-pending", spawner)

    def options(self, spawner: Session) -> dict[str, str] | None:
        """Return what was chosen for the session that has ended; None when nothing can be made of it."""
        last = spawner.life.last
        stored = last.request if last else {}
        wanted = load(stored)
        if not (wanted.environment and wanted.image and wanted.partition and wanted.cores and wanted.time):
            return None  # of another version, and not all of it could be read
        options = wanted.options(spawner.life.site)
        if key := self.get_body_argument("advice", ""):
            # Of what to change only the advice's name comes from the page, which may be an old one.
            advice = spawner.card().advice
            if advice is None or advice.key != key:
                return None
            options |= advice.changes
        # A time that has passed and a reservation that is over would be refused.
        begin = options["begin"] if (stored.get("begin") or 0) > time.time() + 60 else ""
        return {**options, "begin": begin, "reservation": ""}

    async def start(self, spawner: Session, options: dict[str, str] | None) -> None:
        """Start the server as JupyterHub's form does. What fails is on the page that comes next."""
        joined.set(spawner.group)  # it stays with those it was started with
        spawner = self.fresh(spawner.user, spawner.name, spawner.display_name)
        work = self.spawn(spawner, options)
        # Slurm accepted a waiting job long ago: a second is enough to learn why it waits.
        task = await (self.begin(work, 1.0) if options is None else self.patiently(work))
        error = task.exception() if task.done() and not task.cancelled() else None
        if isinstance(error, web.HTTPError) and not isinstance(error, SessionError):
            raise error  # too many at once, and the like: JupyterHub remembers no failure of these


class ResumeHandler(AgainHandler):
    """Go on waiting for a job that a hub before this one submitted. Never submits one."""

    @needs_scope("start:servers")  # type: ignore[untyped-decorator]
    async def _post(self, user_name: str, server_name: str) -> None:
        spawner = self.session(user_name, server_name)
        if not spawner.active and spawner.life.resumable:
            await self.start(spawner, None)
        self.go_on("spawn-pending", spawner)


class KeepHandler(SessionHandler):
    """Let a session that nobody uses go on: it is not ended for that for as long again."""

    @web.authenticated
    async def post(self, user_name: str, server_name: str | None = None) -> None:
        """Note it, and show the home page."""
        await self._post(user_name=user_name, server_name=server_name or "")

    @needs_scope("start:servers")  # type: ignore[untyped-decorator]
    async def _post(self, user_name: str, server_name: str) -> None:
        spawner = self.session(user_name, server_name)
        if spawner.job and spawner.job.phase == "serving":
            spawner.life.keep(spawner.job)
        self.go_on("home")


class RemoveHandler(SessionHandler):
    """Remove a named server that has ended from the home page."""

    @web.authenticated
    async def post(self, user_name: str, server_name: str) -> None:
        """Remove it, and show the home page."""
        await self._post(user_name=user_name, server_name=server_name or "")

    @needs_scope("delete:servers")  # type: ignore[untyped-decorator]
    async def _post(self, user_name: str, server_name: str) -> None:
        spawner = self.session(user_name, server_name)
        if spawner.active or (spawner.job and spawner.job.alive):
            raise web.HTTPError(409, "This session has not ended yet: stop it first.")
        await remove_row(self, spawner)
        self.go_on("home")


class StatusHandler(SessionHandler):
    """What is happening, for a page whose stream of events has ended: the hub was restarted, say."""

    @web.authenticated
    async def get(self, user_name: str, server_name: str | None = None) -> None:
        """Answer in JSON. Reads memory only."""
        await self._get(user_name=user_name, server_name=server_name or "")

    @needs_scope("read:servers")  # type: ignore[untyped-decorator]
    async def _get(self, user_name: str, server_name: str) -> None:
        spawner = self.session(user_name, server_name)
        card = spawner.card()
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-store")
        status = card.status._asdict() if card.status else None
        self.finish(json.dumps({"kind": card.kind, "pending": spawner.pending, "snowy": status}))


class LogHandler(SessionHandler):
    """The end of the log of the job that is there, or of the last one."""

    @web.authenticated
    async def get(self, user_name: str, server_name: str | None = None) -> None:
        """Show it to its owner, and to whoever may use the server or see its state anyway."""
        await self._get(user_name=user_name, server_name=server_name or "")

    @needs_scope(*READS_LOGS)  # type: ignore[untyped-decorator]
    async def _get(self, user_name: str, server_name: str) -> None:
        spawner = self.session(user_name, server_name)
        card, problem = spawner.card(), ""
        lines: list[str] | None = None
        if card.job_id:
            try:
                lines = await shared_reader(spawner.life.site).log(card.job_id, await spawner.life.account())
            except (ReadError, SessionError) as error:
                problem = str(error)
        page = await self.render_template(
            "snowy_log.html",
            for_user=spawner.user,
            server_name=spawner.display_name or server_name,
            card=card,
            file="~/" + spawner.life.site.log.replace("%j", card.job_id),
            lines=lines,
            problem=problem,
        )
        self.set_header("Cache-Control", "no-store")
        self.finish(page)


class NewHandler(SessionHandler):
    """The form for one more session, under a free name. Starts nothing."""

    @web.authenticated
    async def get(self) -> None:
        """Lead to the form, for the default server if that is free."""
        user = self.current_user
        if not in_use(user.spawner):
            self.go_on("spawn", user.spawner)
            return
        name, note = await free_name(self, user, fresh=True)
        if not name:
            raise web.HTTPError(409, note)
        self.redirect(url_path_join(self.hub.base_url, "spawn", user.escaped_name, name), status=303)


default_handlers += [
    (r"/snowy/new", NewHandler),
    (rf"/snowy/stop{SERVER}", StopHandler),
    (rf"/snowy/again{SERVER}", AgainHandler),
    (rf"/snowy/resume{SERVER}", ResumeHandler),
    (rf"/snowy/keep{SERVER}", KeepHandler),
    (r"/snowy/remove/([^/]+)/([^/]+)", RemoveHandler),
    (rf"/snowy/status{SERVER}", StatusHandler),
    (rf"/snowy/log{SERVER}", LogHandler),
]
