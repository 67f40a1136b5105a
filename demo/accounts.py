"""The demo's people: system accounts, made and removed by us alone."""

from __future__ import annotations

import os
import pwd
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from . import DemoError
from .commands import run
from .daemons import PROC, all_pids, stop
from .directories import checkout_hash, machine_lock
from .state import State

PREFIX = re.compile(r"[a-z][a-z0-9-]{0,15}")


def exists(name: str) -> bool:
    """Tell whether the system knows an account of this name."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def is_ours(state: State, name: str) -> bool:
    """Tell whether *name* is an account that was made for *state*: its home says so."""
    return exists(name) and pwd.getpwnam(name).pw_dir == str(home(state, name))


def home(state: State, name: str) -> Path:
    """Return the home directory of a demo account."""
    return state.path / "home" / name


def choose_names(
    prefix: str, count: int, may_fall_back: bool, taken: Callable[[str], bool], salt: str
) -> tuple[str, ...]:
    """Return *count* names that are free (or ours).

    When one is taken by somebody else, another prefix is tried if that is allowed. Raises `DemoError` otherwise.
    """
    if not PREFIX.fullmatch(prefix):
        raise DemoError(f"--user-prefix {prefix}: a lower-case letter, then letters, digits or -, at most 16")
    busy: list[str] = []
    for attempt in [prefix] + ([f"{prefix[:12]}{salt[:3]}-"] if may_fall_back else []):
        names = tuple(f"{attempt}{number}" for number in range(1, count + 1))
        busy = [name for name in names if taken(name)]
        if not busy:
            return names
    raise DemoError(f"the account {', '.join(busy)} exists and was not made by this demo: choose another --user-prefix")


def make(state: State, say: Callable[[str], None]) -> list[str]:
    """Make the accounts that are missing; return all names. A new password is written down for root only."""

    with changes():
        return _make(state, say)


@contextmanager
def changes() -> Iterator[None]:
    """Change the system's accounts alone: useradd and its like give up when another one is at work."""
    with machine_lock("accounts"):
        yield


def _make(state: State, say: Callable[[str], None]) -> list[str]:
    def taken(name: str) -> bool:
        return exists(name) and not is_ours(state, name)

    salt = checkout_hash()
    names = choose_names(state.user_prefix, state.users, state.prefix_fallback, taken, salt)
    if names and not names[0].startswith(state.user_prefix + "1"):
        say(f"accounts {state.user_prefix}N exist already and are not ours: using {names[0]} …")
    (state.path / "home").mkdir(exist_ok=True)
    for name in names:
        if name not in state.accounts:
            state.accounts.append(name)  # first remembered, then made: a crash between leaves nothing behind
            state.save()
        if not exists(name):
            run(
                [
                    "useradd",
                    "--no-create-home",
                    "--user-group",
                    "--shell",
                    "/bin/bash",
                    "--home-dir",
                    home(state, name),
                    name,
                ]
            )
        if name not in state.passwords:
            run(["chpasswd"], text=f"{name}:{state.remember_password(name)}\n")
        _make_home(home(state, name), name)
    return list(names)


def _make_home(path: Path, name: str) -> None:
    if path.is_dir():
        return
    shutil.copytree("/etc/skel", path)
    owner = pwd.getpwnam(name)
    for folder, _, files in os.walk(path):
        for entry in (".", *files):
            os.chown(Path(folder) / entry, owner.pw_uid, owner.pw_gid, follow_symlinks=False)
    path.chmod(0o700)


def remove(state: State) -> list[str]:
    """End what the demo accounts run, remove the accounts with their homes, and return their names."""
    ours = [name for name in state.accounts if is_ours(state, name)]
    end_processes({pwd.getpwnam(name).pw_uid for name in ours})
    for name in ours:
        # The home goes with the state directory. userdel also removes the group and the subordinate ids.
        with changes():
            run(["userdel", name])
        shutil.rmtree(home(state, name), ignore_errors=True)
    state.accounts = []
    return ours


def end_processes(uids: set[int]) -> None:
    """End every process of these users."""
    stop((pid for pid in all_pids() if _uid(pid) in uids), grace=3)


def _uid(pid: int) -> int:
    try:
        return (PROC / str(pid)).stat().st_uid
    except OSError:
        return -1
