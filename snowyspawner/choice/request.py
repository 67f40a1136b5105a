"""One person's choice. Every way in (form, link, REST, a notebook.py line) becomes a `SessionRequest` here.

`review` is the only gate: a value is a number, a member of a list of the Site's, or matches an anchored
pattern, so that nothing a person typed is ever shell or template text.
"""

from __future__ import annotations

import re
import time as clock
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict

from ..site import Site
from ..site.fields import FIELDS, MOST_CORES, MOST_MEMORY, Field
from ..slurm import names
from ..slurm.times import DURATION_HELP, format_duration, parse_begin, parse_duration
from ..stored import read
from . import own
from .notebook_line import from_line
from .rules import either, rules_of, violations

# A job that should begin a moment ago is one that a person took a moment to send.
_BEGIN_SLACK = 120
_BEGIN_LIMIT = 366 * 86400
#: Characters that a value has at most.
TEXT_LIMIT = 512
# A closed alphabet, and no user name, query or fragment, so that a repository is never an option of git's, and has no
# password in it. The last part is the name of its directory.
_HOST = r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?"
_URL = rf"https://{_HOST}(/~?[A-Za-z0-9_][A-Za-z0-9_.+-]*)*/[A-Za-z0-9_][A-Za-z0-9_.+-]*"
_PATH = r"(/[A-Za-z0-9_][A-Za-z0-9_.,@+=:-]*)+"
# Of what git-check-ref-format(1) allows.
_BRANCH = r"(?!.*(\.\.|//|/\.|\.lock(/|$)))[A-Za-z0-9_]([A-Za-z0-9_./+-]{0,126}[A-Za-z0-9_+-])?"


class RequestError(ValueError):
    """A request is refused. *errors* has a sentence for each field at fault."""

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{field}: {text}" for field, text in errors.items()))
        self.errors = dict(errors)


