"""What the launcher does beside serving. How it does so in a job is shown in test_launcher.py."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from snowyspawner.standalone import end_warning

DAY = 86400
PATTERN = r"\.snowyspawner\-(?P<job>[0-9]+)\.log"


class Logs:
    """A home directory with logs in it, and the removal of the old ones."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.said: list[str] = []

    def write(self, name: str, days_old: float = 0.0) -> Path:
        path = self.home / name
        path.write_text("x")
        then = time.time() - days_old * DAY
        os.utime(path, (then, then), follow_symlinks=False)
        return path

    def log(self, number: int, days_old: float = 0.0) -> Path:
        return self.write(f".snowyspawner-{number}.log", days_old)

    def prune(self, job_id: str = "99", days: int = 30, number: int = 50, directory: str = "") -> None:
        keep = {"directory": directory, "pattern": PATTERN, "days": days, "number": number}
        end_warning.prune(str(self.home), keep, job_id, self.said.append)


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    return Logs(tmp_path)


def test_logs_go_by_age(logs: Logs) -> None:
    old, young = logs.log(1, 31), logs.log(2, 29)
    logs.prune()
    assert (old.exists(), young.exists()) == (False, True)
    assert logs.said == ["removed 1 old logs"]


def test_logs_go_by_number_and_the_newest_stay(logs: Logs) -> None:
    # The job's own is one of the three.
    paths = [logs.log(number, number) for number in range(1, 6)]
    own = logs.log(99)
    logs.prune(number=3)
    assert [path.exists() for path in paths] == [True, True, False, False, False]
    assert own.exists()


@pytest.mark.parametrize(("days", "number", "left"), [(0, 3, 2), (3, 0, 2), (0, 1, 0), (30, 50, 4)])
def test_nought_is_no_limit(logs: Logs, days: int, number: int, left: int) -> None:
    for age in range(1, 5):
        logs.log(age, age - 0.1 + (1 if age > 2 else 0))
    logs.prune(days=days, number=number)
    assert len(list(logs.home.iterdir())) == left


def test_the_job_s_own_log_stays(logs: Logs) -> None:
    own = logs.log(99, 365)
    logs.prune(days=1, number=1)
    assert own.exists()
    assert logs.said == []


def test_what_the_job_writes_to_stays_whatever_its_name(logs: Logs) -> None:
    other = logs.log(7, 365)
    saved = os.dup(2)
    with other.open("a") as stream:
        os.dup2(stream.fileno(), 2)
    try:
        logs.prune()
    finally:
        os.dup2(saved, 2)
        os.close(saved)
    assert other.exists()


@pytest.mark.parametrize(
    "name", [".snowyspawner-1.log.bak", "a.snowyspawner-1.log", ".snowyspawner-1a.log", ".snowyspawner-.log", "notes"]
)
def test_other_files_stay(logs: Logs, name: str) -> None:
    other = logs.write(name, 365)
    logs.prune(number=1)
    assert other.exists()


def test_links_and_directories_stay_and_what_they_point_to(logs: Logs) -> None:
    precious = logs.write("precious", 365)
    link = logs.home / ".snowyspawner-1.log"
    link.symlink_to(precious)
    os.utime(link, (1, 1), follow_symlinks=False)
    directory = logs.home / ".snowyspawner-2.log"
    directory.mkdir()
    os.utime(directory, (1, 1))
    os.mkfifo(logs.home / ".snowyspawner-3.log")
    logs.prune(number=1)
    assert sorted(path.name for path in logs.home.iterdir()) == [
        *(f".snowyspawner-{n}.log" for n in (1, 2, 3)),
        "precious",
    ]


