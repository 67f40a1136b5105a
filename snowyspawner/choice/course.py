"""A course file: what a teacher puts into a project's directory becomes cards of the form. Pure.

Anybody who may write to that directory wrote it, so nothing in it is believed. It is read event by event, without
what YAML could do with it: every value is the text that stands there, anchors, aliases and tags are refused, and depth
and number are bounded while it is read. What a card asks for goes through `request.review` like any other choice.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, NamedTuple

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, ValidationError

from ..site import Site
from ..site.fields import FIELDS
from . import own
from .request import TEXT_LIMIT, default_options, repository_directory, review
from .summary import say_moment

#: Bytes of a course file, exercises in it, characters of a title and of a description.
SIZE_LIMIT = 64 * 1024
EXERCISES_LIMIT = 12
TITLE_LIMIT = 100
DESCRIPTION_LIMIT = 500
#: So long before it may be started a card says when that will be, in seconds.
ANNOUNCED_FOR = 14 * 86400

# What a file may have in it at most: with all keys in every exercise it is half of that.
_NODES_LIMIT = 600
_DEPTH_LIMIT = 4
_TOO_LARGE = f"the file is larger than {SIZE_LIMIT // 1024} KiB"
_MISTAKES_LIMIT = 20
# Neither text nor what YAML can hold; U+FFFD stands for what was not UTF-8.
_NO_TEXT = re.compile(r"[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffc\U00010000-\U0010ffff]")
_MOMENT = re.compile(r"(20[0-9]{2}-[0-9]{2}-[0-9]{2})(?:[T ]([0-9]{2}:[0-9]{2}))?", re.ASCII)
_DAY = timedelta(days=1)

_Path = tuple["str | int", ...]


class Mistake(NamedTuple):
    """What is wrong in one place of a course file."""

    line: int  # counted from 1
    key: str  # such as exercises.2.cores; empty: the file as a whole
    value: str  # as it is shown; empty: there is none to show
    allowed: str

    def __str__(self) -> str:
        """Write it as compilers do, without the file: LINE: KEY: VALUE: what is allowed."""
        return ": ".join(filter(None, [str(self.line), self.key, self.value, self.allowed]))

    @property
    def sentence(self) -> str:
        """The same for a page. What is allowed may begin with the value."""
        value = "" if self.allowed.startswith(self.value) else self.value
        return f"Line {': '.join(filter(None, [str(self.line), self.key, value, self.allowed]))}."


class CourseError(ValueError):
    """A course file cannot be used. *mistakes* has what is wrong in it, by line."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__("\n".join(str(mistake) for mistake in mistakes))
        self.mistakes = list(mistakes)


# -- what a file may say -------------------------------------------------------------------------------------------


def _title(value: str) -> str:
    text = " ".join(value.split())
    if not text or len(text) > TITLE_LIMIT or not text.isprintable():
        raise ValueError(f"must be a line of 1 to {TITLE_LIMIT} characters")
    return text


def _description(value: str) -> str:
    text = " ".join(value.split())
    if len(text) > DESCRIPTION_LIMIT or not text.isprintable():
        raise ValueError(f"must be text of at most {DESCRIPTION_LIMIT} characters")
    return text


def _short(value: str) -> str:
    if len(value) > TEXT_LIMIT:
        raise ValueError(f"must be at most {TEXT_LIMIT} characters")
    return value


def _moment(value: str) -> str:
    found = _MOMENT.fullmatch(value)
    try:
        if not found:
            raise ValueError
        datetime.fromisoformat(" ".join(filter(None, found.groups())))
    except ValueError:
        raise ValueError("must be a day or a time, such as 2027-01-31 or 2027-01-31 15:00") from None
    return value


Title = Annotated[str, AfterValidator(_title)]
Description = Annotated[str, AfterValidator(_description)]
Value = Annotated[str, AfterValidator(_short)]
Moment = Annotated[str, AfterValidator(_moment)]


