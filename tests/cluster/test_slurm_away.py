"""Slurm fails in every way that it is known to: nobody is declared dead, nothing is lost, the hub stays quick.

The daemons that go away are the miniature's own; a command that fails is a script in front of the real one.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest

from snowyspawner.session.estimate import STARTS_PER_MINUTE

from ..faults import FaultHub, away, prologue, ready, sampled, stopped
from ..hubs import Hub, until
from ..people import Person
from .test_session import queued
from .test_sessions import press

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

ONE = {"environment": "tf-mkl", "partition": "core", "cores": 1, "gpu": "none"}


def later(cluster: Any, seconds: float) -> str:
    """A moment from now as a person writes it."""
    return datetime.fromtimestamp(time.time() + seconds, cluster.site.zone).strftime("%Y-%m-%dT%H:%M:%S")


@pytest.fixture
async def faulty(cluster: Any, hub: Hub, users: list[str]) -> AsyncIterator[FaultHub]:
    """A hub whose Slurm commands may fail."""
    made = FaultHub(cluster, cluster.state / "fault-hub")
    made.covered = True  # the shared hub meets no such faults
    await made.start()
    try:
        yield made
        made.mend()
        await end_all(made, users)
    finally:
        await made.stop()


async def end_all(hub: Hub, users: list[str]) -> None:
    """Stop every server of these people."""
    every = []
    for user in users:
        status, model = await hub.call("GET", f"/hub/api/users/{user}?include_stopped_servers")
        every += [(user, server) for server in model["servers"]] if status == 200 else []
    await hub.end_each(every)


async def job_ids(hub: Hub, servers: list[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """The job of each server."""
    return {(user, server): (await hub.job(user, server))["job_id"] for user, server in servers}


async def assert_all_ready(hub: Hub, servers: list[tuple[str, str]]) -> None:
    for user, server in servers:
        model = await hub.model(user, server)
        assert model is not None
        assert model["ready"], (user, server, hub.log()[-2000:])


async def said(hub: Hub, user: str, server: str, what: str, seconds: float = 30) -> dict[str, Any]:
    """Wait until the progress of a start says *what*; return the event."""
    assert hub.session is not None
    url = f"{hub.url}{hub._path(user, server)}/progress"
    async with asyncio.timeout(seconds), hub.session.get(url) as answer:
        async for line in answer.content:
            if line.startswith(b"data: "):
                event: dict[str, Any] = json.loads(line[6:])
                if re.search(what, event.get("message", "")):
                    return event
    raise AssertionError(f"never said: {what}")


async def test_slurmctld_away_for_90_seconds(faulty: FaultHub, users: list[str], cluster: Any, slurm: Any) -> None:
    """8 serving and 4 pending sessions: none is lost, the wait says since when, all is as before afterwards."""
    serving = [(users[number % 3], f"s{number}") for number in range(8)]
    # They would all begin while Slurm is away.
    pending = [(users[number % 3], f"p{number}") for number in range(4)]
    for user, server in serving:
        await faulty.submit(user, ONE, server)
    for user, server in serving:
        await ready(faulty, user, server, 120)
    begin = later(cluster, 30)
    for user, server in pending:
        await faulty.submit(user, {**ONE, "begin": begin}, server)
    before = await job_ids(faulty, serving + pending)

    async with away(cluster, f"slurmctld-{cluster.site.cluster}"):
        gone = time.monotonic()
        event = await said(faulty, *pending[0], r"Slurm has not answered since \d\d:\d\d:\d\d", 60)
        assert event["snowy"]["slurm_away_since"] <= time.time()
        await assert_all_ready(faulty, serving)
        # The sessions themselves do not notice.
        assert await faulty.job_seen(*serving[0]) == before[serving[0]]
        async with sampled(faulty) as slow:
            await asyncio.sleep(90 - (time.monotonic() - gone))
        assert slow.worst < 0.25, slow.worst
        await assert_all_ready(faulty, serving)
    # Those that waited begin now, late, with the same jobs.
    for user, server in pending:
        await ready(faulty, user, server, 120)
    await assert_all_ready(faulty, serving)
    assert await job_ids(faulty, serving + pending) == before
    await faulty.end(*serving[0])
    assert before[serving[0]] not in queued(slurm, cluster, serving[0][0])


@pytest.mark.parametrize("daemon", ["slurmdbd", "mariadbd"])
async def test_accounting_away(faulty: FaultHub, users: list[str], cluster: Any, slurm: Any, daemon: str) -> None:
    """With -M every command needs slurmdbd: a session and a waiting start stay, and go on afterwards."""
    name = users[0]
    await faulty.serve(name, ONE, "stays")
    await faulty.submit(name, {**ONE, "begin": later(cluster, 15)}, "waits")
    before = await job_ids(faulty, [(name, "stays"), (name, "waits")])
    async with away(cluster, daemon):
        await asyncio.sleep(20)
        await assert_all_ready(faulty, [(name, "stays")])
        model = await faulty.model(name, "waits")
        # Its own claim told the hub, or it still waits: it has not failed.
        assert model is not None
        assert model["ready"] or model["pending"] == "spawn", model
    await ready(faulty, name, "waits")
    assert await job_ids(faulty, [(name, "stays"), (name, "waits")]) == before
    await faulty.end(name, "stays")
    assert queued(slurm, cluster, name) == [before[name, "waits"]]


async def test_with_its_own_slurm_conf_sessions_start_and_stop_without_accounting(
    cluster: Any, hub: Hub, users: list[str], slurm: Any
) -> None:
    """Site.slurm_conf: the cluster's own configuration, so that no command asks slurmdbd where it is."""
    conf = cluster.state / "conf" / cluster.site.cluster / "slurm.conf"
    own = FaultHub(cluster, cluster.state / "fault-hub", {"slurm_conf": str(conf)})
    await own.start()
    name = users[0]
    try:
        await own.serve(name, ONE, "before")
        async with away(cluster, "slurmdbd", "mariadbd"):
            state = await own.serve(name, ONE, "during")
            assert await own.job_seen(name, "during") == state["job"]["job_id"]
            await own.end(name, "before")
            await own.end(name, "during")
            last = (await own.state(name, "during"))["last"]
            assert last["stopped"]
        assert queued(slurm, cluster, name) == []
    finally:
        await end_all(own, users)
        await own.stop()


