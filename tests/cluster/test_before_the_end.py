"""What a job does before its end, on real Slurm: the signal, whom it reaches, and which end is believed."""

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from snowyspawner import site
from snowyspawner.choice.request import from_options
from snowyspawner.session import script

from ..hubs import Hub, until

pytestmark = pytest.mark.cluster

MKL = {"environment": "tf-mkl", "partition": "devcore", "cores": 4, "gpu": "none"}
SEEN = """
import json, os
file = os.environ["JUPYTER_PATH"].split(":")[0] + "/labextensions/snowyspawner/static/session.json"
print(json.dumps({**json.load(open(file)), "variable": int(os.environ["SLURM_JOB_END_TIME"]), "file": file}))
"""


async def told(hub: Hub, user: str) -> dict[str, Any]:
    """What JupyterLab is told, as a kernel sees it, and the kernel's own variable."""
    return dict(json.loads(await hub.run(user, SEEN)))


def log_of(user: str, job_id: str) -> str:
    return Path(f"~{user}/.snowyspawner-{job_id}.log").expanduser().read_text(errors="replace")


@pytest.fixture
def end_of(cluster: Any) -> Callable[[str], int]:
    """When Slurm is going to end a job, in epoch seconds."""

    def ask(job_id: str) -> int:
        env = {**os.environ, **cluster.env, "SLURM_TIME_FORMAT": "%s"}
        argv = ["squeue", "-M", cluster.site.cluster, "-h", "-j", job_id, "-o", "%e"]
        return int(subprocess.run(argv, env=env, capture_output=True, text=True, check=True, timeout=30).stdout)

    return ask


@pytest.mark.slow
async def test_slurm_s_own_signal_warns_and_the_session_goes_on(
    hub: Hub, users: list[str], slurm: Any, cluster: Any, end_of: Callable[[str], int]
) -> None:
    """A session of three minutes is warned half way, or up to a minute earlier."""
    state = await hub.serve(users[0], {**MKL, "time": "3"})
    job_id = state["job"]["job_id"]
    first = await told(hub, users[0])
    assert first["end"] == end_of(job_id)
    # Slurm counts from the second in which the batch script has begun, when it knows it.
    assert abs(first["variable"] - first["end"]) <= 2
    assert (first["warn"], first["notice"]) == (90, 0)
    file = Path(first["file"])  # the node is this machine, and the container has its /tmp
    notice = await until(lambda: json.loads(file.read_text())["notice"], 100, "Slurm's signal, for JupyterLab")
    assert 85 < first["end"] - notice < 155
    # Once, although the launcher's own clock may have been first.
    await until(lambda: "save your work" in log_of(users[0], job_id), 5, "the warning in the log")
    assert log_of(users[0], job_id).count("save your work") == 1
    # The server and a kernel live.
    assert (await told(hub, users[0]))["notice"] == notice
    assert (await hub.model(users[0]) or {})["ready"]


async def test_a_signal_by_hand_warns_of_the_end_as_it_is_by_then(
    hub: Hub, users: list[str], slurm: Any, cluster: Any, end_of: Callable[[str], int]
) -> None:
    """It ends nothing, and an end that an administrator has moved is the one that is told."""
    state = await hub.serve(users[0], MKL)
    job_id = state["job"]["job_id"]
    before = await told(hub, users[0])
    assert before["end"] == end_of(job_id)
    slurm("scontrol", "-M", cluster.site.cluster, "update", f"JobId={job_id}", "TimeLimit=30")
    slurm("scancel", "-M", cluster.site.cluster, "--signal=USR1", "--batch", job_id)
    words = re.compile(r"snowyspawner: this session ends at \d\d:\d\d, in (29|30) minutes: save your work\n")
    await until(lambda: words.search(log_of(users[0], job_id)), 10, "the warning in the log")
    after = await told(hub, users[0])
    assert after["end"] == end_of(job_id) == before["end"] - 29 * 60
    assert abs(after["notice"] - time.time()) < 20
    # A process keeps the environment that it began with; whole seconds are rounded differently.
    assert abs(after["variable"] - before["end"]) <= 2
    assert (await hub.model(users[0]) or {})["ready"]


@pytest.fixture
def waiting_job(cluster: Any, users: list[str], slurm: Any) -> Iterator[str]:
    """A job of the first account whose prologue takes two seconds and whose hub does not answer."""
    home = Path(f"~{users[0]}").expanduser()
    here = site.load(
        {
            "extends": str(cluster.state / "site.yaml"),
            "prologue": 'echo "prologue begins"; sleep 2; echo "prologue ends"',
        }
    )
    target = script.Target("jupyter-lab-01234567", str(home), "http://127.0.0.1:1/", 1)
    text = script.build(here, from_options(MKL, here, accounts=None), target)
    prefix = ["setpriv", "--reuid", users[0], "--regid", users[0], "--init-groups", "--"]
    env = {**cluster.env, "PATH": os.environ["PATH"], "HOME": str(home)}
    argv = [*prefix, "sbatch", "--parsable", "-M", cluster.site.cluster]
    done = subprocess.run(argv, input=text, env=env, cwd="/", capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    job_id = done.stdout.strip().partition(";")[0]
    yield job_id
    slurm("scancel", "-M", cluster.site.cluster, job_id)


async def test_a_signal_in_the_prologue_and_before_the_claim_ends_nothing(
    users: list[str], cluster: Any, slurm: Any, waiting_job: str
) -> None:
    """Whoever sends it, and however early: neither bash nor what it runs dies of it."""

    def said(what: str) -> bool:
        path = Path(f"~{users[0]}/.snowyspawner-{waiting_job}.log").expanduser()
        return path.exists() and what in path.read_text()

    signal = ("scancel", "-M", cluster.site.cluster, "--signal=USR1", "--batch", waiting_job)
    await until(lambda: said("prologue begins"), 20, "the prologue's start")
    slurm(*signal)
    assert not said("prologue ends")
    await until(lambda: said("waiting for the hub at"), 15, "the launcher")
    assert said("prologue ends")
    slurm(*signal)
    await until(lambda: said("save your work"), 10, "the warning")
    state = slurm("squeue", "-M", cluster.site.cluster, "-h", "-j", waiting_job, "-o", "%T")
    assert state.strip() == "RUNNING"


async def test_old_logs_go_when_a_session_starts(hub: Hub, users: list[str]) -> None:
    """Those of the person's own; whatever else is in the home directory stays."""
    home = Path(f"~{users[0]}").expanduser()
    owner = home.stat()
    month_ago = time.time() - 31 * 86400
    old, notes, young, others = (
        home / name
        for name in (".snowyspawner-1.log", "notes.log", ".snowyspawner-9999998.log", ".snowyspawner-9999999.log")
    )
    for path in (old, notes, young, others):
        path.write_text("x")
        os.chown(path, owner.st_uid, owner.st_gid)
        os.utime(path, (month_ago, month_ago))
    os.utime(young)
    os.chown(others, 0, 0)
    try:
        state = await hub.serve(users[0], MKL)
        await until(lambda: not old.exists(), 10, "the old log's end")
        assert [path.exists() for path in (notes, young, others)] == [True, True, True]
        assert re.search(r"removed \d+ old logs", log_of(users[0], state["job"]["job_id"]))
    finally:
        for path in (notes, young, others):
            path.unlink(missing_ok=True)
