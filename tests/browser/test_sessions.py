"""The pages of a session, on the real cluster: waiting and why, home, ended and why, log; without JavaScript, too."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import time
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, Route, expect

from snowyspawner.session import messages

from ..cluster.test_failures import stopped
from ..cluster.test_job_api import every_row, identity, post
from ..faults import node_is_idle
from ..hubs import Hub, until
from .conftest import shoot
from .steps import barriers, sign_in

pytestmark = [pytest.mark.cluster, pytest.mark.browser]

ONE = {"environment": "tf-mkl", "partition": "core", "cores": "1", "gpu": "none", "time": "30"}
HOSTILE = "<img src=x onerror=\"document.title='broken in'\"><b>bold</b>"


def begins(cluster: Any, seconds: float) -> dict[str, str]:
    """A choice that waits for its time."""
    at = datetime.fromtimestamp(time.time() + seconds, cluster.site.zone)
    return {**ONE, "begin": at.strftime("%Y-%m-%dT%H:%M:%S")}


def queued(slurm: Any, cluster: Any, name: str) -> list[str]:
    """The jobs that wait or run."""
    states = "PENDING,RUNNING"
    return str(slurm("squeue", "-M", cluster.site.cluster, "-h", "-u", name, "-t", states, "-o", "%i")).split()


def kill(job_id: str, word: bytes, how: signal.Signals = signal.SIGKILL) -> None:
    """Send *how* to the processes of a job with *word* on their command lines."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if (
                word in (path / "cmdline").read_bytes()
                and f"\0SLURM_JOB_ID={job_id}\0".encode() in (path / "environ").read_bytes()
            ):
                found.append(int(path.name))
        except OSError:  # it has ended meanwhile
            continue
    assert found
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, how)


# How long the page moves, in milliseconds; 0 if it does not.
MOVES_UNTIL = "Math.max(0, ...document.getAnimations().map(each => each.effect.getComputedTiming().endTime))"


async def pictures(page: Page, name: str) -> None:
    """Look for barriers, light and dark, and keep pictures of both, no higher than what is on the page."""
    size = page.viewport_size or {"width": 0, "height": 0}
    bottom = await page.evaluate("document.querySelector('main').getBoundingClientRect().bottom + scrollY")
    for scheme in ("light", "dark"):
        # Colors that move gently from one to the other would be measured half way.
        await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
        await expect(page.locator("html")).to_have_attribute("data-bs-theme", scheme)
        await page.wait_for_timeout(200)
        assert await barriers(page) == []
        await page.set_viewport_size({"width": 1000, "height": int(bottom) + 10})
        await shoot(page, name if scheme == "light" else f"{name}-dark")
        await page.set_viewport_size(size)
    await page.emulate_media(color_scheme="light")
    # On a phone nothing is wider than the page.
    await page.set_viewport_size({"width": 320, "height": 600})
    assert await page.evaluate("document.documentElement.scrollWidth") <= 320
    await page.set_viewport_size(size)


@pytest.fixture(autouse=True)
async def no_named_servers(hub: Hub, users: list[str]) -> AsyncIterator[None]:
    """A person may have eight."""
    yield
    for name in users:
        _, model = await hub.call("GET", f"/hub/api/users/{name}?include_stopped_servers")
        for server in model.get("servers", {}):
            await hub.end(name, server)
            if server:
                await hub.call("DELETE", f"/hub/api/users/{name}/servers/{server}", {"remove": True})


@pytest.fixture
async def waiting(page: Page, hub: Hub, users: list[str], cluster: Any) -> Page:
    """The waiting page of somebody whose job waits for its time."""
    name = users[0]
    await hub.submit(name, begins(cluster, 900))
    await hub.job(name)
    await sign_in(page, hub, name, f"/hub/spawn-pending/{name}")
    await expect(page.locator("#snowy-why")).to_be_visible()
    return page