def test_files_of_others_stay(logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = logs.log(1, 365)
    uid = os.getuid()
    monkeypatch.setattr(end_warning.os, "getuid", lambda: uid + 1)
    logs.prune()
    assert theirs.exists()


def test_only_the_logs_directory_is_looked_into(logs: Logs) -> None:
    (logs.home / "logs" / "deeper").mkdir(parents=True)
    kept = [logs.log(1, 365), logs.write("logs/deeper/.snowyspawner-1.log", 365)]
    gone = logs.write("logs/.snowyspawner-1.log", 365)
    logs.prune(directory="logs")
    assert [path.exists() for path in [*kept, gone]] == [True, True, False]


def test_a_directory_that_is_not_there_is_said_and_no_more(logs: Logs) -> None:
    logs.prune(directory="gone")
    (said,) = logs.said
    assert said.startswith("old logs could not be removed: [Errno 2]")


@pytest.mark.parametrize(
    ("printed", "end"),
    [
        ("1795408854", 1795408854),
        ("1795408854\n", 1795408854),
        # squeue(1): what a job has that has not begun, or that may run for ever.
        ("N/A", 0),
        ("NONE", 0),
        ("2026-11-23T04:40:54", 0),
        ("", 0),
        ("slurm_load_jobs error: Invalid job id specified", 0),
    ],
)
def test_what_squeue_prints_is_a_number_or_nothing(
    executable: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, printed: str, end: int
) -> None:
    squeue = executable("squeue", f"#!/bin/sh\nprintf '%s' '{printed}'\n")
    monkeypatch.setenv("PATH", f"{squeue.parent}:/usr/bin:/bin")
    assert end_warning.ask_slurm("17") == end


def test_what_a_person_has_set_for_squeue_changes_nothing(
    executable: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    squeue = executable("squeue", f"#!/bin/sh\nenv > {tmp_path}/env\n")
    monkeypatch.setenv("PATH", f"{squeue.parent}:/usr/bin:/bin")
    for name in ("SQUEUE_FORMAT", "SQUEUE_USERS", "SLURM_CLUSTERS", "SLURM_CONF"):
        monkeypatch.setenv(name, "theirs")
    end_warning.ask_slurm("17")
    seen = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines() if "=" in line)
    assert [name for name, value in seen.items() if value == "theirs"] == ["SLURM_CONF"]
    assert seen["SLURM_TIME_FORMAT"] == "%s"


def test_a_node_without_slurm_s_commands_says_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert end_warning.ask_slurm("17") == 0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "1 minute"), (61, "1 minute"), (95, "2 minutes"), (600, "10 minutes"), (7200, "120 minutes")],
)
def test_the_time_left_is_said_in_minutes(seconds: float, words: str) -> None:
    assert end_warning.in_words(seconds) == words


class Sequence:
    """A clock whose time is set, and whose Slurm says what the test wants."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, warn: int, end: int) -> None:
        self.said: list[str] = []
        self.now = 0.0
        monkeypatch.setattr(end_warning.signal, "signal", lambda *args: None)
        monkeypatch.setattr(end_warning.time, "time", lambda: self.now)
        monkeypatch.setattr(end_warning, "ask_slurm", lambda job_id: self.slurm)
        self.clock: Any = end_warning.Clock(self.said.append)
        self.clock.warn, self.clock.end, self.slurm = warn, end, end

    def pass_until(self, now: float) -> list[float]:
        """Let the time pass, with all that falls due; return when that was."""
        looks = []
        while (due := self.clock.due()) is not None and due <= now:
            self.now = max(self.now, due)
            looks.append(self.now)
            assert len(looks) < 20, "it does not come to rest"
            self.clock.look(False)
        self.now = now
        return looks

    def signal(self, now: float) -> None:
        self.pass_until(now)
        self.clock.look(True)


def test_slurm_is_asked_three_times_at_most_and_the_log_has_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Sequence(monkeypatch, warn=600, end=3600)
    assert made.pass_until(5000) == [2980, 3460, 3605]
    assert len(made.said) == 1


@pytest.mark.parametrize("early", [0, 10, 24, 60])
def test_slurm_s_signal_takes_the_place_of_the_first_look(monkeypatch: pytest.MonkeyPatch, early: int) -> None:
    made = Sequence(monkeypatch, warn=600, end=3600)
    made.signal(3000 - early)
    assert len(made.said) == 1
    assert made.pass_until(5000) == [3460, 3605]
    assert len(made.said) == 1


def test_a_signal_by_hand_warns_and_the_warning_still_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Sequence(monkeypatch, warn=600, end=7200)
    made.signal(1200)
    assert made.said[0].endswith("in 100 minutes: save your work")
    assert made.pass_until(9000)[0] == 6580
    assert len(made.said) == 2


def test_an_end_put_off_at_the_last_moment_is_warned_of_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Sequence(monkeypatch, warn=600, end=3600)
    made.pass_until(3500)
    made.slurm = 7200
    assert made.pass_until(9000) == [3605, 6580, 7060, 7205]
    assert len(made.said) == 2


@pytest.mark.parametrize("limit", [60, 120, 180, 300, 1200])
def test_a_short_session_comes_to_rest_too(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    made = Sequence(monkeypatch, warn=limit // 2, end=limit)
    assert len(made.pass_until(limit + 100)) == 3
    assert len(made.said) == 1


def test_without_warnings_there_is_nothing_to_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Sequence(monkeypatch, warn=0, end=3600)
    assert made.pass_until(5000) == []


def test_a_full_scratch_costs_the_warning_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Sequence(monkeypatch, warn=600, end=3600)
    assert made.clock.add_to_lab("/proc", "") == ""  # nothing to put there
    assert made.said == []
    assert made.clock.add_to_lab("/proc", "script") == ""
    assert made.said[0].startswith("nothing of this session is shown in JupyterLab: ")
    made.clock.look(True)
    assert "save your work" in made.said[1]