class ExerciseFile(BaseModel):
    """One exercise in a course file. What it leaves out is as the course says, else as the Site's defaults do."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    title: Title
    description: Description | None = None  # on the card
    environment: Value | None = None  # a key of the Site's
    image: Value | None = None  # a key of the Site's
    own_container: Value | None = None  # an image file below the project's directory, in place of the Site's
    own_environment: Value | None = None  # a conda or virtual environment below it, in place of the Site's
    repository: Value | None = None  # a git repository to fetch: an https URL, or a path below the project's directory
    branch: Value | None = None  # of the repository; empty: its own default
    open: Value | None = None  # a file or folder to open: in the repository, or below the home directory without one
    partition: Value | None = None
    cores: Value | None = None
    gpu: Value | None = None  # TYPE:COUNT, or none
    memory: Value | None = None  # MB, where the Site lets people choose it
    qos: Value | None = None
    constraint: Value | None = None
    time: Value | None = None  # as Slurm reads it
    account: Value | None = None  # what jobs are charged to; left out: the project that the file belongs to
    reservation: Value | None = None  # asked for while it is active, and left out otherwise
    valid_from: Moment | None = None  # in the Site's time zone; a day: from its beginning
    valid_to: Moment | None = None  # the same; a day: until its end


class CourseFile(ExerciseFile):
    """A course file: the same keys, for all of its exercises; without exercises it is one itself."""

    exercises: Annotated[tuple[ExerciseFile, ...], Field(min_length=1, max_length=EXERCISES_LIMIT), Strict(False)] = ()


#: What of it are fields of a session; the file's branch is written behind the repository.
CHOICES = tuple(name for name in FIELDS if name in ExerciseFile.model_fields)


# -- reading it ----------------------------------------------------------------------------------------------------


class Exercise(NamedTuple):
    """What becomes a card."""

    title: str
    description: str
    options: Mapping[str, str]  # what it asks for, as a person would write it
    opens: float | None  # epoch seconds
    closes: float | None
    mistakes: tuple[Mistake, ...]  # why it cannot be started


class Course(NamedTuple):
    """A course file that could be read."""

    title: str
    exercises: tuple[Exercise, ...]


def decoded(data: bytes) -> str:
    """Return the text of a file, for `parse`. Raises `CourseError`: it is too large."""
    if len(data) > SIZE_LIMIT:
        raise CourseError([Mistake(1, "", "", _TOO_LARGE)])
    return data.decode("utf-8", "replace")  # what is replaced is found there


def parse(text: str, site: Site, account: str = "") -> Course:
    """Read a course file that belongs to the project *account* (empty: to none).

    What an exercise asks for and cannot have is its mistake, and the others stay. Raises `CourseError` for a file that
    cannot be read as a whole.
    """
    reader = _Reader(text)
    content = reader.content()
    try:
        file = CourseFile.model_validate(content)
    except ValidationError as error:
        raise CourseError(_explained(error, reader.lines)) from None
    if not file.exercises:
        return Course(file.title, (_exercise(file, file, (), reader.lines, site, account),))
    exercises = (
        _exercise(each, file, ("exercises", number), reader.lines, site, account)
        for number, each in enumerate(file.exercises)
    )
    return Course(file.title, tuple(exercises))


def _exercise(
    own: ExerciseFile, course: CourseFile, path: _Path, lines: Mapping[_Path, int], site: Site, account: str
) -> Exercise:
    both = course.model_dump(exclude_none=True) | own.model_dump(exclude_none=True)
    options = {"account": account} if account else {}
    options |= {name: both[name] for name in CHOICES if name in both}
    if options.get("repository"):
        if both.get("branch"):
            options["repository"] += f"#{both['branch']}"
        if options.get("open"):
            options["open"] = f"{repository_directory(options['repository'])}/{options['open']}"
    found = review(options, site)
    mistakes = []
    for name, allowed in (_elsewhere(options, site, account) | found.errors).items():
        where = next((at for at in ((*path, name), (name,)) if at in lines), path)
        value = both[name] if name in both else default_options(site)[name]
        mistakes.append(Mistake(lines[where], _written((*path, name)), _shown(value), allowed))
    title = own.title if own is course else f"{course.title}: {own.title}"
    opens, closes = (_epoch(both.get(key), site, ends) for key, ends in (("valid_from", False), ("valid_to", True)))
    if opens is not None and closes is not None and closes <= opens:
        where = next(at for at in ((*path, "valid_to"), ("valid_to",)) if at in lines)
        allowed = f"must be after valid_from, {both['valid_from']}"
        mistakes.append(Mistake(lines[where], _written((*path, "valid_to")), _shown(both["valid_to"]), allowed))
    mistakes.sort(key=lambda mistake: mistake.line)
    return Exercise(title, both.get("description", ""), options, opens, closes, tuple(mistakes))


def _elsewhere(options: Mapping[str, str], site: Site, account: str) -> dict[str, str]:
    """Say at their fields which containers and environments are not in the project's directory, where all have them."""
    wrong = {}
    for name in own.OWN:
        places = [place for place in own.places(site, name) if not place.startswith("~")]
        accounts = [account] if account else None
        if options.get(name) and not own.place_of(options[name], places, "", accounts):
            wrong[name] = own.outside(places, accounts) if places else "is not offered here: leave it out"
    return wrong