# What squeue has been seen to say when it fails (reference: Slurm's sources and bug reports), and worse.
FAULTS = {
    "controller away": "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1",
    "timeout": "echo 'slurm_load_jobs error: Socket timed out on send/recv operation' >&2; exit 1",
    "database away": "echo 'squeue: error: There is a problem talking to the database: Connection refused.  Only local"
    " cluster communication is available, remove --cluster from your command line' >&2; exit 1",
    "cluster unknown": """echo "squeue: error: 'snowy' can't be reached now, or it is an invalid entry for --cluster."
    >&2; exit 1""".replace("\n    ", " "),
    "munge": "echo 'slurm_load_jobs error: Protocol authentication error' >&2; exit 1",
    "no such job": "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1",
    "nothing at all": "exit 0",
    "header": 'echo "CLUSTER: snowy"; exec "$REAL" "$@"',
    "garbage": "head -c 200000 /dev/urandom; exit 0",
    "half a row": "echo '12|RUN'; exit 0",
    "killed": "kill -9 $$",
    "not there": "exit 127",
}


async def test_squeue_fails_in_every_known_way(faulty: FaultHub, users: list[str], cluster: Any, slurm: Any) -> None:
    """Nobody is declared dead, whatever squeue prints; the hub's API is never slower than 250 ms."""
    name = users[0]
    await faulty.serve(name, ONE, "stays")
    await faulty.submit(name, {**ONE, "begin": later(cluster, 3600)}, "waits")
    before = await job_ids(faulty, [(name, "stays"), (name, "waits")])
    async with sampled(faulty) as slow:
        for script in FAULTS.values():
            faulty.fault("squeue", f"date +%s >>{faulty.directory}/asked\n{script}")
            (faulty.directory / "asked").unlink(missing_ok=True)
            # A new job makes the watcher look at once.
            await faulty.submit(name, {**ONE, "begin": later(cluster, 3600)}, "look")
            await until((faulty.directory / "asked").exists, 30, "a look")
            await asyncio.sleep(0.5)
            await assert_all_ready(faulty, [(name, "stays")])
            model = await faulty.model(name, "waits")
            assert model is not None
            assert model["pending"] == "spawn"
            faulty.mend()
            await faulty.end(name, "look")
        faulty.fault("squeue", "exec sleep 60")
        await asyncio.sleep(65)
        await assert_all_ready(faulty, [(name, "stays")])
    assert slow.worst < 0.25, slow.worst
    faulty.mend()
    assert await job_ids(faulty, [(name, "stays"), (name, "waits")]) == before
    # And what really ends is still seen.
    slurm("scancel", "-M", cluster.site.cluster, before[name, "stays"])
    assert (await stopped(faulty, name, "stays"))["state"] == "CANCELLED"


