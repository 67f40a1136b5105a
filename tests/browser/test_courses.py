"""A course's cards on the form: seen by whom they are for, one press from the notebook in the session."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from ..git_server import certificate, commit, serving
from ..hubs import Hub, until
from ..people import Project
from .conftest import shoot
from .steps import barriers, read, settled, sign_in, unfold
from .test_course import NOTEBOOK

pytestmark = [pytest.mark.cluster, pytest.mark.browser]


@pytest.fixture
async def project(cluster: Any, hub: Hub, users: list[str], page: Page) -> AsyncIterator[Project]:
    made = Project(cluster)
    yield made
    await page.goto("about:blank")
    await made.remove(hub, users[0])


@pytest.fixture
async def address(cluster: Any, users: list[str], tmp_path: Path) -> AsyncIterator[str]:
    """A repository on https, whose certificate one person trusts."""
    commit(tmp_path / "labs", {"lab1.ipynb": json.dumps(NOTEBOOK), "answers.txt": "?"})
    pem = certificate(tmp_path)
    home = cluster.state / "home" / users[0]
    (home / "ca.pem").write_text(re.sub(r"-----BEGIN PRIV.*?PRIVATE KEY-----\n", "", pem.read_text(), flags=re.S))
    (home / ".gitconfig").write_text(f"[http]\n\tsslCAInfo = {home}/ca.pem\n")
    for name in ("ca.pem", ".gitconfig"):
        shutil.chown(home / name, users[0], users[0])
    with serving(tmp_path, pem) as url:
        yield f"{url}/labs"


def day(site: Any, days: int) -> str:
    return f"{datetime.now(site.zone) + timedelta(days=days):%Y-%m-%d}"


async def test_a_member_is_one_press_away_from_the_notebook(
    page: Page, hub: Hub, users: list[str], cluster: Any, project: Project, address: str, tmp_path: Path
) -> None:
    """Others see nothing of it. What is over has no card; what comes, or is wrong, can be read and not started."""
    visited: list[str] = []
    page.on("framenavigated", lambda frame: visited.append(frame.url))
    course = {
        "title": "Deep learning",
        "environment": "tf-pip",
        "partition": "devcore",
        "gpu": "none",
        "repository": address,
        "open": "lab1.ipynb",
        "exercises": [
            {"title": "Lab 0", "valid_to": day(cluster.site, -1)},
            {
                "title": "Lab 1",
                "description": "Train a small network, and compare",
                "cores": "2",
                "valid_to": day(cluster.site, 30),
            },
            {"title": "Lab 2", "cores": "99"},
            {"title": "Lab 3", "valid_from": day(cluster.site, 3)},
        ],
    }
    project.put(course, users[0])
    await sign_in(page, hub, users[1])
    await settled(page)
    await expect(page.locator("#snowy-presets")).not_to_contain_text("Deep learning")
    await page.context.clear_cookies()

    # Their first look: the cards come into the page that is open.
    name = users[0]
    await sign_in(page, hub, name)
    cards = page.locator(".snowy-card")
    first = cards.filter(has_text="Deep learning: Lab 1")
    for _ in range(20):
        if await first.count():
            break
        await page.wait_for_timeout(300)
        await page.evaluate("snowyForm.changed()")  # as if something had been chosen: the hub is asked again
    await expect(first).to_be_visible()
    await expect(page.locator("#snowy-presets")).not_to_contain_text("Lab 0")
    await expect(first).to_contain_text("Until")
    await expect(cards.filter(has_text="Lab 2")).to_contain_text("exercises.3.cores: '99': a node of devcore has 16")
    await expect(cards.filter(has_text="Lab 3")).to_contain_text(re.compile(r"From \w+ \d+ \w+ 00:00"))
    for closed in ("Lab 2", "Lab 3"):
        await expect(cards.filter(has_text=closed).locator("input, button, a")).to_have_count(0)
    assert await barriers(page) == []
    await shoot(page, "form-course")

    # Chosen, it fills in the form as any card does.
    await page.get_by_role("radio", name="Deep learning: Lab 1").check()
    await settled(page)
    chosen = {"cores": "2", "repository": address, "open": "labs/lab1.ipynb", "account": project.account}
    assert chosen.items() <= (await read(page)).items()
    await unfold(page)
    await page.locator("#snowy-cores").fill("7")
    await settled(page)

    # Its own Start takes it as the file says.
    await first.get_by_role("button", name="Start Deep learning: Lab 1").click()
    await page.wait_for_url(re.compile(rf"/user/{name}/lab/tree/labs/lab1\.ipynb"), timeout=90_000)
    title = page.get_by_role("paragraph").filter(has_text="TensorFlow 2 quickstart for beginners")
    await expect(title).to_be_visible(timeout=60_000)
    home = cluster.state / "home" / name
    assert json.loads((home / "labs" / "lab1.ipynb").read_text())["cells"] == NOTEBOOK["cells"]
    assert (await hub.state(name))["job"]["request"]["cores"] == 2
    assert any(f"/user/{name}/git-pull?" in url for url in visited), "nbgitpuller has not fetched it"

    # What the student has written stays, and what the teacher adds comes.
    (home / "labs" / "answers.txt").write_text("42")
    commit(tmp_path / "labs", {"answers.txt": "!", "lab2.txt": "more"})
    await page.goto(f"{hub.url}/user/{name}/")
    await until((home / "labs" / "lab2.txt").exists, 60, "the second lab")
    assert (home / "labs" / "answers.txt").read_text() == "42"


async def test_the_cards_work_without_javascript_and_on_a_phone(
    browser: Any, hub: Hub, users: list[str], project: Project
) -> None:
    project.put({"title": "Phone", "environment": "tf-pip", "partition": "devcore", "gpu": "none"}, users[0])
    context = await browser.new_context(viewport={"width": 360, "height": 740}, java_script_enabled=False)
    page = await context.new_page()
    await sign_in(page, hub, users[0])
    start = page.get_by_role("button", name="Start Phone")
    for _ in range(40):
        if await start.count():
            break
        await page.wait_for_timeout(250)
        await page.reload()
    await expect(page.get_by_role("link", name="Phone")).to_be_visible()
    wide = await page.locator("#snowy-presets").bounding_box()
    assert wide is not None
    assert wide["x"] + wide["width"] <= 360
    await start.click()
    await page.wait_for_url(re.compile("/hub/spawn-pending/|/user/"))
    assert (await hub.job(users[0]))["request"]["environment"] == "tf-pip"
    await context.close()
