"""Daemons that the demo starts: each known by its own process, never by its name.

A daemon carries a mark in its environment, ``SNOWYSPAWNER_DEMO_DAEMON=STATE:NAME``. A pid file alone proves nothing
after a crash or a reboot, when another process may have the number; the mark proves whose process it is, and finds
one whose pid file was never written.
"""

from __future__ import annotations

import hashlib
import os
import select
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from . import DemoError
from .commands import SYSTEM_PATH, wait_until
from .state import write

MARK = "SNOWYSPAWNER_DEMO_DAEMON"
PROC = Path("/proc")
_children: set[int] = set()


@dataclass(frozen=True)
class Daemon:
    """A daemon to run: how, and what its configuration says (when that changes, it is started anew)."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    configuration: str = ""
    prefix: Sequence[str] = ()  # a command that becomes this one, such as setpriv

    @property
    def program(self) -> str:
        """Return the program's name."""
        return Path(self.argv[0]).name

    @property
    def command(self) -> list[str]:
        """Return what is executed."""
        return [*self.prefix, *self.argv]

    @property
    def digest(self) -> str:
        """Return what tells this configuration from another."""
        text = repr((self.command, sorted(self.env.items()), self.configuration))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class Daemons:
    """The daemons of one state directory."""

    def __init__(self, state: Path, proc: Path = PROC) -> None:
        """Keep pid files in ``state/run`` and logs in ``state/log``."""
        self._state = state
        self._proc = proc

    def _pid_file(self, name: str) -> Path:
        return self._state / "run" / f"{name}.pid"

    def _mark(self, name: str) -> str:
        return f"{self._state}:{name}"

    def pid(self, name: str, digest: str = "") -> int | None:
        """Return the pid of the running daemon *name*; None if it does not run (or has another configuration)."""
        try:
            pid, _, started_as = self._pid_file(name).read_text(encoding="ascii").strip().partition(" ")
        except (OSError, UnicodeDecodeError):
            return None
        if not pid.isdigit() or self._mark_of(int(pid)) != self._mark(name):
            return None
        return int(pid) if digest in ("", started_as) else None

    def _mark_of(self, pid: int) -> str:
        """Return the mark of a process; in the middle of an exec it has none for a moment."""
        for _ in range(10):
            mark = mark_of(pid, self._proc)
            if mark or not (self._proc / str(pid)).exists():
                break
            time.sleep(0.03)
        return mark

    def start(self, daemon: Daemon) -> bool:
        """Start *daemon* unless it runs as it should already; tell whether it was started."""
        if self.pid(daemon.name, daemon.digest):
            return False
        # Not its children: a session survives the end of its slurmd as it does on a real node.
        stop(pid for pid in self.pids([daemon.name]) if program_of(pid, self._proc) == daemon.program)
        argv = daemon.command
        env = {"PATH": SYSTEM_PATH, "LANG": "C.UTF-8", **daemon.env, MARK: self._mark(daemon.name)}
        log = self._state / "log" / f"{daemon.name}.out"
        out = (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        # posix_spawn rather than Popen: nobody waits for a daemon, it outlives this process in a session of its own.
        try:
            pid = os.posix_spawnp(
                argv[0],
                argv,
                env,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    out,
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,
                setsigmask=[],
                setsigdef=[signal.SIGINT, signal.SIGPIPE, signal.SIGHUP],
            )
        except OSError as error:
            raise DemoError(f"{argv[0]}: {error.strerror}") from None
        _children.add(pid)
        write(self._pid_file(daemon.name), f"{pid} {daemon.digest}\n")
        return True

    def check(self, name: str) -> None:
        """Raise `DemoError` with the end of its log when the daemon *name* has died."""
        try:
            # In the middle of an exec (unshare, setpriv, the daemon) a process has no environment to be read.
            wait_until(lambda: self.pid(name), name, 2)
        except DemoError:
            log = self._state / "log" / f"{name}.out"
            tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:] if log.exists() else []
            raise DemoError("\n".join([f"{name} has stopped; the end of {log}:", *tail])) from None

    def marked(self) -> dict[int, str]:
        """Return every process that carries this state's mark, and the daemon it belongs to."""
        start = self._mark("")
        found = {pid: mark_of(pid, self._proc) for pid in all_pids(self._proc)}
        return {pid: mark.removeprefix(start) for pid, mark in found.items() if mark.startswith(start)}

    def pids(self, names: Iterable[str]) -> list[int]:
        """Return the processes of the daemons *names*, whether or not their pid files know them."""
        wanted = set(names)
        return [pid for pid, name in self.marked().items() if name in wanted]


def all_pids(proc: Path = PROC) -> list[int]:
    """Return every process id there is."""
    return [int(entry.name) for entry in proc.iterdir() if entry.name.isdigit()]


def mark_of(pid: int, proc: Path = PROC) -> str:
    """Return the mark in a process's environment; empty when it has none, is a zombie, or is gone."""
    start = f"{MARK}=".encode()
    try:
        words = (proc / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    return next((os.fsdecode(word[len(start) :]) for word in words if word.startswith(start)), "")


def program_of(pid: int, proc: Path = PROC) -> str:
    """Return the name of the program that a process runs; empty when it is gone."""
    try:
        return Path(os.fsdecode((proc / str(pid) / "cmdline").read_bytes().split(b"\0")[0])).name
    except OSError:
        return ""


def stop(pids: Iterable[int], grace: float = 15) -> None:
    """End these processes: SIGTERM, and SIGKILL for those that stay longer than *grace* seconds.

    A process is held by a descriptor, not by its number, from the first signal on.
    """
    held: list[int] = []
    for pid in pids:
        with suppress(OSError):
            held.append(os.pidfd_open(pid))
    try:
        for sent, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
            for descriptor in held:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, sent)
            held = _remaining(held, patience)
    finally:
        for descriptor in held:
            os.close(descriptor)
    for child in list(_children):  # an ended child of this process stays a zombie until somebody asks for it
        with suppress(ChildProcessError):
            if os.waitpid(child, os.WNOHANG)[0]:
                _children.discard(child)


def _remaining(held: list[int], patience: float) -> list[int]:
    """Wait until the held processes have ended, and return those that have not."""
    poller = select.poll()
    for descriptor in held:
        poller.register(descriptor, select.POLLIN)
    waiting = set(held)
    while waiting:
        ended = poller.poll(patience * 1000)
        if not ended:
            break
        for descriptor, _ in ended:
            poller.unregister(descriptor)
            waiting.discard(descriptor)
            os.close(descriptor)
    return sorted(waiting)
