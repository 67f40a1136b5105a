"""Courses without an administrator: a file in the project's directory, its cards, and the repository in the session."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ..git_server import commit
from ..hubs import Hub, until
from ..people import Person, Project, course_cards, forgets_reservations

pytestmark = pytest.mark.cluster

QUICK = {"environment": "tf-pip", "partition": "devcore", "gpu": "none", "cores": "1", "time": "0:10:00"}


@pytest.fixture
async def project(cluster: Any, hub: Hub, users: list[str]) -> AsyncIterator[Project]:
    made = Project(cluster)
    yield made
    await made.remove(hub, users[0])


async def test_a_course_of_somebody_else_s_project_is_not_shown(
    cluster: Any, hub: Hub, users: list[str], project: Project
) -> None:
    """Whoever may read the file: what counts is whose project it is, and then who may read it."""
    closed = Project(cluster, "g2019001")
    closed.put({"title": "Closed"})
    project.put({"title": "Open"}, users[0])
    async with Person(hub, users[0]) as member, Person(hub, users[1]) as other:

        async def shown() -> Any:
            await other.page()
            return course_cards(await member.page())

        cards = await until(shown, 20, "the card", every=0.5)
        assert list(cards) == [f"course/{project.account}/1"]
        assert "Open" in cards[f"course/{project.account}/1"]
        # They were looked for as long as the member's.
        assert course_cards(await other.page()) == {}
    await closed.remove(hub)


async def test_a_course_s_reservation_is_used_while_it_is_active(
    cluster: Any, hub: Hub, users: list[str], slurm: Any, project: Project
) -> None:
    """Before, the card says that it starts without. Its Start takes what the file says, not what the fields say."""
    name, key = users[0], f"course/{project.account}/1"
    control = ["scontrol", "-M", cluster.site.cluster]
    slurm(*control, "delete", "ReservationName=course_now", check=False)  # of a run whose cluster was kept
    project.put({"title": "Lab", **QUICK, "partition": "core", "reservation": "course_now"})
    async with Person(hub, name) as person:

        async def card() -> str:
            return course_cards(await person.page()).get(key, "")

        said = "The reservation course_now is not active now: the session starts without it."
        assert said in await until(card, 20, "the card", every=0.5)
        asked = f"ReservationName=course_now Users={name} StartTime=now Duration=60 Nodes=s1 Flags=IGNORE_JOBS"
        slurm(*control, "create", "reservation", *shlex.split(asked))

        async def used() -> bool:
            return said not in await card()

        await until(used, 30, "the card uses the reservation", every=1)
        typed = {"cores": "1,4", "reservation": "", "time": "nonsense"}
        status, back = await person.send(await person.form(), _course=key, **typed)
        assert status == 302, back.errors
        job = (await hub.job(name))["job_id"]
        shown = slurm(*control, "show", "job", job)
        assert "Reservation=course_now" in shown
        assert "NumCPUs=1 " in shown
        assert "TimeLimit=00:10:00" in shown
        await hub.end(name)
    slurm(*control, "delete", "ReservationName=course_now")
    await forgets_reservations(hub, name)


async def test_a_change_is_seen_and_a_card_that_has_gone_starts_nothing(
    cluster: Any, hub: Hub, users: list[str], slurm: Any, project: Project
) -> None:
    name, key = users[0], f"course/{project.account}/1"
    project.put({"title": "One", **QUICK})
    async with Person(hub, name) as person:

        async def cards() -> dict[str, str]:
            return course_cards(await person.page())

        async def shows(text: str) -> bool:
            return text in " ".join((await cards()).values())

        await until(lambda: shows("One"), 20, "the card", every=0.5)
        form = await person.form()
        project.put("title: One\ncores: 4\n\tgpu: none\n")
        await until(lambda: shows("Line 3: begins with a tab: indent with spaces."), 20, "the mistake", every=0.5)
        assert list(await cards()) == [f"The course file of {project.account} cannot be used"]
        status, back = await person.send(form, _course=key)
        assert status == 400
        assert back.values["cores"] == form.values["cores"]
        project.put({"title": "Two", **QUICK})
        await until(lambda: shows("Two"), 20, "the card", every=0.5)
    assert slurm("squeue", "-M", cluster.site.cluster, "-h", "-u", name) == ""


PRINT = "import json, os; print(json.dumps([os.environ['JUPYTERHUB_DEFAULT_URL'], {}]))"


async def test_a_session_has_the_repository_or_says_why_not(hub: Hub, users: list[str], project: Project) -> None:
    """From a path of the project; and from where nobody answers, as on a node without the network."""
    commit(project.path / "labs", {"lab1.txt": "Hello"})
    name = users[0]
    wanted = QUICK | {"partition": "core", "repository": str(project.path / "labs"), "open": "labs/lab1.txt"}
    away = wanted | {"repository": "https://127.0.0.1:9/course.git", "open": ""}
    await asyncio.gather(hub.serve(name, wanted, "path"), hub.serve(name, away, "away"))
    found = json.loads(await hub.run(name, PRINT.format("open('labs/lab1.txt').read()"), "path"))
    assert found == ["/lab/tree/labs/lab1.txt", "Hello"]
    left = json.loads(await hub.run(name, PRINT.format("[n for n in os.environ if 'SNOWYSPAWNER' in n]"), "path"))
    assert left[1] == []
    page, note = json.loads(await hub.run(name, PRINT.format("open('course-not-fetched.txt').read()"), "away"))
    assert page == "/lab/tree/course-not-fetched.txt"
    assert note.startswith("The repository https://127.0.0.1:9/course.git was not fetched: ")
    await hub.end_each([(name, "path"), (name, "away")])


@pytest.mark.parametrize("way", ["form", "link", "rest"])
async def test_a_repository_is_a_field_like_others(hub: Hub, users: list[str], way: str) -> None:
    """Shown as it was given, and refused at the field. A line has no word for it, as sbatch has no flag."""
    bad, said = "https://me:secret@git.example/x", "is not a repository: write https://HOST/PATH"
    if way == "rest":
        status, answer = await hub.submit(users[0], {"repository": bad})
        assert status == 400
        assert f"repository: '{bad}' {said}" in answer["message"]
        return
    async with Person(hub, users[0]) as person:
        form = await person.form({"opt-repository": bad} if way == "link" else None)
        if way == "form":
            status, form = await person.send(form, repository=bad)
            assert status in (200, 400)
        assert form.values["repository"] == bad
        assert said in form.errors["repository"]
