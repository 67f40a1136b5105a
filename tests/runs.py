"""What one run of the tests has for itself on this machine, and removing what is left of a run that was killed.

Each worker of pytest-xdist has a miniature cluster of its own. All that belongs to a run is named after its state
directory: the state directories of the workers, their accounts, and the few files that have to be somewhere else.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import sys
import time
from pathlib import Path

from demo import DemoError
from demo.accounts import changes, end_processes
from demo.cluster import Cluster
from demo.commands import run
from demo.daemons import Daemons, stop
from demo.directories import CACHE, default_state, discard, own_directory

from . import machine

#: Kinds of accounts: the clusters' people, a demo beside them, a hub's service account, another Site's people, the
#: lesson's students.
KINDS = ("snt", "sng", "sns", "snw", "snc")
SUDOERS = Path("/etc/sudoers.d")
HELPERS = Path("/usr/local/libexec")
PATIENCE = 60  # seconds for the workers of a run that was killed to end


def base() -> Path:
    """Return the run's state directory. SNOWYSPAWNER_TEST_STATE lets two runs of one checkout stand side by side."""
    default = default_state()
    return Path(os.environ.get("SNOWYSPAWNER_TEST_STATE") or default.with_name(f"{default.name}-test"))


def state_directory(kind: str = "") -> Path:
    """Return this worker's state directory; *kind* tells a further cluster of the same worker."""
    parts = (str(base()), os.environ.get("PYTEST_XDIST_WORKER"), kind)
    return Path("-".join(part for part in parts if part))


def _names(kind: str) -> str:
    return kind + hashlib.sha256(os.fsencode(base())).hexdigest()[:6]


def account_prefix(kind: str) -> str:
    """Return the prefix of the accounts of a *kind* that this worker alone has."""
    return _names(kind) + os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("g") + "n"


class Claim:
    """The right to use the run's state directory: one run at a time has it.

    The process that was started takes it, and cleans up after a run that was killed. Its workers `join` it: such a run
    has ended when they have, too.
    """

    def __init__(self) -> None:
        """Try to take it; *held* tells whether that went well."""
        self._own, self._workers = (_open(name) for name in ("run", "workers"))
        self.held = _try_lock(self._own)

    def clean(self) -> list[str]:
        """Remove what is left when the workers have ended; return what was undone, a line each."""
        deadline = time.monotonic() + PATIENCE
        while not _try_lock(self._workers) and time.monotonic() < deadline:
            time.sleep(0.1)
        fcntl.flock(self._workers, fcntl.LOCK_UN)
        return _clean()

    def release(self) -> None:
        """Give it up."""
        os.close(self._own)
        os.close(self._workers)


def join() -> None:
    """Be a worker of the run as long as this process lives."""
    fcntl.flock(_open("workers"), fcntl.LOCK_SH)


def _open(name: str) -> int:
    path = own_directory(CACHE) / f"{_names('tests-')}.{name}.lock"
    return os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _clean() -> list[str]:
    """Remove clusters, accounts and files of the run."""
    undone: list[str] = []
    for state in sorted(base().parent.glob(f"{base().name}*")):
        if state.is_dir() and (state == base() or state.name.startswith(f"{base().name}-")):
            try:
                undone += Cluster(state).down()
            except DemoError as error:  # of another version, perhaps: its daemons are known all the same
                stop(Daemons(state).marked())
                undone.append(f"{state} removed: {error}")
            machine.forget(state)
            discard(state)
    starts = tuple(_names(kind) for kind in KINDS)
    left = [account for account in pwd.getpwall() if account.pw_name.startswith(starts)]
    end_processes({account.pw_uid for account in left})
    for account in left:
        with changes():
            run(["userdel", "--force", account.pw_name], may_fail=True)
        undone.append(f"account removed: {account.pw_name}")
    for directory in (SUDOERS, HELPERS):
        for path in directory.glob(f"{_names('sns')}*"):
            path.unlink()
            undone.append(f"{path} removed")
    return undone


def main() -> None:
    """Remove everything that the run's state directory stands for: `make test-down`."""
    claim = Claim()
    if not claim.held:
        sys.exit(f"a run uses {base()}: wait for its end")
    for line in claim.clean() or ["nothing is left"]:
        sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