class SessionRequest(BaseModel):
    """What one session asks for. Made by `review`; every value has been checked against the Site."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    environment: str
    image: str
    own_container: str = ""  # a path, absolute or below ~
    own_environment: str = ""  # the same
    partition: str
    cores: int
    gpu: str = ""  # a type, or empty: none
    gpu_count: int = 0
    memory: int | None = None  # MB; None: what the cores bring with them
    qos: str = ""
    constraint: str = ""
    time: int  # seconds
    begin: int | None = None  # epoch seconds; None: as soon as possible
    account: str = ""
    reservation: str = ""
    email_on_start: bool = False
    open: str = ""  # a path below the person's home
    repository: str = ""  # URL or URL#BRANCH

    @property
    def software(self) -> str:
        """What is to be called by name where a page says what runs: the environment, or what takes its place."""
        return software(self.environment, self.own_environment, self.own_container)

    @property
    def time_limit(self) -> int:
        """The job's time limit in seconds: Slurm counts it in minutes, and rounds up."""
        return -(-self.time // 60) * 60

    def lab_path(self, root: str = "") -> str:
        """Return the path of JupyterLab's page that opens what was asked for.

        *root* is the directory that JupyterLab shows, below the person's home (empty: that itself). What is not below
        it is looked for in it.
        """
        path = self.open or self.directory
        path = path.removeprefix(f"{root.strip('/')}/") if root.strip("/") else path
        return "/lab/tree/" + quote(path) if path and path.strip("/") != root.strip("/") else "/lab"

    @property
    def directory(self) -> str:
        """The directory that the repository is fetched into, below what JupyterLab shows; empty without one."""
        return repository_directory(self.repository)

    def options(self, site: Site) -> dict[str, str]:
        """Write the request as a person would: what the form shows and `from_options` reads."""
        return {name: self._written(name, field, site) for name, field in FIELDS.items()}

    def _written(self, name: str, field: Field, site: Site) -> str:
        value = getattr(self, name)
        if field.kind == "gpu":
            return f"{self.gpu}:{self.gpu_count}" if self.gpu else "none"
        if field.kind == "flag":
            return "1" if value else "0"
        if not value:
            return ""
        if field.kind == "begin":
            return _write_begin(value, site)
        return format_duration(value) if field.kind == "duration" else str(value)


def software(environment: str, own_environment: str = "", own_container: str = "") -> str:
    """Return what a session's software is called: the user's own by its last name, an environment first."""
    return (own_environment.strip() or own_container.strip()).rstrip("/").rpartition("/")[2] or environment


def repository_directory(repository: str) -> str:
    """Return the name of the directory that git makes of a *repository* (URL or URL#BRANCH); empty without one."""
    return repository.partition("#")[0].rstrip("/").rpartition("/")[2].removesuffix(".git")


def load(stored: Any) -> SessionRequest:
    """Read a request that a hub of any version has stored; what cannot be read is blank.

    It was checked when it was accepted; a Site may have changed since.
    """
    blank = {"environment": "", "image": "", "partition": "", "cores": 0, "time": 0}
    return read(SessionRequest, stored, blank) or SessionRequest.model_validate(blank)


def default_options(site: Site, accounts: Sequence[str] | None = None) -> dict[str, Any]:
    """Return the Site's defaults as options, a value for every field.

    *accounts* are those of the person, None when they are not known: somebody who cannot use the Site's default
    project has the first of their own.
    """
    given = site.defaults.model_dump(exclude_none=True)
    image = next(iter(site.images))
    blank: dict[str, Any] = dict.fromkeys(FIELDS, "")
    values = {**blank, "image": image, "gpu": "none", "account": site.accounts.default, **given}
    if accounts and values["account"] not in accounts:
        values["account"] = accounts[0]
    return values


def form_values(site: Site, accounts: Sequence[str] | None = None) -> dict[str, str]:
    """Return the Site's defaults (for somebody with these *accounts*) as the form shows them."""
    return {field: written(field, value) for field, value in default_options(site, accounts).items()}


def written(field: str, value: Any) -> str:
    """Write a Site's *value* as `SessionRequest.options` would, so that the form can tell what is the same."""
    kind = FIELDS[field].kind
    if kind == "flag":
        return str(int(bool(value)))
    if kind == "duration":
        return format_duration(parse_duration(value))
    if kind == "gpu" and value != "none" and ":" not in value:
        return f"{value}:1"
    return str(value)


def problems(site: Site) -> list[str]:
    """Say what of *site*'s own defaults and presets it would itself refuse; a line each."""
    offers = {"defaults": site.defaults} | {f"presets.{key}": preset.choices for key, preset in site.presets.items()}
    wrong = []
    for where, choices in offers.items():
        try:
            from_options(choices.model_dump(), site)
        except RequestError as error:
            wrong += [f"{where}: {field}: {text}" for field, text in error.errors.items()]
    return wrong


#: What the form's page posts for its buttons, beside the fields.
BUTTONS = ("preset_name", "preset_action", "preset_delete")


def from_form(form: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Take a posted form (each field a list of strings) as options; the last value of a field counts.

    Fields that JupyterHub adds itself (``_xsrf``), `BUTTONS` and uploads are left out.
    """
    options = {}
    for field, values in form.items():
        texts = [value for value in values if isinstance(value, str)]
        if texts and not field.startswith("_") and field not in BUTTONS:
            options[field] = texts[-1]
    return options


def from_options(
    options: Mapping[str, Any], site: Site, now: float | None = None, accounts: Sequence[str] | None = None
) -> SessionRequest:
    """Check *options* against *site* and make a request of them; a missing field means the Site's default.

    *options* may be anything that JSON can hold. Beside the fields there may be a ``line``, a notebook.py line;
    what it sets counts where the field itself is not given. *now* is in epoch seconds; *accounts* are the
    person's, None when they are not known.

    Raises `RequestError` with a sentence for every field at fault, unknown fields included.
    """
    found = review(options, site, now, accounts)
    if found.request is None:
        raise RequestError(found.errors)
    return found.request


class Review(NamedTuple):
    """What came of reading a set of options. *errors* and *remarks* have a sentence by field."""

    request: SessionRequest | None  # None: refused
    errors: dict[str, str]
    remarks: dict[str, str]
    read: dict[str, Any]  # the values that could be read, as in a request; also of what is refused
    line: dict[str, str]  # what a line set


def review(
    options: Mapping[str, Any], site: Site, now: float | None = None, accounts: Sequence[str] | None = None
) -> Review:
    """Read *options* as `from_options` does, without raising."""
    check = _Check(options, site, clock.time() if now is None else now, accounts)
    request, read = check.request()
    return Review(request, check.errors, check.remarks, read, check.set_by_line)


class _Check:
    """Reads one set of options; collects what is wrong instead of stopping at the first."""

    def __init__(self, options: Mapping[str, Any], site: Site, now: float, accounts: Sequence[str] | None) -> None:
        self.site, self.now, self.accounts = site, now, accounts
        self.errors: dict[str, str] = {}
        self.remarks: dict[str, str] = {}
        self.values = default_options(site, accounts)
        options = dict(options)
        line = options.pop("line", "")
        self.set_by_line = self.line(line) if line else {}
        options = {**self.set_by_line, **options}
        for field, value in options.items():
            if field in self.values:
                value = value.strip() if isinstance(value, str) else value
                # Null and an empty text mean "as usual", except where empty is a choice of its own.
                if value is not None and (value != "" or FIELDS[field].may_be_empty):
                    self.values[field] = value
            else:
                self.errors[str(field)[:64]] = f"there is no such field; the fields are {', '.join(FIELDS)}"

    def line(self, line: Any) -> dict[str, str]:
        try:
            if not isinstance(line, str) or len(line) > TEXT_LIMIT:
                raise ValueError(f"must be text of at most {TEXT_LIMIT} characters")
            return self.parted(from_line(line, self.site.cluster))
        except ValueError as error:
            self.errors["line"] = "".join(char if char.isprintable() else "?" for char in str(error))
            return {}

    def parted(self, options: dict[str, str]) -> dict[str, str]:
        """Put the Site's partition where a line has Slurm's. Raises `ValueError`: no nodes have that constraint."""
        constraint, name = options.get("constraint", ""), options.get("partition", self.values["partition"])
        gpu = _type_and_count(options["gpu"])[0] if "gpu" in options else None
        found = self.site.find_partition(name, constraint, gpu)
        if found:
            # It says which part of a partition is meant.
            options = {field: text for field, text in options.items() if field != "constraint"}
        elif constraint in self.site.constraints:
            found = self.site.find_partition(name, "", gpu)
        elif constraint:
            raise ValueError(f"-C {constraint}: partition {name} has no such nodes here")
        if "partition" not in options and found in (None, name):
            return options
        # What there is not is refused at its field.
        return {**options, "partition": found or name}

    def request(self) -> tuple[SessionRequest | None, dict[str, Any]]:
        values: dict[str, Any] = {}
        for name, field in FIELDS.items():
            values[name] = getattr(self, f"read_{field.kind}")(name, field)
        values["gpu"], values["gpu_count"] = values["gpu"]
        read = {name: value for name, value in values.items() if name not in self.errors}
        # A value that could not be read is out of every rule's sight.
        gpu_type = "" if "gpu" in self.errors else values["gpu"] or "none"
        refused, remarks = violations(rules_of(self.site), {**values, "gpu_type": gpu_type})
        for name, text in refused.items():
            self.errors.setdefault(name, text)
        self.remarks = {name: text for name, text in remarks.items() if name not in self.errors}
        request = None if self.errors else SessionRequest(**values)
        return request, read

    def text(self, field: str) -> str:
        value = self.values[field]
        if FIELDS[field].is_list(value):
            given = _show(value) if isinstance(value, str) else "a list"
            ways = "use Start several on the form, or POST …/hub/snowy/several"
            self.errors[field] = f"{given} means several sessions, and this starts one: {ways}"
            return ""
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            self.errors[field] = "must be text"
            return ""
        # Python refuses to write out an integer of thousands of digits.
        text = value if isinstance(value, str) else str(value) if abs(value) < 10**TEXT_LIMIT else "9" * 1000
        if len(text) > TEXT_LIMIT:
            self.errors[field] = f"is too long: at most {TEXT_LIMIT} characters"
            return ""
        if any(ord(char) < 32 or 0xD800 <= ord(char) < 0xE000 or ord(char) == 127 for char in text):
            self.errors[field] = f"{_show(text)} has characters that cannot be typed"
            return ""
        return text

    def read_member(self, name: str, field: Field) -> str:
        text, table = self.text(name), getattr(self.site, field.table)
        if text not in table and name not in self.errors:
            self.errors[name] = f"{_show(text)} is not offered here; choose {either(table)}"
        return text

    def read_listed(self, name: str, field: Field) -> str:
        text, table = self.text(name), getattr(self.site, field.table)
        if text and text not in table:
            offered = f"choose {either(table)}, or none" if table else "there is none to choose"
            self.errors.setdefault(name, f"{_show(text)} is not offered here; {offered}")
        return text

    def read_reservation(self, name: str, field: Field) -> str:
        return self.matching(name, names.RESERVATION, "a reservation's name")

    def read_number(self, name: str, field: Field) -> int:
        return self.number(name, 1, MOST_CORES)

    def matching(self, field: str, pattern: str, what: str) -> str:
        text = self.text(field)
        if text and not re.fullmatch(pattern, text, re.ASCII):
            self.errors[field] = f"{_show(text)} is not {what}"
        return text

    def number(self, field: str, low: int, high: int) -> int:
        text = self.text(field)
        if field not in self.errors:
            if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII):
                self.errors[field] = f"{_show(text)} is not a whole number"
            elif not low <= int(text) <= high:
                self.errors[field] = f"{text} is not possible: choose {low} to {high}"
            else:
                return int(text)
        return 0

    def read_flag(self, name: str, field: Field) -> bool:
        value = self.values[name]
        known = {
            True: True,
            False: False,
            "": False,
            "0": False,
            "1": True,
            "on": True,
            "true": True,
            "false": False,
        }
        if not isinstance(value, (bool, str)) or value not in known:
            self.errors[name] = "must be true or false"
            return False
        return known[value]

    def read_memory(self, name: str, field: Field) -> int | None:
        if self.values[name] == "":
            return None
        if not self.site.memory_free:
            per_core = self.site.memory_per_core
            self.errors[name] = f"comes with the cores here, {per_core} MB for each: ask for more cores instead"
            return None
        return self.number(name, 1, MOST_MEMORY)

    def read_duration(self, name: str, field: Field) -> int:
        text = self.text(name)
        if name not in self.errors:
            try:
                return parse_duration(text)
            except ValueError:
                self.errors[name] = f"{_show(text)} is not a duration: write {DURATION_HELP}"
        return 0

    def read_begin(self, name: str, field: Field) -> int | None:
        text = self.text(name)
        if name in self.errors or text.lower() in ("", "now"):
            return None
        try:
            begin = parse_begin(text, datetime.fromtimestamp(self.now, self.site.zone))
        except ValueError as error:
            self.errors[name] = f"{_show(text)} {error}"
            return None
        if begin < self.now - _BEGIN_SLACK:
            zone = self.site.time_zone
            self.errors[name] = f"{_show(text)} ({zone}) is in the past: choose a later time, or now"
        elif begin > self.now + _BEGIN_LIMIT:
            self.errors[name] = f"{_show(text)} is more than a year away"
        return begin

    def read_account(self, name: str, field: Field) -> str:
        accounts = self.site.accounts
        text = self.matching(name, accounts.pattern, "a project's name here")
        # The Site's pattern is the administrator's; this one keeps the script's line a line, whatever that says.
        if text and not re.fullmatch(names.ACCOUNT, text, re.ASCII):
            self.errors[name] = f"{_show(text)} is not a project's name here"
        if self.accounts and text not in self.accounts and name not in self.errors:
            self.errors[name] = f"{_show(text)} is not one of your projects: choose {either(self.accounts)}"
        return text

    def read_path(self, name: str, field: Field) -> str:
        text = self.text(name).removeprefix("~/")
        parts = text.split("/")
        if text.startswith("/") or ".." in parts:
            self.errors[name] = f"{_show(text)} must be a path below your home directory, such as course/lab1.ipynb"
        return text

    def read_own(self, name: str, field: Field) -> str:
        text = self.text(name)
        if not text or name in self.errors:
            return text
        text = text if text == "/" else text.rstrip("/")
        if not own.places(self.site, name):
            self.errors[name] = "is not offered here: leave it empty"
        elif problem := own.problem(text):
            self.errors[name] = f"{_show(text)} {problem}"
        return text

    def read_repository(self, name: str, field: Field) -> str:
        text = self.text(name)
        where, mark, branch = text.partition("#")
        where = where.rstrip("/")
        below_project = re.fullmatch(_PATH, where, re.ASCII) and self.site.in_project(where)
        if not text or name in self.errors:
            return text
        if not re.fullmatch(_URL, where, re.ASCII) and not below_project:
            paths = ", or a path below a project's directory" if self.site.courses else ""
            self.errors[name] = f"{_show(text)} is not a repository: write https://HOST/PATH, without ? and @{paths}"
        elif mark and not re.fullmatch(_BRANCH, branch, re.ASCII):
            self.errors[name] = f"{_show(branch)} is not the name of a branch"
        return f"{where}{mark}{branch}"

    def read_gpu(self, name: str, field: Field) -> tuple[str, int]:
        text = self.text(name)
        if name in self.errors or text in ("none", "0"):
            return "", 0
        kind, count = _type_and_count(text)
        partition = self.values["partition"]
        key = self.site.find_gpu(kind, partition if isinstance(partition, str) else "")
        offered = [f"{key}:1" for key in self.site.gpus] + ["none"]
        if not key or not re.fullmatch(r"[0-9]{1,3}", count, re.ASCII):
            self.errors[name] = f"{_show(text)} is not offered here; choose {either(offered)}"
            return "", 0
        # The course's own way to say none was --gres=gpu:t4:0.
        return (key, int(count)) if int(count) else ("", 0)


def _type_and_count(gpu: str) -> tuple[str, str]:
    """Part ``t4:2``, ``t4`` (one) and ``2`` (of whatever type) as sbatch(1), --gres, does."""
    name, colon, count = gpu.partition(":")
    return ("", name) if name.isdecimal() and not colon else (name, count or "1")


def _write_begin(begin: int, site: Site) -> str:
    moment = datetime.fromtimestamp(begin, site.zone)
    return moment.strftime("%Y-%m-%dT%H:%M:%S" if moment.second else "%Y-%m-%dT%H:%M")


def _show(text: str) -> str:
    """Quote what a person typed, shortened, on one line."""
    shown = text if len(text) <= 60 else text[:57] + "…"
    return repr(shown)
