"""One squeue for everybody. A stand-in client says what Slurm would; the real one is in tests/cluster."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import pytest

from snowyspawner.metrics import BACKGROUND_FAILURES
from snowyspawner.slurm import queue
from snowyspawner.slurm.accounting import JobEnd
from snowyspawner.slurm.client import SlurmClient, SlurmError
from snowyspawner.slurm.queue import SETTLING, QueueWatcher, Watched, shared_watcher
from snowyspawner.slurm.squeue import JobRow

LOG = logging.getLogger("test")
LONG_AGO = 1_000_000.0


class StandInClient(SlurmClient):
    """Stands in for Slurm's commands: answers what the test sets, notes what it was asked."""

    def __init__(self, cluster: str = "", slurm_conf: str = "", timeout: float = 30.0) -> None:
        super().__init__(cluster, slurm_conf, timeout)
        self.rows: dict[str, JobRow] = {}
        self.over: dict[str, JobEnd] = {}
        self.queue_error: Exception | None = None
        self.ends_error: Exception | None = None
        self.asked: list[list[str]] = []
        self.asked_ends: list[list[str]] = []

    async def queue(self, job_ids: Iterable[str]) -> dict[str, JobRow]:
        self.asked.append(sorted(job_ids))
        if self.queue_error:
            raise self.queue_error
        return {job_id: self.rows[job_id] for job_id in job_ids if job_id in self.rows}

    async def ends(self, job_ids: Iterable[str]) -> dict[str, JobEnd]:
        self.asked_ends.append(sorted(job_ids))
        if self.ends_error:
            raise self.ends_error
        return {job_id: self.over[job_id] for job_id in job_ids if job_id in self.over}

    def put(self, job_id: str, state: str, reason: str = "None") -> JobRow:
        row = self.rows[job_id] = JobRow(job_id, state, "" if state == "PENDING" else "s1", None, reason)
        return row


class QuietWatcher(QueueWatcher):
    """A watcher that looks only when the test says so: the loop itself is tested further down."""

    async def _run(self) -> None:
        await asyncio.Event().wait()


@pytest.fixture
def client() -> StandInClient:
    return StandInClient()


async def ended(watcher: QueueWatcher) -> None:
    if watcher._task:
        watcher._task.cancel()
        await asyncio.gather(watcher._task, return_exceptions=True)


@pytest.fixture
async def quiet(client: StandInClient) -> AsyncIterator[QuietWatcher]:
    watcher = QuietWatcher(client, LOG)
    yield watcher
    await ended(watcher)


@pytest.fixture
async def watcher(client: StandInClient) -> AsyncIterator[QueueWatcher]:
    watcher = QueueWatcher(client, LOG)
    yield watcher
    await ended(watcher)


# -- one look ----------------------------------------------------------------------------------------------------


async def test_one_call_is_made_for_all_jobs(client: StandInClient, quiet: QuietWatcher) -> None:
    rows = {job_id: client.put(job_id, "RUNNING") for job_id in ("1", "2", "3")}
    jobs = {job_id: quiet.watch(job_id, LONG_AGO) for job_id in rows}
    await quiet.look()
    assert client.asked == [["1", "2", "3"]]
    assert client.asked_ends == []  # nothing is over, so accounting is left alone
    assert {job_id: job.row for job_id, job in jobs.items()} == rows


async def test_watching_twice_gives_the_same_object(quiet: QuietWatcher) -> None:
    assert quiet.watch("1") is quiet.watch("1", LONG_AGO)


async def test_a_failing_squeue_keeps_the_last_snapshot(client: StandInClient, quiet: QuietWatcher) -> None:
    row = client.put("1", "RUNNING")
    job = quiet.watch("1", LONG_AGO)
    await quiet.look()
    client.queue_error = SlurmError("squeue", 1, "Unable to contact slurm controller")
    client.rows = {}
    client.over = {"1": JobEnd("FAILED", 1, 0)}
    await quiet.look()
    assert (job.row, job.end) == (row, None)
    assert quiet.failing_since is not None
    assert quiet.last_error == "Unable to contact slurm controller"


