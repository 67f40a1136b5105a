"""What is happening with a session, as data for every page and for progress. Pure: reads memory only."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any, NamedTuple

from . import words
from .job import Job
from .site import Site
from .slurm.client import WAITING
from .slurm.queue import QueueWatcher, Watched

# A single squeue that fails is nobody's business.
_AWAY_AFTER = 5.0


class Status(NamedTuple):
    """One session at one moment. Times are in epoch seconds, None where nobody knows."""

    percent: int
    sentence: str
    advice: str = ""
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
        """Join sentence and advice."""
        return f"{self.sentence} {self.advice}".strip()

    def event(self) -> dict[str, Any]:
        """Return it as an event of JupyterHub's progress stream; its data is under ``snowy``."""
        return {"progress": self.percent, "message": self.message, "snowy": self._asdict()}


def of(job: Job | None, watched: Watched | None, watcher: QueueWatcher, site: Site) -> Status:
    """Say what is happening with *job*; *watched* is what Slurm says of it."""
    if job is None:
        return Status(5, "Handing the job to Slurm.")
    row = watched.row if watched else None
    waiting = row is not None and row.state in WAITING
    percent, sentence, advice = _say(job, watched)
    now = time.time()
    away = watcher.failing_since
    if away is not None and now - away > _AWAY_AFTER and job.alive:
        since = datetime.fromtimestamp(away, site.zone).strftime("%H:%M:%S")
        advice = f"Slurm is not answering since {since}. Nothing is lost: the job is looked for again and again."
    elif away is not None and now - away <= _AWAY_AFTER:
        away = None
    return Status(
        percent,
        sentence,
        advice,
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


def _say(job: Job, watched: Watched | None) -> tuple[int, str, str]:
    row = watched.row if watched else None
    if job.phase == "submitting":
        return 5, "Handing the job to Slurm.", ""
    if job.phase in ("stopping", "ended"):
        return 95, "Stopping.", ""
    if job.phase == "pending":
        if watched and watched.hidden(time.time()):
            # The job's claim tells the hub all the same.
            return 10, f"Job {job.job_id} is in the queue.", "Slurm does not show it to the hub (PrivateData)."
        if row is None:
            return 10, f"Job {job.job_id} is in the queue.", ""
        if row.state in WAITING:
            return 20, f"Job {job.job_id} is in the queue.", words.reason(row.reason)
        return 50, f"Job {job.job_id} has started on node {row.node}.", ""
    if job.phase == "launching":
        return 70, f"JupyterLab is starting on node {job.node}, environment {job.request['environment']}.", ""
    return 90, f"JupyterLab answers on node {job.node}.", ""
