"""The page of all sessions as an administrator uses it, and the details for support as a student copies them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Page, expect

from ..administrators import AdminHub, admin_hub
from ..cluster.test_session import queued
from .conftest import shoot
from .steps import barriers, sign_in

pytestmark = [pytest.mark.cluster, pytest.mark.browser]

CHECK = {
    "when": 1795409100,
    "ok": False,
    "checks": [
        {"name": "Slurm's commands", "state": "ok", "said": "sinfo answers (22.05.8).", "remedy": ""},
        {"name": "The helper", "state": "warn", "said": "An earlier version has made it.", "remedy": "Install it."},
        {"name": "The hub's address", "state": "fail", "said": "<b>127.0.0.1</b>.", "remedy": "Set hub_ip."},
    ],
}


@pytest.fixture(scope="module")
async def hub(cluster: Any, slurm: Any) -> AsyncIterator[AdminHub]:
    """A hub with sessions that wait, one that runs, and one that has failed."""
    async with admin_hub(cluster, slurm, covered=True) as hub:
        hub.check.write_text(json.dumps(CHECK))
        await hub.serve(hub.student, {"environment": "tf-mkl", "cores": "1", "gpu": "none", "time": "30"}, "runs")
        await hub.fail(hub.student)
        for user, server in ((hub.student, ""), (hub.teacher, ""), (hub.admin, ""), (hub.admin, "second")):
            await hub.wait(user, server)
        yield hub


async def looks_right(page: Page, name: str) -> None:
    """No barrier in either scheme, nothing wider than a telephone; a picture for the documentation."""
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
        await expect(page.locator("html")).to_have_attribute("data-bs-theme", scheme)
        for width in (1400, 360):
            await page.set_viewport_size({"width": width, "height": 900})
            assert await page.evaluate("document.documentElement.scrollWidth") <= width
            assert await barriers(page) == []
            if (scheme, width) == ("light", 1400):
                end = "document.querySelector('main').getBoundingClientRect().bottom + scrollY"
                await page.set_viewport_size({"width": width, "height": int(await page.evaluate(end)) + 10})
                await shoot(page, name)
    await page.set_viewport_size({"width": 1400, "height": 900})
    await page.emulate_media(color_scheme="light")


async def test_an_administrator_finds_sorts_and_stops(page: Page, hub: AdminHub, cluster: Any, slurm: Any) -> None:
    await page.set_viewport_size({"width": 1400, "height": 900})
    await sign_in(page, hub, hub.admin, "/hub/home")
    await page.get_by_role("link", name="Sessions", exact=True).click()
    await expect(page.get_by_role("heading", name="All sessions")).to_be_visible()
    rows = page.locator("tbody tr")
    await expect(rows).to_have_count(6)
    await expect(page.locator(".snowy-check")).to_contain_text("1 failed, 1 in doubt, 1 in order.")
    await expect(page.locator(".snowy-check")).to_contain_text("<b>127.0.0.1</b>.")
    await looks_right(page, "all-sessions")
    # Found by what is typed, with the keyboard alone.
    await page.get_by_label("Person, server, job, node or project").focus()
    await page.keyboard.type(hub.admin)
    await page.keyboard.press("Enter")
    await expect(rows).to_have_count(2)
    await expect(page.locator("#snowy-count")).to_contain_text("2 sessions of 6.")
    await page.get_by_label("Phase").select_option("running")
    await page.get_by_role("button", name="Show", exact=True).click()
    await expect(page.locator("#snowy-count")).to_contain_text("No session is like that.")
    await page.get_by_role("link", name="Show all").click()
    # Sorted by its head, and the other way round.
    for direction in ("ascending", "descending"):
        await page.get_by_role("columnheader").get_by_role("link", name="Job").click()
        head = page.get_by_role("columnheader", name="Job")
        await expect(head).to_have_attribute("aria-sort", direction)
        jobs = [int(await row.get_attribute("data-job") or 0) for row in await rows.all()]
        assert jobs == sorted(jobs, reverse=direction == "descending")
    # Stopped, after a question.
    job = (await hub.job(hub.admin, "second"))["job_id"]
    await page.get_by_role("link", name=f"Stop {hub.admin}, second").click()
    await expect(page.get_by_role("heading", name=f"Stop the session of {hub.admin}: second?")).to_be_visible()
    assert await barriers(page) == []
    assert job in queued(slurm, cluster, hub.admin)
    await page.get_by_role("button", name="Stop this session").click()
    await page.wait_for_url("**/hub/snowy/sessions?sort=-job")
    await expect(page.locator(f'tr[data-job="{job}"]')).to_contain_text("Stopped")
    assert job not in queued(slurm, cluster, hub.admin)
    # To what it does not know.
    await page.get_by_role("link", name="JupyterHub's page").click()
    await page.wait_for_url("**/hub/admin*")


async def test_all_of_it_without_javascript(plain: Page, hub: AdminHub) -> None:
    await plain.set_viewport_size({"width": 360, "height": 800})
    await sign_in(plain, hub, hub.admin, "/hub/snowy/sessions")
    await plain.get_by_label("Order").select_option("-person")
    await plain.get_by_role("button", name="Show", exact=True).click()
    people = await plain.locator("tbody th").all_inner_texts()
    assert people == sorted(people, reverse=True)
    async with plain.expect_download() as download:
        await plain.get_by_role("link", name=f"Details for support: {hub.student}, fails").click()
    assert "What sacct says" in (await (await download.value).path()).read_text()
    await plain.get_by_role("link", name=f"Log of {hub.student}, fails").click()
    await expect(plain.locator("#snowy-log")).to_contain_text("SNOWYSPAWNER_SECRET")


async def test_a_student_copies_the_details_of_what_failed(page: Page, hub: AdminHub) -> None:
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await page.set_viewport_size({"width": 1400, "height": 900})
    await sign_in(page, hub, hub.student, f"/hub/user/{hub.student}/fails/")
    await expect(page.get_by_role("link", name="Sessions", exact=True)).to_have_count(0)
    await page.get_by_role("button", name="Copy details for support").click()
    said = page.locator(".snowy-said")
    await expect(said).to_contain_text("Copied: ")
    text = await page.evaluate("navigator.clipboard.readText()")
    assert text.startswith("JupyterLab on ")
    assert "SNOWYSPAWNER_SECRET=[removed]" in text
    async with page.expect_download() as download:
        await page.get_by_role("link", name="Download details for support").click()
    file = (await (await download.value).path()).read_text()
    assert file.partition("What happened")[2] == text.partition("What happened")[2]
    mail = await page.get_by_role("link", name="Write to support").get_attribute("href")
    assert (mail or "").startswith("mailto:help@example.org?subject=")
    await looks_right(page, "support-details")
    # Where the browser does not let it, the page says what to do instead.
    await page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')); }")
    await page.get_by_role("button", name="Copy details for support").click()
    await expect(said).to_contain_text("download the details instead")
    # At home it is folded, and there for what has failed alone.
    await page.goto(f"{hub.url}/hub/home")
    await page.locator("summary", has_text="Details for support").click()
    await page.get_by_role("button", name="Copy details for support").click()
    await expect(page.locator(".snowy-said")).to_contain_text("Copied: ")
    assert await barriers(page) == []