async def test_an_outage_is_logged_once_and_so_is_its_end(
    client: StandInClient, quiet: QuietWatcher, caplog: pytest.LogCaptureFixture
) -> None:
    quiet.watch("1")
    client.queue_error = SlurmError("squeue", 1, "away")
    for _ in range(3):
        await quiet.look()
    assert caplog.text.count("does not answer") == 1
    client.queue_error = None
    await quiet.look()
    await quiet.look()
    assert caplog.text.count("answers again") == 1
    assert (quiet.failing_since, quiet.last_error) == (None, "")


async def test_an_accident_of_the_machine_s_does_not_end_the_watch(client: StandInClient, quiet: QuietWatcher) -> None:
    job = quiet.watch("1", LONG_AGO)
    client.queue_error = OSError(24, "Too many open files")
    await quiet.look()
    client.queue_error = None
    row = client.put("1", "RUNNING")
    await quiet.look()
    assert job.row == row


@pytest.mark.parametrize("error", [UnicodeDecodeError("utf-8", b"", 0, 1, "x"), ValueError("x"), RuntimeError("x")])
async def test_nothing_ends_the_watch(
    client: StandInClient,
    watcher: QueueWatcher,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    aeventually: Callable[..., Awaitable[Any]],
) -> None:
    """An error that nobody foresaw is logged and counted, asked again after a pause, and then rows move on."""
    monkeypatch.setattr(queue, "INTERVAL_NEW", 0.01)
    before = BACKGROUND_FAILURES.labels("queue")._value.get()
    client.queue_error = error
    job = watcher.watch("1")
    await aeventually(lambda: len(client.asked) >= 3, "it asks again")
    assert "Looking at the queue failed" in caplog.text
    assert BACKGROUND_FAILURES.labels("queue")._value.get() >= before + 2
    assert watcher.failing_since is not None
    client.queue_error = None
    row = client.put("1", "RUNNING")
    await aeventually(lambda: job.row == row, "the row")
    client.ends_error = error
    job.since = LONG_AGO
    client.rows = {}
    watcher.kick()
    await aeventually(lambda: job.missing_since, "it is missed")
    client.ends_error = None
    client.over["1"] = JobEnd("FAILED", 3, 0)
    watcher.kick()
    await aeventually(lambda: job.end == JobEnd("FAILED", 3, 0), "the end")


async def test_a_watcher_whose_task_is_gone_is_revived_by_a_kick(
    client: StandInClient, watcher: QueueWatcher, aeventually: Callable[..., Awaitable[Any]]
) -> None:
    job = watcher.watch("1")
    await ended(watcher)
    row = client.put("1", "RUNNING")
    watcher.kick()
    await aeventually(lambda: job.row == row, "the row")


async def test_accounting_that_hangs_does_not_hold_up_the_queue(
    client: StandInClient, quiet: QuietWatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "ACCOUNTING_PATIENCE", 0.05)
    answers = asyncio.Event()
    told = client.ends

    async def ends(job_ids: Iterable[str]) -> dict[str, JobEnd]:
        await answers.wait()
        return await told(job_ids)

    monkeypatch.setattr(client, "ends", ends)
    over, waits = quiet.watch("1", LONG_AGO), quiet.watch("2", LONG_AGO)
    client.put("1", "FAILED")
    for state in ("PENDING", "RUNNING"):
        row = client.put("2", state)
        await quiet.look()
        assert waits.row == row
    # Its answer is awaited, as it has not failed; and is asked for once.
    assert over.end is None
    client.over["1"] = JobEnd("FAILED", 76, 0)
    answers.set()
    await quiet.look()
    assert over.end == JobEnd("FAILED", 76, 0)
    assert client.asked_ends == [["1"]]


async def test_a_job_that_is_nowhere_is_unknown_and_stays_alive(client: StandInClient, quiet: QuietWatcher) -> None:
    row = client.put("1", "RUNNING")
    job = quiet.watch("1", LONG_AGO)
    await quiet.look()
    client.rows = {}
    before = time.time()
    await quiet.look()
    await quiet.look()
    assert job.end is None
    assert job.row == row
    assert client.asked_ends == [["1"], ["1"]]
    assert job.missing_since is not None
    assert before <= job.missing_since <= time.time()
    client.put("1", "RUNNING")
    await quiet.look()
    assert job.missing_since is None


