"""The last result of ``snowyspawner check``, as its file has it. Whatever stands there, reading it raises nothing."""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

# More than any result has.
_LONGEST, _MOST, _WIDEST = 256 * 1024, 200, 500

State = Literal["ok", "warn", "fail", "skip"]
#: What a page calls them, the most urgent first.
STATES: Mapping[str, str] = {"fail": "failed", "warn": "in doubt", "skip": "left out", "ok": "in order"}


class Check(NamedTuple):
    """One check; all of it is text."""

    name: str
    state: State
    said: str
    remedy: str


class Result(NamedTuple):
    """The result of all checks. *when* is in epoch seconds."""

    when: float
    checks: Sequence[Check]

    @property
    def numbers(self) -> dict[str, int]:
        """How many checks there are of each state that there is any of, by its words."""
        numbers = {word: sum(check.state == state for check in self.checks) for state, word in STATES.items()}
        return {word: number for word, number in numbers.items() if number}

    @property
    def to_do(self) -> list[Check]:
        """Return what failed, then what is in doubt."""
        return [check for state in ("fail", "warn") for check in self.checks if check.state == state]


def read_result(path: str) -> Result | None:
    """Read the file; None when there is none, or none that can be read as a result."""
    try:
        # Not waiting for whoever would write into a FIFO.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            data = file.read(_LONGEST + 1)
        return parse_result(json.loads(data)) if len(data) <= _LONGEST else None
    except (OSError, ValueError, RecursionError):
        return None


def parse_result(stored: Any) -> Result | None:
    """Read what ``check`` writes: ``when`` in epoch seconds and ``checks``. What is no check is left out."""
    if not isinstance(stored, dict) or not isinstance(stored.get("checks"), list):
        return None
    when = stored.get("when")
    # A year of five digits is none that a calendar here has.
    if isinstance(when, bool) or not isinstance(when, (int, float)) or not 0 <= when < 2e11 or math.isnan(when):
        return None
    checks = [
        Check(_text(each.get("name")), each["state"], _text(each.get("said")), _text(each.get("remedy")))
        for each in stored["checks"][:_MOST]
        if isinstance(each, dict) and isinstance(each.get("state"), str) and each["state"] in get_args(State)
    ]
    return Result(float(when), checks)


def _text(value: Any) -> str:
    """Return *value* as a line that a page can show."""
    text = value if isinstance(value, str) else ""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+", " ", text[:_WIDEST]).strip()
