"""Checks of Slurm: its commands, its version, and what the Site says of partitions, GPUs, features and limits.

`ask` gathers what Slurm says; the other functions judge it, and are pure.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..site import Site
from ..slurm.client import SlurmClient, SlurmError
from ..slurm.configuration import Association, ClusterConfig, NodeConfig, PartitionConfig, QosLimits
from ..slurm.nodes import PartitionFacts, free_of
from ..slurm.times import format_duration, parse_duration
from .report import Check, fail, ok, skip, warn

COMMANDS = ("sbatch", "squeue", "scancel", "sacct", "sacctmgr", "sinfo", "scontrol")

#: The versions of Slurm that snowyspawner was written for.
OLDEST, NEWEST = (20, 2), (25, 5)

#: munge(7): a credential is good for 300 seconds, so no clock may be off by more.
_CREDENTIAL = 300
_DOUBTFUL = 5

# What a command of Slurm's said, and what to do about it; the first match counts.
_REMEDIES = (
    (r"not on the hub's PATH", "Put the directory of Slurm's commands on the hub's PATH."),
    (
        r"known by database|invalid entry for --cluster|can't be reached now",
        "Set the site's `cluster` to a name that this shows: sacctmgr show cluster format=cluster",
    ),
    (
        r"(?i)configuration file|could not establish a configuration source|slurm\.conf",
        "Set the site's `slurm_conf`, or SLURM_CONF in the hub's environment: ls -l /etc/slurm/slurm.conf",
    ),
    (r"(?i)munge|credential|authenticat", "Mend munge on this host and the controller's: munge -n | unmunge"),
    (
        r"(?i)slurmdbd|accounting_storage|database|DBD",
        "Start Slurm's database: systemctl status slurmdbd. A cluster without one needs `accounts: {discover: false}`"
        " and no `cluster` in the site file.",
    ),
    (r"", "See whether slurmctld answers this host: scontrol ping"),
)


@dataclass(frozen=True)
class SlurmFacts:
    """What Slurm says. None: it did not answer, and *errors* has what its command said."""

    missing: tuple[str, ...] = ()  # commands that are not on PATH
    errors: Mapping[str, str] = field(default_factory=dict)  # by command
    config: ClusterConfig | None = None
    asked: tuple[float, float] = (0.0, 0.0)  # from when to when it was asked for, on this host's clock
    nodes: Mapping[str, PartitionFacts] | None = None
    partitions: Mapping[str, PartitionConfig] | None = None
    features: Mapping[str, set[str]] | None = None  # of each partition's nodes
    qos: Mapping[str, QosLimits] | None = None
    associations: tuple[Association, ...] | None = None  # of *user*
    user: str = ""


async def ask(site: Site, client: SlurmClient, user: str = "", prefix: Sequence[str] = ()) -> SlurmFacts:
    """Ask Slurm everything at once; *user* is what Slurm calls the person, or empty; *prefix* makes one be them."""
    errors: dict[str, str] = {}

    async def answer(command: str, question: Awaitable[Any]) -> Any:
        try:
            return await question
        except SlurmError as error:
            errors[command] = error.stderr or str(error)
            return None

    async def config() -> tuple[ClusterConfig | None, tuple[float, float]]:
        began = time.time()
        said = await answer("scontrol", client.config())
        return said, (began, time.time())

    async def associations() -> Any:
        found = await answer("sacctmgr", client.associations(user)) if user else None
        if found == [] and prefix:  # PrivateData may hide them from the hub
            found = await answer("sacctmgr", client.associations(user, prefix)) or []
        return None if found is None else tuple(found)

    answers = await asyncio.gather(
        config(),
        answer("sinfo", client.partitions()),
        answer("scontrol", client.partition_configs()),
        answer("scontrol", client.node_configs()),
        answer("sacctmgr", client.qos_limits()),
        associations(),
        answer("squeue", client.waiting()),
        answer("sacct", client.ends(["1"])),
    )
    (said, asked), nodes, partitions, configs, qos, found = answers[:6]
    missing = tuple(command for command in COMMANDS if not shutil.which(command))
    features = None if configs is None else features_of(configs)
    return SlurmFacts(missing, errors, said, asked, nodes, partitions, features, qos, found, user)


def features_of(nodes: Iterable[NodeConfig]) -> dict[str, set[str]]:
    """Return the features that the nodes of each partition have."""
    found: dict[str, set[str]] = {}
    for node in nodes:
        for name in node.partitions:
            found.setdefault(name, set()).update(node.features)
    return found


def judge(site: Site, facts: SlurmFacts) -> list[Check]:
    """Say what is right and wrong in what Slurm says, compared with *site*."""
    if facts.missing:
        said = f"not on PATH: {', '.join(facts.missing)}"
        found = [fail("Slurm's commands", said, "Put the directory of Slurm's commands on the hub's PATH.")]
    else:
        found = [*_answers(site, facts)]
    found += [*_version(facts), *_clock(facts), *_partitions(site, facts), *_qos(site, facts)]
    return [*found, *_projects(site, facts)]


def _answers(site: Site, facts: SlurmFacts) -> Iterator[Check]:
    name = "Slurm's commands"
    if not facts.errors:
        which = f" for -M {site.cluster}" if site.cluster and not site.slurm_conf else ""
        yield ok(name, f"{', '.join(COMMANDS)} are found and answer{which}")
    # One cause makes all of them fail, mostly.
    told: dict[str, list[str]] = {}
    for command, text in facts.errors.items():
        said = text.splitlines()[-1] if text else "ended without a word"
        told.setdefault(re.sub(rf"^{command}:? (error: |fatal: )?", "", said), []).append(command)
    for said, commands in told.items():
        if not site.cluster and not site.accounts.discover and {"sacct", "sacctmgr"}.issuperset(commands):
            without = "Without accounting the hub cannot always say how a job ended; there is nothing to do"
            yield warn(name, f"{', '.join(commands)}: {said}", without)
            continue
        remedy = next(remedy for pattern, remedy in _REMEDIES if re.search(pattern, said))
        yield fail(name, f"{', '.join(commands)}: {said}", remedy)


def _version(facts: SlurmFacts) -> Iterator[Check]:
    if facts.config is None:
        return
    version = facts.config.version
    numbers = re.match(r"(\d+)\.(\d+)", version)
    known = f"{OLDEST[0]}.{OLDEST[1]:02} to {NEWEST[0]}.{NEWEST[1]:02}"
    if numbers and OLDEST <= (int(numbers[1]), int(numbers[2])) <= NEWEST:
        yield ok("Slurm's version", version)
    else:
        said = f"{version or 'not known'}: snowyspawner knows {known}"
        yield warn("Slurm's version", said, "Try a session of each kind before you let people in: check --job USER")


def _clock(facts: SlurmFacts) -> Iterator[Check]:
    if facts.config is None or facts.config.now is None:
        return
    # It says whole seconds, and takes its time.
    skew = max(facts.asked[0] - facts.config.now - 1, facts.config.now - facts.asked[1], 0)
    remedy = "Set both clocks by NTP: chronyc tracking"
    if skew >= _CREDENTIAL:
        yield fail("clock", f"{skew:.0f} s from the controller's: munge refuses what is {_CREDENTIAL} s old", remedy)
    elif skew >= _DOUBTFUL:
        yield warn("clock", f"{skew:.0f} s from the controller's", remedy)
    else:
        yield ok("clock", "the same as the controller's, within 5 s")


def _partitions(site: Site, facts: SlurmFacts) -> Iterator[Check]:
    if facts.nodes is None:
        yield skip("partitions", "not looked at: sinfo does not answer")
        return
    wrong = []
    for key in site.partitions:
        name = site.slurm_partition(key)
        if name not in facts.nodes:
            there = ", ".join(facts.nodes) or "none"
            said = f"{key}: Slurm has no partition {name!r}; there is {there}"
            wrong.append(fail("partitions", said, f"Mend or remove `partitions.{key}` in the site file."))
            continue
        wrong += [*_one_partition(site, key, facts.nodes[name], facts)]
    wrong += _features_of_all(site, facts)
    yield from wrong
    if not any(check.name == "partitions" for check in wrong):
        yield ok("partitions", f"{', '.join(site.partitions)} exist in Slurm, with the limits that the site file has")
    if site.gpus and not any(check.name == "GPUs" for check in wrong):
        yield ok("GPUs", f"{', '.join(site.gpus)} exist in the partitions that the site file has them in")


def _one_partition(site: Site, key: str, there: PartitionFacts, facts: SlurmFacts) -> Iterator[Check]:
    partition, where = site.partitions[key], f"partitions.{key}"
    if there.state != "up" or not there.usable_nodes:
        state = there.state if there.state != "up" else "up, and no node of it can be used"
        yield warn("partitions", f"{key}: is {state}", f"See why: sinfo -R -p {site.slurm_partition(key)}")
    seconds = parse_duration(partition.max_time)
    if there.time_limit is not None and seconds > there.time_limit:
        said = f"{key}: max_time is {partition.max_time}; Slurm's MaxTime is {format_duration(there.time_limit)}"
        yield fail("partitions", said, f'Set `{where}.max_time: "{format_duration(there.time_limit)}"`.')
    if partition.max_cores > there.node_cores:
        said = f"{key}: max_cores is {partition.max_cores}; its largest node has {there.node_cores}"
        yield fail("partitions", said, f"Set `{where}.max_cores: {there.node_cores}`.")
    if partition.max_memory and partition.max_memory > there.node_memory:
        said = f"{key}: max_memory is {partition.max_memory} MB; its largest node has {there.node_memory} MB"
        yield fail("partitions", said, f"Set `{where}.max_memory: {there.node_memory}`.")
    for gpu in partition.gpus:
        kind = site.slurm_gpu(gpu)
        if kind is not None and not free_of(kind, there.total_gpus):
            has = ", ".join(name or "GPUs without a type" for name in there.total_gpus) or "no GPUs"
            said = f"{key}: no node has GPUs of the type {kind or 'any'!r} (`gpus.{gpu}`); Slurm shows {has}"
            yield fail("GPUs", said, f"Mend `gpus.{gpu}.request`, or take {gpu} out of `{where}.gpus`.")
    if facts.features is not None:
        yield from _features(site, key, facts.features.get(site.slurm_partition(key), set()))
    yield from _partition_limits(site, key, seconds, facts)


def _features(site: Site, key: str, there: set[str]) -> Iterator[Check]:
    asked = {site.partitions[key].constraint: f"partitions.{key}.constraint"}
    asked |= {name: f"constraints.{name}" for name, item in site.constraints.items() if key in item.partitions}
    for constraint, where in asked.items():
        if gone := [name for name in _names(constraint) if name not in there]:
            yield _no_feature(key, gone, where)


def _names(constraint: str) -> list[str]:
    # Counts follow a *; what is left between operators are names.
    return re.findall(r"[A-Za-z0-9_][A-Za-z0-9_.+=/:-]*", re.sub(r"\*[0-9]+", "", constraint))


def _no_feature(key: str, gone: list[str], where: str) -> Check:
    said = f"{key}: no node has the feature {', '.join(gone)} (`{where}`)"
    return fail("features", said, f"Set `{where}` to what a node has: sinfo -a -o '%P %f'")


def _features_of_all(site: Site, facts: SlurmFacts) -> Iterator[Check]:
    """Judge what may be asked for in every partition: one of them has to have it."""
    if facts.features is None:
        return
    there = {name for names in facts.features.values() for name in names}
    for constraint, item in site.constraints.items():
        if not item.partitions and (gone := [name for name in _names(constraint) if name not in there]):
            yield _no_feature("all partitions", gone, f"constraints.{constraint}")


def _partition_limits(site: Site, key: str, seconds: int, facts: SlurmFacts) -> Iterator[Check]:
    there = (facts.partitions or {}).get(site.slurm_partition(key))
    if there is None:
        return
    partition, account = site.partitions[key], site.accounts.default
    allowed = there.accounts.split(",")
    if there.accounts and account and account not in allowed:
        said = f"{key}: Slurm lets only {', '.join(allowed)} use it, not {account} (`accounts.default`)"
        yield warn("limits", said, f"Set `accounts.default` to one of them, or remove `partitions.{key}`.")
    held: dict[str, QosLimits | Association] = {}
    if limits_of_qos := (facts.qos or {}).get(there.qos):
        held[f"its QOS {there.qos}"] = limits_of_qos
    for each in facts.associations or ():
        if each.partition in ("", there.name):
            held[f"{facts.user}'s project {each.account}"] = each
    for whose, limits in held.items():
        for what, most, wanted, say in (
            ("max_time", limits.max_time, seconds, lambda value: f'"{format_duration(value)}"'),
            ("max_cores", limits.max_cores, partition.max_cores, str),
        ):
            if most is not None and wanted > most:
                said = f"{key}: {what} is {say(wanted)}; {whose} lets a job have {say(most)}"
                remedy = f"Set `partitions.{key}.{what}: {say(most)}`: jobs that ask for more wait, or are refused"
                yield warn("limits", said, remedy)


def _qos(site: Site, facts: SlurmFacts) -> Iterator[Check]:
    if facts.qos is None:
        if site.qos:
            yield skip("QOS", "not looked at: sacctmgr does not answer")
        return
    gone = [name for name in site.qos if name.lower() not in facts.qos]
    if gone:
        said = f"Slurm has no QOS {', '.join(gone)}; there is {', '.join(facts.qos)}"
        yield fail("QOS", said, f"Mend or remove `qos.{gone[0]}` in the site file: sacctmgr show qos format=name")
    elif site.qos:
        yield ok("QOS", f"{', '.join(site.qos)} exist in Slurm")


def _projects(site: Site, facts: SlurmFacts) -> Iterator[Check]:
    name, default = "projects", site.accounts.default
    if not facts.user:
        yield skip(name, "not looked at: name a person with --user")
    elif not site.accounts.discover:
        yield skip(name, "not looked at: the site file has `accounts: {discover: false}`")
    elif facts.associations is None:
        yield skip(name, "not looked at: sacctmgr does not answer")
    else:
        there = list(dict.fromkeys(each.account for each in facts.associations))
        usable = [account for account in there if re.fullmatch(site.accounts.pattern, account)]
        add = f"sacctmgr add user {facts.user} account={default or 'PROJECT'}"
        if not there:
            yield fail(name, f"Slurm has no project of {facts.user}: no job of theirs is accepted", add)
        elif not usable:
            said = f"none of {facts.user}'s projects ({', '.join(there)}) matches `accounts.pattern`"
            yield fail(name, said, "Mend `accounts.pattern` in the site file.")
        elif default and default not in there:
            said = f"{facts.user} has {', '.join(usable)}, not {default} (`accounts.default`)"
            yield warn(name, said, f"They have to choose another project in the form, or: {add}")
        else:
            yield ok(name, f"{facts.user} has {', '.join(usable)}")
