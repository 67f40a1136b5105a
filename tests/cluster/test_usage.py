"""What sessions use, measured in real jobs: cores, memory; a stand-in for nvidia-smi; kept when a job is killed."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ..faults import FaultHub, with_smi
from ..hubs import until
from ..people import Person
from .test_slurm_away import end_all

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

CPU = {"environment": "tf-pip", "partition": "core", "cores": "2", "gpu": "none", "time": "0:10:00"}
# One busy core and 500 MB: says how much processor time that took.
WORK = """import time
held = bytearray(500 * 1024 * 1024)
held[::4096] = b"x" * len(held[::4096])
began, end = time.process_time(), time.monotonic() + 8
while time.monotonic() < end:
    pass
print(time.process_time() - began)
"""
# A stand-in for nvidia-smi, as one that is asked in a loop prints.
SMI = """#!/bin/sh
# A stand-in for nvidia-smi.
while :; do echo "GPU-1, 6, 1400, 15360, 30.5"; sleep 1; done
"""


@pytest.fixture
async def own(cluster: Any, users: list[str]) -> AsyncIterator[FaultHub]:
    """A hub whose jobs say every two seconds what they use, and find a stand-in for nvidia-smi."""
    made = with_smi(cluster, SMI, usage_interval=2)
    await made.start()
    for name in cluster.users:
        await made.call("POST", f"/hub/api/users/{name}")
    yield made
    await end_all(made, users)
    await made.stop()


async def usage(hub: FaultHub, name: str, server: str, after: float = 0.0) -> dict[str, float]:
    """Return a record that is younger than *after* seconds of the session."""

    async def said() -> Any:
        found = (await hub.state(name, server))["job"]["usage"]
        return found if found and found["seconds"] > after else None

    return dict(await until(said, 20, "what the session uses"))


async def end_of(hub: FaultHub, name: str, server: str, seconds: float) -> dict[str, Any]:
    """Wait until it is known how a session ended; return that."""

    async def ended() -> Any:
        last = (await hub.state(name, server))["last"]
        return last if last and last["state"] else None

    return dict(await until(ended, seconds, f"the end of {server}"))


async def test_work_is_measured_and_kept_whatever_ends_the_job(
    own: FaultHub, users: list[str], cluster: Any, slurm: Any
) -> None:
    name = users[0]
    began = time.time()
    await own.serve(name, {**CPU, "time": "0:01:00", "cores": "1"}, "limit")
    await own.serve(name, CPU, "work")
    before = await usage(own, name, "work")
    assert before["memory"] < 450
    burned = float(await own.run(name, WORK, "work"))
    after = await usage(own, name, "work", (await usage(own, name, "work"))["seconds"] + 0.5)
    spent = after["cores"] * after["seconds"] - before["cores"] * before["seconds"]
    # The kernel's start, and the server's part.
    assert burned * 0.9 < spent < burned * 1.1 + 4
    assert 500 < after["memory_peak"] < before["memory"] + 500 + 200
    assert after["gpu_busy"] is None

    # Killed without a word: what it said last is what is known.
    job = (await own.job(name, "work"))["job_id"]
    slurm("scancel", "-M", cluster.site.cluster, "--signal=KILL", "--full", job)

    last = await end_of(own, name, "work", 30)
    assert last["usage"]["memory_peak"] == after["memory_peak"]
    assert last["usage"]["seconds"] >= after["seconds"]

    # At its limit; the pages say it in a sentence.
    last = await end_of(own, name, "limit", began + 150 - time.time())
    assert last["state"] == "TIMEOUT"
    assert last["usage"]["seconds"] > 40
    async with Person(own, name) as person, person.session.get(f"{own.url}/hub/home") as answer:
        shown = re.findall(r'<p class="snowy-used">(.*?)</p>', await answer.text())
    assert any(re.fullmatch(r"Used in [a-z0-9 ]+: [\d.]+ of 1 core, [\d.]+ of 8 GB\.", text) for text in shown), shown


async def test_a_gpu_is_asked_by_its_own_program(own: FaultHub, users: list[str]) -> None:
    """And how a session ends in order is known to the last second."""
    name = users[0]
    await own.serve(name, {**CPU, "gpu": "t4:1"}, "gpu")

    async def asked() -> Any:
        found = await usage(own, name, "gpu")
        return found if found["gpu_busy"] is not None else None

    found = await until(asked, 20, "what the GPU does")
    assert (found["gpu_busy"], found["gpu_memory_peak"], found["gpu_memory"]) == (6.0, 1400.0, 15360.0)
    assert found["gpu_energy"] > 0
    await own.end(name, "gpu")
    last = (await own.state(name, "gpu"))["last"]
    assert last["stopped"]
    assert last["usage"]["seconds"] > found["seconds"]


def jobstats(seconds: int, cpu: float) -> str:
    """A record as Princeton's jobstats leaves it in accounting: a GPU, busy for 12.5 % of the time."""
    node = {"cpus": 1, "total_time": cpu, "used_memory": 3 << 30, "total_memory": 8 << 30}
    gpu = {"gpu_utilization": {"0": 12.5}, "gpu_used_memory": {"0": 2 << 30}, "gpu_total_memory": {"0": 16 << 30}}
    said = {"gpus": 1, "nodes": {"s1": {**node, **gpu}}, "total_time": seconds}
    return "JS1:" + base64.b64encode(gzip.compress(json.dumps(said).encode())).decode()


async def test_accounting_is_asked_where_a_job_says_nothing(cluster: Any, users: list[str], slurm: Any) -> None:
    """Slurm's own figures, and jobstats' where there are any; what of both is not known is not said."""
    name = users[0]
    own = FaultHub(cluster, cluster.state / "fault-hub", usage_interval=0)
    await own.start()
    try:
        for server, gpu in (("plain", "t4:1"), ("jobstats", "t4:1")):
            await own.serve(name, {**CPU, "cores": "1", "gpu": gpu}, server)
        began = time.time()
        burned = float(await own.run(name, WORK, "plain"))
        job = (await own.job(name, "jobstats"))["job_id"]
        comment = f"AdminComment={jobstats(3600, 1800.0)}"
        slurm("scontrol", "-M", cluster.site.cluster, "update", f"JobId={job}", comment)
        # A session of less than half a minute says nothing.
        await asyncio.sleep(max(0.0, began + 33 - time.time()))
        for server in ("plain", "jobstats"):
            await own.end(name, server)

        async def known(server: str) -> Any:
            return (await own.state(name, server))["last"]["usage"]

        plain = await until(lambda: known("plain"), 60, "what accounting says")
        assert burned * 0.9 < plain["cores"] * plain["seconds"] < burned * 1.1 + 12
        assert 500 < plain["memory_peak"] < 1000
        assert (plain["gpu_busy"], plain["curve"]) == (None, None)
        stats = await until(lambda: known("jobstats"), 60, "what jobstats says")
        assert (stats["seconds"], stats["cores"], stats["gpu_busy"]) == (3600.0, 0.5, 12.5)
        async with Person(own, name) as person, person.session.get(f"{own.url}/hub/home") as answer:
            shown = re.findall(r'<p class="snowy-used">(.*?)</p>', await answer.text())
        said = "Used in 1 h 0 min: 0.5 of 1 core, 3.1 of 8 GB, GPU busy 12 % of the time (most memory 2 of 16 GB)."
        assert said in shown
        assert any(text.endswith("GPU not known.") for text in shown), shown
    finally:
        await end_all(own, users)
        await own.stop()
