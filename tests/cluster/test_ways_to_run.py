"""Three ways to be the user: root's setpriv is everywhere else in these tests; here sudo, and being that very user.

The hub runs from the built wheel, in an environment made with Debian's Python, outside the checkout: neither account
could read a checkout below a closed directory.
"""

import asyncio
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.accounts import changes
from demo.commands import open_umask
from demo.state import free_ports
from snowyspawner.slurm import client as slurm_client
from snowyspawner.slurm.client import SlurmClient

from ..faults import ready
from ..hubs import ROOT, Hub, until
from ..runs import account_prefix
from ..software import make_environment
from ..wheel import build, copy_dependencies, install
from .test_failures import stopped
from .test_session import MKL, facts, launcher, queued, show_job
from .test_slurm_away import later, said

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

SERVICE = account_prefix("sns")
SUDOERS = Path(f"/etc/sudoers.d/{SERVICE}")
# Where administrators put it, but by a name that another checkout's tests do not use.
HELPER = Path(f"/usr/local/libexec/{SERVICE}-helper")

CONFIG = """
import os, snowyspawner
c.JupyterHub.spawner_class = "snowy"
c.SnowySpawner.site = {site!r}
c.JupyterHub.allow_named_servers = True
c.JupyterHub.bind_url = "http://127.0.0.1:{public}"
c.JupyterHub.hub_ip = "127.0.0.1"
c.JupyterHub.hub_port = {hub}
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api}"
c.ConfigurableHTTPProxy.command = {proxy!r}
c.Authenticator.allow_all = True
c.JupyterHub.services = [{{"name": "tests", "api_token": os.environ["SNOWYSPAWNER_TEST_TOKEN"]}}]
c.JupyterHub.load_roles = [
    {{"name": "tests", "services": ["tests"], "scopes": ["admin:users", "admin:servers", "access:servers"]}}
]
snowyspawner.set_config(c)
open("url", "w").write(c.JupyterHub.bind_url)
open("own", "w").write("http://127.0.0.1:{hub}")
"""


class OtherHub(Hub):
    """A hub that runs as somebody else, with what is installed from the wheel."""

    preloaded = False

    def __init__(self, cluster: Any, directory: Path, python: Path, account: str) -> None:
        super().__init__(cluster, directory)
        self.python, self.account = python, account

    @property
    def command(self) -> list[str]:
        jupyterhub = [str(self.python), "-m", "jupyterhub", "-f", str(self.directory / "config.py")]
        return ["setpriv", "--reuid", self.account, "--regid", self.account, "--init-groups", "--", *jupyterhub]


