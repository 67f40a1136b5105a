"""A container and an environment of one's own: real ones, in real sessions; refused before anything is queued.

The environments are virtual environments that were made with Debian's Python, which is the image's, too; what is
installed in the image's own is lent to them by a .pth file.
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.apptainer import program
from demo.commands import open_umask

from ..faults import ready
from ..hubs import Hub, until
from ..people import Person, Project, course_cards, start_by
from ..software import LENDER, make_environment, run
from .test_session import queued

pytestmark = pytest.mark.cluster

QUICK = {"environment": "tf-pip", "partition": "core", "gpu": "none", "cores": "1", "time": "0:10:00"}


def home_of(name: str) -> Path:
    return Path(pwd.getpwnam(name).pw_dir)


@pytest.fixture
def envs(users: list[str]) -> Iterator[Path]:
    """A directory for environments in the home of the first of *users*."""
    path = home_of(users[0]) / "envs"
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
async def project(cluster: Any, hub: Hub, users: list[str]) -> AsyncIterator[Project]:
    made = Project(cluster)
    yield made
    await made.remove(hub, users[0])


@pytest.fixture
def sandbox(cluster: Any) -> Iterator[Path]:
    """The small image as a directory in a project's, with a server on its PATH."""
    place = cluster.state / "proj" / "g2020014" / "images"
    path: Path = place / "lab"
    with open_umask():
        place.mkdir(parents=True, exist_ok=True)
        offset = partition_offset(cluster.image)
        run("unsquashfs", "-no-progress", "-quiet", "-offset", offset, "-dest", str(path), str(cluster.image))
        (path / "usr/local/bin").mkdir(parents=True, exist_ok=True)
        (path / "usr/local/bin/jupyterhub-singleuser").symlink_to(f"{LENDER}/bin/jupyterhub-singleuser")
    yield path
    shutil.rmtree(place)


def partition_offset(image: Path) -> str:
    """Return where the file system begins in a SIF."""
    listed = subprocess.run([program(), "sif", "list", image], capture_output=True, text=True, check=True).stdout
    (line,) = [line for line in listed.splitlines() if "Squashfs" in line]
    return line.split("|")[3].split("-")[0].strip()


SEEN = """import json, os, shutil, sys
names = ("VIRTUAL_ENV", "CONDA_PREFIX", "LAB_DATA", "APPTAINER_CONTAINER")
print(json.dumps({name: os.environ.get(name) for name in names}
  | {"prefix": sys.prefix, "server": shutil.which("jupyterhub-singleuser")}))"""


async def test_a_session_runs_in_an_environment_of_one_s_own(
    hub: Hub, users: list[str], envs: Path, cluster: Any
) -> None:
    """Its kernels and terminals, too, in the Site's container; the same choice is offered again."""
    name, mine = users[0], make_environment(envs / "mine", users[0])
    await hub.serve(name, {**QUICK, "own_environment": "~/envs/mine"}, "mine")
    seen = json.loads(await hub.run(name, SEEN, "mine"))
    assert seen == {
        "VIRTUAL_ENV": str(mine),
        "CONDA_PREFIX": None,
        "LAB_DATA": None,
        "APPTAINER_CONTAINER": str(cluster.image),
        "prefix": str(mine),
        "server": f"{mine}/bin/jupyterhub-singleuser",
    }
    assert f"{mine}/bin/python3" in await hub.in_terminal(name, "command -v python3", "mine")
    async with Person(hub, name) as person:
        form = await person.form()
        assert form.values["own_environment"] == "~/envs/mine"
        # A card of one's own has it, too, and says so.
        card = {**form.values, "preset_name": "Mine", "preset_action": "save"}
        async with person.session.post(f"{hub.url}/hub/snowy/preset", data=card) as answer:
            assert answer.status == 200
        page = await person.page()
        assert 'class="snowy-sum">mine&nbsp;· 1&nbsp;core' in page
        async with person.session.get(f"{hub.url}/hub/home") as answer:
            assert "mine" in await answer.text()
    await hub.end(name, "mine")


async def test_a_conda_environment_is_activated_without_conda(hub: Hub, users: list[str], envs: Path) -> None:
    """By what conda leaves in it; the path may be written out."""
    name, mine = users[0], make_environment(envs / "mine", users[0])
    with open_umask():
        (mine / "conda-meta").mkdir()
        (mine / "etc/conda/activate.d").mkdir(parents=True)
        (mine / "etc/conda/activate.d/lab.sh").write_text('export LAB_DATA="$CONDA_PREFIX/share/lab"\n')
    await hub.serve(name, {**QUICK, "own_environment": str(mine)}, "mine")
    seen = json.loads(await hub.run(name, SEEN, "mine"))
    assert (seen["CONDA_PREFIX"], seen["LAB_DATA"], seen["VIRTUAL_ENV"]) == (str(mine), f"{mine}/share/lab", None)
    await hub.end(name, "mine")


