"""An environment of one's own in the form: said while one chooses, mended, started, kept as a card."""

from __future__ import annotations

import pwd
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from ..hubs import Hub
from ..software import make_environment
from .conftest import shoot
from .steps import barriers, entry, error_of, read, settled, sign_in, unfold

pytestmark = [pytest.mark.cluster, pytest.mark.browser]


async def test_an_environment_of_one_s_own(page: Page, hub: Hub, users: list[str], cluster: Any) -> None:
    """What is missing is said at the field with the command, before anything is started; then it is used."""
    name, state = users[0], str(cluster.state)
    envs = Path(pwd.getpwnam(name).pw_dir) / "envs"
    mine = make_environment(envs / "lab", name, server=False)
    await sign_in(page, hub, name)
    await page.get_by_role("radio", name="CPU: tf-pip").check()
    await unfold(page)
    await expect(entry(page, "own_environment")).not_to_be_visible()
    await page.get_by_text("Use my own environment").click()
    await entry(page, "own_environment").fill("~/envs/lab")
    await settled(page)
    install = "~/envs/lab/bin/python -m pip install jupyterhub jupyterlab"
    await expect(error_of(page, "own_environment")).to_have_text(
        f"~/envs/lab has no jupyterhub-singleuser: install it with {install}"
    )
    await expect(page.locator("#snowy-environment-remark")).to_have_text(
        "is not used: your own environment takes its place"
    )
    await expect(page.locator("#snowy-bar-sum")).to_contain_text("lab")
    assert await barriers(page) == []
    await entry(page, "own_environment").scroll_into_view_if_needed()
    # The picture shows the Site's own place, not where it is on this machine.
    help_text = "document.getElementById('snowy-own_environment-help')"
    await page.evaluate(f"state => {{ {help_text}.textContent = {help_text}.textContent.replace(state, ''); }}", state)
    await shoot(page, "form-own")
    # Start says the same, and keeps what was typed, also below the fold.
    await page.get_by_role("button", name="Start", exact=True).last.click()
    await expect(page.locator("#snowy-errors")).to_contain_text(
        "My own environment: ~/envs/lab has no jupyterhub-singleuser"
    )
    await page.locator("#snowy-errors").get_by_role("link", name="My own environment").click()
    await expect(entry(page, "own_environment")).to_be_visible()
    assert (await read(page))["own_environment"] == "~/envs/lab"

    # Mended, as the sentence says.
    shutil.rmtree(mine)
    make_environment(mine, name)
    await entry(page, "own_environment").fill("~/envs/lab/")
    await settled(page)
    await expect(error_of(page, "own_environment")).not_to_be_visible()
    await page.get_by_text("Save as a card").click()
    await page.get_by_label("Save these choices as").fill("My lab")
    await page.get_by_role("button", name="Save", exact=True).click()
    card = page.locator(".snowy-card").filter(has_text="My lab")
    await expect(card.locator(".snowy-sum")).to_contain_text(re.compile(r"^lab\s+· devcore"))
    await page.get_by_role("button", name="Start", exact=True).last.click()
    await page.wait_for_url(re.compile(rf"/user/{name}/lab"), timeout=90_000)
    await page.goto(f"{hub.url}/hub/home")
    await expect(page.get_by_text("lab", exact=True).first).to_be_visible()
    assert (await hub.state(name))["job"]["request"]["own_environment"] == "~/envs/lab"
    await hub.end(name)

    # Offered again, and back to the Site's by its card.
    await page.goto(f"{hub.url}/hub/spawn/{name}")
    await settled(page)
    assert (await read(page))["own_environment"] == "~/envs/lab"
    await page.get_by_role("radio", name="CPU: tf-pip").check()
    await settled(page)
    assert (await read(page))["own_environment"] == ""
