"""How a cluster is set up, and what people may do on it, as scontrol and sacctmgr say it. Pure: no I/O.

Formats: scontrol's are in src/api (config_info.c, partition_info.c, node_info.c), ``Key=Value`` from Slurm 20.02 to
25.05; newer ones have more keys, in other places. Cores are Slurm's CPUs, memory is in MB, times are in seconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from .nodes import parse_time_limit

#: scontrol's arguments: a line for each partition, or node; also those of partitions that are hidden from who asks.
PARTITIONS = ("-a", "-o", "show", "partition")
NODES = ("-a", "-o", "show", "node")

#: sacctmgr's columns. MaxTRES is what one job may have.
QOS_FORMAT = "name,maxsubmitpu,maxwall,maxtres"
ASSOCIATIONS_FORMAT = "account,partition,maxwall,maxtres"


class ClusterConfig(NamedTuple):
    """A cluster's slurm.conf, as far as a Site depends on it."""

    name: str = ""
    version: str = ""  # of slurmctld
    memory_per_core: int | None = None  # what a job gets that asks for none
    whole_nodes: bool = False  # jobs get whole nodes, whatever the partition
    accounting: bool = True  # slurmdbd is asked
    now: int | None = None  # slurmctld's clock, epoch seconds


class PartitionConfig(NamedTuple):
    """A partition: its limits, and who may use it."""

    name: str
    default: bool = False
    hidden: bool = False
    root_only: bool = False
    state: str = "UP"
    qos: str = ""  # whose limits are the partition's, too
    max_cores: int | None = None  # of a job, on one node
    max_memory: int | None = None  # the same
    max_time: int | None = None
    memory_per_core: int | None = None  # as in `ClusterConfig`
    groups: str = ""  # those that may use it, parted by commas; empty: all
    accounts: str = ""  # the same


class NodeConfig(NamedTuple):
    """A node."""

    name: str
    address: str  # NodeAddr: a name, or an IP address
    partitions: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    threads: int = 1  # per core: more than one of Slurm's CPUs may be one core


class QosLimits(NamedTuple):
    """The limits of a QOS that a session can meet."""

    max_jobs: int | None = None  # of one person, waiting and running
    max_time: int | None = None
    max_cores: int | None = None  # of one job


class Association(NamedTuple):
    """What a person may do as part of a project."""

    account: str
    partition: str = ""  # empty: any
    max_time: int | None = None
    max_cores: int | None = None  # of one job


def parse_config(output: str) -> ClusterConfig:
    """Read ``scontrol show config``: a line ``Key = Value`` for each key; its clock under ``SLURM_TIME_FORMAT=%s``."""
    now = re.search(r"^Configuration data as of ([0-9]{9,11})$", output, re.MULTILINE)
    said = dict(re.findall(r"^(\w+) *= *(.*?) *$", output, re.MULTILINE))
    return ClusterConfig(
        name=said.get("ClusterName", ""),
        version=said.get("SLURM_VERSION", ""),
        memory_per_core=_number(said.get("DefMemPerCPU", "")),
        whole_nodes=said.get("SelectType") == "select/linear",
        # "accounting_storage/none" up to 22.05, "(null)" since
        accounting=said.get("AccountingStorageType", "").endswith("slurmdbd"),
        now=int(now[1]) if now else None,
    )


def parse_partitions(output: str) -> dict[str, PartitionConfig]:
    """Read the lines of `PARTITIONS`, by name and in Slurm's order."""
    return {
        name: PartitionConfig(
            name=name,
            default=said.get("Default") == "YES",
            hidden=said.get("Hidden") == "YES",
            root_only=said.get("RootOnly") == "YES",
            state=said.get("State", "UP"),
            qos=_unless(said.get("QoS", ""), "N/A"),
            max_cores=_number(said.get("MaxCPUsPerNode", "")),
            max_memory=_number(said.get("MaxMemPerNode", "")),
            max_time=parse_time_limit(said.get("MaxTime", "")),
            memory_per_core=_number(said.get("DefMemPerCPU", "")),
            groups=_unless(said.get("AllowGroups", ""), "ALL"),
            accounts=_unless(said.get("AllowAccounts", ""), "ALL"),
        )
        for name, said in _records(output, "PartitionName")
    }


def parse_node_configs(output: str) -> list[NodeConfig]:
    """Read the lines of `NODES`."""
    return [
        NodeConfig(
            name=name,
            address=said.get("NodeAddr", name),
            partitions=_names(said.get("Partitions", "")),
            features=_names(said.get("AvailableFeatures", "")),
            threads=_number(said.get("ThreadsPerCore", "")) or 1,
        )
        for name, said in _records(output, "NodeName")
    ]


def parse_qos(output: str) -> dict[str, QosLimits]:
    """Read the rows of `QOS_FORMAT` (``-n -P``), by name."""
    return {
        name: QosLimits(_number(jobs), parse_time_limit(wall), _cores(tres)) for name, jobs, wall, tres in _rows(output)
    }


def parse_associations(output: str) -> list[Association]:
    """Read the rows of `ASSOCIATIONS_FORMAT` (``-n -P``) of one person."""
    return [
        Association(account, partition, parse_time_limit(wall), _cores(tres))
        for account, partition, wall, tres in _rows(output)
    ]


def _rows(output: str) -> Iterator[list[str]]:
    """Yield the fields of sacctmgr's rows, which are four in both formats; lines that are none are passed over."""
    rows = (line.split("|") for line in output.splitlines())
    return (row for row in rows if len(row) == 4)


def _cores(tres: str) -> int | None:
    """Read the cores of a MaxTRES, ``cpu=4,gres/gpu=1``."""
    return _number(dict(part.partition("=")[::2] for part in tres.split(",")).get("cpu", ""))


def _records(output: str, first: str) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield name and keys of each record; lines that are none are passed over.

    A value may hold blanks, and what people write (Reason, Comment) even something like a key. Such keys come last, so
    the first one of a name counts.
    """
    for line in output.splitlines():
        if not line.startswith(f"{first}="):
            continue
        said: dict[str, str] = {}
        for key, value in re.findall(r"(?:^| )([A-Za-z_/]+)=(.*?)(?= +[A-Za-z_/]+=| *$)", line):
            said.setdefault(key, value)
        yield said[first], said


def _unless(text: str, none: str) -> str:
    return "" if text in (none, "(null)") else text


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name and name != "(null)")


def _number(text: str) -> int | None:
    """Read a limit; None where there is none: UNLIMITED, (null), empty, or 0, which Slurm takes for the same."""
    return int(text) or None if re.fullmatch(r"[0-9]{1,12}", text) else None
