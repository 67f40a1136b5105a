"""Device files: the T4s that this machine does not have, and /dev/fuse, which images are mounted with."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from . import DemoError
from .directories import CACHE, machine_lock
from .state import State, write

NULL = os.makedev(1, 3)  # what a stand-in really is: /dev/null under another name
FUSE = Path("/dev/fuse")


def kind(path: Path) -> str:
    """Return what is there: ``none``, ``stand-in`` (made by a demo) or ``real``."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return "none"
    return "stand-in" if stat.S_ISCHR(found.st_mode) and found.st_rdev == NULL else "real"


def choose(count: int, mine: list[str], where: Path = Path("/dev")) -> list[str]:
    """Return *count* device files: our own stand-ins first, then real GPUs and names that are free.

    A stand-in of another demo is left to it; when one goes, what was chosen here stays.
    """
    others = [where / f"nvidia{number}" for number in range(1000)]
    free = [str(path) for path in others if str(path) not in mine and kind(path) != "stand-in"]
    return sorted([*mine, *free][:count], key=lambda path: (len(path), path))


def make(state: State, count: int) -> list[str]:
    """Return *count* GPU device files, having made a stand-in where there is nothing."""
    with machine_lock("devices"):
        chosen = choose(count, state.devices)
        _make(state, chosen)
    return chosen


def add(state: State, paths: Iterable[str]) -> None:
    """Make a stand-in for each of *paths* where there is nothing."""
    with machine_lock("devices"):
        _make(state, paths)


def _make(state: State, paths: Iterable[str]) -> None:
    missing = [path for path in paths if kind(Path(path)) == "none"]
    state.devices = sorted({*state.devices, *missing})
    state.save()
    for path in map(Path, missing):
        try:
            if not path.parent.exists():
                path.parent.mkdir()
                path.parent.chmod(0o755)  # whatever the umask
            os.mknod(path, stat.S_IFCHR | 0o666, NULL)
            path.chmod(0o666)
        except OSError as error:
            raise DemoError(f"{path} cannot be made: {error.strerror}") from None


def remove(state: State, only: Iterable[str] | None = None) -> list[str]:
    """Remove the stand-ins that were made for *state*, or those of them that are named, and return them."""
    mine = state.devices if only is None else [path for path in only if path in state.devices]
    gone = [path for path in mine if kind(Path(path)) == "stand-in"]
    for path in map(Path, gone):
        path.unlink()
        with suppress(OSError):  # /dev itself, or a directory with more in it
            path.parent.rmdir()
    state.devices = [path for path in state.devices if path not in mine]
    return gone


def open_fuse(state: State) -> str:
    """Let everybody mount images, as on a compute node; return what was changed (empty: nothing).

    The old mode is kept beside the cache, with the demos that rely on the new one: the last of them puts it back.
    """
    with machine_lock("fuse"):
        if not FUSE.exists():
            raise DemoError("/dev/fuse is missing, and container images are mounted with it: modprobe fuse")
        mode = stat.S_IMODE(FUSE.stat().st_mode)
        record = _fuse_record()
        if mode & 0o006 == 0o006 and not record["users"]:
            return ""
        if mode & 0o006 != 0o006:
            record["mode"] = mode
            FUSE.chmod(mode | 0o666)
        record["users"] = sorted({*record["users"], str(state.path)})
        write(CACHE / "fuse.json", json.dumps(record), mode=0o600)
        return f"/dev/fuse: mode {mode:04o} -> 0666" if mode & 0o006 != 0o006 else ""


def close_fuse(state: State) -> str:
    """Put the mode of /dev/fuse back if no other demo relies on it; return what was changed."""
    with machine_lock("fuse"):
        record = _fuse_record()
        if str(state.path) not in record["users"]:
            return ""
        record["users"] = [user for user in record["users"] if user != str(state.path)]
        write(CACHE / "fuse.json", json.dumps(record), mode=0o600)
        if record["users"] or record["mode"] is None or not FUSE.exists():
            return ""
        FUSE.chmod(record["mode"])
        (CACHE / "fuse.json").unlink()
        return f"/dev/fuse: mode back to {record['mode']:04o}"


def _fuse_record() -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((CACHE / "fuse.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"mode": None, "users": []}
    # A state directory that somebody removed by hand no longer relies on anything.
    record["users"] = [user for user in record["users"] if (Path(user) / "state.json").exists()]
    return record
