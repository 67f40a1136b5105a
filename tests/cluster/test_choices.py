"""Every field reaches Slurm as it was asked for, whichever way it came; what may not be is refused at its field."""

import asyncio
import shlex
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from snowyspawner.slurm.times import BEGIN_HELP, parse_begin

from ..hubs import ROOT, Hub
from ..people import Person, start_by
from .test_session import MKL, queued, show_job

pytestmark = pytest.mark.cluster

# Far enough away that nothing starts; the site's own time of day.
LATER = 6 * 3600

# The choice, the same as a notebook.py line (empty: the line has no word for it), what scontrol shows.
FIELDS = [
    ({"time": "2:00:00"}, "-t 2:00:00", {"TimeLimit": "02:00:00"}),
    ({"time": "90"}, "--time=90", {"TimeLimit": "01:30:00"}),
    ({"time": "1-2"}, "-t 1-2", {"TimeLimit": "1-02:00:00"}),
    ({"cores": "1"}, "-n 1", {"NumCPUs": "1", "NumTasks": "1"}),
    ({"cores": "8"}, "-n 8", {"NumCPUs": "8", "MinMemoryCPU": "8000M"}),
    ({"cores": "16"}, "--ntasks=16", {"NumCPUs": "16", "NumNodes": "1"}),
    ({"partition": "devcore"}, "-p devcore", {"Partition": "devcore"}),
    ({"partition": "node"}, "-p node", {"Partition": "node"}),
    ({"partition": "devel", "time": "0:30:00"}, "-p devel -t 0:30:00", {"Partition": "devel", "TimeLimit": "00:30:00"}),
    ({"gpu": "t4:1"}, "--gres=gpu:t4:1", {"TresPerNode": "gres:gpu:t4:1"}),
    ({"account": "g2020014"}, "-A g2020014", {"Account": "g2020014"}),
    ({"reservation": "lab1"}, "--reservation=lab1", {"Reservation": "lab1"}),
    ({"environment": "tf-pip"}, "-- tf-pip", {}),
    ({"environment": "tf-gpu", "image": "broken.sif"}, "-- tf-gpu broken.sif", {}),
    ({"email_on_start": "1"}, "--mail-type=BEGIN", {"MailType": "BEGIN"}),
    ({"open": "course/lab 1.ipynb"}, "", {}),
    ({"repository": "https://git.example/labs.git#v1"}, "", {}),
]


# sbatch has no flag for a path to open, and none for a repository.
CASES = [
    pytest.param(way, *field, id=f"{way}: {field[1] or next(iter(field[0]))}")
    for field in FIELDS
    for way in ("form", "link", "rest", "line")
    if way != "line" or field[1]
]


@pytest.fixture(autouse=True)
def reservation(request: pytest.FixtureRequest) -> Iterator[None]:
    """``lab1`` is for the demo's people, one day. It is there for tests that name it."""
    if "lab1" not in request.node.name:
        yield
        return
    cluster, slurm = request.getfixturevalue("cluster"), request.getfixturevalue("slurm")
    control = ["scontrol", "-M", cluster.site.cluster]
    slurm(*control, "delete", "ReservationName=lab1", check=False)  # of a run whose cluster was kept
    lab = f"ReservationName=lab1 Users={','.join(cluster.users)} StartTime=now+30days Duration=60 Nodes=s1"
    slurm(*control, "create", "reservation", *shlex.split(lab))
    yield
    slurm(*control, "delete", "ReservationName=lab1")


