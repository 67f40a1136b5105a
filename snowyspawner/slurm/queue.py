"""One squeue for everybody: the jobs of a cluster, looked at together and only while somebody waits for one.

Guarantees: a squeue that fails or hangs never makes a job look gone, the last good answer stays; a job counts as
ended only when Slurm showed a terminal state (squeue, or sacct once squeue has forgotten it); whoever waits is
woken by a change, not by a clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence

from ..metrics import BACKGROUND_FAILURES, SNAPSHOT_AGE, SQUEUE_SECONDS, WATCHED_JOBS
from .accounting import JobEnd
from .client import Prefix, SlurmClient, SlurmError, sees_all_jobs, within
from .squeue import ENDED, WAITING, JobRow, stage_of

# Seconds between two looks, by what the most impatient job is doing.
INTERVAL_NEW, INTERVAL_WAITING, INTERVAL_RUNNING = 2.0, 15.0, 45.0
INTERVAL_OVER = 0.5  # it is ending, or over, and Slurm has yet to say how
NEW_FOR = 60.0  # a job counts as new for so long after its submission, or after it left the queue
BACKOFF_LIMIT = 120.0
# So long does a look at the queue wait for accounting.
ACCOUNTING_PATIENCE = 3.0
# A snapshot may lack a job that was accepted just before it was taken.
SETTLING = 10.0
# A job that was accepted is in every snapshot by then, unless squeue does not show it to the hub.
HIDDEN_AFTER = 60.0
# Seconds between two questions about such a job as the person whose it is.
INTERVAL_HIDDEN = 2.0


class Watched:
    """One job that somebody watches. *row* is its last squeue row, *end* is set once it is over."""

    def __init__(self, job_id: str, since: float, prefix: Prefix | None = None) -> None:
        self.job_id, self.prefix = job_id, prefix
        self.since = since  # epoch seconds: when it became interesting
        self.private = False  # only the person is shown it
        self.asked_as_person = 0.0  # epoch seconds
        self.row: JobRow | None = None
        self.end: JobEnd | None = None
        self.has_run = False  # some snapshot showed it running: a node that boots is not ready
        self.missing_since: float | None = None  # epoch seconds: first good snapshot without it
        self.over_since: float | None = None  # epoch seconds: first snapshot in which it was over
        self.ran_at: float | None = None  # epoch seconds: the job itself has spoken
        self.leaving = False  # the job has said that its server has ended
        self._news = asyncio.Event()

    async def changed(self, timeout: float | None = None) -> bool:
        """Wait for a change of row or end since the last call; tell whether there was one in *timeout* seconds."""
        try:
            await within(self._news.wait(), timeout)
        except asyncio.TimeoutError:
            return False
        self._news.clear()
        return True

    @property
    def requeued(self) -> bool:
        """Whether the job is back in the queue after it had run: what ran in it is gone."""
        return self.has_run and self.row is not None and self.row.state in WAITING

    @property
    def ending(self) -> bool:
        """Whether its server has ended, or its processes are ending. The job may come back into the queue."""
        return self.leaving or (self.row is not None and stage_of(self.row.state) == "stopping")

    def leaves(self) -> None:
        """Note that the job has said that its server has ended; wake the waiter."""
        self.leaving, self.since = True, time.time()
        self.wake()

    def unknown_for(self, now: float) -> float:
        """Return for how many seconds squeue has answered without this job, and accounting has no end of it."""
        return 0.0 if self.missing_since is None else now - self.missing_since

    def hidden(self, now: float) -> bool:
        """Tell whether squeue answers and has never shown this job: Slurm's PrivateData hides it from the hub."""
        return self.row is None and self.unknown_for(now) > HIDDEN_AFTER

    def wake(self) -> None:
        """Wake the waiter: something else about this job has changed."""
        self._news.set()

    def update(self, row: JobRow | None, end: JobEnd | None) -> None:
        """Take over what Slurm said; wake the waiter if it is new. An end is final."""
        if self.end is not None or (row == self.row and end is None):
            return
        if row and self.row and row.state != self.row.state:
            self.since = time.time()
        if row and stage_of(row.state) not in ("waiting", "starting", "over"):
            self.has_run = True
        self.row, self.end = row or self.row, end
        self._news.set()


