"""A hub whose Slurm commands can be made to fail, and a Slurm whose daemons can go away."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from demo.commands import open_umask
from demo.daemons import Daemons, stop

from .hubs import Hub, until

COMMANDS = ("sbatch", "scancel", "squeue", "sacct", "sacctmgr", "sinfo", "scontrol")

# The real command, unless the test has put something in its way.
_WRAPPER = """#!/bin/sh
# {name}
[ -x "{fault}" ] && exec "{fault}" "$@"
exec {real} "$@"
"""


def prologue(cluster: Any, more: str) -> dict[str, str]:
    """Return what is laid over the cluster's Site so that jobs also run the shell text *more* first."""
    text = yaml.safe_load((cluster.state / "site.yaml").read_text())["prologue"]
    return {"prologue": f"{text}\n{more}\n"}


class FaultHub(Hub):
    """A hub of its own ports and state, on a PATH whose Slurm commands are wrappers.

    *site* is laid over the cluster's Site, *traits* are SnowySpawner's.
    """

    def __init__(self, cluster: Any, directory: Path, site: dict[str, Any] | None = None, **traits: Any) -> None:
        super().__init__(cluster, directory)
        _end_proxy(directory / "proxy.pid")
        shutil.rmtree(directory, ignore_errors=True)
        self.commands, self.faults = directory / "commands", directory / "faults"
        with open_umask():  # people run what is in them
            for path in (self.commands, self.faults):
                path.mkdir(parents=True)
        for name in COMMANDS:
            wrapper = self.commands / name
            text = _WRAPPER.format(name=name, fault=self.faults / name, real=shutil.which(name))
            wrapper.write_text(text)
            wrapper.chmod(0o755)
        (directory / "over.yaml").write_text(yaml.safe_dump(site or {}))
        (directory / "traits.yaml").write_text(yaml.safe_dump(traits))
        self.config = Path(__file__).parent / "fault_hub_config.py"
        # Added to the hub's environment.
        self.more_env: dict[str, str] = {}

    def lay_over(self, site: dict[str, Any]) -> None:
        """From now on *site* is laid over the cluster's, for people of whom the hub has no Spawner yet."""
        new = self.directory / "laid_over.new"
        new.write_text(yaml.safe_dump({"extends": "site.yaml", **site}))
        new.rename(self.directory / "laid_over.yaml")

    def environment(self) -> dict[str, str]:
        env = super().environment()
        return {**env, "PATH": f"{self.commands}:{env['PATH']}", **self.more_env}

    def fault(self, command: str, script: str) -> None:
        """From now on *command* is this shell script; ``$REAL`` is the real one."""
        path = self.faults / command
        new = path.with_suffix(".new")
        new.write_text(f"#!/bin/bash\nREAL={shutil.which(command)}\n{script}\n")
        new.chmod(0o755)
        new.rename(path)

    def mend(self, command: str = "") -> None:
        """Take the faults away again."""
        for name in [command] if command else COMMANDS:
            (self.faults / name).unlink(missing_ok=True)


def with_smi(cluster: Any, smi: str, site: dict[str, Any] | None = None, **traits: Any) -> FaultHub:
    """Return a hub, not started, whose jobs find *smi*, a shell script, in place of nvidia-smi."""
    directory = cluster.state / "fault-hub"
    path = prologue(cluster, f'export PATH="{directory}/smi:$PATH"')
    made = FaultHub(cluster, directory, {**path, **(site or {})}, **traits)
    with open_umask():
        (directory / "smi").mkdir()
        (directory / "smi" / "nvidia-smi").write_text(smi)
        (directory / "smi" / "nvidia-smi").chmod(0o755)
    return made


# Each of Slurm's commands, with a switch: away (as a controller that does not answer, for as many seconds as the file
# says), or answering what a file says.
_SWITCH = """#!/bin/sh
if [ -e '{directory}/away' ]; then
  sleep "$(cat '{directory}/away')"; echo 'Unable to contact slurm controller' >&2; exit 1
fi
if [ -e '{directory}/{name}.sh' ]; then . '{directory}/{name}.sh'; fi
exec '{real}' "$@"
"""


class SwitchedHub(Hub):
    """A hub whose Slurm commands can be switched, for people without an account here."""

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "PATH": f"{self.directory}/bin:{os.environ['PATH']}"}