def _epoch(moment: str | None, site: Site, ends: bool) -> float | None:
    """Return a moment as epoch seconds; of a day its beginning, or where something *ends* with it, its end."""
    found = _MOMENT.fullmatch(moment or "")
    if not found:
        return None
    day, clock = found.groups()
    at = datetime.fromisoformat(f"{day} {clock or '00:00'}")
    # By the calendar, then in the zone: a day may have 23 hours.
    return (at if clock or not ends else at + _DAY).replace(tzinfo=site.zone).timestamp()


def _explained(error: ValidationError, lines: Mapping[_Path, int]) -> list[Mistake]:
    mistakes = []
    for item in error.errors():
        path, value, message = tuple(item["loc"]), item["input"], item["msg"].removeprefix("Value error, ")
        kind, of_table = item["type"], isinstance(value, Mapping)
        if kind == "too_short" and value:
            continue  # pydantic does not count those with a mistake of their own
        if kind == "extra_forbidden":
            keys = CourseFile.model_fields if len(path) == 1 else ExerciseFile.model_fields
            value, message = "", f"there is no such key; the keys are {', '.join(keys)}"
        elif kind == "missing":
            value, message = "", "is missing"
        elif kind == "string_type":
            message = "must be text"
        elif kind in ("model_type", "dict_type", "model_attributes_type"):
            message = "must have keys and values, such as title: Lab 1"
        elif kind in ("too_long", "too_short"):
            value, message = "", f"must be 1 to {EXERCISES_LIMIT} exercises"
        elif kind == "tuple_type":
            message = "must be a list of exercises, each with a - in front"
        # A key that is not there is missed where its table begins.
        where = next(path[:end] for end in range(len(path), -1, -1) if path[:end] in lines)
        shown = "" if of_table and not path else _shown(value)
        mistakes.append(Mistake(lines[where], _written(path), shown, message))
    mistakes.sort(key=lambda mistake: mistake.line)
    more = len(mistakes) - _MISTAKES_LIMIT
    last = [Mistake(mistakes[_MISTAKES_LIMIT].line, "", "", f"{more} more mistakes follow")] if more > 0 else []
    return mistakes[:_MISTAKES_LIMIT] + last


def _written(path: _Path) -> str:
    """Write where something stands: exercises.2.cores, counted from 1."""
    return ".".join(str(part + 1) if isinstance(part, int) else _clean(part) for part in path)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return repr(_clean(value)) if value else ""
    return "a table" if isinstance(value, Mapping) else "a list"


def _clean(text: str) -> str:
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text[:60])
    return shown + ("…" if len(text) > 60 else "")


