"""Every row of the failure table (docs/failures.md) with its real cause: real Slurm, real Apptainer, real disks.

What fails only for one job fails by the Site of that job; what belongs to the node (a mount, a missing program) is
changed in a mount or user namespace that only this job's Apptainer is in.
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.commands import open_umask
from snowyspawner.session.as_person import TIMEOUT, NoAnswerError, Reader

from ..hubs import ROOT, Hub, until
from .test_session import launcher, queued

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

CPU = {"environment": "tf-mkl", "partition": "core", "cores": 1, "gpu": "none", "image": "container.sif"}

# Runs the real Apptainer in namespaces of its own, once something about its node has been changed in them.
WRAPPER = """#!/bin/sh
exec unshare --user --map-current-user --keep-caps --mount /bin/sh -c '{change}; exec {apptainer} "$@"' apptainer "$@"
"""
CHANGES = {
    "no-unsquashfs": "for p in squashfuse squashfuse_ll unsquashfs; do mount --bind /dev/null /usr/bin/$p; done",
    "no-namespaces": "echo 0 >/proc/sys/user/max_user_namespaces",
    "not-in-passwd": "mount --bind {directory}/passwd /etc/passwd",
}

ENVIRONMENTS = {
    "empty": [],
    "no-server": ["python3"],
    "old": ["python3", "jupyterhub-singleuser"],
    "dies": ["jupyterhub-singleuser"],
}
DIES = "#!/bin/sh\nfor n in 1 2 3; do echo line $n; done\nexit 3\n"


@pytest.fixture(scope="module")
def broken(cluster: Any) -> Path:
    """The second hub's directory, with images, environments, programs and Sites that go wrong."""
    with open_umask():  # jobs use what is in it
        return _make_broken(cluster)


