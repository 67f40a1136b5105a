"""The main job on real Slurm in a real container: what was asked for is what runs."""

import json
import os
import re
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from ..hubs import Hub, until
from ..people import Person

pytestmark = pytest.mark.cluster

MKL = {"environment": "tf-mkl", "partition": "devcore", "cores": 4, "gpu": "none"}

FACTS = """
import json, os, sys
names = ("SLURM_JOB_PARTITION", "SLURM_CPUS_ON_NODE", "SLURM_JOB_ID", "SLURMD_NODENAME", "CONDA_DEFAULT_ENV")
names += ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "CPU_LIMIT", "MEM_LIMIT", "APPTAINER_CONTAINER", "USER")
names += ("JUPYTERHUB_API_TOKEN", "SNOWYSPAWNER_SECRET", "JUPYTER_RUNTIME_DIR")
facts = {name: os.environ.get(name) for name in names}
mask = os.umask(0)
print(json.dumps({**facts, "prefix": sys.prefix, "cwd": os.getcwd(), "umask": mask,
                  "course": os.path.exists("/opt/course/README")}))
"""


async def facts(hub: Hub, user: str, server: str = "") -> dict[str, Any]:
    """What a kernel sees of its session."""
    return json.loads(await hub.run(user, FACTS, server))


def show_job(slurm: Any, cluster: Any, job_id: str) -> dict[str, str]:
    """``scontrol show job`` as a table."""
    text = slurm("scontrol", "-M", cluster.site.cluster, "-o", "show", "job", job_id)
    return dict(re.findall(r"(\S+?)=(\S*)", text))


def queued(slurm: Any, cluster: Any, user: str) -> list[str]:
    """The ids of a person's jobs that are not over."""
    states = "PENDING,RUNNING,CONFIGURING,SUSPENDED"
    return slurm("squeue", "-M", cluster.site.cluster, "-h", "-u", user, "-t", states, "-o", "%i").split()


def assert_what_the_seed_asked(stored: dict[str, Any], job: dict[str, str]) -> None:
    """-A g2021027 -t 0:59:00 -p core -n 4 -M snowy --gres=gpu:t4:1, environment tf-gpu."""
    assert stored["cluster"] == "snowy"
    assert stored["request"]["environment"] == "tf-gpu"
    assert job["Account"] == "g2021027"
    assert job["TimeLimit"] == "00:59:00"
    assert job["Partition"] == "core"
    assert (job["NumNodes"], job["NumCPUs"]) == ("1", "4")
    assert "gres/gpu:t4=1" in job["TRES"] or "gres:gpu:t4:1" in job["TresPerNode"], job
    assert job["Requeue"] == "0"


async def test_default_choice_asks_for_what_the_seed_asks(hub: Hub, users: list[str], cluster: Any, slurm: Any) -> None:
    """``{"user_options": {}}`` by REST; the kernel has the environment and sees the GPU."""
    state = await hub.serve(users[0], {})
    job = show_job(slurm, cluster, state["job"]["job_id"])
    assert_what_the_seed_asked(state["job"], job)
    assert job["UserId"].startswith(users[0] + "(")
    seen = await facts(hub, users[0])
    assert seen["CONDA_DEFAULT_ENV"] == "tf-gpu"
    assert seen["prefix"] == "/opt/conda/envs/tf-gpu"
    assert seen["CUDA_VISIBLE_DEVICES"] not in (None, "", "NoDevFiles")
    assert seen["CPU_LIMIT"] == seen["OMP_NUM_THREADS"] == "4"
    assert seen["MEM_LIMIT"] == str(4 * 8000 * 1024 * 1024)


async def test_the_untouched_form_asks_for_what_the_seed_asks(
    hub: Hub, users: list[str], cluster: Any, slurm: Any
) -> None:
    """One click, for somebody who has chosen nothing yet."""
    # Forgotten, with the last choice, which the form would offer; and let in again.
    await hub.call("DELETE", f"/hub/api/users/{users[0]}")
    await hub.call("POST", f"/hub/api/users/{users[0]}")
    async with Person(hub, users[0]) as person:
        status, back = await person.send(await person.form())
        assert status == 302, back.errors
    stored = await hub.job(users[0])
    assert_what_the_seed_asked(stored, show_job(slurm, cluster, stored["job_id"]))


