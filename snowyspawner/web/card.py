"""What the pages show of one server: texts and times, nothing of HTML. Pure: reads memory only."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple

from ..choice.request import SessionRequest, load
from ..choice.several import Group
from ..session import messages
from ..session.advice import Advice, advice_of
from ..session.errors import SessionError
from ..session.lifecycle import Life
from ..session.messages import Words
from ..session.record import Ended
from ..session.status import Status
from ..session.usage import Line, Usage, energy_of, lines_of, said_of
from ..site import Site
from ..site.fields import FIELDS
from ..slurm.times import say_duration, say_running

#: Idle: nothing has run under this name, or nobody knows of it any more. Lost: a job that waits, while no start of this
#: hub follows it.
Kind = Literal["idle", "waiting", "starting", "running", "stopping", "ended", "lost"]


class Curve(NamedTuple):
    """A curve, as SVG draws it."""

    label: str
    said: str
    path: str  # below and to the right of 0,0, in `WIDTH` by `HEIGHT`


#: Of a curve.
WIDTH, HEIGHT = 240, 32


class Card(NamedTuple):
    """One server as its owner sees it. Times are in epoch seconds, None where nobody knows; no text is HTML."""

    kind: Kind
    title: str
    words: Words
    path: str  # below {base}snowy/stop/ and so on: user and server, escaped for an address
    zone: Any
    status: Status | None = None
    detail: str = ""
    log: tuple[str, ...] = ()
    job_id: str = ""
    node: str = ""
    asked: tuple[tuple[str, str], ...] = ()  # what the session has, or had: name and value
    submitted_at: float | None = None
    ends_at: float | None = None
    ended_at: float | None = None
    warn_from: float | None = None  # from then on the end is near
    again: bool = False  # there is a choice to start again with
    left_out: str = ""  # what of it will not be asked for again
    used: str = ""  # a sentence: what it uses, or has used
    curves: tuple[Curve, ...] = ()
    energy: str = ""  # a sentence
    unused_end: float | None = None  # when it ends if nobody uses it until then; only when that is near
    advice: Advice | None = None  # what to change when it is started again
    details: bool = False  # there is something to show support
    support: tuple[str, str] = ("", "")  # whom to turn to: the text and the address of a link

    @property
    def names_support(self) -> bool:
        """Whether what is said sends the person to support."""
        return any("support" in str(said) for said in (self.words, self.status.advice if self.status else ""))

    @property
    def step(self) -> int:
        """Return how far a start is: 0 submitted, 1 in the queue, 2 starting, 3 ready."""
        percent = self.status.percent if self.status else 0
        return 0 if percent < 10 else 1 if percent < 50 else 2 if self.kind != "running" else 3

    @property
    def stamp(self) -> str:
        """Return something that changes when what is shown does, apart from times that run."""
        status = self.status and (self.status.message, self.status.starts_at is None)
        shown = (self.kind, self.job_id, self.node, self.words, status, self.used, self.curves, self.unused_end)
        return hashlib.sha256(repr(shown).encode()).hexdigest()[:16]

    @property
    def ends_soon(self) -> bool:
        """Whether the time limit is near."""
        return self.warn_from is not None and time.time() >= self.warn_from

    def hour(self, moment: float | None) -> str:
        """Return the hour of *moment* in the Site's zone; with the day if that is another one."""
        if moment is None:
            return ""
        at, today = datetime.fromtimestamp(moment, self.zone), datetime.now(self.zone)
        return f"{at:%H:%M}" if at.date() == today.date() else f"{at:%Y-%m-%d %H:%M}"

    def iso(self, moment: float | None) -> str:
        """Return *moment* as HTML's ``time`` takes it."""
        return "" if moment is None else datetime.fromtimestamp(int(moment), self.zone).isoformat()

    def since(self, moment: float | None) -> str:
        """Return how long ago *moment* was, or how far ahead it is, to the minute."""
        return "" if moment is None else say_running(abs(time.time() - moment))