async def test_who_waits_knows_why_and_until_when_and_can_cancel(
    waiting: Page, hub: Hub, users: list[str], cluster: Any, slurm: Any
) -> None:
    name = users[0]
    job = await hub.job(name)
    said = messages.pending("BeginTime")
    second = await waiting.context.new_page()
    await second.goto(f"{hub.url}/hub/spawn-pending/{name}")
    for page in (waiting, second):
        await expect(page.locator("#snowy-sentence")).to_have_text(f"Job {job['job_id']} is in the queue.")
        await expect(page.locator("#snowy-why")).to_have_text(said.sentence)
        await expect(page.locator("#snowy-job")).to_have_text(job["job_id"])
        await expect(page.locator("#snowy-estimate")).to_contain_text(re.compile(r"\d\d:\d\d\s+in 1[45] min"))
        await expect(page.locator("[aria-current=step]")).to_have_text("In the queue")
        await expect(page).to_have_title(re.compile("^In the queue .* JupyterLab$"))
    waited = await waiting.locator("#snowy-waited").inner_text()
    await expect(waiting.locator("#snowy-waited")).not_to_have_text(waited)
    await pictures(waiting, "waiting")
    await waiting.reload()
    await expect(waiting.locator("#snowy-why")).to_have_text(said.sentence)
    # What is said again after a reload or a lost connection is no event.
    await waiting.evaluate("snowyWaiting.stream.close(); snowyWaiting.follow(); snowyWaiting.follow()")
    await waiting.locator("summary", has_text="What has happened").click()
    await waiting.wait_for_timeout(1500)
    assert await waiting.locator("#snowy-events li").count() == 1
    pressed = time.monotonic()
    await waiting.get_by_role("button", name="Cancel").click()
    await until(lambda: queued(slurm, cluster, name) == [], 2 - (time.monotonic() - pressed), "the queue is free")
    await waiting.wait_for_url("**/hub/home")
    # Other tests have left sessions with names.
    card = waiting.locator("#snowy-server--")
    await expect(card).to_contain_text("This job was cancelled while it waited.")
    await expect(card.get_by_role("button", name="Start again")).to_be_visible()
    # The other tab goes on by itself, to a page that says the same.
    await expect(second.locator(".snowy-panel")).to_contain_text("This job was cancelled while it waited.")
    await expect(second.get_by_role("button", name="Start again with the same choices")).to_be_visible()


async def test_an_hour_of_waiting_does_not_fill_the_page(page: Page, hub: Hub, users: list[str], cluster: Any) -> None:
    name = users[0]
    await hub.submit(name, begins(cluster, 7200))
    await page.clock.install()
    await sign_in(page, hub, name, f"/hub/spawn-pending/{name}")
    await expect(page.locator("#snowy-why")).to_have_text(messages.pending("BeginTime").sentence)
    events = page.locator("#snowy-events li")
    await expect(events.first).to_be_attached()
    noted = await events.count()
    # With an estimate, as in what follows.
    await page.evaluate("snowyWaiting.show({progress: 20, snowy: {...snowyWaiting.latest, starts_at: 2e9}})")
    before = await page.evaluate("document.querySelectorAll('*').length")
    await page.clock.fast_forward("01:00:00")
    for _ in range(120):  # heartbeats
        await page.evaluate(
            "at => snowyWaiting.show({progress: 20, snowy: {...snowyWaiting.latest, starts_at: at}})", time.time()
        )
    await expect(page.locator("#snowy-waited")).to_have_text(re.compile("1 h [01] min"))
    assert await page.evaluate("document.querySelectorAll('*').length") == before
    assert await events.count() == noted <= 2


