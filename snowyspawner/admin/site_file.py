"""A Site file from what Slurm says: a draft, in which a person decides what Slurm does not know."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import yaml

from ..site import SiteError
from ..site.fields import MOST_CORES
from ..slurm import names
from ..slurm.client import SlurmClient
from ..slurm.configuration import PartitionConfig, QosLimits
from ..slurm.nodes import NodeRow, PartitionFacts, summarize
from ..slurm.times import format_duration
from .survey import Survey, look

#: What a line begins with that a person has to look at.
DECIDE = "# DECIDE:"

_PATIENCE = 10.0  # seconds that each command has
_HOUR, _DAY = 3600, 86400
_UNLIMITED = 7 * _DAY  # what is written where Slurm has no limit
_LONGEST = 9999 * _DAY  # that Slurm can be told
_MOST_GPUS = 64  # site/model.py, Gpu
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}"  # site/model.py, Name
# Slurm does not know who made a GPU; what people call theirs begins so.
_VENDORS = {"amd": r"(amd|instinct|radeon|mi[0-9]|gfx)", "intel": r"(intel|max_?1|pvc|ponte|flex)"}
_SHARD = ":shard"  # beside types, none of which has a colon

# An entry of a table: what is said of it, and its YAML.
_Entry = tuple[Sequence[str], Mapping[str, Any]]


def draft(cluster: str = "") -> tuple[str, Sequence[str]]:
    """Ask Slurm; return a Site file's text for *cluster* (empty: the local one), and a line for what failed.

    Raises `SiteError` when nothing could be learnt.
    """
    if not re.fullmatch(f"({_NAME})?", cluster, re.ASCII):
        raise SiteError(f"--cluster: {cluster!r}: must be a cluster's name: letters, digits and _ . + -")
    survey = asyncio.run(look(SlurmClient(cluster, timeout=_PATIENCE), pwd.getpwuid(os.geteuid()).pw_name))
    failures = [_one_line(line) for line in survey.failures]
    try:
        return site_text(survey), failures
    except SiteError as error:
        raise SiteError("\n".join([*failures, str(error)])) from None


def site_text(survey: Survey) -> str:
    """Return the Site file of a cluster. Whatever Slurm's texts hold, it is YAML, and a Site that can be loaded.

    Raises `SiteError` when no partition is known that people can use.
    """
    return _Draft(survey).text()


def _one_line(text: str, most: int = 300) -> str:
    """Return *text* as it can stand in a comment and on a terminal."""
    line = "".join(char if char.isprintable() else " " for char in text)
    return line if len(line) <= most else f"{line[:most]} …"


def _comments(lines: Iterable[str]) -> str:
    return "".join(f"{line if line.startswith(DECIDE) else f'# {line}'}\n" for line in map(_one_line, lines))


class _Time(str):
    """A time as Slurm writes it: in quotes, also where YAML does not take it for a number, as people copy it."""


class _Dumper(yaml.SafeDumper):
    """Writes a list into one line."""


_Dumper.add_representer(_Time, lambda dumper, time: dumper.represent_scalar("tag:yaml.org,2002:str", time, style='"'))
_Dumper.add_representer(
    list, lambda dumper, items: dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)
)


def _yaml(data: Mapping[str, Any]) -> str:
    # No value is folded into several lines, so that all of them may be indented.
    return yaml.dump(dict(data), Dumper=_Dumper, sort_keys=False, width=2**31)


def _table(name: str, entries: Iterable[_Entry]) -> str:
    """Return a table whose entries have comments; empty without entries."""
    lines = [line for comments, data in entries for line in (_comments(comments) + _yaml(data)).splitlines()]
    return f"{name}:\n" + "".join(f"  {line}\n" for line in lines) if lines else ""


def _keys(found: Sequence[str]) -> dict[str, str]:
    """Return a key for each of Slurm's names: the name itself, if it can be one."""
    keys: dict[str, str] = {}
    for name in found:
        plain = re.sub(r"[^A-Za-z0-9_.+-]", "-", name).lstrip("_.+-")[:60] or "x"
        taken = {*keys.values(), *found} - {name}
        keys[name] = next(key for key in (plain, *(f"{plain}-{n}" for n in range(2, 10000))) if key not in taken)
    return keys


