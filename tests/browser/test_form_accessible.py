"""No barrier in any state of the form: axe-core with every rule of WCAG 2.2 A and AA, and what is read aloud."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Page, expect

from ..hubs import Hub
from .steps import T4, barriers, choice, entry, settled, sign_in, unfold, write

pytestmark = [pytest.mark.cluster, pytest.mark.browser]


async def test_axe_finds_no_barrier_in_any_state(themed: Page, hub: Hub, users: list[str]) -> None:
    page, name = themed, users[0]
    found: dict[str, list[str]] = {}

    async def look(state: str) -> None:
        if lines := await barriers(page):
            found[state] = lines

    await sign_in(page, hub, name)
    await settled(page)
    await look("first seen")
    await page.get_by_role("radio", name="CPU: tf-pip").check()
    await unfold(page)
    await page.get_by_role("radio", name="At …").check()
    await page.get_by_text("I was given a reservation").click()
    await page.get_by_text("Save as a card, or paste").click()
    await settled(page)
    await look("everything open")
    await page.get_by_role("button", name="When would this start?").click()
    await expect(page.locator("#snowy-estimate-answer")).not_to_contain_text("Asking")
    await page.get_by_role("button", name="Copy link").click()
    await expect(page.locator("#snowy-link-answer")).to_be_visible()
    await page.get_by_label("A line as notebook.py took it").fill("--no")
    await page.get_by_role("button", name="Fill in").click()
    await expect(page.locator("#snowy-line-answer")).to_contain_text("--no")
    await page.get_by_label("Save these choices as").fill("Mine")
    await page.get_by_role("button", name="Save", exact=True).click()
    await expect(page.get_by_role("button", name="Delete Mine")).to_be_visible()
    await choice(page, "environment", "tf-gpu").check()  # a remark
    await settled(page)
    await look("answers, a remark and a card of one's own")
    await page.get_by_role("button", name="Delete Mine").click()
    await expect(page.get_by_role("button", name="Delete Mine")).to_have_count(0)
    await page.get_by_role("button", name="Show the job script").click()
    await expect(page.get_by_role("dialog")).to_be_visible()
    await look("the job script")
    await page.keyboard.press("Escape")
    wrong = {"cores": "17", "time": "soon", "gpu": "t4:1", "begin": "25:00", "reservation": "a b", "open": "/x"}
    await write(page, {**wrong, "environment": "tf-none", "partition": "devcore"})
    await look("conflicts")
    await page.set_viewport_size({"width": 320, "height": 700})
    # At the end of the page the bar covers nothing: wherever else the page was scrolled to, it is over something.
    await page.evaluate("scrollTo({top: document.documentElement.scrollHeight, behavior: 'instant'})")
    await look("conflicts on a telephone")
    await page.set_viewport_size({"width": 1280, "height": 900})
    await page.get_by_role("button", name="Start", exact=True).click()
    await expect(page.locator("#snowy-errors")).to_be_focused()
    await settled(page)
    await look("sent back with errors")
    await page.goto(f"{hub.url}/hub/snowy?opt-cores=99&opt-nosuch=1")
    await settled(page)
    await look("a link with what is not possible")
    assert found == {}


async def test_axe_finds_no_barrier_where_a_session_runs(themed: Page, hub: Hub, users: list[str]) -> None:
    await sign_in(themed, hub, users[0])
    await hub.submit(users[0], {"partition": "core", "gpu": "none", "environment": "tf-mkl", "begin": "23:59"})
    await hub.job(users[0])
    await themed.goto(f"{hub.url}/hub/snowy?opt-cores=8&opt-nosuch=1")
    await expect(themed.get_by_role("heading", level=1)).to_have_text("Your session is being started already")
    assert await barriers(themed) == []


async def test_axe_can_find_something(page: Page, hub: Hub, users: list[str]) -> None:
    """The same look at a page that was broken finds it: contrast, target size and names among it."""
    await sign_in(page, hub, users[0])
    await unfold(page)
    await page.evaluate("""() => {
        document.querySelector("label[for=snowy-cores]").remove();
        document.getElementById("snowy-part-time").style.color = "#ddd";
        for (const button of document.querySelectorAll(".snowy-quick button")) {
            button.style.cssText = "min-height: 0; min-width: 0; width: 8px; height: 8px; padding: 0; margin: 0";
            button.parentElement.style.gap = "0";
        }
    }""")
    rules = {line.partition(":")[0] for line in await barriers(page)}
    assert {"label", "color-contrast", "target-size"} <= rules


async def test_the_form_is_read_aloud_as_it_is_meant(page: Page, hub: Hub, users: list[str]) -> None:
    """Groups with names, fields with their help and their mistake, one place where changes are announced."""
    await sign_in(page, hub, users[0])
    await settled(page)
    await page.reload()  # now the hub knows the person's projects, and offers them
    await page.get_by_role("radio", name="GPU: TensorFlow on a T4").check()
    await unfold(page)
    await expect(page.get_by_role("main")).to_match_aria_snapshot("""
      - heading "Start JupyterLab on Snowy" [level=1]
      - group "What would you like?":
        - 'radio "GPU: TensorFlow on a T4" [checked]'
        - 'radio "CPU, quick queue: tf-mkl"'
        - 'radio "CPU: tf-pip"'
        - radio "Your own choice"
      - group:
        - region "Software":
          - radiogroup "Environment":
            - radio "tf-gpu" [checked]
            - radio "tf-mkl"
            - radio "tf-pip"
          - radiogroup "Container"
          - textbox "Open"
        - region "Resources":
          - radiogroup "GPU"
          - radiogroup "Partition":
            - radio "core" [checked]
            - radio "devcore"
          - textbox "Cores": "4"
          - 'group "Cores: quick choice"':
            - button "4" [pressed]
        - region "Time and project":
          - textbox "Time": 0:59:00
          - group "When":
            - radio "As soon as possible" [checked]
            - radio "At …"
          - combobox "Project"
          - checkbox "Send me mail when the job starts"
      - group "Before you start":
        - button "When would this start?"
        - button "Show the job script"
        - button "Copy link"
      - button "Start"
    """)
    assert await page.locator("[aria-live], [role=status], [role=alert], output").count() == 1
    gpu = page.get_by_role("radio", name="GPU: TensorFlow on a T4")
    await expect(gpu).to_have_accessible_description(re.compile("4 cores.*T4.*59 minutes.*T4s? free now"))
    await expect(choice(page, "partition", "core")).to_have_accessible_description(
        re.compile("up to 10 days, 16 cores.*cores free.*jobs? waiting")
    )
    await expect(entry(page, "time")).to_have_accessible_description(re.compile("= 59 minutes.*1:30 a minute"))
    await choice(page, "partition", "devcore").check()
    group = page.get_by_role("radiogroup", name="GPU")
    await expect(group).to_have_attribute("aria-invalid", "true")
    await expect(group).to_have_accessible_description(re.compile("devcore has no GPUs"))
    await entry(page, "cores").fill("17")
    await expect(entry(page, "cores")).to_have_accessible_description(re.compile("a node of devcore has 16.*8 GB"))
    await page.get_by_role("button", name="Start", exact=True).click()
    summary = page.get_by_role("alert", name="Nothing was started. Please look at:")
    await expect(summary).to_be_focused()
    assert (await page.title()).startswith("Not started")
    # Its links lead to the fields.
    await summary.get_by_role("link", name="Cores").click()
    await expect(entry(page, "cores")).to_be_focused()
    await summary.get_by_role("link", name="GPU").click()
    await expect(group).to_be_focused()


async def test_state_is_never_only_a_colour(page: Page, hub: Hub, users: list[str]) -> None:
    """With the system's own colours, and without motion: rings and words remain."""
    await page.emulate_media(forced_colors="active", reduced_motion="reduce")
    await sign_in(page, hub, users[0])
    await page.get_by_role("radio", name="GPU: TensorFlow on a T4").check()
    await unfold(page)
    await choice(page, "partition", "devcore").check()
    await choice(page, "gpu", T4).check()
    chosen = page.locator('.snowy-option[data-value="devcore"]')
    assert await chosen.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    assert await page.locator(".snowy-chosen").evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
    assert await page.locator("#snowy-gpu-error").evaluate("e => getComputedStyle(e, '::before').content") != "none"
    assert await page.evaluate("""() => [...document.querySelectorAll('.snowy-page *')]
        .every(e => !parseFloat(getComputedStyle(e).transitionDuration))""")
    await settled(page)
    assert await barriers(page) == []