async def test_kernel_and_terminal_are_in_the_same_container_environment_and_allocation(
    hub: Hub, users: list[str], cluster: Any
) -> None:
    """What ``srun … singularity run`` was for."""
    state = await hub.serve(users[0], MKL)
    seen = await facts(hub, users[0])
    assert seen["SLURM_JOB_PARTITION"] == "devcore"
    assert seen["SLURM_CPUS_ON_NODE"] == "4"
    assert seen["SLURM_JOB_ID"] == state["job"]["job_id"]
    assert seen["prefix"] == "/opt/conda/envs/tf-mkl"
    assert seen["CUDA_VISIBLE_DEVICES"] is None
    assert seen["APPTAINER_CONTAINER"] == str(cluster.image)
    assert seen["course"]
    assert not Path("/opt/course").exists()
    assert seen["umask"] == 0o022
    assert seen["SNOWYSPAWNER_SECRET"] is None
    typed = 'echo "[$SLURM_JOB_ID|$SLURM_JOB_PARTITION|$APPTAINER_CONTAINER]"; command -v python; ls -d /opt/course'
    shown = await hub.in_terminal(users[0], typed)
    assert f"[{state['job']['job_id']}|devcore|{cluster.image}]" in shown
    assert "/opt/conda/envs/tf-mkl/bin/python" in shown
    assert re.search(r"^/opt/course\s*$", shown, re.M)


async def test_token_is_nowhere_in_slurm(hub: Hub, users: list[str], cluster: Any, slurm: Any, tmp_path: Path) -> None:
    """Nothing secret waits in the queue: the token comes with the claim."""
    state = await hub.serve(users[0], MKL)
    job_id = state["job"]["job_id"]
    token = (await facts(hub, users[0]))["JUPYTERHUB_API_TOKEN"]
    assert len(token) > 20
    slurm("scontrol", "-M", cluster.site.cluster, "write", "batch_script", job_id, str(tmp_path / "script"))
    script = (tmp_path / "script").read_text()
    assert "#SBATCH --partition=devcore" in script
    # What execve gave it: the job's environment as Slurm stored it, before any claim.
    environment = _read(Path(f"/proc/{launcher(job_id)}/environ")).decode()
    assert "SNOWYSPAWNER_SECRET=" in environment
    shown = slurm("scontrol", "-M", cluster.site.cluster, "show", "job", job_id)
    commands = b"".join(_read(path) for path in Path("/proc").glob("[0-9]*/cmdline")).decode(errors="replace")
    for where in (script, environment, shown, commands, json.dumps(state), hub.log()):
        assert token not in where
    log = Path(f"~{users[0]}/.snowyspawner-{job_id}.log").expanduser()
    assert token not in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


def launcher(job_id: str) -> int:
    """The process of a job that runs the launcher."""
    (found,) = (
        int(path.name)
        for path in Path("/proc").glob("[0-9]*")
        if b"/dev/fd/3" in _read(path / "cmdline") and f"SLURM_JOB_ID={job_id}\0".encode() in _read(path / "environ")
    )
    return found


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


async def test_two_people_and_two_servers_side_by_side(hub: Hub, users: list[str], cluster: Any, slurm: Any) -> None:
    """Each has its own settings; stopping one ends its job and no other."""
    alice, bob = users[:2]
    pip = {"environment": "tf-pip", "partition": "core", "cores": 1, "gpu": "none", "time": "2:00:00"}
    for user, options, server in ((alice, MKL, ""), (alice, pip, "second"), (bob, MKL, "")):
        status, answer = await hub.submit(user, options, server)
        assert status in (201, 202), answer
    for user, server in ((alice, ""), (alice, "second"), (bob, "")):
        await until(lambda u=user, s=server: hub._ready(u, s), 90, f"{user} {server}")
    first, second = await facts(hub, alice), await facts(hub, alice, "second")
    other = await facts(hub, bob)
    assert (first["CONDA_DEFAULT_ENV"], first["CPU_LIMIT"]) == ("tf-mkl", "4")
    assert (second["CONDA_DEFAULT_ENV"], second["CPU_LIMIT"]) == ("tf-pip", "1")
    assert (first["USER"], second["USER"], other["USER"]) == (alice, alice, bob)
    assert len({first["SLURM_JOB_ID"], second["SLURM_JOB_ID"], other["SLURM_JOB_ID"]}) == 3
    assert show_job(slurm, cluster, second["SLURM_JOB_ID"])["TimeLimit"] == "02:00:00"
    await hub.end(alice)
    assert queued(slurm, cluster, alice) == [second["SLURM_JOB_ID"]]
    assert queued(slurm, cluster, bob) == [other["SLURM_JOB_ID"]]
    assert await hub.job_seen(alice, "second") == second["SLURM_JOB_ID"]
    await hub.end(alice, "second")
    assert queued(slurm, cluster, alice) == []
    assert queued(slurm, cluster, bob) == [other["SLURM_JOB_ID"]]