@pytest.fixture(scope="module")
def python(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has the wheel and nothing of the checkout."""
    wheel = build(tmp_path_factory.mktemp("wheel"))
    home = cluster.state / "test-wheel"
    shutil.rmtree(home, ignore_errors=True)
    before = os.umask(0o022)  # others run it
    try:
        subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", str(home)], check=True)
        copy_dependencies(install(wheel, home / "bin" / "python"))
    finally:
        os.umask(before)
    return home / "bin" / "python"


@pytest.fixture(scope="module")
def site_file(cluster: Any) -> Path:
    """The cluster's Site with course files and images, of which some are not for everybody."""
    first, second = list(cluster.users)[:2]
    directory: Path = cluster.state / "test-helper"
    shutil.rmtree(directory, ignore_errors=True)
    with open_umask():
        directory.mkdir()
        (directory / "open.yaml").write_text("name: Machine Learning, å\n")
        for name, owner in (("first", first), ("second", second)):
            (directory / f"{name}.yaml").write_text(f"{name}\n")
            (directory / f"{name}.yaml").chmod(0o400)
            shutil.chown(directory / f"{name}.yaml", owner, owner)
        site = {
            "extends": str(cluster.site_file),
            "helper": str(HELPER),
            "courses": {name: f"{directory}/{name}.yaml" for name in ("open", "first", "second", "gone")},
            "images": {
                "secret.sif": {"path": f"{directory}/second.yaml"},
                "gone.sif": {"path": f"{directory}/gone.sif"},
            },
        }
        path = directory / "site.yaml"
        path.write_text(yaml.safe_dump(site))
    return path


@pytest.fixture(scope="module")
def service(cluster: Any, python: Path, site_file: Path) -> Iterator[str]:
    """An account for the hub, share/deploy's sudoers file with the names of this machine in it, and the helper."""
    with pytest.raises(KeyError):
        pwd.getpwnam(SERVICE)
    with changes():
        subprocess.run(["useradd", "--system", "--no-create-home", "--shell", "/bin/false", SERVICE], check=True)
    try:
        text = (ROOT / "share" / "deploy" / "sudoers").read_text()
        text = text.replace("%hpcusers", ", ".join(cluster.users)).replace("\njupyterhub ", f"\n{SERVICE} ")
        text = text.replace("/usr/local/libexec/snowyspawner-helper\n", f"{HELPER}\n")
        # Two files may not define the same alias, and another run may have one.
        text = text.replace("SNOWYSPAWNER", SERVICE.upper())
        argv = [str(python.with_name("snowyspawner")), "helper", "--site", str(site_file)]
        printed = subprocess.run(argv, check=True, capture_output=True, cwd="/").stdout
        HELPER.parent.mkdir(exist_ok=True)
        HELPER.write_bytes(printed)
        HELPER.chmod(0o755)
        SUDOERS.touch(0o440)
        SUDOERS.write_text(text)
        subprocess.run(["visudo", "-c", "-f", str(SUDOERS)], check=True, stdout=subprocess.DEVNULL)
        yield SERVICE
    finally:
        SUDOERS.unlink(missing_ok=True)
        HELPER.unlink(missing_ok=True)
        with changes():
            subprocess.run(["userdel", SERVICE], check=True)


@pytest.fixture(params=["service account", "that very user"])
async def other_hub(
    request: pytest.FixtureRequest,
    cluster: Any,
    hub: Hub,
    users: list[str],
    python: Path,
    service: str,
    site_file: Path,
) -> AsyncIterator[OtherHub]:
    account = service if request.param == "service account" else users[0]
    directory: Path = cluster.state / "test-other-hub"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    shutil.chown(directory, account, account)
    public, api, port = free_ports(cluster.spare_ports, 3)
    text = CONFIG.format(
        site=str(site_file), public=public, api=api, hub=port, proxy=[str(w) for w in cluster.proxy_command]
    )
    (directory / "config.py").write_text(text)
    (directory / "config.py").chmod(0o644)
    other = OtherHub(cluster, directory, python, account)
    await other.start()
    yield other
    await other.end(users[0])
    await other.stop()


async def test_a_session_starts_runs_and_stops(other_hub: OtherHub, users: list[str], cluster: Any, slurm: Any) -> None:
    """As the person, in the container, from the wheel; the log is theirs; what Slurm refuses comes in words."""
    assert other_hub.process is not None
    status = Path(f"/proc/{other_hub.process.pid}/status").read_text()
    uid = pwd.getpwnam(other_hub.account).pw_uid
    assert f"\nUid:\t{uid}\t{uid}\t" in status
    name = users[0]
    message = await other_hub.failure(name, {**MKL, "reservation": "nosuch"})
    assert "You cannot use this reservation." in message

    state = await other_hub.serve(name, MKL)
    job_id = state["job"]["job_id"]
    assert show_job(slurm, cluster, job_id)["UserId"].startswith(f"{name}(")
    seen = await facts(other_hub, name)
    assert (seen["USER"], seen["CONDA_DEFAULT_ENV"], seen["CPU_LIMIT"]) == (name, "tf-mkl", "4")
    sudo = json.loads(
        await other_hub.run(
            name, "import json, os; print(json.dumps([n for n in os.environ if n.startswith('SUDO_')]))"
        )
    )
    assert sudo == []
    log = Path(f"~{name}/.snowyspawner-{job_id}.log").expanduser()
    assert log.owner() == name
    assert log.stat().st_mode & 0o777 == 0o600

    await other_hub.end(name)
    assert queued(slurm, cluster, name) == []


async def test_a_job_that_could_not_say_why_it_ended_shows_its_log(
    other_hub: OtherHub, users: list[str], cluster: Any, slurm: Any
) -> None:
    """Its launcher is killed: what is left is the log in the person's home, which the hub's account cannot read."""
    name = users[0]
    job_id = (await other_hub.serve(name, MKL))["job"]["job_id"]
    os.kill(launcher(job_id), signal.SIGKILL)
    last = await stopped(other_hub, name)
    assert (last["job_id"], last["state"], last["signal"]) == (job_id, "FAILED", 9)
    written = Path(f"~{name}/.snowyspawner-{job_id}.log").expanduser().read_text()
    assert 0 < len(last["log"]) <= 20
    assert all(line in written for line in last["log"])
    assert "Cannot read the log" not in other_hub.log()


def as_service(service: str, who: str, *words: str) -> subprocess.CompletedProcess[str]:
    argv = ["setpriv", "--reuid", service, "--regid", service, "--init-groups", "--", "sudo", "-n", "-u", who, *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20)


def test_the_helper_reads_as_the_person(service: str, users: list[str]) -> None:
    """By sudo, as the service account: what this person may read, and nothing else."""
    first, second = users[:2]
    account = pwd.getpwnam(first)
    log = Path(account.pw_dir) / ".snowyspawner-999999.log"
    log.write_text("last words\n")
    try:
        os.chown(log, account.pw_uid, account.pw_gid)
        log.chmod(0o600)
        done = as_service(service, first, str(HELPER), "log", "999999")
        assert (done.returncode, done.stdout, done.stderr) == (0, "last words\n", "")
        # The number is looked for in the home of whom it runs as.
        assert as_service(service, second, str(HELPER), "log", "999999").returncode == 11
        # Somebody else has put it there.
        os.chown(log, pwd.getpwnam(second).pw_uid, -1)
        log.chmod(0o644)
        assert as_service(service, first, str(HELPER), "log", "999999").returncode == 13
        log.unlink()
        log.symlink_to("/etc/passwd")
        assert as_service(service, first, str(HELPER), "log", "999999").returncode == 13
    finally:
        log.unlink()
    assert as_service(service, first, str(HELPER), "course", "open").stdout == "name: Machine Learning, å\n"
    assert as_service(service, first, str(HELPER), "course", "first").stdout == "first\n"
    assert as_service(service, second, str(HELPER), "course", "first").returncode == 12
    assert as_service(service, first, str(HELPER), "course", "gone").returncode == 11
    answers = {
        (who, key): as_service(service, who, str(HELPER), "image", key).stdout.strip()
        for who in (first, second)
        for key in ("container.sif", "secret.sif", "gone.sif")
    }
    assert answers == {
        (first, "container.sif"): "readable",
        (first, "secret.sif"): "forbidden",
        (first, "gone.sif"): "missing",
        (second, "container.sif"): "readable",
        (second, "secret.sif"): "readable",
        (second, "gone.sif"): "missing",
    }


READ = """
import asyncio, json, pwd, sys
from snowyspawner.session.as_person import Reader, ReadError
from snowyspawner.site import load
async def read():
    reader, account = Reader(load(sys.argv[1])), pwd.getpwnam(sys.argv[2])
    answers = [await reader.log("999998", account), await reader.image("secret.sif", account)]
    answers.append(await reader.course("first", account))
    try:
        await reader.course("second", account)
    except ReadError as error:
        answers.append(type(error).__name__)
    print(json.dumps(answers))
asyncio.run(read())
"""


@pytest.mark.parametrize("how", ["root", "service account", "that very user"])
def test_the_hub_reads_in_every_way_to_run(
    how: str, service: str, users: list[str], python: Path, site_file: Path
) -> None:
    """The same answers; the Reader of the wheel."""
    name = users[0]
    account = pwd.getpwnam(name)
    log = Path(account.pw_dir) / ".snowyspawner-999998.log"
    log.write_bytes(b"\xff\n\x1b[1mend\n")
    try:
        os.chown(log, account.pw_uid, account.pw_gid)
        log.chmod(0o600)
        uid = {"root": "root", "service account": service, "that very user": name}[how]
        prefix = ["setpriv", "--reuid", uid, "--regid", uid, "--init-groups", "--"]
        argv = [*prefix, str(python), "-c", READ, str(site_file), name]
        # A variable that sudo would have to allow.
        env = {**os.environ, "SLURM_CONF": "/etc/slurm/slurm.conf", "LC_ALL": "C"}
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd="/", env=env)
    finally:
        log.unlink()
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [["\ufffd", "end"], "forbidden", "first\n", "ForbiddenError"]


