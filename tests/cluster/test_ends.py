"""How a session ends, or does not begin: the cause is known within a tick of the watcher, and a stop is quick."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import shutil
import signal
import socket
import statistics
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.commands import open_umask

from ..faults import FaultHub, node_is_idle, ready, stopped
from ..hubs import until
from .test_kills import jobs, phase
from .test_session import queued
from .test_slurm_away import ONE, end_all, later, said

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

# A server whose SIGTERM goes nowhere, whatever Jupyter does to handle it.
DEAF = """#!/opt/conda/envs/tf-mkl/bin/python
import signal
real, deaf = signal.signal, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
signal.signal = lambda number, handler: real(number, signal.SIG_IGN if number in deaf else handler)
for number in deaf:
    real(number, signal.SIG_IGN)
from jupyterhub.singleuser import main
main()
"""
# From one look at a young job to the next (2 s and a tenth), and what squeue and sacct take.
TICK = 4.0


@pytest.fixture(scope="module")
async def shared(cluster: Any) -> AsyncIterator[FaultHub]:
    directory = cluster.state / "fault-hub"
    made = FaultHub(
        cluster,
        directory,
        {
            "memory_free": True,
            "images": {"bound.sif": {"path": str(cluster.image), "binds": [str(directory)]}},
            "environments": {"deaf": {"kind": "prefix", "prefix": f"{directory}/deaf"}},
        },
    )
    with open_umask():
        (directory / "deaf" / "bin").mkdir(parents=True)
        (directory / "deaf" / "bin" / "jupyterhub-singleuser").write_text(DEAF)
        (directory / "deaf" / "bin" / "jupyterhub-singleuser").chmod(0o755)
    await made.start()
    for name in cluster.users:
        await made.call("POST", f"/hub/api/users/{name}")
    yield made
    await made.stop()


@pytest.fixture
async def faulty(shared: FaultHub, users: list[str]) -> AsyncIterator[FaultHub]:
    """The module's hub, given back without faults and without servers."""
    yield shared
    shared.mend()
    await end_all(shared, users)


class Operator:
    """What somebody with root does to jobs and nodes of the cluster."""

    def __init__(self, slurm: Any, cluster: Any) -> None:
        self.slurm, self.name = slurm, cluster.site.cluster

    def cancel(self, job_id: str, *how: str) -> None:
        self.slurm("scancel", "-M", self.name, *how, job_id)

    def control(self, *words: str, check: bool = True) -> None:
        self.slurm("scontrol", "-M", self.name, *words, check=check)

    def requeue_and_hold(self, job_id: str) -> None:
        self.control("update", f"JobId={job_id}", "Requeue=1")
        self.control("requeuehold", job_id)

    def node(self, name: str, state: str) -> None:
        self.control("update", f"NodeName={name}", f"State={state}", "Reason=test", check=state != "RESUME")

    async def mend(self, name: str) -> None:
        """Bring a node up again."""
        self.node(name, "RESUME")
        await node_is_idle(self.slurm, self.name, name)


@pytest.fixture
def operator(slurm: Any, cluster: Any) -> Operator:
    return Operator(slurm, cluster)


