"""Running commands, and waiting for things: the only places that start a process or let time pass."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from . import DemoError

POLL_INTERVAL = 0.05  # seconds between two looks of `wait_until`
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    text: str = "",
    timeout: float = 600,
    may_fail: bool = False,
) -> str:
    """Run a command with *text* on its stdin and return what it wrote to stdout.

    *env* is added to this process's own environment; the places of system commands are always on its PATH (an
    ordinary user's has no sbin). Raises `DemoError` with the end of its output when it fails, unless *may_fail*.
    """
    words = [str(word) for word in argv]
    full = {**os.environ, "LC_ALL": "C", **(env or {})}
    full["PATH"] = f"{full.get('PATH', '')}:{SYSTEM_PATH}".lstrip(":")
    try:
        done = subprocess.run(
            words,
            input=text,
            env=full,
            cwd=cwd,
            timeout=timeout,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        raise DemoError(f"{words[0]}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise DemoError(f"{' '.join(words[:4])}: no end after {timeout:.0f} s") from None
    if done.returncode and not may_fail:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise DemoError(f"{' '.join(words[:6])}: exit code {done.returncode}\n{tail}")
    return done.stdout


def wait_until(condition: Callable[[], object], what: str, timeout: float = 30) -> None:
    """Return as soon as *condition* is true. Raises `DemoError` naming *what* after *timeout* seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise DemoError(f"{what}: not within {timeout:.0f} s")
        time.sleep(POLL_INTERVAL)


@contextmanager
def open_umask() -> Iterator[None]:
    """Let others read what is made inside, whatever the caller's umask is; private files say so themselves."""
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)
