"""The hub's side of claim and report: what a job may say to the hub, and nothing else.

A job proves itself by its name and its one-time secret. Each call accepts exactly its fields, bounded, for that
one job, in the phase that waits for it; anything else is answered with 4xx and changes nothing.

Importing this replaces batchspawner's handler, through which a job could set any attribute of its spawner.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any, Protocol

from batchspawner.api import BatchSpawnerAPIHandler
from jupyterhub import orm
from jupyterhub.apihandlers import default_handlers
from jupyterhub.apihandlers.base import APIHandler
from tornado import web

from ..session.record import Job, load_job
from ..session.usage import Usage, read_usage
from ..slurm import names

#: Where claim and report are, below the hub's API.
PREFIX = "snowyspawner/"

_BODY_LIMIT = 64 * 1024
# What is longer is answered as long as it is not longer than this; then the connection is closed.
_READ_LIMIT = 1024 * 1024
_IDENTITY = {"server": int, "name": str, "secret": str, "job_id": str, "node": str}
# Tasks that nobody awaits are kept here, or they could be collected half done.
_resuming: set[asyncio.Task[None]] = set()


# A Protocol, as the class is in a layer above; and a job shall reach no more of it than this.
class Claimed(Protocol):
    """What a job reaches of its `SnowySpawner`. The dicts are answers; None: the hub has to take the job up again."""

    name: str
    job_id: str
    user: Any
    pending: str | None
    ready: bool
    attaches: bool

    @property
    def job(self) -> Job | None:
        """The job of this server, if there is one."""

    def claimed(self, job_id: str, node: str) -> dict[str, Any] | None:
        """Hand the job its server's environment."""

    async def serving(self, port: int, node: str) -> dict[str, Any] | None:
        """Note where the server answers."""

    def gave_up(self, code: int, detail: str, log: list[str]) -> dict[str, Any] | None:
        """Note why the job cannot serve, or no longer does."""

    def used(self, usage: Usage) -> dict[str, Any]:
        """Note what the job has used so far."""


@web.stream_request_body
class JobHandler(APIHandler):  # type: ignore[misc]  # jupyterhub has no types
    """A job speaks for itself: no user, no cookie, no token."""

    def check_xsrf_cookie(self) -> None:
        """Do nothing: a job has no cookie that another site could use."""

    async def prepare(self) -> None:
        """Be ready for the body, of which no more is kept than may be in it."""
        self._body = bytearray()
        self.request.connection.set_max_body_size(_READ_LIMIT)
        await super().prepare()

    def data_received(self, chunk: bytes) -> None:
        """Take a piece of the body."""
        self._body += chunk[: _BODY_LIMIT + 1 - len(self._body)]

    def read(self, *shapes: dict[str, type]) -> dict[str, Any]:
        """Return the body: the identity's fields and exactly those of one of *shapes*, each of its type.

        Raises HTTPError 400 otherwise.
        """
        if len(self._body) > _BODY_LIMIT:
            raise web.HTTPError(400, "too long")
        try:
            body = json.loads(self._body)
        except (ValueError, RecursionError):
            raise web.HTTPError(400, "not JSON") from None
        wanted = [_IDENTITY | shape for shape in shapes]
        fields = next((f for f in wanted if isinstance(body, dict) and body.keys() == f.keys()), None)
        if fields is None:
            raise web.HTTPError(400, "not the fields that are expected")
        for name, kind in fields.items():
            # A bool is an int to Python, not to us.
            if type(body[name]) is not kind:
                raise web.HTTPError(400, f"{name}: not of type {kind.__name__}")
        if not re.fullmatch(r"[0-9]{1,18}", body["job_id"], re.ASCII):
            raise web.HTTPError(400, "job_id: not a job's number")
        if not re.fullmatch(names.NODE, body["node"], re.ASCII):
            raise web.HTTPError(400, "node: not a node's name")
        return dict(body)

    def find(self, body: dict[str, Any]) -> Claimed:
        """Return the spawner whose job this is. 404 for everybody else, whatever is wrong.

        Who does not know the secret makes the hub do nothing but look at one row.
        """
        row = self.db.get(orm.Spawner, body["server"]) if 0 < body["server"] < 2**31 else None
        if row is None or row.user is None or not isinstance(row.state, dict):
            raise web.HTTPError(404, "no such job")
        if _is_of(load_job(row.state.get("job")), body):
            spawner: Claimed = self.users[row.user].spawners[row.name]
            if hasattr(spawner, "gave_up") and _is_of(spawner.job, body):
                return spawner
        raise web.HTTPError(404, "no such job")

    def reply(self, spawner: Claimed, answer: dict[str, Any] | None) -> None:
        """Send *answer*; without one (the hub was restarted meanwhile) take the session up again and send 202."""
        if answer is None:
            self.resume(spawner)
            self.set_status(202)
        self.set_header("Cache-Control", "no-store")
        self.finish(json.dumps(answer or {}))

    def resume(self, spawner: Claimed) -> None:
        """Start the spawn that will attach to this job."""
        if spawner.pending or spawner.ready:
            return

        async def spawn() -> None:
            spawner.attaches = True
            try:
                await self.spawn_single_user(spawner.user, spawner.name, options=None)
            except Exception:
                # JupyterHub may have refused it before the spawner was asked: the next start is somebody's own.
                spawner.attaches = False
                self.log.exception("Could not take up job %s again", spawner.job_id)

        task = asyncio.create_task(spawn())
        _resuming.add(task)
        task.add_done_callback(_resuming.discard)


class ClaimHandler(JobHandler):
    """A job has started: it gets its server's environment, or is asked to wait while the hub takes it up again."""

    async def post(self) -> None:
        """Answer 200 with what `SnowySpawner.claimed` returns, or 202, or 404/410."""
        body = self.read({})
        spawner = self.find(body)
        self.reply(spawner, spawner.claimed(body["job_id"], body["node"]))


class ReportHandler(JobHandler):
    """A job's server answers on a port, or the job says why there is none, or what it uses."""

    async def post(self) -> None:
        """Answer 200 (``{"again": true}``: claim once more), or 202, or 4xx when nobody waits for this."""
        end = {"code": int, "detail": str, "log": list}
        body = self.read({"port": int}, end, {"usage": dict}, {**end, "usage": dict})
        spawner = self.find(body)
        if "usage" in body:
            try:
                usage = read_usage(body["usage"])
            except ValueError as error:
                raise web.HTTPError(400, str(error)) from None
            answer = spawner.used(usage)
            if "code" not in body:
                self.reply(spawner, answer)
                return
        if "port" in body:
            if not 1024 <= body["port"] <= 65535:
                raise web.HTTPError(400, "port: 1024 to 65535")
            self.reply(spawner, await spawner.serving(body["port"], body["node"]))
        else:
            log = [_showable(line) for line in body["log"][-20:] if isinstance(line, str)]
            self.reply(spawner, spawner.gave_up(body["code"] & 0xFF, _showable(body["detail"]), log))


def _is_of(job: Job | None, body: dict[str, Any]) -> bool:
    """Tell whether it is *job* that speaks."""
    if job is None or not job.knows(body["secret"]):
        return False
    return job.name == body["name"] and job.job_id in ("", body["job_id"])


def _showable(text: str) -> str:
    """Shorten *text*, and replace what no page could be encoded with."""
    return text[:500].encode(errors="replace").decode()


default_handlers[:] = [
    *(handler for handler in default_handlers if handler[1] is not BatchSpawnerAPIHandler),
    (r"/api/snowyspawner/claim", ClaimHandler),
    (r"/api/snowyspawner/report", ReportHandler),
]
