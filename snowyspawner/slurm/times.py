"""Times as Slurm reads and writes them (sbatch(1), ``--time``, ``--begin``). Pure; the unit is the second."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta

#: What a refused duration is answered with.
DURATION_HELP = (
    "minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes or days-hours:minutes:seconds"
)

#: What a refused begin is answered with.
BEGIN_HELP = "15:00, tomorrow 9:00, now+1hour, 2027-01-31T15:00, or now"

# A job that would start within this is said to start now: Slurm itself looks every 30 s or so.
NOW = 60.0

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


def say_running(seconds: float) -> str:
    """Say a time that runs, in whole minutes, as the pages' script does: ``less than a minute``, ``1 h 5 min``."""
    minutes = int(seconds // 60)
    days, hours = minutes // 1440, minutes // 60 % 24
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min" if minutes else "less than a minute"


def say_wait(seconds: float) -> str:
    """Say how long it is until something begins, roughly, as an estimate is: ``in about 2 hours``."""
    if seconds <= NOW:
        return "now"
    size, unit = next(
        (size, unit) for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")) if seconds >= size
    )
    count = round(seconds / size)
    return f"in about {count} {unit}{'s' if count != 1 else ''}"


_HOURS = {"midnight": 0, "noon": 12, "fika": 15, "teatime": 16}
_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 7 * 86400}
_DAY = (
    r"(?:(?P<word>today|tomorrow)|(?P<iso>\d{4}-\d\d-\d\d)"
    r"|(?P<month>\d\d?)/(?P<day>\d\d?)(?:/(?P<year>\d\d))?|(?P<six>\d{6}))"
)
_CLOCK = (
    rf"(?:(?P<name>{'|'.join(_HOURS)})"
    r"|(?P<hour>\d\d?):(?P<minute>\d\d)(?::(?P<second>\d\d))?(?: *(?P<half>am|pm))?)"
)
_FLAGS = re.ASCII | re.IGNORECASE
_DAY_FIRST = re.compile(rf"{_DAY}(?:(?:T|-| +){_CLOCK})?", _FLAGS)
_CLOCK_FIRST = re.compile(rf"{_CLOCK}(?: +{_DAY})?", _FLAGS)
# In an address, where a plus is a blank, now+1hour is now 1hour.
_FROM_NOW = re.compile(rf"now(?: *\+ *| +)(?P<count>\d{{1,9}}) *(?:(?P<unit>{'|'.join(_UNITS)})s?)?", _FLAGS)


def parse_begin(text: str, now: datetime) -> int:
    """Read a begin as sbatch does, in the zone of *now*; return epoch seconds.

    A time of day that has passed is tomorrow's, a day without a year that has passed is next year's. When clocks go
    back, the first of the two moments that is still to come counts.

    Raises `ValueError`, to be put after what was typed, for what cannot be read and for an hour that does not exist.
    """
    if match := _FROM_NOW.fullmatch(text):
        return int(now.timestamp()) + int(match["count"]) * _UNITS[(match["unit"] or "second").lower()]
    match = _DAY_FIRST.fullmatch(text) or _CLOCK_FIRST.fullmatch(text)
    if not match:
        raise ValueError(f"is not a time: write {BEGIN_HELP}")
    part = match.groupdict()
    at = _clock(part)
    try:
        days = _days(part, at, now)
    except ValueError:
        raise ValueError("is no date of the calendar") from None
    moments = [datetime.combine(day, at, now.tzinfo).replace(fold=fold) for day in days for fold in (0, 1)]
    moment = next((moment for moment in moments if moment.timestamp() > now.timestamp()), moments[0])
    seconds = int(moment.timestamp())
    # When clocks go forward, an hour does not exist: its times come back from the epoch as others.
    if datetime.fromtimestamp(seconds, now.tzinfo).replace(tzinfo=None) != moment.replace(tzinfo=None, fold=0):
        raise ValueError("does not exist: the clocks go forward in that hour")
    return seconds


def _clock(part: Mapping[str, str | None]) -> time:
    """Return the time of day; without one it is midnight."""
    if part["name"]:
        return time(_HOURS[part["name"].lower()])
    hour, minute, second = (int(part[name] or 0) for name in ("hour", "minute", "second"))
    if part["half"]:
        if not 1 <= hour <= 12:
            raise ValueError(f"is not a time: write {BEGIN_HELP}")
        hour = hour % 12 + (12 if part["half"].lower() == "pm" else 0)
    try:
        return time(hour, minute, second)
    except ValueError:
        raise ValueError(f"is not a time: write {BEGIN_HELP}") from None


def _days(part: Mapping[str, str | None], at: time, now: datetime) -> list[date]:
    """Return the days that may be meant, the first one first. `ValueError`: there is no such day."""
    today = now.date()
    if part["word"]:
        return [today + timedelta(days=part["word"].lower() == "tomorrow")]
    if part["iso"]:
        return [date.fromisoformat(part["iso"])]
    if six := part["six"]:  # MMDDYY
        return [date(2000 + int(six[4:]), int(six[:2]), int(six[2:4]))]
    if part["month"] and part["day"]:
        month, day = int(part["month"]), int(part["day"])
        if part["year"]:
            return [date(2000 + int(part["year"]), month, day)]
        past = (month, day, at) < (today.month, today.day, now.time())
        return [date(today.year + past, month, day)]
    return [today, today + timedelta(days=1)]
