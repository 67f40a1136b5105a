"""Slurm's configuration, generated from a Site. Pure: what the cluster is, as text; nothing is started here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from snowyspawner.site import Site

LOGIN_CLUSTER = "rackham"  # where people log in when the Site's cluster is another one (its -M)
LOGIN_CORES = 2
# Told not to listen on every address, Slurm's daemons take the one that their host's name stands for: 127.0.0.1 here,
# 127.0.1.1 there, an address in the network elsewhere. So they get a host name of their own (`services` starts them
# in a UTS namespace), which stands for 127.0.0.1 everywhere.
HOST = "localhost"


@dataclass(frozen=True)
class Node:
    """A pretended compute node: one slurmd of this machine."""

    name: str
    port: int
    gpu: str = ""  # the type, as Slurm calls it
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Everything that the files depend on."""

    site: Site
    directory: Path
    dbd_port: int
    cluster: str
    cluster_port: int
    login: str  # the same as cluster when the Site has no -M
    login_port: int
    nodes: tuple[Node, ...]
    login_nodes: tuple[Node, ...]
    version: tuple[int, int]  # Slurm's

    @property
    def clusters(self) -> tuple[str, ...]:
        """Return the clusters' names, the login cluster first."""
        return tuple(dict.fromkeys((self.login, self.cluster)))

    def conf(self, cluster: str) -> Path:
        """Return the path of a cluster's slurm.conf."""
        return self.directory / "conf" / cluster / "slurm.conf"

    @property
    def munge_socket(self) -> Path:
        """Return the path of the munge daemon's socket."""
        return self.directory / "munge" / "socket"


def cluster_names(site: Site) -> tuple[str, str]:
    """Return the names of the Site's cluster and of the login cluster: the same without -M."""
    if site.cluster:
        return site.cluster, LOGIN_CLUSTER
    name = re.sub(r"[^a-z0-9]", "", site.display_name.lower()) or "cluster"
    return name, name


def gpu_types(site: Site) -> list[tuple[str, int]]:
    """Return the GPU types of the Site as Slurm calls them, each with its number on one node.

    Slurm's name stands in the Site's request (``--gres=gpu:t4:{count}``); a request without one has no type.
    """
    types = []
    for gpu in site.gpus.values():
        words = re.split(r"[=:]", gpu.request.split("{count}")[0].rstrip(":="))
        name = "" if words[-1] == "gpu" or words[-1].startswith("--") else words[-1]
        types.append((name, gpu.max_count))
    return types


def plan_nodes(site: Site, cpu: int, gpu: int, first_port: int, devices: Iterable[str]) -> tuple[Node, ...]:
    """Return the nodes: *cpu* without GPUs, then *gpu* with them, of each of the Site's types in turn.

    *devices* yields a device file for each GPU.
    """
    letter = (cluster_names(site)[0] + "n")[0]
    nodes = [Node(f"{letter}{i + 1}", first_port + i) for i in range(cpu)]
    types, supply = gpu_types(site), iter(devices)
    for i in range(gpu if types else 0):
        name, count = types[i % len(types)]
        files = tuple(next(supply) for _ in range(count))
        nodes.append(Node(f"{letter}{cpu + i + 1}", first_port + cpu + i, name or "gpu", files))
    return tuple(nodes)


def gpu_count(site: Site, gpu_nodes: int) -> int:
    """Return how many device files `plan_nodes` takes."""
    types = gpu_types(site)
    return sum(types[i % len(types)][1] for i in range(gpu_nodes)) if types else 0


def partition_qos(site: Site) -> dict[str, int]:
    """Return the partitions that limit a person's jobs: in Slurm, that is a QOS of the partition's name."""
    return {name: part.max_jobs for name, part in site.partitions.items() if part.max_jobs}


def slurm_conf(plan: Plan, cluster: str) -> str:
    """Return slurm.conf of one of the plan's clusters."""
    compute = cluster == plan.cluster
    nodes = plan.nodes if compute else plan.login_nodes
    port = plan.cluster_port if compute else plan.login_port
    cores = max(p.max_cores for p in plan.site.partitions.values()) if compute else LOGIN_CORES
    state = plan.directory
    lines = [
        "# Written by `python -m demo up`; changes are lost.",
        f"ClusterName={cluster}",
        f"SlurmctldHost={HOST}(127.0.0.1)",
        f"SlurmctldPort={port}",
        "SlurmUser=root",
        "AuthType=auth/munge",
        f"AuthInfo=socket={plan.munge_socket}",
        # Nothing of this listens to the network.
        "CommunicationParameters=NoInAddrAny,NoCtldInAddrAny",
        f"StateSaveLocation={state}/ctld/{cluster}",
        f"SlurmctldPidFile={state}/run/slurmctld-{cluster}.slurm",
        f"SlurmctldLogFile={state}/log/slurmctld-{cluster}.log",
        f"SlurmdSpoolDir={state}/spool/%n",
        f"SlurmdPidFile={state}/run/slurmd-%n.slurm",
        f"SlurmdLogFile={state}/log/slurmd-%n.log",
        # A laptop's two cores pretend to be sixteen, and its processes are counted without cgroups.
        "SlurmdParameters=config_overrides",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "JobAcctGatherType=jobacct_gather/linux",
        "JobAcctGatherFrequency=task=2",
        "JobAcctGatherParams=OverMemoryKill,NoShared",
        "MpiDefault=none",
        "MailProg=/bin/true",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core_Memory",
        f"DefMemPerCPU={plan.site.memory_per_core}",
        "SchedulerType=sched/backfill",
        "SchedulerParameters=sched_interval=2,bf_interval=2,bf_resolution=60,batch_sched_delay=0",
        "PriorityType=priority/basic",
        "KillWait=10",
        "MinJobAge=300",
        "ReturnToService=2",
        "SlurmdTimeout=60",
        "TreeWidth=65533",  # each slurmd is spoken to directly: they are all here
        "AccountingStorageType=accounting_storage/slurmdbd",
        "AccountingStorageHost=127.0.0.1",
        f"AccountingStoragePort={plan.dbd_port}",
        f"AccountingStoragePass={plan.munge_socket}",  # what this key means when slurmdbd is asked: munge's socket
        "AccountingStorageEnforce=associations,limits,qos",
    ]
    if any(node.devices for node in nodes):
        lines += ["GresTypes=gpu", "AccountingStorageTRES=gres/gpu"]
    memory = cores * plan.site.memory_per_core
    for node in nodes:
        gres = f" Gres={_gres(node)}" if node.devices else ""
        lines.append(
            f"NodeName={node.name} NodeHostname={HOST} NodeAddr=127.0.0.1 Port={node.port}"
            f" CPUs={cores} RealMemory={memory} State=UNKNOWN{gres}"
        )
    lines += _partitions(plan.site, nodes) if compute else [_partition(_default(plan.site), nodes, default=True)]
    return "\n".join(lines) + "\n"