async def test_every_reason_to_wait_has_its_sentence(
    page: Page, hub: Hub, users: list[str], cluster: Any, slurm: Any
) -> None:
    """Resources, Priority, a held job, a closed partition, an account's limit; an estimate where Slurm has one."""
    name, snowy, account = users[0], cluster.site.cluster, cluster.site.accounts.default
    update = ["scontrol", "-M", snowy, "update"]
    limit = ["sacctmgr", "-i", "modify", "user", users[1], "where", f"account={account}", "set"]
    filler = ["-A", account, "-p", "core", "-N", "4", "--exclusive", "-t", "20", "-o", "/dev/null", "-D", "/tmp"]
    slurm("sbatch", "-M", snowy, f"--uid={users[2]}", *filler, "--wrap", "sleep 600")
    try:
        slurm(*update, "PartitionName=devcore", "State=DOWN")
        slurm(*limit, "MaxJobs=0")
        jobs = {}
        for server in ("resources", "priority", "held", "closed"):
            options = {**ONE, "partition": "devcore"} if server == "closed" else ONE
            await hub.submit(name, options, server)
            jobs[name, server] = (await hub.job(name, server))["job_id"]
        await hub.submit(users[1], ONE)
        jobs[users[1], ""] = (await hub.job(users[1]))["job_id"]
        slurm("scontrol", "-M", snowy, "hold", jobs[name, "held"])
        await sign_in(page, hub, name, "/hub/home")
        for (person, server), job_id in jobs.items():
            reason = {
                "resources": "Resources",
                "priority": "Priority",
                "held": "JobHeldAdmin",
                "closed": "PartitionDown",
                "": "AssocMaxJobsLimit",
            }[server]

            def slurm_says(job_id: str = job_id) -> str:
                return str(slurm("squeue", "-M", snowy, "-h", "-j", job_id, "-o", "%r %S")).strip()

            await until(lambda reason=reason: slurm_says().startswith(reason), 20, f"{reason}: {slurm_says()}")
            said = messages.pending(reason)
            assert said.advice
            if person != name:
                await page.context.clear_cookies()
                await sign_in(page, hub, person, "/hub/home")
            await page.goto(f"{hub.url}/hub/spawn-pending/{person}/{server}".rstrip("/"))
            await expect(page.locator("#snowy-why")).to_have_text(said.sentence)
            # A page that waits for hours does not move for hours.
            assert await page.evaluate(MOVES_UNTIL) <= 10_000
            await expect(page.locator("#snowy-advice")).to_have_text(said.advice)
            support = page.get_by_role("link", name=cluster.site.support)
            await expect(support).to_have_count(int("support" in said.advice))
            estimate = page.locator("#snowy-estimate")
            if server in ("resources", "priority"):
                await expect(estimate).to_contain_text(re.compile(r"\d\d:\d\d\s+in (1\d|20) min"), timeout=40_000)
                if server == "resources":
                    await pictures(page, "waiting-resources")
            elif slurm_says().endswith(" N/A"):
                await expect(estimate).to_be_hidden()
                assert server != "resources"
            else:
                await expect(estimate).to_be_visible()
        assert "N/A" in str(slurm("squeue", "-M", snowy, "-h", "-j", jobs[name, "held"], "-o", "%S"))
    finally:
        slurm(*update, "PartitionName=devcore", "State=UP")
        slurm(*limit, "MaxJobs=-1")


async def test_drained_nodes_are_said_to_be_out_of_order(
    page: Page, hub: Hub, users: list[str], cluster: Any, slurm: Any
) -> None:
    """All nodes of a partition, as before a maintenance; the job starts when they are back."""
    name, snowy = users[0], cluster.site.cluster
    nodes = str(slurm("sinfo", "-M", snowy, "-h", "-p", "devcore", "-o", "%N")).strip()
    update = ["scontrol", "-M", snowy, "update", f"NodeName={nodes}"]
    slurm(*update, "State=DRAIN", "Reason=maintenance")
    try:
        await hub.submit(name, {**ONE, "partition": "devcore"})
        job = await hub.job(name)
        await sign_in(page, hub, name, f"/hub/spawn-pending/{name}")
        said = messages.pending(
            "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions"
        )
        await expect(page.locator("#snowy-why")).to_have_text(said.sentence, timeout=20_000)
        await expect(page.locator("#snowy-why")).to_contain_text("out of order")
        await expect(page.locator("#snowy-advice")).to_have_text(said.advice)
        await expect(page.locator("#snowy-estimate")).to_be_hidden()
        assert queued(slurm, cluster, name) == [job["job_id"]]
    finally:
        slurm(*update, "State=RESUME")
    await page.wait_for_url(re.compile(rf"/user/{name}/lab"), timeout=90_000)


