"""What a hub does once after its own start: carries out the stops that the hub before it could not.

JupyterHub looks after a start only at servers that it holds to be running, and it forgets a server as soon as
somebody stops it. A job whose end Slurm had not accepted by then is known to our stored state alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from jupyterhub import orm
from jupyterhub.app import JupyterHub

_EVERY = 0.5  # seconds between two looks at whether the hub is up
_GIVE_UP = 300.0

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
            finish_stops(hub)
            return


def finish_stops(hub: Any) -> list[str]:
    """Take up every stored stop of *hub* (a JupyterHub) again; return the names of the jobs."""
    found = []
    for row in hub.db.query(orm.Spawner):
        stored = (row.state or {}).get("job") or {}
        if row.user is None or not isinstance(stored, dict) or stored.get("phase") != "stopping":
            continue
        spawner = hub.users[row.user].spawners[row.name]
        if hasattr(spawner, "finish_stop"):
            spawner.finish_stop()
            found.append(str(stored.get("name")))
    return found
