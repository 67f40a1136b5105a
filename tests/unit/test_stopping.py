"""How a job is ended: with a stand-in for Slurm that notes what it is told."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

import pytest

from snowyspawner.session import stopping
from snowyspawner.slurm.accounting import JobEnd
from snowyspawner.slurm.client import ASK
from snowyspawner.slurm.queue import Watched
from snowyspawner.slurm.squeue import JobRow


class StandIn:
    """Stands in for the watcher and its client: what was cancelled is over as soon as scancel has answered."""

    def __init__(self, watched: Watched) -> None:
        self.client, self.watched = self, watched
        self.told: list[Sequence[str]] = []

    def kick(self) -> None:
        pass

    async def cancel(self, job_id: str, prefix: Sequence[str], how: Sequence[str]) -> None:
        self.told.append(how)
        if how != ASK:
            self.watched.update(None, JobEnd("CANCELLED", 0, 0))


@pytest.fixture
def watched() -> Watched:
    made = Watched("17", 0.0)
    made.update(JobRow("17", "RUNNING", "s1", 1, ""), None)
    return made


async def cancel(watched: Watched) -> list[Sequence[str]]:
    """Cancel it with a grace of 1 s; return what Slurm was told."""
    slurm: Any = StandIn(watched)

    async def prefix() -> Sequence[str]:
        return []

    await asyncio.wait_for(stopping.cancel(slurm, watched, prefix, 1.0, logging.getLogger("test")), 5)
    return list(slurm.told)


async def test_a_running_job_is_asked_first(watched: Watched) -> None:
    assert await cancel(watched) == [ASK, ()]


async def test_a_job_that_has_spoken_is_asked_whatever_the_last_look_at_the_queue_says() -> None:
    watched = Watched("17", 0.0)
    watched.update(JobRow("17", "PENDING", "", None, ""), None)
    watched.ran_at = 1.0
    assert await cancel(watched) == [ASK, ()]


@pytest.mark.parametrize(
    ("row", "end"),
    [
        (None, JobEnd("FAILED", 73, 0)),
        (JobRow("17", "COMPLETING", "s1", 1, ""), None),
        (JobRow("17", "FAILED", "s1", 1, ""), None),
    ],
)
async def test_a_job_that_has_said_that_it_ends_is_left_to_it(
    watched: Watched, row: JobRow | None, end: JobEnd | None
) -> None:
    """Accounting has the job's own exit code then."""
    watched.leaving = True
    asyncio.get_running_loop().call_later(0.05, watched.update, row, end)
    assert await cancel(watched) == []


async def test_a_job_that_only_says_so_is_cancelled(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "_LEAVES_IN", 0.1)
    watched.leaving = True
    assert await cancel(watched) == [()]


@pytest.mark.parametrize("leaving", [False, True])
async def test_a_job_that_is_back_in_the_queue_is_cancelled_at_once(watched: Watched, leaving: bool) -> None:
    """What ran in it has ended, and has perhaps said so; there is nobody to wait for."""
    watched.leaving, watched.ran_at = leaving, 1.0
    watched.update(JobRow("17", "REQUEUE_HOLD", "", None, ""), None)
    began = time.monotonic()
    assert await cancel(watched) == [()]
    assert time.monotonic() - began < 0.5
