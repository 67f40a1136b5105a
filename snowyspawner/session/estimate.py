"""When would this start? Slurm is asked with the very script, as this very person, and seldom.

Guarantees: the same question is answered from memory for a minute, unless Slurm gave no answer; neither one person nor
all together can keep Slurm busy by pressing buttons; at most two questions of all people are under way at a time.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Container, Mapping, Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

from ..slurm.client import SlurmClient, SlurmError, SlurmUnsureError
from . import messages

FRESH_FOR = 60.0  # seconds for which an answer is good
PER_MINUTE = 12  # questions to Slurm of one person
PER_MINUTE_OF_ALL = 240
STARTS_PER_MINUTE = 60  # jobs that one person submits
STARTS_PER_MINUTE_OF_ALL = 1200
_AT_ONCE = 2
_PEOPLE = 1000  # of whom something is remembered


class TooOftenError(Exception):
    """This person, or all people together, have asked often enough for now."""


class Answer(NamedTuple):
    """What Slurm said: when it would start (epoch seconds), or why it would not take it."""

    start: int | None
    refused: messages.Words | None = None
    detail: str = ""  # Slurm's own words
    answered: bool = True  # Slurm has looked at it

    @property
    def good(self) -> bool:
        """Whether Slurm would take it and says when it starts."""
        return self.refused is None and self.start is not None


class Limiter:
    """Counts what people make Slurm do by pressing buttons, in the last minute: *most* of one person, *most_of_all*."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        most: int = PER_MINUTE,
        most_of_all: int = PER_MINUTE_OF_ALL,
    ) -> None:
        self.clock, self.most = clock, most
        self._all: deque[float] = deque(maxlen=most_of_all)
        self._people: dict[str, deque[float]] = {}

    def take(self, user: str) -> None:
        """Count one of *user*'s. Raises `TooOftenError` instead when that would be too many."""
        now = self.clock()
        if len(self._people) > _PEOPLE:
            self._people = {name: asked for name, asked in self._people.items() if now - asked[-1] < 60}
        mine = self._people.get(user) or deque(maxlen=self.most)
        for asked in (mine, self._all):
            if len(asked) == asked.maxlen and now - asked[0] < 60:
                raise TooOftenError
        for asked in (mine, self._all):
            asked.append(now)
        self._people[user] = mine


class Estimator:
    """Asks one cluster's Slurm; see the guarantees above.

    *limiter* also counts what else buttons ask of Slurm, *starts* what they submit: neither uses up the other's.
    """

    def __init__(self, client: SlurmClient, clock: Callable[[], float] = time.monotonic) -> None:
        self.client, self.clock, self.limiter = client, clock, Limiter(clock)
        self.starts = Limiter(clock, STARTS_PER_MINUTE, STARTS_PER_MINUTE_OF_ALL)
        self._answers: dict[tuple[str, str], tuple[float, asyncio.Task[Answer]]] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def ask(
        self, user: str, script: str, prefix: Sequence[str], env: Mapping[str, str], sent: Container[str] | None = None
    ) -> Answer:
        """Return Slurm's guess for *script*; *sent* as in `messages.refusal`. Raises `TooOftenError`."""
        now = self.clock()
        self._answers = {key: held for key, held in self._answers.items() if now - held[0] < FRESH_FOR}
        held = self._answers.get((user, script))
        if held is None:
            self.limiter.take(user)
            task = asyncio.create_task(self._ask(script, prefix, env, sent))
            held = self._answers[user, script] = (now, task)
        answer = await asyncio.shield(held[1])
        if not answer.answered and self._answers.get((user, script)) is held:
            del self._answers[user, script]
        return answer

    async def _ask(
        self, script: str, prefix: Sequence[str], env: Mapping[str, str], sent: Container[str] | None
    ) -> Answer:
        async with self._slots:
            try:
                return Answer(await self.client.would_start(script, prefix, env))
            except SlurmError as error:
                said = messages.refusal(error.stderr, *(() if sent is None else (sent,)))
                unsure = isinstance(error, SlurmUnsureError) or not messages.is_answer(said)
                return Answer(None, said, error.stderr, answered=not unsure)


_shared: WeakKeyDictionary[SlurmClient, Estimator] = WeakKeyDictionary()


def shared_estimator(client: SlurmClient) -> Estimator:
    """Return the estimator of *client*'s cluster; the first caller makes it."""
    estimator = _shared.get(client)
    if estimator is None:
        estimator = _shared[client] = Estimator(client)
    return estimator
