"""When would this start? Slurm is asked with the very script, as this very person, and seldom.

Guarantees: the same question is answered from memory for a minute; one person cannot keep Slurm busy; at most two
questions of all people are under way at a time, so that real submissions never wait for guesses.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

from . import words
from .slurm.client import SlurmClient, SlurmError

FRESH_FOR = 60.0  # seconds for which an answer is good
PER_MINUTE = 12  # questions to Slurm of one person
_AT_ONCE = 2
_PEOPLE = 1000  # of whom something is remembered
# A job that would start within this is said to start now: Slurm itself looks every 30 s or so.
NOW = 60.0


class TooOftenError(Exception):
    """This person has asked often enough for now."""


class Answer(NamedTuple):
    """What Slurm said: when it would start (epoch seconds), or why it would not take it."""

    start: int | None
    refused: words.Words | None = None
    detail: str = ""  # Slurm's own words

    @property
    def good(self) -> bool:
        """Whether Slurm would take it and says when it starts."""
        return self.refused is None and self.start is not None


class Estimator:
    """Asks one cluster's Slurm; see the guarantees above."""

    def __init__(self, client: SlurmClient, clock: Callable[[], float] = time.monotonic) -> None:
        self.client, self.clock = client, clock
        self._answers: dict[tuple[str, str], tuple[float, asyncio.Task[Answer]]] = {}
        self._asked: dict[str, deque[float]] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def ask(self, user: str, script: str, prefix: Sequence[str], env: Mapping[str, str]) -> Answer:
        """Return Slurm's guess for *script*. Raises `TooOftenError`."""
        now = self.clock()
        self._forget(now)
        held = self._answers.get((user, script))
        if held is None:
            self._count(user, now)
            task = asyncio.create_task(self._ask(script, prefix, env))
            held = self._answers[user, script] = (now, task)
        return await asyncio.shield(held[1])

    async def _ask(self, script: str, prefix: Sequence[str], env: Mapping[str, str]) -> Answer:
        async with self._slots:
            try:
                return Answer(await self.client.would_start(script, prefix, env))
            except SlurmError as error:
                return Answer(None, words.refusal(error.stderr), error.stderr)

    def _count(self, user: str, now: float) -> None:
        asked = self._asked.setdefault(user, deque(maxlen=PER_MINUTE))
        if len(asked) == PER_MINUTE and now - asked[0] < 60:
            raise TooOftenError
        asked.append(now)

    def _forget(self, now: float) -> None:
        self._answers = {key: held for key, held in self._answers.items() if now - held[0] < FRESH_FOR}
        if len(self._asked) > _PEOPLE:
            self._asked = {user: asked for user, asked in self._asked.items() if asked and now - asked[-1] < 60}


def say_wait(start: float, now: float) -> str:
    """Say how long it is until *start* (epoch seconds), roughly: ``in about 2 hours``."""
    wait = start - now
    if wait <= NOW:
        return "now"
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if wait >= size:
            count = round(wait / size)
            return f"in about {count} {unit}{'s' if count != 1 else ''}"
    return "soon"


_shared: WeakKeyDictionary[SlurmClient, Estimator] = WeakKeyDictionary()


def shared_estimator(client: SlurmClient) -> Estimator:
    """Return the estimator of *client*'s cluster; the first caller makes it."""
    estimator = _shared.get(client)
    if estimator is None:
        estimator = _shared[client] = Estimator(client)
    return estimator