def processes(job_id: str, word: str = "") -> dict[int, dict[str, str]]:
    """The processes of a job with *word* in their command line, and what they were started with."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "environ").read_bytes().decode(errors="replace").split("\0")
            command = (path / "cmdline").read_bytes().decode(errors="replace")
        except OSError:  # it has ended meanwhile
            continue
        env = dict(entry.split("=", 1) for entry in words if "=" in entry)
        if env.get("SLURM_JOB_ID") == job_id and word in command:
            found[int(path.name)] = env
    return found


# -- why it ended ------------------------------------------------------------------------------------------------


async def test_the_cause_of_a_session_s_end_is_known_within_a_tick(
    faulty: FaultHub, users: list[str], operator: Operator, cluster: Any, figure: Any
) -> None:
    """Cancelled by root and by the person, out of time and of memory, requeued and held, its node down."""
    name, times = users[0], {}
    options: dict[str, Any] = dict.fromkeys(("time", "root", "person", "memory", "requeue"), ONE)
    options |= {"time": {**ONE, "time": "0:01:00"}, "memory": {**ONE, "memory": 600}}
    # On a node of its own, as all jobs of a node end with it.
    options["node"] = {**ONE, "gpu": "t4:1", "cores": 16}
    for server, choice in options.items():
        await faulty.submit(name, choice, server)
    found = {}
    for server in options:
        await ready(faulty, name, server, 120)
        found[server] = await faulty.job(name, server)

    async def ends(server: str, act: Callable[[], Any], seconds: float = TICK) -> dict[str, Any]:
        began = time.monotonic()
        act()
        last = await stopped(faulty, name, server, seconds)
        times[server] = round(time.monotonic() - began, 1)
        assert (last["job_id"], last["stopped"], last["reason"]) == (found[server]["job_id"], False, "")
        assert last["node"] == found[server]["node"]
        return last

    by_root = await ends("root", lambda: operator.cancel(found["root"]["job_id"]))
    assert (by_root["state"], by_root["by"]) == ("CANCELLED", "root")
    as_person = ["setpriv", "--reuid", str(pwd.getpwnam(name).pw_uid), "--clear-groups", "--"]
    scancel = [*as_person, shutil.which("scancel"), "-M", cluster.site.cluster, found["person"]["job_id"]]
    env = {**os.environ, **cluster.env}
    by_person = await ends("person", lambda: subprocess.run(scancel, env=env, check=True))
    assert (by_person["state"], by_person["by"]) == ("CANCELLED", name)
    requeued = await ends("requeue", lambda: operator.requeue_and_hold(found["requeue"]["job_id"]))
    assert requeued["state"] == "REQUEUED"
    # It would begin again some day, and nobody would wait for it.
    assert found["requeue"]["job_id"] not in queued(operator.slurm, cluster, name)
    node = found["node"]["node"]
    try:
        assert (await ends("node", lambda: operator.node(node, "DOWN")))["state"] == "NODE_FAIL"
    finally:
        await operator.mend(node)
    # It ends before the cell could answer. Slurm looks at the memory every 2 s (JobAcctGatherFrequency).
    cell = asyncio.create_task(faulty.run(name, "x = bytearray(900_000_000); import time; time.sleep(60)", "memory"))
    memory = await ends("memory", lambda: None, 30)
    cell.cancel()
    await asyncio.gather(cell, return_exceptions=True)
    # Without cgroups, as here, Slurm does not call it OUT_OF_MEMORY.
    assert memory["state"] in ("OUT_OF_MEMORY", "FAILED"), memory
    assert memory["signal"] == 9 or memory["state"] == "OUT_OF_MEMORY", memory
    # Slurm looks every 30 s whose time is up.
    timeout = await stopped(faulty, name, "time", 120)
    assert timeout["state"] == "TIMEOUT"
    assert 55 < timeout["ended_at"] - timeout["begun_at"] < 110
    figure(f"seconds until the hub knew of an end: {times}")


async def test_the_cause_of_a_start_s_end_is_said_within_a_tick(
    faulty: FaultHub, users: list[str], operator: Operator
) -> None:
    """Of starts that wait, and of starts whose server is not up yet."""
    name, later_ = users[0], {**ONE, "begin": later(faulty.cluster, 3600)}
    states: list[str] = []

    async def fails(server: str, choice: dict[str, Any], act: Callable[[dict[str, Any]], Any], until_: str) -> str:
        said_ = asyncio.create_task(faulty.failure(name, choice, server))
        await phase(faulty, name, server, until_)
        job = await faulty.job(name, server)
        began = time.monotonic()
        act(job)
        message = await said_
        assert time.monotonic() - began < 5, (server, time.monotonic() - began)
        last = (await faulty.state(name, server))["last"] or {}
        assert last.get("reason") in ("ended", "launch"), last
        assert not last["stopped"]
        states.append(last["state"])
        return message

    message = await fails("waits", later_, lambda job: operator.cancel(job["job_id"]), "pending")
    assert "The job was cancelled by root." in message
    message = await fails("launches", ONE, lambda job: operator.cancel(job["job_id"]), "launching")
    assert "The job was cancelled by root." in message
    message = await fails("requeued", ONE, lambda job: operator.requeue_and_hold(job["job_id"]), "launching")
    assert "Slurm has put the job back into the queue: what ran in it is gone." in message

    def kill_launcher(job: dict[str, Any]) -> None:
        # What it is about to start looks like it for a moment, and is younger.
        os.kill(min(processes(job["job_id"], "/dev/fd/3")), signal.SIGKILL)

    message = await fails("killed", ONE, kill_launcher, "launching")
    assert "The server was killed." in message
    nodes: list[str] = []

    def node_down(job: dict[str, Any]) -> None:
        nodes.append(job["node"])
        operator.node(job["node"], "DOWN")

    try:
        message = await fails("node", ONE, node_down, "launching")
    finally:
        for node in nodes:
            await operator.mend(node)
    assert "The node failed." in message
    assert states == ["CANCELLED", "CANCELLED", "REQUEUED", "FAILED", "NODE_FAIL"]


async def test_a_start_that_is_held_waits_and_says_so(faulty: FaultHub, users: list[str], operator: Operator) -> None:
    name = users[0]
    await faulty.submit(name, {**ONE, "begin": later(faulty.cluster, 3600)}, "held")
    job = await faulty.job(name, "held")
    operator.control("hold", job["job_id"])
    event = await said(faulty, name, "held", "An administrator holds your job.", TICK)
    assert (event["snowy"]["state"], event["snowy"]["reason"]) == ("PENDING", "JobHeldAdmin")
    operator.control("update", f"JobId={job['job_id']}", "StartTime=now")
    operator.control("release", job["job_id"])
    await ready(faulty, name, "held")
    assert await faulty.job_seen(name, "held") == job["job_id"]


async def test_a_port_that_somebody_takes_first_costs_nothing_but_another_one(
    faulty: FaultHub, users: list[str]
) -> None:
    """Taken between the launcher's choice and the server's bind, by somebody else's process."""
    name = users[0]
    await faulty.submit(name, ONE)
    job = await faulty.job(name)
    url = re.compile(r"http://127\.0\.0\.1:(\d+)/")

    def chosen() -> int:
        found = [url.match(env.get("JUPYTERHUB_SERVICE_URL", "")) for env in processes(job["job_id"]).values()]
        return next((int(match[1]) for match in found if match), 0)

    port = await until(chosen, 30, "the launcher's choice", 0.01)
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", port))
        thief.listen()
        await ready(faulty, name)
    job = await faulty.job(name)
    assert job["port"] != port
    log = Path(f"~{name}/.snowyspawner-{job['job_id']}.log").expanduser().read_text()
    assert f"port {port} was taken by somebody else, trying another" in log
    assert await faulty.job_seen(name) == job["job_id"]