def _make_broken(cluster: Any) -> Path:
    from demo.apptainer import program

    directory: Path = cluster.state / "failing-hub"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o755)
    images = directory / "images"
    images.mkdir()
    # `apptainer build` as root copies files only, so that it needs no namespace.
    skeleton = directory / "skeleton"
    for name in ("etc", "tmp", "proc", "sys", "dev", "root", "home", "var/tmp", "usr", "opt"):
        (skeleton / name).mkdir(parents=True)
    for name in ("passwd", "group"):
        (skeleton / "etc" / name).touch()
    _build(program(), images / "no-shell.sif", skeleton)
    for name in ("bin", "lib", "lib64"):
        (skeleton / name).symlink_to(f"usr/{name}")
    _build(program(), images / "no-conda.sif", skeleton)
    with open(cluster.image, "rb") as whole:
        start = whole.read(3_000_000)
    (images / "truncated.sif").write_bytes(start)
    (images / "header.sif").write_bytes(start[:33_000])
    (images / "empty.sif").touch()
    (images / "text.sif").write_text("I am no image.\n")
    for path in images.iterdir():
        path.chmod(0o644)
    (images / "closed").mkdir(mode=0o700)
    shutil.copy(images / "no-shell.sif", images / "closed" / "a.sif")
    shutil.copy(images / "no-shell.sif", images / "unreadable.sif")
    (images / "unreadable.sif").chmod(0o600)

    for name, programs in ENVIRONMENTS.items():
        prefix = directory / "environments" / name
        (prefix / "bin").mkdir(parents=True)
        if "python3" in programs:
            # Debian's: its links lead to the same Python in the image.
            _run("/usr/bin/python3", "-m", "venv", "--without-pip", prefix)
        if "jupyterhub-singleuser" in programs:
            (prefix / "bin" / "jupyterhub-singleuser").write_text(DIES)
            (prefix / "bin" / "jupyterhub-singleuser").chmod(0o755)
    (packages,) = (directory / "environments" / "old").glob("lib/python3*/site-packages")
    (packages / "jupyterhub").mkdir()
    (packages / "jupyterhub" / "__init__.py").write_text('__version__ = "1.5.1"\n')

    users = set(cluster.users)
    lines = Path("/etc/passwd").read_text().splitlines(keepends=True)
    (directory / "passwd").write_text("".join(line for line in lines if line.split(":")[0] not in users))
    for name, change in CHANGES.items():
        wrapper = directory / "bin" / name / "apptainer"
        wrapper.parent.mkdir(parents=True)
        wrapper.write_text(WRAPPER.format(change=change.format(directory=directory), apptainer=program()))
        wrapper.chmod(0o755)

    site = {
        "extends": str(cluster.site_file),
        "memory_free": True,
        "images": {
            # What binds what is made here, and something that no node has.
            "bound.sif": {"path": str(cluster.image), "binds": [str(directory), "/nowhere/at/all"]},
            "missing.sif": {"path": f"{images}/missing.sif"},
            "closed.sif": {"path": f"{images}/closed/a.sif"},
            "no-conda.sif": {"path": f"{images}/no-conda.sif", "binds": ["/usr"]},
            **{
                f"{name}.sif": {"path": f"{images}/{name}.sif"}
                for name in ("empty", "text", "header", "truncated", "unreadable", "no-shell")
            },
        },
        "environments": {
            "gone": {},
            "no-prefix": {"kind": "prefix", "prefix": f"{directory}/environments/none"},
            **{name: {"kind": "prefix", "prefix": f"{directory}/environments/{name}"} for name in ENVIRONMENTS},
        },
    }
    path = f'export PATH="{program().parent}:$PATH"'
    sites = {
        "default": {},
        "no-runtime": {"prologue": "export PATH=/nowhere"},
        "no-log": {"log": "nowhere/%j.log"},
        "no-hub": {"hub_wait": 2},
        "scratch-full": {"prologue": f"{path}\nexport SNIC_TMP={directory}/full"},
        **{name: {"prologue": f"{path}\nexport PATH={directory}/bin/{name}:$PATH"} for name in CHANGES},
    }
    for name, changes in sites.items():
        (directory / f"{name}.yaml").write_text(yaml.safe_dump({**site, **changes}))
    # Nobody listens on port 1.
    away = {"hub_connect_url": "http://127.0.0.1:1"}
    (directory / "no-hub.json").write_text(json.dumps(away))
    (directory / "killed.json").write_text(json.dumps(away))
    (directory / "no-hub-yet.json").write_text(json.dumps({**away, "launch_timeout": 2}))
    return directory


def _build(apptainer: Path, image: Path, root: Path) -> None:
    _run(apptainer, "--quiet", "build", image, root)


def _run(*argv: Any) -> None:
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, (argv, done.stderr)


@pytest.fixture(scope="module")
async def failing(cluster: Any, broken: Path) -> AsyncIterator[Hub]:
    """The second hub."""
    hub = Hub(cluster, broken, ROOT / "tests" / "failing_hub_config.py")
    await hub.start()
    yield hub
    await hub.stop()


@pytest.fixture
async def person(cluster: Any, failing: Hub, slurm: Any) -> AsyncIterator[str]:
    """An account of the demo's. Afterwards it has neither server nor job."""
    name = next(iter(cluster.users))
    yield name
    status, model = await failing.call("GET", f"/hub/api/users/{name}?include_stopped_servers")
    for server in model["servers"] if status == 200 else []:
        await failing.end(name, server)
    slurm("scancel", "-M", cluster.site.cluster, "-u", name)


