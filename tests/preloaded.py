"""Hubs that are forked from a process which has imported JupyterHub: more than half of a hub's start is imports.

Each worker has one such process for each of its clusters. It reads requests from a socket, forks, and answers with the
new process's pid and a pidfd. It carries the cluster's mark, so it ends with the cluster; without a reader, at once.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path

from demo.daemons import MARK

ROOT = Path(__file__).resolve().parent.parent
# What a hub of these tests has imported when it answers, by the first module of each.
MODULES = (
    "alembic.command",
    "demo.cluster",
    "demo.hub",
    "jupyterhub.app",
    "jupyterhub.dbutil",
    "pamela",
    "snowyspawner",
    "sqlalchemy.dialects.sqlite.pysqlite",
    "zoneinfo",
)
_LARGEST = 128 * 1024  # bytes of a request, which is mostly an environment
_servers: dict[str, tuple[subprocess.Popen[bytes], socket.socket]] = {}


class Process:
    """What `subprocess.Popen` has for a hub, of a process that is not our child."""

    def __init__(self, pid: int, pidfd: int, covered: bool) -> None:
        self.pid, self._pidfd, self._covered = pid, pidfd, covered

    def poll(self) -> int | None:
        """Return None while it runs, then 0: nobody has asked for its exit code."""
        return 0 if self._ended(0) else None

    def wait(self, timeout: float) -> int:
        """Wait for its end. Raises `subprocess.TimeoutExpired`."""
        if not self._ended(timeout):
            raise subprocess.TimeoutExpired("jupyterhub", timeout)
        return 0

    def _ended(self, timeout: float) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(timeout * 1000))

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it is still there. Before SIGKILL it writes down what has been covered; see `_cover`."""
        self._send(signal.SIGUSR2 if number == signal.SIGKILL and self._covered else number)

    def kill(self) -> None:
        """End it at once."""
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def __del__(self) -> None:
        os.close(self._pidfd)


def start_hub(argv: list[str], env: Mapping[str, str], directory: Path, log: int) -> Process:
    """Start ``jupyterhub ARGV`` in a session of its own, as `subprocess.Popen` would; *log* is what it writes to."""
    process, server = _servers.get(env[MARK]) or _serve(env)
    if process.poll() is not None:  # it has ended with its cluster, and there is another one now
        server.close()
        _, server = _serve(env)
    umask = os.umask(0)
    os.umask(umask)
    order = {"argv": argv, "env": dict(env), "directory": str(directory), "umask": umask}
    socket.send_fds(server, [json.dumps(order).encode()], [log])
    answer, descriptors, *_ = socket.recv_fds(server, 64, 1)
    return Process(int(answer), descriptors[0], any(name.startswith("COVERAGE_PROCESS") for name in env))


def _serve(env: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.preloaded", str(its.fileno())],
            # Coverage starts in the hub, which has been asked for it, and not here.
            env={name: value for name, value in env.items() if not name.startswith("COVERAGE_")},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            pass_fds=[its.fileno()],
            start_new_session=True,
        )
    _servers[env[MARK]] = process, ours
    return process, ours


@atexit.register
def _end() -> None:
    for process, server in _servers.values():
        server.close()
        process.wait()


def main() -> None:
    """Fork a hub for each request; return as that hub."""
    for name in MODULES:
        importlib.import_module(name)
    for group in ("jupyterhub.authenticators", "jupyterhub.proxies", "jupyterhub.spawners"):
        for entry_point in entry_points(group=group):
            with suppress(ImportError):  # of something that is optional
                entry_point.load()  # as JupyterHub does, for their settings
    gc.freeze()  # else the first collection in each hub would copy all of this
    channel = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the hubs here
    while True:
        order, descriptors, *_ = socket.recv_fds(channel, _LARGEST, 1)
        if not order:
            os._exit(0)
        if not (pid := os.fork()):
            break
        pidfd = os.pidfd_open(pid)
        socket.send_fds(channel, [str(pid).encode()], [pidfd])
        for descriptor in (pidfd, *descriptors):
            os.close(descriptor)
    channel.close()
    _become(json.loads(order), descriptors[0])


def _become(order: dict, log: int) -> None:
    """Be the process that was asked for, up to what it runs."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(order["env"])
    os.umask(order["umask"])
    os.chdir(order["directory"])
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    sys.argv = ["jupyterhub", *order["argv"]]
    time.tzset()


def _cover() -> None:
    import coverage

    if measured := coverage.process_startup():

        def kill(*_: object) -> None:
            # As SIGKILL at this moment: the hub does nothing more. What its tests have covered would be lost.
            measured.save()
            os.kill(os.getpid(), signal.SIGKILL)

        signal.signal(signal.SIGUSR2, kill)


if __name__ == "__main__":
    main()
    from jupyterhub.app import JupyterHub

    _cover()
    JupyterHub.launch_instance()
