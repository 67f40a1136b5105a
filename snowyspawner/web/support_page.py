"""The details of a session that has ended, for people who help: one text to copy or to download."""

from __future__ import annotations

import asyncio
import re
import time
from weakref import WeakValueDictionary

from jupyterhub.handlers import default_handlers
from jupyterhub.scopes import needs_scope
from tornado import web

from ..choice.request import load
from ..session import script, support
from ..session.as_person import ReadError, shared_reader
from ..session.errors import SessionError
from ..session.record import Ended, job_name
from ..slurm.client import SlurmError, within
from .card import why
from .session_pages import READS_LOGS, SERVER, Session, SessionHandler

# Seconds that accounting gets; the rest is of use without it.
_PATIENCE = 10.0
# One at a time for each server: each asks Slurm, and reads a log.
_turns: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()


class SupportHandler(SessionHandler):
    """The details of the session that ended last under this name, to its owner and to whoever may read its log."""

    @web.authenticated
    async def get(self, user_name: str, server_name: str | None = None) -> None:
        """Answer with plain text, as a file. 404 while nothing has ended."""
        await self._get(user_name=user_name, server_name=server_name or "")

    @needs_scope(*READS_LOGS)  # type: ignore[untyped-decorator]
    async def _get(self, user_name: str, server_name: str) -> None:
        spawner = self.session(user_name, server_name)
        last = spawner.life.last
        if last is None:
            raise web.HTTPError(404, "No session has ended here.")
        async with _turns.setdefault(spawner.orm_spawner.id, asyncio.Lock()):
            text = await _details(spawner, last)
        name = re.sub(r"[^A-Za-z0-9-]", "", f"{server_name or 'session'}-{last.job_id or 'not-submitted'}")
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.set_header("Content-Disposition", f'attachment; filename="jupyterlab-{name}.txt"')
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cache-Control", "no-store")
        self.finish(text)


async def _details(spawner: Session, last: Ended) -> str:
    life, problems = spawner.life, {}
    log, record, text, version = list(last.log), None, None, ""
    try:
        account = await life.account()
        target = spawner.target(last.name or job_name(spawner.name, "0" * 8), account)
        text = script.build(life.site, load(last.request), target)
        # What was kept is the last lines only, and less of them.
        log = (last.job_id and await shared_reader(life.site).log(last.job_id, account)) or log
    except (ReadError, SessionError) as error:
        problems["log"] = str(error)
    except (KeyError, TypeError, ValueError) as error:
        problems["script"] = f"It cannot be written for these choices any more ({error})."
    try:
        version = await life.watcher.client.version()
        if last.job_id:
            record = await within(life.record(last.job_id), _PATIENCE)
    except (TimeoutError, asyncio.TimeoutError):
        problems["record"] = f"Accounting has not answered within {_PATIENCE:g} seconds."
    except SlurmError as error:
        problems["record"] = f"Accounting cannot be asked: {error.stderr}"
    found = support.Found(log, record, text, version, problems)
    return support.details(last, why(last, life.site), life.site, spawner.whose(), found, time.time())


default_handlers += [(rf"/snowy/support{SERVER}", SupportHandler)]
