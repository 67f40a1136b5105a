"""The form as a person meets it: cards, details, what does not go together, cost, estimate, script, link, line."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import suppress
from typing import Any

import pytest
from playwright.async_api import Error, Page, Route, expect
from playwright.async_api import TimeoutError as PlaywrightTimeout

from ..hubs import Hub, until
from .conftest import shoot
from .steps import (
    T4,
    check,
    choice,
    entry,
    error_of,
    messages,
    read,
    settled,
    sign_in,
    unfold,
)

pytestmark = [pytest.mark.cluster, pytest.mark.browser]

GPU, MKL, PIP = "GPU: TensorFlow on a T4", "CPU, quick queue: tf-mkl", "CPU: tf-pip"


@pytest.fixture
async def form(page: Page, hub: Hub, users: list[str]) -> Page:
    """The form of somebody who has signed in, with the course's own choice in it."""
    await sign_in(page, hub, users[0])
    await page.get_by_role("radio", name=GPU).check()
    await settled(page)
    return page


def card(page: Page, name: str) -> Any:
    return page.get_by_role("group", name="What would you like?").get_by_role("radio", name=name, exact=True)


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (320, 568)], ids=["wide", "narrow"])
async def test_the_course_s_choice_is_one_press_away(
    page: Page, hub: Hub, users: list[str], width: int, height: int
) -> None:
    """Somebody who is here for the first time sees it chosen, and Start, wherever the page is scrolled to."""
    await page.set_viewport_size({"width": width, "height": height})
    await sign_in(page, hub, users[1])
    await expect(card(page, GPU)).to_be_checked()
    await expect(page.locator("#snowy-details")).not_to_have_attribute("open", "")
    start = page.get_by_role("button", name="Start", exact=True)
    await expect(start).to_be_in_viewport(ratio=1)
    await settled(page)
    cost = page.locator("#snowy-bar-cost")
    await expect(cost).to_have_text("4 cores \N{MULTIPLICATION SIGN} 59 minutes = 3.9 core-hours, 32 GB, 1 NVIDIA T4")
    await shoot(page, "form" if width > 320 else "form-narrow")
    if width > 320:
        await page.emulate_media(color_scheme="dark")
        await expect(page.locator("html")).to_have_attribute("data-bs-theme", "dark")
        await shoot(page, "form-dark")
        await page.emulate_media(color_scheme="light")
    await unfold(page)
    for where in (0.0, 0.5, 1.0):
        await page.evaluate(
            "at => scrollTo({top: at * document.documentElement.scrollHeight, behavior: 'instant'})", where
        )
        await expect(start).to_be_in_viewport(ratio=1)
    # Nothing is wider than the page.
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
    if width > 320:
        await page.evaluate("document.getElementById('snowy-part-resources').scrollIntoView({behavior: 'instant'})")
        await shoot(page, "form-details")


async def test_a_card_fills_in_every_detail_and_one_s_own_choice_comes_back(form: Page) -> None:
    await unfold(form)
    await entry(form, "cores").fill("7")
    await expect(card(form, "Your own choice")).to_be_checked()
    await card(form, MKL).check()
    expected = {"environment": "tf-mkl", "partition": "devcore", "gpu": "none", "cores": "4", "time": "0:59:00"}
    assert expected.items() <= (await read(form)).items()
    await expect(form.locator("#snowy-live")).to_contain_text("Filled in: tf-mkl")
    await expect(card(form, MKL)).to_be_focused()
    await card(form, "Your own choice").check()
    assert {"environment": "tf-gpu", "cores": "7"}.items() <= (await read(form)).items()
    # Whoever sets by hand what a card has, has chosen that card.
    await form.get_by_role("group", name="Cores: quick choice").get_by_role("button", name="4").click()
    await expect(card(form, GPU)).to_be_checked()


async def test_details_stay_as_they_were_left(form: Page) -> None:
    details = form.locator("#snowy-details")
    await expect(details).not_to_have_attribute("open", "")
    await details.locator("> summary").click()
    await form.reload()
    await expect(details).to_have_attribute("open", "")
    await details.locator("> summary").click()
    await form.reload()
    await expect(details).not_to_have_attribute("open", "")