@pytest.mark.slow
@pytest.mark.parametrize(("way", "choice", "line", "shown"), CASES)
async def test_each_field_reaches_slurm(
    hub: Hub,
    users: list[str],
    cluster: Any,
    slurm: Any,
    way: str,
    choice: dict[str, str],
    line: str,
    shown: dict[str, str],
) -> None:
    begin = datetime.fromtimestamp(time.time() + LATER, cluster.site.zone).strftime("%Y-%m-%dT%H:%M")
    # One core without a GPU, unless the case says otherwise.
    base = {"environment": "tf-mkl", "partition": "core", "cores": "1", "gpu": "none", "begin": begin}
    # The form offers the last choice again, so that each case says everything.
    base = {**base, "image": "container.sif", "time": "0:59:00", "account": "g2021027", "reservation": ""}
    full = {**base, "open": "", "repository": "", "email_on_start": "0", **choice}
    name = users[1]
    flags, _, words = line.partition("-- ") if line.startswith("-- ") else (line, "", "")
    start = f"-n 1 -p core --gres=gpu:t4:0 -b {begin} {flags} -- {words or 'tf-mkl'}"
    await start_by(way, hub, name, full, start, lambda: queued(slurm, cluster, name) == [])
    job = await hub.job(name)
    seen = show_job(slurm, cluster, job["job_id"])
    assert {key: seen.get(key) for key in shown} == shown
    assert seen["Account"] == full["account"]
    assert seen["JobState"] == "PENDING"
    assert seen["StartTime"] == datetime.fromisoformat(begin).replace(tzinfo=cluster.site.zone).astimezone().strftime(
        "%Y-%m-%dT%H:%M:%S"
    )
    asked = {**job["request"], "gpu": f"{job['request']['gpu']}:1" if job["request"]["gpu"] else "none"}
    for field in {"environment", "image", "open", "repository"} & choice.keys():
        assert asked[field] == choice[field]
    assert ("TresPerNode" in seen) == (asked["gpu"] != "none")


HOSTILE = [
    "a\nb",
    "a\r\n#SBATCH --uid=0",
    "\"';`",
    "$(touch /tmp/owned)",
    "{{7*7}}",
    "a\x00b",
    "é" * 600,
    "--uid=0",
    "😀",
]


@pytest.mark.parametrize("way", ["form", "rest"])
async def test_hostile_text_in_every_field_is_refused_at_the_field(
    hub: Hub, users: list[str], cluster: Any, slurm: Any, way: str
) -> None:
    """Nothing reaches sbatch; the form comes back with what was typed, for a named server too."""
    name = users[1]
    fields = ["environment", "image", "partition", "cores", "gpu", "time", "begin", "account", "reservation"]
    async with Person(hub, name) as person:
        form = await person.form(server="second")
        for text in HOSTILE:
            if way == "rest":
                status, answer = await hub.submit(name, dict.fromkeys(fields, text), "second")
                assert status == 400
                for field in fields:
                    assert f"{field}: " in answer["message"], (field, text)
            else:
                status, back = await person.send(form, **dict.fromkeys(fields, text))
                assert status == 400
                assert back.errors.keys() >= set(fields), text
                for field in fields:
                    # A browser sends lines as it likes; what can be shown in a field is shown.
                    if text.isprintable():
                        assert back.values[field] == text
    assert queued(slurm, cluster, name) == []


REFUSED = [
    ({"cores": "17"}, "cores", "a node of core has 16: ask for 16 or fewer"),
    ({"partition": "devcore", "gpu": "t4:1"}, "gpu", "devcore has no GPUs: choose core or node, or no GPU"),
    ({"partition": "devcore", "time": "2:00:00"}, "time", "2 hours is too long for devcore: at most 1 hour"),
    ({"environment": "tf-jax"}, "environment", "'tf-jax' is not offered here; choose tf-gpu, tf-mkl, tf-pip or gone"),
    ({"account": "g2019001"}, "account", "'g2019001' is not one of your projects: choose g2021027 or g2020014"),
    ({"begin": "2021-01-01T15:00"}, "begin", "(Europe/Stockholm) is in the past"),
    ({"begin": "soon"}, "begin", f"is not a time: write {BEGIN_HELP}"),
    ({"open": "../../etc/passwd"}, "open", "must be a path below your home directory"),
]


@pytest.mark.parametrize(("choice", "field", "sentence"), REFUSED, ids=[" ".join(c.values()) for c, _, _ in REFUSED])
async def test_a_refusal_is_a_sentence_at_its_field(
    hub: Hub, users: list[str], cluster: Any, slurm: Any, choice: dict[str, str], field: str, sentence: str
) -> None:
    """From form and REST alike."""
    name = users[1]
    full = {"environment": "tf-mkl", "partition": "core", "cores": "1", "gpu": "none", "time": "0:59:00", **choice}
    status, answer = await hub.submit(name, full)
    assert status == 400
    assert f"{field}: " in answer["message"]
    assert sentence in answer["message"]
    async with Person(hub, name) as person:
        status, back = await person.send(await person.form(), **full)
        assert status == 400
        assert list(back.errors) == [field]
        assert sentence in back.errors[field]
        assert {key: back.values[key] for key in full} == full
    assert queued(slurm, cluster, name) == []


