"""What a job, or a cluster beside this one, says is not taken for granted: real Slurm decides."""

from __future__ import annotations

import asyncio
import pwd
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from demo.accounts import changes
from snowyspawner.slurm.client import SlurmClient

from ..faults import FaultHub, prologue, ready
from ..hubs import until
from .test_job_api import every_row, post
from .test_session import queued, show_job
from .test_slurm_away import ONE, end_all, later

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def launcher_of(user: str) -> dict[str, str]:
    """Return the environment of the launcher in a job of *user*'s; empty: none runs."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            lines = path.read_bytes().decode(errors="replace").split("\0")
            words = (path.parent / "cmdline").read_bytes().split(b"\0")
            if path.owner() != user or b"/dev/fd/3" not in words:
                continue
        except (OSError, KeyError):
            continue
        return dict(line.split("=", 1) for line in lines if "=" in line)
    return {}


Made = Callable[..., AbstractAsyncContextManager[FaultHub]]


@pytest.fixture(scope="module")
async def shared(cluster: Any) -> AsyncIterator[FaultHub]:
    """One hub for all of these tests: to start one takes longer than most of them."""
    other = FaultHub(cluster, cluster.state / "fault-hub")
    await other.start()
    yield other
    await other.stop()


@pytest.fixture
async def hub_with(cluster: Any, shared: FaultHub, users: list[str]) -> Made:
    """Give the hub a Site whose prologue has more lines, and other keys."""

    @asynccontextmanager
    async def made(more: str = "", **site: Any) -> AsyncIterator[FaultHub]:
        shared.lay_over({**prologue(cluster, more), **site})
        try:
            yield shared
        finally:
            shared.mend()
            await end_all(shared, users)
            for user in users:
                # With its Spawner, which has this Site.
                await shared.call("DELETE", f"/hub/api/users/{user}")

    return made


@pytest.mark.parametrize("node", ["127.0.0.1", "169.254.169.254", "localhost", "no_such_node", "s2"])
async def test_a_job_cannot_lead_the_hub_to_another_host(
    hub_with: Made, users: list[str], cluster: Any, slurm: Any, node: str
) -> None:
    """Its launcher reports another node than Slurm's; the prologue does here what a person may do to their job."""
    async with hub_with(f"export SLURMD_NODENAME={node}") as other:
        before = len(other.log())
        # So that "s2" is another one.
        slurm("scontrol", "-M", cluster.site.cluster, "update", "NodeName=s2", "State=DRAIN", "Reason=test")
        try:
            message = await other.failure(users[0], ONE)
        finally:
            slurm("scontrol", "-M", cluster.site.cluster, "update", "NodeName=s2", "State=RESUME")
        assert "The hub did not accept what the job" in message
        assert "node: not where this job runs" in message
        assert f"says that it runs on '{node}'; Slurm says s" in other.log()[before:]
        assert queued(slurm, cluster, users[0]) == []
        for line in other.log()[before:].splitlines():
            assert f"Adding route /user/{users[0]}" not in line


async def test_a_job_cannot_say_that_it_is_another_one(
    hub_with: Made, users: list[str], cluster: Any, slurm: Any
) -> None:
    """Until sbatch has answered the hub does not know its number, and whose node that runs on would be routed to."""
    async with hub_with() as other:
        other.fault("sbatch", 'answer=$("$REAL" "$@"); sleep 8; echo "$answer"')
        starting = asyncio.create_task(other.submit(users[0], ONE))
        env = await until(lambda: launcher_of(users[0]), 30, "the job runs")
        state = await other.state(users[0])
        job = state["job"]
        assert (job["phase"], job["job_id"]) == ("submitting", "")
        own = env["SLURM_JOB_ID"]
        said = {"name": job["name"], "secret": env["SNOWYSPAWNER_SECRET"], "node": env["SLURMD_NODENAME"]}
        for number in ("1", str(int(own) + 1), own):
            claims = [
                await post(other, "/hub/api/snowyspawner/claim", {**said, "server": row, "job_id": number})
                for row in every_row(other)
            ]
            assert set(claims) == {202, 404}
            assert claims.count(202) == 1
        assert await other.state(users[0]) == state
        await starting
        await ready(other, users[0])
        assert (await other.job(users[0]))["job_id"] == own == queued(slurm, cluster, users[0])[0]


async def test_where_the_job_runs_is_slurm_s_word(hub_with: Made, users: list[str], cluster: Any, slurm: Any) -> None:
    async with hub_with() as other:
        state = await other.serve(users[0], ONE)
        assert state["job"]["node"] == show_job(slurm, cluster, state["job"]["job_id"])["BatchHost"]


async def test_the_server_s_port_is_in_the_site_s_range(hub_with: Made, users: list[str]) -> None:
    async with hub_with(ports="21000-21100") as other:
        for server in ("a", "b", "c"):
            await other.submit(users[0], ONE, server)
        ports = set()
        for server in ("a", "b", "c"):
            await ready(other, users[0], server)
            ports.add((await other.state(users[0], server))["job"]["port"])
        assert len(ports) == 3
        assert all(21000 <= port <= 21100 for port in ports)