async def test_partitions_say_what_is_free(form: Page, cluster: Any, slurm: Any) -> None:
    await unfold(form)
    facts = (await check(form, await read(form)))["facts"]
    assert facts.keys() == cluster.site.partitions.keys()
    for name, known in facts.items():
        text = " ".join((await form.locator(f'[data-value="{name}"]').inner_text()).split())
        assert f"{known['free_cores']} of {known['total_cores']} cores free" in text
        assert f"largest free block {known['largest_block']} core" in text
        assert re.search(rf"\b{known['waiting']} jobs? waiting", text)
        for gpu, count in known["free_gpus"].items():
            assert re.search(rf"\b{count} {gpu.upper()}s? free", text)
    total = int(slurm("sinfo", "-M", cluster.site.cluster, "-h", "-p", "core", "-o", "%C").split("/")[-1])
    assert facts["core"]["total_cores"] == total
    await expect(form.locator("#snowy-age")).to_have_text(
        re.compile(r"^What is free, as of (a moment|\d+ seconds) ago\.$")
    )


async def test_what_does_not_go_together_is_said_and_nothing_is_changed(form: Page) -> None:
    await unfold(form)
    await choice(form, "partition", "devcore").check()
    sentence = "devcore has no GPUs: choose core or node, or no GPU"
    await expect(error_of(form, "gpu")).to_have_text(sentence)
    await expect(form.locator("#snowy-live")).to_have_text(f"GPU: {sentence}")
    await expect(choice(form, "gpu", T4)).to_be_checked()
    await expect(choice(form, "partition", "devcore")).to_be_focused()
    # What would not help is marked, with the reason; it can be chosen all the same.
    devel = form.locator('.snowy-option[data-value="devel"]')
    await expect(devel).to_have_class(re.compile("snowy-unfit"))
    await expect(choice(form, "partition", "devel")).to_have_accessible_description(
        re.compile("devel has no GPUs: choose core or node, or no GPU")
    )
    await expect(choice(form, "partition", "devel")).to_be_enabled()
    await expect(form.locator('.snowy-option[data-value="core"]')).not_to_have_class(re.compile("snowy-unfit"))
    long = form.get_by_role("group", name="Time: quick choice").get_by_role("button", name="2 h")
    await expect(long).to_have_attribute("aria-description", re.compile("2 hours is too long for devcore"))
    await settled(form)
    await shoot(form, "form-conflict")
    await choice(form, "gpu", "No GPU").check()
    await expect(error_of(form, "gpu")).to_have_count(0)
    await expect(form.locator("#snowy-live")).to_have_text("Everything goes together now.")
    # Legal, and perhaps not meant.
    await expect(form.locator("#snowy-gpu-remark")).to_contain_text("tf-gpu is made for a GPU")


async def test_cores_and_times_are_echoed_with_what_they_cost(form: Page) -> None:
    await unfold(form)
    await form.get_by_role("group", name="Cores: quick choice").get_by_role("button", name="16").click()
    await expect(entry(form, "cores")).to_have_value("16")
    await entry(form, "time").fill("90")
    await expect(form.locator("#snowy-time-said")).to_have_text("= 1 hour 30 minutes")
    await settled(form)
    await expect(form.locator("#snowy-bar-cost")).to_have_text(
        "16 cores \N{MULTIPLICATION SIGN} 1 hour 30 minutes = 24 core-hours, 128 GB, 1 NVIDIA T4"
    )
    await entry(form, "time").fill("1:30")
    await expect(form.locator("#snowy-time-said")).to_have_text("= 1 minute 30 seconds")
    await entry(form, "time").fill("soon")
    await settled(form)
    await expect(error_of(form, "time")).to_contain_text("'soon' is not a duration")
    await expect(form.locator("#snowy-bar-cost")).to_contain_text("Time: 'soon' is not a duration")
    await expect(entry(form, "time")).to_be_focused()


async def test_a_session_may_begin_later_in_the_site_s_zone(form: Page) -> None:
    await unfold(form)
    await expect(entry(form, "begin")).to_be_hidden()
    await form.get_by_role("radio", name="At …").check()
    tomorrow = await form.evaluate("""() => {
        const at = document.getElementById("snowy-begin-picker").min.slice(0, 10);
        return new Date(Date.parse(at) + 86400000).toISOString().slice(0, 10);
    }""")
    await form.get_by_label("Day and time").fill(f"{tomorrow}T13:30")
    await expect(entry(form, "begin")).to_have_value(f"{tomorrow}T13:30")
    await settled(form)
    await expect(form.locator("#snowy-begin-said")).to_contain_text("13:30 (Europe/Stockholm)")
    await entry(form, "begin").fill("25:00")
    await settled(form)
    await expect(error_of(form, "begin")).to_contain_text("'25:00' is not a time")
    await form.get_by_role("radio", name="As soon as possible").check()
    assert (await read(form))["begin"] == ""
    await settled(form)
    await expect(error_of(form, "begin")).to_have_count(0)
    await form.get_by_role("radio", name="At …").check()
    await expect(entry(form, "begin")).to_have_value("25:00")