async def test_a_second_job_in_devcore_is_refused_before_it_reaches_slurm(
    hub: Hub, users: list[str], cluster: Any, slurm: Any
) -> None:
    """Also when the first one was not started here."""
    name = users[1]
    begin = datetime.fromtimestamp(time.time() + LATER, cluster.site.zone).strftime("%Y-%m-%dT%H:%M")
    await hub.submit(name, {**MKL, "begin": begin})
    first = (await hub.job(name))["job_id"]
    status, answer = await hub.submit(name, {**MKL, "begin": begin}, "second")
    assert status == 400
    said = f"partition: job {first} is already waiting or running, and this partition takes only 1 at a time"
    assert said in answer["message"]
    assert "core or node" in answer["message"]
    assert queued(slurm, cluster, name) == [first]


class HubAbroad(Hub):
    """A hub whose Sites promise too much, on a host in New York; the Site, and sbatch, keep their own zones."""

    ZONE = "America/New_York"
    preloaded = False  # its environment, as the kernel shows it, is looked at

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "TZ": self.ZONE}


# What the file of the Site says and its cluster does not have, so that only Slurm can refuse it.
TOO_MUCH = {
    "single_node": True,
    "memory_free": True,
    "accounts": {"discover": False},
    "partitions": {
        "core": {"max_cores": 64},
        "devcore": {"gpus": ["t4"], "max_jobs": None},
        "long": {"max_cores": 16, "max_time": "10-0"},
    },
}


@pytest.fixture(scope="module")
async def abroad(cluster: Any) -> AsyncIterator[HubAbroad]:
    directory: Path = cluster.state / "hub-abroad"
    shutil.rmtree(directory, ignore_errors=True)  # of a run whose cluster was kept
    directory.mkdir(mode=0o755)
    site = {"extends": str(cluster.site_file), **TOO_MUCH}
    (directory / "default.yaml").write_text(yaml.safe_dump(site))
    # sbatch reads its lines until the first command, the administrator's own among them.
    late = {**site, "prologue": "#SBATCH --begin=tonight"}
    (directory / "late.yaml").write_text(yaml.safe_dump(late))
    hub = HubAbroad(cluster, directory, ROOT / "tests" / "lenient_hub_config.py")
    await hub.start()
    yield hub
    await hub.stop()


@pytest.fixture
async def guest(cluster: Any, abroad: Hub, slurm: Any) -> AsyncIterator[Person]:
    """Somebody who is signed in there. Afterwards they have neither server nor job."""
    name = list(cluster.users)[2]
    async with Person(abroad, name) as person:
        yield person
    status, model = await abroad.call("GET", f"/hub/api/users/{name}?include_stopped_servers")
    for server in model["servers"] if status == 200 else []:
        await abroad.end(name, server)
    slurm("scancel", "-M", cluster.site.cluster, "-u", name)


CLOSED = "Required partition not available (inactive or drain)"
NO_NODE = "Requested node configuration is not available"

# The choice, the field, our words, Slurm's.
SLURM_REFUSES = [
    ({"reservation": "nosuch"}, "reservation", "You cannot use this reservation.", "Requested reservation is invalid"),
    (
        {"account": "g2019001"},
        "account",
        "Slurm does not let you charge jobs to this project.",
        "Invalid account or account/partition combination specified",
    ),
    ({"cores": "17"}, "partition", "No node of this partition can ever give what you ask for.", NO_NODE),
    ({"partition": "devcore", "gpu": "t4:1"}, "partition", "No node of this partition can ever give", NO_NODE),
    ({"memory": "9000000"}, "memory", "No node of this partition has that much memory.", "can not be satisfied"),
    ({"partition": "long"}, "partition", "Slurm has no such partition.", "Invalid partition name specified"),
    ({"partition": "node"}, "partition", "This partition is closed at the moment.", CLOSED),
]


@pytest.fixture
def closed_partition(cluster: Any, slurm: Any) -> Iterator[None]:
    """``node`` takes no jobs."""
    change = ["scontrol", "-M", cluster.site.cluster, "update", "PartitionName=node"]
    slurm(*change, "State=INACTIVE")
    yield
    slurm(*change, "State=UP")