async def test_a_session_runs_in_a_container_of_one_s_own(
    hub: Hub, users: list[str], sandbox: Path, envs: Path, cluster: Any
) -> None:
    """As it is, a directory; and one without a server, a file, with an environment that has one."""
    name = users[0]
    mine = make_environment(envs / "mine", name)
    shutil.copy(cluster.image, home_of(name) / "lab.sif")
    try:
        both = {**QUICK, "own_container": "~/lab.sif", "own_environment": "~/envs/mine"}
        await asyncio.gather(
            hub.serve(name, {**QUICK, "own_container": str(sandbox)}, "alone"), hub.serve(name, both, "both")
        )
        seen = json.loads(await hub.run(name, SEEN, "alone"))
        assert seen["APPTAINER_CONTAINER"] == str(sandbox)
        assert seen["server"] == "/usr/local/bin/jupyterhub-singleuser"
        seen = json.loads(await hub.run(name, SEEN, "both"))
        assert (seen["APPTAINER_CONTAINER"], seen["prefix"]) == (f"{home_of(name)}/lab.sif", str(mine))
        await hub.end_each([(name, "alone"), (name, "both")])
        # Alone it has no server, which its own runtime says before anything is queued.
        status, answer = await hub.submit(name, {**QUICK, "own_container": "~/lab.sif"})
        assert status == 400
        said = "~/lab.sif has no jupyterhub-singleuser: add python3 -m pip install jupyterhub jupyterlab to %post"
        assert f"own_container: {said}" in answer["message"]
    finally:
        (home_of(name) / "lab.sif").unlink()


def prepare(project: Path) -> None:
    """Make everything that can be wrong below *project*/envs, and something of somebody else's."""
    envs = project / "envs"
    make_environment(envs / "no-server", server=False)
    make_environment(envs / "conda", server=False)
    (envs / "conda" / "conda-meta").mkdir()
    (envs / "empty").mkdir()
    (envs / "away").symlink_to("/usr")
    (envs / "text.sif").write_text("I am no image.\n")
    with open(program(), "rb") as file:
        (envs / "elf.sif").write_bytes(file.read(4096))
    make_environment(envs / "moved").rename(envs / "elsewhere")
    (project / "closed").mkdir(mode=0o700, parents=True)


INSTALL = "install it with ~/envs/no-server/bin/python -m pip install jupyterhub jupyterlab"
CONDA = "install it with conda install --prefix ~/envs/conda --channel conda-forge jupyterhub-singleuser"
REFUSED = [
    ("own_environment", "envs/mine", "is not a path: write ~/NAME"),
    ("own_environment", "~/envs/none", "does not exist: make it with python3 -m venv ~/envs/none, then"),
    ("own_environment", "~/envs/no-server", f"has no jupyterhub-singleuser: {INSTALL}"),
    ("own_environment", "~/envs/conda", f"has no jupyterhub-singleuser: {CONDA}"),
    ("own_environment", "~/envs/empty", "is no environment: it has no bin/python"),
    ("own_environment", "~/envs/away", "leads to /usr, where this site does not allow it"),
    ("own_environment", "~/envs/elsewhere", "and does not work elsewhere: make it anew here"),
    ("own_environment", "/etc/alternatives", "must be below ~, "),
    ("own_environment", "{project}/closed", "you may not read"),
    ("own_container", "~/envs/none.sif", "does not exist"),
    ("own_container", "~/envs/text.sif", "is no container: name a file that apptainer build"),
    ("own_container", "~/envs/elf.sif", "is no container"),
    ("own_container", "docker://python:3.12", "is an address: fetch it first, with apptainer pull"),
    ("own_container", "{project}/closed/lab.sif", "you may not read"),
    ("own_container", "/etc/os-release", "must be below ~, "),
]


@pytest.fixture(scope="module")
def wrong_things(cluster: Any) -> Iterator[Path]:
    """A project's directory, in which everything is that can be wrong."""
    project: Path = cluster.state / "proj" / "g2020014"
    shutil.rmtree(project, ignore_errors=True)
    with open_umask():
        project.mkdir(parents=True)
        prepare(project)
    yield project
    shutil.rmtree(project)


@pytest.fixture
def wrong(wrong_things: Path, users: list[str]) -> Path:
    """The same; a link in the home of the first of *users* leads to it."""
    (home_of(users[0]) / "envs").symlink_to(wrong_things / "envs")
    return wrong_things