class Failures:
    """What a test asks of a start that fails, and of its job."""

    def __init__(self, hub: Hub, cluster: Any, slurm: Any, person: str) -> None:
        self.hub, self.cluster, self.slurm, self.person = hub, cluster, slurm, person

    def accounting(self, job_id: str, field: str) -> str:
        return str(self.slurm("sacct", "-M", self.cluster.site.cluster, "-XnPj", job_id, "-o", field)).strip()

    async def start(self, server: str = "", **choices: Any) -> tuple[str, str]:
        """Ask for a server; return what the person reads and the job's number. It must be quick, the job gone."""
        message = await self.hub.failure(self.person, {**CPU, **choices}, server)
        ended = time.time()
        job_id = (await self.hub.state(self.person, server))["last"]["job_id"]
        began = time.mktime(time.strptime(self.accounting(job_id, "Start"), "%Y-%m-%dT%H:%M:%S"))
        # Slurm's start has whole seconds.
        assert ended - began < 6, message
        assert queued(self.slurm, self.cluster, self.person) == []
        return message, job_id

    async def ended_with(self, job_id: str, code: str, state: str = "FAILED") -> None:
        async def seen() -> bool:
            return self.accounting(job_id, "State,ExitCode") == f"{state}|{code}"

        await until(seen, 10, f"job {job_id}: {state}, {code}; accounting: {self.accounting(job_id, 'State,ExitCode')}")

    def log(self, job_id: str) -> str:
        return (Path(pwd.getpwnam(self.person).pw_dir) / f".snowyspawner-{job_id}.log").read_text()


@pytest.fixture
def failures(failing: Hub, cluster: Any, slurm: Any, person: str) -> Failures:
    return Failures(failing, cluster, slurm, person)


PREFIXED = {"image": "bound.sif"}

ROWS = {
    "65 no runtime on the node": (
        "no-runtime",
        {},
        65,
        "Neither apptainer nor singularity was found on node s[0-9]. .*not found on PATH .*nowhere",
    ),
    "66 image missing": ("", {"image": "missing.sif"}, 66, "The image .*/missing.sif does not exist .seen from node s"),
    "67 image unreadable": ("", {"image": "unreadable.sif"}, 67, "You may not read the image .*/unreadable.sif"),
    "67 its directory closed": ("", {"image": "closed.sif"}, 67, "You may not read the image .*/closed/a.sif"),
    "68 image empty": ("", {"image": "empty.sif"}, 68, "empty.sif is damaged, or no container image. .*is empty"),
    "68 not an image": ("", {"image": "text.sif"}, 68, "text.sif is damaged, .*image format not recognized"),
    "68 image truncated": ("", {"image": "truncated.sif"}, 68, "truncated.sif is damaged, .*squashfs image"),
    "68 cut off after its header": ("", {"image": "header.sif"}, 68, "header.sif is damaged, .*SIF partition"),
    "69 neither squashfuse nor unsquashfs": (
        "no-unsquashfs",
        {},
        69,
        "Node s[0-9] could not set up the container. .*unsquashfs.*not found",
    ),
    "69 no user namespaces": (
        "no-namespaces",
        {},
        69,
        "Node s[0-9] could not set up the container. .*ERROR  : Failed to create user namespace",
    ),
    "69 not in passwd": (
        "not-in-passwd",
        {},
        69,
        "Node s[0-9] could not set up the container. .*FATAL: .*determine user account information",
    ),
    "70 no shell in the image": ("", {"image": "no-shell.sif"}, 70, "The image .*/no-shell.sif has no /bin/sh."),
    "71 no conda in the image": ("", {"image": "no-conda.sif"}, 71, "There is no conda in the image .*/no-conda.sif."),
    "72 conda environment missing": (
        "",
        {"environment": "gone"},
        72,
        "has no environment gone. .*it has: tf-gpu tf-mkl tf-pip",
    ),
    "72 prefix missing": ("", {"environment": "no-prefix"}, 72, "has no environment no-prefix. .*/environments/none"),
    "73 server missing, prefix": (
        "",
        {**PREFIXED, "environment": "no-server"},
        73,
        "jupyterhub-singleuser is not in environment no-server. It needs: pip install jupyterhub jupyterlab",
    ),
    "73 server missing, nothing there": (
        "",
        {**PREFIXED, "environment": "empty"},
        73,
        "jupyterhub-singleuser is not in environment empty",
    ),
    "75 jupyterhub too old": (
        "",
        {**PREFIXED, "environment": "old"},
        75,
        "jupyterhub in environment old is too old. It needs 2.0 or newer.*jupyterhub 1.5.1 in the image",
    ),
}


