"""What a person can choose for a session: every field, declared once.

A Site's defaults and presets have these fields, as a person would write them. By what is declared here the form, links,
REST, a notebook.py line, presets, pages and the job script read, write and show them. To add a field, declare it in
`Choices` and give `choice.request.SessionRequest` what is made of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic import Field as Limits

from ..slurm.times import parse_duration

#: How a value is read, written and drawn: a ``member`` is one of a table of the Site's, an ``account`` one of the
#: person's, ``listed`` of a table of the Site's or empty, ``own`` the path of a user's own software; the others are
#: what their names say.
Kind = Literal[
    "member",
    "listed",
    "account",
    "reservation",
    "gpu",
    "number",
    "memory",
    "duration",
    "begin",
    "flag",
    "path",
    "repository",
    "own",
]
#: What a number of cores can be at most, as Slurm counts CPUs of one node.
MOST_CORES = 4096
#: The same of memory, in MB.
MOST_MEMORY = 100_000_000

#: The parts of the form, in its order, and what they are called.
PARTS: Mapping[str, str] = MappingProxyType(
    {"software": "Software", "resources": "Resources", "time": "Time and project"}
)


@dataclass(frozen=True)
class Field:
    """What is to be known of one field."""

    label: str  # on the form
    kind: Kind
    part: str  # of the form, a key of `PARTS`
    help: str = ""  # on the form
    word: str = ""  # in a sentence; empty: its label in small letters
    table: str = ""  # member, listed: the key of the Site that has what there is; own: that of Site.own with the places
    flags: tuple[str, ...] = ()  # of notebook.py's line, as argparse has them; the first is written
    option: str = ""  # of sbatch(1), where the value needs nothing more: {} stands for it
    may_be_empty: bool = False  # empty is a choice of its own, not "as usual"
    passes: bool = False  # it is about one time: not offered again
    on_card: bool = False  # pages show it of a session
    first: bool = False  # stands first in its part of the form
    several: bool = False  # a list of values means several sessions, one for each of them

    @property
    def in_words(self) -> str:
        """What a sentence calls it."""
        return self.word or self.label.lower()

    @property
    def ruled(self) -> bool:
        """Whether rules may look at its value, by the field's name."""
        return self.kind in ("member", "listed", "account", "number", "memory", "duration", "own")

    def is_list(self, value: Any) -> bool:
        """Tell whether *value* means several sessions: ``1,4,8,16``, or a list as JSON has it."""
        return self.several and (isinstance(value, list) or (isinstance(value, str) and "," in value))

    @property
    def of_slurm(self) -> bool:
        """Whether Slurm is told of it, so that it may be what Slurm refuses."""
        return bool(self.flags)


def _duration(value: str) -> str:
    parse_duration(value)
    return value


Duration = Annotated[str, AfterValidator(_duration)]


class Choices(BaseModel):
    """Fields of a session, as a person would write them. What is left out comes from the Site's defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    environment: Annotated[
        str | None,
        Field("Environment", "member", "software", table="environments", on_card=True, several=True),
    ] = None
    image: Annotated[
        str | None,
        Field("Container", "member", "software", table="images", word="container"),
    ] = None
    own_container: Annotated[
        str | None,  # a path, absolute or below ~
        Field(
            "My own container",
            "own",
            "software",
            "An image file, or a directory that apptainer has built, with jupyterhub-singleuser in it.",
            word="your own container",
            table="containers",
            may_be_empty=True,
        ),
    ] = None
    own_environment: Annotated[
        str | None,  # the same
        Field(
            "My own environment",
            "own",
            "software",
            "The directory of a conda or virtual environment, with jupyterhub-singleuser in it. It runs in the "
            "container.",
            word="your own environment",
            table="environments",
            may_be_empty=True,
        ),
    ] = None
    partition: Annotated[
        str | None,
        Field("Partition", "member", "resources", table="partitions", flags=("-p", "--partition"), on_card=True),
    ] = None
    cores: Annotated[
        int | None,
        Limits(ge=1),
        Field(
            "Cores",
            "number",
            "resources",
            flags=("-n", "--ntasks", "-c", "--cpus-per-task"),
            on_card=True,
            several=True,
        ),
    ] = None
    gpu: Annotated[
        str | None,  # TYPE:COUNT, or none
        Field("GPU", "gpu", "resources", word="GPU", flags=("--gres",), on_card=True, first=True),
    ] = None
    memory: Annotated[
        int | None,  # MB
        Limits(ge=1),
        Field("Memory", "memory", "resources", "Empty: what the cores bring.", flags=("--mem",), may_be_empty=True),
    ] = None
    qos: Annotated[
        str | None,
        Field(
            "QOS",
            "listed",
            "resources",
            "A class of jobs, with limits and a priority of its own.",
            word="QOS",
            table="qos",
            flags=("-q", "--qos"),
            option="--qos={}",
            may_be_empty=True,
            on_card=True,
        ),
    ] = None
    constraint: Annotated[
        str | None,
        Field(
            "Constraint",
            "listed",
            "resources",
            "What the node must have.",
            table="constraints",
            flags=("-C", "--constraint"),
            may_be_empty=True,
            on_card=True,
        ),
    ] = None
    time: Annotated[
        Duration | None,
        Field(
            "Time",
            "duration",
            "time",
            "As Slurm reads it: 30 is minutes, 1:30 a minute and a half, 2:00:00 two hours, 1-0 a day.",
            flags=("-t", "--time"),
            on_card=True,
        ),
    ] = None
    begin: Annotated[
        str | None,
        Field("When", "begin", "time", word="start", flags=("-b", "--begin"), may_be_empty=True, passes=True),
    ] = None
    account: Annotated[
        str | None,
        Field(
            "Project",
            "account",
            "time",
            "Whom the job is charged to.",
            word="project",
            flags=("-A", "--account"),
        ),
    ] = None
    reservation: Annotated[
        str | None,
        Field(
            "Reservation",
            "reservation",
            "time",
            flags=("--reservation",),
            option="--reservation={}",
            may_be_empty=True,
            passes=True,
        ),
    ] = None
    email_on_start: Annotated[
        bool | None,
        Field("Mail", "flag", "time", word="mail at the start", flags=("--mail-type",)),
    ] = None
    open: Annotated[
        str | None,
        Field(
            "Open",
            "path",
            "software",
            "A file or folder below your home directory to open in JupyterLab. Empty: nothing.",
            word="what to open",
            may_be_empty=True,
        ),
    ] = None
    repository: Annotated[
        str | None,  # URL or URL#BRANCH
        Field(
            "Repository",
            "repository",
            "software",
            "A git repository to fetch into your home directory: https://HOST/PATH, and #BRANCH behind it if you like. "
            "What you have changed in your copy stays.",
            may_be_empty=True,
        ),
    ] = None


def _declared() -> dict[str, Field]:
    found = {}
    for name, info in Choices.model_fields.items():
        (found[name],) = (item for item in info.metadata if isinstance(item, Field))
    return found


#: All fields by name, in the order of a request.
FIELDS: Mapping[str, Field] = MappingProxyType(_declared())