async def test_a_vanished_job_is_over_once_accounting_says_so(client: StandInClient, quiet: QuietWatcher) -> None:
    job = quiet.watch("1", LONG_AGO)
    await quiet.look()
    assert job.end is None
    client.over["1"] = JobEnd("TIMEOUT", 0, 0)
    await quiet.look()
    assert job.end == JobEnd("TIMEOUT", 0, 0)


async def test_a_snapshot_may_lack_a_job_that_was_only_just_submitted(
    client: StandInClient, quiet: QuietWatcher
) -> None:
    quiet.watch("1", time.time())
    await quiet.look()
    assert client.asked_ends == []


async def test_accounting_knows_more_of_an_end_than_squeue(client: StandInClient, quiet: QuietWatcher) -> None:
    job = quiet.watch("1")
    client.put("1", "CANCELLED")
    client.over["1"] = JobEnd("CANCELLED", 0, 15, "1001")
    await quiet.look()
    assert job.end == JobEnd("CANCELLED", 0, 15, "1001")


async def test_who_cancelled_a_job_is_waited_for_too(client: StandInClient, quiet: QuietWatcher) -> None:
    job = quiet.watch("1")
    client.put("1", "CANCELLED")
    await quiet.look()
    assert job.end is None
    # Not only when some other job's turn comes.
    quiet.watch("2")
    assert quiet.interval(time.time()) == queue.INTERVAL_OVER
    client.over["1"] = JobEnd("CANCELLED", 0, 0, "root")
    await quiet.look()
    assert job.end == JobEnd("CANCELLED", 0, 0, "root")


async def test_a_job_that_has_spoken_and_waits_again_was_requeued(client: StandInClient, quiet: QuietWatcher) -> None:
    job = quiet.watch("1")
    client.put("1", "PENDING")
    await quiet.look()
    assert await job.changed(20)
    # It says so before a snapshot can show it: the row is the one from before.
    job.ran_at = time.time()
    assert not job.requeued
    await quiet.look()
    assert job.requeued
    assert await job.changed(20)


async def test_the_exit_code_is_waited_for_while_accounting_lags_but_not_for_ever(
    client: StandInClient, quiet: QuietWatcher
) -> None:
    late, never, timeout = quiet.watch("1"), quiet.watch("2"), quiet.watch("3")
    client.put("1", "FAILED")
    client.put("2", "FAILED")
    client.put("3", "TIMEOUT")
    await quiet.look()
    assert (late.end, never.end) == (None, None)
    assert timeout.end == JobEnd("TIMEOUT", 0, 0)  # the state says it all
    client.over["1"] = JobEnd("FAILED", 76, 0)
    assert never.over_since is not None
    never.over_since -= SETTLING
    await quiet.look()
    assert late.end == JobEnd("FAILED", 76, 0)
    assert never.end == JobEnd("FAILED", 0, 0)


async def test_accounting_that_is_off_does_not_hold_up_what_squeue_saw(
    client: StandInClient, quiet: QuietWatcher
) -> None:
    # sacct(1) without slurmdbd: "Slurm accounting storage is disabled", exit code 1.
    client.ends_error = SlurmError("sacct", 1, "Slurm accounting storage is disabled")
    ended_job, waiting, gone = (quiet.watch(job_id, LONG_AGO) for job_id in ("1", "2", "3"))
    client.put("1", "FAILED")
    row = client.put("2", "RUNNING")
    await quiet.look()
    assert waiting.row == row
    assert ended_job.end == JobEnd("FAILED", 0, 0)
    assert gone.end is None


async def test_an_end_is_final(client: StandInClient, quiet: QuietWatcher) -> None:
    job = quiet.watch("1", LONG_AGO)
    client.put("1", "COMPLETED")
    await quiet.look()
    client.put("1", "RUNNING")
    await quiet.look()
    assert job.end == JobEnd("COMPLETED", 0, 0)
    assert job.row is not None
    assert job.row.state == "COMPLETED"