@pytest.mark.parametrize(("server", "choices", "code", "sentence"), ROWS.values(), ids=ROWS)
async def test_a_row_of_the_table(
    failures: Failures, server: str, choices: dict[str, Any], code: int, sentence: str
) -> None:
    """Within 5 s of the job's start, with a sentence, the job gone, its exit code the cause."""
    message, job_id = await failures.start(server, **choices)
    assert re.search(sentence, message, re.DOTALL), message
    assert f"cannot serve this session ({code})" in failures.log(job_id)
    await failures.ended_with(job_id, f"{code}:0")
    assert (await failures.hub.state(failures.person, server))["last"]["exit_code"] == code


@pytest.fixture
def closed_fuse(person: str) -> Iterator[None]:
    """Close /dev/fuse to this person alone: others may be using it now."""
    fuse, before = Path("/dev/fuse"), os.stat("/dev/fuse")
    os.chown(fuse, 0, pwd.getpwnam(person).pw_gid)
    fuse.chmod(0o606)
    yield
    os.chown(fuse, before.st_uid, before.st_gid)
    fuse.chmod(before.st_mode & 0o7777)


@pytest.mark.usefixtures("closed_fuse")
async def test_69_fuse_is_closed(failures: Failures) -> None:
    message, job_id = await failures.start()
    assert re.search("Node s[0-9] could not set up the container. Tell support.", message)
    assert "fuse: failed to open /dev/fuse: Permission denied" in message
    await failures.ended_with(job_id, "69:0")


async def test_a_bind_that_the_node_does_not_have_is_left_out_and_noted(failures: Failures) -> None:
    """It would be fatal to Apptainer."""
    hub, person = failures.hub, failures.person
    state = await hub.serve(person, {**CPU, **PREFIXED})
    assert "/nowhere/at/all does not exist on this node, so it is not bound" in failures.log(state["job"]["job_id"])
    bound = str(hub.directory / "environments")
    seen = await hub.run(person, f"import os; print(os.path.exists('/nowhere'), len(os.listdir({bound!r})))")
    assert seen == f"False {len(ENVIRONMENTS)}"


# -- what the launcher cannot tell the hub -----------------------------------------------------------------------


async def test_76_the_node_cannot_reach_the_hub(failures: Failures) -> None:
    """The hub learns it from the job's exit code."""
    message, job_id = await failures.start("no-hub")
    assert re.search("Node s[0-9] cannot reach the hub. Tell support.", message), message
    assert "exit code 76" in message
    await failures.ended_with(job_id, "76:0")
    assert "no answer from the hub at http://127.0.0.1:1/hub/api/snowyspawner/ in 2 s" in failures.log(job_id)


async def test_76_the_hub_loses_patience_first(failures: Failures) -> None:
    """By default a job waits longer for its hub than the hub for its job, which it then cancels."""
    message = await failures.hub.failure(failures.person, CPU, "no-hub-yet")
    assert re.search("Node s[0-9] cannot reach the hub. Tell support.", message), message
    assert queued(failures.slurm, failures.cluster, failures.person) == []


async def test_77_the_hub_has_forgotten_the_session(failures: Failures) -> None:
    """Its database was lost while the job waited. Nobody is there to read it: the job ends, and its log says why."""
    hub, person, slurm = failures.hub, failures.person, failures.slurm
    cluster = failures.cluster.site.cluster
    later = datetime.fromtimestamp(time.time() + 3600, failures.cluster.site.zone).strftime("%Y-%m-%dT%H:%M")
    await hub.submit(person, {**CPU, "begin": later})
    job_id = (await hub.job(person))["job_id"]
    await hub.stop()
    for path in hub.directory.glob("hub.sqlite*"):
        path.unlink()
    (hub.directory / "url").unlink()
    await hub.start()
    slurm("scontrol", "-M", cluster, "update", f"JobId={job_id}", "StartTime=now")
    await failures.ended_with(job_id, "77:0")
    assert "cannot serve this session (77): the hub no longer knows this session (404)" in failures.log(job_id)


