"""What Slurm and this host say of a cluster: all that a Site file can be made of."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from zoneinfo import ZoneInfo

from ..slurm.client import SlurmClient, SlurmError
from ..slurm.configuration import ClusterConfig, NodeConfig, PartitionConfig, QosLimits
from ..slurm.nodes import NodeRow

T = TypeVar("T")


@dataclass(frozen=True)
class Survey:
    """What is known of a cluster. What could not be learnt is empty, and *failures* has a line for it."""

    cluster: str = ""  # for -M
    time_zone: str = ""
    user: str = ""  # whose the accounts are
    config: ClusterConfig = field(default_factory=ClusterConfig)
    rows: Sequence[NodeRow] = ()
    partitions: Mapping[str, PartitionConfig] = field(default_factory=dict)
    nodes: Sequence[NodeConfig] = ()
    qos: Mapping[str, QosLimits] = field(default_factory=dict)
    accounts: Sequence[str] = ()  # Slurm's default first
    clusters: Sequence[str] = ()  # that share the accounting
    failures: Sequence[str] = ()


async def look(client: SlurmClient, user: str) -> Survey:
    """Ask Slurm, for *user*'s projects too. Takes some four times the client's time limit at most."""
    failures: list[str] = []

    async def ask(what: str, work: Awaitable[T], otherwise: T) -> T:
        try:
            return await work
        except SlurmError as error:
            failures.append(f"{what}: {error.stderr}")
            return otherwise

    no_qos: dict[str, QosLimits] = {}
    no_partitions: dict[str, PartitionConfig] = {}
    no_rows: list[NodeRow] = []
    no_nodes: list[NodeConfig] = []
    no_names: list[str] = []
    config = await ask("scontrol show config", client.config(), ClusterConfig())
    rows, partitions, nodes = await asyncio.gather(
        ask("sinfo", client.node_rows(), no_rows),
        ask("scontrol show partition", client.partition_configs(), no_partitions),
        ask("scontrol show node", client.node_configs(), no_nodes),
    )
    qos, accounts, clusters = no_qos, no_names, no_names
    if config.accounting and rows:
        qos, accounts, clusters = await asyncio.gather(
            ask("sacctmgr show qos", client.qos_limits(), no_qos),
            ask("sacctmgr show user", client.accounts(user), no_names),
            ask("sacctmgr show cluster", client.clusters(), no_names),
        )
    zone = host_time_zone()
    return Survey(
        client.cluster, zone, user, config, rows, partitions, nodes, qos, accounts, clusters, sorted(failures)
    )


def host_time_zone() -> str:
    """Return the host's time zone, such as Europe/Stockholm; empty if it names none: tzset(3), localtime(5)."""
    for name in (os.environ.get("TZ", "").lstrip(":"), os.path.realpath("/etc/localtime").partition("/zoneinfo/")[2]):
        try:
            if name:
                return ZoneInfo(name).key
        except (KeyError, ValueError, OSError):
            continue
    return ""
