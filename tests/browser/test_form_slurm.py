"""The form beside a Slurm that is away, that is full, and that no longer offers what one had."""

from __future__ import annotations

import re
import shlex
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import yaml
from playwright.async_api import Page, expect

from ..cluster.test_form_server import nodes_of, running
from ..faults import FaultHub, SwitchedHub, switched_hub
from ..hubs import Hub, until
from .conftest import shoot
from .steps import barriers, choice, entry, read, settled, sign_in, unfold

pytestmark = [pytest.mark.cluster, pytest.mark.browser]

GPU = "GPU: TensorFlow on a T4"


@pytest.fixture
async def switched(cluster: Any) -> AsyncIterator[SwitchedHub]:
    async with switched_hub(cluster) as hub:
        yield hub


async def test_while_slurm_is_away_the_form_works_with_what_was_known_last(page: Page, switched: SwitchedHub) -> None:
    """It says since when, and how old what it shows is; rules, cost and script are there all the same."""
    away = switched.directory / "away"
    await page.goto(f"{switched.url}/hub/spawn/ann")
    await page.get_by_label("Username").fill("ann")
    await page.get_by_label("Password").fill(switched.token)
    await page.get_by_role("button", name="Sign in").click()
    await unfold(page)
    core = page.locator("[data-value='core']")

    async def shows(text: str) -> bool:
        await page.reload()
        await settled(page)
        return text in await page.locator("main").inner_text()

    await until(lambda: shows("cores free"), 60, "what is free", every=2)
    away.write_text("1")
    note = page.locator("#snowy-slurm")
    await until(lambda: shows("Slurm has not answered since"), 90, "the note", every=2)
    await expect(note).to_contain_text(re.compile(r"What is shown as free is (less than a|\d+) minutes? old"))
    await expect(core).to_contain_text(re.compile(r"\d+ of \d+ cores free"))
    assert await barriers(page) == []
    await shoot(page, "form-slurm-away")
    # What goes together is known without Slurm.
    await page.get_by_role("radio", name=GPU).check()
    await choice(page, "partition", "devcore").check()
    await settled(page)
    await expect(page.locator("#snowy-gpu-error")).to_contain_text("devcore has no GPUs")
    await page.get_by_role("radio", name=GPU).check()
    await settled(page)
    await expect(page.locator("#snowy-bar-sum")).to_contain_text("tf-gpu · core · 4 cores")
    away.unlink()
    # The open page takes the note away itself, at the next change.
    for cores in range(5, 60):
        await entry(page, "cores").fill(str(1 + cores % 16))
        await settled(page)
        if await note.count() == 0 or await note.is_hidden():
            break
        await page.wait_for_timeout(1000)
    await expect(note).to_be_hidden()


@pytest.fixture
def full(cluster: Any, users: list[str], slurm: Any) -> Iterator[int]:
    """How many GPUs there are: jobs of somebody else's have them all."""
    count = len([node for node in nodes_of(slurm, cluster) if "gpu" in node["Gres"]])
    account = cluster.site.accounts.default
    person = f"setpriv --reuid {users[2]} --regid {users[2]} --init-groups"
    flags = f"-M {cluster.site.cluster} -A {account} -t 120 -p core --gres=gpu:t4:1 -D /tmp -o /dev/null"
    for _ in range(count):
        slurm(*shlex.split(f"{person} sbatch {flags} --wrap 'sleep 600'"))
    yield count
    slurm("scancel", "-M", cluster.site.cluster, "-u", users[2])


async def test_what_would_start_sooner_is_one_press_away(
    page: Page, hub: Hub, users: list[str], cluster: Any, slurm: Any, full: int
) -> None:
    """All T4s are taken: without one it would start now, and does."""
    name = users[0]
    await until(lambda: len(running(slurm, cluster, users[2])) == full, 30, "the jobs run")
    await sign_in(page, hub, name)
    await page.get_by_role("radio", name=GPU).check()
    await unfold(page)
    await settled(page)
    await page.get_by_role("button", name="When would this start?").click()
    answer = page.locator("#snowy-estimate-answer")
    await expect(answer).to_contain_text("without a GPU it would start now.", timeout=30_000)
    answered, bar = await answer.bounding_box(), await page.locator(".snowy-bar").bounding_box()
    assert answered is not None
    assert bar is not None
    assert answered["y"] + answered["height"] <= bar["y"], "it stands under the bar"
    await shoot(page, "form-sooner")
    assert await barriers(page) == []
    await answer.get_by_role("button", name="Choose that").click()
    await expect(choice(page, "gpu", "No GPU")).to_be_checked()
    await expect(page.locator("#snowy-live")).to_contain_text("Filled in")
    await settled(page)
    await page.get_by_role("button", name="Start", exact=True).click()
    await page.wait_for_url(re.compile(rf"/user/{name}/lab"), timeout=90_000)


async def test_a_last_choice_that_has_vanished_falls_back_with_a_remark(
    page: Page, hub: Hub, users: list[str], cluster: Any
) -> None:
    """The administrator has taken an environment away; the rest of the choice stays."""
    name = users[0]
    theirs = {"environments": {"old": {"description": "Of last year's course"}}}
    own = FaultHub(cluster, cluster.state / "fault-hub", theirs)
    await own.start()
    try:
        chosen = {"environment": "old", "partition": "core", "cores": "3", "gpu": "none", "begin": "23:59"}
        status, answer = await own.submit(name, chosen)
        assert status in (201, 202), answer
        await own.job(name)
        await own.end(name)
        await own.stop()
        (own.directory / "over.yaml").write_text(yaml.safe_dump({}))
        await own.start()
        await sign_in(page, own, name)
        await expect(page.locator("#snowy-remembered")).to_contain_text(
            "Your last choice of environment, old, is not possible any more: it is tf-gpu now."
        )
        await settled(page)
        assert {"environment": "tf-gpu", "cores": "3", "partition": "core"}.items() <= (await read(page)).items()
        assert await barriers(page) == []
        await shoot(page, "form-vanished")
    finally:
        await own.stop()
