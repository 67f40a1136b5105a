"""Durations, in the six forms that sbatch(1) names at --time; and when to begin, as at --begin."""

import re
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from snowyspawner.slurm.times import (
    BEGIN_HELP,
    DURATION_HELP,
    format_duration,
    parse_begin,
    parse_duration,
    say_duration,
)

MINUTE, HOUR, DAY = 60, 3600, 86400


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        # sbatch(1): "minutes"
        ("30", 30 * MINUTE),
        ("1", MINUTE),
        ("90", 90 * MINUTE),
        # sbatch(1): "minutes:seconds"; not hours and minutes, the trap of the form
        ("1:30", 90),
        ("59:00", 59 * MINUTE),
        ("0:01", 1),
        # sbatch(1): "hours:minutes:seconds"
        ("0:59:00", 59 * MINUTE),  # the seed's notebookjob.sh
        ("2:00:00", 2 * HOUR),
        ("240:00:00", 10 * DAY),
        # sbatch(1): "days-hours"
        ("1-2", DAY + 2 * HOUR),
        ("10-00", 10 * DAY),
        # sbatch(1): "days-hours:minutes"; after a dash the first number is hours
        ("1-2:3", DAY + 2 * HOUR + 3 * MINUTE),
        ("0-0:30", 30 * MINUTE),
        # sbatch(1): "days-hours:minutes:seconds"; also what scontrol and sinfo print
        ("10-00:00:00", 10 * DAY),
        ("1-02:03:04", DAY + 2 * HOUR + 3 * MINUTE + 4),
        # Spaces around it come with copy and paste.
        ("  30\n", 30 * MINUTE),
    ],
)
def test_a_duration_is_read_as_slurm_reads_it(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ":",
        "1:",
        ":30",
        "1::2",
        "1:2:3:4",
        "-",
        "-5",
        "1-",
        "-1:00",
        "1-2-3",
        "1-2:3:4:5",
        "1 2",
        "+5",
        "1.5",
        "1e3",
        "2h",
        "30m",
        "UNLIMITED",  # Slurm takes these two; a session needs an end
        "INFINITE",
        "٣٠",  # digits, but not Slurm's
        "1:30\n#SBATCH",
        "1:30\0",
        "9" * 7,
        "99999-0",
    ],
)
def test_anything_else_is_refused_with_the_forms_that_there_are(text: str) -> None:
    with pytest.raises(ValueError, match="not a duration") as caught:
        parse_duration(text)
    assert DURATION_HELP in str(caught.value)


@pytest.mark.parametrize("text", ["0", "00", "0:00", "0:0:0", "0-0", "0-00:00:00"])
def test_no_time_at_all_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="longer than nothing"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1, "0:00:01"),
        (59 * MINUTE, "0:59:00"),
        (HOUR, "1:00:00"),
        (DAY - 1, "23:59:59"),
        (DAY, "1-00:00:00"),
        (10 * DAY + 61, "10-00:01:01"),
    ],
)
def test_a_duration_is_written_with_all_its_parts(seconds: int, text: str) -> None:
    assert format_duration(seconds) == text


def test_what_is_written_is_read_back_unchanged() -> None:
    # Primes, so that every part of the notation takes many values.
    for seconds in range(1, 40 * DAY, 6857):
        assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 seconds"),
        (1, "1 second"),
        (90, "1 minute 30 seconds"),
        (59 * MINUTE, "59 minutes"),
        (HOUR, "1 hour"),
        (2 * HOUR + 30 * MINUTE, "2 hours 30 minutes"),
        (DAY, "1 day"),
        (10 * DAY, "10 days"),
    ],
)
def test_a_duration_is_said_in_words(seconds: int, words: str) -> None:
    assert say_duration(seconds) == words


# -- begin -------------------------------------------------------------------------------------------------------

#: A Thursday.
NOW = datetime(2026, 10, 1, 12, 0, 30, tzinfo=ZoneInfo("Europe/Stockholm"))

#: How sbatch 22.05.8 reads them; tests/cluster/test_choices.py asks the sbatch that there is.
BEGINS = {
    "16:00": "2026-10-01T16:00:00",
    "16:00:05": "2026-10-01T16:00:05",
    "9:00": "2026-10-02T09:00:00",
    "4:00PM": "2026-10-01T16:00:00",
    "4:00 pm": "2026-10-01T16:00:00",
    "12:15AM": "2026-10-02T00:15:00",
    "12:15PM": "2026-10-01T12:15:00",
    "midnight": "2026-10-02T00:00:00",
    "noon": "2026-10-02T12:00:00",
    "fika": "2026-10-01T15:00:00",
    "teatime": "2026-10-01T16:00:00",
    "Noon": "2026-10-02T12:00:00",
    "tomorrow": "2026-10-02T00:00:00",
    "tomorrow 9:00": "2026-10-02T09:00:00",
    "tomorrowT9:00": "2026-10-02T09:00:00",
    "tomorrow noon": "2026-10-02T12:00:00",
    "9:00 tomorrow": "2026-10-02T09:00:00",
    "today 16:00": "2026-10-01T16:00:00",
    "now+60": "2026-10-01T12:01:30",
    "now+1hour": "2026-10-01T13:00:30",
    "now + 2 hours": "2026-10-01T14:00:30",
    "now+90minutes": "2026-10-01T13:30:30",
    "now+1day": "2026-10-02T12:00:30",
    "now+2weeks": "2026-10-15T12:00:30",
    "2026-12-24": "2026-12-24T00:00:00",
    "2026-12-24T18:00": "2026-12-24T18:00:00",
    "2026-12-24T18:00:30": "2026-12-24T18:00:30",
    "12/24/26": "2026-12-24T00:00:00",
    "12/24/26-18:00": "2026-12-24T18:00:00",
    "12/24": "2026-12-24T00:00:00",
    "1/31": "2027-01-31T00:00:00",
    "122426": "2026-12-24T00:00:00",
}


@pytest.mark.parametrize("text", BEGINS)
def test_begin_is_read_as_sbatch_reads_it(text: str) -> None:
    moment = datetime.fromtimestamp(parse_begin(text, NOW), NOW.tzinfo)
    assert moment.replace(tzinfo=None).isoformat() == BEGINS[text]


def test_in_an_address_a_plus_is_a_blank() -> None:
    assert parse_begin("now 1hour", NOW) == parse_begin("now+1hour", NOW)


NO_BEGINS = ["", "soon", "tonight", "now", "now-1hour", "now+", "now+1fortnight", "now+1.5hours", "6PM", "13:00PM"]
NO_BEGINS += ["0:30AM", "24:00", "12:60", "12:00:60", "noonish", "1:2", "15:00\n", "now\n+1", "15:00;id", "2026-10-01T"]
NO_BEGINS += ["T15:00", "\u0661\u0665:00"]


@pytest.mark.parametrize("text", NO_BEGINS)
def test_what_is_no_time_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"is not a time: write {BEGIN_HELP}")):
        parse_begin(text, NOW)


@pytest.mark.parametrize("text", ["2027-02-30", "13/01", "02/30/27", "133126", "0000-01-01"])
def test_a_day_that_no_calendar_has_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no date of the calendar"):
        parse_begin(text, NOW)
