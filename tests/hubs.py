"""A real hub as a process, and what a test asks of it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import aiohttp

from demo.daemons import MARK

from . import preloaded

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "tests" / "hub_config.py"


ASKS_EVERY = 0.2  # seconds: each question takes the hub some milliseconds, and many tests ask at the same time


async def until(
    condition: Callable[[], Any] | Callable[[], Awaitable[Any]], seconds: float, what: str, every: float = ASKS_EVERY
) -> Any:
    """Wait until *condition* gives something true, and return that; fail with *what* after *seconds*."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}; last seen: {value!r}")
        await asyncio.sleep(every)


class Hub:
    """One hub on the miniature cluster, started from tests/hub_config.py."""

    preloaded = True  # see preloaded.py

    def __init__(self, cluster: Any, directory: Path, config: Path = CONFIG) -> None:
        self.cluster, self.directory, self.config = cluster, directory, config
        self.token = secrets.token_hex(16)
        self.log_path = directory / "hub.log"
        self.process: subprocess.Popen[bytes] | preloaded.Process | None = None
        self.session: aiohttp.ClientSession | None = None
        self.url = ""
        self.measured = False  # what is measured is a hub as people have it, not forked from one that is loaded
        self.covered = False  # under coverage a hub takes half as much again

    async def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        # Jobs look for images in it, whatever the umask of the run.
        self.directory.chmod(0o755)
        with open(self.log_path, "ab") as log:
            self.process = self._process(log.fileno())
        self.session = self.session or aiohttp.ClientSession(
            headers={"Authorization": f"token {self.token}"},
            # The proxy closes a connection that has been idle for 5 s, perhaps just when it is used again.
            connector=aiohttp.TCPConnector(keepalive_timeout=2),
        )
        await until(self._answers, 60, f"the hub's answer; see {self.log_path}")

    def environment(self) -> dict[str, str]:
        """What the hub inherits."""
        ours = {name: value for name, value in os.environ.items() if self.covered or not name.startswith("COVERAGE_")}
        return {
            **ours,
            **self.cluster.env,
            "SNOWYSPAWNER_DEMO_STATE": str(self.cluster.state),
            "SNOWYSPAWNER_TEST_TOKEN": self.token,
            "SNOWYSPAWNER_TEST_DIRECTORY": str(self.directory),
            # The hub and its proxy end with the cluster, also when the tests were killed.
            MARK: f"{self.cluster.state}:hub",
        }

    @property
    def own(self) -> str:
        """The hub's own address, without its proxy."""
        return (self.directory / "own").read_text()

    @property
    def command(self) -> list[str]:
        """What starts the hub."""
        return [sys.executable, "-m", "jupyterhub", *self.arguments]

    @property
    def arguments(self) -> list[str]:
        """What follows ``jupyterhub``."""
        return ["-f", str(self.config)]

    def _process(self, log: int) -> subprocess.Popen[bytes] | preloaded.Process:
        env = self.environment()
        # LD_PRELOAD is read when a process starts; a forked one would be without the library.
        if self.preloaded and not self.measured and "LD_PRELOAD" not in env:
            return preloaded.start_hub(self.arguments, env, self.directory, log)
        return subprocess.Popen(
            self.command,
            env=env,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _published(self) -> str:
        assert self.process is not None
        assert self.process.poll() is None, self.log_path.read_text()[-4000:]
        path = self.directory / "url"
        return path.read_text().strip() if path.exists() else ""

    async def _answers(self) -> bool:
        """Whether this hub answers, and no other: only this one knows our token.

        While its configuration is read, the file may still name the hub whose configuration it is laid over.
        """
        self.url = self._published()
        assert self.session is not None
        try:
            async with self.session.get(f"{self.url}/hub/api/users?limit=1") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    async def stop(self, how: int = signal.SIGTERM) -> None:
        """End the hub process. Its jobs live on."""
        assert self.process is not None
        self.process.send_signal(how)
        try:
            await asyncio.to_thread(self.process.wait, 30)
        except subprocess.TimeoutExpired:
            # One that hangs would spoil the tests after this one.
            self.process.kill()
            await asyncio.to_thread(self.process.wait, 10)
            raise AssertionError(f"the hub does not end; see {self.log_path}") from None
        finally:
            if self.session and how != signal.SIGKILL:
                await self.session.close()
                self.session = None

    def log(self) -> str:
        return self.log_path.read_text()

    async def call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Ask the hub, or a server behind its proxy; return status and answer (JSON if it is).

        We may do everything; *headers* may say that it is somebody else who asks.
        """
        assert self.session is not None
        data = None if body is None else json.dumps(body)
        # Tests ask much, and the proxy is a program of its own on the same two cores.
        url = (self.own if path.startswith("/hub/api/") else self.url) + path
        async with self.session.request(method, url, data=data, headers=headers) as answer:
            text = await answer.text()
            try:
                return answer.status, json.loads(text)
            except ValueError:
                return answer.status, text

    async def forget(self, user: str) -> None:
        """Let the hub know nothing of a person but the name: no server, no state, no token."""
        _, model = await self.call("GET", f"/hub/api/users/{user}")
        status, answer = await self.call("DELETE", f"/hub/api/users/{user}")
        assert status == 204, answer
        status, answer = await self.call("POST", f"/hub/api/users/{user}")
        assert status == 201, answer
        for group in model["groups"]:
            status, answer = await self.call("POST", f"/hub/api/groups/{group}/users", {"users": [user]})
            assert status == 200, answer

    # -- servers -----------------------------------------------------------------------------------------------

    async def submit(self, user: str, options: Any = None, server: str = "") -> tuple[int, Any]:
        """Ask for a server with these options; return the hub's answer."""
        await self.call("POST", f"/hub/api/users/{user}")
        return await self.call("POST", self._path(user, server), {"user_options": options or {}})

    async def serve(self, user: str, options: Any = None, server: str = "", seconds: float = 90) -> dict[str, Any]:
        """Start a server and wait until it is ready; return its state."""
        status, answer = await self.submit(user, options, server)
        assert status in (201, 202), (status, answer)
        await until(lambda: self._ready(user, server), seconds, f"{user}'s server {server!r}; see {self.log_path}")
        return await self.state(user, server)

    async def resume(self, user: str, server: str = "") -> tuple[int, Any]:
        """Go on with the job that waits for this server, whatever it asks for; return the hub's answer."""
        return await self.call("POST", self._path(user, server), {"user_options": None})

    def said_of(self, user: str, server: str, lines: int = 40) -> str:
        """Return the last lines of the hub's log about a server: a worker's cluster is gone when somebody looks."""
        about = [line for line in self.log().splitlines() if f"{user}:{server}" in line or f"/{user}/" in line]
        return "\n".join(line for line in about if " 200 GET /hub/api/users/" not in line)[-lines * 200 :]

    async def _ready(self, user: str, server: str) -> bool:
        model = await self.model(user, server)
        if model is None or (not model["ready"] and model["pending"] is None):
            raise AssertionError(f"{user}'s server {server!r} failed:\n" + self.log()[-3000:])
        return bool(model["ready"])

    async def model(self, user: str, server: str = "") -> dict[str, Any] | None:
        _, answer = await self.call("GET", f"/hub/api/users/{user}?include_stopped_servers")
        found: dict[str, Any] | None = answer["servers"].get(server)
        return found

    async def state(self, user: str, server: str = "") -> dict[str, Any]:
        """Return what the spawner has stored."""
        model = await self.model(user, server)
        return (model or {}).get("state") or {}

    async def job(self, user: str, server: str = "", seconds: float = 20) -> dict[str, Any]:
        """Return the server's job as the spawner has stored it, once Slurm has given it a number."""

        async def submitted() -> Any:
            job = (await self.state(user, server)).get("job")
            return job if job and job["job_id"] else None

        return await until(submitted, seconds, f"a job of {user}'s server {server!r}; see {self.log_path}")

    async def end(self, user: str, server: str = "") -> None:
        """Stop a server and wait until it has stopped."""
        await self.end_each([(user, server)])

    async def end_each(self, servers: Iterable[tuple[str, str]]) -> None:
        """Stop these servers (user, name), some at a time, and wait until all have stopped.

        One look at each person: if every server were asked for by itself, the hub would be busy with answering, and
        not get to what it is to stop.
        """
        left, slots = set(servers), asyncio.Semaphore(8)

        async def delete(user: str, server: str) -> None:
            async with slots:
                await self.call("DELETE", self._path(user, server))

        await asyncio.gather(*(delete(*server) for server in left))

        async def gone() -> bool:
            for user in {user for user, _ in left}:
                _, answer = await self.call("GET", f"/hub/api/users/{user}?include_stopped_servers")
                alive = {(user, name) for name, model in answer["servers"].items() if not model["stopped"]}
                left.difference_update({server for server in left if server[0] == user} - alive)
            return not left

        try:
            await until(gone, 60, "the end of every server")
        except AssertionError as error:
            raise AssertionError(f"{error}; left: {sorted(left)}; see {self.log_path}") from None

    async def failure(self, user: str, options: Any, server: str = "", seconds: float = 60) -> str:
        """Ask for a server and wait until its start has failed; return the message that the person sees."""
        status, answer = await self.submit(user, options, server)
        if status >= 400:
            return str(answer["message"])
        # While JupyterHub tidies up after a failure, the progress is refused ("is not starting").
        return await until(lambda: self._failed(user, server, seconds), seconds, "the failure's message")

    async def _failed(self, user: str, server: str, seconds: float) -> str:
        assert self.session is not None
        url = f"{self.url}{self._path(user, server)}/progress"
        async with self.session.get(url, timeout=aiohttp.ClientTimeout(total=seconds)) as answer:
            async for line in answer.content:
                if line.startswith(b"data: "):
                    event = json.loads(line[6:])
                    if event.get("failed"):
                        return str(event["message"]) + "\n" + event.get("html_message", "")
                    assert not event.get("ready"), "it started"
        return ""

    def _path(self, user: str, server: str) -> str:
        return f"/hub/api/users/{user}/server" + (f"s/{server}" if server else "")

    # -- in the session ----------------------------------------------------------------------------------------

    async def run(self, user: str, code: str, server: str = "", seconds: float = 60) -> str:
        """Run *code* in a new kernel of the server; return what it printed."""
        assert self.session is not None
        base = f"/user/{user}/" + (f"{server}/" if server else "")
        status, kernel = await self.call("POST", f"{base}api/kernels", {"name": "python3"})
        assert status == 201, (status, kernel)
        url = f"{self.url}{base}api/kernels/{kernel['id']}/channels"
        async with self.session.ws_connect(url) as socket:
            await socket.send_json(execute(code))
            output = ""
            async with asyncio.timeout(seconds):
                async for message in socket:
                    if message.type is not aiohttp.WSMsgType.TEXT:
                        continue
                    body = json.loads(message.data)
                    content = body["content"]
                    if body["msg_type"] == "stream":
                        output += content["text"]
                    elif body["msg_type"] == "error":
                        raise AssertionError("\n".join(content["traceback"]))
                    elif body["msg_type"] == "execute_reply":
                        # Its output may still be under way, on another channel.
                        await socket.send_json(execute("print(chr(4))"))
                    if "\x04" in output:
                        break
        await self.call("DELETE", f"{base}api/kernels/{kernel['id']}")
        return output.partition("\x04")[0].strip()

    async def job_seen(self, user: str, server: str = "") -> str:
        """Return the number of the job that a terminal of the server is in: it is less work than a kernel."""
        output = await self.in_terminal(user, "echo job=$SLURM_JOB_ID", server)
        found = re.search(r"job=(\d+)", output)
        assert found, output
        return found[1]

    async def in_terminal(self, user: str, command: str, server: str = "", seconds: float = 30) -> str:
        """Type *command* into a new terminal of the server; return what came back."""
        assert self.session is not None
        base = f"/user/{user}/" + (f"{server}/" if server else "")
        status, terminal = await self.call("POST", f"{base}api/terminals")
        assert status == 200, (status, terminal)
        url = f"{self.url}{base}terminals/websocket/{terminal['name']}"
        output = ""
        async with self.session.ws_connect(url) as socket, asyncio.timeout(seconds):
            # The mark is put together by the shell, so that the echo of what was typed is not taken for it.
            await socket.send_json(["stdin", f"{command}; printf 'EN''D\\n'\r"])
            async for message in socket:
                kind, *parts = json.loads(message.data)
                if kind == "stdout":
                    output += parts[0]
                if "END" in output:
                    break
        await self.call("DELETE", f"{base}api/terminals/{terminal['name']}")
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output)


def execute(code: str) -> dict[str, Any]:
    """Return the message that lets a kernel run *code*."""
    header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "username": "", "session": uuid.uuid4().hex}
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    return {
        "header": {**header, "version": "5.3", "date": ""},
        "parent_header": {},
        "metadata": {},
        "content": content,
        "channel": "shell",
        "buffers": [],
    }