async def test_a_stop_that_slurm_does_not_take_is_carried_out_later(
    faulty: FaultHub, users: list[str], cluster: Any, slurm: Any
) -> None:
    """Also over hub restarts, two of them, when nobody comes back for the server."""
    name = users[0]
    state = await faulty.serve(name, ONE, "stays")
    job_id = state["job"]["job_id"]
    refuses = "echo 'scancel: error: Unable to contact slurm controller (connect failure)' >&2; exit 1"
    faulty.fault("scancel", refuses)
    await faulty.call("DELETE", faulty._path(name, "stays"))
    assert (await faulty.state(name, "stays"))["job"]["phase"] == "stopping"
    for _ in range(2):
        await faulty.stop(9)
        await faulty.start()
        await asyncio.sleep(3)
        assert queued(slurm, cluster, name) == [job_id]
        assert (await faulty.state(name, "stays"))["job"]["phase"] == "stopping"
    faulty.mend()
    await until(lambda: queued(slurm, cluster, name) == [], 40, "the stop is carried out")

    async def ended() -> bool:
        return bool((await faulty.state(name, "stays"))["job"] in (None, {}) or await _phase(faulty, name) == "ended")

    await until(ended, 20, "the hub knows")


async def _phase(hub: Hub, name: str) -> str:
    return str((await hub.state(name, "stays"))["job"]["phase"])


async def test_sbatch_that_times_out_is_not_doubled(cluster: Any, hub: Hub, users: list[str], slurm: Any) -> None:
    """The job was accepted all the same: found by its name and adopted, or cancelled with its start."""
    own = FaultHub(cluster, cluster.state / "fault-hub", command_timeout=4.0)
    await own.start()
    name = users[0]
    try:
        # It has told Slurm, and then gives no answer.
        own.fault("sbatch", '"$REAL" "$@" >/dev/null; sleep 60')
        await own.submit(name, ONE)
        await ready(own, name)
        job = await own.job(name)
        assert queued(slurm, cluster, name) == [job["job_id"]]
        await own.end(name)

        await own.submit(name, {**ONE, "begin": later(cluster, 600)}, "cancelled")
        await asyncio.sleep(1)
        await own.end(name, "cancelled")
        assert queued(slurm, cluster, name) == []

        # It has told Slurm nothing: no job, and that is said.
        own.fault("sbatch", "exec sleep 60")
        message = await own.failure(name, ONE, "nothing", seconds=90)
        assert "Slurm is too slow to answer." in message
        assert queued(slurm, cluster, name) == []
        own.mend()
        await own.serve(name, ONE, "nothing")
    finally:
        own.mend()
        await end_all(own, users)
        await own.stop()


async def test_start_waits_for_what_slurm_says_and_no_longer(
    cluster: Any, hub: Hub, users: list[str], slurm: Any
) -> None:
    """A refusal that takes 3 seconds comes back at its field; a job that is taken shows the page that waits at once."""
    own = FaultHub(cluster, cluster.state / "fault-hub", prologue(cluster, "sleep 20"))
    own.more_env["SNOWYSPAWNER_TEST_PATIENCE"] = "1"
    await own.start()
    name = users[0]
    try:
        async with Person(own, name) as person:
            own.fault("sbatch", 'sleep 3; exec "$REAL" "$@"')
            typed = {**ONE, "cores": "1", "reservation": "nosuch", "open": "lab 1"}
            began = time.monotonic()
            status, back = await person.send(await person.form(server="slow"), **typed)
            assert (status, list(back.errors)) == (409, ["reservation"])
            assert "Requested reservation is invalid" in back.errors["reservation"]
            assert {field: back.values[field] for field in typed} == typed
            assert 3 <= time.monotonic() - began < 8
            assert queued(slurm, cluster, name) == []

            own.mend()
            form, began = await person.form(server="quick"), time.monotonic()
            status, _ = await person.send(form, **{**typed, "reservation": "", "open": ""})
            took = time.monotonic() - began
            assert status == 302
            assert len(queued(slurm, cluster, name)) == 1  # it is there before the page that says so
            # Far from up: the job sleeps first.
            assert took < 5

            # The same of a session that is started again: what Slurm says is on the page that comes next.
            await own.end(name, "quick")
            own.fault(
                "sbatch", 'sleep 3; echo "sbatch: error: Job submit/allocate failed: Invalid account" >&2; exit 1'
            )
            assert await press(person, f"again/{name}/quick") == 303
            async with person.session.get(f"{own.url}/hub/spawn-pending/{name}/quick") as answer:
                text = await answer.text()
            assert "Your session did not start" in text
            assert "Invalid account" in text

            # Nobody waits for ever: then the page that waits says what comes of it.
            own.fault("sbatch", 'sleep 13; exec "$REAL" "$@"')
            form, began = await person.form(server="late"), time.monotonic()
            status, _ = await person.send(form, **typed)
            assert status == 302
            assert 9 < time.monotonic() - began < 13
            message = await until(lambda: own._failed(name, "late", 30), 30, "the failure's message")
            assert "You cannot use this reservation." in message
    finally:
        own.mend()
        await end_all(own, users)
        await own.stop()