async def assert_slurm_refuses(
    person: Person, choice: dict[str, str], field: str, sentence: str, said: str, server: str = ""
) -> None:
    """The form comes back as it was typed, with our words and Slurm's at the field; REST has them, too."""
    base = {"environment": "tf-mkl", "partition": "core", "cores": "2", "gpu": "none", "memory": "", "time": "0:31:00"}
    full = {**base, "account": "g2021027", "reservation": "", "open": "lab 1", "begin": "", **choice}
    status, back = await person.send(await person.form(server=server), **full)
    assert status == 409
    assert list(back.errors) == [field]
    assert back.errors[field].startswith(sentence)
    assert said in back.errors[field]
    assert {key: back.values[key] for key in full} == full
    status, answer = await person.hub.submit(person.name, full, server)
    assert status == 409
    assert answer["message"].startswith(sentence)
    assert said in answer["message"]


@pytest.mark.usefixtures("closed_partition")
@pytest.mark.parametrize(
    ("choice", "field", "sentence", "said"), SLURM_REFUSES, ids=[" ".join(case[0].values()) for case in SLURM_REFUSES]
)
async def test_what_slurm_refuses_comes_back_at_its_field_with_slurms_words(
    guest: Person, cluster: Any, slurm: Any, choice: dict[str, str], field: str, sentence: str, said: str
) -> None:
    await assert_slurm_refuses(guest, choice, field, sentence, said)
    assert queued(slurm, cluster, guest.name) == []


async def test_a_begin_that_slurm_does_not_understand_comes_back_too(guest: Person, cluster: Any, slurm: Any) -> None:
    """What a person types is sent as a number: only the Site can add such a line."""
    sentence, said = "Slurm does not understand when to begin.", "Invalid --begin specification"
    begin = datetime.fromtimestamp(time.time() + LATER, cluster.site.zone).strftime("%Y-%m-%dT%H:%M")
    await assert_slurm_refuses(guest, {"begin": begin}, "begin", sentence, said, "late")
    # Who has not chosen a time is not told that theirs is wrong: no field is, and Slurm's words are there.
    status, back = await guest.send(await guest.form(server="late"))
    assert (status, list(back.errors)) == (409, [])
    status, answer = await guest.hub.submit(guest.name, {"begin": ""}, "late")
    assert status == 409
    assert answer["message"].startswith("Slurm refused this job.")
    assert said in answer["message"]
    assert queued(slurm, cluster, guest.name) == []


async def test_one_job_too_many_is_refused_by_slurm_where_the_site_does_not_say(
    hub: Hub, users: list[str], guest: Person, cluster: Any, slurm: Any
) -> None:
    assert guest.name in users
    begin = datetime.fromtimestamp(time.time() + LATER, cluster.site.zone).strftime("%Y-%m-%dT%H:%M")
    await hub.submit(guest.name, {**MKL, "begin": begin})
    first = (await hub.job(guest.name))["job_id"]
    sentence, said = (
        "You have as many jobs running or waiting here as you may have at a time.",
        "QOSMaxSubmitJobPerUserLimit",
    )
    await assert_slurm_refuses(guest, {"partition": "devcore"}, "partition", sentence, said)
    assert queued(slurm, cluster, guest.name) == [first]


async def begins(hub: Hub, name: str, cluster: Any, slurm: Any, server: str = "") -> int:
    """When Slurm will let the job begin, in seconds since the epoch."""
    job = await hub.job(name, server)
    ask = ["squeue", "-M", cluster.site.cluster, "-hj", job["job_id"], "-o", "%S"]
    return int(slurm("env", "SLURM_TIME_FORMAT=%s", *ask))


async def test_the_job_begins_at_the_sites_hour_wherever_the_hub_is(
    abroad: Hub, guest: Person, cluster: Any, slurm: Any
) -> None:
    """Site, hub and sbatch (which gets no TZ from the hub, so it has this machine's) in a zone each."""
    assert abroad.process is not None
    assert f"TZ={HubAbroad.ZONE}".encode() in Path(f"/proc/{abroad.process.pid}/environ").read_bytes().split(b"\0")
    form = await guest.form()
    assert "time of Europe/Stockholm" in form.helps["begin"]
    base = {"environment": "tf-mkl", "partition": "core", "cores": "1", "gpu": "none"}
    # Past in the Site's zone, to come in the hub's.
    past = datetime.fromtimestamp(time.time() - 2 * 3600, cluster.site.zone).strftime("%Y-%m-%dT%H:%M")
    status, back = await guest.send(form, **base, begin=past)
    assert status == 400
    assert f"'{past}' (Europe/Stockholm) is in the past" in back.errors["begin"]
    assert back.values["begin"] == past
    assert "time of Europe/Stockholm" in back.helps["begin"]
    # No hour in which clocks change, and none that is about to come.
    now = datetime.now(cluster.site.zone)
    moment = now.replace(hour=18 if 9 <= now.hour < 13 else 12, minute=30, second=0, microsecond=0)
    moment += timedelta(days=moment < now)
    ways = {"hour": moment.strftime("%H:%M"), "day": moment.strftime("%Y-%m-%dT%H:%M")}
    await asyncio.gather(*(abroad.submit(guest.name, {**base, "begin": ways[key]}, key) for key in ways))
    for server in ways:
        assert await begins(abroad, guest.name, cluster, slurm, server) == moment.timestamp()


