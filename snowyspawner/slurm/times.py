"""Durations as Slurm reads and writes them (sbatch(1), ``--time``). Pure functions; the unit is the second."""

from __future__ import annotations

import re

#: What a refused duration is answered with.
DURATION_HELP = (
    "minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes or days-hours:minutes:seconds"
)

_DURATION = re.compile(r"(?:(?P<days>\d{1,4})-)?(?P<rest>\d{1,6}(?::\d{1,6}){0,2})", re.ASCII)


def parse_duration(text: str) -> int:
    """Read a duration exactly as Slurm does, in seconds.

    ``30`` is thirty minutes, ``1:30`` a minute and a half, ``1-2`` a day and two hours.

    Raises `ValueError` for anything else, ``UNLIMITED`` and zero included: a session needs an end.
    """
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise ValueError(f"not a duration: write {DURATION_HELP}")
    parts = [int(part) for part in match["rest"].split(":")]
    if match["days"] is not None:
        hours, minutes, seconds = parts + [0] * (3 - len(parts))
        total = ((int(match["days"]) * 24 + hours) * 60 + minutes) * 60 + seconds
    elif len(parts) == 3:
        total = (parts[0] * 60 + parts[1]) * 60 + parts[2]
    elif len(parts) == 2:
        total = parts[0] * 60 + parts[1]
    else:
        total = parts[0] * 60
    if total <= 0:
        raise ValueError("must be longer than nothing")
    return total


def format_duration(seconds: int) -> str:
    """Write *seconds* as ``h:mm:ss``, or ``d-hh:mm:ss`` from a day on: what sbatch takes back unchanged."""
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}-{hour:02}:{minute:02}:{second:02}"
    return f"{hour}:{minute:02}:{second:02}"


def say_duration(seconds: int) -> str:
    """Say *seconds* in words: ``59 minutes``, ``2 hours 30 minutes``, ``10 days``."""
    rest, words = seconds, []
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        count, rest = divmod(rest, size)
        if count:
            words.append(f"{count} {unit}{'s' if count != 1 else ''}")
    return " ".join(words) or "0 seconds"
