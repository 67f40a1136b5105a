"""The demo as a guest of this machine: up after a crash, gone after down, nothing of the host's touched."""

import hashlib
import os
import pwd
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from demo import DemoError
from demo.cluster import Cluster
from demo.commands import wait_until
from demo.state import State

from ..runs import account_prefix, state_directory

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

PREFIX = account_prefix("sng")


def fingerprints() -> dict[str, str]:
    """What belongs to the host and to no demo."""
    paths = [p for top in ("/etc/slurm", "/etc/munge", "/etc/mysql") for p in Path(top).rglob("*") if p.is_file()]
    found = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    return found | {"/var/lib/mysql": " ".join(sorted(os.listdir("/var/lib/mysql")))}


def run_job(guest: Cluster, user: str) -> str:
    """Run a job as *user*; return what it printed."""
    argv = ["srun", "-M", guest.site.cluster, "-A", guest.site.accounts.default, "-n", "1", "-t", "1", "id", "-un"]
    done = subprocess.run(
        ["setpriv", "--reuid", user, "--regid", user, "--init-groups", *argv],
        env={**os.environ, **guest.env},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def marked(state: Path) -> list[int]:
    """The processes that carry this state's mark, or have one of its files open."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
            links = [os.readlink(link) for link in (process / "fd").iterdir()]
        except OSError:
            continue
        if f"{state}:".encode() in environment or any(link.startswith(f"{state}/") for link in links):
            found.append(int(process.name))
    return found


@pytest.fixture
def guest(cluster: Any) -> Any:
    """A second cluster beside the tests' own: two checkouts on one machine."""
    made = Cluster(state_directory("guest"), nodes=1, gpu_nodes=1, users=1, user_prefix=PREFIX)
    yield made
    made.down()


def test_up_after_a_crash_and_gone_after_down(guest: Cluster, cluster: Any) -> None:
    before = fingerprints()
    guest.up()
    (user,) = guest.users
    assert user == f"{PREFIX}1"
    assert pwd.getpwnam(user).pw_dir.startswith(str(guest.state))
    assert not set(guest.ports.values()) & set(cluster.ports.values())
    assert run_job(guest, user) == user
    (device,) = State.load(guest.state).devices
    assert device.startswith("/dev/nvidia")
    made = Path(device).stat()
    others = State.load(cluster.state).devices
    assert device not in others

    crashed = marked(guest.state)
    assert len(crashed) >= 6
    for pid in crashed:
        os.kill(pid, signal.SIGKILL)
    again = Cluster(guest.state)
    assert not again.is_up
    again.up()
    assert again.is_up
    assert again.users == guest.users
    assert run_job(again, user) == user
    # The neighbor did not notice.
    assert cluster.is_up

    undone = "\n".join(again.down())
    for what in ("stopped", user, device, str(guest.state)):
        assert what in undone
    assert not guest.state.exists()
    assert marked(guest.state) == []
    # Another cluster may have taken the name at once.
    assert not Path(device).exists() or Path(device).stat().st_ino != made.st_ino
    assert all(Path(path).is_char_device() for path in others)
    with pytest.raises(KeyError):
        pwd.getpwnam(user)
    assert fingerprints() == before
    assert cluster.is_up


@pytest.mark.alone
def test_the_second_make_demo_is_quick_and_ctrl_c_ends_the_hub(guest: Cluster, tmp_path: Path) -> None:
    """What ``make demo`` runs: names, passwords and an address; 20 s are allowed once everything is there."""
    guest.up()
    output = tmp_path / "output"
    started = time.monotonic()
    with output.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "demo", "run", "--image", "small", "--state", str(guest.state)],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until(lambda: process.poll() is not None or "ready after" in output.read_text(), "the hub", 60)
        assert time.monotonic() - started < 20
        text = output.read_text()
        ((name, password),) = guest.users.items()
        assert re.search(rf"{name} +password +{re.escape(password)}", text)
        address = re.search(r"http://127\.0\.0\.1:\d+", text)
        assert address
        with urllib.request.urlopen(f"{address[0]}/hub/login", timeout=10) as page:
            assert page.status == 200
    finally:
        os.killpg(process.pid, signal.SIGINT)
        code = process.wait(60)
    assert code == 0
    assert guest.is_up
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{address[0]}/hub/login", timeout=10)


def test_an_account_of_that_name_is_refused(cluster: Any) -> None:
    """It is somebody else's: here, the other cluster's."""
    taken = next(iter(cluster.users))
    other = Cluster(state_directory("other"), users=1, user_prefix=taken.rstrip("0123456789"))
    try:
        with pytest.raises(DemoError, match=taken):
            other.up()
    finally:
        other.down()
    assert pwd.getpwnam(taken).pw_dir.startswith(str(cluster.state))


@pytest.mark.parametrize("words", [["env"], ["status"], ["--help"], ["up", "--help"]])
def test_the_commands_say_what_they_do(cluster: Any, words: list[str]) -> None:
    state = [] if "--help" in words else ["--state", str(cluster.state)]
    done = subprocess.run([sys.executable, "-m", "demo", *words, *state], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {"env": "export SLURM_CONF=", "status": "slurmctld"}.get(words[0], "usage: ") in done.stdout
