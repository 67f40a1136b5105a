"""The form in a file: opened from a disk, without a hub."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from snowyspawner.admin import form_file
from snowyspawner.site import load

from .conftest import shoot
from .steps import T4, barriers, choice, entry, error_of, read, unfold

pytestmark = pytest.mark.browser

NASTY = "</script><img src=http://203.0.113.1/x onerror=alert(1)>{{ 7 * 7 }}"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Snowy's form, written once."""
    path = tmp_path_factory.mktemp("form") / "form.html"
    path.write_text(form_file.page(load("snowy")))
    return path


def watch(page: Page) -> list[str]:
    """Note what the page asks for, and what goes wrong in it."""
    seen: list[str] = []
    page.on("request", lambda request: seen.append(request.url))
    page.on("console", lambda message: seen.append(message.text))
    page.on("pageerror", lambda error: seen.append(str(error)))
    return seen


async def test_the_rules_work_and_nothing_is_asked_of_anybody(page: Page, file: Path) -> None:
    seen = watch(page)
    await page.goto(file.as_uri())
    await expect(page.get_by_role("heading", level=1)).to_have_text("Start JupyterLab on Snowy")
    await expect(page.get_by_role("radio", name="GPU: TensorFlow on a T4")).to_be_checked()
    await unfold(page)
    await choice(page, "partition", "devcore").check()
    await expect(error_of(page, "gpu")).to_have_text("devcore has no GPUs: choose core or node, or no GPU")
    await page.get_by_role("radio", name="CPU: tf-pip").check()
    await expect(error_of(page, "gpu")).to_have_count(0)
    await entry(page, "cores").fill("17")
    await expect(error_of(page, "cores")).to_contain_text("a node of devcore has 16")
    await entry(page, "cores").fill("8")
    await entry(page, "time").fill("30")
    await expect(page.locator("#snowy-time-said")).to_have_text("= 30 minutes")
    values = await read(page)
    assert {key: values[key] for key in ("environment", "partition", "cores", "gpu", "time")} == {
        **{"environment": "tf-pip", "partition": "devcore", "cores": "8", "gpu": "none", "time": "30"}
    }
    await expect(page.locator("#spawn_form")).to_have_attribute("data-state", "alone")
    assert seen == [file.as_uri()]


async def test_what_needs_a_hub_is_disabled_and_that_is_said(page: Page, file: Path) -> None:
    await page.goto(file.as_uri())
    for button in ("Start", "When would this start?", "Show the job script", "Copy link"):
        found = page.get_by_role("button", name=button, exact=True)
        await expect(found).to_be_disabled()
    await page.get_by_text("Save as a card, or paste").click()
    await page.get_by_text("Start several sessions to compare").click()
    for button in ("Save", "Fill in", "Start several …"):
        await expect(page.get_by_role("button", name=button, exact=True)).to_be_disabled()
    await expect(page.get_by_label("Save these choices as")).to_be_disabled()
    why = re.compile("Starting a session, asking Slurm and saving a choice need a hub, so they are disabled here")
    await expect(page.get_by_role("button", name="Start", exact=True)).to_have_accessible_description(why)
    await expect(page.get_by_role("group", name="With a hub only")).to_have_accessible_description(why)
    # Enter in a field would press Start.
    await unfold(page)
    await entry(page, "cores").press("Enter")
    assert page.url == file.as_uri()


async def test_axe_finds_no_barrier(themed: Page, file: Path) -> None:
    for width in (1280, 360):
        await themed.set_viewport_size({"width": width, "height": 900})
        await themed.goto(file.as_uri())
        await unfold(themed)
        await themed.get_by_text("Save as a card, or paste").click()
        await choice(themed, "partition", "devcore").check()
        await choice(themed, "gpu", T4).check()
        await expect(error_of(themed, "gpu")).to_be_visible()
        await themed.evaluate("scrollTo({top: document.documentElement.scrollHeight, behavior: 'instant'})")
        assert await barriers(themed) == []
        assert await themed.evaluate("document.documentElement.scrollWidth") == width
        scheme = await themed.evaluate("document.documentElement.dataset.bsTheme")
        # JupyterHub's own colours: its stylesheet is read to the end and from the beginning.
        background = await themed.locator("body").evaluate("e => getComputedStyle(e).backgroundColor")
        assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(33, 37, 41)"}[scheme]
        assert await entry(themed, "cores").evaluate("e => getComputedStyle(e).borderTopWidth") == "1px"
        await shoot(themed, f"form-file-{scheme}-{width}")


async def test_text_of_a_site_is_text(page: Page, tmp_path: Path) -> None:
    site = load({"extends": "snowy", "display_name": NASTY, "environments": {"tf-gpu": {"description": NASTY}}})
    path = tmp_path / "form.html"
    path.write_text(form_file.page(site))
    seen = watch(page)
    await page.goto(path.as_uri())
    await expect(page.get_by_role("heading", level=1)).to_have_text(f"Start JupyterLab on {NASTY}")
    await unfold(page)
    await expect(page.get_by_role("radiogroup", name="Environment")).to_contain_text(NASTY)
    await choice(page, "partition", "devcore").check()
    await expect(error_of(page, "gpu")).to_be_visible()
    assert seen == [path.as_uri()]


async def test_the_file_asks_for_nothing_even_if_it_is_told_to(page: Page, file: Path) -> None:
    """A browser is told not to load anything: what would be asked for is refused."""
    await page.goto(file.as_uri())
    refused = await page.evaluate("""() => new Promise((tell) => {
        document.addEventListener("securitypolicyviolation", (event) => tell(event.effectiveDirective));
        document.body.append(Object.assign(new Image(), { src: "http://203.0.113.1/x" }));
    })""")
    assert refused == "img-src"
