"""Other clusters than Snowy, each as a miniature of its own: Pelle, and four that only a file describes.

They are brought up one after another, and everything that is specific to one stands in its class's tables.
"""

import contextlib
import itertools
import json
import os
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from demo.accounting import projects
from demo.commands import open_umask
from snowyspawner.choice.request import form_values

from ..faults import FaultHub, prologue
from ..hubs import Hub, until
from ..people import Person
from ..runs import account_prefix, state_directory

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.site]

SITES = Path(__file__).resolve().parent.parent / "sites"
PREFIX = account_prefix("snw")
# Far enough away that nothing starts.
LATER = 6 * 3600

Waiter = Callable[[str, dict[str, str], str], Awaitable[dict[str, str]]]

FACTS = """
import json, os, sys
names = ("SLURM_JOB_PARTITION", "SLURM_CPUS_ON_NODE", "CUDA_VISIBLE_DEVICES", "CPU_LIMIT", "OMP_NUM_THREADS")
names += ("MEM_LIMIT", "SLURM_JOB_ID", "APPTAINER_CONTAINER")
print(json.dumps({**{name: os.environ.get(name) for name in names}, "prefix": sys.prefix}))
"""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `field`, `gpu` or `refusal` is run for each line of its class's table, by each `way` in."""
    for name, table in (("field", "FIELDS"), ("gpu", "GPUS"), ("refusal", "REFUSALS")):
        if name not in metafunc.fixturenames:
            continue
        rows = getattr(metafunc.cls, table)
        label = {id(row): " ".join(f"{key}={value}" for key, value in row[0].items()) for row in rows}
        if "way" in metafunc.fixturenames:
            cases = [pytest.param(row, way, id=f"{way}: {label[id(row)]}") for row in rows for way in ways(row)]
            metafunc.parametrize((name, "way"), cases)
        else:
            metafunc.parametrize(name, rows, ids=list(label.values()))


def ways(row: tuple[dict[str, str], str, Any]) -> tuple[str, ...]:
    """How a choice is sent: in every way if there is a notebook.py line for it, else by REST alone."""
    return ("form", "link", "rest", "line") if row[1] else ("rest",)


