"""What JupyterHub offers no public way to do: every name of its that may change with any release is used here only.

Looked up in JupyterHub 6.0 and 6.1; tests/unit/test_hub_private.py says when one of them has gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from jupyterhub.handlers.base import BaseHandler
from jupyterhub.handlers.pages import SpawnHandler
from jupyterhub.utils import maybe_future
from tornado import web


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


class TokenHandler(BaseHandler):  # type: ignore[misc]  # jupyterhub has no types
    """A page that takes a token, as JupyterHub's API does; who has one needs neither cookie nor XSRF token."""

    _accept_token_auth = True

    @property
    def has_token(self) -> bool:
        """Whether the request came with a token that is somebody's."""
        return bool(getattr(self, "_token_authenticated", False))


class PatientSpawnHandler(SpawnHandler):  # type: ignore[misc]  # jupyterhub has no types
    """JupyterHub's own handler of the form, with a say in how long Start waits for what becomes of the choice.

    JupyterHub goes on to the page that waits after a second, come what may.
    """

    async def patiently(self, work: Coroutine[Any, Any, None]) -> asyncio.Future[None]:
        """Begin *work*, which starts the server, and return it when the browser may go on."""
        raise NotImplementedError

    async def _wrap_spawn_single_user(
        self, user: Any, server_name: str, display_name: str, spawner: Any, pending_url: str, options: Any = None
    ) -> None:
        forget_failed_start(spawner)
        start = await self.patiently(self.spawn_single_user(user, server_name, display_name, options=options))
        error = start.exception() if start.done() else None
        if error is not None:
            expected = isinstance(error, web.HTTPError)
            # As JupyterHub says it: `QuietRefusals` knows the sentence.
            said = f"Error starting server {log_name(spawner)}: {error}"
            self.log.error("%s", said, exc_info=None if expected else error)
            raise error if expected else web.HTTPError(500, f"Unhandled error starting server {log_name(spawner)}")
        self.redirect(pending_url)
