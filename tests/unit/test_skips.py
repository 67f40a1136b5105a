"""What CI does with a test that is skipped: a run of pytest in a directory of its own, with our own hooks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

TESTS = """
import pytest

def test_passes():
    pass

@pytest.mark.skip(reason="by a mark")
def test_marked():
    pass

def test_skips_itself():
    pytest.skip("from inside")

@pytest.fixture
def unavailable():
    pytest.skip("by a fixture")

def test_fixture(unavailable):
    pass

@pytest.mark.xfail(reason="a known fault")
def test_known():
    assert False
"""
FILE = 'import pytest\npytest.skip("a whole file", allow_module_level=True)\n'


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_nothing_may_be_skipped_in_ci(tmp_path: Path, workers: int) -> None:
    names = "pytest_addoption, pytest_make_collect_report, pytest_runtest_makereport"
    (tmp_path / "conftest.py").write_text(f"from tests.conftest import {names}\n")
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "test_file.py").write_text(FILE)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COVERAGE_", "COV_"))}

    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--numprocesses={workers}", "--no-skips"]
    argv += ["--continue-on-collection-errors"]
    done = subprocess.run(
        argv, cwd=tmp_path, env={**env, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "1 failed, 1 passed, 1 xfailed, 3 errors" in done.stdout
    for reason in ("by a mark", "from inside", "by a fixture", "a whole file"):
        assert f"skipped, and nothing may be: Skipped: {reason}" in done.stdout
