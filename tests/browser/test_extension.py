"""The extension by itself, in a page without JupyterLab's notifications, where time passes as the test wants.

In JupyterLab, and with a real job, it is in test_warning.py.
"""

import http.server
import json
import re
import threading
from collections.abc import Awaitable, Callable, Iterator
from email.utils import formatdate
from typing import Any

import pytest
from playwright.async_api import Page, Route, expect

from snowyspawner._share import share_dir
from snowyspawner.standalone import end_warning

pytestmark = pytest.mark.browser

BEGIN = 1790848800  # 2026-10-01 10:00 UTC
PAGE = """<!doctype html><title>No notifications</title><body>
<script src="static/session.js"></script>
<script>
  window.ran = [];
  const app = {
    commands: {
      hasCommand: id => id === 'docmanager:save-all',
      execute: async id => window.ran.push(id),
      addCommand: (id, { execute }) => { window.keep = execute; }
    },
    serviceManager: { serverSettings: (window.settings = { baseUrl: location.href, fetch: window.fetch }) },
    restored: Promise.resolve()
  };
  _JUPYTERLAB.snowyspawner.init({});
  _JUPYTERLAB.snowyspawner.get('./extension').then(factory => factory().default.activate(app, null));
</script>"""


class Node:
    """A server with the extension and session.json, and with a clock of its own."""

    def __init__(self) -> None:
        self.now = BEGIN
        self.facts = {"end": BEGIN + 3600, "warn": 600, "notice": 0}
        self.asked = 0
        node = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = {
                    "/": PAGE,
                    "/static/session.js": (share_dir() / "labextension" / "session.js").read_text(),
                    "/static/session.json": json.dumps(node.facts),
                }.get(self.path, "")
                node.asked += self.path.endswith(".json")
                data = content.encode()
                self.send_response(200 if content else 404)
                kind = {"/": "text/html", "/static/session.js": "text/javascript"}.get(self.path, "application/json")
                self.send_header("Content-Type", f"{kind}; charset=utf-8")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def date_time_string(self, timestamp: float | None = None) -> str:
                return formatdate(node.now, usegmt=True)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def node() -> Iterator[Node]:
    node = Node()
    yield node
    node.close()


@pytest.fixture
def passing(page: Page, node: Node) -> Callable[[int], Awaitable[None]]:
    """Let seconds pass, on the node and in the browser."""

    async def forward(seconds: int) -> None:
        node.now += seconds
        await page.clock.fast_forward(seconds * 1000)

    return forward


async def arrive(page: Page, node: Node, wrong: int = 0) -> None:
    """Open the page, in a browser whose clock is *wrong* seconds ahead, and wait until it knows the end."""
    await page.clock.install(time=node.now + wrong)
    await page.goto(node.url)
    for _ in range(100):
        if node.asked:
            break
        await page.wait_for_timeout(50)
    assert node.asked


def said(page: Page, when: str) -> Any:
    words = re.compile(rf"^This session ends at \d\d:\d\d \(in {when}\)\. Save your work\.$")
    return page.get_by_role("alert").get_by_text(words)


@pytest.mark.parametrize("wrong", [0, 4000, -86400], ids=["right", "ahead", "behind"])
async def test_it_warns_twice_whatever_the_clock_of_the_laptop_says(
    page: Page, node: Node, passing: Callable[[int], Awaitable[None]], wrong: int
) -> None:
    await arrive(page, node, wrong)
    await passing(2990)
    await expect(page.get_by_role("alert")).to_have_count(0)
    await passing(15)
    await expect(said(page, "10 minutes")).to_be_visible()
    await page.get_by_role("button", name="Save all").click()
    assert await page.evaluate("window.ran") == ["docmanager:save-all"]
    await expect(page.get_by_role("alert")).to_have_count(0)
    await passing(400)
    await page.wait_for_timeout(300)
    await expect(page.get_by_role("alert")).to_have_count(0)
    await passing(80)
    await expect(said(page, "2 minutes")).to_be_visible()
    await page.get_by_role("button", name="Close").click()
    await expect(page.get_by_role("alert")).to_have_count(0)


async def test_an_end_put_off_takes_the_warning_back_and_a_nearer_one_says_so_again(
    page: Page, node: Node, passing: Callable[[int], Awaitable[None]]
) -> None:
    node.facts["end"] = BEGIN + 500
    await arrive(page, node)
    await expect(said(page, "8 minutes")).to_be_visible()
    node.facts["end"] = BEGIN + 3600
    await passing(35)
    await expect(page.get_by_role("alert")).to_have_count(0)
    node.facts["end"] = BEGIN + 490
    await passing(35)
    await expect(said(page, "7 minutes")).to_be_visible()
    # A second change, while it warns already.
    node.facts["end"] = BEGIN + 300
    await passing(35)
    await expect(said(page, "3 minutes")).to_be_visible()
    await expect(page.get_by_role("alert")).to_have_count(1)


