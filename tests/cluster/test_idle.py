"""Sessions that nobody uses: warned, kept, ended in order; one that computes in silence is none of them."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from typing import Any

import pytest

from ..faults import FaultHub, with_smi
from ..hubs import execute, until
from ..people import Person
from .test_sessions import press
from .test_slurm_away import end_all

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

LIMIT, WARN = 60, 35  # seconds
GPU = {"environment": "tf-gpu", "partition": "core", "cores": "1", "gpu": "t4:1", "time": "0:30:00"}
CPU = {**GPU, "environment": "tf-pip", "gpu": "none"}
SMI = """#!/bin/sh
# A stand-in for nvidia-smi: a GPU that does nothing, though its memory is taken.
while :; do echo "GPU-1, 0, 15000, 15360, 30.5"; sleep 1; done
"""


@pytest.fixture
async def own(cluster: Any, users: list[str]) -> AsyncIterator[FaultHub]:
    """A hub that ends what nobody has used for a minute, with and without a GPU."""
    limits = {"gpu": f"0:{LIMIT}", "cpu": f"0:{LIMIT}", "warn": f"0:{WARN}"}
    # A sample in five seconds: a fraction of one would take an answer of the server's for work.
    made = with_smi(cluster, SMI, {"idle": limits}, usage_interval=20)
    await made.start()
    for name in cluster.users:
        await made.call("POST", f"/hub/api/users/{name}")
    yield made
    await end_all(made, users)
    await made.stop()


async def home(person: Person, server: str) -> str:
    """Return what the home page shows of a server."""
    async with person.session.get(f"{person.hub.url}/hub/home") as answer:
        text = await answer.text()
    found = re.search(rf'<section [^>]*id="snowy-server-{server}">.*?</section>', text, re.S)
    assert found
    return found[0]


async def compute(hub: FaultHub, name: str, server: str) -> str:
    """Let a kernel compute without a word, with nobody connected to it; return its id."""
    assert hub.session
    base = f"/user/{name}/{server}/api/kernels"
    status, kernel = await hub.call("POST", base, {"name": "python3"})
    assert status == 201, kernel
    async with hub.session.ws_connect(f"{hub.url}{base}/{kernel['id']}/channels") as socket:
        await socket.send_json(execute("while True: pass"))
        async for message in socket:
            if (message.json().get("content") or {}).get("execution_state") == "busy":
                break
    return str(kernel["id"])


async def test_unused_sessions_end_and_others_do_not(own: FaultHub, users: list[str], slurm: Any, cluster: Any) -> None:
    name = users[0]
    for server, choice in (("idle", GPU), ("silent", CPU), ("touched", CPU)):
        await own.serve(name, choice, server)
    kernel = await compute(own, name, "silent")
    async with Person(own, name) as person:
        # It is warned of, on the page.
        async def warned() -> Any:
            shown = await home(person, "idle")
            return shown if "Nobody uses this session" in shown else None

        shown = await until(warned, LIMIT + 30, "the warning", 1.0)
        assert 'action="/hub/snowy/keep/' in shown
        before = (await own.state(name, "idle"))["job"]["unused_since"]
        began = time.time()
        assert before + LIMIT - WARN <= began
        assert await press(person, f"keep/{name}/idle") == 303
        assert "Nobody uses this session" not in await home(person, "idle")

        # It is kept for one more period, and not for two; the others are used.
        async def ended() -> Any:
            status, saved = await own.call(
                "PUT", f"/user/{name}/touched/api/contents/notes.txt", {"type": "file", "format": "text", "content": ""}
            )
            assert status in (200, 201), saved
            last = (await own.state(name, "idle"))["last"]
            return last if last and last["ended_at"] else None

        last = await until(ended, 2 * LIMIT + 30, "the end of what nobody uses", 2.0)
        assert last["reason"] == "idle"
        assert not last["stopped"]
        assert last["ended_at"] - began >= LIMIT
        assert last["state"] != "TIMEOUT"
        shown = await home(person, "idle")
        assert "This session was ended because nobody used it" in shown
        assert "unused for 1 minute" in shown or "unused for 1 min" in shown
    # JupyterHub knows it, too, and its GPU is free.
    assert not (await own.model(name, "idle") or {})["ready"]
    job = last["job_id"]
    await until(
        lambda: not slurm("squeue", "-M", cluster.site.cluster, "-h", "-j", job, "-o", "%T").strip(), 20, "the end"
    )
    for server in ("silent", "touched"):
        state = await own.state(name, server)
        assert state["job"]["phase"] == "serving", server
        assert time.time() - state["job"]["begun_at"] > LIMIT + 15
        assert (await own.model(name, server) or {})["ready"]
    # The kernel has said nothing in all that time.
    _, model = await own.call("GET", f"/user/{name}/silent/api/kernels/{kernel}")
    assert (model["connections"], model["execution_state"]) == (0, "busy")
    quiet = datetime.now(timezone.utc) - datetime.fromisoformat(model["last_activity"].replace("Z", "+00:00"))
    assert quiet.total_seconds() > LIMIT + 10
    # What was saved is in numbers.
    _, metrics = await own.call("GET", "/hub/metrics")
    saved = re.search(r'snowyspawner_gpu_hours_returned_total{partition="core"} ([\d.]+)', metrics)
    assert saved
    assert 0.3 < float(saved[1]) < 0.5
    assert 'snowyspawner_ends_total{state="IDLE"} 1.0' in metrics
