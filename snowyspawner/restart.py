"""What a hub does once after its own start: takes up its servers' jobs, and carries out the stops left to it.

JupyterHub looks after a start only at servers that it holds to be running, and it forgets a server as soon as
somebody stops it. A job whose end Slurm had not accepted by then is known to our stored state alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from jupyterhub import orm
from jupyterhub.app import JupyterHub

from .metrics import BACKGROUND_FAILURES

_EVERY = 0.5  # seconds between two looks at whether the hub is up
_GIVE_UP = 300.0
_AGAIN, _AGAIN_LIMIT = 60.0, 3600.0  # seconds after a stop that could not be taken up

_task: asyncio.Task[None] | None = None


def schedule() -> None:
    """Have `finish_stops` run as soon as the hub whose configuration is being read is up."""
    global _task  # asyncio keeps no task alive by itself
    with contextlib.suppress(RuntimeError):  # no loop: somebody only looks at the configuration
        _task = asyncio.get_running_loop().create_task(_when_up(), name="snowyspawner restart")


async def _when_up() -> None:
    for _ in range(int(_GIVE_UP / _EVERY)):
        await asyncio.sleep(_EVERY)
        hub = JupyterHub.instance() if JupyterHub.initialized() else None
        if hub is not None and getattr(hub, "http_server", None) is not None:
            pause = _AGAIN
            while finish_stops(hub)[1]:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _AGAIN_LIMIT)
            return


def finish_stops(hub: Any) -> tuple[list[str], bool]:
    """Take up every stored stop of *hub* (a JupyterHub) again; return the names of the jobs, and whether any failed."""
    found, failed = [], False
    for row in hub.db.query(orm.Spawner):
        try:
            if name := _finish_stop(hub, row):
                found.append(name)
        except Exception:
            # The others' are carried out all the same.
            failed = True
            BACKGROUND_FAILURES.labels("restart").inc()
            hub.log.exception("The job of server %s (%r) cannot be stopped yet; it is tried again", row.id, row.name)
    return found, failed


def _finish_stop(hub: Any, row: orm.Spawner) -> str:
    stored = row.state.get("job") if isinstance(row.state, dict) else None
    if row.user is None or not isinstance(stored, dict) or stored.get("phase") == "ended":
        return ""
    # It is in memory from now on: the page of all sessions shows a job that nobody has come to see yet.
    spawner = hub.users[row.user].spawners[row.name]
    if stored.get("phase") != "stopping" or not hasattr(spawner, "finish_stop"):
        return ""
    spawner.finish_stop()
    return str(stored.get("name"))