@pytest.fixture(scope="class")
def cluster(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The miniature of the class's Site."""
    from demo.apptainer import ApptainerUnavailable
    from demo.cluster import Cluster

    state = state_directory("site")
    Cluster(state).down()  # of a run whose cluster was kept: another Site, perhaps
    made = Cluster(state, site=request.cls.SITE, users=request.cls.USERS, user_prefix=PREFIX)
    try:
        made.up()
        yield made
    except ApptainerUnavailable as error:
        pytest.skip(f"NO CONTAINER TESTS: {error}")
    finally:
        made.down()


@pytest.fixture(scope="class")
def slurm(cluster: Any) -> Any:
    """Run a command of Slurm's as root on the login node; return what it printed."""

    def run(*argv: str) -> str:
        env = {**os.environ, **cluster.env}
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, (argv, done.stdout, done.stderr)
        return done.stdout

    return run


@pytest.fixture(scope="class")
async def hub(request: pytest.FixtureRequest, cluster: Any) -> AsyncIterator[Hub]:
    directory: Path = cluster.state / "test-hub"
    shutil.rmtree(directory, ignore_errors=True)
    hub = request.cls.make_hub(cluster, directory)
    await hub.start()
    yield hub
    await hub.stop()


@pytest.fixture(scope="class")
def user(cluster: Any) -> str:
    """The account with sessions that really run."""
    return next(iter(cluster.users))


@pytest.fixture(scope="class")
async def waiter(hub: Hub, cluster: Any, slurm: Any) -> AsyncIterator[Waiter]:
    """Ask for a session in some hours, in one of the `ways`; return what Slurm has of it.

    It is left in the queue, which is quicker than to end it: everything goes with the cluster. Other accounts take
    turns, as a person may have only so many servers.
    """
    names = itertools.cycle(list(cluster.users)[1:-1])
    people: dict[str, Person] = {}
    begin = datetime.fromtimestamp(time.time() + LATER, cluster.site.zone).strftime("%Y-%m-%dT%H:%M")

    async def wait(way: str, choice: dict[str, str], line: str) -> dict[str, str]:
        name, server = next(names), f"s{secrets.token_hex(4)}"
        if way in ("rest", "line"):
            said = {"line": f"-b {begin} {line}"} if way == "line" else {"begin": begin, **choice}
            status, answer = await hub.submit(name, said, server)
            assert status in (201, 202), answer
        else:
            if name not in people:
                people[name] = await stack.enter_async_context(Person(hub, name))
            await send(people[name], way, {"begin": begin, **choice}, server)
        return show_job(slurm, (await hub.job(name, server))["job_id"])

    async with contextlib.AsyncExitStack() as stack:
        yield wait


async def send(person: Person, way: str, choice: dict[str, str], server: str) -> None:
    """Ask for a server by the form, or by a link that fills it in."""
    if way == "link":
        form = await person.form({f"opt-{field}": value for field, value in choice.items()}, server)
        assert {field: form.values[field] for field in choice} == choice
        status, back = await person.send(form)
    else:
        form = await person.form(server=server)
        # It offers the last choice; what is not asked for here is to be the Site's own.
        usual = form_values(person.hub.cluster.site)
        usual = {field: text for field, text in usual.items() if field in form.values}
        usual["account"] = projects(person.hub.cluster.site)[0]
        status, back = await person.send(form, **{**usual, **choice})
    assert status == 302, back.errors


@pytest.fixture(scope="class")
async def person(hub: Hub, user: str) -> AsyncIterator[Person]:
    """The same account, signed in."""
    async with Person(hub, user) as person:
        yield person


def show_job(slurm: Any, job_id: str) -> dict[str, str]:
    """``scontrol show job`` as a table."""
    found = dict(re.findall(r"(\S+?)=(\S*)", slurm("scontrol", "-o", "show", "job", job_id)))
    # --gpus is for the job, the others are for each node; how it is written depends on Slurm's version.
    asked = found.get("TresPerNode") or found.get("TresPerJob") or ""
    return {**found, "gpu": asked.replace("gres/", "gres:")}


def queued(slurm: Any, user: str) -> list[str]:
    """The ids of a person's jobs that are not over."""
    return slurm("squeue", "-h", "-u", user, "-t", "PENDING,RUNNING,CONFIGURING", "-o", "%i").split()


async def facts(hub: Hub, user: str) -> dict[str, Any]:
    """What a kernel sees of its session."""
    return json.loads(await hub.run(user, FACTS))


class SiteTests:
    """What is tested on every Site. A subclass says which, and what is to be expected there."""

    SITE: str
    USERS = 4
    #: Of the default choice: what scontrol shows, and what a kernel sees.
    DEFAULT: tuple[dict[str, str], dict[str, Any]]
    #: A choice with GPUs and the number of them.
    WITH_GPU: tuple[dict[str, str], int]
    #: Choices, the same as a notebook.py line (empty: see `ways`), and what scontrol shows of them.
    FIELDS: tuple[tuple[dict[str, str], str, dict[str, str]], ...]
    #: The same, one for each type of GPU.
    GPUS: tuple[tuple[dict[str, str], str, str], ...]
    #: Choices that are refused, the field and the sentence at it.
    REFUSALS: tuple[tuple[dict[str, str], str, str], ...]

    @staticmethod
    def make_hub(cluster: Any, directory: Path) -> Hub:
        """Make the hub that the class's tests ask."""
        return Hub(cluster, directory)

    def test_it_is_one_cluster(self, cluster: Any, slurm: Any) -> None:
        """Without -M, there is none to log in to elsewhere; each partition is Slurm's."""
        assert cluster.site.cluster == ""
        names = {cluster.site.slurm_partition(key) for key in cluster.site.partitions}
        assert set(slurm("sinfo", "-h", "-o", "%R").split()) == names
        assert len(slurm("sinfo", "-h", "-N", "-o", "%N").split()) >= len(names)

    async def test_the_form_offers_what_the_site_has(self, hub: Hub, cluster: Any) -> None:
        """To an account that has chosen nothing yet."""
        async with Person(hub, list(cluster.users)[-1]) as newcomer:
            form = await newcomer.form()
        defaults = cluster.site.defaults
        assert form.values["partition"] == defaults.partition
        assert form.values["environment"] == defaults.environment
        assert form.values["cores"] == str(defaults.cores)

    async def test_the_default_choice_is_a_session_and_stop_ends_its_job(
        self, hub: Hub, user: str, cluster: Any, slurm: Any
    ) -> None:
        shown, seen = self.DEFAULT
        state = await hub.serve(user, {})
        job_id = state["job"]["job_id"]
        assert not state["job"]["cluster"]
        job = show_job(slurm, job_id)
        assert {key: job.get(key) for key in shown} == shown
        assert (job["Account"], job["NumNodes"], job["Requeue"]) == ("demo", "1", "0")
        found = await facts(hub, user)
        assert {key: found[key] for key in seen} == seen
        assert found["CPU_LIMIT"] == found["OMP_NUM_THREADS"] == found["SLURM_CPUS_ON_NODE"]
        assert found["SLURM_JOB_ID"] == job_id
        assert found["APPTAINER_CONTAINER"] == str(cluster.image)
        await hub.end(user)
        await until(lambda: job_id not in queued(slurm, user), 20, "the job's end")

    async def test_a_session_has_its_gpus(self, hub: Hub, user: str, cluster: Any) -> None:
        choice, number = self.WITH_GPU
        await hub.serve(user, choice)
        found = await facts(hub, user)
        assert found["SLURM_JOB_PARTITION"] == cluster.site.slurm_partition(choice["partition"])
        assert len(found["CUDA_VISIBLE_DEVICES"].split(",")) == number
        await hub.end(user)

    async def test_a_field_reaches_slurm(
        self, waiter: Waiter, field: tuple[dict[str, str], str, dict[str, str]], way: str
    ) -> None:
        choice, line, shown = field
        seen = await waiter(way, {"gpu": "none", **choice}, f"--gres=none {line}")
        assert {key: seen.get(key) for key in shown} == shown
        assert (seen["NumNodes"].removesuffix("-1"), seen["gpu"]) == ("1", "")
        assert (seen["JobState"], seen["Reason"]) == ("PENDING", "BeginTime")

    async def test_a_gpu_reaches_slurm(
        self, waiter: Waiter, cluster: Any, gpu: tuple[dict[str, str], str, str], way: str
    ) -> None:
        choice, line, shown = gpu
        seen = await waiter(way, choice, line)
        assert seen["gpu"] == shown
        assert seen["Partition"] == cluster.site.slurm_partition(choice["partition"])
        # Slurm refuses at once what no node has.
        assert (seen["JobState"], seen["Reason"]) == ("PENDING", "BeginTime")

    async def test_a_refusal_is_a_sentence_at_its_field(
        self, hub: Hub, person: Person, slurm: Any, refusal: tuple[dict[str, str], str, str]
    ) -> None:
        choice, field, sentence = refusal
        # The form would offer the last session's choice.
        full = {"gpu": "none", "cores": "1", **choice}
        status, answer = await hub.submit(person.name, full)
        assert status == 400, answer
        assert f"{field}: {sentence}" in answer["message"]
        status, back = await person.send(await person.form(), **full)
        assert status == 400
        assert list(back.errors) == [field]
        assert sentence in back.errors[field]
        assert {key: back.values[key] for key in full} == full
        assert queued(slurm, person.name) == []


class TestPelle(SiteTests):
    """CPUs by -c, several types of GPU by --gpus, one partition in two parts, memory as one likes."""

    SITE = "pelle"
    USERS = 11  # most wait for a few of the sessions below
    DEFAULT = (
        {"Partition": "haswell", "NumCPUs": "4", "NumTasks": "1", "CPUs/Task": "4", "TimeLimit": "00:59:00"}
        | {"gpu": "gres:gpu:t4:1", "MinMemoryCPU": "6000M"},
        {"SLURM_JOB_PARTITION": "haswell", "SLURM_CPUS_ON_NODE": "4", "prefix": "/opt/conda/envs/tf-gpu"}
        | {"CUDA_VISIBLE_DEVICES": "0", "MEM_LIMIT": str(4 * 6000 * 1024 * 1024)},
    )
    WITH_GPU = ({"partition": "gpu", "gpu": "l40s:2"}, 2)
    FIELDS = (
        ({"partition": "pelle", "cores": "1"}, "-p pelle -c 1", {"NumCPUs": "1", "CPUs/Task": "1"}),
        (
            {"partition": "pelle", "cores": "96"},
            "-p pelle --cpus-per-task=96",
            {"Partition": "pelle", "NumCPUs": "96", "CPUs/Task": "96", "NumTasks": "1"},
        ),
        (
            {"partition": "pelle", "cores": "2", "memory": "300000"},
            "-p pelle -n 2 --mem=300000",
            {"NumCPUs": "2", "MinMemoryNode": "300000M"},
        ),
        ({"partition": "pelle", "memory": "65536"}, "-p pelle --mem=64G", {"MinMemoryNode": "64G"}),
        ({"partition": "pelle", "time": "9-23"}, "-p pelle -t 9-23", {"TimeLimit": "9-23:00:00"}),
        ({"partition": "haswell", "cores": "16"}, "-p haswell -c 16", {"Partition": "haswell", "NumCPUs": "16"}),
        (
            {"partition": "fat-2TB", "memory": "2000000"},
            "-p fat -C 2TB --mem=2000000M",
            {"Partition": "fat", "Features": "2TB", "MinMemoryNode": "2000000M"},
        ),
        (
            {"partition": "fat-3TB", "cores": "8"},
            "-p fat-3TB -c 8",
            {"Partition": "fat", "Features": "3TB", "CPUs/Task": "8"},
        ),
        ({"partition": "pelle", "email_on_start": "1"}, "-p pelle --mail-type=BEGIN", {"MailType": "BEGIN"}),
        ({"partition": "pelle", "account": "g2020014"}, "-p pelle -A g2020014", {"Account": "g2020014"}),
        ({"partition": "pelle", "environment": "tf-mkl"}, "-p pelle -- tf-mkl", {"Account": "demo"}),
    )
    GPUS = (
        ({"partition": "haswell", "gpu": "t4:1"}, "-p haswell --gpus=t4:1", "gres:gpu:t4:1"),
        ({"partition": "gpu", "gpu": "l40s:10", "cores": "64"}, "-p gpu -G l40s:10 -c 64", "gres:gpu:l40s:10"),
        ({"partition": "gpu", "gpu": "h100:2"}, "-p gpu --gres=gpu:h100:2", "gres:gpu:h100:2"),
    )
    REFUSALS = (
        ({"partition": "haswell", "cores": "17"}, "cores", "a node of haswell has 16: ask for 16 or fewer"),
        ({"partition": "fat-3TB", "cores": "97"}, "cores", "a node of fat-3TB has 96: ask for 96 or fewer"),
        ({"partition": "haswell", "memory": "262145"}, "memory", "a node of haswell has 262144 MB: ask for that or"),
        ({"partition": "pelle", "gpu": "t4:1"}, "gpu", "pelle has no GPUs: choose haswell, or no GPU"),
        ({"partition": "haswell", "gpu": "h100:1"}, "gpu", "haswell has no h100, only t4: choose gpu, or no GPU"),
        ({"partition": "gpu", "gpu": "h100:3"}, "gpu", "a node has 2 h100 at most: ask for 2"),
        ({"partition": "gpu", "time": "3-0"}, "time", "3 days is too long for gpu: at most 2 days"),
        ({"partition": "pelle", "time": "11-0"}, "time", "11 days is too long for pelle: at most 10 days"),
        ({"partition": "fat"}, "partition", "'fat' is not offered here"),
        ({"account": "g2019001"}, "account", "'g2019001' is not one of your projects: choose demo or g2020014"),
    )


class TestPuhti(SiteTests):
    """Projects of another form, memory that is always asked for, an environment that is a prefix, limits of jobs."""

    SITE = str(SITES / "puhti.yaml")
    DEFAULT = (
        {"Partition": "small", "NumCPUs": "2", "CPUs/Task": "2", "MinMemoryNode": "4000M", "TimeLimit": "00:30:00"}
        | {"gpu": ""},
        {"SLURM_JOB_PARTITION": "small", "SLURM_CPUS_ON_NODE": "2", "prefix": "/opt/conda/envs/tf-pip"}
        | {"CUDA_VISIBLE_DEVICES": None, "MEM_LIMIT": str(4000 * 1024 * 1024)},
    )
    WITH_GPU = ({"partition": "gputest", "gpu": "v100:4", "cores": "40", "time": "15", "environment": "tf-gpu"}, 4)
    FIELDS = (
        ({"partition": "interactive", "cores": "8"}, "", {"Partition": "interactive", "NumCPUs": "8"}),
        ({"partition": "hugemem", "memory": "1500000"}, "", {"Partition": "hugemem", "MinMemoryNode": "1500000M"}),
        ({"partition": "longrun", "time": "14-0"}, "", {"TimeLimit": "14-00:00:00"}),
    )
    GPUS = (
        ({"partition": "gpu", "gpu": "v100:1", "cores": "10"}, "", "gres:gpu:v100:1"),
        ({"partition": "gputest", "gpu": "v100:4", "time": "0:15:00"}, "", "gres:gpu:v100:4"),
    )
    REFUSALS = (
        ({"partition": "interactive", "cores": "9"}, "cores", "a node of interactive has 8: ask for 8 or fewer"),
        ({"partition": "small", "gpu": "v100:1"}, "gpu", "small has no GPUs: choose gpu or gputest, or no GPU"),
        ({"partition": "test", "time": "16"}, "time", "16 minutes is too long for test: at most 15 minutes"),
        ({"account": "g2021027"}, "account", "'g2021027' is not a project's name here"),
    )


class TestAlvis(SiteTests):
    """One partition in three parts, five types of GPU with capitals, --gpus-per-node, a constraint for none."""

    SITE = str(SITES / "alvis.yaml")
    DEFAULT = (
        {"Partition": "alvis", "NumCPUs": "4", "CPUs/Task": "4", "TimeLimit": "01:00:00", "gpu": "gres:gpu:T4:1"},
        {"SLURM_JOB_PARTITION": "alvis", "SLURM_CPUS_ON_NODE": "4", "prefix": "/opt/conda/envs/tf-gpu"}
        | {"CUDA_VISIBLE_DEVICES": "0"},
    )
    WITH_GPU = ({"partition": "icelake", "gpu": "A100:4", "cores": "64"}, 4)
    FIELDS = (
        ({"partition": "nogpu", "cores": "2"}, "", {"Partition": "alvis", "Features": "NOGPU", "CPUs/Task": "2"}),
        ({"partition": "nogpu", "time": "7-0"}, "", {"TimeLimit": "7-00:00:00"}),
    )
    GPUS = (
        ({"partition": "skylake", "gpu": "T4:8", "cores": "32"}, "", "gres:gpu:T4:8"),
        ({"partition": "skylake", "gpu": "V100:2"}, "", "gres:gpu:V100:2"),
        ({"partition": "skylake", "gpu": "v100:1"}, "", "gres:gpu:V100:1"),
        ({"partition": "icelake", "gpu": "A40:4", "cores": "64"}, "", "gres:gpu:A40:4"),
        ({"partition": "icelake", "gpu": "A100:1"}, "", "gres:gpu:A100:1"),
        ({"partition": "icelake", "gpu": "A100fat:4"}, "", "gres:gpu:A100fat:4"),
    )
    REFUSALS = (
        (
            {"partition": "skylake", "gpu": "T4:1", "cores": "33"},
            "cores",
            "a node of skylake has 32: ask for 32 or fewer",
        ),
        ({"partition": "nogpu", "gpu": "T4:1"}, "gpu", "nogpu has no GPUs: choose skylake, or no GPU"),
        ({"partition": "skylake", "gpu": "P100:1"}, "gpu", "'P100:1' is not offered here"),
        ({"partition": "icelake", "gpu": "A40:1", "time": "8-0"}, "time", "8 days is too long for icelake: at most 7"),
        ({"partition": "skylake"}, "gpu", "skylake is only for sessions with a GPU: choose T4:1 or V100:1, or"),
    )


class TestCosmos(SiteTests):
    """Cores by -n, GPUs without a type: the partition decides which."""

    SITE = str(SITES / "cosmos.yaml")
    DEFAULT = (
        {"Partition": "lu48", "NumCPUs": "2", "NumTasks": "2", "CPUs/Task": "1", "TimeLimit": "00:30:00", "gpu": ""}
        | {"MinMemoryCPU": "5300M"},
        {"SLURM_JOB_PARTITION": "lu48", "SLURM_CPUS_ON_NODE": "2", "prefix": "/opt/conda/envs/tf-mkl"}
        | {"CUDA_VISIBLE_DEVICES": None, "MEM_LIMIT": str(2 * 5300 * 1024 * 1024)},
    )
    WITH_GPU = ({"partition": "gpua100i", "gpu": "a100-40:2", "cores": "32", "environment": "tf-gpu"}, 2)
    FIELDS = (
        ({"cores": "48"}, "", {"Partition": "lu48", "NumCPUs": "48", "NumTasks": "48"}),
        ({"time": "168:00:00"}, "", {"TimeLimit": "7-00:00:00"}),
    )
    GPUS = (
        ({"partition": "gpua100", "gpu": "a100-80:1"}, "", "gres:gpu:1"),
        ({"partition": "gpua100i", "gpu": "a100-40:2"}, "", "gres:gpu:2"),
    )
    REFUSALS = (
        ({"partition": "gpua100i", "cores": "33"}, "cores", "a node of gpua100i has 32: ask for 32 or fewer"),
        ({"partition": "lu48", "gpu": "a100-40:1"}, "gpu", "lu48 has no GPUs: choose gpua100i, or no GPU"),
        ({"partition": "gpua100", "gpu": "a100-80:2"}, "gpu", "a node has 1 a100-80 at most: ask for 1"),
        ({"partition": "lu48", "time": "169:00:00"}, "time", "7 days 1 hour is too long for lu48: at most 7 days"),
    )


class TestGpus(SiteTests):
    """GPUs in slices and in parts, AMD's and Intel's; none of them is real, and Slurm believes in all."""

    SITE = str(SITES / "gpus.yaml")
    DEFAULT = (
        {"Partition": "slices", "NumCPUs": "2", "TimeLimit": "00:30:00", "gpu": "gres:gpu:a100_3g.20gb:1"},
        {"SLURM_JOB_PARTITION": "slices", "CUDA_VISIBLE_DEVICES": "0"},
    )
    WITH_GPU = ({"partition": "slices", "gpu": "mig:2"}, 2)
    FIELDS = (({"partition": "lumi", "cores": "8"}, "-p lumi -n 8", {"Partition": "lumi", "NumCPUs": "8"}),)
    GPUS = (
        ({"partition": "slices", "gpu": "mig:2"}, "-p slices --gres=gpu:a100_3g.20gb:2", "gres:gpu:a100_3g.20gb:2"),
        ({"partition": "shared", "gpu": "shard:3"}, "-p shared --gres=shard:3", "gres:shard:3"),
        ({"partition": "lumi", "gpu": "mi250:2"}, "-p lumi --gres=gpu:mi250:2", "gres:gpu:mi250:2"),
        ({"partition": "dawn", "gpu": "max1550:1"}, "-p dawn --gres=gpu:max1550:1", "gres:gpu:max1550:1"),
    )
    REFUSALS = (
        ({"partition": "slices", "gpu": "shard:1"}, "gpu", "slices has no shard"),
        ({"partition": "shared", "gpu": "shard:5"}, "gpu", "a node has 4 shard at most: ask for 4"),
        ({"partition": "lumi", "gpu": "max1550:1"}, "gpu", "lumi has no max1550"),
    )

    @staticmethod
    def make_hub(cluster: Any, directory: Path) -> Hub:
        """Make one whose jobs find an Apptainer that notes what it was told before it is the real one."""
        from demo.apptainer import program

        noting = directory / "noting"
        hub = FaultHub(cluster, directory, prologue(cluster, f'export PATH="{noting}:$PATH"'))
        hub.more_env["SNOWYSPAWNER_TEST_PATIENCE"] = "2"
        with open_umask():  # people run it
            noting.mkdir()
            text = f"""#!/bin/sh\nprintf '%s\\n' "$@" >"$HOME/told"\nexec {program()} "$@"\n"""
            (noting / "apptainer").write_text(text)
            (noting / "apptainer").chmod(0o755)
        return hub

    async def test_a_part_of_a_gpu_is_a_session_with_it(self, hub: Hub, user: str, slurm: Any) -> None:
        state = await hub.serve(user, {"partition": "shared", "gpu": "shard:2"})
        assert show_job(slurm, state["job"]["job_id"])["gpu"] == "gres:shard:2"
        assert (await facts(hub, user))["CUDA_VISIBLE_DEVICES"] == "0"
        await hub.end(user)

    @pytest.mark.parametrize(
        ("choice", "devices", "option"),
        [
            ({"partition": "lumi", "gpu": "mi250:2"}, "/dev/kfd", "--rocm"),
            ({"partition": "dawn", "gpu": "max1550:1"}, "/dev/dri/renderD128", ""),
        ],
        ids=["amd", "intel"],
    )
    async def test_a_session_has_the_gpus_of_another_vendor(
        self, hub: Hub, user: str, cluster: Any, choice: dict[str, str], devices: str, option: str
    ) -> None:
        """Not without their device files, which a stand-in is for here; the container is told whose they are."""
        message = await hub.failure(user, choice)
        assert "A GPU was asked for, but node g" in message
        with cluster.stand_in(devices):
            await hub.serve(user, choice)
            there = await hub.run(user, f"import os; print(os.path.exists('{devices}'))")
            told = (cluster.state / "home" / user / "told").read_text().splitlines()
            await hub.end(user)
        assert there.strip() == "True"
        assert [word for word in told if word in ("--nv", "--rocm")] == list(filter(None, [option]))
