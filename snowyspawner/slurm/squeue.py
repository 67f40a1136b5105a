"""What squeue says of jobs: its formats, the states of a job, and where each stands in a job's life. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Literal, NamedTuple


class JobRow(NamedTuple):
    """One job as squeue shows it. *start* is in seconds since the epoch; for a waiting job, an estimate."""

    job_id: str
    state: str
    node: str
    start: int | None
    reason: str


Stage = Literal["waiting", "starting", "running", "suspended", "stopping", "over", "unknown"]

#: Where each state of a job's stands in its life: squeue(1), JOB STATE CODES, and the flags that "Job State Codes" of
#: Slurm 25.05 adds to them.
STATE_STAGE: Mapping[str, Stage] = {
    # The job has no node yet, or no longer.
    "PENDING": "waiting",
    "REQUEUED": "waiting",
    "REQUEUE_FED": "waiting",
    "REQUEUE_HOLD": "waiting",
    "RESV_DEL_HOLD": "waiting",
    "SPECIAL_EXIT": "waiting",
    "RECONFIG_FAIL": "waiting",
    "EXPEDITING": "waiting",  # 25.11
    # It has one, which is not ready.
    "CONFIGURING": "starting",
    "POWER_UP_NODE": "starting",
    "RUNNING": "running",
    "RESIZING": "running",
    "SIGNALING": "running",
    "UPDATE_DB": "running",
    # Its processes stand still.
    "SUSPENDED": "suspended",
    "STOPPED": "suspended",
    # Its processes are ending, or have ended.
    "COMPLETING": "stopping",
    "STAGE_OUT": "stopping",
    "BOOT_FAIL": "over",
    "CANCELLED": "over",
    "COMPLETED": "over",
    "DEADLINE": "over",
    "FAILED": "over",
    "LAUNCH_FAILED": "over",
    "NODE_FAIL": "over",
    "OUT_OF_MEMORY": "over",
    "PREEMPTED": "over",
    "REVOKED": "over",
    "TIMEOUT": "over",
}

#: States in which a job is over.
ENDED = frozenset(state for state, stage in STATE_STAGE.items() if stage == "over")

#: States in which the job has no node yet, or no longer.
WAITING = frozenset(state for state, stage in STATE_STAGE.items() if stage == "waiting")


def stage_of(state: str) -> Stage:
    """Return where *state* stands in a job's life. One never seen before is unknown, and unknown means alive."""
    return STATE_STAGE.get(state, "unknown")


SQUEUE_FORMAT = "%i|%T|%B|%S|%r"  # the free text last


def parse_squeue(output: str) -> dict[str, JobRow]:
    """Read the rows of `SQUEUE_FORMAT`. ``CLUSTER:`` headers (Slurm before 20.02) and other lines are passed over."""
    rows = {}
    for line in output.splitlines():
        parts = line.split("|", 4)
        if len(parts) != 5 or not parts[0].strip().isdigit():
            continue
        job_id, state, node, start, reason = (part.strip() for part in parts)
        rows[job_id] = JobRow(
            job_id, state, "" if node == "n/a" else node, int(start) if start.isdigit() else None, reason
        )
    return rows


_MOST_TASKS = 1000


def parse_jobs(output: str) -> list[str]:
    """Read the ids in the rows of `SQUEUE_FORMAT` of jobs that are not over, each that counts against a limit of jobs.

    ``9_3`` is a job of an array, ``9_[4-6,8%2]`` four that wait, ``14+0`` a part of a heterogeneous job, which is one.
    Of an array with more than `_MOST_TASKS` that wait, so many are returned: no limit that the hub checks is as high.
    """
    ids: dict[str, None] = {}
    for line in output.splitlines():
        job_id, bar, rest = line.partition("|")
        job_id = job_id.strip()
        match = re.fullmatch(r"([0-9]+)(?:_([0-9]+)|_\[([0-9,:-]+)(?:%[0-9]+)?\]|\+[0-9]+)?", job_id, re.ASCII)
        if not bar or not match or rest.partition("|")[0].strip() in ENDED:
            continue
        if match[3]:
            ids.update((f"{match[1]}_{task}", None) for task in islice(_tasks(match[3]), _MOST_TASKS))
        else:
            ids[f"{match[1]}_{match[2]}" if match[2] else match[1]] = None
    return list(ids)


def _tasks(text: str) -> Iterator[int]:
    """Yield the tasks of an array: ``4-6,8`` and ``0-9:3`` as sbatch(1), --array, has them."""
    for part in text.split(","):
        if match := re.fullmatch(r"([0-9]+)(?:-([0-9]+)(?::([0-9]+))?)?", part):
            first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
            yield from range(first, last + 1, max(step, 1))


#: squeue's arguments: a line for each waiting job; of an array that waits as a whole, one.
PENDING_FORMAT = ("-h", "-a", "--states=PENDING", "-o", "%P|%r")

# With these reasons a job would not start even on an empty cluster: it stands in nobody's way.
_NOT_WAITING = re.compile(
    r"BeginTime|Dependency|DependencyNeverSatisfied|Job(?:Held|Hold).*|JobArrayTaskLimit|DeadLine|Reservation"
    r"|(?:Assoc|QOS).*|Partition(?:Config|TimeLimit|NodeLimit)|Invalid(?:Account|QOS)|BadConstraints"
)


def parse_pending(output: str) -> dict[str, int]:
    """Read the lines of `PENDING_FORMAT`: how many jobs wait for each partition's nodes.

    A job that was sent to several partitions counts in each. One that is held, waits for its time or for another
    job, or has reached a limit of its own, is in nobody's way and does not count.
    """
    waiting: dict[str, int] = {}
    for line in output.splitlines():
        partitions, bar, reason = line.partition("|")
        if not bar or _NOT_WAITING.fullmatch(reason.partition(",")[0].strip()):
            continue
        for partition in partitions.strip().split(","):
            waiting[partition] = waiting.get(partition, 0) + 1
    return waiting
