"""The rows of the page of all sessions: which are shown, in what order; and the last result of a check."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import pytest

from snowyspawner.choice.request import from_options
from snowyspawner.session.lifecycle import Life
from snowyspawner.session.record import Ended, new_job
from snowyspawner.site import load
from snowyspawner.web.card import card_of
from snowyspawner.web.check_result import Check, parse_result, read_result
from snowyspawner.web.listing import COLUMNS, PHASES, Row, View, row_of

SITE = load("snowy")


def row(
    person: str, phase: str, server: str = "", job_id: str = "7", node: str = "", ran: int = 60, **asked: str
) -> Row:
    request = from_options({"environment": "tf-gpu", "account": "g2021027", **asked}, SITE).model_dump()
    life = Life(SITE, lambda: None, logging.getLogger("test"), lambda: person, lambda: person)
    now = time.time()
    if phase == "ended":
        life.last = Ended(job_id=job_id, state="TIMEOUT", request=request, begun_at=now - 700, ended_at=now - 600)
    else:
        life.job, _ = new_job(server, request)
        life.job.phase, life.job.job_id, life.job.node = phase, job_id, node  # type: ignore[assignment]
        life.job.begun_at = now - ran if phase == "serving" else 0.0
        life.attached = True
    found = row_of(life, card_of(life, f"{person}/{server}", ready=phase == "serving"), person, server, True, True)
    assert found
    return found


@pytest.fixture
async def rows() -> list[Row]:
    return [
        row("bob", "pending", job_id="10", gpu="none"),
        row("Ann", "serving", "lab", job_id="9", node="s2", time="2:00:00"),
        row("carl", "serving", job_id="11", node="s10", ran=120, cores="8"),
        row("dora", "ended", "old", job_id="8"),
    ]


def shown(found: list[Row]) -> str:
    return " ".join(each.card.job_id for each in found)


@pytest.mark.parametrize(
    ("query", "jobs"),
    [
        ({}, "9 11 10 8"),
        ({"text": "ANN"}, "9"),
        ({"text": "lab"}, "9"),
        ({"text": "11"}, "11"),
        ({"text": "s1"}, "11"),
        ({"text": "g2021027"}, "9 11 10 8"),
        ({"text": "g2021 carl"}, "11"),
        ({"text": "carl ann"}, ""),
        ({"phase": "running"}, "9 11"),
        ({"phase": "ended"}, "8"),
        ({"phase": "nonsense"}, "9 11 10 8"),
        ({"sort": "person"}, "9 10 11 8"),
        ({"sort": "-person"}, "8 11 10 9"),
        ({"sort": "job"}, "8 9 10 11"),
        ({"sort": "-job"}, "11 10 9 8"),
        # Who has none comes last, either way.
        ({"sort": "node"}, "9 11 10 8"),
        ({"sort": "-node"}, "11 9 10 8"),
        ({"sort": "-cores"}, "11 9 10 8"),
        ({"sort": "time"}, "8 10 11 9"),
        ({"sort": "phase"}, "9 11 10 8"),
        ({"sort": "nonsense"}, "9 11 10 8"),
    ],
    ids=str,
)
async def test_what_is_shown(query: dict[str, str], jobs: str, rows: list[Row]) -> None:
    assert shown(View.read(lambda name: query.get(name, "")).choose(rows)) == jobs


@pytest.mark.parametrize("column", COLUMNS)
async def test_each_column_can_be_sorted_by(column: str, rows: list[Row]) -> None:
    for view in (View(sort=column), View(sort=f"-{column}")):
        assert sorted(shown(view.choose(rows)).split(), key=int) == ["8", "9", "10", "11"]


def test_an_address_says_what_is_shown() -> None:
    view = View.read(lambda name: {"text": " a&b ", "phase": "running", "sort": "-job"}[name])
    assert view == ("a&b", "running", "-job")
    assert view.query() == "?text=a%26b&phase=running&sort=-job"
    assert view.by("job") == "?text=a%26b&phase=running&sort=job"
    assert View(sort="job").by("job") == "?sort=-job"
    assert (view.direction("job"), view.direction("node")) == ("descending", "")
    assert View().query() == ""
    assert len(View.read(lambda name: "x" * 5000).text) == 100


async def test_what_a_row_says(rows: list[Row]) -> None:
    waits, runs, _, ended = rows
    assert (waits.reason, waits.gpu, waits.started) == ("Job 10 is in the queue.", "", None)
    assert runs.gpu == "1 \N{MULTIPLICATION SIGN} NVIDIA T4"
    assert (runs.project, runs.partition, runs.cores) == ("g2021027", "core", 4)
    assert (runs.time, ended.time) == ("1 h 58 min left", "10 min ago")
    assert waits.time == "waits less than a minute"
    assert (waits.stops, ended.stops, waits._replace(may_stop=False).stops) == (True, False, False)
    assert set(PHASES) == {"running", "starting", "waiting", "lost", "stopping", "ended"}


async def test_where_nothing_has_run_there_is_no_row() -> None:
    life = Life(SITE, lambda: None, logging.getLogger("test"), lambda: "a", lambda: "a")
    assert row_of(life, card_of(life, "a"), "a", "", True, True) is None


# -- the last check ----------------------------------------------------------------------------------------------

CHECKS = [
    {"name": "Slurm", "state": "ok", "said": "22.05.8", "remedy": ""},
    {"name": "sudo", "state": "warn", "said": "wide", "remedy": "narrow it"},
    {"name": "hub", "state": "fail", "said": "not\x1b[31m reached\n", "remedy": "open 8081"},
]


def test_a_result_is_read(tmp_path: Path) -> None:
    path = tmp_path / "check.json"
    path.write_text(json.dumps({"when": 1.8e9, "ok": False, "checks": CHECKS}))
    found = read_result(str(path))
    assert found
    assert found.when == 1.8e9
    assert found.numbers == {"failed": 1, "in doubt": 1, "in order": 1}
    assert found.to_do[0] == Check("hub", "fail", "not [31m reached", "open 8081")
    assert [check.state for check in found.to_do] == ["fail", "warn"]


@pytest.mark.parametrize(
    "stored",
    [
        None,
        [],
        "x",
        {},
        {"when": 1},
        {"when": 1, "checks": {}},
        {"when": "noon", "checks": []},
        {"when": True, "checks": []},
        {"when": 1e300, "checks": []},
        {"when": 10**400, "checks": []},
        {"when": -5, "checks": []},
        {"when": float("nan"), "checks": []},
    ],
    ids=range(12),
)
def test_what_is_no_result_is_none(stored: Any) -> None:
    assert parse_result(stored) is None


def test_what_is_no_check_is_left_out() -> None:
    odd = [None, 5, [], {}, {"state": "odd"}, {"state": []}, {"state": "ok", "name": 7, "said": None}]
    found = parse_result({"when": 1, "checks": [*odd, *CHECKS * 100]})
    assert found
    assert found.checks[0] == Check("", "ok", "", "")
    assert len(found.checks) == 200 - 6
    long = parse_result({"when": 1, "checks": [{"name": "a" * 9999 + "\ud800", "state": "ok"}]})
    assert long
    assert len(long.checks[0].name) == 500


def test_a_file_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "deep").write_text("[" * 100_000)
    (tmp_path / "long").write_text(json.dumps({"when": 1, "checks": [], "x": "x" * 300_000}))
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    for name in ("none", "fifo", "deep", "long", "binary", "."):
        assert read_result(str(tmp_path / name)) is None
    assert read_result("a\0b") is None
