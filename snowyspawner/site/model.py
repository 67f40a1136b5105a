"""Everything about a cluster, as data.

A `Site` is a YAML file (or a dict of the same shape). It is checked as a whole when it is loaded, that is when
the hub starts: a mistake names the key, the value and what is allowed, and nobody meets it later in a form.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, model_validator

from ..slurm import names
from ..slurm.times import parse_duration
from .fields import MOST_CORES, Choices, Duration


def _matching(pattern: str, allowed: str) -> AfterValidator:
    regex = re.compile(pattern, re.ASCII)

    def check(value: str) -> str:
        if not regex.fullmatch(value):
            raise ValueError(f"must be {allowed}")
        return value

    return AfterValidator(check)


#: sbatch(1), --signal: "sig_time must have an integer value between 0 and 65535".
_LONGEST_WARNING = 65535


def _warning(value: str) -> str:
    if value not in ("", "0") and parse_duration(value) > _LONGEST_WARNING:
        raise ValueError("must be at most 18 hours, which is what Slurm takes")
    return value


def _idle(value: str) -> str:
    if value and parse_duration(value) < 1:
        raise ValueError("must be a duration such as 30:00 (half an hour), or empty: never")
    return value


def _ip_address(value: str) -> str:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        raise ValueError("must be an IP address") from None
    return value


def _ports(value: str) -> str:
    match = re.fullmatch(r"([0-9]{4,5})-([0-9]{4,5})", value, re.ASCII)
    if value and not (match and 1024 <= int(match[1]) <= int(match[2]) <= 65535):
        raise ValueError("must be FIRST-LAST, such as 40000-41000, between 1024 and 65535")
    return value


def _support(value: str) -> str:
    if value and not re.fullmatch(r"[^\s@:/<>\"]+@[^\s@:/<>\"]+|https?://[^\s<>\"]+", value):
        raise ValueError("must be an address such as support@example.org, or a link that begins with https://")
    return value


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError):
        raise ValueError("must be a time zone such as Europe/Stockholm") from None
    return value


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"must be a regular expression: {error}") from None
    return value


# Every one of these reaches an sbatch line or an argv word, so the alphabet is closed. A name begins with a
# letter or digit, so that none is ever taken for an option.
Name = Annotated[str, _matching(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}", "letters, digits and _ . + -, at most 64 of them")]
AbsolutePath = Annotated[str, _matching(r"/[A-Za-z0-9_.,@%+=:/-]*", "an absolute path without spaces or quotes")]
CoursePath = Annotated[
    str,
    _matching(
        r"(/(?!\.{1,2}(/|$))([A-Za-z0-9_.,@%+=:-]|\{account\})+)+",
        "an absolute path without spaces, quotes and .., with {account} where the project's name belongs",
    ),
]
Place = Annotated[
    str,
    _matching(
        r"(~|(/(?!\.{1,2}(/|$))([A-Za-z0-9_.@%+=-]|\{account\})+)+)(/(?!\.{1,2}(/|$))([A-Za-z0-9_.@%+=-]|\{account\})+)*",
        "~, or an absolute path without spaces, quotes, : and .., with {account} where the project's name belongs",
    ),
]
OptionalName = Annotated[
    str,
    _matching(r"([A-Za-z0-9][A-Za-z0-9_.+-]{0,63})?", "empty, or letters, digits and _ . + -, at most 64 of them"),
]


def _optional(pattern: str, allowed: str) -> AfterValidator:
    return _matching(f"({pattern})?", f"empty, or {allowed}")


SlurmPartition = Annotated[str, _optional(names.PARTITION, "a partition's name: letters, digits and _ . + @ : -")]
Constraint = Annotated[str, _optional(names.CONSTRAINT, "features for --constraint, such as gpu&hbm80g or [a|b]")]
Qos = Annotated[str, _matching(names.QOS, "the name of a QOS: letters, digits and _ . + @ : -")]
Feature = Annotated[str, _matching(names.CONSTRAINT, "features for --constraint, such as hbm80g or gpu&hbm80g")]
Account = Annotated[str, _optional(names.ACCOUNT, "a project's name: letters, digits and _ . + @ : / -")]
OptionalPath = Annotated[
    str, _matching(r"(/[A-Za-z0-9_.,@%+=:/-]*)?", "empty, or an absolute path without spaces or quotes")
]
IdleFor = Annotated[str, AfterValidator(_idle)]
WarnBefore = Annotated[str, AfterValidator(_warning)]
Variable = Annotated[str, _matching(r"[A-Z_][A-Z0-9_]*", "an environment variable's name")]
# The models are strict, but YAML knows lists only.
Names = Annotated[tuple[Name, ...], Strict(False)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Idle(_Model):
    """How long a session may go unused before it is ended; empty: for ever."""

    gpu: IdleFor = ""  # of one that has a GPU
    cpu: IdleFor = ""  # of any other
    warn: IdleFor = "10:00"  # before that


class Partition(_Model):
    """One of Slurm's partitions, with the limits that the form and the hub hold people to."""

    name: SlurmPartition = ""  # in Slurm; empty: the key of this entry
    constraint: Constraint = ""  # the features that its nodes must have, for --constraint
    display_name: str = ""
    description: str = ""
    max_cores: int = Field(ge=1, le=MOST_CORES)  # on one node, as Slurm counts CPUs: a session has one node
    max_memory: int | None = Field(default=None, ge=1)  # MB on one node; None: not known
    max_time: Duration
    whole_node: bool = False  # the job gets all max_cores of its node, whatever it asks for
    gpus: Names = ()  # the types (keys of Site.gpus) that its nodes have
    gpu_required: bool = False  # Slurm takes no job here that does not ask for one of them
    max_jobs: int | None = Field(default=None, ge=1)  # jobs of one person, waiting and running together
    idle: Idle | None = None  # instead of the Site's