async def test_it_opens_by_itself_when_it_is_ready(
    page: Page, hub: Hub, users: list[str], cluster: Any, slurm: Any
) -> None:
    """With a notification, if that was asked for; then the home page knows node, time left and when it ends."""
    name = users[0]
    await page.context.grant_permissions(["notifications"], origin=hub.url)
    await page.add_init_script(
        "window.Notification = class { static permission = 'granted'; static requestPermission = async () => 'granted';"
        " constructor(title) { localStorage.told = title; } }"
    )
    # Signing in may take longer than a session's start.
    await sign_in(page, hub, name, "/hub/home")
    await hub.submit(name, {**ONE, "time": "45"})
    await page.goto(f"{hub.url}/hub/spawn-pending/{name}")
    await page.wait_for_url(re.compile(rf"/user/{name}/lab"), timeout=90_000)
    assert await page.evaluate("localStorage.told") == "Your JupyterLab session is ready"
    await hub.submit(name, begins(cluster, 600), "later")
    job = (await hub.state(name))["job"]
    await page.goto(f"{hub.url}/hub/home")
    card = page.locator("#snowy-server--")
    await expect(card).to_contain_text(job["node"])
    await expect(card).to_contain_text(job["job_id"])
    await expect(card.locator("[data-until]")).to_have_text("44 min")
    # Slurm's own end, as this browser's clock shows it.
    end = str(slurm("squeue", "-M", cluster.site.cluster, "-h", "-j", job["job_id"], "-o", "%e")).strip()
    shown = int(await card.locator("time").get_attribute("data-at") or 0)
    assert abs(time.mktime(time.strptime(end, "%Y-%m-%dT%H:%M:%S")) - shown) <= 2
    await expect(page.locator("#snowy-server-later")).to_contain_text("In the queue")
    await pictures(page, "home")
    # Ten minutes before its end it says so.
    await page.evaluate(
        """const now = Date.now() / 1000;
           document.querySelector('[data-warn]').dataset.warn = now + 1;
           document.querySelector('[data-until]').dataset.until = now + 590;
           const end = document.querySelector('.snowy-left time');
           end.textContent = new Date((now + 590) * 1000).toTimeString().slice(0, 5);"""
    )
    await expect(card.get_by_text("Save your work now")).to_be_hidden()
    await expect(card.get_by_text("Save your work now")).to_be_visible()
    await pictures(page, "home-warning")
    await card.get_by_role("link", name="Log").click()
    await expect(page.locator("#snowy-log")).to_contain_text("snowyspawner")
    await pictures(page, "log")
    await page.get_by_role("main").get_by_role("link", name="Home").click()
    # Cancel of a named server ends that one.
    await page.locator("#snowy-server-later").get_by_role("link", name="Follow it").click()
    await page.get_by_role("button", name="Cancel").click()
    await page.wait_for_url("**/hub/home")
    assert queued(slurm, cluster, name) == [job["job_id"]]
    await page.locator("#snowy-server-later").get_by_role("button", name="Remove").click()
    await expect(page.locator("#snowy-server-later")).to_have_count(0)
    await card.get_by_role("button", name="Stop").click()
    await expect(card).to_contain_text("This session was stopped.")
    assert queued(slurm, cluster, name) == []