def _gres(node: Node) -> str:
    return ":".join(["gpu"] + ([node.gpu] if node.gpu != "gpu" else []) + [str(len(node.devices))])


def _default(site: Site) -> str:
    return site.defaults.partition or next(iter(site.partitions))


def _partitions(site: Site, nodes: tuple[Node, ...]) -> list[str]:
    lines = []
    slurm_name = dict(zip(site.gpus, (name or "gpu" for name, _ in gpu_types(site)), strict=True))
    limited = partition_qos(site)
    for name, part in site.partitions.items():
        # A partition's nodes have its GPUs or none: a GPU that it does not offer is refused by Slurm itself.
        has = {"", *(slurm_name[gpu] for gpu in part.gpus)}
        extra = [f"MaxTime={part.max_time}"]
        extra += ["OverSubscribe=EXCLUSIVE"] if part.whole_node else []
        extra += [f"QOS={name}"] if name in limited else []
        chosen = tuple(node for node in nodes if node.gpu in has) or nodes
        lines.append(_partition(name, chosen, *extra, default=name == _default(site)))
    return lines


def _partition(name: str, nodes: tuple[Node, ...], *extra: str, default: bool) -> str:
    words = [f"PartitionName={name}", "Nodes=" + ",".join(node.name for node in nodes), "State=UP", *extra]
    return " ".join(words + (["Default=YES"] if default else []))


def gres_conf(nodes: Iterable[Node]) -> str:
    """Return gres.conf: which device file is which GPU."""
    lines = ["# Written by `python -m demo up`; changes are lost.", "AutoDetect=off"]
    for node in nodes:
        kind = f" Type={node.gpu}" if node.gpu != "gpu" else ""
        lines += [f"NodeName={node.name} Name=gpu{kind} File={device}" for device in node.devices]
    return "\n".join(lines) + "\n"


def slurmdbd_conf(plan: Plan) -> str:
    """Return slurmdbd.conf. The database knows root by its Unix socket, so no password is written anywhere."""
    state = plan.directory
    return (
        "\n".join(
            [
                "# Written by `python -m demo up`; changes are lost.",
                "AuthType=auth/munge",
                f"AuthInfo=socket={plan.munge_socket}",
                "DbdAddr=127.0.0.1",
                "CommunicationParameters=NoInAddrAny",
                f"DbdHost={HOST}",
                f"DbdPort={plan.dbd_port}",
                "SlurmUser=root",
                f"PidFile={state}/run/slurmdbd.slurm",
                f"LogFile={state}/log/slurmdbd.log",
                "StorageType=accounting_storage/mysql",
                "StorageHost=localhost",
                "StorageUser=root",
                "StorageLoc=slurm_acct_db",
            ]
        )
        + "\n"
    )


def cgroup_conf(version: tuple[int, int]) -> str:
    """Return cgroup.conf; empty for a Slurm that asks for none (the plugin can be switched off since 23.11)."""
    return "CgroupPlugin=disabled\n" if version >= (23, 11) else ""


def files(plan: Plan) -> dict[Path, tuple[str, int]]:
    """Return every file to write: its text and its mode."""
    made: dict[Path, tuple[str, int]] = {}
    for cluster in plan.clusters:
        nodes = plan.nodes if cluster == plan.cluster else plan.login_nodes
        folder = plan.conf(cluster).parent
        made[folder / "slurm.conf"] = (slurm_conf(plan, cluster), 0o644)
        made[folder / "gres.conf"] = (gres_conf(nodes), 0o644)
        if text := cgroup_conf(plan.version):
            made[folder / "cgroup.conf"] = (text, 0o644)
    # slurmdbd looks beside SLURM_CONF for its own file, and refuses one that others may read.
    made[plan.conf(plan.login).parent / "slurmdbd.conf"] = (slurmdbd_conf(plan), 0o600)
    return made
