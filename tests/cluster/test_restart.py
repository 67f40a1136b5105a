"""A hub that dies loses no session: jobs wait, claim and serve without it."""

import signal
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from ..hubs import Hub, until
from .test_session import MKL, facts, queued

pytestmark = pytest.mark.cluster


@pytest.fixture
async def own_hub(cluster: Any, hub: Hub, users: list[str]) -> AsyncIterator[Hub]:
    """A hub that may be killed: the shared one, given back as it was. Sharing it costs no second port."""
    yield hub
    if hub.process is None or hub.process.poll() is not None:
        await hub.start()


@pytest.mark.slow
async def test_a_waiting_job_survives_its_hub_and_claims_its_session(
    own_hub: Hub, users: list[str], cluster: Any, slurm: Any
) -> None:
    """Killed while the job waits; started again, the job's own claim takes the session up."""
    begin = datetime.fromtimestamp(time.time() + 25, cluster.site.zone).strftime("%Y-%m-%dT%H:%M:%S")
    await own_hub.submit(users[0], {**MKL, "begin": begin})
    job = await own_hub.job(users[0])
    await own_hub.stop(signal.SIGKILL)
    assert queued(slurm, cluster, users[0]) == [job["job_id"]]
    await own_hub.start()
    model = await own_hub.model(users[0])
    assert model is not None
    assert not model["ready"]

    async def ready() -> bool:
        model = await own_hub.model(users[0])
        return bool(model and model["ready"])

    await until(ready, 90, f"the session, taken up by its own claim; see {own_hub.log_path}")
    assert (await facts(own_hub, users[0]))["SLURM_JOB_ID"] == job["job_id"]


async def test_a_serving_session_survives_its_hub(own_hub: Hub, users: list[str], cluster: Any, slurm: Any) -> None:
    """Stopped and started, the hub has the same server; its end is noticed and its job can be stopped."""
    state = await own_hub.serve(users[0], MKL)
    await own_hub.stop(signal.SIGTERM)
    await own_hub.start()
    model = await own_hub.model(users[0])
    assert model is not None
    assert model["ready"]
    assert (await facts(own_hub, users[0]))["SLURM_JOB_ID"] == state["job"]["job_id"]
    await own_hub.end(users[0])
    assert queued(slurm, cluster, users[0]) == []


async def test_the_end_of_a_serving_job_is_noticed_and_kept(
    hub: Hub, users: list[str], cluster: Any, slurm: Any
) -> None:
    """scancel by hand: the hub sees it within seconds, and knows why."""
    state = await hub.serve(users[0], MKL)
    slurm("scancel", "-M", cluster.site.cluster, state["job"]["job_id"])

    async def stopped() -> bool:
        model = await hub.model(users[0])
        return bool(model and model["stopped"])

    await until(stopped, 20, "the hub notices")
    last = (await hub.state(users[0]))["last"]
    assert last["state"] == "CANCELLED"
    assert last["job_id"] == state["job"]["job_id"]
    assert Path(f"~{users[0]}/.snowyspawner-{last['job_id']}.log").expanduser().exists()
