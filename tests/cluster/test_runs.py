"""A test run that is killed in its middle: what is left of it, and that the next one removes all of it."""

from __future__ import annotations

import os
import pwd
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from demo.cluster import Cluster
from demo.commands import wait_until
from demo.daemons import Daemons, all_pids
from demo.state import State

from ..hubs import ROOT
from ..runs import state_directory

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

TESTS = "tests/cluster/test_before_the_end.py::test_slurm_s_own_signal_warns_and_the_session_goes_on"


def descendants(pid: int) -> list[int]:
    """A process and all below it, the workers of a run among them."""
    parents = {}
    for other in all_pids():
        try:
            stat = Path(f"/proc/{other}/stat").read_text()
        except OSError:
            continue
        parents[other] = int(stat.rpartition(")")[2].split()[1])
    found = [pid]
    for parent in found:
        found += [child for child, its in parents.items() if its == parent]
    return found


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    """Of a run with a state directory of its own; what it leaves is removed."""
    inherited = ("PYTEST_", "COVERAGE_", "COV_", "SNOWYSPAWNER_")
    env = {name: value for name, value in os.environ.items() if not name.startswith(inherited)}
    env["SNOWYSPAWNER_TEST_STATE"] = str(state_directory("killed"))
    yield env
    subprocess.run([sys.executable, "-m", "tests.runs"], cwd=ROOT, env=env, check=True, timeout=120)


def clean(env: dict[str, str]) -> str:
    argv = [sys.executable, "-m", "tests.runs"]
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout


def test_what_a_killed_run_has_left_is_removed(cluster: Any, environment: dict[str, str], tmp_path: Path) -> None:
    """Killed while a session serves: hub, proxy, daemons, jobs, accounts and device files are still there."""
    base = Path(environment["SNOWYSPAWNER_TEST_STATE"])
    state = base.with_name(f"{base.name}-gw0")
    known = Daemons(state)
    argv = [sys.executable, "-m", "pytest", "--numprocesses=1", "-p", "no:cacheprovider", f"--rootdir={ROOT}", TESTS]
    with (tmp_path / "output").open("w") as output:
        run = subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:

        def serves() -> bool:
            assert run.poll() is None, (tmp_path / "output").read_text()
            logs = (state / "home").glob("*/.snowyspawner-*.log")
            return any("serving on port" in log.read_text(errors="replace") for log in logs)

        wait_until(serves, "a session of the run", 90)
    finally:
        killed = descendants(run.pid)
        # The daemons that its worker has started are no part of it.
        for pid in killed:
            if pid not in known.marked():
                with suppress(ProcessLookupError):  # a command of Slurm's that has ended meanwhile
                    os.kill(pid, signal.SIGKILL)
        run.wait(10)
    left = State.load(state)
    assert {"hub", "slurmdbd", "mariadbd"} <= set(known.marked().values())
    assert left.accounts
    assert all(pwd.getpwnam(name) for name in left.accounts)
    assert left.devices
    uids = {pwd.getpwnam(name).pw_uid for name in left.accounts}
    assert any(_uid(pid) in uids for pid in all_pids())

    printed = clean(environment)
    assert f"accounts removed, with their homes: {', '.join(left.accounts)}" in printed
    assert f"{state} removed" in printed
    assert known.marked() == {}
    assert not any(_uid(pid) in uids for pid in all_pids())
    assert not [name for name in left.accounts if name in {account.pw_name for account in pwd.getpwall()}]
    assert not [path for path in left.devices if Path(path).exists()]
    assert list(base.parent.glob(f"{base.name}*")) == []
    assert not re.search(re.escape(str(base)), Path("/proc/self/mountinfo").read_text())
    assert clean(environment) == "nothing is left\n"
    assert cluster.is_up


def _uid(pid: int) -> int:
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return -1


def test_a_run_beside_another_one_of_the_same_state_is_refused(environment: dict[str, str]) -> None:
    """It says what to do; nothing of the other one is touched."""
    hold = "import sys; from tests import runs; claim = runs.Claim(); print(claim.held, flush=True); sys.stdin.read()"
    argv = [sys.executable, "-c", hold]
    with subprocess.Popen(argv, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == b"True\n"
        argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", TESTS]
        done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60)
        other.stdin.close()
    assert done.returncode == 1
    assert "another run uses" in done.stdout
    assert "set SNOWYSPAWNER_TEST_STATE to another directory" in done.stdout
    assert not Cluster(environment["SNOWYSPAWNER_TEST_STATE"]).state.exists()


def test_a_state_of_another_version_is_removed_all_the_same(environment: dict[str, str]) -> None:
    state = Path(f"{environment['SNOWYSPAWNER_TEST_STATE']}-gw0")
    state.mkdir()
    (state / "state.json").write_text('{"what_we_do_not_know": 1}')
    assert f"{state} removed: {state}/state.json cannot be read" in clean(environment)
    assert not state.exists()
