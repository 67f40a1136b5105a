"""What the buttons of the sessions' pages do, and what nobody else may: no browser, only what one would send."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import Any

import pytest

from ..hubs import Hub, until
from ..people import Person
from .test_session import queued

pytestmark = pytest.mark.cluster

ONE = {"environment": "tf-mkl", "partition": "core", "cores": "1", "gpu": "none"}
ACTIONS = ("stop", "again", "resume", "keep")


def later(cluster: Any, seconds: float = 900) -> dict[str, str]:
    at = datetime.fromtimestamp(time.time() + seconds, cluster.site.zone)
    return {**ONE, "begin": at.strftime("%Y-%m-%dT%H:%M:%S")}


async def press(person: Person, path: str, token: bool = True) -> int:
    """Send a button's form; return the status."""
    async with person.session.get(f"{person.hub.url}/hub/home") as page:
        xsrf = re.search(r'xsrf_token: "([^"]+)"', await page.text())
    assert xsrf
    data = {"_xsrf": xsrf[1]} if token else {}
    url = f"{person.hub.url}/hub/snowy/{path}"
    async with person.session.post(url, data=data, allow_redirects=False) as answer:
        return answer.status


async def get(person: Person, path: str) -> tuple[int, str]:
    async with person.session.get(f"{person.hub.url}/hub/snowy/{path}", allow_redirects=False) as answer:
        return answer.status, await answer.text()


async def test_no_effect_without_a_form_of_the_hub_s(hub: Hub, users: list[str], cluster: Any, slurm: Any) -> None:
    """A GET, a post from another site, somebody who is not signed in."""
    name = users[0]
    await hub.submit(name, later(cluster))
    job = (await hub.job(name))["job_id"]
    async with Person(hub, name) as person:
        for action in (*ACTIONS, "remove"):
            path = f"{action}/{name}/x" if action == "remove" else f"{action}/{name}"
            assert (await get(person, path))[0] == 405
            assert await press(person, path, token=False) == 403
    async with hub.session.post(f"{hub.url}/hub/snowy/stop/{name}") as answer:  # type: ignore[union-attr]
        assert answer.status == 403
    assert queued(slurm, cluster, name) == [job]


async def test_what_is_somebody_else_s(hub: Hub, users: list[str], cluster: Any, slurm: Any) -> None:
    """Nothing of it, whether it exists or not; who may see a server's state may read its log."""
    name, other, helper = users[0], users[1], max(users)
    await hub.submit(name, later(cluster))
    job = (await hub.job(name))["job_id"]
    async with Person(hub, other) as person:
        for target in (name, f"{name}/none", "nobody"):
            for action in ACTIONS:
                assert await press(person, f"{action}/{target}") in (403, 404)
            for page in ("log", "status"):
                assert (await get(person, f"{page}/{target}"))[0] in (403, 404)
        # One's own that do not exist are not made by asking.
        assert (await get(person, f"log/{other}/none"))[0] == 404
        assert await press(person, f"again/{other}/none") == 404
        assert "none" not in (await hub.call("GET", f"/hub/api/users/{other}"))[1]["servers"]
    async with Person(hub, helper) as person:
        status, text = await get(person, f"log/{name}")
        assert status == 200
        assert f"Log of job {job}" in text
        assert await press(person, f"stop/{name}") in (403, 404)
    assert queued(slurm, cluster, name) == [job]


async def test_stop_and_again(hub: Hub, users: list[str], cluster: Any, slurm: Any) -> None:
    """Of one of several servers; the same request comes again, a time that has passed does not."""
    name = users[0]
    await hub.submit(name, later(cluster))
    await hub.submit(name, later(cluster, 25), "second")
    first, second = (await hub.job(name))["job_id"], await hub.job(name, "second")
    async with Person(hub, name) as person:
        assert await press(person, f"stop/{name}/second") == 303
        assert queued(slurm, cluster, name) == [first]
        assert (await hub.state(name, "second"))["last"]["stopped"] is True
        # Pressed twice, and once more.
        assert await press(person, f"stop/{name}/second") == 303
        assert await press(person, f"resume/{name}/second") == 303
        assert queued(slurm, cluster, name) == [first]
        assert await press(person, f"again/{name}/second") == 303
        again = await hub.job(name, "second")
        assert {**second["request"], "begin": None} == again["request"]
        assert again["job_id"] != second["job_id"]
        # What runs or starts is not started twice.
        assert await press(person, f"again/{name}/second") == 303
        assert sorted(queued(slurm, cluster, name)) == sorted([first, again["job_id"]])
        assert await press(person, f"remove/{name}/second") == 409
        assert await press(person, f"stop/{name}/second") == 303

        async def removed() -> bool:
            return await press(person, f"remove/{name}/second") == 303

        await until(removed, 20, "it has ended, so it may be removed")
        assert await hub.model(name, "second") is None
        # Nothing to start again with: the form.
        assert await press(person, f"stop/{name}") == 303
    assert queued(slurm, cluster, name) == []


async def test_again_that_slurm_refuses_says_so(hub: Hub, users: list[str], cluster: Any, slurm: Any) -> None:
    """The sentence stands on the page that comes next; no bare error, and nothing is submitted."""
    name = users[0]
    await hub.submit(name, {**ONE, "time": "1:00:00"})
    await hub.job(name)
    await hub.end(name)
    change = ["scontrol", "-M", cluster.site.cluster, "update", "PartitionName=core"]
    slurm(*change, "State=INACTIVE")
    try:
        async with Person(hub, name) as person:
            assert await press(person, f"again/{name}") == 303
            async with person.session.get(f"{hub.url}/hub/spawn-pending/{name}") as answer:
                text = await answer.text()
            assert "Your session did not start" in text
            assert "This partition is closed at the moment." in text
            assert "Start again with the same choices" in text
            async with person.session.get(f"{hub.url}/hub/home") as answer:
                assert "This partition is closed at the moment." in await answer.text()
    finally:
        slurm(*change, "State=UP")


async def test_a_new_session_beside_the_one_that_waits(hub: Hub, users: list[str], cluster: Any) -> None:
    name = users[0]
    async with Person(hub, name) as person:
        for expected in (f"/hub/spawn/{name}", f"/hub/spawn/{name}/lab-2"):
            async with person.session.get(f"{hub.url}/hub/snowy/new", allow_redirects=False) as answer:
                assert (answer.status, answer.headers["Location"]) == (303, expected)
            await hub.submit(name, later(cluster))
            await hub.job(name)