class Gpu(_Model):
    """A type of GPU and how Slurm is asked for it."""

    display_name: str = ""
    vendor: Literal["nvidia", "amd", "intel"] = "nvidia"  # what containers, device files and Slurm's variable depend on
    max_count: int = Field(default=1, ge=1, le=64)  # on one node
    request: Annotated[
        str,
        _matching(
            rf"--(gres=(gpu|shard)(:{names.GPU_TYPE})?:|gpus(-per-node)?=({names.GPU_TYPE}:)?)\{{count\}}",
            "an sbatch option such as --gres=gpu:t4:{count}, --gpus=t4:{count} or --gres=shard:{count}",
        ),
    ]


def gpu_type(request: str) -> str | None:
    """Return what Slurm calls the GPUs that a `Gpu`'s *request* asks for: ``t4`` of ``--gres=gpu:t4:{count}``.

    Empty where any will do, None where it asks for parts of GPUs (shard).
    """
    if request.startswith("--gres=shard"):
        return None
    return request.partition("=")[2].removeprefix("gpu:").removesuffix("{count}").rstrip(":=")


class Image(_Model):
    """A container image on a disk that the compute nodes see, or none (the node's own system)."""

    display_name: str = ""
    description: str = ""
    path: AbsolutePath = "/"
    runtime: Literal["auto", "apptainer", "singularity", "none"] = "auto"
    entry: Literal["exec", "run"] = "exec"  # run: for images whose runscript prepares and passes on to bash
    binds: Annotated[tuple[AbsolutePath, ...], Strict(False)] = ()  # those that exist on the node are bound

    @model_validator(mode="after")
    def _has_path(self) -> Image:
        if self.runtime != "none" and self.path == "/":
            raise ValueError("an image needs a path (or runtime: none)")
        return self


