"""What sinfo says of nodes, read and summed up by partition. Pure: no I/O.

Cores are Slurm's CPUs: hardware threads where a cluster counts those. Memory is in MB as Slurm counts it (MiB).
Formats: sinfo(1) and its print.c; the same from Slurm 20.02 to 25.05.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .times import parse_duration

_FIELDS = (
    *("NodeList", "PartitionName", "Available", "StateLong", "CPUsState"),
    *("Memory", "AllocMem", "Gres", "GresUsed", "Time", "OverSubscribe"),
)

#: sinfo's arguments: a line for each node and partition, with partitions that are hidden from the hub itself.
#: "Name:|" is a field of width 0, which is never cut off, and a "|" behind it. A "-o" has neither %-letter for
#: GresUsed nor for AllocMem.
SINFO_FORMAT = ("-h", "-a", "-N", "-O", ",".join(f"{name}:|" for name in _FIELDS))


# A node's state ends in a mark (sinfo(1), NODE STATE CODES). With "~" it is asleep and with "#" waking up, which
# Slurm does by itself for a job; "+" is a job that is just ending.
_USABLE = re.compile(r"(?:idle|mixed|allocated|completing)[~#+]?")


class NodeRow(NamedTuple):
    """A node in one of its partitions, as sinfo shows it."""

    node: str
    partition: str
    available: str  # the partition's state: up, down, drain, inactive
    state: str  # the node's, as Slurm writes it: "idle", "mixed-", "down*"
    allocated: int  # cores, as are the next three
    idle: int
    other: int
    total: int
    memory: int  # MB
    allocated_memory: int  # MB
    gpus: dict[str, int]  # by type; "" for those without
    gpus_used: dict[str, int]
    time_limit: int | None  # of the partition, seconds; None for none
    exclusive: bool  # jobs in this partition get whole nodes
    shards: int = 0  # parts of its GPUs that jobs can have instead (gres.conf(5), shard)
    shards_used: int = 0

    @property
    def usable(self) -> bool:
        """Whether a job sent to this partition now could use what is idle on this node."""
        return self.available == "up" and _USABLE.fullmatch(self.state) is not None

    @property
    def free_cores(self) -> int:
        """Cores that a job could get here now. Where jobs get whole nodes, all or none."""
        if not self.usable or (self.exclusive and self.allocated):
            return 0
        return self.idle

    @property
    def free_memory(self) -> int:
        """MB that a job could get here now."""
        return max(0, self.memory - self.allocated_memory) if self.free_cores else 0

    @property
    def free_gpus(self) -> dict[str, int]:
        """GPUs that a job could get here now, by type. A GPU without a core to go with it is of no use."""
        if not self.free_cores:
            return dict.fromkeys(self.gpus, 0)
        free = {kind: max(0, count - self.gpus_used.get(kind, 0)) for kind, count in self.gpus.items()}
        # Where Slurm counts the used ones without their type, any could be meant.
        nameless = self.gpus_used.get("", 0) if "" not in self.gpus else 0
        if self.shards_used and self.shards:
            # At least so many GPUs have a part that somebody uses: none of these is free.
            nameless += -(-self.shards_used * sum(self.gpus.values()) // self.shards)
        for kind, count in free.items():
            taken = min(count, nameless)
            free[kind], nameless = count - taken, nameless - taken
        return free


@dataclass(frozen=True)
class PartitionFacts:
    """A partition summed up. A node that is in two partitions counts in both."""

    free_cores: int = 0
    total_cores: int = 0
    largest_block: int = 0  # the most free cores on one node
    free_gpus: Mapping[str, int] = field(default_factory=dict)  # by type; "" for those without
    total_gpus: Mapping[str, int] = field(default_factory=dict)
    state: str = "up"  # up, down, drain, inactive
    nodes: int = 0
    usable_nodes: int = 0
    node_cores: int = 0  # of the largest node
    node_memory: int = 0  # MB, of the largest node
    time_limit: int | None = None  # seconds; None for none


def parse_gres(text: str, resource: str = "gpu") -> dict[str, int]:
    """Read the GPUs (or another *resource*) of a Gres or GresUsed, by type; ``""`` stands for those without one.

    ``gpu:t4:1,gpu:a100:2(S:0)`` → ``{"t4": 1, "a100": 2}``, ``gpu:2`` and ``gpu:(null):2(IDX:0-1)`` → ``{"": 2}``.
    """
    gpus: dict[str, int] = {}
    # The parentheses say which sockets or which devices, and may hold commas; but "(null)" is a type that is none.
    for item in re.sub(r"\([^)]*\)", "", text.replace("(null)", "")).split(","):
        name, *rest = item.strip().split(":")
        if name != resource:
            continue
        count = rest.pop() if rest and rest[-1].isdigit() else "1"
        kind = ":".join(word for word in rest if word != "no_consume")
        gpus[kind] = gpus.get(kind, 0) + int(count)
    return gpus


def free_of(kind: str, free: Mapping[str, int]) -> int | None:
    """Return how many GPUs of *kind* are among *free* (`PartitionFacts.free_gpus`); None when that is not known.

    *kind* is the type that a Site asks Slurm for (empty: any). sinfo may show it in other letters, or with more before
    or after it: ``t4``, ``T4``, ``tesla_t4``, ``nvidia_a100-sxm4-40gb``.
    """
    if not kind:
        return sum(free.values()) if free else None
    wanted = kind.lower()
    for alike in (
        [name for name in free if name.lower() == wanted],
        [name for name in free if wanted in re.split(r"[_-]", name.lower()) or name.lower().endswith(f"_{wanted}")],
        [name for name in free if name == ""],  # Slurm does not tell them apart
    ):
        if alike:
            return sum(free[name] for name in alike)
    return None


def parse_time_limit(text: str) -> int | None:
    """Read a time limit as sinfo and scontrol write it, in seconds: ``1-00:00:00``, ``30:00``; None for no limit."""
    try:
        return parse_duration(text)
    except ValueError:  # infinite, UNLIMITED, n/a, 0:00
        return None


def parse_nodes(output: str) -> list[NodeRow]:
    """Read the lines of `SINFO_FORMAT`. Lines that are anything else, ``CLUSTER:`` among them, are passed over."""
    rows = []
    for line in output.splitlines():
        # The last field has a "|" behind it, too.
        parts = [part.strip() for part in line.split("|")]
        if len(parts) != len(_FIELDS) + 1:
            continue
        node, partition, available, state, cores, memory, allocated, gres, used, time, share, _ = parts
        counts = re.fullmatch(r"(\d+)/(\d+)/(\d+)/(\d+)", cores)
        if not counts:
            continue
        rows.append(
            NodeRow(
                node=node,
                partition=partition,
                available=available.lower(),
                state=state.lower(),
                allocated=int(counts[1]),
                idle=int(counts[2]),
                other=int(counts[3]),
                total=int(counts[4]),
                memory=_megabytes(memory),
                allocated_memory=_megabytes(allocated),
                gpus=parse_gres(gres),
                gpus_used=parse_gres(used),
                time_limit=parse_time_limit(time),
                exclusive=share.upper() == "EXCLUSIVE",
                shards=sum(parse_gres(gres, "shard").values()),
                shards_used=sum(parse_gres(used, "shard").values()),
            )
        )
    return rows


def _megabytes(text: str) -> int:
    # "128000", or "128000+" where sinfo shows the least of several nodes.
    match = re.match(r"\d+", text)
    return int(match[0]) if match else 0


def summarize(rows: Iterable[NodeRow]) -> dict[str, PartitionFacts]:
    """Sum up *rows* by partition, in sinfo's order of partitions."""
    by_partition: dict[str, list[NodeRow]] = {}
    for row in rows:
        by_partition.setdefault(row.partition, []).append(row)
    return {partition: _sum(members) for partition, members in by_partition.items()}


def _sum(rows: Sequence[NodeRow]) -> PartitionFacts:
    return PartitionFacts(
        free_cores=sum(row.free_cores for row in rows),
        total_cores=sum(row.total for row in rows),
        largest_block=max(row.free_cores for row in rows),
        free_gpus=_add(row.free_gpus for row in rows),
        total_gpus=_add(row.gpus for row in rows),
        state=rows[0].available,
        nodes=len(rows),
        usable_nodes=sum(row.usable for row in rows),
        node_cores=max(row.total for row in rows),
        node_memory=max(row.memory for row in rows),
        time_limit=rows[0].time_limit,
    )


def _add(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for each in counts:
        for kind, count in each.items():
            total[kind] = total.get(kind, 0) + count
    return total
