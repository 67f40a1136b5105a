"""Where the demo keeps what it makes: directories in a place that everybody may write to, so they are checked."""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from . import CHECKOUT, DemoError
from .commands import open_umask, run

# Compute nodes' jobs run as other users, so neither may lie below a closed directory (as a checkout may).
CACHE = Path("/var/tmp/snowyspawner-cache")
LONGEST_STATE = 64  # characters; a Unix socket's whole path may have 107


def checkout_hash() -> str:
    """Return a short name for this checkout: two of them side by side do not meet."""
    return hashlib.sha256(os.fsencode(CHECKOUT)).hexdigest()[:6]


def default_state() -> Path:
    """Return this checkout's state directory."""
    return Path(f"/var/tmp/snowyspawner-demo-{checkout_hash()}")


def own_directory(path: Path, mode: int = 0o755) -> Path:
    """Make *path*, or make sure that it is a directory that only root can have prepared.

    Raises `DemoError` if somebody else owns it or may write to it.
    """
    path.mkdir(parents=True, exist_ok=True, mode=mode) if not path.is_symlink() else None
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise DemoError(f"{path} was not made by this demo (owner, kind or mode): look at it and remove it")
    path.chmod(mode)
    return path


def check_reachable(path: Path) -> None:
    """Raise `DemoError` unless every user can get to *path*."""
    for parent in path.resolve().parents:
        if parent.exists() and not parent.stat().st_mode & stat.S_IXOTH:
            raise DemoError(
                f"{path}: other users cannot pass {parent}, so no job could run there: choose another --state"
            )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold *path* as a lock; whoever comes second waits. It is given back when the process ends, however it ends."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def machine_lock(name: str) -> Iterator[None]:
    """Hold the lock *name* that all demos and tests of this machine share."""
    own_directory(CACHE)
    with locked(CACHE / f"{name}.lock"):
        yield


def cached(name: str, build: Callable[[Path, Path], None]) -> Path:
    """Return the cache's *name*, built by ``build(where, final)`` when it is not there yet.

    It is built beside its place and renamed when it is complete, by one process at a time: a build that was
    interrupted leaves nothing that could be mistaken for a result.
    """
    final = CACHE / name
    with machine_lock(name):
        if not final.exists():
            # Leftovers of a build that was killed: nobody else builds while we hold the lock.
            work = CACHE / f"{name}.unfinished"
            discard(work)
            with open_umask():
                work.mkdir()
                try:
                    build(work, final)
                    (work / "result").rename(final)
                finally:
                    discard(work)
    return final


def discard(path: Path) -> None:
    """Remove a directory with all it holds, if it is there. (rm: several times as quick as shutil.rmtree.)"""
    run(["rm", "-rf", "--one-file-system", "--", path], may_fail=True)
