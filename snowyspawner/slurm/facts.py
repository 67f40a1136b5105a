"""What Slurm's accounting says of people, remembered for a while."""

from __future__ import annotations

import asyncio
import logging
import time
from weakref import WeakKeyDictionary

from .client import SlurmClient, SlurmError

#: Seconds for which an answer is good. A new membership takes a night to reach a cluster anyway.
FRESH_FOR = 300.0


class Facts:
    """The accounts of people on one cluster.

    Guarantees: one question at a time for each person, however many ask; while accounting does not answer, the
    last known answer stays.
    """

    def __init__(
        self,
        client: SlurmClient,
        log: logging.Logger | logging.LoggerAdapter[logging.Logger],
        fresh_for: float = FRESH_FOR,
    ) -> None:
        self.client, self.log, self.fresh_for = client, log, fresh_for
        self._accounts: dict[str, tuple[float, list[str] | None]] = {}
        self._asking: dict[str, asyncio.Task[list[str] | None]] = {}

    def known_accounts(self, user: str) -> list[str] | None:
        """Return the last answer about *user* without asking; None when there is none."""
        return self._accounts.get(user, (0.0, None))[1]

    async def accounts(self, user: str) -> list[str] | None:
        """Return the accounts that *user* may charge jobs to; None when Slurm does not tell."""
        asked, answer = self._accounts.get(user, (float("-inf"), None))
        if time.monotonic() - asked < self.fresh_for:
            return answer
        task = self._asking.get(user)
        if task is None:
            task = self._asking[user] = asyncio.create_task(self._ask(user))
            task.add_done_callback(lambda _: self._asking.pop(user, None))
        return await asyncio.shield(task)

    async def _ask(self, user: str) -> list[str] | None:
        try:
            # A cluster without accounting, or one that hides it, names none: then nothing is known.
            answer = await self.client.accounts(user) or None
        except SlurmError as error:
            self.log.warning("Cannot ask for the accounts of %s: %s", user, error)
            return self.known_accounts(user)
        self._accounts[user] = (time.monotonic(), answer)
        return answer


_shared: WeakKeyDictionary[SlurmClient, Facts] = WeakKeyDictionary()


def shared_facts(client: SlurmClient, log: logging.Logger | logging.LoggerAdapter[logging.Logger]) -> Facts:
    """Return the facts of *client*'s cluster; the first caller makes them."""
    facts = _shared.get(client)
    if facts is None:
        facts = _shared[client] = Facts(client, log)
    return facts
