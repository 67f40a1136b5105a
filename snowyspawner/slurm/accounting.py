"""What accounting says: how jobs ended (sacct), which accounts somebody may use (sacctmgr). Pure."""

from __future__ import annotations

from typing import NamedTuple

from .squeue import ENDED, STATE_STAGE


class JobEnd(NamedTuple):
    """How a job ended. *state* is Slurm's (``TIMEOUT``), *exit_code* and *signal* the batch script's."""

    state: str
    exit_code: int
    signal: int
    by: str = ""  # for CANCELLED: the user name, or uid, of who did it


SACCT_FORMAT = "JobIDRaw,State,ExitCode"

ACCOUNTS_FORMAT = "account,defaultaccount"


def parse_sacct(output: str) -> dict[str, JobEnd]:
    """Read the rows of `SACCT_FORMAT` (``-n -P -X``): the jobs that are over; others are left out."""
    ends = {}
    for line in output.splitlines():
        parts = line.split("|")
        if len(parts) != 3 or not parts[0].isdigit():
            continue
        state, _, by = parts[1].partition(" by ")
        state = _whole(state.strip())
        if state not in ENDED:
            continue
        code, _, signal = parts[2].partition(":")
        ends[parts[0]] = JobEnd(
            state, int(code) if code.isdigit() else 0, int(signal) if signal.isdigit() else 0, by.strip()
        )
    return ends


def _whole(state: str) -> str:
    # Where a column was too narrow, "OUT_OF_ME+" stands for one state: no two begin alike.
    if not state.endswith("+"):
        return state
    return next((known for known in STATE_STAGE if known.startswith(state[:-1])), state)


def parse_accounts(output: str) -> list[str]:
    """Read `ACCOUNTS_FORMAT` (``-n -P``): each account once, the person's default first, else in Slurm's order."""
    rows = [[part.strip() for part in line.split("|")] for line in output.splitlines() if line.strip()]
    accounts = dict.fromkeys(row[0] for row in rows if row[0])
    # Slurm has the account first that was made last.
    defaults = [row[1] for row in rows if len(row) > 1 and row[1] in accounts]
    return list(dict.fromkeys([*defaults, *accounts]))