def _count(row: NodeRow, kind: str) -> int:
    return row.shards if kind == _SHARD else row.gpus.get(kind, 0)


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit), default=None)


class _Draft:
    """Puts a Site file together, part by part."""

    def __init__(self, survey: Survey) -> None:
        self.seen = survey
        self.rows: dict[str, list[NodeRow]] = {name: [] for name in survey.partitions}
        for row in survey.rows:
            self.rows.setdefault(row.partition, []).append(row)
        self.left_out = {name: why for name in self.rows if (why := self._why_not(name))}
        self.chosen = [name for name in self.rows if name not in self.left_out]
        if not self.chosen:
            raise SiteError("Slurm shows no partition that people can use: there is nothing to write")
        self.facts: Mapping[str, PartitionFacts] = summarize(row for name in self.chosen for row in self.rows[name])
        self.keys = _keys(self.chosen)
        self.default = next((name for name in self.chosen if self._config(name).default), self.chosen[0])

    def _why_not(self, name: str) -> str:
        if not any(row.total for row in self.rows[name]):
            return "has no nodes"
        if not re.fullmatch(names.PARTITION, name, re.ASCII):
            return "has a name that sbatch does not take"
        return "is for root only" if self._config(name).root_only else ""

    def _config(self, name: str) -> PartitionConfig:
        return self.seen.partitions.get(name) or PartitionConfig(name)

    def _limits(self, name: str) -> QosLimits:
        return self.seen.qos.get(self._config(name).qos, QosLimits())

    def text(self) -> str:
        """Return all of it."""
        parts = [
            self.head(),
            self.cluster(),
            self.cores(),
            _table("partitions", map(self.partition, self.chosen)),
            _table("gpus", map(self.gpu, self.gpus)),
            self.constraints(),
            self.software(),
            self.accounts(),
            self.defaults(),
        ]
        return "\n".join(filter(None, parts))

    def head(self) -> str:
        name, version = self.seen.cluster or self.seen.config.name, self.seen.config.version
        others = [each for each in self.seen.clusters if each != name]
        return _comments(
            [
                f"The site file of {name or 'this cluster'}{f', Slurm {version}' if version else ''}: a draft by "
                "`snowyspawner init`.",
                "What the keys mean, and which others there are: docs/reference/site.md. Write times in quotes.",
                f"What Slurm does not know is marked `{DECIDE}`: see to it, and remove the mark.",
                "Then: snowyspawner check --site FILE; and snowyspawner form --site FILE > form.html, to look at it.",
                *(f"Not in here: partition {name}, which {why}." for name, why in self.left_out.items()),
                *([f"Other clusters (snowyspawner init --cluster NAME): {', '.join(others)}"] if others else []),
                *(
                    f"{DECIDE} this failed, and what it would have said is missing: {line}"
                    for line in self.seen.failures
                ),
            ]
        )

    def cluster(self) -> str:
        name, zone = self.seen.cluster or self.seen.config.name or "Cluster", self.seen.time_zone
        text = _yaml({"display_name": name.capitalize() if name.islower() else name})
        if self.seen.cluster:
            text += _comments(["For -M."]) + _yaml({"cluster": self.seen.cluster})
        text += _comments(["This host's." if zone else f"{DECIDE} this host does not say it; UTC is a guess."])
        text += _yaml({"time_zone": zone or "UTC"})
        address = self.address()
        known = "How the hub reaches a node." if address else f"{DECIDE} how the hub reaches a node, by its name."
        return text + _comments([known]) + _yaml({"node_address": address or "{node}"})

    def address(self) -> str:
        """Return what the addresses of all nodes have in common, with {node} for a node's name; empty: nothing."""
        found = {
            re.sub(rf"^{re.escape(node.name)}(?![^.])", "{node}", node.address, count=1) for node in self.seen.nodes
        }
        pattern = found.pop() if len(found) == 1 else "" if found else "{node}"
        return pattern if re.fullmatch(r"(\{node\})?[A-Za-z0-9.:-]*", pattern, re.ASCII) else ""

    def cores(self) -> str:
        threads = max((node.threads for node in self.seen.nodes), default=1)
        text = _comments(
            [
                "How cores are asked for: cpus-per-task or ntasks. A core is what Slurm calls a CPU.",
                *([f"Some nodes have {threads} threads on a core, each of them a CPU."] if threads > 1 else []),
            ]
        ) + _yaml({"cores_option": "cpus-per-task"})
        given = [self._config(name).memory_per_core or self.seen.config.memory_per_core for name in self.chosen]
        shares = [row.memory // row.total for name in self.chosen for row in self.rows[name] if row.total]
        how = "MB that come with a core: DefMemPerCPU."
        if None in given:
            how = f"{DECIDE} MB that come with a core. Slurm has no DefMemPerCPU; this is the least share of a core."
        text += _comments([how]) + _yaml({"memory_per_core": _least(*(shares if None in given else given)) or 1})
        text += _comments(["Whether people may ask for memory apart from cores, up to max_memory."])
        return text + _yaml({"memory_free": False})

    def partition(self, name: str) -> _Entry:
        config, facts, limits = self._config(name), self.facts[name], self._limits(name)
        key, time = self.keys[name], self.time_limit(name)
        rows = self.rows[name]
        gpus = [key for kind, key in self.gpus.items() if any(_count(row, kind) for row in rows)]
        exclusive = self.seen.config.whole_nodes or any(row.exclusive for row in rows)
        entry = {
            "name": name if key != name else None,
            "max_cores": _least(facts.node_cores, config.max_cores, limits.max_cores, MOST_CORES),
            "max_memory": _least(facts.node_memory, config.max_memory),
            "max_time": _Time(format_duration(min(time or _UNLIMITED, _LONGEST))),
            "whole_node": exclusive or None,
            "gpus": gpus or None,
            "max_jobs": limits.max_jobs,
        }
        comments = list(self.about(name))
        if len({(row.total, row.memory) for row in rows}) > 1 or len({tuple(row.gpus) for row in rows if row.gpus}) > 1:
            comments.append(f"{DECIDE} its nodes differ; an entry for each kind keeps people to what such a node has.")
        if time is None:
            comments.append(f"{DECIDE} max_time: Slurm has no limit here, and a session needs one.")
        return comments, {key: {field: value for field, value in entry.items() if value is not None}}

    def time_limit(self, name: str) -> int | None:
        """Return how long a job may take there, in seconds; None: as long as it likes."""
        return _least(self.facts[name].time_limit, self._config(name).max_time, self._limits(name).max_time)

    def about(self, name: str) -> Iterable[str]:
        """Say of a partition what no key holds."""
        config, rows = self._config(name), self.rows[name]
        sizes = sorted({(row.total, row.memory) for row in rows})
        yield "; ".join(
            [
                f"{len(rows)} node{'s' if len(rows) != 1 else ''}",
                *([", ".join(f"{cores} cores with {memory} MB" for cores, memory in sizes)] if len(sizes) > 1 else []),
                *(["Slurm's default"] if config.default else []),
                *(["hidden"] if config.hidden else []),
                *([f"its state is {config.state}"] if config.state != "UP" else []),
                *([f"with the limits of QOS {config.qos}"] if config.qos else []),
            ]
        )
        for what, allowed in (("accounts", config.accounts), ("groups", config.groups)):
            if allowed:
                yield f"For these {what} only: {allowed}"

    @cached_property
    def gpus(self) -> dict[str, str]:
        """The key of each type of GPU; the type is empty where Slurm has none."""
        rows = [row for name in self.chosen for row in self.rows[name]]
        kinds = dict.fromkeys(kind for row in rows for kind, count in row.gpus.items() if count)
        keys = _keys([kind for kind in kinds if kind and re.fullmatch(names.GPU_TYPE, kind, re.ASCII)])
        more = {"": "gpu"} if "" in kinds else {}
        more |= {_SHARD: "shard"} if any(row.shards for row in rows) else {}
        return keys | {kind: key if key not in keys.values() else f"{key}-any" for kind, key in more.items()}

    def gpu(self, kind: str) -> _Entry:
        having = {row.node: _count(row, kind) for row in self.seen.rows if _count(row, kind)}
        vendor = next((name for name, start in _VENDORS.items() if re.match(start, kind, re.IGNORECASE)), None)
        request = "--gres=shard:{count}" if kind == _SHARD else f"--gres=gpu:{f'{kind}:' if kind else ''}{{count}}"
        entry = {"max_count": min(max(having.values()), _MOST_GPUS), "request": request}
        comments = [f"On {len(having)} node{'s' if len(having) != 1 else ''}."]
        if kind in ("", _SHARD):
            comments.append(f"{DECIDE} Slurm has no type for them: what they are (display_name, vendor).")
        elif vendor:
            comments.append(f"{DECIDE} the vendor is guessed from the name.")
        return comments, {self.gpus[kind]: ({"vendor": vendor} if vendor else {}) | entry}

    def constraints(self) -> str:
        """Return the features that some nodes of a partition have and others have not: there is something to choose."""
        where: dict[str, list[str]] = {}
        for name in self.chosen:
            nodes = [set(node.features) for node in self.seen.nodes if name in node.partitions]
            for feature in sorted(set().union(*nodes) - nodes[0].intersection(*nodes)) if nodes else ():
                if re.fullmatch(names.CONSTRAINT, feature, re.ASCII):
                    where.setdefault(feature, []).append(self.keys[name])
        if not where:
            return ""
        said = [
            "Features that not all nodes of a partition have. The form offers them.",
            f"{DECIDE} which of them people have a use for.",
        ]
        return _comments(said) + _table("constraints", (([], {key: {"partitions": on}}) for key, on in where.items()))

    def software(self) -> str:
        images = [
            f"{DECIDE} the containers. Nodes and the hub's host see the path; jupyterhub and jupyterlab are in each "
            "environment.",
            "Without a container: runtime: none, in place of path.",
        ]
        environments = [
            f"{DECIDE} what people can choose in them: conda environments by name, or kind: prefix, or kind: none.",
            "gpu: whether a GPU is of any use in it.",
        ]
        return (
            _comments(images)
            + _yaml({"images": {"container.sif": {"path": "/path/to/container.sif"}}})
            + _comments(environments)
            + _yaml({"environments": {"base": {"gpu": bool(self.gpus)}}})
            + _comments([f"{DECIDE} what a job runs first, such as `module load apptainer`; empty if nodes find it."])
            + _yaml({"prologue": ""})
        )

    def accounts(self) -> str:
        if not self.seen.config.accounting:
            return _comments(["Slurm keeps no accounts (AccountingStorageType)."]) + _yaml(
                {"accounts": {"discover": False}}
            )
        # root is Slurm's own, for its administrators.
        mine = [name for name in self.seen.accounts if name != "root" and re.fullmatch(names.ACCOUNT, name, re.ASCII)]
        said = [
            "The project that jobs are charged to. Who does not belong to it is offered their own default in Slurm."
        ]
        if mine:
            said.append(f"{DECIDE} this is the default of {self.seen.user}. Empty: everybody's own.")
        return _comments(said) + _yaml({"accounts": {"default": mine[0] if mine else ""}})

    def defaults(self) -> str:
        _, entry = self.partition(self.default)
        most: dict[str, Any] = entry[self.keys[self.default]]
        chosen = {
            "environment": "base",
            "partition": self.keys[self.default],
            "cores": min(4, most["max_cores"]),
            "gpu": "none",
            "time": _Time(format_duration(min(_HOUR, self.time_limit(self.default) or _HOUR))),
        }
        return _comments([f"{DECIDE} what the form offers first."]) + _yaml({"defaults": chosen})
