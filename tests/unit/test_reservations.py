"""Reservations as scontrol shows them, and whose they are."""

from __future__ import annotations

import pytest

from snowyspawner.slurm.reservations import Reservation, parse_reservations

# Slurm 22.05 with SLURM_TIME_FORMAT=%s.
SHOWN = (
    "ReservationName=lab1 StartTime=1795408771 EndTime=1795412371 Duration=01:00:00 Nodes=s1 NodeCnt=1 CoreCnt=16 "
    "Features=(null) PartitionName=(null) Flags=SPEC_NODES TRES=cpu=16 Users=ann,bob Groups=(null) Accounts=(null) "
    "Licenses=(null) State=ACTIVE BurstBuffer=(null) Watts=n/a MaxStartDelay=(null)\n"
)


def made(users: str = "", accounts: str = "", state: str = "ACTIVE", flags: str = "") -> Reservation:
    def split(text: str) -> tuple[str, ...]:
        return tuple(name for name in text.split(",") if name)

    return Reservation("r", state, None, None, split(users), split(accounts), split(flags))


def test_a_reservation_is_read() -> None:
    (found,) = parse_reservations(SHOWN)
    assert found == Reservation("lab1", "ACTIVE", 1795408771, 1795412371, ("ann", "bob"), (), ("SPEC_NODES",))
    assert found.usable_by("ann", [])
    assert not found.usable_by("eve", [])


@pytest.mark.parametrize("output", ["No reservations in the system\n", "", "CLUSTER: snowy\n", "x=y\n"])
def test_none_is_none(output: str) -> None:
    assert parse_reservations(output) == []


def test_times_in_another_format_are_left_out() -> None:
    (found,) = parse_reservations("ReservationName=a StartTime=2026-11-23T05:00:00 Users=ann State=ACTIVE")
    assert (found.start, found.end) == (None, None)


@pytest.mark.parametrize(
    ("reservation", "usable"),
    [
        (made(users="ann"), True),
        (made(users="bob"), False),
        (made(accounts="g1"), True),
        (made(accounts="g9"), False),
        # Both must agree.
        (made(users="ann", accounts="g1"), True),
        (made(users="bob", accounts="g1"), False),
        (made(users="ann", accounts="g9"), False),
        (made(users="-ann"), False),
        (made(users="-bob"), True),
        (made(accounts="-g1"), True),  # there is g2
        (made(accounts="-g1,-g2"), False),
        (made(users="ann", state="INACTIVE"), False),
        (made(users="ann", flags="MAINT,SPEC_NODES"), False),
        (made(), False),
    ],
)
def test_whose_it_is(reservation: Reservation, usable: bool) -> None:
    assert reservation.usable_by("ann", ["g1", "g2"]) == usable


def test_of_somebody_whose_projects_are_not_known_only_the_name_counts() -> None:
    assert made(users="ann").usable_by("ann", [])
    assert not made(accounts="g1").usable_by("ann", [])
