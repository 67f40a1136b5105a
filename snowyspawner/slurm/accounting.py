"""What accounting says: how jobs ended and what they used (sacct), whose accounts there are (sacctmgr). Pure."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterable
from typing import Any, NamedTuple

from .squeue import ENDED, STATE_STAGE


class JobEnd(NamedTuple):
    """How a job ended. *state* is Slurm's (``TIMEOUT``), *exit_code* and *signal* the batch script's."""

    state: str
    exit_code: int
    signal: int
    by: str = ""  # for CANCELLED: the user name, or uid, of who did it


SACCT_FORMAT = "JobIDRaw,State,ExitCode"


class JobUse(NamedTuple):
    """What a job used, over all of its time. None: it is not known."""

    seconds: float  # for which it ran
    cpu_seconds: float | None = None
    memory: float | None = None  # MiB: the most
    gpu_busy: float | None = None  # percent, the mean of its GPUs
    gpu_memory: float | None = None  # MiB that its GPUs have
    gpu_memory_peak: float | None = None  # MiB


#: AdminComment is the last, as it may hold anything.
USE_FORMAT = "JobIDRaw,ElapsedRaw,TotalCPU,MaxRSS,AdminComment"

_MIB = 1024.0**2
_UNITS = {"": 1 / _MIB, "K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": _MIB}
# More than a job of a thousand nodes has.
_LONGEST_RECORD = 1 << 20

ACCOUNTS_FORMAT = "account,defaultaccount"

#: What people who help are shown of a job and its steps. The job's name is the last, as it may hold anything.
RECORD_FORMAT = (
    "JobID,State,ExitCode,DerivedExitCode,Partition,Account,NodeList,AllocTRES,Timelimit,Elapsed,TotalCPU,MaxRSS,"
    "Submit,Start,End,JobName"
)


def parse_sacct(output: str) -> dict[str, JobEnd]:
    """Read the rows of `SACCT_FORMAT` (``-n -P -X``): the jobs that are over; others are left out."""
    ends = {}
    for line in output.splitlines():
        parts = line.split("|")
        if len(parts) != 3 or not parts[0].isdigit():
            continue
        state, _, by = parts[1].partition(" by ")
        state = _whole(state.strip())
        if state not in ENDED:
            continue
        code, _, signal = parts[2].partition(":")
        ends[parts[0]] = JobEnd(
            state, int(code) if code.isdigit() else 0, int(signal) if signal.isdigit() else 0, by.strip()
        )
    return ends


def parse_record(output: str) -> list[dict[str, str]]:
    """Read the rows of `RECORD_FORMAT` (``-n -P``) of one job and its steps; values as sacct has them."""
    columns = RECORD_FORMAT.split(",")
    rows = (line.split("|", len(columns) - 1) for line in output.splitlines())
    return [dict(zip(columns, row, strict=True)) for row in rows if len(row) == len(columns)]


def parse_use(output: str) -> JobUse | None:
    """Read the rows of `USE_FORMAT` (``-n -P``) of one job and its steps; None: accounting does not know it.

    Where the site runs Princeton's jobstats, its record in AdminComment says more. sacct's own figure for GPUs is the
    highest that was seen, and says nothing of the mean.
    """
    rows = [line.split("|", 4) for line in output.splitlines()]
    jobs = [row for row in rows if len(row) == 5 and row[0].isdigit() and row[1].isdigit()]
    if not jobs:
        return None
    _, elapsed, cpu, _, comment = jobs[-1]  # of its last run, if it was requeued
    steps = [_size(row[3]) for row in rows if len(row) == 5]
    known = [size for size in steps if size is not None]
    plain = JobUse(float(elapsed), _cpu_seconds(cpu), max(known, default=None))
    return parse_jobstats(comment) or plain


def parse_jobstats(comment: str) -> JobUse | None:
    """Read the record that jobstats keeps of a job: ``JS1:``, and JSON in gzip in base64. None: it is none.

    https://princetonuniversity.github.io/jobstats/setup/summaries/
    """
    if not comment.startswith("JS1:"):
        return None
    try:
        packed = base64.b64decode(comment.removeprefix("JS1:").strip(), validate=True)
        said = json.loads(zlib.decompressobj(wbits=31).decompress(packed, _LONGEST_RECORD))
        nodes = [node for node in said["nodes"].values() if isinstance(node, dict)]
        seconds = _number(said["total_time"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, zlib.error):
        return None
    if not nodes or not seconds:
        return None
    of_gpus = {
        name: [_number(value) for node in nodes for value in _values(node.get(f"gpu_{name}"))]
        for name in ("utilization", "used_memory", "total_memory")
    }
    busy = [value for value in of_gpus["utilization"] if value is not None and value <= 100]
    memory = _sum(_number(node.get("used_memory")) for node in nodes)
    used, total = _sum(of_gpus["used_memory"]), _sum(of_gpus["total_memory"])
    return JobUse(
        seconds,
        _sum(_number(node.get("total_time")) for node in nodes),
        None if memory is None else memory / _MIB,
        sum(busy) / len(busy) if busy else None,
        total / _MIB if total and used is not None else None,
        used / _MIB if total and used is not None else None,
    )


def _values(table: Any) -> Iterable[Any]:
    return table.values() if isinstance(table, dict) else ()


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e18:
        return None
    return float(value)


def _sum(values: Iterable[float | None]) -> float | None:
    """Add up *values*; None if there is none, or any is not known."""
    all_of_them = list(values)
    known = [value for value in all_of_them if value is not None]
    return sum(known) if known and len(known) == len(all_of_them) else None


def _cpu_seconds(text: str) -> float | None:
    """Read sacct's TotalCPU: ``[DD-[HH:]]MM:SS.mmm``."""
    found = re.fullmatch(r"(?:(\d{1,5})-)?(?:(\d{1,2}):)?(\d{1,2}):(\d{1,2}(?:\.\d{1,6})?)", text.strip(), re.ASCII)
    if not found:
        return None
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _size(text: str) -> float | None:
    """Read a size of sacct's (``123456K``), in MiB."""
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?)([KMGT]?)", text.strip(), re.ASCII)
    return float(found[1]) * _UNITS[found[2]] if found else None


def _whole(state: str) -> str:
    # Where a column was too narrow, "OUT_OF_ME+" stands for one state: no two begin alike.
    if not state.endswith("+"):
        return state
    return next((known for known in STATE_STAGE if known.startswith(state[:-1])), state)


def parse_accounts(output: str) -> list[str]:
    """Read `ACCOUNTS_FORMAT` (``-n -P``): each account once, the person's default first, else in Slurm's order."""
    rows = [[part.strip() for part in line.split("|")] for line in output.splitlines() if line.strip()]
    accounts = dict.fromkeys(row[0] for row in rows if row[0])
    # Slurm has the account first that was made last.
    defaults = [row[1] for row in rows if len(row) > 1 and row[1] in accounts]
    return list(dict.fromkeys([*defaults, *accounts]))