ASK = """
import asyncio, pwd, sys
from snowyspawner import site
from snowyspawner.choice import request
from snowyspawner.session import script
from snowyspawner.slurm.client import SlurmClient, prefix_for
the_site, account = site.load(sys.argv[1]), pwd.getpwnam(sys.argv[2])
target = script.Target("n", account.pw_dir, "", 1)
text = script.build(the_site, request.from_options({"gpu": "none"}, the_site), target)
env = script.variables(account, "")
print(asyncio.run(SlurmClient(the_site.cluster).would_start(text, prefix_for(account, env), env)))
"""


def test_the_service_account_may_ask_when_a_job_would_start(
    service: str, users: list[str], cluster: Any, slurm: Any, python: Path
) -> None:
    """By the same rule as sbatch itself; the answer is a time, as sudo keeps what says so to Slurm."""
    words = ["setpriv", "--reuid", service, "--regid", service, "--init-groups", "--", str(python), "-c", ASK]
    done = subprocess.run(
        [*words, str(cluster.site_file), users[0]],
        env={**os.environ, **cluster.env},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert abs(int(done.stdout) - time.time()) < 600
    assert queued(slurm, cluster, users[0]) == []


@pytest.mark.parametrize("other_hub", ["service account"], indirect=True)
async def test_one_s_own_software_is_looked_at_as_the_person(
    service: str, other_hub: OtherHub, users: list[str], cluster: Any, slurm: Any
) -> None:
    """By sudo, too: nobody else's, and nothing elsewhere; and a start is refused or goes on by what was found."""
    first, second = users[:2]
    home = Path(pwd.getpwnam(first).pw_dir)
    mine = make_environment(home / "envs" / "lab", first)
    other = make_environment(Path(pwd.getpwnam(second).pw_dir) / "envs" / "lab", second)

    def found(who: str, path: Path | str) -> str:
        done = as_service(service, who, str(HELPER), "own", "own_environment", str(path))
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.partition("\n")[0]

    assert found(first, "~/envs/lab") == found(first, mine) == "ready"
    assert found(first, "~/envs/none") == "missing"
    assert found(first, other) == found(first, "/usr/bin") == "outside"
    message = await other_hub.failure(first, {**MKL, "own_environment": "~/envs/none"})
    assert "own_environment: ~/envs/none does not exist: make it with" in message
    assert queued(slurm, cluster, first) == []
    await other_hub.submit(first, {**MKL, "begin": later(cluster, 600), "own_environment": "~/envs/lab"})
    assert (await other_hub.job(first))["request"]["own_environment"] == "~/envs/lab"
    await other_hub.end(first)
    assert "Cannot look at" not in other_hub.log()


def test_the_service_account_may_run_nothing_else(service: str, users: list[str]) -> None:
    """share/deploy's sudoers file lets it run sbatch, scancel and the helper as a user, and that is all."""
    for who, words in (
        (users[0], ["/usr/bin/id"]),
        (users[0], ["/bin/sh", "-c", "id"]),
        (users[0], ["/usr/bin/python3", "-IS", "-"]),
        (users[0], ["/usr/local/libexec/snowyspawner-helper", "log", "1"]),
        ("root", ["/usr/bin/sbatch", "--version"]),
        ("root", [str(HELPER), "log", "1"]),
        ("nobody", ["/usr/bin/sbatch", "--version"]),
        ("nobody", [str(HELPER), "course", "open"]),
    ):
        done = as_service(service, who, *words)
        assert done.returncode == 1, (who, words)
        assert "password is required" in done.stderr
    # Of the environment the helper gets nothing that could change what it does.
    done = as_service(service, users[0], "PYTHONPATH=/tmp", str(HELPER), "course", "open")
    assert done.returncode == 1
    assert "not allowed to set the following environment variables: PYTHONPATH" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("cat", "/etc/passwd"),
        ("log", "../x"),
        ("log", "1", "2"),
        ("course", "/etc/passwd"),
        ("own", "images", "~/lab"),
        ("own", "own_environment", "lab"),
        ("own", "own_environment", "~/../../etc"),
    ],
)
def test_the_helper_takes_no_other_path(service: str, users: list[str], words: tuple[str, ...]) -> None:
    done = as_service(service, users[0], str(HELPER), *words)
    assert (done.returncode, done.stdout) == (10, "")


