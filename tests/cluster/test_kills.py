"""A hub that dies at any moment, and starts that are given up at any moment: nothing is lost, nothing stays behind.

The moments are random; the seed is printed with a failure, and SNOWYSPAWNER_TEST_SEED repeats it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ..faults import FaultHub, ready
from ..hubs import Hub, until
from .test_session import queued
from .test_slurm_away import ONE, end_all, later

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ROUNDS = 5


@pytest.fixture
def dice() -> random.Random:
    seed = int(os.environ.get("SNOWYSPAWNER_TEST_SEED") or time.time_ns() % 1_000_000)
    print(f"SNOWYSPAWNER_TEST_SEED={seed}")
    return random.Random(seed)  # noqa: S311 no secret


@pytest.fixture(scope="module")
async def shared(cluster: Any) -> AsyncIterator[FaultHub]:
    made = FaultHub(cluster, cluster.state / "fault-hub")
    await made.start()
    for name in cluster.users:
        await made.call("POST", f"/hub/api/users/{name}")
    yield made
    await made.stop()


@pytest.fixture
async def faulty(shared: FaultHub, users: list[str], cluster: Any, slurm: Any) -> AsyncIterator[FaultHub]:
    """The module's hub, given back without faults and without servers."""
    yield shared
    shared.mend()
    if shared.process is None or shared.process.poll() is not None:
        await shared.start()
    await end_all(shared, users)


def stored(hub: Hub) -> dict[str, dict[str, Any]]:
    """What a hub that is dead has in its database: the job of each server."""
    with sqlite3.connect(f"file:{hub.directory}/hub.sqlite?mode=ro", uri=True) as db:
        rows = db.execute("SELECT name, state FROM spawners").fetchall()
    states = {name: json.loads(state) if state else {} for name, state in rows}
    return {name: state["job"] for name, state in states.items() if state.get("job")}


def jobs(slurm: Any, cluster: Any, user: str) -> dict[str, str]:
    """The ids of a person's jobs that are not over, by name."""
    states = "PENDING,RUNNING,CONFIGURING,SUSPENDED"
    text = slurm("squeue", "-M", cluster.site.cluster, "-h", "-u", user, "-t", states, "-o", "%j %i")
    return dict(line.split() for line in text.splitlines())


async def phase(hub: Hub, user: str, server: str, wanted: str, seconds: float = 60) -> None:
    async def entered() -> bool:
        return bool(((await hub.state(user, server)).get("job") or {}).get("phase") == wanted)

    await until(entered, seconds, f"{server} is {wanted}; see {hub.log_path}", 0.02)