# libyaml is ten times as quick; both hand out events one by one, so that nothing grows before it is looked at.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Reader:
    """Reads YAML as tables, lists and texts; knows the line of each."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lines: dict[_Path, int] = {(): 1}

    def content(self) -> Any:
        """Return what the file holds. Raises `CourseError`."""
        if len(self.text) > SIZE_LIMIT:
            self.refuse(1, (), _TOO_LARGE)
        if strange := _NO_TEXT.search(self.text.removeprefix("\ufeff")):
            line = self.text.count("\n", 0, strange.start()) + 1
            self.refuse(line, (), "is not text: write the file in UTF-8, without control characters")
        try:
            events = yaml.parse(self.text, Loader=_Loader)
            content = self._document(events)
        except yaml.MarkedYAMLError as error:
            self._not_yaml(error)
        except yaml.YAMLError as error:
            self.refuse(1, (), f"is not YAML: {_clean(str(error))}")
        return content

    def refuse(self, line: int, path: _Path, allowed: str) -> Any:
        """Raise `CourseError`."""
        raise CourseError([Mistake(line, _written(path), "", allowed)])

    def _not_yaml(self, error: yaml.MarkedYAMLError) -> None:
        mark = error.problem_mark or error.context_mark
        number = mark.line if mark else 0
        lines = self.text.splitlines()
        line = lines[number] if number < len(lines) else ""
        if "\t" in line[: len(line) - len(line.lstrip())]:
            self.refuse(number + 1, (), "begins with a tab: indent with spaces")
        self.refuse(number + 1, (), f"is not YAML: {_clean(error.problem or 'it cannot be read')}")

    def _document(self, events: Iterator[Any]) -> Any:
        next(events)  # the stream's beginning
        first = next(events)
        if isinstance(first, yaml.StreamEndEvent):
            self.refuse(1, (), "the file is empty: it needs a title at least")
        content = self._node(next(events), (), events)
        next(events)  # the document's end
        if not isinstance(following := next(events), yaml.StreamEndEvent):
            self.refuse(following.start_mark.line + 1, (), "--- begins a second document: a file has one course")
        return content

    def _node(self, event: Any, path: _Path, events: Iterator[Any]) -> Any:
        line = event.start_mark.line + 1
        self.lines[path] = line
        if len(self.lines) > _NODES_LIMIT:
            self.refuse(line, path, "there is too much in this file")
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            self.refuse(line, path, "anchors and aliases (& and *) are not read: write the value out, or in quotes")
        if event.tag is not None:
            self.refuse(line, path, "tags (!) are not read: write the value without, or in quotes")
        if isinstance(event, yaml.ScalarEvent):
            # A key without a value and null are the same as an empty text.
            return "" if event.style is None and event.value in ("~", "null") else event.value
        if len(path) >= _DEPTH_LIMIT:
            self.refuse(line, path, f"there are more than {_DEPTH_LIMIT} levels of tables and lists")
        return (self._list if isinstance(event, yaml.SequenceStartEvent) else self._table)(path, events)

    def _list(self, path: _Path, events: Iterator[Any]) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            items.append(self._node(event, (*path, len(items)), events))
        return items

    def _table(self, path: _Path, events: Iterator[Any]) -> dict[str, Any]:
        table: dict[str, Any] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            line = event.start_mark.line + 1
            if not isinstance(event, yaml.ScalarEvent) or event.anchor is not None or event.tag is not None:
                self.refuse(line, path, "a key must be a word, such as title")
            key = event.value
            here = (*path, key)
            if key in table:
                self.refuse(line, here, f"the key is in line {self.lines[here]} already")
            table[key] = None
            table[key] = self._node(next(events), here, events)
            self.lines[here] = line
        return table


# -- cards ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Card:
    """What the form shows of an exercise, or of a file that cannot be read."""

    title: str
    description: str = ""
    values: Mapping[str, str] | None = None  # a value for every field; None: it cannot be chosen
    remarks: tuple[str, ...] = ()  # sentences
    when: str = ""  # a sentence


def cards(
    course: Course,
    site: Site,
    now: float,
    accounts: Sequence[str] | None = None,
    reservations: Collection[str] = (),
) -> dict[int, Card]:
    """Return the cards of *course* at *now* (epoch seconds) for somebody with these *accounts*.

    By the number of the exercise in the file, counted from 1. *reservations* are the names of those that are active and
    theirs to use. An exercise that is over has no card, and one that is far away has none yet.
    """
    return {
        number: _card(exercise, site, now, accounts, reservations)
        for number, exercise in enumerate(course.exercises, 1)
        if (exercise.closes is None or now < exercise.closes)
        and (exercise.opens is None or now >= exercise.opens - ANNOUNCED_FOR)
    }


def _card(
    exercise: Exercise, site: Site, now: float, accounts: Sequence[str] | None, reservations: Collection[str]
) -> Card:
    shown = Card(exercise.title, exercise.description)
    if exercise.mistakes:
        said = tuple(mistake.sentence for mistake in exercise.mistakes)
        return Card(
            shown.title, shown.description, remarks=("The course file has a mistake: tell your teacher.", *said)
        )
    if exercise.opens is not None and now < exercise.opens:
        return Card(shown.title, shown.description, when=f"From {say_moment(exercise.opens, site)}.")
    options, remarks = dict(exercise.options), []
    wanted = options.get("reservation", "")
    if wanted and wanted not in reservations:
        options["reservation"] = ""
        remarks.append(f"The reservation {wanted} is not active now: the session starts without it.")
    found = review(options, site, now, accounts)
    if found.request is None:
        said = tuple(f"{FIELDS[name].label}: {text}." for name, text in found.errors.items())
        return Card(shown.title, shown.description, remarks=said)
    when = f"Until {say_moment(exercise.closes, site)}." if exercise.closes is not None else ""
    return Card(shown.title, shown.description, found.request.options(site), tuple(remarks), when)


def card_of_mistakes(mistakes: Sequence[Mistake], account: str = "") -> Card:
    """Return the card of a file that cannot be used, so that its author sees what is wrong."""
    whose = f"The course file of {account}" if account else "A course file"
    first, *others = [mistake.sentence for mistake in mistakes] or ["It cannot be read."]
    more = f"{len(others)} more: snowyspawner check --course has them all." if others else ""
    return Card(f"{whose} cannot be used", remarks=tuple(filter(None, [first, more])))


def version(shown: Mapping[str, Card]) -> str:
    """Return a short text that is another one when the cards *shown* are."""
    return hashlib.sha256(repr(dict(shown)).encode()).hexdigest()[:16]