class Section(NamedTuple):
    """A part of the home page: sessions that were started together, or one by itself (no group)."""

    group: Group | None
    sessions: list[tuple[str, Card]]  # by the server's name

    @property
    def alive(self) -> bool:
        """Whether any of them runs or waits."""
        return any(card.kind not in ("ended", "idle") for _, card in self.sessions)

    @property
    def stamp(self) -> str:
        """Return something that changes when what is shown of any of them does."""
        return "-".join(card.stamp for _, card in self.sessions)


def sections(sessions: Iterable[tuple[str, Card, Group | None]]) -> list[Section]:
    """Put what was started together together. What runs or waits comes first; apart from that the order stays."""
    found: dict[str, Section] = {}
    for name, card, group in sessions:
        key = f"group {group.id}" if group else f"server {name}"
        found.setdefault(key, Section(group, [])).sessions.append((name, card))
    for section in found.values():
        section.sessions.sort(key=lambda session: natural(session[0]))
    return sorted(found.values(), key=lambda section: not section.alive)


def natural(name: str) -> list[tuple[int, str]]:
    """Return what sorts ``tf-mkl-16`` behind ``tf-mkl-4``."""
    return [(int(part) if part.isdecimal() else 0, part) for part in re.split("([0-9]+)", name)]


def card_of(
    life: Life,
    path: str,
    *,
    ready: bool = False,
    pending: str | None = None,
    failure: BaseException | None = None,
) -> Card:
    """Return what to show of *life*.

    *ready* and *pending* are JupyterHub's of the server; *failure* is what its last start ended with, if that is what
    the page is about.
    """
    found, site = _card_of(life, path, ready, pending, failure), life.site
    # A choice that was refused is nobody's but the person's.
    refused = isinstance(failure, SessionError) and failure.reason == "request"
    details = found.kind == "ended" and not refused and life.last is not None and not life.last.stopped
    return found._replace(details=details, support=(site.support, site.support_url))


def _card_of(life: Life, path: str, ready: bool, pending: str | None, failure: BaseException | None) -> Card:
    job, site = life.job, life.site
    if failure is not None:
        return _failed(life, path, failure)
    if job is None or not job.alive:
        return _ended(life.last, site, path) if life.last else Card("idle", "Not running", Words(""), path, site.zone)
    status = life.status
    kind: Kind
    if job.phase == "stopping" or pending == "stop":
        kind = "stopping"
    elif job.phase == "serving":
        kind = "running" if ready else "starting"
    elif pending is None and not life.attached:
        kind = "lost"
    else:
        kind = "waiting" if status.percent < 50 else "starting"
    idle = life.idle
    limit = load(job.request).time_limit
    ends = job.begun_at + limit if job.begun_at and job.phase in ("launching", "serving") else None
    return Card(
        kind,
        "Stopping" if kind == "stopping" else status.title,
        Words(status.sentence, status.advice),
        path,
        site.zone,
        status=status,
        job_id=job.job_id,
        node=status.node,
        asked=asked(job.request, site),
        submitted_at=job.submitted_at,
        ends_at=ends,
        unused_end=idle.ends_at if idle and idle.is_near(time.time()) and kind == "running" else None,
        warn_from=ends - site.warning(limit) if ends and site.warning(limit) else None,
        again=True,
        **(_used(job.usage, job.request, site) if kind == "running" else {}),
    )


def asked(request: Mapping[str, Any], site: Site) -> tuple[tuple[str, str], ...]:
    """Say what was asked for, by name and value; *request* is a stored one, of any version."""
    if not request:
        return ()
    wanted = load(request)
    shown = {field.label: _value(name, wanted, site) for name, field in FIELDS.items() if field.on_card}
    return tuple((name, value) for name, value in shown.items() if value)


def gpu_of(wanted: SessionRequest, site: Site) -> str:
    """Say which GPUs are asked for; empty: none."""
    gpu = site.gpus.get(wanted.gpu)
    what = (gpu.display_name if gpu else "") or wanted.gpu
    return f"{wanted.gpu_count} \N{MULTIPLICATION SIGN} {what}" if wanted.gpu else ""