@pytest.mark.parametrize(
    ("more", "changes", "sentence", "log"),
    [
        ("exit 3", {}, "before its launcher could begin (exit code 3)", "(exit code 3)"),
        ("exit 0", {}, "before its launcher could begin (exit code 0)", "(exit code 0)"),
        (
            "set -e; module load no-such-module",
            {},
            "(exit code 127: a program was not found)",
            "module: command not found",
        ),
        ("", {"python": "/opt/no/such/python3"}, "(exit code 127: a program was not found)", "/opt/no/such/python3"),
        ("", {"python": "/etc/passwd"}, "(exit code 126: a program could not be run)", "/etc/passwd"),
    ],
)
async def test_a_script_that_does_not_come_to_its_launcher_says_why(
    hub_with: Made, users: list[str], more: str, changes: dict[str, Any], sentence: str, log: str
) -> None:
    async with hub_with(more, **changes) as other:
        message = await other.failure(users[0], ONE)
        assert sentence in message
        last = (await other.state(users[0]))["last"]
        assert any(log in line for line in last["log"]), last


async def test_projects_on_another_cluster_are_none_here(
    cluster: Any, users: list[str], slurm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Site without ``cluster``: sacctmgr would show what the database has of all clusters."""
    for variable, value in cluster.env.items():
        monkeypatch.setenv(variable, value)
    here, name = cluster.site.cluster, users[1]
    elsewhere = next(one for one in ("rackham", "other") if (cluster.state / "conf" / one).is_dir())
    client = SlurmClient("", str(cluster.state / "conf" / here / "slurm.conf"))
    before = await client.accounts(name)
    assert before
    slurm("sacctmgr", "-i", "add", "account", "only-there", f"cluster={elsewhere}")
    slurm("sacctmgr", "-i", "add", "account", "abc@v100", f"cluster={here}")
    try:
        slurm("sacctmgr", "-i", "add", "user", name, "account=only-there", f"cluster={elsewhere}")
        slurm("sacctmgr", "-i", "add", "user", name, "account=abc@v100", f"cluster={here}")
        assert set(await client.accounts(name)) == {*before, "abc@v100"}
        assert set(await SlurmClient(here).accounts(name)) == {*before, "abc@v100"}
        there = SlurmClient("", str(cluster.state / "conf" / elsewhere / "slurm.conf"))
        assert "only-there" in await there.accounts(name)
        assert await there.cluster_name() == elsewhere
    finally:
        for account, where in (("only-there", elsewhere), ("abc@v100", here)):
            slurm("sacctmgr", "-i", "delete", "user", name, f"account={account}", f"cluster={where}", check=False)
            slurm("sacctmgr", "-i", "delete", "account", account, f"cluster={where}", check=False)


async def test_a_project_with_an_at_sign_is_charged(hub_with: Made, users: list[str], cluster: Any, slurm: Any) -> None:
    # Of nobody else's projects has this hub asked before: it remembers them.
    here, name = cluster.site.cluster, users[2]
    slurm("sacctmgr", "-i", "add", "account", "abc@v100", f"cluster={here}")
    try:
        slurm("sacctmgr", "-i", "add", "user", name, "account=abc@v100", f"cluster={here}")
        async with hub_with(accounts={"pattern": None}) as other:
            await asyncio.sleep(2)  # slurmctld hears of it
            state = await other.serve(name, {**ONE, "account": "abc@v100"})
            assert show_job(slurm, cluster, state["job"]["job_id"])["Account"] == "abc@v100"
    finally:
        slurm("sacctmgr", "-i", "delete", "user", name, "account=abc@v100", f"cluster={here}", check=False)
        slurm("sacctmgr", "-i", "delete", "account", "abc@v100", f"cluster={here}", check=False)


@pytest.fixture
def alias(users: list[str]) -> Iterator[str]:
    """A second name for the account of the second person, as directories have them; Slurm knows the first one."""
    account = pwd.getpwnam(users[1])
    name = f"{users[1]}x"
    ids = ["--non-unique", "--uid", str(account.pw_uid), "--gid", str(account.pw_gid)]
    with changes():
        subprocess.run(["useradd", *ids, "--no-create-home", "--home-dir", account.pw_dir, name], check=True)
    try:
        assert pwd.getpwuid(account.pw_uid).pw_name == users[1]
        yield name
    finally:
        with changes():
            subprocess.run(["userdel", "--force", name], check=False, stderr=subprocess.DEVNULL)


async def test_slurm_is_asked_by_the_account_s_own_name(
    hub_with: Made, users: list[str], cluster: Any, slurm: Any, alias: str
) -> None:
    """The hub's name may be another one that leads to the same account."""
    async with hub_with() as other:
        await other.call("POST", f"/hub/api/users/{alias}")
        message = await other.failure(alias, {**ONE, "account": "g2999999"})
        assert f"choose {cluster.site.accounts.default}" in message
        # A job is looked for by its name, and by whose it is.
        other.fault("sbatch", '"$REAL" "$@" >/dev/null')
        status, answer = await other.submit(alias, {**ONE, "begin": later(cluster, 600)})
        assert status in (201, 202), answer
        job = await other.job(alias)
        assert queued(slurm, cluster, users[1]) == [job["job_id"]]
        other.mend()
        await other.end(alias)
        assert queued(slurm, cluster, users[1]) == []
        await other.call("DELETE", f"/hub/api/users/{alias}")
