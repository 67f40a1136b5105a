"""What the hub counts and times, on JupyterHub's own page /hub/metrics.

Labels come from closed lists only: no person, job or node is in them, so the number of series stays small.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

# Half a second to half a day: a queue may be as long as a night.
_QUEUE_BUCKETS = (0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 12 * 3600)
_LAUNCH_BUCKETS = (1, 2, 3, 5, 8, 13, 20, 30, 60, 120, 180)
_SHARE_BUCKETS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_SQUEUE_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)

#: Starts by outcome (serving, failed, cancelled) and cause (a `session.errors.Reason`; empty unless failed).
STARTS = Counter("snowyspawner_starts", "Starts of sessions, by outcome and cause", ["outcome", "cause"])
#: Sessions that are over, by Slurm's state, ``STOPPED`` (by the person) or ``IDLE`` (nobody used it).
ENDS = Counter("snowyspawner_ends", "Ends of sessions, by Slurm's state", ["state"])
#: What sessions would still have had that were ended because nobody used them, by partition (the Site's key).
GPU_HOURS_BACK = Counter("snowyspawner_gpu_hours_returned", "GPU-hours that unused sessions gave back", ["partition"])
#: From submission, or the time it should begin, to the job's start.
QUEUE_SECONDS = Histogram("snowyspawner_queue_seconds", "Time of jobs in the queue", buckets=_QUEUE_BUCKETS)
#: From the job's start until its server answers.
LAUNCH_SECONDS = Histogram("snowyspawner_launch_seconds", "Time of servers to start", buckets=_LAUNCH_BUCKETS)
#: Of the cores that a session had, the share that was busy on average; one session is one observation. The
#: environment is a Site's key, or ``own`` for a user's own software.
CORES_BUSY = Histogram(
    "snowyspawner_cores_busy_ratio",
    "Share of a session's cores that was busy, on average",
    ["environment", "partition"],
    buckets=_SHARE_BUCKETS,
)
#: The same of its GPUs' utilization, of sessions with a GPU.
GPU_BUSY = Histogram(
    "snowyspawner_gpu_busy_ratio",
    "Share of the time in which a session's GPUs were busy",
    ["environment", "partition"],
    buckets=_SHARE_BUCKETS,
)
#: The watcher's squeue, by outcome (ok, failed).
SQUEUE_SECONDS = Histogram(
    "snowyspawner_squeue_seconds", "Duration of squeue calls", ["outcome"], buckets=_SQUEUE_BUCKETS
)
#: Since the last good snapshot of the queue; 0 while no job is watched.
SNAPSHOT_AGE = Gauge("snowyspawner_snapshot_age_seconds", "Age of the last good squeue answer", ["cluster"])
#: Jobs that are watched.
WATCHED_JOBS = Gauge("snowyspawner_watched_jobs", "Jobs that the queue watcher watches", ["cluster"])
#: Errors that nobody foresaw, in work that goes on beside the hub's requests: it is tried again. Each is in the log.
BACKGROUND_FAILURES = Counter("snowyspawner_background_failures", "Unforeseen errors in background work", ["task"])
