"""Work that goes on beside whoever asked for it: kept, one of each name, and never silent about a failure."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any


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
                self.log.error("%s of %s failed", name, self.label(), exc_info=error)

        task = self._tasks[name] = asyncio.create_task(work, name=f"snowyspawner {name} {self.label()}")
        task.add_done_callback(done)
        return task