async def test_a_hub_killed_in_every_phase_loses_nothing_and_leaves_nothing(
    faulty: FaultHub, users: list[str], cluster: Any, slurm: Any, dice: random.Random
) -> None:
    """Five kills, each in the middle of five sessions: submitting, pending, launching, serving, stopping.

    One session serves through all of it. What a round launches, the next one stops.
    """
    name, seen = users[0], []
    first = (await faulty.serve(name, ONE, "serves"))["job"]
    await faulty.serve(name, ONE, "launches0")
    for number in range(1, ROUNDS + 1):
        submits, waits, launches = f"submits{number}", f"waits{number}", f"launches{number}"
        stops = f"launches{number - 1}"
        stopping = (await faulty.state(name, stops))["job"]["job_id"]

        await faulty.submit(name, {**ONE, "begin": later(cluster, 3600)}, waits)
        pending = await faulty.job(name, waits)
        await faulty.submit(name, ONE, launches)
        await phase(faulty, name, launches, "launching")
        # Before Slurm knows the job, or when it does and sbatch has not said so yet.
        faulty.fault("sbatch", f'sleep {dice.uniform(0, 2):.2f}; "$REAL" "$@"; sleep 10')
        # Longer than the time until the kill: the stop is to be hit in its middle.
        faulty.fault("scancel", f'sleep {dice.uniform(2, 4):.2f}; exec "$REAL" "$@"')
        await faulty.submit(name, ONE, submits)
        stop = asyncio.create_task(faulty.call("DELETE", faulty._path(name, stops)))
        await phase(faulty, name, submits, "submitting", 5)
        await phase(faulty, name, stops, "stopping", 5)
        await asyncio.sleep(dice.uniform(0, 1))
        await faulty.stop(signal.SIGKILL)
        await asyncio.gather(stop, return_exceptions=True)
        before = stored(faulty)
        seen += [(what.rstrip("0123456789"), before[what]["phase"]) for what in (submits, waits, launches, "serves")]
        seen.append(("stops", before.get(stops, {}).get("phase", "")))
        faulty.mend()
        await faulty.start()

        # Somebody comes back for their server, or nobody does and the job itself claims it.
        for server in (submits, waits, *([launches] if dice.random() < 0.5 else [])):
            status, answer = await faulty.resume(name, server)
            assert status in (201, 202), (server, status, answer)
        slurm("scontrol", "-M", cluster.site.cluster, "update", f"JobId={pending['job_id']}", "StartTime=now")
        for server in (submits, waits, launches):
            await ready(faulty, name, server)
            job = (await faulty.state(name, server))["job"]
            assert job["name"] == before[server]["name"], f"{server} is another job"
            assert await faulty.job_seen(name, server) == job["job_id"]
        assert (await faulty.job(name, waits))["job_id"] == pending["job_id"]
        assert await faulty.job_seen(name, "serves") == first["job_id"]
        await until(lambda job_id=stopping: job_id not in queued(slurm, cluster, name), 30, "the stop is carried out")
        alive = {"serves": first["name"], **{server: before[server]["name"] for server in (submits, waits, launches)}}
        assert jobs(slurm, cluster, name).keys() == set(alive.values())
        await asyncio.gather(faulty.end(name, submits), faulty.end(name, waits))
    await end_all(faulty, [name])
    assert queued(slurm, cluster, name) == []
    for what in ("submits", "waits", "launches", "serves", "stops"):
        print(what, [phase for which, phase in seen if which == what])
    # They were hit where it was meant.
    assert all(phase == "submitting" for what, phase in seen if what == "submits")
    assert all(phase == "pending" for what, phase in seen if what == "waits")
    assert all(phase == "serving" for what, phase in seen if what == "serves")
    assert [phase for what, phase in seen if what == "stops"].count("stopping") >= ROUNDS - 1
    assert [phase for what, phase in seen if what == "launches"].count("launching") >= ROUNDS - 2


CHAINS, LINKS = 10, 5


async def test_fifty_starts_cancelled_at_random_moments_leave_nothing(
    faulty: FaultHub, users: list[str], cluster: Any, slurm: Any, dice: random.Random
) -> None:
    """Ten servers side by side, five times each: each next start is taken at once, and the last one serves.

    The answer to the start itself is JupyterHub's, which waits a moment for the server: when its own DELETE cancels
    that meanwhile, it is 500. So is the DELETE's own, when the hub is too busy to take the cancelled start in within a
    second, which its log says; it has stopped all the same (the next test is about that alone).
    """
    answers: list[tuple[float, int, int, float]] = []

    async def chain(user: str, server: str, moments: list[float]) -> None:
        for moment in moments:
            starting = asyncio.create_task(faulty.submit(user, ONE, server))
            # Ten that ask all the time would keep the hub busy with answering them.
            # Nobody can cancel what is not there yet: JupyterHub answers 404, or 204 for nothing.
            await until(lambda: _begun(faulty, user, server), 30, f"the start of {server}", 0.3)
            await asyncio.sleep(moment)
            interrupted, began = not starting.done(), time.monotonic()
            status, answer = await faulty.call("DELETE", faulty._path(user, server))
            await until(lambda: _gone(faulty, user, server), 30, f"{server} has stopped; see {faulty.log_path}", 0.5)
            took = time.monotonic() - began
            started, _ = await starting
            answers.append((round(moment, 2), started, status, round(took, 2)))
            too_busy = status == 500 and f"RuntimeError: {user}:{server} pending spawn" in faulty.log()
            assert status in (202, 204) or too_busy, answer
            assert started in ((201, 202, 500) if interrupted else (201, 202))

    servers = [(users[number % 3], f"c{number}") for number in range(CHAINS)]
    # Most are given up while they are handed over or wait; some while they launch, or already serve.
    moments = [[dice.choice((0.3, 1.5, 6.0)) * dice.random() for _ in range(LINKS)] for _ in servers]
    try:
        async with asyncio.TaskGroup() as group:
            for number, server in enumerate(servers):
                group.create_task(chain(*server, moments[number]))
    finally:
        print(sorted(answers))
    assert len(answers) == CHAINS * LINKS
    # In a thread: the proxy closes idle connections meanwhile, which the client has to see.
    assert [await asyncio.to_thread(queued, slurm, cluster, user) for user in users] == [[], [], []]
    began = time.monotonic()
    status, answer = await faulty.submit(users[0], ONE, "c0")
    assert status in (201, 202), answer
    await faulty.job(users[0], "c0")
    assert time.monotonic() - began < 3
    await ready(faulty, users[0], "c0")