@pytest.mark.slow  # Slurm looks every 30 s whose time is up
async def test_what_ended_says_why_and_starts_again(
    page: Page, hub: Hub, users: list[str], cluster: Any, slurm: Any
) -> None:
    """Time limit, scancel, memory, node down, the server's own crash, side by side."""
    name, snowy = users[0], cluster.site.cluster
    update = ["scontrol", "-M", snowy, "update"]
    servers = ("time", "memory", "scancel", "crash", "node")
    jobs = {}
    for server in servers:
        if server == "memory":
            # Slurm lets an administrator change what a waiting job gets.
            await hub.submit(name, begins(cluster, 900), server)
            job_id = (await hub.job(name, server))["job_id"]
            slurm(*update, f"JobId={job_id}", "MinMemoryCPU=600", "StartTime=now")
        jobs[server] = (await hub.serve(name, ONE, server))["job"]
    at = datetime.fromtimestamp(time.time() + 1).strftime("%Y-%m-%dT%H:%M:%S")
    slurm(*update, f"JobId={jobs['time']['job_id']}", f"EndTime={at}")
    slurm("scancel", "-M", snowy, jobs["scancel"]["job_id"])
    grow = asyncio.create_task(hub.run(name, "x = bytearray(900_000_000); import time; time.sleep(60)", "memory"))
    kill(jobs["crash"]["job_id"], b"/bin/jupyterhub-singleuser\0")
    try:
        for server in servers[:-1]:
            await stopped(hub, name, server)
    finally:
        grow.cancel()
        await asyncio.gather(grow, return_exceptions=True)
    node = jobs["node"]["node"]
    try:
        slurm(*update, f"NodeName={node}", "State=DOWN", "Reason=test")
        await stopped(hub, name, "node")
    finally:
        slurm(*update, f"NodeName={node}", "State=RESUME", check=False)
        await node_is_idle(slurm, snowy, node)
    await sign_in(page, hub, name, "/hub/home")
    for server, sentence in {
        "time": messages.ending("TIMEOUT").sentence,
        "memory": "used more memory than",
        "scancel": "The job was cancelled by root.",
        "crash": "The server ended with an error (exit code 137).",
        "node": messages.ending("NODE_FAIL").sentence,
    }.items():
        card = page.locator(f"#snowy-server-{server}")
        await expect(card).to_contain_text(sentence)
        await expect(card.get_by_role("button", name="Start again")).to_be_visible()
    await pictures(page, "home-ended")
    # Whoever still has its address.
    await page.goto(f"{hub.url}/user/{name}/crash/lab")
    await expect(page.get_by_role("heading", name="Your session has ended: crash")).to_be_visible()
    await expect(page.locator("main")).to_contain_text("the server ended by itself (exit code 137)")
    await expect(page.locator(".snowy-log")).to_be_visible()
    await pictures(page, "ended")
    await page.get_by_role("button", name="Start again with the same choices").click()
    await page.wait_for_url(re.compile(rf"/user/{name}/crash/lab"), timeout=90_000)
    state = await hub.state(name, "crash")
    assert state["last"] is None
    assert state["job"]["request"] == jobs["crash"]["request"]
    assert state["job"]["job_id"] != jobs["crash"]["job_id"]


async def test_a_start_that_fails_says_why_wherever_one_looks(
    page: Page, hub: Hub, users: list[str], cluster: Any
) -> None:
    """No blank page: who watches, who comes later, who presses Start again, and home."""
    name = users[0]
    path = f"{hub.url}/hub/spawn-pending/{name}"
    await hub.submit(name, {**ONE, "image": "missing.sif"})
    await sign_in(page, hub, name, f"/hub/spawn-pending/{name}")
    for _ in range(2):
        await expect(page.get_by_role("heading", name="Your session did not start")).to_be_visible(timeout=60_000)
        await expect(page.locator(".snowy-why")).to_contain_text("missing.sif does not exist")
        await expect(page.locator(".snowy-advice")).to_contain_text("Is the path right")
        assert await barriers(page) == []
        await page.get_by_role("button", name="Start again with the same choices").click()
        await page.wait_for_url(path)
    await expect(page.get_by_role("heading", name="Your session did not start")).to_be_visible(timeout=60_000)
    await pictures(page, "not-started")
    for where in (f"/user/{name}/lab", "/hub/home"):
        await page.goto(hub.url + where)
        await expect(page.locator(".snowy-why")).to_contain_text("missing.sif does not exist")