#: What a site may put before sbatch: wrappers that stand in for those of real sites. The job is there each time.
WRAPPERS = {
    "chatter": """printf 'Hello.\\n'; "$REAL" "$@"; printf 'This job costs 4 core-hours.\\n120\\n'""",
    "words": """"$REAL" "$@" | sed -E 's/([0-9]+);(.*)/\\1 on cluster \\2/; s/^/Submitted batch job /'""",
    "other stream": """"$REAL" "$@" >&2""",
    "no number": """"$REAL" "$@" >/dev/null; echo 'Your job is on its way.'""",
    "fails afterwards": """"$REAL" "$@"; echo 'quota: no such file' >&2; exit 3""",
    "answer lost": """"$REAL" "$@" >/dev/null
echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2; exit 1""",
    "killed": """"$REAL" "$@" >/dev/null; kill -9 $$""",
}


async def test_a_job_that_sbatch_did_not_speak_of_clearly_is_found_and_ended(
    faulty: FaultHub, users: list[str], cluster: Any, slurm: Any
) -> None:
    """Exit code and output are a wrapper's; the job is in the queue all the same, once, and ends with its session."""
    name = users[0]
    for what, wrapper in WRAPPERS.items():
        faulty.fault("sbatch", wrapper)
        server = what.replace(" ", "-")
        await faulty.submit(name, {**ONE, "begin": later(cluster, 600)}, server)
        job = await faulty.job(name, server)
        assert queued(slurm, cluster, name) == [job["job_id"]], what
        await faulty.end(name, server)
        assert queued(slurm, cluster, name) == [], what


async def test_a_launch_is_not_charged_with_the_time_that_slurm_is_away(
    cluster: Any, hub: Hub, users: list[str]
) -> None:
    """Where the job runs is squeue's word; while there is none the server that answers has to wait for it."""
    patience = 12
    made = FaultHub(cluster, cluster.state / "fault-hub", launch_timeout=patience)
    await made.start()
    try:
        made.fault("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
        await made.submit(users[0], ONE)
        await until(lambda: launching(made, users[0]), 30, "the job runs")
        await asyncio.sleep(2 * patience)
        assert (await made.job(users[0]))["phase"] == "launching"
        made.mend()
        await ready(made, users[0])
    finally:
        made.mend()
        await end_all(made, users)
        await made.stop()


async def launching(hub: Hub, user: str) -> bool:
    return bool((await hub.job(user))["phase"] == "launching")


async def test_nobody_can_keep_sbatch_busy(faulty: FaultHub, users: list[str]) -> None:
    """Start, be refused or stop, start again: as often as once a second."""
    calls = faulty.directory / "calls"
    calls.touch(mode=0o666)
    calls.chmod(0o666)
    faulty.fault("sbatch", f"echo >> {calls}; echo 'sbatch: error: Unspecified error' >&2; exit 1")

    async def too_many() -> bool:
        await asyncio.gather(*(faulty.submit(users[0], ONE, f"s{number}") for number in range(10)))
        return "Many sessions were started in the last minute." in faulty.log()

    await until(too_many, 50, "a start is refused", every=0.3)
    assert "Many sessions were started in the last minute." in await faulty.failure(users[0], ONE)
    await until(lambda: len(calls.read_text()) == STARTS_PER_MINUTE, 10, "all are submitted")
    # One's own only.
    status, _ = await faulty.submit(users[1], ONE)
    assert status != 429
    await until(lambda: len(calls.read_text()) == STARTS_PER_MINUTE + 1, 10, "somebody else's is")
