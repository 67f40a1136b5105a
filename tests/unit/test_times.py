"""Durations: the six forms that sbatch(1) names at --time."""

import pytest

from snowyspawner.slurm.times import DURATION_HELP, format_duration, parse_duration, say_duration

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