async def test_a_signal_is_said_once(page: Page, node: Node, passing: Callable[[int], Awaitable[None]]) -> None:
    node.facts["notice"] = BEGIN - 100  # before this page was opened
    await arrive(page, node)
    await passing(35)
    await page.wait_for_timeout(300)
    await expect(page.get_by_role("alert")).to_have_count(0)
    # Slurm's, as early as it may be.
    node.facts.update(end=node.now + 660, notice=node.now)
    await passing(35)
    await expect(said(page, "10 minutes")).to_be_visible()
    await page.get_by_role("button", name="Close").click()
    await passing(60)  # when the warning would have been due
    await page.wait_for_timeout(300)
    await expect(page.get_by_role("alert")).to_have_count(0)


@pytest.mark.parametrize("silent", [False, True], ids=["away", "silent"])
async def test_a_server_that_is_away_keeps_nobody_from_being_warned(
    page: Page, node: Node, passing: Callable[[int], Awaitable[None]], silent: bool
) -> None:
    async def fail(route: Route) -> None:
        if not silent:
            await route.abort()

    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    await arrive(page, node)
    await passing(10)
    await page.route("**/session.json", fail)
    await passing(3000)
    await page.wait_for_timeout(300)
    await passing(15)
    await expect(said(page, "10 minutes")).to_be_visible()
    assert problems == []


async def test_without_a_warning_or_an_end_nothing_is_said(
    page: Page, node: Node, passing: Callable[[int], Awaitable[None]]
) -> None:
    node.facts = {"end": 0, "warn": 600, "notice": 0}
    await arrive(page, node)
    await passing(35)
    node.facts = {"end": node.now + 20, "warn": 0, "notice": 0}
    await passing(35)
    await page.wait_for_timeout(300)
    await expect(page.get_by_role("alert")).to_have_count(0)


def test_launcher_and_extension_agree_on_their_times() -> None:
    script = (share_dir() / "labextension" / "session.js").read_text()
    assert f"LAST_WARNING = {end_warning.LAST_WARNING};" in script
    assert f"EARLY = {end_warning.EARLY};" in script


# -- what the session uses ---------------------------------------------------------------------------------------------

# A status bar as JupyterLab's plugins meet it.
WITH_BAR = PAGE.replace(
    "init({})",
    """init({
    '@jupyterlab/statusbar': { '4.0.0': { get: async () => () => ({ IStatusBar: 'bar' }) } },
    '@lumino/widgets': {
      '2.0.0': { get: async () => () => ({ Widget: class { constructor({ node }) { this.node = node; } } }) }
    }
  })""",
).replace(
    "activate(app, null)", "activate(app, { registerStatusItem: (id, { item }) => document.body.append(item.node) })"
)
USAGE = {
    "seconds": 3120,
    "cores": 1.24,
    "memory": 2900,
    "memory_peak": 3120,
    "gpu_busy": 6.4,
    "gpu_memory": 15360,
    "gpu_memory_peak": 1400,
    "curve": {"step": 30, "cores": [0, None, 2, 8], "memory": [0, 16000, 32000, 32000], "gpu_busy": [0, 100, 50, None]},
    "now": {"cores": 2.04, "memory": 2900, "gpu_busy": 57.2},
    "had": {"cores": 4, "memory": 32000},
}


async def with_bar(page: Page, node: Node, usage: Any) -> Any:
    node.facts["usage"] = usage
    await page.route(node.url, lambda route: route.fulfill(body=WITH_BAR, content_type="text/html"))
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "warning" else None)
    await arrive(page, node)
    return problems