async def test_projects_are_one_s_own(form: Page, cluster: Any, slurm: Any) -> None:
    await form.reload()  # by now accounting has answered
    await unfold(form)
    name = await form.locator("#login_widget span").inner_text()
    own = slurm("sacctmgr", "-nP", "show", "assoc", f"user={name}", "format=account").split()
    assert len(set(own)) > 1
    assert sorted(await entry(form, "account").locator("option").all_inner_texts()) == sorted(set(own))
    await expect(entry(form, "account")).to_have_value(cluster.site.accounts.default)


async def test_slurm_says_when_it_would_start(form: Page, users: list[str], cluster: Any, slurm: Any) -> None:
    button = form.get_by_role("button", name="When would this start?")
    await button.click()
    answer = form.locator("#snowy-estimate-answer")
    await expect(answer).not_to_contain_text("Asking")
    await expect(answer).to_contain_text(re.compile(r"start", re.IGNORECASE))
    await expect(form.locator("#snowy-live")).to_have_text(re.compile("start", re.IGNORECASE))
    await shoot(form, "form-estimate")
    # It was of another choice.
    await card(form, PIP).check()
    await expect(answer).to_be_hidden()
    assert slurm("squeue", "-M", cluster.site.cluster, "-h", "-u", users[0]).strip() == ""


async def test_the_job_script_is_shown(form: Page) -> None:
    button = form.get_by_role("button", name="Show the job script")
    await button.click()
    dialog = form.get_by_role("dialog", name="The job script")
    await expect(dialog).to_be_visible()
    await expect(dialog.get_by_label("Command")).to_contain_text("sbatch")
    script = await dialog.get_by_label("Script").inner_text()
    assert script.startswith("#!/bin/bash")
    for line in ("--partition=core", "--ntasks=4", "--gres=gpu:t4:1", "--time=0:59:00"):
        assert f"#SBATCH {line}" in script
    await shoot(form, "form-script")
    await form.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await dialog.get_by_role("button", name="Copy the script").click()
    await expect(dialog.get_by_role("button", name="Copied")).to_be_visible()
    assert (await form.evaluate("navigator.clipboard.readText()")).strip() == script.strip()
    await form.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await expect(button).to_be_focused()


async def test_a_copied_link_opens_the_same_form(form: Page, hub: Hub, users: list[str]) -> None:
    await unfold(form)
    await card(form, MKL).check()
    await entry(form, "cores").fill("8")
    await entry(form, "open").fill("sesegpu/åäö 1.ipynb")
    await settled(form)
    wanted = await read(form)
    await form.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await form.get_by_role("button", name="Copy link").click()
    await expect(form.locator("#snowy-live")).to_contain_text("Link copied")
    link = await form.evaluate("navigator.clipboard.readText()")
    assert link.startswith(f"{hub.url}/hub/snowy?opt-")
    await expect(form.get_by_label("A link that opens this form")).to_have_value(link)
    await form.goto(link)
    await settled(form)
    assert await read(form) == wanted
    assert (await hub.state(users[0])).get("job") is None


async def test_a_line_of_notebook_py_fills_in_the_form(form: Page, hub: Hub, users: list[str]) -> None:
    await form.get_by_text("Save as a card, or paste").click()
    line = form.get_by_label("A line as notebook.py took it")
    await line.fill("./notebook.py -n 8 -p devcore --gres=gpu:t4:0 -t 0:30:00 -- tf-pip")
    await line.press("Enter")
    await expect(form.locator("#snowy-live")).to_contain_text("Filled in: tf-pip · devcore · 8 cores · no GPU")
    await expect(line).to_be_focused()
    expected = {"environment": "tf-pip", "partition": "devcore", "gpu": "none", "cores": "8"}
    assert expected.items() <= (await read(form)).items()
    await line.fill("-n 8 --shell=rm")
    await line.press("Enter")
    await expect(form.locator("#snowy-line-answer")).to_contain_text("--shell")
    assert expected.items() <= (await read(form)).items()
    assert (await hub.state(users[0])).get("job") is None