# -- stop --------------------------------------------------------------------------------------------------------


@pytest.mark.alone
async def test_a_stop_with_kernels_running_is_quick(
    faulty: FaultHub, users: list[str], cluster: Any, slurm: Any, figure: Any
) -> None:
    """Seven times; the next start follows at once, in a partition that takes one job of a person's at a time."""
    name, seconds = users[0], []
    for _ in range(7):
        state = await faulty.serve(name, {**ONE, "partition": "devcore"})
        for _ in range(2):
            status, _ = await faulty.call("POST", f"/user/{name}/api/kernels", {"name": "python3"})
            assert status == 201
        assert await faulty.run(name, "print(1)") == "1"
        began = time.monotonic()
        status, _ = await faulty.call("DELETE", faulty._path(name, ""))
        seconds.append(round(time.monotonic() - began, 2))
        assert status == 204
        assert queued(slurm, cluster, name) == []
        last = (await faulty.state(name))["last"]
        assert (last["stopped"], last["exit_code"]) == (True, 0)
        log = Path(f"~{name}/.snowyspawner-{state['job']['job_id']}.log").expanduser().read_text()
        # In order: the kernels were asked, and the server came to its end.
        assert "Shutting down 2 kernels" in log
        assert "the server ended with exit code 0" in log
    figure(f"seconds of a stop with kernels running: {sorted(seconds)}")
    assert statistics.median(seconds) < 1.5, seconds