class QueueWatcher:
    """Watches the jobs of one cluster. One per cluster and event loop."""

    def __init__(self, client: SlurmClient, log: logging.Logger | logging.LoggerAdapter[logging.Logger]) -> None:
        self.client = client
        self.log = log
        self.failing_since: float | None = None  # epoch seconds: Slurm has not answered since
        self.last_error = ""
        self._jobs: dict[str, Watched] = {}
        self._task: asyncio.Task[None] | None = None
        self._asking: asyncio.Task[dict[str, JobEnd]] | None = None  # accounting, when it is slow
        self._may_not_ask = False  # as people, and that has been said
        self._kick = asyncio.Event()
        self._failures = 0
        self._last_good = time.time()
        name = client.cluster or "local"
        SNAPSHOT_AGE.labels(name).set_function(lambda: time.time() - self._last_good if self._jobs else 0.0)
        WATCHED_JOBS.labels(name).set_function(lambda: len(self._jobs))

    def watch(self, job_id: str, since: float | None = None, prefix: Prefix | None = None) -> Watched:
        """Watch *job_id*, submitted at *since* (epoch seconds; now). Watching twice gives the same object.

        With *prefix*, a job that Slurm does not show to the hub is asked for as the person whose it is.
        """
        watched = self._jobs.get(job_id)
        if watched is None:
            if not self._jobs:
                self._last_good = time.time()  # nobody looked, so nothing is overdue
            watched = self._jobs[job_id] = Watched(job_id, time.time() if since is None else since, prefix)
            self.kick()
        return watched

    def unwatch(self, job_id: str) -> None:
        """Stop watching; with the last job the watcher rests."""
        self._jobs.pop(job_id, None)

    def kick(self) -> None:
        """Look soon: something has happened that Slurm will know about."""
        self._kick.set()
        if self._jobs and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._run(), name="snowyspawner queue watcher")

    def interval(self, now: float) -> float:
        """Return the seconds to the next look: as often as the most impatient job needs, less if Slurm ails."""
        if self._failures:
            return float(min(INTERVAL_NEW * 2**self._failures, BACKOFF_LIMIT))
        wait = INTERVAL_RUNNING
        for watched in self._jobs.values():
            # Ending may take long: of a job that hangs in it, news is no more urgent than of any other.
            ending = watched.ending and now - watched.since < SETTLING
            if watched.end is None and (watched.over_since is not None or ending):
                wait = min(wait, INTERVAL_OVER)
            elif now - watched.since < NEW_FOR:
                wait = min(wait, INTERVAL_NEW)
            elif watched.row is None or watched.row.state in WAITING:
                wait = min(wait, INTERVAL_WAITING)
        return wait

    async def _run(self) -> None:
        while self._jobs:
            self._kick.clear()
            await self.look()
            # Jitter, so that several hubs do not come in step.
            wait = self.interval(time.time()) * random.uniform(0.9, 1.1)  # noqa: S311
            try:
                await within(self._kick.wait(), wait)
            except asyncio.TimeoutError:
                continue
            # Kicks that come together are one look.
            await asyncio.sleep(0.2)

    async def look(self) -> None:
        """Take one snapshot. Never raises: a failure keeps the last good one."""
        started, jobs = time.time(), dict(self._jobs)
        try:
            await self._look(started, jobs)
        except (SlurmError, OSError) as error:
            self._failed(started, jobs, error)
        except Exception as error:  # whatever it is: rows must not stand still for good
            BACKGROUND_FAILURES.labels("queue").inc()
            self.log.exception("Looking at the queue failed; it is tried again")
            self._failed(started, jobs, error)

    def _failed(self, started: float, jobs: Mapping[str, Watched], error: Exception) -> None:
        SQUEUE_SECONDS.labels("failed").observe(time.time() - started)
        self._failures += 1
        self.last_error = error.stderr if isinstance(error, SlurmError) else str(error)
        if self.failing_since is None:
            self.failing_since = started
            self.log.warning("Slurm does not answer, keeping the last known state: %s", error)
            # Whoever waits is to say so.
            for job in jobs.values():
                job.wake()

    async def _look(self, started: float, jobs: Mapping[str, Watched]) -> None:
        rows = dict(await self.client.queue(jobs))
        SQUEUE_SECONDS.labels("ok").observe(time.time() - started)
        private, private_ends = await self._ask_as_people(
            started, [job for job in jobs.values() if job.job_id not in rows]
        )
        rows.update(private)
        if self.failing_since is not None:
            self.log.warning("Slurm answers again after %.0f s", time.time() - self.failing_since)
        self._failures, self.failing_since, self.last_error, self._last_good = 0, None, "", started
        missing = [job_id for job_id, job in jobs.items() if job_id not in rows and started - job.since > SETTLING]
        over = [job_id for job_id, row in rows.items() if row.state in ENDED and not self._known(job_id)]
        ends, failed = await self._ask_ends([job_id for job_id in missing + over if job_id not in private_ends])
        ends = {**ends, **private_ends}
        for job_id, job in jobs.items():
            row = rows.get(job_id)
            end = ends.get(job_id)
            if end is None and row is not None and row.state in ENDED:
                job.over_since = job.over_since or started
                # Only accounting knows the exit code, and who cancelled it; it may lag. When it is off, squeue's
                # word is enough.
                if row.state not in ("FAILED", "CANCELLED") or failed or started - job.over_since > SETTLING:
                    end = JobEnd(row.state, 0, 0)
            if job.ran_at and job.ran_at < started and not job.has_run:
                job.has_run = True  # though no snapshot has shown it
                job.wake()
            job.missing_since = None if row or end else (job.missing_since or started)
            job.update(row, end)

    async def _ask_as_people(
        self, started: float, missing: Sequence[Watched]
    ) -> tuple[dict[str, JobRow], dict[str, JobEnd]]:
        """Ask for jobs that the hub has never been shown as the people whose they are: Slurm's PrivateData hides them.

        Their own queue and accounting show them. A hub that runs as root, or as the person, sees all there is.
        """
        rows: dict[str, JobRow] = {}
        ends: dict[str, JobEnd] = {}
        if sees_all_jobs():
            return rows, ends
        groups: dict[tuple[str, ...], list[Watched]] = {}
        for job in missing:
            unseen = job.private or (job.row is None and started - job.since > SETTLING)
            if not unseen or not job.prefix or job.end is not None:
                continue
            if started - job.asked_as_person < INTERVAL_HIDDEN:
                if job.row:
                    rows[job.job_id] = job.row  # what was seen a moment ago
                continue
            with contextlib.suppress(SlurmError):
                if prefix := tuple(await job.prefix()):
                    job.asked_as_person = started
                    groups.setdefault(prefix, []).append(job)
        answers = [self._ask_as_person(prefix, jobs) for prefix, jobs in groups.items()]
        for one, other in await asyncio.gather(*answers):
            rows.update(one)
            ends.update(other)
        return rows, ends

    async def _ask_as_person(
        self, prefix: Sequence[str], jobs: Sequence[Watched]
    ) -> tuple[Mapping[str, JobRow], Mapping[str, JobEnd]]:
        try:
            rows = await self.client.queue([job.job_id for job in jobs], prefix)
            gone = [job.job_id for job in jobs if job.job_id not in rows or rows[job.job_id].state in ENDED]
            ends = await self.client.ends(gone, prefix) if gone else {}
        except (SlurmError, OSError) as error:
            if not self._may_not_ask:
                self.log.warning(
                    "Slurm does not show the hub job %s (PrivateData?), and the hub cannot ask as its owner: make the "
                    "hub's account one of Slurm's operators, or let sudo run squeue and sacct. %s",
                    *(jobs[0].job_id, error),
                )
            self._may_not_ask = True
            return {}, {}
        self._may_not_ask = False
        for job in jobs:
            job.private = job.private or job.job_id in rows or job.job_id in ends
        return rows, ends

    async def _ask_ends(self, job_ids: Sequence[str]) -> tuple[Mapping[str, JobEnd], bool]:
        """Ask accounting for the ends of these jobs; return those that are known, and whether it has failed.

        It may hang while the queue is well: then it is left to its question, and the answer is for a later look.
        """
        asking = self._asking
        if asking is None and job_ids:
            asking = self._asking = asyncio.create_task(self.client.ends(job_ids), name="snowyspawner accounting")
        if asking is None:
            return {}, False
        await asyncio.wait([asking], timeout=ACCOUNTING_PATIENCE)
        if not asking.done():
            return {}, False
        self._asking = None
        try:
            return asking.result(), False
        except (SlurmError, OSError) as error:
            self.log.warning("Accounting does not answer: %s", error)
            return {}, True
        except Exception:
            BACKGROUND_FAILURES.labels("accounting").inc()
            self.log.exception("Asking accounting failed; it is tried again")
            return {}, False

    def _known(self, job_id: str) -> bool:
        watched = self._jobs.get(job_id)
        return watched is None or watched.end is not None


_watchers: dict[tuple[int, str, str], tuple[asyncio.AbstractEventLoop, QueueWatcher]] = {}


def shared_watcher(
    cluster: str,
    slurm_conf: str,
    log: logging.Logger | logging.LoggerAdapter[logging.Logger],
    timeout: float = 30.0,
    make: Callable[..., SlurmClient] = SlurmClient,
) -> QueueWatcher:
    """Return the running loop's watcher for a cluster; the first caller makes it.

    *timeout* is what each of Slurm's commands gets, in seconds.
    """
    loop = asyncio.get_running_loop()
    key = (id(loop), cluster, slurm_conf)
    held = _watchers.get(key)
    # The id of a closed loop may be given out again.
    if held is None or held[0] is not loop:
        held = _watchers[key] = (loop, QueueWatcher(make(cluster, slurm_conf, timeout), log))
    return held[1]