async def test_one_s_own_cards(form: Page, hub: Hub) -> None:
    """Saved, there the next time, chosen, deleted; a name is only ever text."""
    name = 'Lab 2 <b>&amp; "8 cores"\' 🐍'
    await unfold(form)
    await card(form, PIP).check()
    await entry(form, "cores").fill("8")
    await form.get_by_text("Save as a card, or paste").click()
    await form.get_by_label("Save these choices as").fill(name)
    await form.get_by_label("Save these choices as").press("Enter")
    await expect(form.locator("#snowy-live")).to_contain_text("Saved")
    await expect(card(form, name)).to_be_checked()
    try:
        await form.reload()
        await card(form, MKL).check()
        await card(form, name).check()
        assert {"environment": "tf-pip", "cores": "8"}.items() <= (await read(form)).items()
        await shoot(form, "form-own")
    finally:
        await form.get_by_role("button", name=f"Delete {name}", exact=True).click()
        await expect(form.locator("#snowy-live")).to_contain_text("is deleted")
    await expect(card(form, name)).to_have_count(0)
    await expect(form.locator(":focus")).to_have_attribute("name", "_preset")
    await form.reload()
    await expect(card(form, name)).to_have_count(0)


async def test_the_last_choice_is_offered_again(page: Page, hub: Hub, users: list[str]) -> None:
    """What was accepted the last time, without its reservation; a card that fits is chosen."""
    await sign_in(page, hub, users[0])
    await card(page, PIP).check()
    await unfold(page)
    await entry(page, "cores").fill("2")
    await page.get_by_role("button", name="Start", exact=True).click()
    await page.wait_for_url(re.compile(r"/hub/spawn-pending/"))
    await until(lambda: _job(hub, users[0]), 30, "the job")
    await hub.end(users[0])
    await page.goto(f"{hub.url}/hub/spawn")
    await expect(card(page, "Your own choice")).to_be_checked()
    await expect(page.locator("#snowy-bar-sum")).to_contain_text("tf-pip · devcore · 2 cores · no GPU · 59 minutes")


async def _job(hub: Hub, name: str) -> Any:
    return (await hub.state(name)).get("job")


async def test_a_hub_that_does_not_answer_leaves_the_page_s_own_rules(form: Page) -> None:
    await unfold(form)
    await form.route("**/snowy/check*", lambda route: route.abort())
    await choice(form, "partition", "devcore").check()
    await expect(form.locator("#spawn_form")).to_have_attribute("data-state", "alone")
    assert await messages(form) == {"gpu": "devcore has no GPUs: choose core or node, or no GPU"}
    await form.route("**/snowy/estimate*", lambda route: route.fulfill(status=403, body=json.dumps({})))
    await form.get_by_role("button", name="When would this start?").click()
    await expect(form.locator("#snowy-estimate-answer")).to_have_text("You are signed out: reload the page.")


async def held(page: Page, what: str) -> tuple[list[Route], asyncio.Event]:
    """Hold the next answers of *what* back; return what was asked, and what lets the answers go."""
    asked: list[Route] = []
    go = asyncio.Event()

    async def hold(route: Route) -> None:
        asked.append(route)
        await go.wait()
        with suppress(Error):  # given up by the page
            await route.continue_()

    await page.route(f"**/snowy/{what}*", hold)
    return asked, go


@pytest.mark.parametrize(
    ("what", "button", "place"),
    [
        ("check", None, "#snowy-bar-cost"),
        ("estimate", "When would this start?", "#snowy-estimate-answer"),
        ("script", "Show the job script", "#snowy-dialog"),
    ],
)
async def test_an_answer_about_an_earlier_choice_is_not_shown(
    form: Page, what: str, button: str | None, place: str
) -> None:
    await unfold(form)
    asked, go = await held(form, what)
    if button:
        await form.get_by_role("button", name=button).click()
    else:
        await entry(form, "cores").fill("2")
    await until(lambda: asked, 10, f"the page asks for {what}")
    if not button:
        # The next question would end the one before it; a change has to do that at once.
        await form.evaluate("window.setTimeout = () => 0")
    await entry(form, "cores").fill("3")
    await entry(form, "cores").press("Tab")
    go.set()
    with suppress(Error, PlaywrightTimeout):
        answer = await asked[0].request.response()
        if answer:
            await answer.finished()
    await form.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    if what == "check":
        assert "2 cores" not in await form.locator(place).inner_text()
        assert await form.locator("#spawn_form").get_attribute("data-state") == "checking"
    else:
        await expect(form.locator(place)).to_be_hidden()
        assert "Slurm expects" not in await form.locator("#snowy-live").inner_text()