async def test_a_restarted_hub_does_not_lose_who_waits(
    waiting: Page, plain: Page, hub: Hub, users: list[str], cluster: Any, slurm: Any
) -> None:
    """The open page goes on by itself; without JavaScript a button does; both can cancel."""
    name = users[0]
    job = (await hub.job(name))["job_id"]
    await sign_in(plain, hub, name, "/hub/home")
    asked = 0

    async def proxy_without_hub(route: Route) -> None:
        """What a proxy says that has just been started: it has no hub yet."""
        nonlocal asked
        asked += 1
        await (route.fulfill(status=404, body="") if asked == 1 else route.continue_())

    await waiting.route("**/hub/snowy/status/**", proxy_without_hub)
    for how in (signal.SIGKILL, signal.SIGTERM):
        await hub.stop(how)
        await asyncio.sleep(1)
        if how == signal.SIGTERM:
            await waiting.goto("about:blank")
        await hub.start()
        if how == signal.SIGKILL:
            followed = time.monotonic()

            async def attached() -> bool:
                model = await hub.model(name)
                return bool(model and model["pending"] == "spawn")

            await until(attached, 30, "the page takes the session up again")
            await expect(waiting.locator("#snowy-why")).to_have_text(messages.pending("BeginTime").sentence)
            await expect(waiting.locator("#snowy-job")).to_have_text(job)
            assert time.monotonic() - followed < 30
            assert asked > 1
    # Who comes home goes on waiting, too.
    page = await waiting.context.new_page()
    await page.goto(f"{hub.url}/hub/home")
    await expect(page.locator("#snowy-server--")).to_contain_text(messages.pending("BeginTime").sentence)
    await page.close()
    await hub.stop()
    await hub.start()
    # Nobody with JavaScript looks: the hub knows the job from its stored state only.
    await plain.goto(f"{hub.url}/hub/home")
    card = plain.locator("#snowy-server--")
    await expect(card).to_contain_text(f"Job {job} is in the queue.")
    await plain.goto(f"{hub.url}/hub/spawn-pending/{name}")
    await expect(plain.locator("main")).to_contain_text("Nothing is lost.")
    await expect(plain.get_by_role("button", name="Go on waiting")).to_be_visible()
    assert queued(slurm, cluster, name) == [job]
    await plain.get_by_role("button", name="Cancel").click()
    await until(lambda: queued(slurm, cluster, name) == [], 5, "the queue is free")
    await expect(card).to_contain_text("This job was cancelled while it waited.")


async def stays(page: Page, path: str) -> None:
    """Open a page that would go on by itself, and keep it: what it goes to next is answered with "no content"."""
    await page.unroute_all()
    await page.goto(path)

    async def nowhere(route: Route) -> None:
        await (route.fulfill(status=204) if route.request.is_navigation_request() else route.continue_())

    await page.route("**/*", nowhere)


