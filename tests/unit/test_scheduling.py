"""Which worker gets which tests: a run of pytest in a directory of its own, with our own hooks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

CONFTEST = """
import pytest
from tests.conftest import pytest_collection_modifyitems, pytest_xdist_make_scheduler
"""
TESTS = """
import os, time
from pathlib import Path
import pytest

WORKER = os.environ["PYTEST_XDIST_WORKER"]
LOG = Path(__file__).with_name("log")

def note(what):
    with LOG.open("a") as file:
        file.write(f"{WORKER} {what}\\n")

@pytest.fixture(scope="module")
def shared():
    note("shared begins")
    yield
    note("shared ends")

@pytest.fixture(scope="session", autouse=True)
def cluster():
    yield
    note("worker ends")

@pytest.fixture(scope="class")
def thing():
    note("thing begins")

class TestThings:
    @pytest.mark.parametrize("number", range(5))
    def test_of_a_class(self, thing, number):
        note("of a class")

@pytest.mark.parametrize("number", range(5))
def test_together(shared, number):
    note("together")

@pytest.mark.alone
@pytest.mark.parametrize("number", range(3))
def test_alone(number):
    note("alone")

@pytest.mark.slow
@pytest.mark.parametrize("number", range(8))
def test_slow(number):
    note("slow")
    time.sleep(0.05)

@pytest.mark.parametrize("number", range(50))
def test_quick(number):
    note("quick")
"""


def run(directory: Path, *options: str) -> list[tuple[str, str]]:
    """Run the tests; return who did what, in order."""
    (directory / "conftest.py").write_text(CONFTEST)
    (directory / "test_it.py").write_text(TESTS)
    (directory / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\nmarkers =\n    alone: x\n    slow: x\n")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    for name in [name for name in env if name.startswith(("PYTEST_", "COVERAGE_", "COV_"))]:
        del env[name]
    argv = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "--dist=loadgroup",
        "--no-loadscope-reorder",
        *options,
    ]
    done = subprocess.run(argv, cwd=directory, env=env, capture_output=True, text=True, timeout=60)
    assert "71 passed" in done.stdout, done.stdout + done.stderr
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in (directory / "log").read_text().splitlines()]


def test_what_shares_a_fixture_stays_together_and_what_measures_is_alone(tmp_path: Path) -> None:
    log = run(tmp_path, "--numprocesses=2")
    for what, begun in (("together", "shared begins"), ("of a class", "thing begins")):
        assert len({worker for worker, did in log if did == what}) == 1
        assert [did for _, did in log].count(begun) == 1
    assert {worker for worker, did in log if did == "quick"} == {"gw0", "gw1"}
    # What takes long comes first: of the slow ones, at most the last still runs on the other worker.
    did = [what for _, what in log if what in ("slow", "quick")]
    assert did.index("quick") >= 7
    # The other worker has ended, its cluster taken down, before the first that runs alone begins.
    alone = [number for number, (_, did) in enumerate(log) if did == "alone"]
    (last,) = {log[number][0] for number in alone}
    (end,) = [number for number, (worker, did) in enumerate(log) if did == "worker ends" and worker != last]
    assert end < alone[0]
    assert {did for _, did in log[alone[0] :]} <= {"alone", "shared ends", "worker ends"}
