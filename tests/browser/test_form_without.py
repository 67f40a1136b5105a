"""The form without JavaScript, and without a mouse. Each starts a session."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.async_api import Page, expect

from ..hubs import Hub, until
from .steps import T4, choice, entry, error_of, settled

pytestmark = [pytest.mark.cluster, pytest.mark.browser]


@pytest.mark.parametrize("server", ["", "plain"], ids=["default", "named"])
async def test_everything_works_without_javascript(
    plain: Page, hub: Hub, users: list[str], cluster: Any, slurm: Any, server: str
) -> None:
    page, name = plain, users[0]
    path = f"/hub/spawn/{name}" + (f"/{server}" if server else "")
    await page.goto(hub.url + path)
    await page.get_by_label("Username").fill(name)
    await page.get_by_label("Password").fill(cluster.users[name])
    await page.get_by_role("button", name="Sign in").click()

    # JupyterHub's own word that it needs JavaScript would be wrong here; what only a script can do is not there.
    await expect(page.get_by_text("JupyterHub requires JavaScript")).to_be_hidden()
    await expect(page.get_by_role("button", name="Copy link")).to_be_hidden()
    await expect(page.get_by_role("group", name="Cores: quick choice")).to_be_hidden()

    # A card is a link that fills in the form.
    await page.get_by_role("link", name="CPU, quick queue: tf-mkl").click()
    await expect(page.get_by_role("link", name="CPU, quick queue: tf-mkl (chosen)")).to_be_visible()
    await page.locator("#snowy-details > summary").click()
    await expect(choice(page, "environment", "tf-mkl")).to_be_checked()
    await expect(choice(page, "partition", "devcore")).to_be_checked()
    await entry(page, "cores").fill("2")

    # Each button answers above the form, which stays as it was typed.
    await page.get_by_role("button", name="When would this start?").click()
    answer = page.locator("#snowy-answer")
    await expect(answer).to_contain_text(re.compile("start", re.IGNORECASE))
    await expect(entry(page, "cores")).to_have_value("2")
    await page.get_by_role("button", name="Show the job script").click()
    await expect(answer.get_by_label("Script")).to_contain_text("#SBATCH --ntasks=2")
    await expect(entry(page, "cores")).to_have_value("2")

    # A mistake comes back at its field, with the rest as it was typed.
    if not await entry(page, "time").is_visible():
        await page.locator("#snowy-details > summary").click()
    await choice(page, "gpu", T4).check()
    await page.get_by_role("button", name="Start", exact=True).click()
    await expect(error_of(page, "gpu")).to_have_text("devcore has no GPUs: choose core or node, or no GPU")
    await expect(page.locator("#snowy-errors")).to_be_focused()
    await expect(entry(page, "cores")).to_have_value("2")

    # A card of one's own, and a line.
    await page.get_by_text("Save as a card, or paste").click()
    await page.get_by_label("Save these choices as").fill("Mine")
    await choice(page, "gpu", "No GPU").check()
    await page.get_by_role("button", name="Save", exact=True).click()
    await expect(page.get_by_role("link", name="Mine (chosen)")).to_be_visible()
    await page.get_by_text("Save as a card, or paste").click()
    await page.get_by_label("A line as notebook.py took it").fill("-n 3 -p devcore --gres=gpu:t4:0 -- tf-pip")
    await page.get_by_role("button", name="Fill in").click()
    await expect(entry(page, "cores")).to_have_value("3")
    await page.get_by_role("button", name="Delete Mine").click()
    await expect(page.get_by_role("link", name=re.compile("Mine"))).to_have_count(0)

    if not await entry(page, "cores").is_visible():
        await page.locator("#snowy-details > summary").click()
    await entry(page, "cores").fill("3")
    await choice(page, "environment", "tf-pip").check()
    await choice(page, "partition", "devcore").check()
    await choice(page, "gpu", "No GPU").check()
    # Enter in a field is Start, not the first button of the page.
    await entry(page, "cores").press("Enter")
    job = await hub.job(name, server)
    assert slurm("squeue", "-M", cluster.site.cluster, "-h", "-j", job["job_id"], "-o", "%P %C").split() == [
        "devcore",
        "3",
    ]

    async def ready() -> bool:
        model = await hub.model(name, server)
        return bool(model and model["ready"])

    await until(ready, 60, "the session")


# What has the focus, and whether one sees that.
_LOOK = """target => {
  const at = document.activeElement, box = at.getBoundingClientRect(), style = getComputedStyle(at);
  const down = Math.max(0, box.top) + 1 + Math.min(box.height, innerHeight) / 4;
  const over = document.elementFromPoint(box.left + box.width / 2, down);
  const bar = document.querySelector(".snowy-bar");
  return { there: at.matches(target), ours: Boolean(at.closest(".snowy-page")),
           what: at.outerHTML.slice(0, 120),
           ring: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
           hidden: Boolean(over && bar.contains(over) && !bar.contains(at)) };
}"""


async def reach(page: Page, target: str, most: int = 90) -> None:
    """Press Tab until *target* (a selector) has the focus. What has the focus is in sight on the way, with a ring."""
    for _ in range(most):
        await page.keyboard.press("Tab")
        seen = await page.evaluate(_LOOK, target)
        for _ in range(20):
            if not seen["hidden"]:
                break
            await page.wait_for_timeout(50)  # the page scrolls smoothly
            seen = await page.evaluate(_LOOK, target)
        if seen["ours"]:
            assert seen["ring"], f"no ring around {seen['what']}"
            assert not seen["hidden"], f"under the bar: {seen['what']}"
        if seen["there"]:
            return
    raise AssertionError(f"{target} cannot be reached by Tab")


async def test_everything_works_by_keyboard(page: Page, hub: Hub, users: list[str], cluster: Any) -> None:
    """Signed in, chosen, asked, started: not once is the mouse moved."""
    name = users[0]
    await page.goto(f"{hub.url}/hub/spawn/{name}/keys")
    await page.keyboard.type(name)  # JupyterHub puts the focus there
    await page.keyboard.press("Tab")
    await page.keyboard.type(cluster.users[name])
    await page.keyboard.press("Enter")
    await page.wait_for_url(re.compile("/hub/spawn/"))
    await settled(page)

    await reach(page, "input[name=_preset]")
    await page.keyboard.press("ArrowDown")
    for _ in range(6):
        if await page.evaluate("document.activeElement.value") == "site:mkl":
            break
        await page.keyboard.press("ArrowDown")
    await expect(page.get_by_role("radio", name="CPU, quick queue: tf-mkl")).to_be_checked()

    await reach(page, "#snowy-details > summary")
    if await page.locator("#snowy-details").get_attribute("open") is None:
        await page.keyboard.press("Enter")
    await reach(page, "input[name=environment]")
    await page.keyboard.press("ArrowDown")
    await expect(choice(page, "environment", "tf-pip")).to_be_checked()
    await reach(page, "[data-set=cores][data-value='1']")
    await page.keyboard.press("Space")
    await expect(entry(page, "cores")).to_have_value("1")
    await expect(page.locator(":focus")).to_have_attribute("data-value", "1")
    await reach(page, "#snowy-script")
    await settled(page)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.locator("#snowy-script")).to_be_focused()
    await reach(page, "#snowy-start")
    await page.keyboard.press("Enter")
    await page.wait_for_url(re.compile(f"/user/{name}/keys/lab"), timeout=60_000)
    job = await hub.job(name, "keys")
    assert job["request"]["environment"] == "tf-pip"
    assert job["request"]["cores"] == 1
