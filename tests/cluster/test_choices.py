"""Every field reaches Slurm as it was asked for, whichever way it came; what may not be is refused at its field."""

import re
import shlex
import time
from datetime import datetime
from typing import Any

import pytest

from ..hubs import Hub
from ..people import Person
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
    ({"account": "g2021027"}, "-A g2021027", {"Account": "g2021027"}),
    ({"environment": "tf-pip"}, "-- tf-pip", {}),
    ({"environment": "tf-gpu", "image": "broken.sif"}, "-- tf-gpu broken.sif", {}),
    ({"email_on_start": "1"}, "--mail-type=BEGIN", {"MailType": "BEGIN"}),
    ({"open": "course/lab 1.ipynb"}, "", {}),
]


# sbatch has no flag for a path to open.
CASES = [
    pytest.param(way, *field, id=f"{way}: {field[1] or 'open'}")
    for field in FIELDS
    for way in ("form", "link", "rest", "line")
    if way != "line" or field[1]
]


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
    full = {**base, "image": "container.sif", "time": "0:59:00", "open": "", "email_on_start": "0", **choice}
    name = users[1]
    if way == "rest":
        status, answer = await hub.submit(name, full)
        assert status in (201, 202), answer
    elif way == "line":
        flags, _, words = line.partition("-- ") if line.startswith("-- ") else (line, "", "")
        start = f"-n 1 -p core --gres=gpu:t4:0 -b {begin} {flags} -- {words or 'tf-mkl'}"
        status, answer = await hub.submit(name, {"line": start})
        assert status in (201, 202), answer
    else:
        async with Person(hub, name) as person:
            if way == "link":
                form = await person.form({f"opt-{field}": value for field, value in full.items()})
                assert {field: form.values[field] for field in full} == full
                assert queued(slurm, cluster, name) == []
                status, back = await person.send(form)
            else:
                status, back = await person.send(await person.form(), **full)
            assert status == 302, back.errors
    job = await hub.job(name)
    seen = show_job(slurm, cluster, job["job_id"])
    assert {key: seen.get(key) for key in shown} == shown
    assert seen["JobState"] == "PENDING"
    assert seen["StartTime"] == datetime.fromisoformat(begin).replace(tzinfo=cluster.site.zone).astimezone().strftime(
        "%Y-%m-%dT%H:%M:%S"
    )
    asked = {**job["request"], "gpu": f"{job['request']['gpu']}:1" if job["request"]["gpu"] else "none"}
    for field in {"environment", "image", "open"} & choice.keys():
        assert asked[field] == choice[field]
    assert ("TresPerNode" in seen) == (asked["gpu"] != "none")


async def test_a_reservation_reaches_slurm(hub: Hub, users: list[str], cluster: Any, slurm: Any) -> None:
    name = users[1]
    make = f"scontrol -M {cluster.site.cluster} create reservation ReservationName=lab1 Users={name}"
    slurm(*shlex.split(f"{make} StartTime=now+6hours Duration=60 Nodes=s1"))
    try:
        await hub.submit(name, {**MKL, "partition": "core", "reservation": "lab1"})
        job = await hub.job(name)
        assert show_job(slurm, cluster, job["job_id"])["Reservation"] == "lab1"
        await hub.end(name)
    finally:
        slurm("scontrol", "-M", cluster.site.cluster, "delete", "ReservationName=lab1")


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
    ({"account": "g2020014"}, "account", "'g2020014' is not one of your projects: choose g2021027"),
    ({"begin": "2021-01-01T15:00"}, "begin", "(Europe/Stockholm) is in the past"),
    ({"begin": "soon"}, "begin", "is not a time: write 15:00, 2026-01-31T15:00, or now"),
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
    assert f"partition: job {first} is there already, and 1 at a time is allowed" in answer["message"]
    assert "core or node" in answer["message"]
    assert queued(slurm, cluster, name) == [first]


SLURM_REFUSES = [
    ({"reservation": "nosuch"}, "reservation", "You cannot use this reservation.", "Requested reservation is invalid"),
]


@pytest.mark.parametrize(("choice", "field", "sentence", "said"), SLURM_REFUSES)
async def test_what_slurm_refuses_comes_back_at_its_field_with_slurms_words(
    hub: Hub, users: list[str], cluster: Any, slurm: Any, choice: dict[str, str], field: str, sentence: str, said: str
) -> None:
    name = users[1]
    full = {"environment": "tf-mkl", "partition": "core", "cores": "2", "gpu": "none", "time": "0:31:00", **choice}
    async with Person(hub, name) as person:
        status, back = await person.send(await person.form(), **full)
    assert status == 409
    assert sentence in back.errors[field]
    assert said in back.errors[field]
    assert {key: back.values[key] for key in full} == full
    assert queued(slurm, cluster, name) == []


async def test_a_partition_that_is_down_is_said_in_words(hub: Hub, users: list[str], cluster: Any, slurm: Any) -> None:
    """Slurm takes the job and lets it wait, or refuses it: either way the person learns why."""
    name = users[1]
    change = ["scontrol", "-M", cluster.site.cluster, "update", "PartitionName=devcore"]
    slurm(*change, "State=INACTIVE")
    try:
        message = await hub.failure(name, {**MKL, "cores": 1})
        assert "This partition is closed at the moment." in message
        assert re.search(r"partition", message)
    finally:
        slurm(*change, "State=UP")


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
    job = await hub.job(name)
    shown = slurm("env", "SLURM_TIME_FORMAT=%s", "squeue", "-M", cluster.site.cluster, "-hj", job["job_id"], "-o", "%S")
    assert int(shown) == datetime.fromisoformat(moment).timestamp()
    async with Person(hub, name) as person:
        form = await person.form(server="second")
        assert form.values["begin"] == ""  # a time passes: it is not offered again


async def test_an_hour_that_does_not_exist_is_refused(hub: Hub, users: list[str]) -> None:
    status, answer = await hub.submit(users[1], {**MKL, "begin": "2027-03-28T02:30"})
    assert status == 400
    assert "begin: '2027-03-28T02:30' does not exist: the clocks go forward in that hour" in answer["message"]
