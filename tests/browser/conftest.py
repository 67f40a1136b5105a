"""Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.async_api import Browser, Page, async_playwright

# As root Chromium needs --no-sandbox; without the others it looks for hosts outside this machine.
_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """One Chromium for the run: its headless shell, the same engine without a window's parts, at half the work."""
    path = shutil.which("chromium-headless-shell")
    assert path, "Chromium is missing: make test installs it (apt-get install chromium-headless-shell)"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=_ARGS)
        yield browser
        await browser.close()


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A page of a person who has never been here."""
    context = await browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(30_000)
    page = await context.new_page()
    yield page
    await context.close()


@pytest.fixture
async def plain(browser: Browser) -> AsyncIterator[Page]:
    """A page in a browser that runs no scripts."""
    context = await browser.new_context(viewport={"width": 1280, "height": 900}, java_script_enabled=False)
    context.set_default_timeout(30_000)
    yield await context.new_page()
    await context.close()


@pytest.fixture(params=["light", "dark"])
async def themed(browser: Browser, request: pytest.FixtureRequest) -> AsyncIterator[Page]:
    """A page of somebody who likes light, or dark."""
    scheme: Literal["light", "dark"] = request.param
    context = await browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    context.set_default_timeout(30_000)
    yield await context.new_page()
    await context.close()


@pytest.fixture
async def users(users: list[str], page: Page) -> AsyncIterator[list[str]]:
    """The demo accounts. Their page asks nothing of the hub any more when the hub is to forget them."""
    yield users
    await page.context.close()


async def shoot(page: Page, name: str) -> None:
    """Keep a picture for the documentation, when SNOWYSPAWNER_SCREENSHOTS names a directory for it."""
    directory = os.environ.get("SNOWYSPAWNER_SCREENSHOTS")
    if directory:
        await page.screenshot(path=Path(directory) / f"{name}.png", animations="disabled")