@pytest.mark.parametrize(("field", "path", "said"), REFUSED, ids=[f"{field[4:]}: {path}" for field, path, _ in REFUSED])
@pytest.mark.parametrize("way", ["form", "link", "rest", "line"])
async def test_a_refusal_is_at_its_field_before_anything_is_queued(
    hub: Hub, users: list[str], wrong: Path, slurm: Any, cluster: Any, way: str, field: str, path: str, said: str
) -> None:
    name, path = users[0], path.replace("{project}", str(wrong))
    if way in ("rest", "line"):
        flags = "-p core -n 1 -t 0:10:00 --gres=none --"
        words = f"{flags} tf-pip {path}" if field == "own_container" else f"{flags} {path}"
        status, answer = await hub.submit(name, {"line": words} if way == "line" else {**QUICK, field: path})
        assert status == 400
        assert f"{field}: " in answer["message"]
        assert said in answer["message"]
    else:
        async with Person(hub, name) as person:
            form = await person.form({f"opt-{field}": path} if way == "link" else None)
            status, back = await person.send(form, **QUICK, **{field: path})
            assert status in (200, 400)
            assert said in back.errors[field]
            assert back.values[field] == path
            # The page says it while one chooses, too.
            url = f"{hub.url}/hub/snowy/check"
            sent = {**QUICK, field: path}
            async with person.session.post(url, json=sent, headers={"X-XSRFToken": form.values["_xsrf"]}) as answered:
                assert said in (await answered.json())["errors"][field]
    assert queued(slurm, cluster, name) == []


@pytest.mark.parametrize("way", ["form", "link", "rest", "line"])
async def test_it_reaches_the_job_by_every_way(
    hub: Hub, users: list[str], envs: Path, cluster: Any, slurm: Any, way: str
) -> None:
    """An environment by itself, and both: a container alone would have to be made for it."""
    name = users[0]
    make_environment(envs / "mine", name)
    shutil.copy(cluster.image, envs / "lab.sif")
    begin = "now+1hour"
    for mine, words in (
        ({"own_environment": "~/envs/mine", "own_container": ""}, "~/envs/mine"),
        ({"own_environment": "~/envs/mine", "own_container": "~/envs/lab.sif"}, "~/envs/mine ~/envs/lab.sif"),
    ):
        line = f"-p core -n 1 -t 0:10:00 -b {begin} --gres=none -- {words}"
        await start_by(
            way, hub, name, {**QUICK, "begin": begin, **mine}, line, lambda: queued(slurm, cluster, name) == []
        )
        job = await hub.job(name)
        assert {field: job["request"][field] for field in mine} == mine
        script = slurm("scontrol", "-M", cluster.site.cluster, "write", "batch_script", job["job_id"], "-")
        assert f'"prefix": "{envs}/mine"' in script
        assert (f'"path": "{envs}/lab.sif"' in script) == bool(mine["own_container"])
        await hub.end(name)


async def test_what_vanishes_between_form_and_start_fails_in_words(
    hub: Hub, users: list[str], envs: Path, cluster: Any, slurm: Any
) -> None:
    """Both were there when their jobs were queued; both are gone when these start."""
    name = users[0]
    make_environment(envs / "mine", name)
    shutil.copy(cluster.image, envs / "lab.sif")
    wanted = {
        "environment": {**QUICK, "own_environment": "~/envs/mine", "begin": "now+1hour"},
        "container": {
            **QUICK,
            "own_container": "~/envs/lab.sif",
            "own_environment": "~/envs/mine",
            "begin": "now+1hour",
        },
    }
    jobs = {}
    for server, options in wanted.items():
        status, answer = await hub.submit(name, options, server)
        assert status in (201, 202), answer
        jobs[server] = (await hub.job(name, server))["job_id"]
    shutil.rmtree(envs)
    for job in jobs.values():
        slurm("scontrol", "-M", cluster.site.cluster, "update", f"JobId={job}", "StartTime=now")
    said = {}
    for server in wanted:
        said[server] = await until(lambda s=server: hub._failed(name, s, 30), 60, f"why {server} failed")
    assert "Your own environment ~/envs/mine is not there" in said["environment"]
    assert "Your own container ~/envs/lab.sif does not exist" in said["container"]
    for server, field in (("environment", "own_environment"), ("container", "own_container")):
        # Start again is refused at the field.
        status, answer = await hub.submit(name, {**wanted[server], "begin": ""}, server)
        assert status == 400
        assert f"{field}: " in answer["message"]
    assert os.listdir(envs.parent)


async def test_a_course_has_its_own_environment(hub: Hub, users: list[str], project: Project, slurm: Any) -> None:
    """A teacher puts it into the project's directory; a student needs nothing but the card."""
    mine = make_environment(project.path / "envs" / "lab")
    project.put({"title": "Lab", **QUICK, "own_environment": str(mine)})
    name, key = users[0], f"course/{project.account}/1"
    async with Person(hub, name) as person:

        async def card() -> str:
            return course_cards(await person.page()).get(key, "")

        assert "lab · 1 core" in (await until(card, 20, "the card", every=0.5)).replace("\xa0", " ")
        status, back = await person.send(await person.form(), _course=key)
        assert status == 302, back.errors
    await ready(hub, name)
    seen = json.loads(await hub.run(name, SEEN))
    assert seen["prefix"] == str(mine)
    await hub.end(name)
