"""Starts that wait: for their time, over a restart of the hub, for hours, and many at once."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest

from demo import packages
from demo.progress import Progress

from ..faults import FaultHub, ready
from ..hubs import until
from .test_session import queued
from .test_slurm_away import ONE, end_all, later

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

HOUR = 3600


@asynccontextmanager
async def a_hub(cluster: Any, users: list[str], **traits: Any) -> AsyncIterator[FaultHub]:
    """A hub of its own, not started yet; it leaves no server behind."""
    made = FaultHub(cluster, cluster.state / "fault-hub", **traits)
    try:
        yield made
    finally:
        try:
            await end_all(made, users)
        finally:
            await made.stop()  # it would be in the way of the next test's


async def test_a_start_begins_at_its_time_though_the_hub_was_restarted_meanwhile(
    cluster: Any, users: list[str], slurm: Any
) -> None:
    """One is taken up by its person, another by its own claim; neither before its time nor much after it."""
    name = users[0]
    async with a_hub(cluster, users) as hub:
        await hub.start()
        begin = int(time.time()) + 25
        for server in ("visited", "left"):
            status, answer = await hub.submit(name, {**ONE, "begin": later(cluster, begin - time.time())}, server)
            assert status in (201, 202), answer
        before = {server: (await hub.job(name, server))["job_id"] for server in ("visited", "left")}
        await hub.stop(signal.SIGTERM)
        assert sorted(queued(slurm, cluster, name)) == sorted(before.values())
        await hub.start()
        await hub.submit(name, {}, "visited")
        model = await hub.model(name, "visited")
        assert model is not None
        assert model["pending"] == "spawn"
        assert time.time() < begin, "the restart took too long for this test"
        for server in before:
            await ready(hub, name, server)
            job = await hub.job(name, server)
            assert job["job_id"] == before[server]
            # Slurm looks every two seconds whose time has come; the machine is busy.
            assert -1 <= job["begun_at"] - begin < 10, job["begun_at"] - begin
            assert await hub.job_seen(name, server) == before[server]


class Clock:
    """What the hub takes for the time, its monotonic clock included: libfaketime reads it from a file."""

    def __init__(self, file: Path) -> None:
        packages.install(packages.CLOCK, Progress(quiet=True))
        (library,) = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
        self.file = file
        self.set(0)
        self.env = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            # Else it would be read every ten seconds only.
            "FAKETIME_CACHE_DURATION": "1",
        }

    def set(self, seconds: float) -> None:
        """Put the clock *seconds* ahead."""
        new = self.file.with_suffix(".new")
        new.write_text(f"+{seconds:.0f}s\n")
        new.rename(self.file)


@pytest.fixture
def clock(cluster: Any) -> Clock:
    return Clock(cluster.state / "clock")


async def test_a_start_hours_away_does_not_time_out_before_its_time(
    cluster: Any, users: list[str], slurm: Any, clock: Clock
) -> None:
    """The hub's clock is put ahead by hours; Slurm's is not, so that the job begins when the test says so.

    Both of the hub's limits count from the time that was chosen: ours, and JupyterHub's start_timeout, which is
    measured by the monotonic clock.
    """
    name, wait = users[0], 5 * HOUR
    async with a_hub(cluster, users, queue_timeout=600) as hub:
        hub.more_env = clock.env
        await hub.start()
        assert abs(await _hubs_time(hub) - time.time()) < 5
        begin = later(cluster, wait)
        for server in ("in-time", "too-late"):
            await hub.submit(name, {**ONE, "begin": begin}, server)
        jobs = {server: (await hub.job(name, server))["job_id"] for server in ("in-time", "too-late")}

        for ahead in (wait / 2, wait - 60, wait + 300):
            clock.set(ahead)
            await asyncio.sleep(4)
            assert abs(await _hubs_time(hub) - time.time() - ahead) < 30
            for server in jobs:
                model = await hub.model(name, server)
                assert model is not None
                assert model["pending"] == "spawn", (server, ahead, hub.log()[-2000:])
        slurm("scontrol", "-M", cluster.site.cluster, "update", f"JobId={jobs['in-time']}", "StartTime=now")
        await ready(hub, name, "in-time")
        assert await hub.job_seen(name, "in-time") == jobs["in-time"]

        # The limit itself is there.
        clock.set(wait + 1000)

        async def given_up() -> bool:
            return bool(((await hub.state(name, "too-late"))["last"] or {}).get("reason") == "queue_timeout")

        await until(given_up, 90, f"the start is given up; see {hub.log_path}", 0.5)
        assert jobs["too-late"] not in queued(slurm, cluster, name)
        model = await hub.model(name, "in-time")
        assert model is not None
        assert model["ready"]


async def _hubs_time(hub: FaultHub) -> float:
    """What the hub takes for the time, by the Date of its answers."""
    assert hub.session is not None
    async with hub.session.get(f"{hub.own}/hub/api/") as answer:
        return parsedate_to_datetime(answer.headers["Date"]).timestamp()


async def test_the_121st_start_that_waits_is_taken_like_the_first(
    cluster: Any, users: list[str], slurm: Any, figure: Any
) -> None:
    """JupyterHub's limit is 100 that are spawning; ours none, as jobs in the queue cost the hub nothing."""
    servers = [(users[number % 3], f"w{number}") for number in range(120)]
    async with a_hub(cluster, users) as hub:
        await hub.start()
        begin = later(cluster, HOUR)
        for user in users:
            await hub.call("POST", f"/hub/api/users/{user}")
        slots = asyncio.Semaphore(8)

        async def start(user: str, server: str) -> int:
            async with slots:
                return (await hub.submit(user, {**ONE, "begin": begin}, server))[0]

        statuses = await asyncio.gather(*(start(*server) for server in servers))
        assert set(statuses) <= {201, 202}, statuses
        every = {await _job_id(hub, *server) for server in servers}
        assert len(every) == 120
        began = time.monotonic()
        status, answer = await hub.submit(users[0], {**ONE, "begin": begin}, "one-more")
        assert status in (201, 202), answer
        await hub.job(users[0], "one-more", 5)
        figure(f"the 121st start was submitted in {time.monotonic() - began:.1f} s")
        pending = 0
        for user in users:
            _, model = await hub.call("GET", f"/hub/api/users/{user}?include_stopped_servers")
            pending += sum(server["pending"] == "spawn" for server in model["servers"].values())
        assert pending == 121
        assert sum(len(queued(slurm, cluster, user)) for user in users) == 121
        # All of them given up at once.
        await asyncio.gather(*(hub.call("DELETE", hub._path(*server)) for server in servers))
    assert sum(len(queued(slurm, cluster, user)) for user in users) == 0


async def _job_id(hub: FaultHub, user: str, server: str) -> str:
    return str((await hub.job(user, server, 60))["job_id"])
