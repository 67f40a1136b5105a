"""A QOS and a constraint that the Site offers reach Slurm; what is not possible is refused."""

from __future__ import annotations

import shlex
from collections.abc import AsyncIterator, Iterator
from html import unescape
from typing import Any

import pytest

from ..faults import FaultHub
from ..people import Person, start_by
from .test_session import queued, show_job
from .test_slurm_away import end_all, later

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

SITE = {
    "qos": {"short": {"description": "First in line", "partitions": ["core"]}, "denied": {}},
    "constraints": {"bigmem": {"display_name": "Much memory"}, "nowhere": {}},
}
BASE = {"environment": "tf-mkl", "image": "container.sif", "partition": "core", "cores": "1", "gpu": "none"}
CHOSEN = {"qos": "short", "constraint": "bigmem"}


@pytest.fixture(scope="module")
def offered(cluster: Any, slurm: Any) -> Iterator[None]:
    """Slurm has a QOS that these people may use, one that they may not, and a node with a feature."""
    control = ["scontrol", "-M", cluster.site.cluster]
    people = ",".join(cluster.users)
    slurm("sacctmgr", "-i", "add", "qos", "short,denied")
    slurm("sacctmgr", "-i", "modify", "user", f"name={people}", f"cluster={cluster.site.cluster}", "set", "qos+=short")
    # slurmctld refuses a feature that it has not been told of.
    slurm(*control, "update", "NodeName=s1", "AvailableFeatures=bigmem", "ActiveFeatures=bigmem")
    yield
    slurm(*control, "update", "NodeName=s1", "AvailableFeatures=", "ActiveFeatures=")
    slurm("sacctmgr", "-i", "modify", "user", f"name={people}", f"cluster={cluster.site.cluster}", "set", "qos-=short")
    slurm("sacctmgr", "-i", "delete", "qos", "short,denied")


@pytest.fixture(scope="module")
async def shared(cluster: Any, offered: None) -> AsyncIterator[FaultHub]:
    hub = FaultHub(cluster, cluster.state / "fault-hub", SITE)
    await hub.start()
    yield hub
    await hub.stop()


@pytest.fixture
async def choosing(shared: FaultHub, users: list[str]) -> AsyncIterator[FaultHub]:
    yield shared
    await end_all(shared, users)
    for user in users:
        await shared.forget(user)


@pytest.mark.parametrize("way", ["form", "link", "rest", "line"])
async def test_both_reach_slurm(choosing: FaultHub, users: list[str], cluster: Any, slurm: Any, way: str) -> None:
    name, begin = users[1], later(cluster, 3600)
    full = {**BASE, **CHOSEN, "begin": begin, "time": "0:30:00"}
    line = f"-n 1 -p core --gres=none -q short -C bigmem -t 0:30:00 -b {begin} -- tf-mkl"
    await start_by(way, choosing, name, full, line, lambda: queued(slurm, cluster, name) == [])
    job = await choosing.job(name)
    seen = show_job(slurm, cluster, job["job_id"])
    assert (seen["QOS"], seen["Features"], seen["TimeLimit"]) == ("short", "bigmem", "00:30:00")
    # The page of the waiting session says so, and the next form offers it again.
    async with Person(choosing, name) as person:
        async with person.session.get(f"{choosing.url}/hub/spawn-pending/{name}") as answer:
            page = unescape(await answer.text())
        for label, value in (("QOS", "short"), ("Constraint", "bigmem")):
            assert f"<dt>{label}</dt><dd>{value}</dd>" in page.replace("\n", "").replace("  ", "")


@pytest.mark.parametrize(
    ("options", "field", "sentence"),
    [
        ({"qos": "long"}, "qos", "'long' is not offered here; choose denied or short, or none"),
        ({"qos": "short", "partition": "node"}, "qos", "short is only for partition core: choose that, or no QOS"),
        ({"constraint": "a b"}, "constraint", "'a b' is not offered here; choose bigmem or nowhere, or none"),
        # Slurm's own word.
        ({"qos": "denied"}, "qos", "You may not send jobs of this QOS, or not here."),
        ({"constraint": "nowhere"}, "constraint", "No node has what this constraint asks for."),
    ],
)
async def test_what_is_not_possible_is_refused(
    choosing: FaultHub, users: list[str], cluster: Any, slurm: Any, options: dict[str, str], field: str, sentence: str
) -> None:
    message = await choosing.failure(users[1], {**BASE, **options})
    assert sentence in message
    last = (await choosing.state(users[1])).get("last")
    # Ours come before anything is submitted, and name the field.
    assert f"Nothing was started. {field}: " in message if last is None else last["reason"] == "slurm"
    assert queued(slurm, cluster, users[1]) == []


async def test_the_script_and_the_line_say_both(choosing: FaultHub, users: list[str]) -> None:
    async with Person(choosing, users[1]) as person:
        form = await person.form({f"opt-{field}": value for field, value in {**BASE, **CHOSEN}.items()})
        headers = {"X-XSRFToken": form.values["_xsrf"]} if "_xsrf" in form.values else {}
        for what in ("script", "check"):
            url = f"{choosing.url}/hub/snowy/{what}"
            async with person.session.post(url, json={**BASE, **CHOSEN}, headers=headers) as answer:
                said = await answer.json()
            if what == "script":
                assert "#SBATCH --qos=short" in said["script"].splitlines()
                assert "#SBATCH --constraint=bigmem" in said["script"].splitlines()
            else:
                words = shlex.split(said["line"])
                assert words[words.index("-q") + 1] == "short"
                assert words[words.index("-C") + 1] == "bigmem"
                assert "opt-qos=short" in said["link"]
