"""The state directory of one demo, and what is remembered in it."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

from . import DemoError
from .directories import CACHE, LONGEST_STATE, check_reachable, machine_lock, own_directory

PORTS_PER_STATE = 100
FIRST_BLOCK, BLOCKS = 20000, 110  # below Linux's own range of ephemeral ports, which begins at 32768


@dataclass
class State:
    """What the demo must know the next time. Written at every change, so that a crash loses nothing."""

    path: Path
    site: str = "snowy"
    nodes: int = 2
    gpu_nodes: int = 2
    users: int = 3
    user_prefix: str = "student"
    image: str = "small"  # or "course": the one that `make image` builds
    prefix_fallback: bool = True  # whether another prefix may be taken when accounts of that name exist
    accounts: list[str] = field(default_factory=list)  # system accounts that we made
    devices: list[str] = field(default_factory=list)  # device nodes that we made
    port_base: int = 0
    hub_url_port: int = 8000

    @classmethod
    def load(cls, path: Path) -> State:
        """Read what is remembered in *path*; a fresh state when there is nothing."""
        try:
            raw = json.loads((path / "state.json").read_text(encoding="utf-8"))
            return cls(path=path, **raw)
        except FileNotFoundError:
            return cls(path=path)
        except (OSError, ValueError, TypeError) as error:
            raise DemoError(f"{path / 'state.json'} cannot be read: {error}") from None

    @property
    def exists(self) -> bool:
        """Tell whether there is anything to take down."""
        return (self.path / "state.json").exists()

    def prepare(self) -> None:
        """Make the state directory, or check the one that is there."""
        if len(str(self.path)) > LONGEST_STATE or not self.path.is_absolute():
            raise DemoError(f"--state {self.path}: an absolute path of at most {LONGEST_STATE} characters, please")
        if any(not (c.isascii() and (c.isalnum() or c in "/._-")) for c in str(self.path)):
            raise DemoError(f"--state {self.path}: letters, digits and / . _ - only (it goes into slurm.conf)")
        check_reachable(self.path)
        own_directory(self.path)

    def save(self) -> None:
        """Write down what is to be remembered."""
        raw = asdict(self)
        del raw["path"]
        write(self.path / "state.json", json.dumps(raw, indent=2) + "\n")

    # Secrets lie in a file of their own, for root only.

    @property
    def passwords(self) -> dict[str, str]:
        """Return the demo accounts' passwords."""
        try:
            found: dict[str, str] = json.loads((self.path / "passwords.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return found

    def remember_password(self, name: str) -> str:
        """Think of a password for the account *name* and return it."""
        password = secrets.token_urlsafe(9)
        write(self.path / "passwords.json", json.dumps(self.passwords | {name: password}), mode=0o600)
        return password

    # Ports: a block of them for each state, found free once and kept, so that a hub and its jobs meet again.

    def port(self, offset: int) -> int:
        """Return the port at *offset* of this state's block."""
        return self.port_base + offset

    def choose_ports(self) -> None:
        """Find a block in which no port is in use; the one used before when it is free.

        The choice is remembered at once: another state that is brought up meanwhile has to take another block, also
        while nothing listens yet.
        """
        start = int(hashlib.sha256(os.fsencode(self.path)).hexdigest(), 16) % BLOCKS
        order = [FIRST_BLOCK + (start + step) % BLOCKS * PORTS_PER_STATE for step in range(BLOCKS)]
        with machine_lock("ports"):
            taken = {other.port_base for other in _states() if other.path != self.path}
            for base in ([self.port_base] if self.port_base else []) + order:
                if base not in taken and all(is_free(port) for port in range(base, base + PORTS_PER_STATE)):
                    self.port_base = base
                    self.save()
                    _remember(self.path)
                    return
        raise DemoError(f"no free ports between {FIRST_BLOCK} and {FIRST_BLOCK + BLOCKS * PORTS_PER_STATE}")


def _states() -> list[State]:
    """Return the states of this machine that have chosen ports. One that was removed no longer needs them."""
    found: list[State] = []
    with suppress(OSError, ValueError):
        for path in json.loads((CACHE / "states.json").read_text(encoding="utf-8")):
            with suppress(DemoError):  # what cannot be read is of another version: its ports are in use, or free
                state = State.load(Path(path))
                found += [state] if state.exists else []
    return found


def _remember(path: Path) -> None:
    paths = sorted({str(path), *(str(state.path) for state in _states())})
    write(CACHE / "states.json", json.dumps(paths), mode=0o600)


def free_ports(ports: range, count: int) -> list[int]:
    """Return the first *count* of *ports* that a server could listen on. Raises `DemoError` if there are fewer."""
    found = list(islice((port for port in ports if is_free(port)), count))
    if len(found) < count:
        raise DemoError(f"fewer than {count} free ports between {ports.start} and {ports.stop - 1}")
    return found


def is_free(port: int) -> bool:
    """Tell whether a server could listen on *port*."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 a probe: whoever listens on any address is in the way
        except OSError:
            return False
    return True


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Put *text* into *path* at once and whole, with exactly these permissions."""
    beside = path.with_name(path.name + ".new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, mode)
        file.write(text)
    beside.replace(path)