async def test_what_is_being_stopped_says_so(page: Page, hub: Hub, users: list[str]) -> None:
    """At home, where it was followed, and at its own address."""
    name = users[0]
    job = (await hub.serve(name, ONE))["job"]
    await sign_in(page, hub, name, "/hub/home")
    # It does not hear that it shall end, so that there is time to look.
    kill(job["job_id"], b"/bin/jupyterhub-singleuser\0", signal.SIGSTOP)
    stop = asyncio.create_task(hub.call("DELETE", hub._path(name, "")))
    await asyncio.sleep(0.5)
    pages = {}
    for path in ("/hub/home", f"/hub/spawn-pending/{name}", f"/user/{name}/lab"):
        pages[path] = await page.context.new_page()
        await stays(pages[path], hub.url + path)
    home, followed, own = pages.values()
    await expect(home.locator("#snowy-server--")).to_contain_text(f"Job {job['job_id']} is being ended.")
    await expect(followed.get_by_role("heading", level=1)).to_have_text(re.compile("topp(ed|ing)"))
    await expect(own.get_by_role("heading", level=1)).to_have_text("Your session is being stopped")
    for seen, shot in ((home, "home-stopping"), (followed, "stopping"), (own, "stopping-own")):
        await pictures(seen, shot)
    await stop
    await own.unroute_all()
    await expect(own.get_by_text("This session was stopped.")).to_be_visible(timeout=30_000)


async def test_what_a_restarted_hub_has_found_again_says_so(
    waiting: Page, hub: Hub, users: list[str], cluster: Any, slurm: Any
) -> None:
    """What is there for the moment before the page goes on by itself."""
    name = users[0]
    job = (await hub.job(name))["job_id"]
    await waiting.goto("about:blank")
    await hub.stop()
    await hub.start()
    await waiting.route("**/hub/snowy/resume/**", lambda route: route.abort())
    await waiting.goto(f"{hub.url}/hub/home")
    card = waiting.locator("#snowy-server--")
    await expect(card).to_contain_text(f"Job {job} is in the queue.")
    await expect(card.get_by_role("button", name="Go on waiting")).to_be_visible()
    await pictures(waiting, "home-found-again")
    await stays(waiting, f"{hub.url}/hub/home")  # its own question takes the session up again
    await until(lambda: _spawning(hub, name), 15, "the home page takes the session up again")
    await hub.stop()
    await hub.start()
    await waiting.unroute_all()
    posts = []

    async def nowhere(route: Route) -> None:
        posts.append(route.request.url)
        await route.fulfill(status=204)

    await waiting.route("**/hub/snowy/resume/**", nowhere)
    await waiting.goto(f"{hub.url}/hub/spawn-pending/{name}", wait_until="commit")
    await expect(waiting.get_by_role("heading", level=1)).to_have_text("Your session is in the queue")
    await expect(waiting.locator("main")).to_contain_text("Nothing is lost.")
    await until(lambda: posts, 5, "it goes on by itself")
    await pictures(waiting, "found-again")
    await waiting.unroute_all()
    await waiting.get_by_role("button", name="Go on waiting").click()
    await expect(waiting.locator("#snowy-why")).to_have_text(messages.pending("BeginTime").sentence)
    assert queued(slurm, cluster, name) == [job]


async def _spawning(hub: Hub, name: str) -> bool:
    model = await hub.model(name)
    return bool(model and model["pending"] == "spawn")


async def test_the_home_of_somebody_who_was_never_here(page: Page, hub: Hub, users: list[str]) -> None:
    name = users[1]
    # To the hub it is somebody new.
    for method, wanted in (("DELETE", 204), ("POST", 201)):
        status, answer = await hub.call(method, f"/hub/api/users/{name}")
        assert status == wanted, answer
    await sign_in(page, hub, name, "/hub/home")
    await expect(page.locator(".snowy-panel")).to_have_count(1)
    await expect(page.locator("#snowy-server--")).to_contain_text("Nothing runs here at the moment.")
    await pictures(page, "home-empty")
    await page.get_by_role("link", name="Start a session").click()
    await expect(page.get_by_role("heading", name="Start JupyterLab on Snowy")).to_be_visible()


