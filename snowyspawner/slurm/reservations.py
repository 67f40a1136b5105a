"""What scontrol says of reservations. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

#: scontrol's arguments: a line for each reservation. Times are epoch seconds under ``SLURM_TIME_FORMAT=%s``.
RESERVATIONS = ("-o", "show", "reservation")


class Reservation(NamedTuple):
    """One reservation. Of *users* and *accounts* a leading ``-`` excludes; empty: the other list decides."""

    name: str
    state: str  # ACTIVE, INACTIVE
    start: int | None  # epoch seconds
    end: int | None
    users: tuple[str, ...]
    accounts: tuple[str, ...]
    flags: tuple[str, ...]

    def usable_by(self, user: str, accounts: Collection[str]) -> bool:
        """Tell whether it is active and open to *user* with one of *accounts*: both lists must agree (scontrol(1))."""
        if self.state != "ACTIVE" or "MAINT" in self.flags or not (self.users or self.accounts):
            return False
        return _listed(self.users, [user]) and _listed(self.accounts, accounts)


def _listed(names: tuple[str, ...], mine: Collection[str]) -> bool:
    if not names:
        return True
    if all(name.startswith("-") for name in names):
        return any(f"-{name}" not in names for name in mine)
    return any(name in names for name in mine)


def parse_reservations(output: str) -> list[Reservation]:
    """Read ``scontrol -o show reservation``; lines that are anything else are passed over."""
    found = []
    for line in output.splitlines():
        if not line.startswith("ReservationName="):
            continue
        fields = dict(word.partition("=")[::2] for word in line.split())
        found.append(
            Reservation(
                name=fields["ReservationName"],
                state=fields.get("State", ""),
                start=_epoch(fields.get("StartTime", "")),
                end=_epoch(fields.get("EndTime", "")),
                users=_names(fields.get("Users", "")),
                accounts=_names(fields.get("Accounts", "")),
                flags=_names(fields.get("Flags", "")),
            )
        )
    return found


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name and name != "(null)")


def _epoch(text: str) -> int | None:
    return int(text) if text.isdigit() else None
