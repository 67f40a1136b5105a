"""A hub that dies loses no session: jobs wait, claim and serve without it."""

import json
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from ..hubs import Hub, until
from ..people import Person
from .test_session import MKL, queued
from .test_sessions import press

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
    assert await own_hub.job_seen(users[0]) == job["job_id"]


async def test_a_serving_session_survives_its_hub(own_hub: Hub, users: list[str], cluster: Any, slurm: Any) -> None:
    """Stopped and started, the hub has the same server; its end is noticed and its job can be stopped."""
    state = await own_hub.serve(users[0], MKL)
    await own_hub.stop(signal.SIGTERM)
    await own_hub.start()
    model = await own_hub.model(users[0])
    assert model is not None
    assert model["ready"]
    assert await own_hub.job_seen(users[0]) == state["job"]["job_id"]
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


@pytest.mark.parametrize(
    "change",
    [
        lambda job: {**job, "version": 99},
        lambda job: {**job, "request": {**job["request"], "a_field_that_is_gone": 5}},
        lambda job: {**job, "request": {"cores": "many"}, "phase": "resting", "node": None},
        lambda job: {"job_id": int(job["job_id"]), "named": job["name"]},
    ],
    ids=["another version", "a field that is gone", "values of another kind", "the number alone"],
)
async def test_a_waiting_job_of_another_version_s_hub_is_attached_to(
    own_hub: Hub, users: list[str], cluster: Any, slurm: Any, change: Any
) -> None:
    """What its hub has stored is read as far as it goes; by its number Slurm knows the job, which can be ended, too."""
    name = users[0]
    begin = datetime.fromtimestamp(time.time() + 600, cluster.site.zone).strftime("%Y-%m-%dT%H:%M:%S")
    await own_hub.submit(name, {**MKL, "begin": begin})
    job = await own_hub.job(name)
    await own_hub.stop(signal.SIGKILL)
    with sqlite3.connect(own_hub.directory / "hub.sqlite") as db:
        query = "FROM spawners WHERE state LIKE ?", (f'%"{job["name"]}"%',)
        ((row, state),) = db.execute(f"SELECT id, state {query[0]}", query[1])
        stored = json.loads(state)
        db.execute("UPDATE spawners SET state = ? WHERE id = ?", (json.dumps({**stored, "job": change(job)}), row))
    await own_hub.start()
    await own_hub.resume(name)
    again = await own_hub.job(name)
    assert again["job_id"] == job["job_id"]
    assert queued(slurm, cluster, name) == [job["job_id"]]
    await own_hub.end(name)
    assert queued(slurm, cluster, name) == []


async def test_sessions_that_were_started_together_stay_together(
    own_hub: Hub, users: list[str], cluster: Any, slurm: Any
) -> None:
    """Their hub is killed while they wait: the next one's home page has them under their title, to end together."""
    name = users[0]
    begin = datetime.fromtimestamp(time.time() + 900, cluster.site.zone).strftime("%Y-%m-%dT%H:%M")
    await own_hub.call("POST", f"/hub/api/users/{name}")
    choice = {**MKL, "partition": "core", "cores": [1, 2], "begin": begin}
    status, answer = await own_hub.call("POST", f"/hub/snowy/several?user={name}", choice)
    assert status == 201, answer
    assert len(queued(slurm, cluster, name)) == 2
    await own_hub.stop(signal.SIGKILL)
    await own_hub.start()
    group = {"id": answer["group"], "title": "tf-mkl on 1 and 2 cores"}
    assert (await own_hub.state(name, "tf-mkl-2"))["group"] == group
    async with Person(own_hub, name) as person:
        async with person.session.get(f"{own_hub.url}/hub/home") as page:
            text = await page.text()
        assert text.count("tf-mkl on 1 and 2 cores</h2>") == 1
        assert text.index("</h2>") < text.index("tf-mkl-1</h3>") < text.index("tf-mkl-2</h3>")
        assert await press(person, f"stop-all/{name}/{answer['group']}") == 303
    await until(lambda: queued(slurm, cluster, name) == [], 20, "the end of both")


@pytest.fixture
async def waiting(own_hub: Hub, users: list[str], cluster: Any) -> tuple[dict[str, Any], str]:
    """The choice and the number of a job that waits, of a hub that was restarted meanwhile."""
    begin = datetime.fromtimestamp(time.time() + 900, cluster.site.zone).strftime("%Y-%m-%dT%H:%M")
    choice = {**MKL, "partition": "core", "begin": begin}
    await own_hub.submit(users[0], choice)
    job = await own_hub.job(users[0])
    await own_hub.stop(signal.SIGKILL)
    await own_hub.start()
    return choice, str(job["job_id"])


