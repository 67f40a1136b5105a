"""The cards of a person's courses, from memory: course files are read as the person, in the background.

Guarantees: nobody waits for a file but who says how long; one look at a time for each person; a change is seen
within `FRESH_FOR` seconds of somebody looking; what cannot be read for a reason that passes stays as it was.
"""

from __future__ import annotations

import asyncio
import pwd
import time
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

from ..choice import course
from ..session import admission
from ..session.as_person import (
    ForbiddenError,
    HelperError,
    NoAnswerError,
    NotThereError,
    ReadError,
    RefusedError,
    shared_reader,
)
from ..session.errors import SessionError
from ..session.lifecycle import Life
from ..slurm.facts import Facts
from . import availability

#: Seconds for which a look is good.
FRESH_FOR = 30.0
# Projects of one person that are looked into, and people of whom something is kept.
_PROJECTS = 20
_PEOPLE = 2000
# Files that are kept as they were read: most people of a course have the same.
_FILES = 64

#: Which file: the Site's key, and the project it belongs to (empty: none).
_File = tuple[str, str]
#: What is in it; or what is wrong.
_Content = course.Course | tuple[course.Mistake, ...]


class _Known:
    """What is known of one cluster's course files."""

    def __init__(self) -> None:
        self.fresh_for = FRESH_FOR
        self.warned = False  # that the helper cannot be run
        self.looked: dict[str, float] = {}  # time.monotonic() of the last look, by person
        self.found: dict[str, dict[_File, _Content]] = {}

    def forget_some(self) -> None:
        """Keep what is known of the last people who looked."""
        for name in sorted(self.looked, key=lambda name: self.looked[name])[:-_PEOPLE]:
            self.looked.pop(name)
            self.found.pop(name, None)


_known: WeakKeyDictionary[Facts, _Known] = WeakKeyDictionary()


def known(life: Life) -> _Known:
    """Return what is known of the course files of this life's cluster."""
    return _known.setdefault(life.facts, _Known())


def look_soon(life: Life) -> None:
    """Somebody looks at the form: have their course files read if that was a while ago, without waiting."""
    if life.site.courses and _is_old(life):
        life.facts.soon(_about(life), _look(life))


async def look(life: Life, patience: float) -> None:
    """The same, and if there is something to look at wait *patience* seconds at most for what is found."""
    look_soon(life)
    if asking := life.facts.asking(_about(life)):
        await asyncio.wait([asking], timeout=patience)


def _user(life: Life) -> str:
    return life.who()


def _about(life: Life) -> str:
    return f"courses {_user(life)}"


def _is_old(life: Life) -> bool:
    facts = known(life)
    return time.monotonic() - facts.looked.get(_user(life), float("-inf")) >= facts.fresh_for


async def _look(life: Life) -> None:
    facts, user = known(life), _user(life)
    facts.looked[user] = time.monotonic()
    facts.forget_some()
    before = facts.found.get(user, {})
    # Whose course they see depends on their projects, so these are asked for first.
    await admission.ask_accounts(life)
    try:
        account = life.known_account or await life.account()
    except SessionError:  # no account on this machine
        facts.found[user] = {}
        return
    found: dict[_File, _Content] = {}
    hangs = False
    for file in _files(life):
        try:
            content = before.get(file) if hangs else await _read(life, file, account)
        except ReadError as error:
            content, hangs = before.get(file), isinstance(error, NoAnswerError)  # then the next would hang, too
            if isinstance(error, HelperError) and not facts.warned:
                facts.warned = True  # it is the same for everybody
                life.log.warning("Cannot read course files as %s: %s", user, error)
        if content is not None:
            found[file] = content
    facts.found[user] = found


async def _read(life: Life, file: _File, account: pwd.struct_passwd) -> _Content | None:
    """Return what is in *file* for the person of *account*; None: there is none for them.

    Raises `ReadError` for what may pass.
    """
    key, project = file
    try:
        return _parsed(life, await shared_reader(life.site).course(key, account, project), project)
    except course.CourseError as error:
        return tuple(error.mistakes)
    except RefusedError as error:
        return (course.Mistake(1, "", "", str(error).rstrip(".")),)
    except (NotThereError, ForbiddenError, ValueError):  # or a project whose name no path can have
        return None


def _files(life: Life) -> Iterator[_File]:
    """Yield the files that this person may have, those of no project first."""
    accounts = admission.accounts(life) or []
    for key, path in life.site.courses.items():
        if "{account}" not in path:
            yield key, ""
            continue
        for name in accounts[:_PROJECTS]:
            yield key, name


def _parsed(life: Life, text: str, project: str) -> course.Course:
    """Read *text*, which others may have as well. Raises `course.CourseError`."""
    kept: dict[tuple[str, str], Any] = life.site.derived.setdefault("courses", {})
    if (text, project) not in kept:
        if len(kept) >= _FILES:
            kept.pop(next(iter(kept)))
        try:
            kept[text, project] = course.parse(text, life.site, project)
        except course.CourseError as error:
            kept[text, project] = error
    if isinstance(kept[text, project], course.CourseError):
        raise kept[text, project]
    found: course.Course = kept[text, project]
    return found


def cards(life: Life) -> dict[str, course.Card]:
    """Return this person's cards by what a form sends for them. Reads memory only."""
    accounts = admission.accounts(life)
    reservations = [item["name"] for item in availability.reservations(life, accounts or ())]
    shown: dict[str, course.Card] = {}
    for (key, project), found in known(life).found.get(_user(life), {}).items():
        if isinstance(found, course.Course):
            made = course.cards(found, life.site, time.time(), accounts, reservations)
        else:
            made = {0: course.card_of_mistakes(found, project)}
        shown |= {f"{key}/{project}/{number}": card for number, card in made.items()}
    return shown