async def test_a_server_that_does_not_listen_is_ended_all_the_same(
    faulty: FaultHub, users: list[str], cluster: Any, slurm: Any, figure: Any
) -> None:
    """SIGTERM goes nowhere: after the grace of 10 s the job is cancelled, and Slurm kills what is left of it."""
    name = users[0]
    state = await faulty.serve(name, {**ONE, "environment": "deaf", "image": "bound.sif"})
    job_id = state["job"]["job_id"]
    began = time.monotonic()
    await faulty.call("DELETE", faulty._path(name, ""))
    last = await stopped(faulty, name)
    took = time.monotonic() - began
    figure(f"a server that does not listen was stopped after {took:.1f} s")
    assert last["stopped"]
    assert 10 < took < 17
    assert queued(slurm, cluster, name) == []
    # KillWait is 10 s.
    await until(lambda: not processes(job_id), 20, f"nothing of it is left; {processes(job_id).keys()}")


async def test_stopping_a_job_that_is_gone_is_a_success(
    faulty: FaultHub, users: list[str], operator: Operator, cluster: Any
) -> None:
    """Killed without a word while the hub could not look."""
    name = users[0]
    job_id = (await faulty.serve(name, ONE))["job"]["job_id"]
    faulty.fault("squeue", "exit 1")
    operator.cancel(job_id, "--signal=KILL", "--full")
    await until(lambda: job_id not in jobs(operator.slurm, cluster, name).values(), 20, "the job is gone")
    assert (await faulty.model(name))["ready"]
    faulty.mend()
    began = time.monotonic()
    status, _ = await faulty.call("DELETE", faulty._path(name, ""))
    assert status == 204
    assert time.monotonic() - began < 5
    assert (await faulty.model(name))["stopped"]


def run(*argv: Any, check: bool = True) -> None:
    subprocess.run([str(word) for word in argv], capture_output=True, check=check, timeout=60)


@pytest.fixture
def extra(cluster: Any, slurm: Any) -> Iterator[str]:
    """An account that may go away."""
    name = f"{next(iter(cluster.users))[:-1]}gone"
    home = cluster.state / "home" / name
    run("useradd", "--create-home", "--user-group", "--home-dir", home, name)
    slurm("sacctmgr", "-i", "add", "user", name, "account=g2021027", f"cluster={cluster.site.cluster}")
    yield name
    run("userdel", "--force", name, check=False)
    slurm("sacctmgr", "-i", "delete", "user", name, check=False)
    shutil.rmtree(home, ignore_errors=True)


async def test_the_job_of_somebody_whose_account_is_gone_can_be_stopped(
    faulty: FaultHub, extra: str, cluster: Any, slurm: Any
) -> None:
    """The job outlives its person's account, which a root hub does not need to cancel it."""
    job_id = (await faulty.serve(extra, ONE))["job"]["job_id"]
    # By force: its processes run.
    run("userdel", "--force", extra)
    with pytest.raises(KeyError):
        pwd.getpwnam(extra)
    status, answer = await faulty.call("DELETE", faulty._path(extra, ""))
    assert status in (202, 204), answer
    assert (await stopped(faulty, extra))["stopped"]
    states = "PENDING,RUNNING,CONFIGURING,SUSPENDED"
    assert job_id not in slurm("squeue", "-M", cluster.site.cluster, "-h", "-t", states, "-o", "%i").split()