# -- PrivateData -------------------------------------------------------------------------------------------------


@pytest.fixture
def private(cluster: Any, slurm: Any) -> Iterator[None]:
    """Nobody sees another person's jobs, accounting's neither (slurm.conf(5), slurmdbd.conf(5), PrivateData)."""
    conf = cluster.state / "conf" / cluster.site.cluster / "slurm.conf"
    before = conf.read_text()

    def write(text: str) -> None:
        # In one step: slurmd may be reading it.
        new = conf.with_suffix(".new")
        new.write_text(text)
        new.chmod(conf.stat().st_mode)
        new.replace(conf)
        slurm("scontrol", "-M", cluster.site.cluster, "reconfigure")

    try:
        write(f"{before}\nPrivateData=jobs,usage\n")
        yield
    finally:
        write(before)


def sees(account: str, cluster: Any) -> str:
    """All jobs that *account* is shown."""
    words = ["setpriv", "--reuid", account, "--regid", account, "--clear-groups", "--", "squeue"]
    env = {**os.environ, **cluster.env}
    argv = [*words, "-M", cluster.site.cluster, "-ho", "%i"]
    return subprocess.run(argv, env=env, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("other_hub", ["service account"], indirect=True)
async def test_jobs_that_slurm_hides_from_the_hub_are_followed_as_their_owner(
    private: None,
    other_hub: OtherHub,
    users: list[str],
    cluster: Any,
    slurm: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = users[0]
    await other_hub.submit(name, {**MKL, "begin": later(cluster, 600)})
    job = await other_hub.job(name)
    assert sees(SERVICE, cluster) == ""
    assert sees(name, cluster) == job["job_id"]
    await said(other_hub, name, "", "Waiting for the time that you chose.", 40)
    # It counts where one at a time is allowed, and the form does not say that nobody waits.
    message = await other_hub.failure(name, MKL, "second")
    assert f"job {job['job_id']} is already waiting or running" in message
    conf = cluster.state / "conf" / cluster.site.cluster / "slurm.conf"
    monkeypatch.setattr(slurm_client, "sees_all_jobs", lambda: False)
    assert await SlurmClient("", str(conf)).hides_jobs()
    # Its end is known, and whose doing it was.
    slurm("scancel", "-M", cluster.site.cluster, job["job_id"])
    last = await stopped(other_hub, name, seconds=40)
    assert (last["state"], last["by"]) == ("CANCELLED", "root")
    await other_hub.serve(name, MKL)
    await other_hub.end(name)
    assert queued(slurm, cluster, name) == []


@pytest.mark.parametrize("other_hub", ["service account"], indirect=True)
async def test_a_job_that_the_hub_may_not_see_is_not_given_up(
    private: None, other_hub: OtherHub, users: list[str], cluster: Any, slurm: Any
) -> None:
    """sudo does not let the hub ask as the person either. After ten minutes, here seconds, the job still waits."""
    name, before = users[0], SUDOERS.read_text()
    config = other_hub.directory / "config.py"
    await other_hub.stop()
    config.write_text(f"from snowyspawner.session import lifecycle\nlifecycle._UNKNOWN_FOR = 3.0\n{config.read_text()}")
    try:
        SUDOERS.write_text(before.replace(", /usr/bin/squeue, /usr/bin/sacct, /usr/bin/sacctmgr", ""))
        await other_hub.start()
        await other_hub.submit(name, {**MKL, "begin": later(cluster, 50)})
        job = await other_hub.job(name)
        await until(lambda: "does not show the hub job" in other_hub.log(), 30, "the remedy")
        await asyncio.sleep(8)
        assert queued(slurm, cluster, name) == [job["job_id"]]
        model = await other_hub.model(name)
        assert model is not None
        assert model["pending"] == "spawn"
        assert other_hub.log().count("does not show the hub job") == 1
        assert "let sudo run squeue and sacct" in other_hub.log()
        # Nor is it when it begins: where it runs has to be a node of the cluster's.
        await ready(other_hub, name, seconds=100)
    finally:
        SUDOERS.write_text(before)
    assert await other_hub.job_seen(name) == job["job_id"]
    await other_hub.end(name)
    assert queued(slurm, cluster, name) == []


# -- snowyspawner check ------------------------------------------------------------------------------------------

Said = list[dict[str, str]]


@pytest.fixture
def check(cluster: Any, python: Path, service: str) -> Iterator[Callable[..., tuple[int, Said]]]:
    """Check a hub as the service account; return the exit code and what was said.

    *rule* changes the sudoers file, *helper* the installed one; *more* is added to the hub's configuration.
    """
    directory: Path = cluster.state / "test-check"
    shutil.rmtree(directory, ignore_errors=True)
    with open_umask():
        directory.mkdir()
        shutil.chown(directory, service, service)
        site, config = directory / "site.yaml", directory / "jupyterhub_config.py"
        site.write_text(yaml.safe_dump({"extends": str(cluster.site_file), "helper": str(HELPER)}))
    env = {**os.environ, **cluster.env}
    snowyspawner = str(python.with_name("snowyspawner"))
    before, installed = SUDOERS.read_text(), HELPER.read_bytes()
    made = subprocess.run([snowyspawner, "helper", "--site", str(site)], env=env, check=True, capture_output=True)

    def run(
        *words: str,
        rule: Callable[[str], str] = str,
        helper: Callable[[bytes], object] = lambda _: None,
        more: str = "",
    ) -> tuple[int, Said]:
        with open_umask():
            config.write_text(
                f"import snowyspawner\nc.SnowySpawner.site = {str(site)!r}\nc.Authenticator.allow_all = True\n"
                "c.JupyterHub.authenticator_class = 'dummy'\n"
                f"c.JupyterHub.hub_port = {cluster.ports['hub']}\nsnowyspawner.set_config(c)\n{more}\n"
            )
        SUDOERS.write_text(rule(before))
        HELPER.write_bytes(made.stdout)
        helper(made.stdout)
        who = ["setpriv", "--reuid", service, "--regid", service, "--init-groups", "--"]
        argv = [*who, snowyspawner, "check", "--json", "-f", str(config), *words]
        done = subprocess.run(argv, env=env, cwd=directory, capture_output=True, text=True, check=False, timeout=90)
        assert "Traceback" not in done.stderr
        return done.returncode, json.loads(done.stdout)["checks"]

    try:
        yield run
    finally:
        SUDOERS.write_text(before)
        HELPER.unlink(missing_ok=True)
        HELPER.write_bytes(installed)
        HELPER.chmod(0o755)


def test_check_finds_nothing_wrong_and_its_job_answers(
    check: Callable[..., tuple[int, Said]], service: str, users: list[str], cluster: Any, slurm: Any
) -> None:
    """As the service account, by sudo; what is kept for the hub's page is that account's alone."""
    code, said = check("--job", users[0])
    assert [each for each in said if each["state"] == "fail"] == []
    assert code == 0
    told = {each["name"]: each for each in said}
    assert re.fullmatch(rf"{service} may run sbatch, .* and the helper as {users[0]}", told["sudo"]["said"])
    assert told["helper"]["said"] == f"{HELPER} is this version's and this site's"
    assert told["images"]["said"] == f"container.sif can be read by {users[0]}"
    assert told["job: tf-mkl in container.sif"]["state"] == "ok"
    result = cluster.state / "test-check" / "snowyspawner-check.json"
    assert (result.owner(), result.stat().st_mode & 0o777) == (service, 0o600)
    assert json.loads(result.read_text())["checks"] == said
    assert queued(slurm, cluster, users[0]) == []
    assert list((cluster.state / "home" / users[0]).glob(".snowyspawner-*.log")) == []


def other_text(data: bytes) -> None:
    HELPER.write_bytes(data.replace(b"LIMIT = 64", b"LIMIT = 32"))


def other_site(data: bytes) -> None:
    HELPER.write_bytes(data.replace(b"/jupyter-course.yaml", b"/other.yaml"))


#: What is changed, and what each of the mistakes in it is called: name, a part of what is said, of the remedy.
WRONG: dict[str, tuple[dict[str, Any], list[tuple[str, str, str]]]] = {
    "anybody": (
        {
            "rule": lambda text: re.sub(r" ALL=\(.*?\)", " ALL=(ALL)", text),
            "helper": lambda _: HELPER.chmod(0o777),
            "more": "c.JupyterHub.authenticator_class = 'pam'",
        },
        [
            ("sudo", "as ALL, which is too much", "%hpcusers"),
            ("helper", "mode 0777: others than root can change it", "chmod 0755"),
            ("sign-in", "cannot check other people's passwords", "OAuth, LDAP"),
        ],
    ),
    "everything": (
        {
            "rule": lambda text: re.sub(r"NOPASSWD:SETENV:.*", "NOPASSWD:SETENV: ALL", text),
            "helper": other_text,
            "more": "c.JupyterHub.db_url = 'sqlite:////var/lib/snowyspawner-nosuch/hub.sqlite'",
        },
        [
            ("sudo", "may run every command as", "Name the commands in the sudoers file: /"),
            ("helper", "is not this version's", "snowyspawner helper -f .* install -D -o root"),
            ("database", "cannot write /var/lib/snowyspawner-nosuch/hub.sqlite", "chown"),
        ],
    ),
    "no SETENV": (
        {
            "rule": lambda text: text.replace("NOPASSWD:SETENV:", "NOPASSWD:NOSETENV:"),
            "helper": other_site,
            "more": "c.JupyterHub.cookie_secret_file = '/var/lib/snowyspawner-nosuch/secret'",
        },
        [
            ("sudo", "sbatch: sorry, you are not allowed to set", "Put SETENV: before"),
            ("helper", "made for another site, or for what it was: courses differ", "snowyspawner helper -f "),
            ("cookie secret", "cannot make /var/lib/snowyspawner-nosuch/secret", "cookie_secret_file"),
        ],
    ),
    "not in the group": (
        {
            "rule": lambda text: re.sub(r" ALL=\(.*?\)", " ALL=(nobody)", text),
            "helper": lambda _: shutil.chown(HELPER, "nobody"),
        },
        [
            ("sudo", "sbatch: a password is required", "a group that"),
            ("helper", "belongs to user id 65534", "chown root:root"),
        ],
    ),
    "no rule": (
        {"rule": lambda text: "", "helper": lambda _: HELPER.unlink()},
        [
            ("sudo", "may run nothing by sudo without a password", "visudo -c"),
            ("helper", "No such file or directory", "install -D -o root"),
        ],
    ),
}


@pytest.mark.parametrize("which", WRONG)
def test_check_names_what_is_wrong_with_sudo_and_the_helper(
    which: str, check: Callable[..., tuple[int, Said]], cluster: Any
) -> None:
    made, mistakes = WRONG[which]
    code, said = check("--user", next(iter(cluster.users)), **made)
    assert code == 1
    wrong = [each for each in said if each["state"] == "fail"]
    for name, part, remedy in mistakes:
        found = [each for each in wrong if each["name"] == name]
        assert any(re.search(part, each["said"]) and re.search(remedy, each["remedy"]) for each in found), found
    # And nothing else.
    assert {each["name"] for each in wrong} == {name for name, _, _ in mistakes}
