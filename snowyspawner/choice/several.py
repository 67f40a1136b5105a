"""Several sessions from one choice: a list in a field (``1,4,8,16``) means a session for each of its values. Pure.

Which fields may have a list is declared in `site.fields`. Each session is then one of its own, checked and started like
any other.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from math import prod
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ..site import Site
from ..site.fields import FIELDS
from ..site.fields import Field as Declared
from ..stored import read
from .own import OWN
from .request import TEXT_LIMIT, RequestError, SessionRequest, default_options, from_form, review, software

#: Sessions that one choice can mean at most.
MOST = 16
#: The fields that may have a list.
LISTS = {name: field for name, field in FIELDS.items() if field.several}
_EXAMPLE = "write values with commas between them, such as 1,4,8,16"
_NAME_LIMIT = 30  # characters of a server's name, JupyterHub's `is_valid_safe_slug`
_TITLE_LIMIT = 200
_WORD_LIMIT = 32  # characters that a title shows of a value


def _printable(title: str) -> str:
    if not title.isprintable():
        raise ValueError("must be printable")
    return title


class Group(BaseModel):
    """The sessions that were started together; each server's state has it."""

    model_config = ConfigDict(frozen=True)

    id: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    title: Annotated[str, Field(max_length=_TITLE_LIMIT), AfterValidator(_printable)] = ""


def new_id() -> str:
    """Make what tells one group from another."""
    return secrets.token_hex(8)


def load_group(stored: Any) -> Group | None:
    """Read a stored group, of this version or another; None when there is none."""
    return read(Group, stored)


class Planned(NamedTuple):
    """One of several sessions: what its server is called, and its choice, which is still to be checked."""

    name: str
    options: dict[str, Any]
    values: dict[str, str]  # of the fields that may have a list, as they are shown


class Plan(NamedTuple):
    """The sessions that a choice means, in the order in which the values were given; none of them twice."""

    title: str
    sessions: list[Planned]
    given: dict[str, Any]  # the choice as it came in; what its line set in place of the line
    lists: dict[str, list[str]]  # of each field that has a list, its values

    @property
    def written(self) -> dict[str, str]:
        """Write the lists as a link or a line has them, by field."""
        return {name: ",".join(values) for name, values in self.lists.items()}

    def label(self, session: Planned) -> str:
        """Say which of the sessions it is, by its values of the fields that have a list."""
        return ", ".join(session.values[name] for name in self.lists)