async def test_what_the_session_uses_is_in_the_status_bar(
    page: Page, node: Node, passing: Callable[[int], Awaitable[None]]
) -> None:
    problems = await with_bar(page, node, None)
    meter = page.locator(".snowyspawner-usage")
    await expect(meter).to_be_hidden()  # nothing is known yet
    node.facts["usage"] = USAGE
    await passing(35)
    await expect(meter).to_have_text("CPU 2/4 · 2.9 GB · GPU 57 %")
    await meter.click()
    curves = page.get_by_role("dialog", name="What this session uses")
    await expect(curves.locator("p")).to_have_text(
        [
            "CPU: 2 of 4 cores now, 1.2 on average",
            "Memory: 2.9 of 32 GB now, 3.1 at most",
            "GPU: 57 % now, 6.4 on average",
            "In 52 minutes",
        ]
    )
    paths = [await path.get_attribute("d") for path in await curves.locator("path").all()]
    assert paths == [
        "M0 35H60M120 18H180L180 1H240",
        "M0 35H60L60 18H120L120 1H180L180 1H240",
        "M0 35H60L60 1H120L120 18H180",
    ]
    # It stays open while it changes.
    node.facts["usage"] = {**USAGE, "now": {"cores": 3.96, "memory": 12000, "gpu_busy": 0}}
    await passing(35)
    await expect(curves.get_by_text("CPU: 4 of 4 cores now")).to_be_visible()
    await expect(meter).to_have_text("CPU 4/4 · 12 GB · GPU 0 %")
    assert problems == []


@pytest.mark.parametrize(
    ("now", "shown"),
    [
        ({"cores": 0.02, "memory": 90}, "CPU 0/4 · 0.1 GB"),
        ({"memory": 90}, "0.1 GB"),
        ({"cores": 15.7}, "CPU 16/4"),
        ({}, ""),
    ],
)
async def test_what_is_not_known_is_left_out(page: Page, node: Node, now: dict[str, float], shown: str) -> None:
    problems = await with_bar(page, node, {"seconds": 40, "now": now, "had": USAGE["had"]})
    meter = page.locator(".snowyspawner-usage")
    if shown:
        await expect(meter).to_have_text(shown)
        await meter.click()
        await expect(page.get_by_role("dialog").locator("p")).to_have_count(shown.count("·") + 2)
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("dialog")).to_have_count(0)
    else:
        await expect(meter).to_be_hidden()
    assert problems == []


# -- a session that nobody uses ----------------------------------------------------------------------------------------


async def test_a_session_that_nobody_uses_is_warned_of_and_kept(
    page: Page, node: Node, passing: Callable[[int], Awaitable[None]]
) -> None:
    """Beside the warning of the end, and until it is used again."""
    node.facts["warn"] = 0
    await with_bar(page, node, {**USAGE, "unused_end": 0})
    await passing(35)
    await expect(page.get_by_role("alert")).to_have_count(0)
    node.facts["usage"] = {**USAGE, "unused_end": node.now + 600}
    await passing(35)
    words = re.compile(r"^Nobody uses this session, and it computes nothing: it ends at \d\d:\d\d, so that others can")
    told = page.get_by_role("alert").get_by_text(words)
    await expect(told).to_be_visible()
    # Once, though its end is known to the second only.
    await page.get_by_role("button", name="Keep it").click()
    assert await page.evaluate("window.ran") == ["snowyspawner:keep"]
    node.facts["usage"]["unused_end"] += 2
    await passing(35)
    await page.wait_for_timeout(300)
    await expect(page.get_by_role("alert")).to_have_count(0)
    # Another period passes.
    node.facts["usage"]["unused_end"] += 1800
    await passing(35)
    await expect(told).to_be_visible()
    node.facts["usage"]["unused_end"] = 0
    await passing(35)
    await expect(page.get_by_role("alert")).to_have_count(0)


async def test_what_the_page_asks_by_itself_is_no_use_of_the_session(page: Page, node: Node) -> None:
    """GETs are marked, as jupyter_server's documentation says; what somebody does (save, run) is not."""
    await arrive(page, node)
    asked: list[str] = []
    sent: list[str | None] = []
    await page.route("**/api/**", lambda route: route.fulfill(json={}))
    page.on("request", lambda request: sent.append(request.post_data))
    page.on("request", lambda request: asked.append(f"{request.method} {request.url.removeprefix(node.url)}"))
    await page.evaluate(
        """async () => {
          const send = (path, more) => window.settings.fetch(new Request(new URL(path, location.href), more));
          await send('api/kernels?1234');
          await send('api/contents/a%20b?type=file&content=1');
          await send('api/contents/a', { method: 'PUT', body: '{}' });
          await send('lab/api/workspaces/default', { method: 'PUT', body: '{"a": 1}' });
          await send('api/kernels', { method: 'POST', body: '{}' });
          await window.keep();
        }"""
    )
    assert asked == [
        "GET api/kernels?1234=&no_track_activity=1",
        "GET api/contents/a%20b?type=file&content=1&no_track_activity=1",
        "PUT api/contents/a",
        "PUT lab/api/workspaces/default?no_track_activity=1",
        "POST api/kernels",
        "GET api/kernels",
    ]
    assert sent == [None, None, "{}", '{"a": 1}', "{}", None]
