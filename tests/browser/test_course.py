"""A course's own things: its folder, its nodes, its image that not everybody may read."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from ..hubs import Hub, until
from ..people import forgets_reservations
from .conftest import shoot
from .steps import choice, entry, read, settled, sign_in, unfold

pytestmark = [pytest.mark.cluster, pytest.mark.browser]

PIP = "CPU: tf-pip"
NOTEBOOK = {
    "cells": [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": "TensorFlow 2 quickstart for beginners"},
        {
            "cell_type": "code",
            "id": "b",
            "metadata": {},
            "source": "print('Hello')",
            "outputs": [],
            "execution_count": None,
        },
    ],
    "metadata": {"kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}


@pytest.fixture
def cloned(cluster: Any, users: list[str], tmp_path: Path) -> Iterator[None]:
    """A person has done on the login node what the course's text says before the first lab."""
    name = users[0]
    repository = cluster.state / "sesegpu.git"
    clone = Path(f"~{name}/sesegpu").expanduser()
    git = ["git", "-c", "user.name=Teacher", "-c", "user.email=teacher@example.org", "-c", "init.defaultBranch=main"]
    (tmp_path / "beginner.ipynb").write_text(json.dumps(NOTEBOOK))
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "The first lab"]):
        subprocess.run([*git, *words], cwd=tmp_path, check=True)
    for path in (repository, clone):
        subprocess.run(["rm", "-rf", path], check=True)  # of a run whose cluster was kept
    subprocess.run([*git, "clone", "-q", "--bare", tmp_path, repository], check=True)
    # git serves nobody a repository of somebody else's from this very machine.
    subprocess.run(["chown", "-R", name, repository], check=True)
    person = ["setpriv", "--reuid", name, "--regid", name, "--init-groups", "--"]
    env = {"PATH": os.environ["PATH"], "HOME": str(clone.parent)}
    subprocess.run([*person, "git", "clone", "-q", f"file://{repository}"], cwd=clone.parent, env=env, check=True)
    yield
    for path in (repository, clone):
        subprocess.run(["rm", "-rf", path], check=True)


async def test_prelab2_from_git_clone_to_a_first_cell(page: Page, hub: Hub, users: list[str], cloned: None) -> None:
    """The form opens the notebook in the course's folder, and its first cell prints."""
    name = users[0]
    await sign_in(page, hub, name)
    await page.get_by_role("radio", name=PIP).check()
    await unfold(page)
    await entry(page, "open").fill("sesegpu/beginner.ipynb")
    await settled(page)
    await page.get_by_role("button", name="Start", exact=True).click()
    await page.wait_for_url(re.compile(rf"/user/{name}/lab/tree/sesegpu/beginner\.ipynb"), timeout=90_000)
    first = page.get_by_role("paragraph").filter(has_text="TensorFlow 2 quickstart for beginners")
    await expect(first).to_be_visible(timeout=60_000)
    await expect(page.get_by_text("Python 3 (ipykernel) | Idle")).to_be_visible(timeout=60_000)
    await page.locator(".jp-CodeCell .cm-content").click()
    await page.keyboard.press("Shift+Enter")
    await expect(page.locator(".jp-OutputArea-output")).to_have_text("Hello", timeout=60_000)


@pytest.fixture
async def lab(cluster: Any, hub: Hub, users: list[str], slurm: Any) -> AsyncIterator[str]:
    """A reservation that is active, for one of the people."""
    control = ["scontrol", "-M", cluster.site.cluster]
    slurm(*control, "delete", "ReservationName=labnow", check=False)  # of a run whose cluster was kept
    asked = f"ReservationName=labnow Users={users[0]} StartTime=now Duration=60 Nodes=s1 Flags=IGNORE_JOBS"
    slurm(*control, "create", "reservation", *shlex.split(asked))
    yield "labnow"
    slurm("scancel", "-M", cluster.site.cluster, "-u", users[0])
    slurm(*control, "delete", "ReservationName=labnow")
    await forgets_reservations(hub, users[0])


async def test_an_active_reservation_is_offered_to_whom_it_is_for(
    page: Page, hub: Hub, users: list[str], cluster: Any, slurm: Any, lab: str
) -> None:
    """It can be chosen from a list, Slurm has the job in it; it is not remembered, and others do not see it."""
    name = users[0]
    await sign_in(page, hub, name)

    async def offered() -> bool:
        await page.reload()
        return await page.locator("select#snowy-reservation").count() == 1

    # What is known of the cluster is asked for every half minute, while somebody looks.
    await until(offered, 60, "the reservation in the form", every=2)
    await unfold(page)
    await page.get_by_role("radio", name=PIP).check()
    listed = entry(page, "reservation")
    await expect(listed).to_have_value("")
    assert re.fullmatch(rf"None {lab}: until .*\d\d:\d\d.*", " ".join((await listed.inner_text()).split()))
    await listed.select_option(lab)
    await choice(page, "partition", "core").check()
    await settled(page)
    await listed.scroll_into_view_if_needed()
    await shoot(page, "form-reservation")
    await page.get_by_role("button", name="Start", exact=True).click()
    await page.wait_for_url(re.compile("/hub/spawn-pending/|/user/"))
    job = await hub.job(name)
    shown = slurm("scontrol", "-M", cluster.site.cluster, "show", "job", job["job_id"])
    assert f"Reservation={lab}" in shown
    await page.wait_for_url(re.compile(rf"/user/{name}/lab"), timeout=90_000)
    assert "NodeList=s1\n" in slurm("scontrol", "-M", cluster.site.cluster, "show", "job", job["job_id"])
    await hub.end(name)
    await page.goto(f"{hub.url}/hub/spawn")
    assert (await read(page))["reservation"] == ""

    await page.context.clear_cookies()
    await sign_in(page, hub, users[1])
    await expect(page.locator("select#snowy-reservation")).to_have_count(0)
    await expect(page.locator("input#snowy-reservation")).to_have_count(1)


async def test_an_image_that_one_may_not_read_says_so_before_one_starts(page: Page, hub: Hub, users: list[str]) -> None:
    """A remark at the image, not a refusal: the membership may be on its way. The start then says the same."""
    name = users[0]
    await sign_in(page, hub, name)
    warning = page.get_by_role("radiogroup", name="Container").locator("[data-value='closed.sif']")

    async def known() -> bool:
        await page.reload()
        await unfold(page)
        return "may not read it" in await warning.inner_text()

    await until(known, 60, "the form knows that the image is closed", every=2)
    assert "may not read it" not in await page.locator("[data-value='container.sif']").inner_text()
    await expect(choice(page, "image", "closed.sif")).to_be_enabled()
    await warning.scroll_into_view_if_needed()
    await shoot(page, "form-unreadable")
    await page.get_by_role("radio", name=PIP).check()
    await choice(page, "image", "closed.sif").check()
    await settled(page)
    await page.get_by_role("button", name="Start", exact=True).click()
    await expect(page.get_by_text("member of its project").first).to_be_visible(timeout=60_000)
    await page.goto(f"{hub.url}/hub/home")
    await expect(page.locator("#snowy-server--")).to_contain_text("closed.sif")
