"""Whether a user's own container or environment can be used, before anything is queued.

It is looked at as that user. What cannot be looked at from the hub's host is left to the job, which says it in words.
"""

from __future__ import annotations

import pwd
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from ..choice import own, request
from ..slurm.facts import Facts
from .as_person import HelperError, shared_reader
from .lifecycle import Life

#: Seconds for which a form is content with what was found before.
FRESH_FOR = 20.0
#: The same for a start: several that begin together have one look.
JUST_NOW = 2.0
_KEPT = 500  # answers, of all people


@dataclass
class _Known:
    """What was found on one cluster."""

    warned: bool = False  # that the helper cannot be run
    found: dict[tuple[str, str, str], tuple[float, own.Found]] = field(default_factory=dict)


_known: WeakKeyDictionary[Facts, _Known] = WeakKeyDictionary()


def named(choice: request.SessionRequest) -> dict[str, str]:
    """Return the paths of the user's own software that a choice names, by field."""
    return {name: path for name in own.OWN if (path := getattr(choice, name))}


async def check(life: Life, choice: request.SessionRequest, accounts: Sequence[str] | None, age: float) -> None:
    """Refuse the user's own software that *choice* names if it cannot be used.

    What was found *age* seconds ago will do.
    *accounts* are the person's, None when they are not known. Raises `request.RequestError`; `SessionError` for a
    person that this host does not know.
    """
    errors = {}
    account = life.known_account or await life.account()
    for name, path in named(choice).items():
        allowed = own.places(life.site, name)
        if not own.place_of(path, allowed, account.pw_dir, accounts):
            errors[name] = f"{path} {own.outside(allowed, accounts)}"
            continue
        found = await _look(life, account, name, path, age)
        # With an environment of one's own, the container needs nothing but a shell.
        needless = found.answer == "no_server" and name == "own_container" and choice.own_environment
        if not needless and (said := own.refusal(name, path, found)):
            errors[name] = said
    if errors:
        raise request.RequestError(errors)


async def _look(life: Life, account: pwd.struct_passwd, name: str, path: str, age: float) -> own.Found:
    known = _known.setdefault(life.facts, _Known())
    key = (account.pw_name, name, path)
    at, found = known.found.get(key, (0.0, None))
    if found and time.monotonic() - at < age:
        return found
    try:
        found = await shared_reader(life.site).own(name, path, account)
    except HelperError as error:
        if not known.warned:
            known.warned = True  # it is the same for everybody
            life.log.warning("Cannot look at %s of %s: %s", path, account.pw_name, error)
        return own.Found("unknown")
    known.found.pop(key, None)
    if found.answer in ("ready", "unknown"):  # what is refused, somebody is about to mend
        known.found[key] = time.monotonic(), found
    while len(known.found) > _KEPT:
        known.found.pop(next(iter(known.found)))
    return found