@asynccontextmanager
async def switched_hub(
    cluster: Any, site: dict[str, Any] | None = None, measured: bool = False
) -> AsyncIterator[SwitchedHub]:
    """A `SwitchedHub` that runs; *site* is laid over the cluster's."""
    directory: Path = cluster.state / "form-hub"
    shutil.rmtree(directory, ignore_errors=True)
    with open_umask():
        (directory / "bin").mkdir(parents=True)
    for name in ("sinfo", "squeue", "scontrol", "sacctmgr", "sbatch"):
        program = directory / "bin" / name
        real = shutil.which(name, path=cluster.env.get("PATH"))
        program.write_text(_SWITCH.format(directory=directory, name=name, real=real))
        program.chmod(0o755)
    laid_over = {"extends": str(cluster.state / "site.yaml"), **(site or {})}
    (directory / "default.yaml").write_text(yaml.safe_dump(laid_over))
    hub = SwitchedHub(cluster, directory, Path(__file__).parent / "form_hub_config.py")
    hub.measured = measured
    await hub.start()
    try:
        yield hub
    finally:
        (directory / "away").unlink(missing_ok=True)
        await hub.stop()


def _end_proxy(pid_file: Path) -> None:
    """End the proxy of a hub that was killed, which JupyterHub would only do with this file."""
    with suppress(OSError, ValueError):
        pid = int(pid_file.read_text())
        if b"configurable-http-proxy" in Path(f"/proc/{pid}/cmdline").read_bytes():
            stop([pid])


class Slow:
    """How long the hub took to answer each of many questions. Seconds."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    @property
    def worst(self) -> float:
        return max(self.seconds)


@contextmanager
def preferred(*pids: int) -> Iterator[None]:
    """Give these processes the machine's cores first; see sched(7).

    Compute nodes and other tests share two cores with the hub here, and that is not what is measured.
    """
    for pid in pids:
        _prefer(pid, -15)
    try:
        yield
    finally:
        for pid in pids:
            _prefer(pid, 0)


def _prefer(pid: int, nice: int) -> None:
    with suppress(ProcessLookupError):  # it has ended
        os.setpriority(os.PRIO_PROCESS, pid, nice)
    with suppress(OSError):  # a kernel without groups for sessions
        Path(f"/proc/{pid}/autogroup").write_text(str(nice))


@asynccontextmanager
async def sampled(hub: Hub, every: float = 0.05) -> AsyncIterator[Slow]:
    """Ask ``GET /hub/api/`` all the time."""
    slow = Slow()
    assert hub.process is not None

    async def ask() -> None:
        # The hub itself, not its proxy: Node's share of two cores is not what is measured.
        async with aiohttp.ClientSession() as session:
            while True:
                began = time.monotonic()
                async with session.get(f"{hub.own}/hub/api/") as answer:
                    await answer.read()
                slow.seconds.append(time.monotonic() - began)
                await asyncio.sleep(every)

    task = asyncio.create_task(ask())
    try:
        with preferred(hub.process.pid, os.getpid()):
            yield slow
    finally:
        if task.done():
            task.result()
        task.cancel()


@asynccontextmanager
async def away(cluster: Any, *daemons: str) -> AsyncIterator[None]:
    """Without these daemons of the cluster (``slurmctld-snowy``, ``slurmdbd``, ``mariadbd``); then with them again."""
    known = Daemons(cluster.state)
    pids = [known.pid(name) for name in daemons]
    assert all(pids), (daemons, pids, sorted(path.name for path in (cluster.state / "run").glob("*.pid")))
    for pid in pids:
        await asyncio.to_thread(stop, [pid])
    try:
        yield
    finally:
        await asyncio.to_thread(cluster.up)


async def node_is_idle(slurm: Any, cluster: str, node: str) -> None:
    """Wait until a node that was down is up again, and nothing runs on it."""

    def idle() -> bool:
        return str(slurm("sinfo", "-M", cluster, "-hn", node, "-o", "%T")).split()[-1] == "idle"

    try:
        await until(idle, 30, f"node {node} is idle", 0.5)
    except AssertionError as error:
        its = slurm("scontrol", "-M", cluster, "show", "node", node)
        jobs = slurm("squeue", "-M", cluster, "--states=all", "-hw", node, "-o", "%i %j %u %T %r")
        raise AssertionError(f"{error}\n{its}\n{jobs}") from None


async def ready(hub: Hub, user: str, server: str = "", seconds: float = 90) -> None:
    """Wait until a server is ready, however often it is asked for."""

    async def serves() -> bool:
        model = await hub.model(user, server)
        return bool(model and model["ready"])

    try:
        await until(serves, seconds, f"{user}'s server {server!r}; see {hub.log_path}")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{await hub.model(user, server)}\n{hub.said_of(user, server)}") from None


async def stopped(hub: Hub, user: str, server: str = "", seconds: float = 30) -> dict[str, Any]:
    """Wait until a server has stopped; return how it ended."""

    async def gone() -> bool:
        model = await hub.model(user, server)
        return bool(model and model["stopped"])

    await until(gone, seconds, f"the end of {user}'s server {server!r}; see {hub.log_path}")
    return (await hub.state(user, server))["last"]