async def test_all_of_it_without_javascript(plain: Page, hub: Hub, users: list[str], cluster: Any, slurm: Any) -> None:
    name = users[0]
    await hub.submit(name, begins(cluster, 900))
    job = await hub.job(name)
    await sign_in(plain, hub, name, "/hub/home")
    await plain.get_by_role("link", name="Follow it").click()
    await expect(plain.locator("#snowy-waiting")).to_contain_text("In the queue")
    refresh = plain.locator("noscript meta[http-equiv=refresh]")
    await expect(refresh).to_have_count(1)
    await expect(plain.locator("#noscript")).to_be_hidden()
    await plain.get_by_role("button", name="Cancel").click()
    await plain.wait_for_url("**/hub/home")
    assert queued(slurm, cluster, name) == []
    await plain.get_by_role("button", name="Start again").click()
    # The time that was chosen is still to come, so it counts.
    await plain.wait_for_url(f"**/hub/spawn-pending/{name}")
    again = await hub.job(name)
    assert again["job_id"] != job["job_id"]
    assert abs(again["request"]["begin"] - job["request"]["begin"]) <= 1
    slurm("scontrol", "-M", cluster.site.cluster, "update", f"JobId={again['job_id']}", "StartTime=now")
    # It loads itself again until the server is there. (Playwright does not follow that while JavaScript is off.)

    async def opened() -> bool:
        await plain.goto(f"{hub.url}/hub/spawn-pending/{name}")
        return f"/user/{name}/lab" in plain.url

    await until(opened, 60, "the server, by loading the page again", every=2)
    await plain.goto(f"{hub.url}/hub/home")
    await plain.get_by_role("link", name="Log of").click()
    await expect(plain.locator("#snowy-log")).to_contain_text("snowyspawner")
    await plain.goto(f"{hub.url}/hub/home")
    await plain.get_by_role("button", name="Stop").click()
    await expect(plain.locator("#snowy-server--")).to_contain_text("This session was stopped.")


async def test_what_others_wrote_is_text(page: Page, hub: Hub, users: list[str], cluster: Any, slurm: Any) -> None:
    """HTML in Slurm's words, in a job's report and in its log."""
    name = users[0]
    state = await hub.serve(name, ONE)
    job_id = state["job"]["job_id"]
    mine = await identity(hub, name)
    report = {**mine, "code": 1, "detail": HOSTILE, "log": [HOSTILE, "</pre></script>"]}
    answers = [await post(hub, "/hub/api/snowyspawner/report", {**report, "server": n}) for n in every_row(hub)]
    assert answers.count(200) == 1
    log = Path(f"~{name}/.snowyspawner-{job_id}.log").expanduser()
    with log.open("a") as file:
        file.write(HOSTILE + "\n</pre><script>document.title='broken in'</script>\n")
    # It must not say more: an honest launcher does.
    kill(job_id, b"\0/dev/fd/3\0")
    await stopped(hub, name)
    last = (await hub.state(name))["last"]
    assert last["detail"] == HOSTILE, last
    await sign_in(page, hub, name, "/hub/home")
    for where in ("/hub/home", f"/user/{name}/lab", f"/hub/snowy/log/{name}"):
        await page.goto(hub.url + where)
        await expect(page.locator("main")).to_contain_text(HOSTILE)
        assert await page.locator("main img, main b, main script").count() == 0
        assert "broken in" not in await page.title()
    await hub.submit(name, begins(cluster, 900), "slurm")
    await hub.job(name, "slurm")
    await page.goto(f"{hub.url}/hub/spawn-pending/{name}/slurm")
    await expect(page.locator("#snowy-why")).to_be_visible()
    said = {"sentence": HOSTILE, "why": HOSTILE, "advice": HOSTILE, "note": HOSTILE, "title": HOSTILE, "node": HOSTILE}
    await page.evaluate("snowyWaiting.stream.close()")  # Slurm's own words must not come after these
    await page.evaluate(
        "said => snowyWaiting.show({message: said.why, snowy: {...snowyWaiting.latest, ...said}})", said
    )
    await expect(page.locator("#snowy-node")).to_have_text(HOSTILE)
    await page.locator("summary", has_text="What has happened").click()
    await expect(page.locator("#snowy-events")).to_contain_text(HOSTILE)
    assert await page.locator("main img, main b").count() == 0