# -- waking ------------------------------------------------------------------------------------------------------


async def test_a_cancellation_that_comes_with_the_news_is_not_lost() -> None:
    # asyncio.wait_for loses it before Python 3.12: a start that somebody has cancelled would go on.
    job = Watched("1", LONG_AGO)
    waiting = asyncio.create_task(job.changed(20))
    await asyncio.sleep(0.01)
    job.wake()
    await asyncio.sleep(0)  # the inner wait is over, its waiter has not run yet
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_change_wakes_the_waiter_and_only_a_change(client: StandInClient, quiet: QuietWatcher) -> None:
    job = quiet.watch("1", LONG_AGO)
    client.put("1", "PENDING", "Priority")
    waiting = asyncio.create_task(job.changed(20))
    await quiet.look()
    assert await waiting is True
    await quiet.look()  # the same again
    assert await job.changed(0) is False
    client.put("1", "PENDING", "Resources")  # a reason is a change, too
    await quiet.look()
    assert await job.changed(20) is True


async def test_a_change_before_anybody_waits_is_not_lost(client: StandInClient, quiet: QuietWatcher) -> None:
    job = quiet.watch("1", LONG_AGO)
    client.put("1", "RUNNING")
    await quiet.look()
    assert await job.changed(20) is True
    assert await job.changed(0) is False


async def test_what_a_job_says_itself_wakes_its_waiter() -> None:
    job = Watched("1", LONG_AGO)
    waiting = asyncio.create_task(job.changed(20))
    job.wake()
    assert await waiting is True


# -- how often ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ages_and_states", "expected"),
    [
        ([], queue.INTERVAL_RUNNING),
        ([(10, None)], queue.INTERVAL_NEW),
        ([(10, "RUNNING")], queue.INTERVAL_NEW),
        ([(600, None)], queue.INTERVAL_WAITING),
        ([(600, "PENDING")], queue.INTERVAL_WAITING),
        ([(600, "REQUEUED")], queue.INTERVAL_WAITING),
        ([(600, "RUNNING")], queue.INTERVAL_RUNNING),
        ([(5, "COMPLETING")], queue.INTERVAL_OVER),
        ([(11, "COMPLETING")], queue.INTERVAL_NEW),
        ([(600, "COMPLETING")], queue.INTERVAL_RUNNING),
        ([(600, "RUNNING"), (600, "PENDING")], queue.INTERVAL_WAITING),
        ([(600, "RUNNING"), (600, "PENDING"), (10, "PENDING")], queue.INTERVAL_NEW),
    ],
)
async def test_the_most_impatient_job_decides_how_often_slurm_is_asked(
    client: StandInClient, quiet: QuietWatcher, ages_and_states: list[tuple[float, str | None]], expected: float
) -> None:
    now = 2_000_000.0
    for number, (age, state) in enumerate(ages_and_states):
        job = quiet.watch(str(number), now - age)
        job.row = JobRow(str(number), state, "", None, "") if state else None
    assert quiet.interval(now) == expected


async def test_a_job_that_leaves_the_queue_is_looked_at_often_again(client: StandInClient, quiet: QuietWatcher) -> None:
    quiet.watch("1", LONG_AGO)
    client.put("1", "PENDING")
    await quiet.look()
    assert quiet.interval(time.time()) == queue.INTERVAL_WAITING
    client.put("1", "RUNNING")
    await quiet.look()
    assert quiet.interval(time.time()) == queue.INTERVAL_NEW


async def test_a_job_that_says_that_it_ends_is_looked_at_at_once_and_soon_again(
    client: StandInClient, quiet: QuietWatcher
) -> None:
    """It may be over in a moment, or back in the queue."""
    watched = quiet.watch("1", LONG_AGO)
    client.put("1", "RUNNING")
    await quiet.look()
    watched.since = LONG_AGO
    assert quiet.interval(time.time()) == queue.INTERVAL_RUNNING
    watched.leaves()
    assert quiet.interval(time.time()) == queue.INTERVAL_OVER
    assert quiet.interval(time.time() + queue.SETTLING) == queue.INTERVAL_NEW
    client.put("1", "REQUEUE_HOLD")
    await quiet.look()
    assert watched.requeued


