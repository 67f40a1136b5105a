"""What Slurm says of people and partitions, remembered: a page is built from this and never waits for Slurm.

Guarantees: one question at a time for each subject, however many ask; while Slurm does not answer, the last known
answer stays, and it is asked less and less often; nothing is asked while nobody looks. People are called by the names
of their accounts on this machine.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from ..metrics import BACKGROUND_FAILURES
from .client import Prefix, SlurmClient, SlurmError, sees_all_jobs
from .nodes import PartitionFacts
from .reservations import Reservation

#: Seconds for which an answer is good. A new membership takes a night to reach a cluster anyway.
FRESH_FOR = 300.0
#: The same for what changes by the minute: free cores, waiting jobs, reservations.
LIVE_FOR = 30.0
#: A person's jobs in a partition, for an estimate; they come and go with every press of a button.
JOBS_FOR = 10.0
#: Seconds without a question after accounting has failed, for whomever it was asked: twice as long each time.
RETRY_AFTER, RETRY_LIMIT = 5.0, 300.0

T = TypeVar("T")
_UNKNOWN: tuple[float, None] = (float("-inf"), None)

MayRead = Callable[[str], Awaitable["bool | None"]]


class Live(NamedTuple):
    """The cluster at one moment. Partitions are called as Slurm calls them."""

    at: float  # time.monotonic()
    partitions: Mapping[str, PartitionFacts] = {}
    waiting: Mapping[str, int] | None = {}  # None: Slurm does not show them to the hub
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
        self._readable: dict[tuple[str, str], tuple[float, bool | None]] = {}
        self._jobs: dict[tuple[str, str], tuple[float, list[str]]] = {}
        self._accounting_failures = 0
        self._ask_accounting_at = float("-inf")  # time.monotonic()
        self._asking: dict[str, asyncio.Task[Any]] = {}
        self._asked = float("-inf")  # time.monotonic() of the last look at the cluster, good or not

    # -- people ------------------------------------------------------------------------------------------------

    def known_accounts(self, user: str) -> list[str] | None:
        """Return the last answer about *user* without asking; None when there is none."""
        return self._accounts.get(user, _UNKNOWN)[1]

    async def accounts(
        self, user: str, patience: float | None = None, prefix: Prefix | None = None
    ) -> list[str] | None:
        """Return the accounts that *user* may charge jobs to; None when Slurm does not tell.

        With *prefix* it is asked as the person where it tells the hub nothing: Slurm's PrivateData may hide it.
        If it takes longer than *patience* seconds, the last answer is returned, and the next one is remembered.
        """
        asked, answer = self._accounts.get(user, _UNKNOWN)
        now = time.monotonic()
        if now - asked < self.fresh_for or now < self._ask_accounting_at:
            return answer
        task = self._once(f"accounts {user}", self._ask_accounts(user, prefix))
        await asyncio.wait([task], timeout=patience)
        return self.known_accounts(user)

    async def _ask_accounts(self, user: str, prefix: Prefix | None) -> None:
        try:
            # A cluster without accounting, or one that hides it, names none: then nothing is known.
            answer = await self._shown(partial(self.client.accounts, user), prefix) or None
        except (SlurmError, OSError) as error:
            # It is accounting that fails, not the question about one person.
            pause = min(RETRY_AFTER * 2**self._accounting_failures, RETRY_LIMIT)
            self._accounting_failures += 1
            self._ask_accounting_at = time.monotonic() + pause
            self.log.warning("Cannot ask for the accounts of %s, next try in %.0f s: %s", user, pause, error)
            return
        self._accounting_failures = 0
        self._accounts[user] = (time.monotonic(), answer)

    @staticmethod
    async def _shown(ask: Callable[[Sequence[str]], Awaitable[list[str]]], prefix: Prefix | None) -> list[str]:
        """Return what *ask* answers to the hub, or else to the person. Raises `SlurmError`."""
        answer = await ask(())
        if answer or prefix is None or sees_all_jobs():
            return answer
        try:
            words = await prefix()
            return await ask(words) if words else answer
        except SlurmError:  # sudo does not let the hub
            return answer

    async def jobs_in(
        self,
        partition: str,
        user: str,
        may_ask: Callable[[], None],
        age: float = JOBS_FOR,
        prefix: Prefix | None = None,
    ) -> list[str]:
        """Return the ids of *user*'s jobs in *partition* as they were *age* seconds ago at most. Raises `SlurmError`.

        *may_ask* is called before Slurm is asked, and raises if it must not be. *prefix* as in `accounts`.
        """
        asked, answer = self._jobs.get((partition, user), (float("-inf"), []))
        if time.monotonic() - asked < age:
            return answer
        what = f"jobs {partition} {user}"
        if what not in self._asking:
            may_ask()
        found = await asyncio.shield(self._once(what, self._ask_jobs(partition, user, prefix)))
        if isinstance(found, SlurmError):
            raise found
        return list(found or ())

    async def _ask_jobs(self, partition: str, user: str, prefix: Prefix | None) -> list[str] | SlurmError:
        now = time.monotonic()
        self._jobs = {key: held for key, held in self._jobs.items() if now - held[0] < JOBS_FOR}
        try:
            answer = await self._shown(partial(self.client.jobs_in, partition, user), prefix)
        except SlurmError as error:
            return error
        self._jobs[partition, user] = (now, answer)
        return answer

    def readable(self, user: str, image: str) -> bool | None:
        """Tell whether *user* may read *image* (the Site's name), as far as is known."""
        return self._readable.get((user, image), _UNKNOWN)[1]

    # -- the cluster -------------------------------------------------------------------------------------------

    @property
    def age(self) -> float | None:
        """Seconds since the last good answer about the cluster; None when there was none."""
        return None if self.live is None else time.monotonic() - self.live.at

    def look_soon(self) -> None:
        """Somebody looks: ask anew about the cluster if that has grown old, in the background.

        Does nothing outside of an event loop.
        """
        if time.monotonic() - self._asked >= self.live_for:
            self.soon("live", self._ask_live())

    def look_soon_at(
        self,
        user: str,
        may_read: MayRead,
        images: Sequence[str],
        accounts: bool = True,
        prefix: Prefix | None = None,
    ) -> None:
        """The same of what concerns *user*: which of the *images* (the Site's names) they may read, and *accounts*.

        *may_read* answers None where that cannot be told. *prefix* as in `accounts`.
        """
        now = time.monotonic()
        old_accounts = now - self._accounts.get(user, _UNKNOWN)[0] >= self.fresh_for
        if accounts and old_accounts and now >= self._ask_accounting_at:
            self.soon(f"accounts {user}", self._ask_accounts(user, prefix))
        old = [name for name in images if now - self._readable.get((user, name), _UNKNOWN)[0] >= self.fresh_for]
        if old:
            self.soon(f"readable {user}", self._ask_readable(user, may_read, old))

    def soon(self, what: str, asking: Coroutine[Any, Any, Any]) -> None:
        """Run *asking* in the background, unless *what* it asks for is being asked already."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            asking.close()
            return
        self._once(what, asking)

    def asking(self, what: str) -> asyncio.Task[Any] | None:
        """Return the task that asks for *what* now, if one does."""
        return self._asking.get(what)

    async def _ask_live(self) -> None:
        try:
            nodes, waiting, reservations, hidden = await asyncio.gather(
                self.client.partitions(), self.client.waiting(), self.client.reservations(), self.client.hides_jobs()
            )
        except (SlurmError, OSError) as error:
            if self.failing_since is None:
                self.failing_since = time.time()
                self.log.warning("Slurm does not tell about its partitions, keeping what is known: %s", error)
        else:
            self.failing_since = None
            self.live = Live(time.monotonic(), nodes, None if hidden else waiting, reservations)
        finally:
            self._asked = time.monotonic()

    async def _ask_readable(self, user: str, may_read: MayRead, images: Sequence[str]) -> None:
        for name in images:
            answer = await may_read(name)
            now = time.monotonic()
            if answer is None:
                # That cannot be told is remembered, too, for a shorter time.
                now, answer = now - self.fresh_for + self.live_for, self.readable(user, name)
            self._readable[user, name] = (now, answer)

    def _once(self, what: str, asking: Coroutine[Any, Any, T]) -> asyncio.Task[T | None]:
        """Run *asking* unless the same is asked already; return the task, which never raises."""
        task = self._asking.get(what)
        if task is not None:
            asking.close()
            return task

        async def survive() -> T | None:
            try:
                return await asking
            except Exception:
                BACKGROUND_FAILURES.labels("facts").inc()
                self.log.exception("Asking for %s failed; it is tried again when somebody looks", what.split()[0])
                return None

        task = self._asking[what] = asyncio.create_task(survive(), name=f"snowyspawner facts: {what}")
        task.add_done_callback(lambda _: self._asking.pop(what, None))
        return task


_shared: WeakKeyDictionary[SlurmClient, Facts] = WeakKeyDictionary()


def shared_facts(client: SlurmClient, log: logging.Logger | logging.LoggerAdapter[logging.Logger]) -> Facts:
    """Return the facts of *client*'s cluster; the first caller makes them."""
    facts = _shared.get(client)
    if facts is None:
        facts = _shared[client] = Facts(client, log)
    return facts
