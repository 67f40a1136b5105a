"""Start processes in a way that a hub which shuts down cannot get stuck in."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class _Connecting(asyncio.Task[Any]):
    """Cannot be cancelled."""

    def cancel(self, msg: Any = None) -> bool:
        """Do nothing: it takes only a few rounds of the loop."""
        return False


class starting(Generic[T]):  # noqa: N801 used as a function is
    """``await starting(work)`` is ``await work``, where *work* is asyncio's own coroutine that starts a process.

    asyncio connects the pipes of a process in a task of its own. If that is cancelled, and a hub that shuts down
    cancels every task there is, asyncio waits for the end of the process for ever (Python 3.11 at least). So that
    task, which *work* makes in its first step, is one that cannot be cancelled. Whoever awaits can be.

    A thread for each command would need none of this, but Python joins its threads at the end: a hub would not end
    before a command that hangs, and one that sudo started for somebody cannot be ended by the hub.
    """

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self.work = work

    def __await__(self) -> Generator[Any, Any, T]:
        """Relay all that *work* waits for."""
        loop = asyncio.get_running_loop()
        before = loop.get_task_factory()
        loop.set_task_factory(lambda loop, coro, **more: _Connecting(coro, loop=loop, **more))
        try:
            try:
                waits_for = self.work.send(None)
            finally:
                loop.set_task_factory(before)
            while True:
                try:
                    sent = yield waits_for
                except BaseException as error:
                    waits_for = self.work.throw(error)
                else:
                    waits_for = self.work.send(sent)
        except StopIteration as done:
            result: T = done.value
            return result
