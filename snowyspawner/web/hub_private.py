"""What JupyterHub offers no public way to do: every name of its that may change with any release is used here only.

Looked up in JupyterHub 6.0 and 6.1; tests/unit/test_hub_private.py says when one of them has gone.
"""

from __future__ import annotations

import asyncio
from typing import Any

from jupyterhub.utils import maybe_future


def start_of(spawner: Any) -> asyncio.Future[Any] | None:
    """Return the task of the start that is under way, or has failed; JupyterHub's own DELETE cancels it."""
    task: asyncio.Future[Any] | None = spawner._spawn_future
    return task


def forget_failed_start(spawner: Any) -> None:
    """Let a start that has failed be no reason to refuse the next one, as JupyterHub's own form does."""
    task = start_of(spawner)
    if task and task.done():
        spawner._spawn_future = None


async def delete_spawner(spawner: Any) -> None:
    """Do for a named server that is removed what JupyterHub's own DELETE does: its hook, and its OAuth client."""
    await maybe_future(spawner.user._delete_spawner(spawner))


def log_name(spawner: Any) -> str:
    """Return what JupyterHub's log calls this server: ``user:name``."""
    return str(spawner._log_name)
