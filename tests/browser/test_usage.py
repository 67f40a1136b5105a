"""What a session uses: in JupyterLab, on the home page, and what to change when it is started again."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Page, expect

from ..cluster.test_slurm_away import end_all
from ..faults import FaultHub, with_smi
from ..hubs import until
from .conftest import shoot
from .steps import barriers, sign_in

pytestmark = [pytest.mark.cluster, pytest.mark.browser, pytest.mark.slow]

GPU = {"environment": "tf-gpu", "partition": "core", "cores": "2", "gpu": "t4:1", "time": "0:10:00"}
# A core and 1.5 GB for some seconds.
WORK = """import time
held = bytearray(1_500_000_000)
held[::4096] = b"x" * len(held[::4096])
end = time.monotonic() + 8
while time.monotonic() < end:
    pass
"""
SMI = """#!/bin/sh
# A stand-in for nvidia-smi: a GPU with nearly nothing to do.
while :; do for busy in 1 0 4 2; do echo "GPU-1, $busy, 1400, 15360, 30.5"; sleep 1; done; done
"""


@pytest.fixture
async def own(cluster: Any, users: list[str]) -> AsyncIterator[FaultHub]:
    """A hub whose jobs say every two seconds what they use, and of which ten seconds say something."""
    made = with_smi(cluster, SMI, {"co2": 400}, usage_interval=2)
    made.more_env["SNOWYSPAWNER_TEST_ENOUGH"] = "10"
    await made.start()
    yield made
    await end_all(made, users)
    await made.stop()


async def test_it_is_shown_in_jupyterlab_and_on_the_home_page_and_advice_comes_of_it(
    themed: Page, own: FaultHub, users: list[str], cluster: Any, slurm: Any
) -> None:
    page, name = themed, users[0]
    scheme = "dark" if await page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") else "light"
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    await sign_in(page, own, name, "/hub/home")
    await own.serve(name, GPU)

    # In JupyterLab: now, and how it went.
    await page.goto(f"{own.url}/user/{name}/lab?reset")
    meter = page.locator("button.snowyspawner-usage")
    shown = re.compile(r"^CPU [\d.]+/2 · [\d.]+ GB · GPU [0-4] %$")
    await expect(meter).to_have_text(shown, timeout=60_000)
    await page.get_by_role("button", name="No", exact=True).click()  # whether to tell about Jupyter's news
    await own.run(name, WORK)
    await meter.click()
    curves = page.get_by_role("dialog", name="What this session uses")
    for words in (
        r"CPU: [\d.]+ of 2 cores now, [\d.]+ on average",
        r"Memory: [\d.]+ of 16 GB now, 1\.[5-9] at most",
        r"GPU: [\d.]+ % now, [\d.]+ on average",
    ):
        await expect(curves.get_by_text(re.compile(f"^{words}$"))).to_be_visible(timeout=45_000)
    await expect(curves.locator("svg path")).to_have_count(3)
    await expect(meter).to_have_attribute("aria-expanded", "true")
    assert [line for line in await barriers(page) if "snowyspawner" in line] == []
    await shoot(page, f"usage-lab-{scheme}")
    await page.keyboard.press("Escape")
    await expect(curves).to_have_count(0)
    await expect(meter).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(curves).to_be_visible()
    await page.mouse.click(5, 5)
    await expect(curves).to_have_count(0)

    async def measured() -> Any:
        return ((await own.state(name))["job"]["usage"] or {"seconds": 0})["seconds"] > 31

    # On the home page.
    await until(measured, 60, "half a minute of it")
    await page.goto(f"{own.url}/hub/home")
    card = page.locator("#snowy-server--")
    sentence = r"Used in [\w ]+: [\d.]+ of 2 cores, [\d.]+ of 16 GB, GPU busy [0-4] % of the time"
    await expect(card.locator(".snowy-used")).to_have_text(re.compile(sentence))
    figures = card.locator("figure")
    await expect(figures).to_have_count(2)
    await expect(figures.nth(0)).to_have_text(re.compile(r"Cores over the time of the session: .* of 2"))
    await expect(figures.nth(1)).to_have_text(re.compile(r"GPU over the time of the session: .* %"))
    assert await barriers(page) == []
    await shoot(page, f"usage-home-{scheme}")

    # When it has ended; the advice is one press, and the same choices are another.
    await own.end(name)
    await page.goto(f"{own.url}/hub/home")
    await expect(card.locator(".snowy-used")).to_contain_text(
        re.compile(r"Energy of the GPU alone: [\d.]+ Wh, [\d.]+ g of CO₂\.")
    )
    await expect(card.locator(".snowy-better")).to_contain_text("The GPU had nearly nothing to do")
    await expect(card.get_by_role("button", name="Start again Your session with the same choices")).to_be_visible()
    await expect(card.get_by_role("button", name="Start again without a GPU (Your session)")).to_be_visible()
    assert await barriers(page) == []
    await shoot(page, f"usage-ended-{scheme}")
    await page.set_viewport_size({"width": 360, "height": 800})
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
    await shoot(page, f"usage-ended-narrow-{scheme}")
    await page.goto(f"{own.url}/hub/spawn-pending/{name}")
    await expect(page.locator(".snowy-better")).to_be_visible()
    await page.get_by_role("button", name="Start again without a GPU").click()
    await page.wait_for_url(re.compile("/spawn-pending/|/lab"))
    job = await own.job(name)
    assert (job["request"]["gpu"], job["request"]["cores"]) == ("", 2)
    gres = slurm("squeue", "-M", cluster.site.cluster, "-h", "-j", job["job_id"], "-O", "tres-per-node").strip()
    assert gres == "N/A"
    assert problems == []


@pytest.fixture
async def strict(cluster: Any, users: list[str]) -> AsyncIterator[FaultHub]:
    """A hub that ends what nobody has used for a minute and a half, and warns of it a minute before."""
    made = with_smi(cluster, SMI, {"idle": {"cpu": "1:30", "warn": "1:00"}}, usage_interval=20)
    await made.start()
    yield made
    await end_all(made, users)
    await made.stop()


async def test_a_page_left_open_is_no_use_and_keep_it_is(page: Page, strict: FaultHub, users: list[str]) -> None:
    """JupyterLab in front of everything, and nobody there: it asks its server something every few seconds."""
    name = users[0]
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    await strict.serve(name, {**GPU, "gpu": "none"})
    await sign_in(page, strict, name, "/hub/home")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/api/" in request.url else None)
    await page.goto(f"{strict.url}/user/{name}/lab?reset")
    told = page.get_by_text(re.compile("Nobody uses this session, and it computes nothing: it ends at"))
    await page.get_by_role("button", name="No", exact=True).click(
        timeout=60_000
    )  # whether to tell about Jupyter's news
    await expect(told).to_be_visible(timeout=150_000)
    assert sum("/api/kernels?" in url and "no_track_activity=1" in url for url in asked) >= 2
    await shoot(page, "usage-unused")
    # The home page says it, too.
    home = await page.context.new_page()
    await home.goto(f"{strict.url}/hub/home")
    await expect(
        home.get_by_text("Nobody uses this session, and it computes nothing. If that does not change, it ends at")
    ).to_be_visible()
    await expect(home.get_by_role("button", name="Keep it")).to_be_visible()
    assert await barriers(home) == []
    await shoot(home, "usage-unused-home")
    await home.emulate_media(color_scheme="dark")
    await home.set_viewport_size({"width": 360, "height": 800})
    await home.reload()
    assert await home.evaluate("document.documentElement.scrollWidth") <= 360
    await shoot(home, "usage-unused-home-narrow-dark")
    await home.close()
    before = (await strict.state(name))["job"]["unused_since"]
    await page.get_by_role("button", name="Keep it").click()

    async def used() -> Any:
        return (await strict.state(name))["job"]["unused_since"] > before + 20

    await until(used, 30, "that it is used")
    await expect(told).to_have_count(0, timeout=60_000)
    assert (await strict.model(name) or {})["ready"]
    assert problems == []


async def test_old_advice_starts_nothing(page: Page, own: FaultHub, users: list[str]) -> None:
    """A page may be older than what the session used."""
    name = users[0]
    await sign_in(page, own, name, "/hub/home")
    await own.serve(name, {**GPU, "gpu": "none"})
    await own.end(name)
    await page.goto(f"{own.url}/hub/home")
    form = page.locator("form[action*='/snowy/again/']")
    await expect(form).to_have_count(1)
    await form.evaluate("form => form.insertAdjacentHTML('beforeend', '<input name=advice value=gpu>')")
    await page.get_by_role("button", name="Start again").click()
    await page.wait_for_url(f"**/hub/spawn/{name}")
    await expect(page.get_by_role("button", name="Start", exact=True)).to_be_visible()
    assert not ((await own.model(name)) or {"pending": None})["pending"]
