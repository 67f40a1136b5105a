"""Whether a person may start what they chose. Every way in (form, link, line, REST) has its choice reviewed here.

A review reads options against the Site and the person's accounts. A start is also held to the number of jobs that a
partition allows, and to how many one person may submit within a minute.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ..choice import request, several
from ..slurm.client import SlurmError
from . import software
from .errors import SessionError
from .estimate import TooOftenError, shared_estimator
from .lifecycle import Life
from .messages import Words

_NAMED = 5  # jobs that a sentence names
# So long may a button's answer, and a start, wait for accounting, in seconds. Then Slurm says whose projects these are.
_BUTTON_PATIENCE = 2.0
_START_PATIENCE = 10.0


def accounts(life: Life) -> list[str] | None:
    """Return the person's accounts as far as they are known."""
    return life.facts.known_accounts(life.known_slurm_name) if life.site.accounts.discover else None


async def ask_accounts(life: Life, patience: float = _BUTTON_PATIENCE) -> None:
    """Ask accounting if what is known has grown old; wait *patience* seconds at most for the answer, in `accounts`."""
    if life.site.accounts.discover:
        await life.facts.accounts(await life.slurm_name(), patience, life.prefix)


def review(life: Life, options: Mapping[str, Any]) -> request.Review:
    """Read *options* as `request.review` does, for this person. Reads memory only."""
    return request.review(options, life.site, accounts=accounts(life))


def several_of(life: Life, options: Mapping[str, Any]) -> several.Verdict | None:
    """Return what is to be said of *options* if they mean several sessions. Reads memory only."""
    if not several.means_several(options, life.site):
        return None
    return several.verdict(options, life.site, accounts(life))


async def read(life: Life, options: Mapping[str, Any]) -> request.SessionRequest:
    """Return what a start with *options* asks for. Raises `request.RequestError`."""
    await ask_accounts(life, _START_PATIENCE)
    found = review(life, options)
    if found.request is None:
        raise request.RequestError(found.errors)
    await check_software(life, found.request)
    return found.request


async def check_software(life: Life, choice: request.SessionRequest, age: float = software.JUST_NOW) -> None:
    """Refuse the user's own container or environment if it cannot be used; see `software.check`."""
    if software.named(choice):
        await software.check(life, choice, accounts(life), age)


async def admit(life: Life, options: Mapping[str, Any]) -> request.SessionRequest:
    """Return what a start with *options* asks for, and count the start.

    Raises `request.RequestError` when that is not possible, `SessionError` (429) when there were too many starts.
    """
    choice = await read(life, options)
    with contextlib.suppress(TooOftenError):  # then Slurm says it
        await check_room(life, choice)
    await may_submit(life)
    return choice


async def check_room(life: Life, choice: request.SessionRequest, age: float = 0.0, before: Sequence[str] = ()) -> None:
    """Refuse what this person has too much of already. Slurm away: Slurm decides.

    What was true *age* seconds ago is good enough. *before* names sessions that are to be started in that partition,
    too, and come first. Raises `request.RequestError`; `TooOftenError`: who asks too often gets no answer here, but
    from Slurm.
    """
    most = life.site.partitions[choice.partition].max_jobs
    if most is None:
        return
    others = " or ".join(name for name, other in life.site.partitions.items() if other.max_jobs is None)
    rule = f"this partition takes only {most} at a time"
    if len(before) >= most:
        remedy = f": choose {others}" if others else ""
        raise request.RequestError({"partition": f"{_few(before)} comes first, and {rule}{remedy}"})
    user = await life.slurm_name()
    name = life.site.slurm_partition(choice.partition)
    try:
        may_ask = partial(shared_estimator(life.facts.client).limiter.take, user)
        jobs = await life.facts.jobs_in(name, user, may_ask, age, life.prefix)
    except SlurmError as error:
        life.log.warning("Cannot count the jobs of %s: %s", user, error)
        return
    if len(jobs) + len(before) >= most:
        remedy = f", or choose {others}" if others else ""
        have, which = (f"job {_few(jobs)} is", "it") if len(jobs) == 1 else (f"jobs {_few(jobs)} are", "them")
        text = f"{have} already waiting or running, and {rule}: stop {which} first{remedy}"
        raise request.RequestError({"partition": text})


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


async def may_submit(life: Life) -> None:
    """Count a job that is about to be submitted. Raises `SessionError` (429) when there were too many of them."""
    try:
        shared_estimator(life.facts.client).starts.take(await life.slurm_name())
    except TooOftenError:
        said = Words("Many sessions were started in the last minute.", "Try again in a minute; nothing was started.")
        raise SessionError(said, reason="request", status_code=429) from None