class Environment(_Model):
    """What is active in the session: a conda environment of the image, a prefix, or the image as it is."""

    display_name: str = ""
    description: str = ""
    kind: Literal["conda", "prefix", "none"] = "conda"
    conda: OptionalPath = ""  # where conda is installed in the image; empty: the usual places
    prefix: OptionalPath = ""  # for kind prefix: the directory that holds bin/
    images: Names = ()  # the images that have it; empty: all
    gpu: bool = False  # whether a GPU is of any use in it

    @model_validator(mode="after")
    def _has_prefix(self) -> Environment:
        if (self.kind == "prefix") != bool(self.prefix):
            raise ValueError("prefix goes with kind: prefix, and only with it")
        return self


class Listed(_Model):
    """Something that may be chosen or not: a QOS, a constraint."""

    display_name: str = ""
    description: str = ""
    partitions: Names = ()  # where it is possible; empty: everywhere


class Accounts(_Model):
    """The projects that jobs are charged to."""

    discover: bool = True  # ask sacctmgr which ones a person may use
    default: Account = ""
    pattern: Annotated[str, AfterValidator(_pattern)] = names.ACCOUNT


class Own(_Model):
    """Where people may have software of their own: below these directories; none: not at all."""

    containers: Annotated[tuple[Place, ...], Strict(False)] = ()
    environments: Annotated[tuple[Place, ...], Strict(False)] = ()


class KeepLogs(_Model):
    """Which logs of a person's earlier jobs are kept: those that are within both limits; 0 is no limit."""

    days: int = Field(default=30, ge=0, le=36500)
    number: int = Field(default=50, ge=0, le=100000)


class Preset(_Model):
    """A named choice, offered as a card above the form."""

    display_name: str
    description: str = ""
    choices: Choices = Choices()