async def test_a_cancelled_start_that_jupyterhub_forgets_is_stopped(
    faulty: FaultHub, users: list[str], cluster: Any, slurm: Any
) -> None:
    """A hub that is too busy answers its DELETE with 500, and calls the server ready."""
    name = users[0]
    await faulty.submit(name, {**ONE, "begin": later(cluster, 3600)}, "forgotten")
    await faulty.job(name, "forgotten")
    status, answer = await faulty.call("DELETE", f"/hub/api/cancel-only/{name}/forgotten")
    assert status == 200, answer
    await until(lambda: _gone(faulty, name, "forgotten"), 15, f"the start is stopped; see {faulty.log_path}")
    assert queued(slurm, cluster, name) == []
    state = await faulty.serve(name, ONE, "forgotten")
    assert await faulty.job_seen(name, "forgotten") == state["job"]["job_id"]


async def test_a_start_that_is_cancelled_before_it_has_a_job_leaves_no_row_that_says_running(
    faulty: FaultHub, users: list[str], cluster: Any, slurm: Any
) -> None:
    name = users[0]
    await faulty.call("POST", f"/hub/api/users/{name}")
    status, answer = await faulty.call("POST", f"/hub/api/cancel-only/{name}/early", ONE)
    assert status == 200, answer

    async def counts_as_ready() -> bool:
        model = await faulty.model(name, "early")
        return bool(model and model["ready"])

    # JupyterHub's view: it looks after it no more.
    await until(counts_as_ready, 8, "the cancelled start counts as a server that is ready")
    assert (await faulty.state(name, "early")).get("job") is None
    await until(lambda: _gone(faulty, name, "early"), 15, f"the start is stopped; see {faulty.log_path}")
    assert queued(slurm, cluster, name) == []


async def test_a_second_start_that_is_forgotten_soon_after_the_first_is_stopped_too(
    faulty: FaultHub, users: list[str], cluster: Any, slurm: Any
) -> None:
    name, later_on = users[0], {**ONE, "begin": later(cluster, 3600)}
    for number in (1, 2):
        await faulty.submit(name, later_on, "twice")
        await faulty.job(name, "twice")
        await faulty.call("DELETE", f"/hub/api/cancel-only/{name}/twice")
        if number == 1:
            await faulty.end(name, "twice")
    await until(lambda: _gone(faulty, name, "twice"), 15, f"the start is stopped; see {faulty.log_path}")
    assert queued(slurm, cluster, name) == []


async def _begun(hub: Hub, user: str, server: str) -> bool:
    model = await hub.model(user, server)
    return bool(model and (model["pending"] == "spawn" or model["ready"]))


async def _gone(hub: Hub, user: str, server: str) -> bool:
    model = await hub.model(user, server)
    return model is None or bool(model["stopped"])
