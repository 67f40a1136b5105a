"""What a check says: as a line, as a table's row, as JSON, as the file that the hub reads. Plain text throughout."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..session.as_person import showable
from ..web.check_result import State

_MARKS: dict[State, str] = {"ok": "✓", "warn": "!", "fail": "✗", "skip": "-"}
_ASCII: dict[State, str] = {"ok": "ok", "warn": "!", "fail": "X", "skip": "-"}
_LONGEST = 2000


class Check(NamedTuple):
    """What one check says. *remedy* is what to do, a command where there is one; *seconds*: how long a step took."""

    name: str
    state: State
    said: str
    remedy: str = ""
    seconds: float | None = None


def ok(name: str, said: str) -> Check:
    """Say that all is well."""
    return Check(name, "ok", said)


def warn(name: str, said: str, remedy: str) -> Check:
    """Say what is doubtful, and what to do."""
    return Check(name, "warn", said, remedy)


def fail(name: str, said: str, remedy: str) -> Check:
    """Say what is wrong, and what to do."""
    return Check(name, "fail", said, remedy)


def skip(name: str, said: str) -> Check:
    """Say why something was not looked at."""
    return Check(name, "skip", said)


def plain(text: str) -> str:
    """Return *text* as one line that steers no terminal."""
    return " ".join(showable(text.replace("\n", " ").replace("\r", " ")).split())[:_LONGEST]


def passed(checks: Iterable[Check]) -> bool:
    """Tell whether nothing is wrong; what is doubtful is not."""
    return all(check.state != "fail" for check in checks)


def as_data(checks: Iterable[Check]) -> list[dict[str, str]]:
    """Return *checks* as what JSON holds."""
    found = []
    for check in checks:
        took = "" if check.seconds is None else f" ({check.seconds:.1f} s)"
        said = plain(check.said) + took
        found.append({"name": check.name, "state": str(check.state), "said": said, "remedy": plain(check.remedy)})
    return found


def as_text(checks: Sequence[Check], encoding: str | None) -> str:
    """Return a line for each check and for each remedy, with marks that *encoding* has; a job's steps as a table."""
    marks = _MARKS if _has(encoding, "".join(_MARKS.values())) else _ASCII
    lines, width = [], max((len(check.name) for check in checks if check.seconds is not None), default=0)
    for check in checks:
        mark, said = marks[check.state], plain(check.said)
        if check.seconds is None:
            lines.append(f"{mark} {check.name}: {said}")
        else:
            lines.append(f"{mark} {check.name:<{width}}  {check.seconds:>6.1f} s  {said}")
        if check.remedy:
            lines.append(f"    {plain(check.remedy)}")
    text = "\n".join(lines) + "\n"
    return text if _has(encoding, text) else text.encode("ascii", "backslashreplace").decode()


def _has(encoding: str | None, text: str) -> bool:
    try:
        text.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def write(path: Path, checks: Sequence[Check], when: float) -> None:
    """Write *checks* for the hub, in one step and readable by this account alone. Raises OSError."""
    result: dict[str, Any] = {"when": when, "ok": passed(checks), "checks": as_data(checks)}
    # Made with mode 0600.
    descriptor, new = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)
        os.replace(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise
