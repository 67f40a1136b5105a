"""What people who help need to know of a session that has ended, as one text without secrets. Pure.

Every part goes through `redaction.redacted` before it is put in its place.
"""

from __future__ import annotations

import platform
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple
from urllib.parse import quote

from ..choice.request import load
from ..site import Site
from ..site.fields import FIELDS
from ..slurm.times import say_running
from .messages import Words
from .record import Ended
from .redaction import redacted
from .script import carried

#: Lines of the log, and characters of a line, at most.
LOG_LINES, LOG_WIDTH = 100, 500
# Of a message that a link writes: programs for mail cut off what is longer than some 2,000 characters.
_MAIL_LENGTH = 1000
_TIMES = ("Submit", "Start", "End")
_PACKAGES = ("snowyspawner", "jupyterhub", "batchspawner")


class Whose(NamedTuple):
    """Whose session it is: their names stay in the text."""

    person: str  # the hub's name for them
    server: str  # as pages show it; empty: their only one
    names: Collection[str] = ()  # the system's
    home: str = ""

    def redact(self, text: str) -> str:
        """Return *text* without secrets and other people's names."""
        return redacted(text, {self.person, *self.names}, self.home)


class Found(NamedTuple):
    """What was found of the job; *problems* say why something was not, a sentence by the field's name."""

    log: Sequence[str] = ()
    record: Sequence[Mapping[str, str]] | None = None  # sacct's, of the job and its steps
    script: str | None = None
    slurm: str = ""  # its version
    problems: Mapping[str, str] = {}


def heading(last: Ended, site: Site, whose: Whose) -> str:
    """Say in a line which session it is."""
    job = f", job {last.job_id}" if last.job_id else ""
    return f"JupyterLab on {site.display_name}: {whose.server or 'session'} of {whose.person}{job}"


def details(last: Ended, said: Words, site: Site, whose: Whose, found: Found, now: float) -> str:
    """Return the whole text. *said* is what the person was told, *now* is in epoch seconds."""
    # Before anything is cut: half a token has no shape any more.
    lines = whose.redact("\n".join(found.log[-LOG_LINES:])).split("\n") if found.log else []
    problem = {name: [whose.redact(text)] for name, text in found.problems.items()}
    parts = [
        (whose.redact(heading(last, site, whose)), [f"Written at {_moment(now, site)} ({site.time_zone})"]),
        ("What happened", _happened(last, said, whose)),
        (f"When ({site.time_zone})", _phases(last, site)),
        ("Choices", [whose.redact(line) for line in _choices(last, site)]),
        ("What sacct says", _record(found, site, whose) or problem.get("record", ["Nothing."])),
        ("Versions", _versions(found)),
        (
            f"The last {len(lines)} lines of the log" if lines else "Log",
            [line[:LOG_WIDTH] for line in lines] or problem.get("log", ["There is none."]),
        ),
        (
            "Job script, as these choices make it",
            [whose.redact(_short(found.script))] if found.script else problem.get("script", ["It is not known."]),
        ),
    ]
    return "\n".join(f"{title}\n{'-' * len(title)}\n" + "\n".join(rows).rstrip() + "\n" for title, rows in parts)


def mail(last: Ended, said: Words, site: Site, whose: Whose) -> str:
    """Return the address of a link that writes to the Site's support, with a summary; empty without an address."""
    if not site.support_url.startswith("mailto:"):
        return ""
    subject = whose.redact(heading(last, site, whose))
    body = "\n".join(
        [
            "(What I did, and what I expected:)",
            "",
            "",
            subject,
            *_happened(last, said, whose),
            *_phases(last, site),
            "",
            "(Paste the copied details here, or attach the file:)",
        ]
    )
    # RFC 6068: lines end in %0D%0A.
    text = quote(body[:_MAIL_LENGTH].replace("\n", "\r\n"), safe="")
    return f"{site.support_url}?subject={quote(subject, safe='')}&body={text}"


def _happened(last: Ended, said: Words, whose: Whose) -> list[str]:
    """Say how it ended, and what of that is Slurm's and the job's own word."""
    state = f"Slurm's state: {last.state}" if last.state else ""
    code = f"Exit code: {last.exit_code}" + (f", signal {last.signal}" if last.signal else "")
    told = f"Cause: {last.reason}" + (", as the job said itself" if last.reported else "") if last.reason else ""
    rows = [str(said), last.detail, told, state, code if last.job_id else "", f"Node: {last.node}" if last.node else ""]
    return [whose.redact(row) for row in rows if row]


def _phases(last: Ended, site: Site) -> list[str]:
    """Say when the session went from phase to phase, and how long each took."""
    steps = (
        ("Submitted", last.submitted_at),
        ("Started", last.begun_at),
        ("Ready", last.served_at),
        ("Ended", last.ended_at),
    )
    rows, before = [], 0.0
    for name, moment in steps:
        if moment:
            after = f", after {say_running(moment - before)}" if before else ""
            rows.append(f"{name}: {_moment(moment, site)}{after}")
            before = moment
    return rows


def _choices(last: Ended, site: Site) -> list[str]:
    if not last.request:
        return ["They are not known."]
    written = load(last.request).options(site)
    return [f"{FIELDS[name].label}: {text}" for name, text in written.items() if text]


def _record(found: Found, site: Site, whose: Whose) -> list[str]:
    rows = []
    for step in found.record or ():
        known = {name: _read(name, text, site) for name, text in step.items() if text}
        rows.append(", ".join(f"{name}={whose.redact(text)}" for name, text in known.items()))
    return rows


def _read(name: str, text: str, site: Site) -> str:
    return _moment(float(text), site) if name in _TIMES and text.isdecimal() and len(text) < 12 else text


def _versions(found: Found) -> list[str]:
    rows = [f"{name} {_version(name)}" for name in _PACKAGES]
    return [*rows, f"Slurm {found.slurm or '(not known)'}", f"Python {platform.python_version()} (the hub's)"]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


def _short(text: str) -> str:
    """Return a job script without what is the same in each: the programs that it carries."""
    for name in ("launcher.py", "end_warning.py"):
        text = text.replace(carried(name), f"# {name} of this version, {len(carried(name))} characters\n")
    return text


def _moment(at: float, site: Site) -> str:
    return f"{datetime.fromtimestamp(at, site.zone):%Y-%m-%d %H:%M:%S}"