# -- the home directory, the log, the node's own disk ------------------------------------------------------------


@pytest.fixture
def home(person: str) -> Iterator[Path]:
    """The person's home; what a test mounts on it or forbids is undone."""
    path = Path(pwd.getpwnam(person).pw_dir)
    mode = path.stat().st_mode & 0o7777
    yield path
    # By then the job is over, but Slurm may not have let go of its log.
    for _ in range(50):
        if not path.is_mount() or subprocess.run(["umount", path], check=False, stderr=subprocess.PIPE).returncode == 0:
            break
        time.sleep(0.1)
    assert not path.is_mount()
    path.chmod(mode)


def mount_small(path: Path, person: str, *options: str) -> None:
    account = pwd.getpwnam(person)
    words = ["mode=0700", f"uid={account.pw_uid}", f"gid={account.pw_gid}", *options]
    _run("mount", "-t", "tmpfs", "-o", ",".join(words), "tmpfs", path)


NO_LOG = "Slurm could not write the job's log to your home directory."


async def test_home_is_not_writable(failures: Failures, home: Path) -> None:
    """Slurm cannot open the job's log, so nothing of ours runs: the hub knows it from Slurm's exit code alone."""
    home.chmod(0o500)
    message, job_id = await failures.start()
    assert NO_LOG in message
    await failures.ended_with(job_id, "0:53")


async def test_home_has_no_room_for_another_file(failures: Failures, home: Path) -> None:
    mount_small(home, failures.person, "size=1m", "nr_inodes=1")
    message, job_id = await failures.start()
    assert NO_LOG in message
    await failures.ended_with(job_id, "0:53")


async def test_the_log_s_directory_is_missing(failures: Failures) -> None:
    message, job_id = await failures.start("no-log")
    assert NO_LOG in message
    assert "Is the directory there" in message
    await failures.ended_with(job_id, "0:53")


async def test_78_home_is_full(failures: Failures, home: Path) -> None:
    """Slurm could still make the log, but nothing can be written to it: the launcher tells the hub."""
    mount_small(home, failures.person, "size=64k")
    with pytest.raises(OSError, match="No space left"):
        (home / "thesis").write_bytes(bytes(100_000))
    message, job_id = await failures.start()
    assert re.search("Nothing can be written to your home directory from node s[0-9]. If your quota", message), message
    assert f"{home}: No space left on device" in message
    await failures.ended_with(job_id, "78:0")
    assert failures.log(job_id) == ""


async def test_79_scratch_is_full(failures: Failures, broken: Path) -> None:
    full = broken / "full"
    full.mkdir()
    mount_small(full, failures.person, "size=64k")
    try:
        with pytest.raises(OSError, match="No space left"):
            (full / "data").write_bytes(bytes(100_000))
        message, job_id = await failures.start("scratch-full")
        await failures.ended_with(job_id, "79:0")
    finally:
        _run("umount", full)
    assert re.search("disk for temporary files on node s[0-9] is full", message), message
    assert re.search(rf"{full}/jupyter-\w+: No space left on device", message), message
    assert list(full.iterdir()) == []


@pytest.fixture
def hanging_home(home: Path, tmp_path: Path) -> Iterator[Path]:
    """The person's home on a disk whose server does not answer: a FUSE file system that has been stopped."""
    (tmp_path / "disk").mkdir()
    _run("mksquashfs", tmp_path / "disk", tmp_path / "disk.squashfs", "-quiet", "-no-progress")
    disk = subprocess.Popen(["squashfuse", "-f", "-o", "allow_other", str(tmp_path / "disk.squashfs"), str(home)])
    try:
        for _ in range(50):
            if home.is_mount():
                break
            time.sleep(0.1)
        assert home.is_mount()
        disk.send_signal(signal.SIGSTOP)
        yield home
    finally:
        disk.send_signal(signal.SIGCONT)
        # Else it may wait for those who still wait for it.
        _run("umount", "--lazy", home)
        disk.terminate()
        disk.wait(10)