def _value(name: str, wanted: SessionRequest, site: Site) -> str:
    if FIELDS[name].kind == "gpu":
        return gpu_of(wanted, site) or "none"
    value: Any = wanted.software if name == "environment" else getattr(wanted, name)
    return say_duration(value) if FIELDS[name].kind == "duration" and value else str(value or "")


def _failed(life: Life, path: str, failure: BaseException) -> Card:
    """Say why a start failed that JupyterHub still remembers."""
    last = life.last
    submitted = not isinstance(failure, SessionError) or failure.reason != "request"
    base = _ended(last, life.site, path) if last and submitted else Card("ended", "", Words(""), path, life.site.zone)
    if isinstance(failure, SessionError):
        said = failure.words
        return base._replace(
            title="Not started",
            words=said,
            detail=failure.detail,
            log=tuple(failure.log) or base.log,
            again=bool(last and last.request) and submitted,
        )
    if last and last.reason:
        return base
    said = Words(str(getattr(failure, "jupyterhub_message", "")) or "The hub could not start this session.")
    return base._replace(
        title="Not started",
        words=said._replace(advice="Start again; if it happens again, tell support."),
        detail=str(failure)[:500],
        again=bool(last and last.request),
    )


def _ended(last: Ended, site: Site, path: str) -> Card:
    begun = last.begun_at or None
    return Card(
        "ended",
        "Stopped" if last.stopped else "Ended" if begun or last.state else "Not started",
        why(last, site),
        path,
        site.zone,
        detail=last.detail if not last.stopped else "",
        log=tuple(last.log),
        job_id=last.job_id,
        node=last.node,
        asked=asked(last.request, site),
        ended_at=last.ended_at or None,
        again=bool(last.request),
        left_out="reservation" if last.request.get("reservation") else "",
        energy=energy_of(last.usage, site),
        advice=advice_of(last.usage, last.request, site, last.ended_at - begun) if begun else None,
        **_used(last.usage, last.request, site),
    )


def _used(usage: Usage | None, request: Mapping[str, Any], site: Site) -> dict[str, Any]:
    curves = tuple(Curve(line.label, line.said, _path(line)) for line in lines_of(usage, request, site))
    return {"used": said_of(usage, request, site), "curves": curves}


def _path(line: Line) -> str:
    """Draw a curve: a step for each value, and nothing where none is known."""
    parts, drawn = [], False
    for number, share in enumerate(line.shares):
        left, right = (WIDTH * at / len(line.shares) for at in (number, number + 1))
        if share is not None:
            # The line is in the picture also at both ends.
            height = HEIGHT - 1 - share * (HEIGHT - 2)
            parts.append(f"{'L' if drawn else 'M'}{left:.1f} {height:.1f}H{right:.1f}")
        drawn = share is not None
    return "".join(parts)


def why(last: Ended, site: Site) -> Words:
    """Say how a session ended, and what to do about it."""
    if last.stopped:
        return Words("This session was stopped." if last.begun_at else "This job was cancelled while it waited.")
    if last.reason == "slurm":
        return messages.refusal(last.detail, messages.fields_sent(last.request))
    facts = messages.facts_of(last.request, site, last.node)
    if last.exit_code in messages.LAUNCHER_CODES or (last.reason == "launch" and last.reported):
        return messages.launch_failure(last.exit_code, facts)
    if given_up := messages.given_up(last.reason, facts.node):
        return given_up
    if not last.state:
        return Words("The session ended.")
    if last.reason == "ended" and not last.node and last.state in ("COMPLETED", "FAILED") and not last.signal:
        return messages.before_launcher(last.exit_code, facts.node)  # no job that has claimed its session is without
    said = messages.ending(last.state, last.by, last.exit_code, last.signal)
    if last.state == "FAILED" and not said.advice:
        return said._replace(advice="Start again; if it happens again, show support the log.")
    return said