def sent(form: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Take a posted form as `request.from_form` does. What stands in its section for several sessions goes first."""
    return from_form(form) | {name: ",".join(texts) for name, texts in section(form).items()}


def section(form: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
    """Return what stands in a posted form's section for several sessions, by field; not what is empty there."""
    found = {name: [text for text in form.get(f"_{name}", ()) if text.strip()] for name in LISTS}
    return {name: texts for name, texts in found.items() if texts}


def parted(texts: Mapping[str, str]) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Return *texts* as the form's fields show them, the first value of a list, and what its section has of lists."""
    values, lists = dict(texts), {}
    for name, field in LISTS.items():
        if field.is_list(texts.get(name)):
            members = [member.strip() for member in texts[name].split(",")]
            values[name] = members[0]
            lists[name] = members if field.table else [",".join(members)]
    return values, lists


def means_several(options: Mapping[str, Any], site: Site) -> bool:
    """Tell whether *options*, of any kind, are a choice of several sessions: as they are, or by their line."""
    try:
        given = _given(options, site, None)
    except RequestError:
        return False
    return any(field.is_list(given.get(name)) for name, field in LISTS.items())


def plan(options: Mapping[str, Any], site: Site, accounts: Sequence[str] | None = None) -> Plan:
    """Return the sessions that *options* mean: one, unless a field has a list. *accounts* as for `request.review`.

    Raises `RequestError`, a sentence per field, for a line or a list that cannot be read, and for too many sessions.
    """
    given = _given(options, site, accounts)
    usual = default_options(site, accounts)
    members: dict[str, list[Any]] = {}
    errors: dict[str, str] = {}
    for name, field in LISTS.items():
        try:
            members[name] = _members(field, given.get(name)) or [usual[name]]
        except ValueError as error:
            errors[name] = str(error)
    listed = [name for name, field in LISTS.items() if field.is_list(given.get(name))]
    mine = next((name for name in OWN if isinstance(given.get(name), str) and given[name].strip()), "")
    if mine and "environment" in listed:
        text = (
            f"{FIELDS[mine].in_words} takes the place of each of them: choose one, or leave {FIELDS[mine].label} empty"
        )
        errors.setdefault("environment", text)
    count = prod(map(len, members.values()))
    if count > MOST and not errors:
        errors[listed[-1]] = f"makes {count} sessions: at most {MOST} can be started at once"
    if errors:
        raise RequestError(errors)
    own = [str(given.get(name) or "") for name in ("own_environment", "own_container")]
    sessions: list[Planned] = []
    for combination in product(*members.values()):
        chosen = dict(zip(members, combination, strict=True))
        named = {**chosen, "environment": software(chosen["environment"], *own)}
        called = _name([_text(value) for value in named.values()], {session.name for session in sessions})
        shown = {name: _word(value) for name, value in named.items()}
        sessions.append(Planned(called, {**given, **chosen}, shown))
    return Plan(title(sessions), sessions, given, {name: [_text(value) for value in members[name]] for name in listed})


class Verdict(NamedTuple):
    """What is to be said of several sessions as a whole. *errors* and *remarks* have a sentence by field."""

    plan: Plan | None  # None: the sessions cannot even be told
    requests: list[SessionRequest]  # of those that are possible
    errors: dict[str, str]
    remarks: dict[str, str]


def verdict(options: Mapping[str, Any], site: Site, accounts: Sequence[str] | None = None) -> Verdict:
    """Say what a form says at its fields: what is wrong with any of the sessions, and how many there are."""
    try:
        planned = plan(options, site, accounts)
    except RequestError as error:
        # The list is out of every rule's sight, as any value that cannot be read.
        alone = review(options, site, accounts=accounts)
        others = {name: text for name, text in alone.errors.items() if name not in LISTS}
        return Verdict(None, [], {**others, **error.errors}, alone.remarks)
    found = [review(session.options, site, accounts=accounts) for session in planned.sessions]
    errors = _together(planned, [each.errors for each in found])
    remarks = _together(planned, [each.remarks for each in found])
    count = len(found)
    if count > 1:
        remarks[next(reversed(planned.lists))] = (
            f"Starts {count} sessions side by side; you confirm them on the next page."
        )
    remarks = {name: text for name, text in remarks.items() if name not in errors}
    return Verdict(planned, [each.request for each in found if each.request], errors, remarks)


def _given(options: Mapping[str, Any], site: Site, accounts: Sequence[str] | None) -> dict[str, Any]:
    """Return *options* with what their line sets in its place. Raises `RequestError`: it cannot be read."""
    options = dict(options)
    line = options.pop("line", "")
    if not line:
        return options
    found = review({"line": line}, site, accounts=accounts)
    if "line" in found.errors:
        raise RequestError({"line": found.errors["line"]})
    return {**found.line, **options}


def _members(field: Declared, value: Any) -> list[Any]:
    """Return the values of a field, each once; none for "as usual". Raises `ValueError` with a sentence."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return []
    if not field.is_list(value):
        return [_plain(field, value)]
    if isinstance(value, str) and len(value) > TEXT_LIMIT:
        raise ValueError(f"is too long: at most {TEXT_LIMIT} characters")
    parts = value.split(",") if isinstance(value, str) else value
    if len(parts) > MOST:
        raise ValueError(f"has {len(parts)} values: at most {MOST} sessions can be started at once")
    if not all(isinstance(part, (str, int)) and not isinstance(part, bool) for part in parts):
        raise ValueError("a list may have whole numbers and texts, and nothing else")
    members = [_plain(field, part) for part in parts]
    if not members:
        raise ValueError(f"is an empty list: {_EXAMPLE}")
    if "" in members:
        raise ValueError(f"{_word(','.join(map(_text, parts)))!r} has a place without a value: {_EXAMPLE}")
    if any("," in _text(member) for member in members):
        raise ValueError("has a list in a list")
    return list(dict.fromkeys(members))


def _plain(field: Declared, value: Any) -> Any:
    """Write a value in the one way that tells it from others: ``04`` is 4."""
    text = value.strip() if isinstance(value, str) else value
    if field.kind != "number" or isinstance(value, bool) or not isinstance(value, (str, int)):
        return text
    written = _text(text)
    return str(int(written)) if re.fullmatch(r"[0-9]{1,9}", written, re.ASCII) else text


def _text(value: Any) -> str:
    # Python refuses to write out an integer of thousands of digits.
    return str(value) if not isinstance(value, int) or abs(value) < 10**TEXT_LIMIT else "9" * 100


def _word(value: Any) -> str:
    """Return a value as a title shows it: printable, and not long."""
    text = "".join(char if char.isprintable() else "?" for char in _text(value))
    return text if len(text) <= _WORD_LIMIT else text[: _WORD_LIMIT - 1] + "…"


def _name(values: Sequence[str], taken: set[str]) -> str:
    """Return a name for a server, as JupyterHub allows it, of the *values* that make the session; not a *taken* one."""
    *first, last = (re.sub(r"[^a-z0-9]+", "-", value.lower()).strip("-") for value in values)
    last = last[:9].strip("-")
    # Room for what tells it from others, and for a letter at its beginning.
    head = "-".join(first)[: _NAME_LIMIT - 6 - len(last)]
    name = "-".join(part for part in (head.strip("-"), last) if part)
    name = (name if re.match("[a-z]", name) else f"s-{name}").strip("-")
    numbered = (name, *(f"{name}-{number}" for number in range(2, MOST + 1)))
    return next(each for each in numbered if each not in taken)


def title(sessions: Sequence[Planned]) -> str:
    """Say what the sessions are, one at least: ``tf-mkl and tf-pip on 1, 4, 8 and 16 cores``."""
    parts = []
    for name in LISTS:
        words = list(dict.fromkeys(session.values[name] for session in sessions))
        listed = " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
        if FIELDS[name].kind == "number":
            unit = FIELDS[name].in_words
            listed = f"on {listed} {unit.removesuffix('s') if words == ['1'] else unit}"
        parts.append(listed)
    text = " ".join(parts)
    return text if len(text) <= _TITLE_LIMIT else text[: _TITLE_LIMIT - 1] + "…"


def _together(planned: Plan, said: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return a sentence per field for all sessions; what is not said of each names the first that it is about."""
    together: dict[str, str] = {}
    for session, texts in zip(planned.sessions, said, strict=True):
        for name, text in texts.items():
            same = all(each.get(name) == text for each in said)
            together.setdefault(name, text if same else f"for {planned.label(session)}: {text}")
    return together