async def test_a_home_that_hangs_keeps_the_hub_waiting_for_seconds_only(
    cluster: Any, person: str, hanging_home: Path
) -> None:
    """Nobody else waits, and no process stays."""
    reader = Reader(cluster.site)
    account, other = pwd.getpwnam(person), pwd.getpwnam(list(cluster.users)[1])
    began = time.monotonic()
    reading = asyncio.create_task(reader.log("17", account))
    assert await reader.log("17", other) is None
    assert time.monotonic() - began < 3
    assert not reading.done()
    with pytest.raises(NoAnswerError, match="does a disk hang"):
        await reading
    assert time.monotonic() - began < TIMEOUT + 2
    await until(lambda: not reader._running, 5, "the helper has ended")


# -- the server's own ends ---------------------------------------------------------------------------------------


async def test_the_server_dies_before_it_answers(failures: Failures) -> None:
    """Its code and its last lines are shown."""
    message, job_id = await failures.start(**PREFIXED, environment="dies")
    assert "The server ended before it answered (exit code 3)." in message
    assert "line 1\nline 2\nline 3" in message
    await failures.ended_with(job_id, "3:0")
    last = (await failures.hub.state(failures.person))["last"]
    assert (last["exit_code"], last["log"]) == (3, ["line 1", "line 2", "line 3"])


async def test_a_job_that_is_killed_before_it_could_say_anything(failures: Failures) -> None:
    """The person reads the end of its log."""
    hub, person = failures.hub, failures.person
    reading = asyncio.create_task(hub.failure(person, CPU, "killed"))
    job_id = (await hub.job(person, "killed"))["job_id"]
    path = Path(pwd.getpwnam(person).pw_dir) / f".snowyspawner-{job_id}.log"
    await until(lambda: path.exists() and "waiting for the hub" in path.read_text(), 20, "it has looked for the hub")
    os.kill(launcher(job_id), 9)
    message = await reading
    assert "The server was killed." in message
    line = "snowyspawner: waiting for the hub at http://127.0.0.1:1/hub/api/snowyspawner/"
    # Before it there may be a line about old logs.
    assert line in message.partition("<pre>")[2].partition("</pre>")[0]
    last = (await hub.state(person, "killed"))["last"]
    assert (last["job_id"], last["state"], last["signal"]) == (job_id, "FAILED", 9)
    assert last["log"] == path.read_text().splitlines()


async def test_a_serving_job_that_is_killed(failures: Failures) -> None:
    """Nobody reports its end; the hub keeps the end of its log."""
    hub, person = failures.hub, failures.person
    job_id = (await hub.serve(person, CPU))["job"]["job_id"]
    os.kill(launcher(job_id), 9)
    last = await stopped(hub, person)
    assert (last["job_id"], last["state"], last["signal"]) == (job_id, "FAILED", 9)
    assert 0 < len(last["log"]) <= 20
    assert all(line in failures.log(job_id) for line in last["log"])


async def test_a_serving_job_of_a_hub_before_this_one_is_killed(failures: Failures) -> None:
    """The new hub has to find out whose log it is."""
    hub, person = failures.hub, failures.person
    job_id = (await hub.serve(person, CPU))["job"]["job_id"]
    await hub.stop()
    (hub.directory / "url").unlink()
    await hub.start()
    os.kill(launcher(job_id), 9)
    last = await stopped(hub, person)
    assert (last["job_id"], last["state"]) == (job_id, "FAILED")
    assert last["log"]


async def test_somebody_cancels_a_job_that_waits(failures: Failures) -> None:
    hub, person, slurm = failures.hub, failures.person, failures.slurm
    later = datetime.fromtimestamp(time.time() + 3600, failures.cluster.site.zone).strftime("%Y-%m-%dT%H:%M")
    reading = asyncio.create_task(hub.failure(person, {**CPU, "begin": later}))
    job_id = (await hub.job(person))["job_id"]
    slurm("scancel", "-M", failures.cluster.site.cluster, job_id)
    assert "The job was cancelled by root." in await reading


