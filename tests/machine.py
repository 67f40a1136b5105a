"""A machine beside this one, to install on: this one's files as they are, under a layer that takes what is changed.

Its processes are started by a real systemd, in namespaces of their own (mounts, processes, cgroups). Network and
accounts' numbers are this machine's, so that the miniature cluster is its cluster. Nothing that is written there stays.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from demo.commands import SYSTEM_PATH, wait_until
from demo.daemons import MARK

CGROUPS = Path("/sys/fs/cgroup")
#: Where systemd finds what it needs of cgroups in version 1.
HIERARCHIES = ("systemd", "devices")
# No unit of the machine beside it starts: they are this machine's daemons, and its settings of the kernel.
_EMPTY = """
umask 022
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$TOP"
mkdir "$TOP/upper" "$TOP/work" "$TOP/root"
mount -t overlay -o "lowerdir=/,upperdir=$TOP/upper,workdir=$TOP/work" overlay "$TOP/root"
cd "$TOP/root"
mount -t proc proc proc
mount --rbind /dev dev
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
for name in $HIERARCHIES; do
    mkdir "sys/fs/cgroup/$name"
    options=$name
    [ "$name" != systemd ] || options=none,name=systemd
    mount -t cgroup -o "$options" cgroup "sys/fs/cgroup/$name"
done
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
for path in $SHARED; do
    mkdir -p ".$path"
    mount --rbind "$path" ".$path"
done
rm -rf etc/systemd/system lib/systemd/system-generators/* lib/systemd/system/*.wants lib/systemd/system/*.requires
mkdir -p etc/systemd/system
# What apt-get installs is started by the page, and not before.
printf '#!/bin/sh\\nexit 101\\n' > usr/sbin/policy-rc.d
chmod 755 usr/sbin/policy-rc.d
export container=other
# Not chroot: whoever enters the mounts of a unit would be at this machine's own root.
pivot_root . mnt
umount -l mnt
exec /lib/systemd/systemd --system --unit=multi-user.target --show-status=no --log-target=console
"""

# Tests beside it measure how quick something is. The kernel's autogroups (sched(7)) have a priority of their own.
_LAST = '{ echo 5 >/proc/self/autogroup; } 2>/dev/null; exec nice -n 5 "$@"'


class Machine:
    """A machine that is up. `run` runs a command on it, `path` says where its file is for this machine."""

    def __init__(self, pid: int, environment: dict[str, str]) -> None:
        self._pid, self._environment = pid, environment

    def path(self, of: str) -> Path:
        """Return this machine's path of the file *of* that machine."""
        return Path(f"/proc/{self._pid}/root{of}")

    def run(self, argv: Sequence[str], *, cwd: str = "/root", check: bool = True) -> str:
        """Run a command as root, with a low priority; return what it wrote."""
        enter = ["nsenter", f"--target={self._pid}", "--mount", "--pid", "--cgroup", "--root", f"--wd={self.path(cwd)}"]
        done = subprocess.run(
            ["sh", "-c", _LAST, "sh", *enter, "--", *argv],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=600,
            start_new_session=True,
        )
        if check and done.returncode:
            raise AssertionError(f"{argv}: {done.returncode}\n{done.stdout[-6000:]}")
        return done.stdout


@contextmanager
def machine(top: Path, shared: Sequence[Path]) -> Iterator[Machine]:
    """Bring a machine up, whose changes are kept below the directory *top*; both machines have *shared* in common."""
    top.mkdir(parents=True)
    forget(top.parent)
    groups = _groups(top.parent)
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("COVERAGE_", "COV_", "PYTEST_", "PYTHON", "SLURM_", "SNOWYSPAWNER_", "VIRTUAL_ENV"))
    }
    environment = {"HOME": "/root", **own, "PATH": SYSTEM_PATH, "DEBIAN_FRONTEND": "noninteractive"}
    words = {"TOP": top, "SHARED": " ".join(map(str, shared)), "HIERARCHIES": " ".join(HIERARCHIES)}
    enter = 'for group in $GROUPS; do mkdir $group && echo $$ > $group/cgroup.procs; done; exec "$@"'
    unshare = ["unshare", "--mount", "--pid", "--fork", "--cgroup", "--kill-child", "sh", "-e", "-c", _EMPTY]
    with open(top.with_suffix(".log"), "wb") as log:
        process = subprocess.Popen(
            ["sh", "-e", "-c", enter, "sh", *unshare],
            env={
                **{name: str(value) for name, value in words.items()},
                "GROUPS": " ".join(map(str, groups)),
                "PATH": SYSTEM_PATH,
                MARK: f"{top.parent}:machine",
            },
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_until(lambda: process.poll() is not None or _first(process.pid), "the machine's systemd", 30)
        assert process.poll() is None, top.with_suffix(".log").read_text()
        made = Machine(_first(process.pid), environment)
        wait_until(lambda: made.run(["systemctl", "is-system-running"], check=False).strip() in UP, "systemd", 30)
        yield made
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        forget(top.parent)
        top.rmdir()


UP = ("running", "degraded")


def _first(pid: int) -> int:
    """Return the pid of the first process in the namespace that *pid* has made, once it is systemd; else 0."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with suppress(OSError):
            if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                return int(child)
    return 0


def _groups(state: Path) -> list[Path]:
    return [CGROUPS / name / f"{state.name}-machine" for name in HIERARCHIES]


def forget(state: Path) -> None:
    """Remove what is left of a machine below the directory *state* that has ended, as systemd cannot: its cgroups."""
    for group in filter(Path.exists, _groups(state)):
        files = list(group.rglob("cgroup.procs"))
        wait_until(lambda files=files: not any(path.read_text() for path in files), "the end of the machine", 20)
        for directory, _, _ in os.walk(group, topdown=False):
            os.rmdir(directory)
