"""Which sessions are ended because nobody uses them, and when. Pure.

The job says for how long it has neither computed nor been used (standalone/sampler.py). What it does not know, it does
not say, and a session of which nothing is known goes on.
"""

from __future__ import annotations

from typing import NamedTuple

from ..choice.request import load
from ..site import Site
from .record import Job
from .usage import Usage


class Idle(NamedTuple):
    """A session that nobody uses. Times are in epoch seconds."""

    limit: int  # seconds for which it may go unused
    ends_at: float
    warned_from: float

    def is_near(self, now: float) -> bool:
        """Whether it is time to warn."""
        return now >= self.warned_from


def note(job: Job, usage: Usage, site: Site, now: float) -> None:
    """Note in *job* since when it has not been used, and since when that is said."""
    job.unused_since = now - usage.unused if usage.unused is not None else 0.0
    idle = idle_of(job, site)
    job.warned_at = (job.warned_at or now) if idle and idle.is_near(now) else 0.0


def idle_of(job: Job, site: Site) -> Idle | None:
    """Return when *job* will be ended if nobody uses it until then; None: that is not known, or never.

    Nobody's session is ended before its warning has stood for its time: hub or job may have been away, or suspended.
    """
    wanted = load(job.request)
    limit, warn = site.idle_limits(wanted.partition, bool(wanted.gpu))
    if not limit or not job.unused_since or job.phase != "serving":
        return None
    due = max(job.unused_since, job.kept_at) + limit
    return Idle(limit, max(due, job.warned_at + warn), due - warn)


def given_back(job: Job, now: float) -> float:
    """Return the GPU-hours that are given back when *job* ends *now*, before its time limit."""
    wanted = load(job.request)
    left = job.begun_at + wanted.time_limit - now if job.begun_at else 0.0
    return wanted.gpu_count * max(0.0, left) / 3600
