"""What Slurm says of people and partitions, remembered: a page is built from this and never waits for Slurm.

Guarantees: one question at a time for each subject, however many ask; while Slurm does not answer, the last known
answer stays; nothing is asked while nobody looks.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from .client import SlurmClient, SlurmError
from .nodes import PartitionFacts
from .reservations import Reservation

#: Seconds for which an answer is good. A new membership takes a night to reach a cluster anyway.
FRESH_FOR = 300.0
#: The same for what changes by the minute: free cores, waiting jobs, reservations.
LIVE_FOR = 30.0
_UNKNOWN: tuple[float, None] = (float("-inf"), None)

MayRead = Callable[[str], Awaitable["bool | None"]]


class Live(NamedTuple):
    """The cluster at one moment. Partitions are called as Slurm calls them."""

    at: float  # time.monotonic()
    partitions: Mapping[str, PartitionFacts] = {}
    waiting: Mapping[str, int] = {}
    reservations: Sequence[Reservation] = ()


class Facts:
    """What is known of one cluster."""

    def __init__(
        self,
        client: SlurmClient,
        log: logging.Logger | logging.LoggerAdapter[logging.Logger],
        fresh_for: float = FRESH_FOR,
        live_for: float = LIVE_FOR,
    ) -> None:
        self.client, self.log, self.fresh_for, self.live_for = client, log, fresh_for, live_for
        self.live: Live | None = None  # the last good answer
        self.failing_since: float | None = None  # epoch seconds: Slurm has not said anything since
        self._accounts: dict[str, tuple[float, list[str] | None]] = {}
        self._readable: dict[tuple[str, str], tuple[float, bool]] = {}
        self._asking: dict[str, asyncio.Task[Any]] = {}
        self._asked = float("-inf")  # time.monotonic() of the last look at the cluster, good or not

    # -- people ------------------------------------------------------------------------------------------------

    def known_accounts(self, user: str) -> list[str] | None:
        """Return the last answer about *user* without asking; None when there is none."""
        return self._accounts.get(user, _UNKNOWN)[1]

    async def accounts(self, user: str) -> list[str] | None:
        """Return the accounts that *user* may charge jobs to; None when Slurm does not tell."""
        asked, answer = self._accounts.get(user, _UNKNOWN)
        if time.monotonic() - asked < self.fresh_for:
            return answer
        found: list[str] | None = await asyncio.shield(self._once(f"accounts {user}", self._ask_accounts(user)))
        return found

    async def _ask_accounts(self, user: str) -> list[str] | None:
        try:
            # A cluster without accounting, or one that hides it, names none: then nothing is known.
            answer = await self.client.accounts(user) or None
        except SlurmError as error:
            self.log.warning("Cannot ask for the accounts of %s: %s", user, error)
            return self.known_accounts(user)
        self._accounts[user] = (time.monotonic(), answer)
        return answer

    def readable(self, user: str, image: str) -> bool | None:
        """Tell whether *user* may read *image* (the Site's name), as far as is known."""
        return self._readable.get((user, image), _UNKNOWN)[1]

    # -- the cluster -------------------------------------------------------------------------------------------

    @property
    def age(self) -> float | None:
        """Seconds since the last good answer about the cluster; None when there was none."""
        return None if self.live is None else time.monotonic() - self.live.at

    def look_soon(self, user: str = "", may_read: MayRead | None = None, images: Sequence[str] = ()) -> None:
        """Somebody looks: ask anew for whatever has grown old, in the background.

        With *user* also for that person's accounts, and with *may_read* which of the *images* (the Site's names)
        they may read: it answers None where that cannot be told. Does nothing outside of an event loop.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        now = time.monotonic()
        if now - self._asked >= self.live_for:
            self._once("live", self._ask_live())
        if user and now - self._accounts.get(user, _UNKNOWN)[0] >= self.fresh_for:
            self._once(f"accounts {user}", self._ask_accounts(user))
        old = [name for name in images if now - self._readable.get((user, name), _UNKNOWN)[0] >= self.fresh_for]
        if old and may_read is not None:
            self._once(f"readable {user}", self._ask_readable(user, may_read, old))

    async def _ask_live(self) -> None:
        try:
            nodes, waiting, reservations = await asyncio.gather(
                self.client.partitions(), self.client.waiting(), self.client.reservations()
            )
        except (SlurmError, OSError) as error:
            if self.failing_since is None:
                self.failing_since = time.time()
                self.log.warning("Slurm does not tell about its partitions, keeping what is known: %s", error)
        else:
            self.failing_since = None
            self.live = Live(time.monotonic(), nodes, waiting, reservations)
        self._asked = time.monotonic()

    async def _ask_readable(self, user: str, may_read: MayRead, images: Sequence[str]) -> None:
        for name in images:
            answer = await may_read(name)
            if answer is not None:
                self._readable[user, name] = (time.monotonic(), answer)

    def _once(self, what: str, asking: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run *asking* unless the same is asked already; return the task."""
        task = self._asking.get(what)
        if task is not None:
            asking.close()
            return task
        task = self._asking[what] = asyncio.create_task(asking, name=f"snowyspawner facts: {what}")
        task.add_done_callback(lambda _: self._asking.pop(what, None))
        return task


_shared: WeakKeyDictionary[SlurmClient, Facts] = WeakKeyDictionary()


def shared_facts(client: SlurmClient, log: logging.Logger | logging.LoggerAdapter[logging.Logger]) -> Facts:
    """Return the facts of *client*'s cluster; the first caller makes them."""
    facts = _shared.get(client)
    if facts is None:
        facts = _shared[client] = Facts(client, log)
    return facts