async def test_the_same_choice_goes_on_waiting_for_the_job_that_is_there(
    own_hub: Hub, users: list[str], cluster: Any, slurm: Any, waiting: tuple[dict[str, Any], str]
) -> None:
    choice, job_id = waiting
    status, answer = await own_hub.submit(users[0], choice)
    assert status in (201, 202), answer
    # Written in another way it is the same; and who chooses nothing, chooses nothing else.
    for options in ({**choice, "cores": str(choice["cores"]), "time": "59"}, {}):
        await own_hub.stop(signal.SIGKILL)
        await own_hub.start()
        status, answer = await own_hub.submit(users[0], options)
        assert status in (201, 202), answer
    assert queued(slurm, cluster, users[0]) == [job_id]
    assert (await own_hub.job(users[0]))["job_id"] == job_id


async def test_another_choice_by_rest_is_asked_about_and_replaces_the_job_if_it_says_so(
    own_hub: Hub, users: list[str], cluster: Any, slurm: Any, waiting: tuple[dict[str, Any], str]
) -> None:
    (choice, job_id), name = waiting, users[0]
    other = {**choice, "cores": 3}
    changed = f"cores {choice['cores']} (now 3)."
    for options, what in (
        (other, changed),
        ({**other, "replace": "1"}, changed),
        ({**other, "replace": True}, changed),
        ({"environment": "tf-gpu"}, "environment tf-mkl (now tf-gpu);"),
    ):
        status, answer = await own_hub.submit(name, options)
        assert status == 409
        assert f"Job {job_id} is already waiting for this session, with other choices: {what}" in answer["message"]
        assert "keep waiting" in answer["message"].lower()
        assert f'"replace": "{job_id}"' in answer["message"]
        assert queued(slurm, cluster, name) == [job_id]
    # What cannot be started is no reason to lose what waits.
    status, answer = await own_hub.submit(name, {**other, "cores": 99, "replace": job_id})
    assert status == 400
    assert "cores: " in answer["message"]
    assert queued(slurm, cluster, name) == [job_id]
    # JupyterHub has not kept what was refused: without options it is the job that is there.
    status, answer = await own_hub.resume(name)
    assert status in (201, 202), answer
    assert (await own_hub.job(name))["job_id"] == job_id
    await own_hub.stop(signal.SIGKILL)
    await own_hub.start()
    status, answer = await own_hub.submit(name, {**other, "replace": job_id})
    assert status in (201, 202), answer

    async def replaced() -> str:
        job = (await own_hub.state(name)).get("job") or {}
        return str(job.get("job_id", "")) if job.get("job_id") != job_id else ""

    new = await until(replaced, 30, "another job")
    assert queued(slurm, cluster, name) == [new]
    assert (await own_hub.job(name))["request"]["cores"] == 3
    await own_hub.end(name)
    assert queued(slurm, cluster, name) == []


async def test_another_choice_in_the_form_comes_back_with_both_ways_on(
    own_hub: Hub, users: list[str], cluster: Any, slurm: Any, waiting: tuple[dict[str, Any], str]
) -> None:
    (_, job_id), name = waiting, users[0]
    async with Person(own_hub, name) as person:
        form = await person.form()
        status, back = await person.send(form, cores="3")
        assert status == 409
        assert back.values["cores"] == "3"
        assert back.buttons[f"Keep waiting for job {job_id}"]["formaction"] == f"/hub/snowy/resume/{name}"
        assert back.buttons["Replace it with this choice"] == {"name": "replace", "value": job_id} | {
            key: value for key, value in back.buttons["Replace it with this choice"].items() if key in ("type", "class")
        }
        assert queued(slurm, cluster, name) == [job_id]
        # By the first way, as the browser sends it
        back.action = f"/hub/snowy/resume/{name}"
        assert (await person.send(back))[0] == 303
        assert (await own_hub.job(name))["job_id"] == job_id
        await own_hub.stop(signal.SIGKILL)
        await own_hub.start()
        status, back = await person.send(await person.form(), cores="3", replace=job_id)
        assert status == 302

        async def replaced() -> bool:
            return queued(slurm, cluster, name) not in ([], [job_id])

        await until(replaced, 30, "another job")
    assert (await own_hub.job(name))["request"]["cores"] == 3


async def test_looking_at_the_form_of_a_new_server_leaves_no_server(hub: Hub, users: list[str]) -> None:
    """Nor does a choice that is refused. What is started keeps the name that it was to be shown under."""
    name = users[0]

    async def servers() -> dict[str, Any]:
        _, model = await hub.call("GET", f"/hub/api/users/{name}?include_stopped_servers")
        return dict(model["servers"])

    async with Person(hub, name) as person:
        await person.form(server="looked-at")
        await person.form({"opt-cores": "2"}, server="by-link")
        status, _ = await person.send(await person.form(server="refused"), cores="99")
        assert status == 400
        assert set(await servers()) <= {""}
        form = await person.form({"display_name": "My lab!"}, server="my-lab")
        assert set(await servers()) <= {""}
        status, _ = await person.send(form, **{key: str(value) for key, value in MKL.items()})
        assert status == 302
        await hub.job(name, "my-lab")
        async with person.session.get(f"{hub.url}/hub/home") as answer:
            assert "My lab!" in await answer.text()
