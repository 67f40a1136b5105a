"""Several sessions from one choice, as a person starts, sees and ends them; without JavaScript, too."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.async_api import Page, expect

from ..cluster.test_session import queued
from ..hubs import Hub, until
from .conftest import shoot
from .steps import barriers, choice, entry, settled, sign_in, unfold

pytestmark = [pytest.mark.cluster, pytest.mark.browser]

FOLD = "Start several sessions to compare"


async def test_four_sessions_one_refused_and_stop_all(
    page: Page, hub: Hub, users: list[str], cluster: Any, slurm: Any
) -> None:
    name = users[0]
    await sign_in(page, hub, name)
    await page.get_by_role("radio", name="CPU, quick queue: tf-mkl").check()
    await unfold(page)
    await page.get_by_role("radio", name="At …").check()
    await entry(page, "begin").fill("23:59")
    await choice(page, "partition", "core").check()
    # A list in the field itself is said to be one.
    await entry(page, "cores").fill("1,2")
    remark = page.locator("#snowy-cores-remark")
    await expect(remark).to_have_text("Starts 2 sessions side by side; you confirm them on the next page.")
    await settled(page)
    await expect(remark).to_be_visible()
    await expect(page.locator("#snowy-bar-cost")).to_contain_text("3 cores")
    await entry(page, "cores").fill("4")
    # A line with lists fills in the section for them.
    await page.get_by_text("Save as a card, or paste").click()
    await page.get_by_label("A line as notebook.py took it").fill("-n 2,8 -p core --gres=none -- tf-mkl,tf-pip")
    await page.get_by_role("button", name="Fill in").click()
    await expect(page.get_by_label("Cores: a session for each")).to_have_value("2,8")
    await expect(entry(page, "cores")).to_have_value("2")
    for environment in ("tf-mkl", "tf-pip"):
        await expect(page.get_by_role("checkbox", name=environment)).to_be_checked()
    await page.get_by_role("checkbox", name="tf-pip").uncheck()
    await page.get_by_label("Cores: a session for each").fill("1, 2, 4, 17")
    await page.get_by_label("Cores: a session for each").press("Enter")

    await expect(page.get_by_role("heading", level=1)).to_have_text("Start several sessions")
    await expect(page.get_by_text("tf-mkl on 1, 2, 4 and 17 cores")).to_be_visible()
    row = page.get_by_role("row", name=re.compile("tf-mkl-17"))
    await expect(row).to_contain_text("Cores: a node of core has 16: ask for 16 or fewer")
    total = "7 cores \N{MULTIPLICATION SIGN} 59 minutes = 6.9 core-hours, 56 GB"
    await expect(page.get_by_role("row", name=re.compile("Altogether"))).to_contain_text(total)
    await page.get_by_text("As a link or a line").click()
    await expect(page.locator("#snowy-share-line")).to_have_text(
        re.compile("^-n 1,2,4,17 -p core --gres=none -t 0:59:00 -b .* -- tf-mkl$")
    )
    await shoot(page, "several")
    assert queued(slurm, cluster, name) == []

    # Back to the form, as it was meant, and here again.
    await page.get_by_role("link", name="Change the choices").click()
    await expect(page.get_by_label("Cores: a session for each")).to_have_value("1,2,4,17")
    await expect(entry(page, "cores")).to_have_value("1")
    await page.get_by_role("button", name="Start several …").click()
    await page.get_by_role("button", name="Start 3 sessions").click()
    await expect(page.get_by_role("status").first).to_have_text("3 of 4 have been started; the others were refused.")
    assert len(queued(slurm, cluster, name)) == 3
    await page.get_by_role("link", name="Your sessions").click()

    group = page.get_by_role("region", name="tf-mkl on 1, 2 and 4 cores")
    await expect(group.get_by_role("heading", level=3)).to_have_text(["tf-mkl-1", "tf-mkl-2", "tf-mkl-4"])
    await expect(group.get_by_role("link", name=re.compile("^Follow it"))).to_have_count(3)
    await shoot(page, "home-several")
    await group.get_by_role("button", name="Stop all of").click()
    await expect(page.get_by_role("button", name="Remove all of")).to_be_visible(timeout=30_000)
    await until(lambda: queued(slurm, cluster, name) == [], 20, "the end of all")
    await page.get_by_role("button", name="Remove all of").click()
    await expect(page.get_by_role("region", name="tf-mkl on 1")).to_have_count(0)


async def test_without_javascript(plain: Page, hub: Hub, users: list[str], cluster: Any, slurm: Any) -> None:
    page, name = plain, users[0]
    await sign_in(page, hub, name, "/hub/snowy?opt-gpu=none&opt-time=30&opt-begin=23:59&opt-cores=2")
    await page.get_by_text(FOLD).click()
    for environment in ("tf-mkl", "tf-pip"):
        await page.get_by_role("checkbox", name=environment).check()
    await page.get_by_role("button", name="Start several …").click()
    await expect(page.get_by_text("tf-mkl and tf-pip on 2 cores")).to_be_visible()
    assert queued(slurm, cluster, name) == []
    # Start, with the section filled in, asks as well.
    await page.get_by_role("link", name="Change the choices").click()
    await expect(page.get_by_role("checkbox", name="tf-pip")).to_be_checked()
    await page.get_by_role("button", name="Start", exact=True).click()
    await page.get_by_role("button", name="Start 2 sessions").click()
    await expect(page.get_by_role("status").first).to_have_text("All of them have been started.")
    await page.get_by_role("link", name="tf-pip-2").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Your session is on its way: tf-pip-2")
    assert len(queued(slurm, cluster, name)) == 2
    await page.goto(f"{hub.url}/hub/home")
    await page.get_by_role("region", name="tf-mkl and tf-pip on 2 cores").get_by_role("button", name="Stop all").click()
    await page.wait_for_url("**/hub/home")
    await until(lambda: queued(slurm, cluster, name) == [], 20, "the end of both")


async def test_axe_finds_no_barrier_on_the_way(themed: Page, hub: Hub, users: list[str], slurm: Any) -> None:
    """Dark on a telephone, light on a large screen; nothing is wider than either."""
    page, found = themed, {}
    dark = await page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")

    async def look(state: str) -> None:
        for width in (1280, 320):
            await page.set_viewport_size({"width": width, "height": 900})
            wide = await page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{state}: {wide} pixels wide on {width}"
            if (width == 320) == dark and (lines := await barriers(page)):
                found[state] = lines
        await page.set_viewport_size({"width": 1280, "height": 900})

    await sign_in(page, hub, users[0], "/hub/snowy?opt-environment=tf-mkl,tf-pip&opt-cores=1,17&opt-begin=23:59&x=1")
    await page.get_by_text("As a link or a line").click()
    await look("asked")
    await page.get_by_role("button", name="Start 2 sessions").click()
    await expect(page.get_by_role("status").first).to_contain_text("2 of 4 have been started")
    await look("started")
    await page.get_by_role("link", name="Your sessions").click()
    await expect(page.get_by_role("button", name="Stop all")).to_be_visible()
    await look("home")
    await page.goto(f"{hub.url}/hub/snowy?opt-cores=1&_cores=1,4&_environment=tf-mkl")
    await settled(page)
    await expect(page.get_by_label("Cores: a session for each")).to_be_visible()
    assert await barriers(page) == []
    assert found == {}
