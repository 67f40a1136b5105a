"""What is happening, as events of a page: changes and heartbeats, and nothing that grows while one waits."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest

from snowyspawner.session import messages, status
from snowyspawner.session.record import Job, new_job
from snowyspawner.site import Site, load
from snowyspawner.slurm.client import SlurmClient
from snowyspawner.slurm.queue import QueueWatcher, Watched
from snowyspawner.slurm.squeue import JobRow

HOUR = 3600.0


class Clock:
    """Time that passes when somebody sleeps; *then* is what else happens at a moment."""

    def __init__(self, then: Any = None) -> None:
        self.now, self.then = 0.0, then

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.then:
            self.then(self.now)

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def site() -> Site:
    return load("snowy")


@pytest.fixture
def watcher() -> QueueWatcher:
    return QueueWatcher(SlurmClient("snowy"), logging.getLogger("test"))


def pending_job() -> Job:
    job, _ = new_job("", {"environment": "tf-mkl", "time": 3600})
    job.phase, job.job_id = "pending", "7"
    return job


def row(reason: str, start: int | None = None, state: str = "PENDING", node: str = "") -> JobRow:
    return JobRow("7", state, node, start, reason)


async def hour_of(clock: Clock, look: Any) -> list[dict[str, Any]]:
    events = []
    async for event in status.events(look, clock.sleep, clock):
        if clock.now >= HOUR:
            break
        events.append(event)
    return events


async def test_an_hour_of_waiting(site: Site, watcher: QueueWatcher) -> None:
    """An estimate that moves at every look of squeue's; three tabs, which share nothing that could grow."""
    job, watched = pending_job(), Watched("7", time.time())
    for _ in range(3):
        soon = int(time.time()) + 7200
        watched.update(row("Resources", soon), None)
        clock = Clock(lambda now, soon=soon: watched.update(row("Resources", soon + int(now / 15)), None))
        before = len(vars(watched)), len(vars(watcher)), len(watcher._jobs)
        events = await hour_of(clock, lambda: status.status_of(job, watched, watcher, site))
        assert 100 < len(events) < 130
        # Only the first writes into a page's log; the others carry the estimate.
        assert [index for index, event in enumerate(events) if "message" in event] == [0]
        assert events[-1]["snowy"]["starts_at"] > events[0]["snowy"]["starts_at"]
        assert (len(vars(watched)), len(vars(watcher)), len(watcher._jobs)) == before


async def test_what_changes_is_said_at_once(site: Site, watcher: QueueWatcher) -> None:
    job, watched = pending_job(), Watched("7", time.time())
    changes = {
        10: row("Priority"),
        20: row("Resources"),
        30: row("Resources", 1_900_000_000),
        40: row("None", 1_900_000_000, "RUNNING", "s1"),
    }
    watched.update(row("None"), None)

    def then(now: float) -> None:
        for at, changed in changes.items():
            if abs(now - at) < 0.2:
                watched.update(changed, None)

    events = await hour_of(Clock(then), lambda: status.status_of(job, watched, watcher, site))
    said = [event["message"] for event in events if "message" in event]
    assert [text for text in said if "queue" in text] == [
        " ".join(text for text in ("Job 7 is in the queue.", *messages.pending(reason)[:2]) if text)
        for reason in ("None", "Priority", "Resources")
    ]
    assert said[-1] == "Job 7 has started on node s1."
    # The estimate that appeared came at once, without a message.
    assert [event["snowy"]["starts_at"] for event in events][:5] == [None, None, None, 1_900_000_000, None]


def test_a_single_failure_of_slurm_is_nobody_s_business(site: Site, watcher: QueueWatcher) -> None:
    job, watched = pending_job(), Watched("7", time.time())
    watched.update(row("Resources"), None)
    watcher.failing_since = time.time() - 1
    assert status.status_of(job, watched, watcher, site).note == ""
    watcher.failing_since = time.time() - 60
    now = status.status_of(job, watched, watcher, site)
    assert now.note.startswith("Slurm has not answered since ")
    assert now.why == messages.pending("Resources").sentence
    assert now.slurm_away_since == watcher.failing_since


def test_a_suspended_session_says_so(site: Site, watcher: QueueWatcher) -> None:
    job, watched = pending_job(), Watched("7", time.time())
    job.phase = "serving"
    watched.update(row("None", 1, "RUNNING", "s1"), None)
    assert status.status_of(job, watched, watcher, site).why == ""
    watched.update(row("None", 1, "SUSPENDED", "s1"), None)
    assert "suspended" in status.status_of(job, watched, watcher, site).why