@pytest.mark.parametrize(
    ("begin", "moment"),
    [
        # Europe/Stockholm; this hub and its sbatch run in whatever zone the machine has.
        ("2027-03-28T01:59", "2027-03-28T00:59+00:00"),
        ("2027-03-28T03:30", "2027-03-28T01:30+00:00"),  # the hour from 02 to 03 does not exist
        ("2027-10-31T02:30", "2027-10-31T00:30+00:00"),  # happens twice: the first time
        ("2027-10-31T03:30", "2027-10-31T02:30+00:00"),
    ],
)
async def test_the_job_begins_at_the_sites_hour_also_when_clocks_change(
    hub: Hub, users: list[str], cluster: Any, slurm: Any, begin: str, moment: str
) -> None:
    name = users[1]
    await hub.submit(name, {**MKL, "begin": begin})
    assert await begins(hub, name, cluster, slurm) == datetime.fromisoformat(moment).timestamp()
    async with Person(hub, name) as person:
        form = await person.form(server="second")
        assert form.values["begin"] == ""  # a time passes: it is not offered again


def test_a_begin_is_read_as_this_sbatch_reads_it(cluster: Any, users: list[str], slurm: Any) -> None:
    """The words of sbatch(1), given to sbatch itself."""
    zone = cluster.site.zone
    day = datetime.now(zone) + timedelta(days=40)
    texts = ["16:00", "16:00:05", "9:00", "4:00PM", "4:00 pm", "12:15AM", "12:15PM", "midnight", "noon", "fika"]
    texts += ["teatime", "Noon", "tomorrow", "tomorrow 9:00", "tomorrowT9:00", "tomorrow noon", "9:00 tomorrow"]
    texts += ["today 23:59", "now+600", "now+1hour", "now + 2 hours", "now+90minutes", "now+1day", "now+2weeks"]
    texts += [f"{day:{form}}" for form in ("%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%m/%d/%y", "%m%d%y")]
    texts += [f"{day:{form}}" for form in ("%m/%d/%y-%H:%M", "%m/%d")]
    person = ["setpriv", "--reuid", users[1], "--regid", users[1], "--init-groups", "env", f"TZ={zone.key}"]
    flags = shlex.split(f"-M {cluster.site.cluster} -A {cluster.site.accounts.default} -p core -n 1 -t 1 -D /tmp")
    expected = {}
    for text in texts:
        number = slurm(*person, "sbatch", "--parsable", *flags, "-o", "/dev/null", "-b", text, "--wrap", "true")
        expected[number.strip().partition(";")[0]] = text, parse_begin(text, datetime.now(zone))
    try:
        ask = ["squeue", "-M", cluster.site.cluster, "-h", "-u", users[1], "-o", "%i %S"]
        seen = dict(line.split() for line in slurm("env", "SLURM_TIME_FORMAT=%s", *ask).splitlines() if " " in line)
        wrong = {
            text: (moment, seen.get(number))
            for number, (text, moment) in expected.items()
            if abs(moment - int(seen.get(number, 0))) > ("now" in text)
        }
        assert wrong == {}
    finally:
        slurm("scancel", "-M", cluster.site.cluster, "-u", users[1])


async def test_an_hour_that_does_not_exist_is_refused(hub: Hub, users: list[str]) -> None:
    status, answer = await hub.submit(users[1], {**MKL, "begin": "2027-03-28T02:30"})
    assert status == 400
    assert "begin: '2027-03-28T02:30' does not exist: the clocks go forward in that hour" in answer["message"]
