"""Links fill in the form: from signed out, for named servers, while a session runs. None of them starts anything."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

import pytest
from aiohttp import web
from playwright.async_api import Page, expect

from ..hubs import Hub
from .conftest import shoot
from .steps import choice, entry, error_of, messages, read, settled, sign_in

pytestmark = [pytest.mark.cluster, pytest.mark.browser]

QUERY = "opt-environment=tf-pip&opt-cores=8&opt-partition=devcore&opt-gpu=none&opt-time=0:30:00"
ASKED = {"environment": "tf-pip", "cores": "8", "partition": "devcore", "gpu": "none", "time": "0:30:00"}


async def nothing_started(hub: Hub, name: str, slurm: Any) -> None:
    user = await hub.call("GET", f"/hub/api/users/{name}?include_stopped_servers")
    for model in (user[1]["servers"] if user[0] == 200 else {}).values():
        assert model["pending"] is None
        assert not model["ready"]
        assert (model.get("state") or {}).get("job") is None
    assert slurm("squeue", "-M", hub.cluster.site.cluster, "-h", "-u", name).strip() == ""


async def serve(application: web.Application) -> tuple[web.AppRunner, int]:
    """Run a small web server; return it and its port."""
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, int(runner.addresses[0][1])


@pytest.mark.parametrize("server", ["", "second"], ids=["default", "named"])
async def test_signed_out_by_way_of_pam(page: Page, hub: Hub, users: list[str], slurm: Any, server: str) -> None:
    name = users[1]
    await sign_in(page, hub, name, f"/hub/snowy?{QUERY}" + (f"&server={server}" if server else ""))
    await settled(page)
    assert ASKED.items() <= (await read(page)).items()
    await nothing_started(hub, name, slurm)
    # It is that server's form.
    await page.get_by_role("button", name="Start", exact=True).click()
    await page.wait_for_url(re.compile(f"/hub/spawn-pending/{name}/{server}|/user/{name}/{server}"))
    job = await hub.job(name, server)
    assert (job["request"]["environment"], job["request"]["cores"]) == ("tf-pip", 8)


@pytest.fixture
async def oidc(cluster: Any, tmp_path: Path) -> AsyncIterator[Hub]:
    """A hub whose people sign in at a provider of their own: a small one, which knows one person."""
    codes: dict[str, str] = {}
    name = list(cluster.users)[1]

    async def authorize(request: web.Request) -> web.Response:
        if request.method == "GET":
            form = '<form method="post"><label>Name <input name="name"></label><button>Yes, it is me</button></form>'
            return web.Response(text=f"<!doctype html><title>Provider</title>{form}", content_type="text/html")
        codes["a-code"] = str((await request.post())["name"])
        back = {"code": "a-code", "state": request.query["state"]}
        raise web.HTTPFound(request.query["redirect_uri"] + "?" + urlencode(back))

    async def token(request: web.Request) -> web.Response:
        sent = await request.text()
        assert parse_qs(sent)["code"] == ["a-code"]
        return web.json_response({"access_token": codes.pop("a-code"), "token_type": "bearer"})

    async def userinfo(request: web.Request) -> web.Response:
        who = request.headers["Authorization"].removeprefix("Bearer ")
        assert who in (name, "stranger")
        known = f"{name.upper()}@Example.org" if who == name else f"{name}@example.com"
        return web.json_response({"sub": "1", "preferred_username": known})

    application = web.Application()
    application.add_routes(
        [
            web.get("/authorize", authorize),
            web.post("/authorize", authorize),
            web.post("/token", token),
            web.get("/userinfo", userinfo),
        ]
    )
    runner, port = await serve(application)
    directory: Path = cluster.state / "oidc-hub"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    (directory / "provider.json").write_text(json.dumps({"url": f"http://127.0.0.1:{port}"}))
    hub = Hub(cluster, directory, Path(__file__).with_name("oidc_hub_config.py"))
    await hub.start()
    yield hub
    await hub.stop()
    await runner.cleanup()


async def test_signed_out_by_way_of_openid_connect(page: Page, oidc: Hub, users: list[str], slurm: Any) -> None:
    await page.goto(f"{oidc.url}/hub/snowy?{QUERY}")
    await page.get_by_role("button", name=re.compile("Sign in with")).click()
    await page.get_by_label("Name").fill(users[1])
    await page.get_by_role("button", name="Yes, it is me").click()
    await page.wait_for_url(re.compile("/hub/snowy"))
    await settled(page)
    assert ASKED.items() <= (await read(page)).items()
    await expect(page.locator("#login_widget")).to_contain_text(users[1])
    await nothing_started(oidc, users[1], slurm)


async def test_the_same_name_elsewhere_is_somebody_else(page: Page, oidc: Hub, users: list[str]) -> None:
    """The provider's people have a domain; docs/sign-in.md makes accounts' names of those of one domain alone."""
    await page.goto(f"{oidc.url}/hub/snowy")
    await page.get_by_role("button", name=re.compile("Sign in with")).click()
    await page.get_by_label("Name").fill("stranger")
    await page.get_by_role("button", name="Yes, it is me").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("403 : Sign in with your account of example.org.")
    await page.goto(f"{oidc.url}/hub/home")
    await expect(page.get_by_role("button", name=re.compile("Sign in with"))).to_be_visible()


async def test_what_is_unknown_or_not_possible_is_named(page: Page, hub: Hub, users: list[str]) -> None:
    query = "opt-environment=tf-nine&opt-cores=99&opt-partition=devcore&opt-gpu=none&opt-colour=blue&opt-account=x;y"
    await sign_in(page, hub, users[0], f"/hub/snowy?{query}")
    summary = page.locator("#snowy-errors")
    for text in (
        "'tf-nine' is not offered here",
        "colour",
        "a node of devcore has 16",
        "'x;y' is not a project's name",
    ):
        await expect(summary).to_contain_text(text)
    await expect(error_of(page, "environment")).to_be_visible()
    await expect(choice(page, "environment", "tf-nine not offered here")).to_be_checked()
    await expect(entry(page, "cores")).to_have_value("99")
    # The page's own look says the same of the fields.
    await settled(page)
    assert (await messages(page)).keys() == {"environment", "cores", "account"}


async def test_while_a_session_runs(page: Page, hub: Hub, users: list[str], slurm: Any) -> None:
    """The link offers to open it, or to start this one beside it: the form of a free name, filled in."""
    name = users[0]
    await sign_in(page, hub, name)
    await hub.serve(name, {"environment": "tf-mkl", "partition": "core", "gpu": "none", "cores": "1"})
    await page.goto(f"{hub.url}/hub/snowy?{QUERY}")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Your session runs already")
    await expect(page.get_by_role("main")).to_contain_text("1 core, tf-mkl")
    await shoot(page, "link-running")
    assert await page.get_by_role("link", name="Open it").get_attribute("href") == f"/user/{name}/"
    await page.get_by_role("link", name="Start this one beside it").click()
    await settled(page)
    assert ASKED.items() <= (await read(page)).items()
    jobs = slurm("squeue", "-M", hub.cluster.site.cluster, "-h", "-u", name, "-t", "PENDING,RUNNING").splitlines()
    assert len(jobs) == 1
    await page.get_by_role("button", name="Start", exact=True).click()
    await page.wait_for_url(re.compile(f"/hub/spawn-pending/{name}/lab-2|/user/{name}/lab-2"))
    assert (await hub.job(name, "lab-2"))["request"]["environment"] == "tf-pip"


async def test_another_site_starts_nothing(page: Page, hub: Hub, users: list[str], slurm: Any) -> None:
    """Not by a link, an image, a frame, a prefetch, a script's request or a form that posts, whatever address."""
    name = users[0]
    await sign_in(page, hub, name)
    own = hub.url
    addresses = [
        f"{own}/hub/snowy?{QUERY}",
        f"{own}/hub/spawn?{QUERY}",
        f"{own}/hub/spawn/{name}?{QUERY}",
        f"{own}/hub/spawn/{name}/third?{QUERY}",
        f"{own}/hub/spawn?cores=8",
        f"{own}/hub/snowy/check?{QUERY}",
        f"{own}/hub/user-redirect/lab?{QUERY}",
    ]
    escaped = [address.replace("&", "&amp;") for address in addresses]
    pictures = "".join(
        f'<img src="{a}" alt=""><iframe src="{a}"></iframe>'
        f'<link rel="prefetch" href="{a}"><link rel="preload" as="fetch" href="{a}">'
        for a in escaped
    )
    forms = "".join(
        f'<form method="post" action="{a}" target="_blank"><input name="cores" value="8"></form>' for a in escaped
    )
    scripts = f"""<script>for (const address of {json.dumps(addresses)}) {{
        fetch(address, {{ mode: "no-cors", credentials: "include" }}).catch(() => 0);
        fetch(address, {{ mode: "no-cors", credentials: "include", method: "POST", body: "cores=8" }}).catch(() => 0);
    }}</script>"""
    links = "".join(f'<a href="{a}">link</a>' for a in escaped)

    async def evil(_: web.Request) -> web.Response:
        return web.Response(text=f"<!doctype html>{pictures}{forms}{links}{scripts}", content_type="text/html")

    application = web.Application()
    application.add_routes([web.get("/", evil)])
    runner, port = await serve(application)
    try:
        await page.goto(f"http://localhost:{port}/")  # another site than 127.0.0.1
        await page.wait_for_load_state("networkidle")
        for number in range(len(addresses)):
            async with page.context.expect_page() as opened:
                await page.evaluate("number => document.forms[number].submit()", number)
            other = await opened.value
            await other.wait_for_load_state()
            await other.close()
            await nothing_started(hub, name, slurm)
        for number in range(len(addresses)):
            await page.goto(f"http://localhost:{port}/")
            await page.locator("a").nth(number).click()
            await page.wait_for_url(re.compile(re.escape(own)))
            await page.wait_for_load_state()
            await nothing_started(hub, name, slurm)
    finally:
        await runner.cleanup()
    # Signed in all the while.
    await page.goto(f"{own}/hub/snowy?{QUERY}")
    await expect(page.get_by_role("button", name="Start", exact=True)).to_be_visible()
    assert ASKED.items() <= (await read(page)).items()