class Site(_Model):
    """A cluster: where it is, what it has, what a session there gets."""

    display_name: str
    description: str = ""
    support: Annotated[str, AfterValidator(_support)] = ""  # whom to turn to: an address or a URL

    cluster: OptionalName = ""  # for -M; empty: the local cluster
    slurm_conf: OptionalPath = ""  # the cluster's own slurm.conf, used instead of -M
    time_zone: Annotated[str, AfterValidator(_zone)]
    node_address: Annotated[
        str,
        _matching(r"(?=.)[A-Za-z0-9.:-]*(\{node\})?[A-Za-z0-9.:-]*", "a host name with {node} in it"),
    ] = "{node}"  # how the hub reaches a node
    ports: Annotated[str, AfterValidator(_ports)] = ""  # FIRST-LAST that a firewall lets through; empty: any free one
    listen: Annotated[str, AfterValidator(_ip_address)] = "0.0.0.0"  # noqa: S104 the hub's proxy is on another host

    cores_option: Literal["ntasks", "cpus-per-task"] = "ntasks"
    single_node: bool = True  # send --nodes=1; false where a site's rules forbid it
    memory_per_core: int = Field(ge=1)  # MB
    memory_free: bool = False  # whether people may ask for memory apart from cores

    partitions: dict[Name, Partition] = Field(min_length=1)
    gpus: dict[Name, Gpu] = {}
    qos: dict[Qos, Listed] = {}  # of Slurm's, those that may be chosen
    constraints: dict[Feature, Listed] = {}  # the same of what --constraint takes, beside a partition's own
    images: dict[Name, Image] = Field(min_length=1)
    environments: dict[Name, Environment] = Field(min_length=1)
    own: Own = Own()
    accounts: Accounts = Accounts()
    defaults: Choices
    presets: dict[Name, Preset] = {}
    courses: dict[Name, CoursePath] = {}  # course files, read as the person; {account}: one for each of their projects

    python: AbsolutePath = "/usr/bin/python3"  # on the nodes; 3.6 or newer
    login_shell: bool = False  # the script reads /etc/profile first, as a login does: for module and the like
    prologue: str = ""  # shell text, run in the job before anything else: module load …
    umask: Annotated[str, _matching(r"0?[0-7]{3}", "three octal digits in quotes, such as '022'")] = "022"
    # Read back by the hub, which knows of Slurm's replacements the number only.
    log: Annotated[
        str,
        _matching(
            r"(?!/)(?!(.*/)?\.\.(/|$))([A-Za-z0-9_./+-]|%%)*%j([A-Za-z0-9_./+-]|%%|%j)*",
            "a path below the home directory with %j (the job's number) in it, without .. and other %",
        ),
    ] = ".snowyspawner-%j.log"  # relative to the person's home
    keep_logs: KeepLogs = KeepLogs()  # the others are removed when a job starts
    idle: Idle = Idle()  # sessions that neither compute nor are used are ended after so long
    co2: int | None = Field(default=None, ge=0, le=2000)  # g for a kWh, for what a session's GPU takes; None: not said
    warn_before: WarnBefore = "10:00"  # the end of the job, in JupyterLab and in the log; empty or 0: no warning
    scratch: Annotated[tuple[Variable, ...], Strict(False)] = ("SNIC_TMP", "TMPDIR")
    # ^ the first of these that names a directory is the job's scratch
    hub_wait: int = Field(default=600, ge=1)  # seconds that a job waits for a hub that does not answer
    helper: AbsolutePath = "/usr/local/libexec/snowyspawner-helper"  # on the hub's host, for a hub that uses sudo

    @model_validator(mode="after")
    def _consistent(self) -> Site:
        wrong: list[str] = []

        def refer(where: str, name: str, table: Mapping[str, Any], what: str) -> None:
            if name not in table:
                wrong.append(f"{where}: {name!r}: no such {what}; there is {', '.join(table) or 'none'}")

        for key, partition in self.partitions.items():
            for gpu in partition.gpus:
                refer(f"partitions.{key}.gpus", gpu, self.gpus, "GPU type")
            if partition.gpu_required and not partition.gpus:
                wrong.append(f"partitions.{key}.gpu_required: True: needs gpus to choose from")
        for key, environment in self.environments.items():
            for image in environment.images:
                refer(f"environments.{key}.images", image, self.images, "image")
        for where, listed in (("qos", self.qos), ("constraints", self.constraints)):
            for key, item in listed.items():
                for name in item.partitions:
                    refer(f"{where}.{key}.partitions", name, self.partitions, "partition")
        for field in ("environment", "partition", "cores", "time"):
            if getattr(self.defaults, field) is None:
                wrong.append(f"defaults.{field}: missing")
        offers = {"defaults": self.defaults} | {f"presets.{k}.choices": p.choices for k, p in self.presets.items()}
        for where, choices in offers.items():
            for field, table in (
                ("environment", self.environments),
                ("image", self.images),
                ("partition", self.partitions),
            ):
                if (value := getattr(choices, field)) is not None:
                    refer(f"{where}.{field}", value, table, field)
            if choices.gpu not in (None, "none"):
                name, _, count = str(choices.gpu).partition(":")
                refer(f"{where}.gpu", name, self.gpus, "GPU type")
                if not re.fullmatch(r"[1-9][0-9]{0,2}", count or "1"):
                    wrong.append(f"{where}.gpu: {choices.gpu!r}: must be none or TYPE:COUNT")
        if wrong:
            raise ValueError("\n".join(wrong))
        return self

    @property
    def zone(self) -> ZoneInfo:
        """The time zone that times are read and shown in."""
        return ZoneInfo(self.time_zone)

    @cached_property
    def derived(self) -> dict[str, Any]:
        """What has been made of this Site once for everybody, by name."""
        return {}

    @property
    def support_url(self) -> str:
        """Return `support` as the address of a link; empty without any."""
        return f"mailto:{self.support}" if "@" in self.support and "://" not in self.support else self.support

    def warning(self, time: int) -> int:
        """Return how long before its end a job of *time* seconds is warned, in seconds; 0: not at all.

        A short session is warned half way.
        """
        return min(parse_duration(self.warn_before) if self.warn_before not in ("", "0") else 0, time // 2)

    def idle_limits(self, partition: str, gpu: bool) -> tuple[int, int]:
        """Return how long a session there may go unused, and how long before its end it is warned, in seconds.

        0: it is never ended for that. A short time is warned half way.
        """
        there = self.partitions.get(partition)
        idle = (there.idle if there else None) or self.idle
        limit = idle.gpu if gpu else idle.cpu
        seconds = parse_duration(limit) if limit else 0
        return seconds, min(parse_duration(idle.warn) if idle.warn else 0, seconds // 2)

    def slurm_partition(self, key: str) -> str:
        """Return what Slurm calls the partition *key*: several entries may be parts of one."""
        return self.partitions[key].name or key

    def slurm_gpu(self, key: str) -> str | None:
        """Return what Slurm calls the GPUs *key*; see `gpu_type`."""
        return gpu_type(self.gpus[key].request)

    def find_gpus(self, name: str) -> list[str]:
        """Return the keys of what *name* means in a Gres: a key or Slurm's type in any letters, ``shard``, empty: any.

        Slurm itself takes a type as slurm.conf has it; people write what a page shows them.
        """
        if name in self.gpus:
            return [name]
        kinds = {key: self.slurm_gpu(key) for key in self.gpus}
        if name in ("", "shard"):
            return [key for key, kind in kinds.items() if (kind is None) == (name == "shard")]
        return [key for key, kind in kinds.items() if name.lower() in (key.lower(), (kind or key).lower())]

    def find_gpu(self, name: str, partition: str = "") -> str:
        """Return the key that *name* means (see `find_gpus`); empty: none. Of several, one that *partition* has."""
        found = self.find_gpus(name)
        here = self.partitions[partition].gpus if partition in self.partitions else ()
        return next((key for key in found if key in here), found[0] if found and name else "")

    def find_partition(self, name: str, constraint: str = "", gpu: str | None = None) -> str:
        """Return the key of what sbatch's ``-p`` *name* and ``-C`` *constraint* mean; empty: there is no such.

        *name* may be a key, too. Of several parts of one of Slurm's partitions, the first that has *gpu* (as in
        `find_gpus`) is meant.
        """
        if name in self.partitions and not constraint:
            return name
        parts = [key for key in self.partitions if name in (key, self.slurm_partition(key))]
        meant = [key for key in parts if self.partitions[key].constraint == constraint]
        wanted = set(() if gpu is None else self.find_gpus(gpu))
        fits = (key for key in meant if wanted.intersection(self.partitions[key].gpus))
        return next(fits, meant[0] if meant else "")

    def course_account(self, path: str) -> str | None:
        """Return the project whose course file *path* is, empty if it is no project's; None: it is no course file."""
        for course in self.courses.values():
            whose, places = f"({names.ACCOUNT_IN_PATH})", course.split("{account}")
            first = whose.join(map(re.escape, places[:2]))
            rest = "".join(rf"\1{re.escape(part)}" for part in places[2:])
            if found := re.fullmatch(first + rest, path, re.ASCII):
                return found[1] if len(places) > 1 else ""
        return None

    def in_project(self, path: str) -> bool:
        """Tell whether *path* is below a project's directory: one that the Site looks for a course file in."""
        for course in self.courses.values():
            directory = re.escape(course.rpartition("/")[0]).replace(re.escape("{account}"), names.ACCOUNT_IN_PATH)
            if directory and re.match(f"{directory}/.", path, re.ASCII):
                return ".." not in path.split("/")
        return False

    @property
    def port_range(self) -> tuple[int, int]:
        """The first and the last port that a server may have."""
        first, _, last = self.ports.partition("-")
        return (int(first), int(last)) if first else (1024, 65535)

    def may_listen(self, port: int) -> bool:
        """Tell whether a server may have *port*."""
        first, last = self.port_range
        return first <= port <= last

    def address(self, node: str) -> str:
        """Return the host under which the hub reaches *node*."""
        return self.node_address.replace("{node}", node)
