"""Claim and report: a job may say what is waited for, in its own name, and nothing else."""

import sqlite3
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ..hubs import Hub

pytestmark = pytest.mark.cluster

MKL = {"environment": "tf-mkl", "partition": "devcore", "cores": 1, "gpu": "none"}


async def post(hub: Hub, path: str, body: Any, **kwargs: Any) -> int:
    """Post as a job does: without any token."""
    async with aiohttp.ClientSession() as session, session.post(f"{hub.url}{path}", json=body, **kwargs) as answer:
        return answer.status


async def identity(hub: Hub, user: str) -> dict[str, Any]:
    """What the job of a person's server shows to the hub: it is in its environment and its script."""
    job = (await hub.state(user))["job"]
    marker = f"SLURM_JOB_ID={job['job_id']}".encode()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            variables = path.read_bytes().split(b"\0")
        except OSError:
            continue
        secret = [line.partition(b"=")[2].decode() for line in variables if line.startswith(b"SNOWYSPAWNER_SECRET=")]
        if marker in variables and secret:
            script = Path(f"/proc/{path.parent.name}/cmdline")
            assert script.exists()
            return {"name": job["name"], "secret": secret[0], "job_id": job["job_id"], "node": job["node"]}
    raise AssertionError("no launcher found")


async def unchanging(hub: Hub, user: str) -> dict[str, Any]:
    """Return a person's state, without what the job says now and then of what it uses."""
    state = await hub.state(user)
    del state["job"]["usage"]
    return state


def every_row(hub: Hub) -> range:
    """The numbers of the servers that the hub has in its database, and some more."""
    with sqlite3.connect(f"file:{hub.directory}/hub.sqlite?mode=ro", uri=True) as db:
        ((last,),) = db.execute("SELECT max(id) FROM spawners")
    return range(1, last + 10)


async def test_only_the_job_itself_is_heard(hub: Hub, users: list[str]) -> None:
    """A wrong name, secret, number, row or phase, a field too many or of another type: 4xx, and nothing changes."""
    await hub.serve(users[0], MKL)
    before = await unchanging(hub, users[0])
    mine = await identity(hub, users[0])
    rows = [await post(hub, "/hub/api/snowyspawner/claim", {**mine, "server": number}) for number in every_row(hub)]
    # Only the right row knows this job, and that one has been claimed already.
    assert rows.count(410) == 1
    assert set(rows) == {404, 410}
    right = {**mine, "server": rows.index(410) + 1}
    claim, report = "/hub/api/snowyspawner/claim", "/hub/api/snowyspawner/report"
    for path, body, status in (
        (claim, {**right, "secret": "x" * 43}, 404),
        (claim, {**right, "secret": "\ud800"}, 404),
        (claim, {**right, "name": "jupyter-lab-00000000"}, 404),
        (claim, {**right, "job_id": "999999"}, 404),
        (claim, {**right, "server": -1}, 404),
        (claim, {**right, "server": 2**63}, 404),
        (claim, {**right, "extra": 1}, 400),
        (claim, {**right, "server": True}, 400),
        (claim, {**right, "node": "s1;id"}, 400),
        (claim, {**right, "job_id": "1 or 1"}, 400),
        (claim, [], 400),
        (claim, None, 400),
        (report, {**right, "port": 4000}, 410),
        (report, {**right, "port": 22}, 400),
        (report, {**right, "port": "4000"}, 400),
        (report, {**right, "port": 4000, "code": 1}, 400),
        (report, {**right, "code": 1, "detail": "x", "log": "y"}, 400),
        (report, {**right, "port": 4000, "detail": "x" * 70000}, 400),
        (report, {**right, "usage": {"seconds": 60}, "secret": "x" * 43}, 404),
        (report, {**right, "usage": {"seconds": 60}, "port": 4000}, 400),
        (report, {**right, "usage": {"seconds": -1}}, 400),
        (report, {**right, "usage": {"seconds": 60, "cores": "many"}}, 400),
        (report, {**right, "usage": [60]}, 400),
    ):
        assert await post(hub, path, body) == status, (path, body)
    deep = "[" * 30000 + "]" * 30000
    async with aiohttp.ClientSession() as session, session.post(f"{hub.url}{claim}", data=deep) as answer:
        assert answer.status == 400
    assert await unchanging(hub, users[0]) == before


async def test_batchspawners_handler_is_gone(hub: Hub, users: list[str]) -> None:
    """It let a job set any attribute of its spawner."""
    await hub.serve(users[0], MKL)
    code = "import os; print(os.environ['JUPYTERHUB_API_TOKEN'])"
    token = await hub.run(users[0], code)
    headers = {"Authorization": f"token {token}"}
    for body in ({"port": 4000}, {"exec_prefix": "id; "}, {"job_id": "1"}):
        assert await post(hub, "/hub/api/batchspawner", body, headers=headers) == 404