async def stopped(hub: Hub, person: str, server: str = "", seconds: float = 90) -> dict[str, Any]:
    """Wait until the hub has noticed the end of a server; return what it has stored of it."""

    async def gone() -> bool:
        model = await hub.model(person, server)
        return model is None or bool(model["stopped"])

    await until(gone, seconds, f"the hub notices the end of {server!r}")
    return dict((await hub.state(person, server))["last"])


async def test_the_server_dies_later(failures: Failures) -> None:
    """The hub notices at once, and keeps the exit code and the last lines."""
    hub, person = failures.hub, failures.person
    state = await hub.serve(person, CPU)
    job_id = state["job"]["job_id"]
    # The kernel's parent is the server.
    await hub.call("POST", f"/user/{person}/api/kernels", {"name": "python3"})
    pid = await until(lambda: _server(job_id), 10, "the server's process")
    os.kill(pid, 9)
    last = await stopped(hub, person, seconds=10)
    assert last["exit_code"] == 137
    assert last["detail"] == "the server ended by itself (exit code 137)"
    assert 0 < len(last["log"]) <= 20
    assert last["log"][-1] in failures.log(job_id)
    assert (last["job_id"], last["state"]) == (job_id, "FAILED")
    assert queued(failures.slurm, failures.cluster, person) == []


def _server(job_id: str) -> int | None:
    """Return the process of a job that runs jupyterhub-singleuser itself."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            if (
                words[1].endswith(b"/jupyterhub-singleuser")
                and f"\0SLURM_JOB_ID={job_id}\0".encode() in (path / "environ").read_bytes()
            ):
                return int(path.name)
        except (OSError, IndexError):  # it has ended meanwhile, or is one of the kernel's
            continue
    return None


@pytest.mark.slow  # Slurm looks every 30 s whose time is up
async def test_what_slurm_does_to_a_running_session_is_known(failures: Failures, cluster: Any) -> None:
    """Out of time, out of memory, cancelled by somebody, its node down: the hub keeps which."""
    hub, slurm, name = failures.hub, failures.slurm, cluster.site.cluster
    person = failures.person
    servers = ("time", "memory", "cancelled", "node")
    options = {server: {**CPU, "memory": 600} if server == "memory" else CPU for server in servers}
    jobs = {}
    for server in servers:
        # One after the other: two cores have to start them all.
        jobs[server] = (await hub.serve(person, options[server], server))["job"]
    ids = {server: job["job_id"] for server, job in jobs.items()}
    at = datetime.fromtimestamp(time.time() + 1).strftime("%Y-%m-%dT%H:%M:%S")
    slurm("scontrol", "-M", name, "update", f"JobId={ids['time']}", f"EndTime={at}")
    slurm("scancel", "-M", name, ids["cancelled"])
    assert (await stopped(hub, person, "cancelled"))["state"] == "CANCELLED"
    # The name, or the number, of who did it.
    assert (await hub.state(person, "cancelled"))["last"]["by"] in ("root", "0")
    # It ends before it could answer.
    grow = asyncio.create_task(hub.run(person, "x = bytearray(900_000_000); import time; time.sleep(60)", "memory"))
    # Without cgroups, as here, Slurm does not call it OUT_OF_MEMORY.
    last = await stopped(hub, person, "memory")
    assert (last["state"], last["signal"]) == ("FAILED", 9)
    grow.cancel()
    assert (await stopped(hub, person, "time"))["state"] == "TIMEOUT"
    # The last one, as all jobs of the node end with it.
    node = jobs["node"]["node"]
    try:
        slurm("scontrol", "-M", name, "update", f"NodeName={node}", "State=DOWN", "Reason=test")
        assert (await stopped(hub, person, "node"))["state"] == "NODE_FAIL"
    finally:
        # It may have come back by itself.
        slurm("scontrol", "-M", name, "update", f"NodeName={node}", "State=RESUME", check=False)
        await until(lambda: slurm("sinfo", "-M", name, "-hn", node, "-o", "%t").strip().endswith("idle"), 30, node)
