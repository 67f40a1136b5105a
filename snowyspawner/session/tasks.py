"""Work that goes on beside whoever asked for it: kept, one of each name, and never silent about a failure."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from ..metrics import BACKGROUND_FAILURES

_PAUSE, _PAUSE_LIMIT = 1.0, 60.0  # seconds before work that has failed is begun again


class Tasks:
    """The tasks of one server; *label* names it in the log."""

    def __init__(self, log: logging.Logger | logging.LoggerAdapter[logging.Logger], label: Callable[[], str]) -> None:
        self.log, self.label = log, label
        # asyncio keeps no task alive by itself.
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def busy(self) -> bool:
        """Whether any of them is under way."""
        return any(not task.done() for task in self._tasks.values())

    def get(self, name: str) -> asyncio.Task[None] | None:
        """Return the task of that name if it is under way."""
        task = self._tasks.get(name)
        return task if task and not task.done() else None

    def begin(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run *work* unless the task of that name is still running; keep it, and log what it raises."""
        if task := self.get(name):
            work.close()
            return task

        def done(finished: asyncio.Task[None]) -> None:
            if not finished.cancelled() and (error := finished.exception()):
                self._failed(name, error)

        task = self._tasks[name] = asyncio.create_task(work, name=f"snowyspawner {name} {self.label()}")
        task.add_done_callback(done)
        return task

    def replace(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run *work* as `begin` does, in place of the task of that name if that is still running."""
        if task := self.get(name):
            task.cancel()
            del self._tasks[name]
        return self.begin(name, work)

    def keep(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[None]:
        """Run *work* as `begin` does; after an error again, at longer and longer pauses, until it ends well."""
        return self.get(name) or self.begin(name, self._again(name, work))

    async def _again(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        pause = _PAUSE
        while True:
            try:
                return await work()
            except Exception as error:
                self._failed(name, error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _PAUSE_LIMIT)

    def _failed(self, name: str, error: BaseException) -> None:
        BACKGROUND_FAILURES.labels(name).inc()
        self.log.error("%s of %s failed", name, self.label(), exc_info=error)
