"""What is happening with a session, as data for every page and for progress. Pure: reads memory only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any, NamedTuple

from ..choice.request import load
from ..site import Site
from ..slurm.queue import QueueWatcher, Watched
from ..slurm.squeue import WAITING, JobRow
from . import messages
from .messages import Words
from .record import Job

# A single squeue that fails is nobody's business.
_AWAY_AFTER = 5.0
#: Seconds between two events of a session about which there is nothing new to say.
HEARTBEAT = 30.0
# Seconds between two looks; each is a look into memory.
_LOOK_EVERY = 0.3


class Status(NamedTuple):
    """One session at one moment. Times are in epoch seconds, None where nobody knows."""

    percent: int
    title: str  # a few words
    sentence: str
    why: str = ""  # why it is so
    advice: str = ""  # what to do about it
    note: str = ""  # how much all this is worth
    phase: str = ""  # a job.Phase; empty: no job
    job_id: str = ""
    state: str = ""  # Slurm's
    reason: str = ""  # Slurm's
    node: str = ""
    submitted_at: float | None = None
    starts_at: float | None = None  # Slurm's estimate
    begun_at: float | None = None
    slurm_away_since: float | None = None

    @property
    def message(self) -> str:
        """Join all that is said."""
        return " ".join(text for text in (self.sentence, self.why, self.advice, self.note) if text)

    def event(self, news: bool = True) -> dict[str, Any]:
        """Return it as an event of JupyterHub's progress stream; its data is under ``snowy``.

        Without *news* it has no message: pages write every message that they get into a log.
        """
        said = {"message": self.message} if news else {}
        return {"progress": self.percent, **said, "snowy": self._asdict()}


async def events(
    look: Callable[[], Status],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[dict[str, Any]]:
    """Yield an event when there is something new to say, and a heartbeat without a message in between.

    An estimate that moves is no news, as Slurm's do at every look: it travels with the heartbeat. One that appears
    or goes is.
    """
    shown: Status | None = None
    last = 0.0
    while True:
        now = look()
        news = shown is None or _substance(now) != _substance(shown)
        if news or clock() - last >= HEARTBEAT:
            yield now.event(shown is None or now.message != shown.message)
            shown, last = now, clock()
        await sleep(_LOOK_EVERY)


def _substance(status: Status) -> Status:
    return status._replace(starts_at=None if status.starts_at is None else 0.0)


def status_of(job: Job | None, watched: Watched | None, watcher: QueueWatcher, site: Site) -> Status:
    """Say what is happening with *job*; *watched* is what Slurm says of it."""
    if job is None:
        return Status(5, "Starting", "Handing the job to Slurm.")
    row = watched.row if watched else None
    waiting = row is not None and row.state in WAITING
    percent, title, sentence, (why, advice, _) = _say(job, watched)
    away = watcher.failing_since
    # A single failure says nothing yet.
    away = away if away is not None and time.time() - away > _AWAY_AFTER else None
    note = ""
    if away is not None and job.alive:
        since = datetime.fromtimestamp(away, site.zone).strftime("%H:%M:%S")
        note = f"Slurm has not answered since {since}. Nothing is lost: the job is looked for again and again."
    return Status(
        percent,
        title,
        sentence,
        why,
        advice,
        note,
        phase=job.phase,
        job_id=job.job_id,
        state=row.state if row else "",
        reason=row.reason if row and waiting else "",
        node=job.node or (row.node if row else ""),
        submitted_at=job.submitted_at,
        # squeue's %S: for a job that waits, when Slurm expects it to start.
        starts_at=row.start if row and waiting else None,
        begun_at=job.begun_at or (row.start if row and not waiting else None),
        slurm_away_since=away,
    )


def _say(job: Job, watched: Watched | None) -> tuple[int, str, str, Words]:
    row = watched.row if watched else None
    queued, nothing = f"Job {job.job_id} is in the queue.", Words("")
    if job.phase == "submitting":
        return 5, "Starting", "Handing the job to Slurm.", nothing
    if job.phase in ("stopping", "ended"):
        return 95, "Stopping", "The session is being stopped.", nothing
    if job.phase == "pending":
        if watched and watched.hidden(time.time()):
            # The job's claim tells the hub all the same.
            return 10, "In the queue", queued, Words("Slurm does not show it to the hub (PrivateData).")
        if row is None:
            return 10, "In the queue", queued, nothing
        if row.state in WAITING:
            return 20, "In the queue", queued, messages.pending(row.reason)
        return 50, "Starting", f"Job {job.job_id} has started on node {row.node}.", _unusual(row)
    if job.phase == "launching":
        software = load(job.request).software
        where = f"node {job.node}" + (f", environment {software}" if software else "")
        return 70, "Starting", f"JupyterLab is starting on {where}.", nothing
    return 90, "Running", f"JupyterLab answers on node {job.node}.", _unusual(row)


def _unusual(row: JobRow | None) -> Words:
    return Words("") if row is None or row.state == "RUNNING" else messages.state(row.state)