async def test_an_ailing_slurm_is_asked_less_and_less(client: StandInClient, quiet: QuietWatcher) -> None:
    quiet.watch("1")
    client.queue_error = SlurmError("squeue", 1, "away")
    waits = []
    for _ in range(8):
        await quiet.look()
        waits.append(quiet.interval(time.time()))
    assert waits == [4, 8, 16, 32, 64, 120, 120, 120]
    client.queue_error = None
    await quiet.look()
    assert quiet.interval(time.time()) == queue.INTERVAL_NEW


# -- the loop ----------------------------------------------------------------------------------------------------


async def test_the_first_job_is_looked_at_at_once(
    client: StandInClient, watcher: QueueWatcher, aeventually: Callable[..., Awaitable[Any]]
) -> None:
    row = client.put("1", "RUNNING")
    job = watcher.watch("1", LONG_AGO)
    assert await job.changed(10)
    assert job.row == row


async def test_a_second_job_does_not_wait_for_the_first_one_s_interval(
    client: StandInClient, watcher: QueueWatcher, aeventually: Callable[..., Awaitable[Any]]
) -> None:
    client.put("1", "RUNNING")
    client.put("2", "RUNNING")
    await watcher.watch("1", LONG_AGO).changed(10)
    began = time.monotonic()
    assert await watcher.watch("2", LONG_AGO).changed(10)
    assert time.monotonic() - began < queue.INTERVAL_NEW
    assert client.asked[-1] == ["1", "2"]


async def test_with_nothing_to_watch_the_watcher_rests(
    client: StandInClient, watcher: QueueWatcher, aeventually: Callable[..., Awaitable[Any]]
) -> None:
    client.put("1", "RUNNING")
    await watcher.watch("1", LONG_AGO).changed(10)
    looks = len(client.asked)
    watcher.unwatch("1")
    watcher.unwatch("never watched")
    watcher.kick()
    task = watcher._task
    assert task is not None
    await aeventually(task.done, "the watcher rests")
    assert len(client.asked) == looks
    # And it wakes up again.
    assert await watcher.watch("1", LONG_AGO).changed(10)


async def test_a_watcher_that_has_met_an_outage_goes_on(
    client: StandInClient, watcher: QueueWatcher, aeventually: Callable[..., Awaitable[Any]]
) -> None:
    client.queue_error = SlurmError("squeue", 1, "away")
    job = watcher.watch("1", LONG_AGO)
    await aeventually(lambda: watcher.failing_since, "the outage is noticed")
    client.queue_error = None
    client.put("1", "RUNNING")
    watcher.kick()
    assert await job.changed(10)


# -- who shares a watcher ----------------------------------------------------------------------------------------


def test_a_cluster_has_one_watcher_in_each_event_loop() -> None:
    made: list[StandInClient] = []

    def make(*args: Any) -> StandInClient:
        made.append(StandInClient(*args))
        return made[-1]

    async def ask() -> tuple[QueueWatcher, ...]:
        return (
            shared_watcher("snowy", "", LOG, make=make),
            shared_watcher("snowy", "", LOG, make=make),
            shared_watcher("pelle", "", LOG, make=make),
            shared_watcher("snowy", "/etc/snowy.conf", LOG, make=make),
        )

    # An event belongs to the loop it was first waited for in; so a second loop gets its own.
    loops = [asyncio.new_event_loop() for _ in range(2)]
    try:
        answers = [loop.run_until_complete(ask()) for loop in loops]
    finally:
        for loop in loops:
            loop.close()
    for first, again, pelle, by_file in answers:
        assert first is again
        assert len({first, pelle, by_file}) == 3
    assert answers[0][0] is not answers[1][0]
    assert [(one.cluster, one.slurm_conf) for one in made[:3]] == [
        ("snowy", ""),
        ("pelle", ""),
        ("snowy", "/etc/snowy.conf"),
    ]
    assert len(made) == 6