async def test_stop_leaves_no_process_and_no_token(hub: Hub, users: list[str]) -> None:
    """The allocation is free, the container gone, the token revoked, the runtime directory removed."""
    state = await hub.serve(users[0], MKL)
    seen = await facts(hub, users[0])
    runtime = Path(seen["JUPYTER_RUNTIME_DIR"])
    assert runtime.stat().st_mode & 0o777 == 0o700
    marker = f"SLURM_JOB_ID={state['job']['job_id']}\0".encode()
    await hub.end(users[0])
    await until(
        lambda: not [p for p in Path("/proc").glob("[0-9]*/environ") if marker in _read(p)], 10, "no process left"
    )
    assert not runtime.exists()
    assert hub.session is not None
    headers = {"Authorization": f"token {seen['JUPYTERHUB_API_TOKEN']}"}
    async with hub.session.get(f"{hub.url}/hub/api/user", headers=headers) as answer:
        assert answer.status == 403


@pytest.mark.parametrize(
    ("options", "sentences"),
    [
        ({**MKL, "image": "missing.sif"}, ["The image ", "missing.sif does not exist (seen from node s"]),
        ({**MKL, "image": "broken.sif"}, ["broken.sif is damaged, or no container image"]),
        ({**MKL, "image": "closed.sif"}, ["You may not read the image /root/closed.sif"]),
        ({**MKL, "environment": "gone"}, ["has no environment gone", "it has: tf-gpu tf-mkl tf-pip"]),
    ],
    ids=["image missing", "no image", "image unreadable", "environment missing"],
)
async def test_what_is_wrong_on_the_node_ends_the_start_at_once(
    hub: Hub, users: list[str], cluster: Any, slurm: Any, options: dict[str, Any], sentences: list[str]
) -> None:
    """Within 5 s of the job's start, with a sentence, and with the job gone."""
    message = await hub.failure(users[0], options)
    ended = time.time()
    for sentence in sentences:
        assert sentence in message
    job_id = (await hub.state(users[0]))["last"]["job_id"]
    start = slurm("sacct", "-M", cluster.site.cluster, "-XnPj", job_id, "-o", "Start")
    began = time.mktime(time.strptime(start.strip(), "%Y-%m-%dT%H:%M:%S"))
    # Slurm's start has whole seconds.
    assert ended - began < 6
    assert queued(slurm, cluster, users[0]) == []


@pytest.mark.alone
async def test_missing_gpu_ends_the_start_with_code_74(hub: Hub, users: list[str], cluster: Any, slurm: Any) -> None:
    """Slurm still counts on the device; the launcher sees that it is gone."""
    # All of them: the nodes of this machine share one /dev, also with another demo that may be up.
    numbers = {device: device.stat().st_rdev for device in Path("/dev").glob("nvidia[0-9]*")}
    assert set(numbers.values()) == {os.makedev(1, 3)}, "these are no stand-ins: this machine has a real GPU"
    for device in numbers:
        device.unlink()
    try:
        message = await hub.failure(users[0], {})
        job_id = (await hub.state(users[0]))["last"]["job_id"]
    finally:
        for device, number in numbers.items():
            os.mknod(device, stat.S_IFCHR | 0o666, number)
            device.chmod(0o666)
    assert "A GPU was asked for, but node s" in message

    def exit_code() -> str:
        return slurm("sacct", "-M", cluster.site.cluster, "-XnPj", job_id, "-o", "ExitCode").strip()

    await until(lambda: exit_code() == "74:0", 10, "exit code 74")


async def test_a_job_that_waits_is_cancelled_with_its_start(
    hub: Hub, users: list[str], cluster: Any, slurm: Any
) -> None:
    """A start in the queue can be given up; nothing stays behind."""
    tomorrow = time.strftime("%Y-%m-%dT%H:%M", time.localtime(time.time() + 86400))
    await hub.submit(users[0], {**MKL, "begin": tomorrow})
    job = await hub.job(users[0])
    shown = show_job(slurm, cluster, job["job_id"])
    assert (shown["JobState"], shown["Reason"]) == ("PENDING", "BeginTime")
    await hub.end(users[0])
    assert queued(slurm, cluster, users[0]) == []


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"partition": "devcore"}, "gpu"),
        ({**MKL, "cores": 17}, "cores"),
        ({**MKL, "time": "2:00:00"}, "time"),
        ({**MKL, "environment": "$(id)"}, "environment"),
        ({**MKL, "cmd": "id"}, "cmd"),
    ],
)
async def test_rest_cannot_go_around_the_form(
    hub: Hub, users: list[str], cluster: Any, slurm: Any, options: dict[str, Any], field: str
) -> None:
    """Refused with a sentence at its field; nothing reaches sbatch."""
    status, answer = await hub.submit(users[0], options)
    assert status == 400
    assert f"{field}: " in answer["message"]
    assert queued(slurm, cluster, users[0]) == []


async def test_what_slurm_refuses_is_said_in_words(hub: Hub, users: list[str]) -> None:
    """With Slurm's own sentence beneath."""
    message = await hub.failure(users[0], {**MKL, "reservation": "nosuch"})
    assert "You cannot use this reservation." in message
    assert "Requested reservation is invalid" in message
