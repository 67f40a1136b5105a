"""Whatever names and Slurm's words hold, the page shows it as text. Real template and script; no cluster is needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jupyterhub._data import DATA_FILES_PATH
from playwright.async_api import Page, Route, expect

from snowyspawner._share import share_dir
from snowyspawner.choice.request import form_values
from snowyspawner.site import load
from snowyspawner.web import form

pytestmark = pytest.mark.browser

EVIL = (
    "\"'>`</script></textarea><script>pwned=1</script><img src=x onerror=pwned=2>"
    "{{ 7*7 }}{% raw %}${pwned=3} \\u003c 🐍"
)
LINES = f"{EVIL}\nand <b>more</b>\x85"
NAME = "</b><img src=x onerror=pwned=4>'\" {{ 7 }} 🐍"  # 64 characters at most
HOST = "http://hub.test"
PAGE = """<!doctype html><html lang="en"><head><title>Form</title>
<link rel="stylesheet" href="/style.min.css"></head><body><main class="snowy-page"><h1>Form</h1>
<form id="spawn_form" method="post" enctype="multipart/form-data"><input type="hidden" name="_xsrf" value="x">
{form}<div class="snowy-bar"><div id="snowy-bar-sum"></div><div id="snowy-bar-cost"></div>
<button id="snowy-start">Start</button></div></form></main></body></html>"""


def hostile_form() -> str:
    site = load(
        {
            "extends": "snowy",
            "display_name": EVIL,
            "partitions": {"core": {"display_name": EVIL, "description": LINES}},
            "gpus": {"t4": {"display_name": EVIL}},
            "images": {"container.sif": {"display_name": EVIL, "description": LINES}},
            "environments": {"tf-gpu": {"display_name": EVIL, "description": LINES}},
            "presets": {"gpu": {"display_name": EVIL, "description": LINES}},
        }
    )
    values = {**form_values(site), "reservation": EVIL, "open": EVIL, "environment": EVIL, "account": EVIL}
    known = form.Known(
        accounts=[EVIL, "g2021027"],
        facts={"core": {"state": EVIL, "free_cores": 1, "total_cores": 2, "free_gpus": {}, "largest_block": 1}},
        facts_age=1.0,
        reservations=[{"name": EVIL, "sentence": LINES}],
        own_presets={EVIL: form_values(site)},
        remembered=[LINES],
        slurm_note=LINES,
        server_name="",
        base_url="/hub/",
        answer={"title": EVIL, "sentences": [LINES], "argv": [EVIL], "script": LINES},
    )
    errors = {"environment": LINES, "reservation": EVIL, "no such field <b>": EVIL}
    return form.render(site, values, errors, known=known)


async def serve_file(route: Route, name: str) -> None:
    """Answer with a file of share/static, or JupyterHub's own style."""
    for directory in (share_dir() / "static", Path(DATA_FILES_PATH) / "static" / "css"):
        if (directory / name).is_file():
            await route.fulfill(path=directory / name)
            return
    await route.fulfill(status=404, body="")


async def serve(route: Route) -> None:
    """Answer as a hub would whose every word is hostile."""
    path = route.request.url.removeprefix(HOST).partition("?")[0]
    name = path.rpartition("/")[2]
    answers: dict[str, dict[str, Any]] = {
        "check": {
            "errors": {"time": EVIL},
            "remarks": {"gpu": LINES},
            "said": {"begin": EVIL},
            "cost": EVIL,
            "argv": [EVIL],
            "link": "/hub/snowy?" + EVIL,
            "facts": {"core": {"state": EVIL}},
            "facts_age": 2,
            "slurm_note": LINES,
        },
        "estimate": {"sentence": LINES, "sooner": {"sentence": EVIL, "values": {"environment": EVIL, "cores": EVIL}}},
        "script": {"script": LINES, "argv": ["sbatch", EVIL]},
        "line": {"errors": {"line": EVIL}},
        "preset": {"errors": {}},
    }
    if path == "/":
        await route.fulfill(content_type="text/html; charset=utf-8", body=PAGE.replace("{form}", hostile_form()))
    elif name in answers:
        await route.fulfill(content_type="application/json", body=json.dumps(answers[name]))
    else:
        await serve_file(route, name)


async def test_hostile_text_is_shown_as_text(page: Page) -> None:
    await page.route(f"{HOST}/**", serve)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    await page.goto(HOST)
    await expect(page.locator("#spawn_form")).to_have_attribute("data-state", "checked")

    async def harmless() -> None:
        assert await page.evaluate("typeof pwned") == "undefined"
        assert await page.locator("img, script:not([src]):not([type])").count() == 1  # the page's own, one line
        assert await page.locator(".snowy-form b:text('more')").count() == 0
        assert problems == []

    await harmless()
    shown = " ".join(EVIL.split())
    for place in ("#snowy-errors", "#snowy-slurm", "#snowy-remembered", "#snowy-answer", "#snowy-presets"):
        await expect(page.locator(place)).to_contain_text(shown)
    await expect(page.locator("#snowy-environment").get_by_role("radio", name=shown).first).to_be_visible()
    await expect(page.locator("#snowy-time-error")).to_have_text(shown)
    for field in ("reservation", "account"):
        await expect(page.locator(f"#snowy-{field}")).to_have_value(EVIL)
    await expect(page.locator("#snowy-open")).to_have_value(EVIL)
    assert (await page.evaluate("snowyForm.read()"))["environment"] == EVIL

    await page.get_by_role("button", name="When would this start?").click()
    await expect(page.locator("#snowy-estimate-answer")).to_contain_text(shown)
    await page.get_by_role("button", name="Choose that").click()
    assert (await page.evaluate("snowyForm.read()"))["cores"] == EVIL
    await harmless()
    await page.get_by_role("button", name="Show the job script").click()
    await expect(page.get_by_role("dialog").get_by_label("Script")).to_contain_text(shown)
    await page.keyboard.press("Escape")
    await page.get_by_text("Save as a card, or paste").click()
    await page.get_by_label("A line as notebook.py took it").fill("x")
    await page.get_by_role("button", name="Fill in").click()
    await expect(page.locator("#snowy-line-answer")).to_have_text(shown)
    await page.get_by_label("Save these choices as").fill(NAME)
    await page.get_by_role("button", name="Save", exact=True).click()
    await expect(page.get_by_role("group", name="What would you like?")).to_contain_text(NAME)
    await page.get_by_role("button", name=f"Delete {NAME}").click()
    await expect(page.get_by_role("group", name="What would you like?")).not_to_contain_text(NAME)
    await harmless()
