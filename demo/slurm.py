"""Slurm's configuration, generated from a Site. Pure: what the cluster is, as text; nothing is started here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from snowyspawner import site as site_module
from snowyspawner.site import Site
from snowyspawner.slurm.times import parse_duration

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
    cores: int = LOGIN_CORES
    memory: int = 0  # MB; 0: what comes with the cores
    partitions: tuple[str, ...] = ()  # the Site's keys
    feature: str = ""  # what a --constraint asks for
    gpu: str = ""  # the type, as Slurm calls it; "gpu": one without a name
    devices: tuple[str, ...] = ()
    shards: int = 0  # into so many parts its GPUs are divided


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
    def first_job(self) -> int:
        """Return the number of the first job: those of two miniatures on one machine are to be told apart."""
        return self.dbd_port * 100 + 1

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


def gpu_type(request: str) -> str:
    """Return what Slurm calls the GPU that the sbatch option *request* asks for; ``gpu`` when it has no name.

    The name stands in the Site's request: ``--gres=gpu:t4:{count}``, ``--gpus=t4:{count}``.
    """
    return site_module.gpu_type(request) or "gpu"


@dataclass(frozen=True)
class _Kind:
    """Nodes that are alike."""

    node: Node  # without a name yet
    gpus: int = 0  # how many GPUs such a node has


def _kinds(site: Site, gpus: bool) -> tuple[list[_Kind], list[_Kind]]:
    """Return the kinds of nodes that the Site needs: those without a GPU and, with *gpus*, one for each type.

    A Site does not say which partitions have nodes in common. Those with nodes of one size do here, and a node with
    GPUs belongs to the partitions that offer them.
    """
    sizes: dict[tuple[int, int, str], list[str]] = {}
    for key, part in site.partitions.items():
        sizes.setdefault((part.max_cores, part.max_memory or 0, part.constraint), []).append(key)
    plain, special = [], []
    for (cores, memory, feature), keys in sizes.items():
        node = Node("", 0, cores, memory, tuple(keys), feature)
        having = {key: site.partitions[key].gpus if gpus else () for key in keys}
        for gpu in dict.fromkeys(gpu for offered in having.values() for gpu in offered):
            offering = tuple(key for key in keys if gpu in having[key])
            asked = site.gpus[gpu]
            made = replace(node, partitions=offering, gpu=gpu_type(asked.request))
            if site_module.gpu_type(asked.request) is None:  # parts of one GPU
                special.append(_Kind(replace(made, shards=asked.max_count), 1))
            else:
                special.append(_Kind(made, asked.max_count))
        if not all(having.values()):
            plain.append(_Kind(node))
    return plain, special


def _layout(site: Site, cpu: int, gpu: int) -> list[_Kind]:
    """Return the kind of each node: *cpu* without GPUs, then *gpu* with them; at least one of each kind.

    None has GPUs when *gpu* is 0.
    """
    plain, special = _kinds(site, gpu > 0)
    usual = next((kind for kind in plain if _default(site) in kind.node.partitions), plain[0] if plain else None)
    nodes = []
    for kind in plain:
        nodes += [kind] * (1 + (max(0, cpu - len(plain)) if kind is usual else 0))
    return nodes + [special[i % len(special)] for i in range(max(gpu, len(special)) if special else 0)]


def plan_nodes(site: Site, cpu: int, gpu: int, first_port: int, devices: Iterable[str]) -> tuple[Node, ...]:
    """Return the nodes: *cpu* without GPUs, then *gpu* with them, of the Site's types in turn.

    There is at least one of each kind that the Site needs. *devices* yields a device file for each GPU.
    """
    letter = (cluster_names(site)[0] + "n")[0]
    supply = iter(devices)
    return tuple(
        replace(
            kind.node,
            name=f"{letter}{i + 1}",
            port=first_port + i,
            devices=tuple(next(supply) for _ in range(kind.gpus)),
        )
        for i, kind in enumerate(_layout(site, cpu, gpu))
    )


def node_count(site: Site, cpu: int, gpu: int) -> int:
    """Return how many nodes `plan_nodes` makes."""
    return len(_layout(site, cpu, gpu))


def gpu_count(site: Site, gpu_nodes: int) -> int:
    """Return how many device files `plan_nodes` takes."""
    return sum(kind.gpus for kind in _layout(site, 1, gpu_nodes))


def partition_qos(site: Site) -> dict[str, int]:
    """Return the partitions that limit a person's jobs: in Slurm, that is a QOS of the partition's name."""
    limits: dict[str, int] = {}
    for key, part in site.partitions.items():
        if part.max_jobs:
            name = site.slurm_partition(key)
            limits[name] = min(part.max_jobs, limits.get(name, part.max_jobs))
    return limits


def slurm_conf(plan: Plan, cluster: str) -> str:
    """Return slurm.conf of one of the plan's clusters."""
    compute = cluster == plan.cluster
    nodes = plan.nodes if compute else plan.login_nodes
    port = plan.cluster_port if compute else plan.login_port
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
        f"FirstJobId={plan.first_job}",
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
        kinds = ["gpu", *(["shard"] if any(node.shards for node in nodes) else [])]
        lines.append("GresTypes=" + ",".join(kinds))
        lines.append("AccountingStorageTRES=" + ",".join(f"gres/{kind}" for kind in kinds))
    for node in nodes:
        memory = node.memory or node.cores * plan.site.memory_per_core
        extra = f" Features={node.feature}" if node.feature else ""
        extra += f" Gres={_gres(node)}" if node.devices else ""
        lines.append(
            f"NodeName={node.name} NodeHostname={HOST} NodeAddr=127.0.0.1 Port={node.port}"
            # One thread on each core, also where the Site's cores have two: -c 1 is one CPU here.
            f" CPUs={node.cores} RealMemory={memory} State=UNKNOWN{extra}"
        )
    usual = plan.site.slurm_partition(_default(plan.site))
    lines += _partitions(plan.site, nodes) if compute else [_partition(usual, nodes, default=True)]
    return "\n".join(lines) + "\n"


def _gres(node: Node) -> str:
    gpus = ":".join(["gpu"] + ([node.gpu] if node.gpu != "gpu" else []) + [str(len(node.devices))])
    return f"{gpus},shard:{node.shards}" if node.shards else gpus


def _default(site: Site) -> str:
    return site.defaults.partition or next(iter(site.partitions))


def _partitions(site: Site, nodes: tuple[Node, ...]) -> list[str]:
    lines = []
    limited = partition_qos(site)
    parts: dict[str, list[str]] = {}  # of each of Slurm's partitions, the Site's keys
    for key in site.partitions:
        parts.setdefault(site.slurm_partition(key), []).append(key)
    for name, keys in parts.items():
        # Its nodes have the GPUs that it offers or none: Slurm itself refuses another.
        chosen = tuple(node for node in nodes if not set(keys).isdisjoint(node.partitions))
        extra = [f"MaxTime={max((site.partitions[key].max_time for key in keys), key=parse_duration)}"]
        extra += ["OverSubscribe=EXCLUSIVE"] if all(site.partitions[key].whole_node for key in keys) else []
        extra += [f"QOS={name}"] if name in limited else []
        lines.append(_partition(name, chosen, *extra, default=_default(site) in keys))
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
        lines += [f"NodeName={node.name} Name=shard Count={node.shards}"] if node.shards else []
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
