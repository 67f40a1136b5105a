"""The end of the job is announced inside JupyterLab, although the image has nothing of ours."""

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from ..hubs import Hub, until
from .conftest import shoot
from .steps import sign_in

pytestmark = [pytest.mark.cluster, pytest.mark.browser]

MKL = {"environment": "tf-mkl", "partition": "devcore", "cores": 4, "gpu": "none"}


async def test_jupyterlab_says_when_the_session_ends(
    page: Page, hub: Hub, users: list[str], cluster: Any, slurm: Any
) -> None:
    """The time left at the bottom; a warning when Slurm sends its signal, with the end as it is by then."""
    name = users[0]
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    state = await hub.serve(name, MKL)
    job = state["job"]["job_id"]
    await sign_in(page, hub, name)
    await page.goto(f"{hub.url}/user/{name}/lab?reset")
    left = page.locator(".snowyspawner-time-left")
    await expect(left).to_have_text(re.compile(r"^5[89] min left$"), timeout=60_000)
    await expect(page.get_by_text(re.compile(r"This session ends at"))).to_have_count(0)
    notebook = Path(f"~{name}/Untitled.ipynb").expanduser()
    notebook.unlink(missing_ok=True)  # of a run whose cluster was kept
    await page.locator(".jp-LauncherCard[data-category=Notebook]").first.click()
    await expect(page.get_by_text("Python 3 (ipykernel) | Idle")).to_be_visible(timeout=60_000)
    await page.locator(".jp-Cell.jp-mod-active .cm-content").click()
    await page.keyboard.insert_text("answer = 6 * 7")

    # An administrator shortens it, to about the ten minutes before an end of which people are warned.
    slurm("scontrol", "-M", cluster.site.cluster, "update", f"JobId={job}", "TimeLimit=11")
    slurm("scancel", "-M", cluster.site.cluster, "--signal=USR1", "--batch", job)
    words = re.compile(r"This session ends at \d\d:\d\d \(in 1[01] minutes\)\. Save your work\.")
    await expect(page.get_by_text(words)).to_be_visible(timeout=45_000)
    await expect(left).to_have_text(re.compile(r"^1[01] min left$"))
    if await (news := page.get_by_role("button", name="No", exact=True)).count():
        await news.click()  # whether to tell about Jupyter's news
    await page.wait_for_timeout(1500)  # they slide in and out
    await shoot(page, "warning")
    assert "answer" not in notebook.read_text()
    await page.get_by_role("button", name="Save all").click()
    await until(lambda: "answer = 6 * 7" in notebook.read_text(), 15, "what was typed in the notebook's file")

    # It was a warning and nothing else.
    assert (await hub.model(name) or {})["ready"]
    assert await hub.run(name, "print(6 * 7)") == "42"
    assert problems == []
