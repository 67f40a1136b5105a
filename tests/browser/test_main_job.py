"""The main job as a student does it: sign in, choose, press Start, work."""

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from ..hubs import Hub, until
from .conftest import shoot
from .steps import T4, choice, entry, error_of, sign_in, unfold

pytestmark = [pytest.mark.cluster, pytest.mark.browser]

CELL = """import os, sys
print(os.environ["SLURM_JOB_PARTITION"], os.environ["SLURM_CPUS_ON_NODE"], "CPUs")
print(sys.prefix)
print(open("/opt/course/README").readline().strip() and "only in the image")"""


async def run_cell(page: Page, code: str) -> str:
    """Type *code* into the notebook's active cell and run it; return what appears under it."""
    outputs = page.locator(".jp-OutputArea-output")
    before = await outputs.count()
    await page.locator(".jp-Cell.jp-mod-active .cm-content").click()
    await page.keyboard.insert_text(code)
    await page.keyboard.press("Shift+Enter")
    await expect(outputs).to_have_count(before + 1, timeout=60_000)
    return (await outputs.nth(before).inner_text()).strip()


async def test_sign_in_choose_start_and_work(page: Page, hub: Hub, users: list[str], cluster: Any, slurm: Any) -> None:
    name = users[-1]  # whose first session this is: the form offers the last choice again
    await sign_in(page, hub, name)
    await expect(page.get_by_role("heading", name="Start JupyterLab on Snowy")).to_be_visible()
    # The default is the course's.
    await expect(page.get_by_role("radio", name="GPU: TensorFlow on a T4")).to_be_checked()
    await unfold(page)
    await expect(choice(page, "environment", "tf-gpu")).to_be_checked()
    await expect(choice(page, "gpu", T4)).to_be_checked()
    await expect(entry(page, "time")).to_have_value("0:59:00")
    await page.get_by_role("radio", name="CPU, quick queue: tf-mkl").check()
    await expect(choice(page, "environment", "tf-mkl")).to_be_checked()
    await page.get_by_role("button", name="Start", exact=True).click()

    await page.wait_for_url(re.compile(rf"/user/{name}/lab"), timeout=90_000)
    # Lab opens what was open the last time, on a cluster that was kept; without it, its launcher.
    await page.goto(f"{hub.url}/user/{name}/lab?reset")
    await page.locator(".jp-LauncherCard[data-category=Notebook]").first.click(timeout=60_000)
    # A cell that is run before the kernel is there does nothing.
    await expect(page.get_by_text("Python 3 (ipykernel) | Idle")).to_be_visible(timeout=60_000)
    assert await run_cell(page, "print('Hello')") == "Hello"
    lines = (await run_cell(page, CELL)).splitlines()
    assert lines == ["devcore 4 CPUs", "/opt/conda/envs/tf-mkl", "only in the image"]
    await shoot(page, "session")

    # A terminal: same environment, container and allocation.
    job = (await hub.state(name))["job"]["job_id"]
    seen = Path(f"~{name}/seen.txt").expanduser()
    seen.unlink(missing_ok=True)  # of a run whose cluster was kept
    await page.get_by_role("button", name="New Launcher", exact=True).click()
    await page.locator(".jp-LauncherCard[data-category=Other]").filter(has_text="Terminal").click()
    await page.locator(".jp-Terminal .xterm-screen").click()
    words = "$SLURM_JOB_ID $SLURM_CPUS_ON_NODE $APPTAINER_CONTAINER $(command -v python) $(ls -d /opt/course)"
    await page.keyboard.type(f'echo "{words}" > ~/seen.part && mv ~/seen.part ~/seen.txt\n')
    await until(seen.exists, 30, "what the terminal saw")
    assert seen.read_text().split() == [
        job,
        "4",
        str(cluster.image),
        "/opt/conda/envs/tf-mkl/bin/python",
        "/opt/course",
    ]

    # The Stop button of the home page ends the job.
    await page.goto(f"{hub.url}/hub/home")
    await page.get_by_role("button", name="Stop").click()
    await expect(page.get_by_text("This session was stopped.")).to_be_visible(timeout=15_000)
    states = "PENDING,RUNNING"
    left = slurm("squeue", "-M", cluster.site.cluster, "-h", "-u", name, "-t", states, "-o", "%i")
    assert left.split() == []


async def test_a_refused_form_comes_back_as_it_was_typed(
    page: Page, hub: Hub, users: list[str], cluster: Any, slurm: Any
) -> None:
    """Each mistake at its field, for a named server too, although JupyterHub renders the default one's form."""
    name = users[0]
    await sign_in(page, hub, name)
    for path in ("/hub/spawn", f"/hub/spawn/{name}/second"):
        await page.goto(hub.url + path)
        await unfold(page)
        await choice(page, "partition", "devcore").check()
        await choice(page, "gpu", T4).check()
        await entry(page, "cores").fill("17")
        await entry(page, "time").fill("3:00:00")
        await page.get_by_text("I was given a reservation").click()
        await entry(page, "reservation").fill('"><script>alert(1)</script>')
        await page.get_by_role("button", name="Start", exact=True).click()
        summary = page.locator("#snowy-errors")
        await expect(summary).to_contain_text("Nothing was started. Please look at:")
        await expect(summary).to_be_focused()
        # JupyterHub's own box would say it all once more.
        await expect(page.locator(".spawn-error-msg")).to_have_count(0)
        for field, error in (
            ("cores", "a node of devcore has 16"),
            ("time", "3 hours is too long for devcore: at most 1 hour"),
            ("gpu", "devcore has no GPUs: choose core or node, or no GPU"),
            ("reservation", "is not a reservation's name"),
        ):
            control = page.locator(f"#snowy-{field}")
            await expect(control).to_be_visible()
            await expect(control).to_have_attribute("aria-invalid", "true")
            assert f"snowy-{field}-error" in (await control.get_attribute("aria-describedby") or "").split()
            await expect(error_of(page, field)).to_contain_text(error)
        await expect(entry(page, "cores")).to_have_value("17")
        await expect(entry(page, "time")).to_have_value("3:00:00")
        await expect(entry(page, "reservation")).to_have_value('"><script>alert(1)</script>')
        await expect(choice(page, "gpu", T4)).to_be_checked()
        await expect(choice(page, "partition", "devcore")).to_be_checked()
        await shoot(page, "form-errors")
    assert slurm("squeue", "-M", cluster.site.cluster, "-h", "-u", name).strip() == ""


async def test_a_link_fills_the_form_and_starts_nothing(page: Page, hub: Hub, users: list[str], cluster: Any) -> None:
    """A GET never has an effect."""
    await sign_in(page, hub, users[0])
    await page.goto(f"{hub.url}/hub/spawn?opt-environment=tf-pip&opt-cores=8&opt-partition=devcore&opt-gpu=none")
    await unfold(page)
    await expect(choice(page, "environment", "tf-pip")).to_be_checked()
    await expect(entry(page, "cores")).to_have_value("8")
    assert "job" not in await hub.state(users[0]) or (await hub.state(users[0]))["job"] is None
