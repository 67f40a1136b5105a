"""One gate for every way in: what comes through is a number, a member of a list, or matches a pattern."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from snowyspawner.choice.notebook_line import to_line
from snowyspawner.choice.request import RequestError, SessionRequest, default_options, from_form, from_options
from snowyspawner.session import script
from snowyspawner.session.script import Target
from snowyspawner.site import Site
from snowyspawner.site.fields import FIELDS
from snowyspawner.slurm.times import BEGIN_HELP

STOCKHOLM = ZoneInfo("Europe/Stockholm")
NOW = datetime(2026, 10, 1, 12, 0, tzinfo=STOCKHOLM).timestamp()


def at(text: str) -> float:
    """Return the epoch seconds of a moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


def refused(options: Mapping[str, Any], site: Site, now: float = NOW) -> dict[str, str]:
    with pytest.raises(RequestError) as caught:
        from_options(options, site, now)
    return caught.value.errors


# -- defaults ----------------------------------------------------------------------------------------------------


def test_no_options_at_all_ask_for_what_the_seed_asked_for(snowy: Site) -> None:
    # notebookjob.sh: -A g2021027 -t 0:59:00 -p core -n 4 -M snowy --gres=gpu:t4:1, then tf-gpu in container.sif
    assert from_options({}, snowy) == SessionRequest(
        environment="tf-gpu",
        image="container.sif",
        partition="core",
        cores=4,
        gpu="t4",
        gpu_count=1,
        time=59 * 60,
        account="g2021027",
    )


@pytest.mark.parametrize("nothing", [None, ""])
def test_null_and_an_empty_field_mean_the_default(snowy: Site, nothing: Any) -> None:
    assert from_options(dict.fromkeys(FIELDS, nothing), snowy) == from_options({}, snowy)


def test_the_defaults_have_a_value_for_every_field(snowy: Site) -> None:
    assert set(default_options(snowy)) == set(FIELDS)


def test_a_request_does_not_change(snowy: Site) -> None:
    with pytest.raises(ValueError, match="frozen"):
        from_options({}, snowy).cores = 16


# -- round trips -------------------------------------------------------------------------------------------------

ROUND_TRIPS: list[dict[str, Any]] = [
    {},
    {"gpu": "none", "environment": "tf-mkl", "partition": "devcore", "cores": 16, "time": "1:00:00"},
    {"cores": "1", "time": "1:30"},
    {"time": "9-23:59:59", "partition": "core"},
    {"begin": "15:00"},
    {"begin": "2026-12-24T18:00"},
    {"begin": "2026-12-24T18:00:30"},
    {"begin": "2026-10-25T02:30"},  # there are two of them
    {"account": "uppmax2023-2-11", "reservation": "g2021027_1"},
    {"email_on_start": True},
    {"open": "course/lab 1 (å).ipynb"},
    {"open": "~/course"},
]


@pytest.mark.parametrize("options", ROUND_TRIPS, ids=str)
def test_what_the_form_shows_is_read_back_as_the_same_request(snowy: Site, options: dict[str, Any]) -> None:
    request = from_options(options, snowy, NOW)
    shown = request.options(snowy)
    assert set(shown) == set(FIELDS)
    assert all(isinstance(value, str) for value in shown.values())
    assert from_options(shown, snowy, NOW) == request


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("default", [True, False])
def test_a_choice_against_the_site_s_default_survives_the_round_trip(
    variant: Callable[..., Site], default: bool, wanted: bool
) -> None:
    site = variant(memory_free=True, defaults={"email_on_start": default, "memory": 9000, "open": "course"})
    request = from_options({"email_on_start": wanted, "memory": "", "open": ""}, site, NOW)
    assert (request.email_on_start, request.memory, request.open) == (wanted, None, "")
    assert from_options(request.options(site), site, NOW) == request


def test_a_request_survives_being_stored_as_json(snowy: Site) -> None:
    request = from_options({"begin": "15:00", "open": "å b"}, snowy, NOW)
    assert SessionRequest.model_validate(json.loads(json.dumps(request.model_dump()))) == request


def test_a_posted_form_becomes_options(snowy: Site) -> None:
    form: dict[str, Any] = {
        "_xsrf": ["2|abc"],
        "cores": ["8"],
        "email_on_start": ["0", "1"],  # the hidden field, then the box that was ticked
        "empty": [],
        "file_file": [{"filename": "x", "body": b"x"}],  # how JupyterHub passes an upload on
    }
    assert from_form(form) == {"cores": "8", "email_on_start": "1"}


# -- limits ------------------------------------------------------------------------------------------------------

CPU = {"gpu": "none", "environment": "tf-mkl"}


@pytest.mark.parametrize(
    ("options", "field", "sentence"),
    [
        ({"cores": 17}, "cores", "a node of core has 16: ask for 16 or fewer"),
        ({"cores": "four"}, "cores", "'four' is not a whole number"),
        ({"cores": "4.0"}, "cores", "'4.0' is not a whole number"),
        ({"cores": "1e1"}, "cores", "'1e1' is not a whole number"),
        ({"cores": "\uff14"}, "cores", "'\uff14' is not a whole number"),  # a digit, but not Slurm's
        ({"cores": 5000}, "cores", "5000 is not possible"),
        ({"cores": 0}, "cores", "0 is not possible"),
        ({"partition": "devcore"}, "gpu", "devcore has no GPUs: choose core or node, or no GPU"),
        (
            {**CPU, "partition": "devcore", "time": "2:00:00"},
            "time",
            "2 hours is too long for devcore: at most 1 hour, or choose core or node",
        ),
        ({"time": "10-00:00:01"}, "time", "10 days 1 second is too long for core: at most 10 days, or choose node"),
        ({"time": "31-0"}, "time", "31 days is too long for core: at most 10 days"),
        ({"time": "2h"}, "time", "'2h' is not a duration: write minutes, minutes:seconds, "),
        ({"time": "0"}, "time", "'0' is not a duration"),
        ({"gpu": "t4:2"}, "gpu", "a node has 1 t4 at most: ask for 1"),
        ({"gpu": "a100"}, "gpu", "'a100' is not offered here; choose t4:1 or none"),
        ({"gpu": "t4:1:1"}, "gpu", "'t4:1:1' is not offered here"),
        ({"gpu": "t4:-1"}, "gpu", "'t4:-1' is not offered here"),
        ({"partition": "gpu"}, "partition", "'gpu' is not offered here; choose core, node, devcore or devel"),
        ({"environment": "torch"}, "environment", "'torch' is not offered here; choose tf-gpu, tf-mkl or tf-pip"),
        ({"image": "/etc/passwd"}, "image", "'/etc/passwd' is not offered here; choose container.sif"),
        ({"memory": 9000}, "memory", "comes with the cores here, 8000 MB for each: ask for more cores instead"),
        ({"account": "root"}, "account", "'root' is not a project's name here"),
        ({"account": "g2021027 "}, "", ""),  # a copied blank is no mistake
        ({"reservation": "-x"}, "reservation", "'-x' is not a reservation's name"),
        ({"email_on_start": "perhaps"}, "email_on_start", "must be true or false"),
        ({"email_on_start": 1}, "email_on_start", "must be true or false"),
        ({"open": "/etc/passwd"}, "open", "must be a path below your home directory"),
        ({"open": "course/../../x"}, "open", "must be a path below your home directory"),
        ({"open": "~/../x"}, "open", "must be a path below your home directory"),
        ({"open": "~//etc/passwd"}, "open", "must be a path below your home directory"),
        ({"open": "a\tb"}, "open", "has characters that cannot be typed"),
        ({"begin": "soon"}, "begin", f"'soon' is not a time: write {BEGIN_HELP}"),
        ({"begin": "24:00"}, "begin", "is not a time"),
        ({"begin": "12:60"}, "begin", "is not a time"),
        ({"begin": "today"}, "begin", "is in the past"),  # sbatch(1): without a time it is 00:00
        ({"begin": "tonight"}, "begin", "is not a time"),
        ({"begin": "now-1hour"}, "begin", "is not a time"),
        ({"begin": "now+999999999weeks"}, "begin", "is more than a year away"),
        ({"begin": "2027-02-30T10:00"}, "begin", "is no date of the calendar"),
        ({"begin": "0001-01-01T00:00"}, "begin", "'0001-01-01T00:00'"),
        ({"begin": "9999-12-31T23:59"}, "begin", "is more than a year away"),
        ({"begin": "2026-10-01T11:00"}, "begin", "(Europe/Stockholm) is in the past: choose a later time, or now"),
        ({"begin": "2027-10-03T12:00"}, "begin", "is more than a year away"),
        ({"nodes": 2}, "nodes", "there is no such field; the fields are environment, image, own_container, own_"),
        ({"req_prologue": "id"}, "req_prologue", "there is no such field"),
        ({"__class__": "x"}, "__class__", "there is no such field"),
        ({"": "x"}, "", "there is no such field"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_refusal_has_a_sentence_at_its_field(snowy: Site, options: dict[str, Any], field: str, sentence: str) -> None:
    if not sentence:
        from_options(options, snowy, NOW)
        return
    errors = refused(options, snowy)
    assert list(errors) == [field]
    assert sentence in errors[field]


def test_where_a_gpu_is_a_must_none_is_refused_at_the_gpu(variant: Callable[..., Site]) -> None:
    site = variant(partitions={"core": {"gpu_required": True}})
    assert from_options({}, site).gpu == "t4"
    for none in ("none", "t4:0"):
        assert refused({**CPU, "gpu": none}, site) == {
            "gpu": "core is only for sessions with a GPU: choose t4:1, or partition node, devcore or devel"
        }
    # What was typed is wrong in itself: that goes first.
    assert "'a100' is not offered here" in refused({"gpu": "a100"}, site)["gpu"]
    assert from_options({**CPU, "partition": "devcore"}, site).gpu == ""


def test_where_every_partition_is_for_gpus_no_other_is_named(variant: Callable[..., Site]) -> None:
    site = variant(
        partitions={"core": {"gpu_required": True}, "node": None, "devcore": None, "devel": None}, presets=None
    )
    assert refused(CPU, site) == {"gpu": "core is only for sessions with a GPU: choose t4:1"}


def test_everything_wrong_is_said_at_once(snowy: Site) -> None:
    wrong = {
        "cores": 99,
        "partition": "devcore",
        "gpu": "t4:1",
        "time": "2:00:00",
        "account": "?",
        "begin": "never",
        "open": "/",
        "colour": "red",
    }
    assert set(refused(wrong, snowy)) == {"cores", "gpu", "time", "account", "begin", "open", "colour"}


def test_the_exception_s_text_names_every_field(snowy: Site) -> None:
    with pytest.raises(RequestError, match=r"account: .*; cores: ") as caught:
        from_options({"cores": 99, "account": "?"}, snowy)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("cores", [1, 4, 16, "16", " 8 "])
def test_every_number_of_cores_that_a_node_has_is_accepted(snowy: Site, cores: Any) -> None:
    assert from_options({"cores": cores}, snowy).cores == int(cores)


@pytest.mark.parametrize(
    ("gpu", "expected"),
    [
        ("t4:1", ("t4", 1)),
        ("t4", ("t4", 1)),
        ("none", ("", 0)),
        ("t4:0", ("", 0)),  # README of the course: --gres=gpu:t4:0 is "no GPU"
        ("t4:00", ("", 0)),
        ("0", ("", 0)),
    ],
)
def test_gpus_are_asked_for_by_type_and_count(snowy: Site, gpu: str, expected: tuple[str, int]) -> None:
    request = from_options({"gpu": gpu}, snowy)
    assert (request.gpu, request.gpu_count) == expected


# Keys of a Site's own, and what Slurm calls them.
KEYS = {
    "gpus": {
        "small": {"request": "--gres=gpu:t4:{count}", "max_count": 4},
        "big": {"request": "--gres=gpu:nvidia_A100-80GB:{count}"},
        "part": {"request": "--gres=shard:{count}", "max_count": 8},
        "any": {"request": "--gpus={count}"},
        "t4": None,
    },
    "partitions": {
        "core": {"gpus": ["small", "part"]},
        "node": {"gpus": ["big", "any"]},
        "devcore": {"gpus": ["part"]},
    },
    "defaults": {"gpu": None},
    "presets": None,
}


@pytest.mark.parametrize(
    ("partition", "gpu", "expected"),
    [
        ("core", "small:2", ("small", 2)),
        ("core", "Small:2", ("small", 2)),
        ("core", "t4:2", ("small", 2)),
        ("core", "T4", ("small", 1)),
        ("core", "2", ("small", 2)),
        ("node", "1", ("big", 1)),
        ("node", "nvidia_a100-80gb:1", ("big", 1)),
        ("node", "any:1", ("any", 1)),
        ("core", "shard:3", ("part", 3)),
        ("core", "part", ("part", 1)),
        ("core", "t4:0", ("", 0)),
    ],
)
def test_gpus_go_by_slurm_s_names_too(
    variant: Callable[..., Site], partition: str, gpu: str, expected: tuple[str, int]
) -> None:
    request = from_options({"partition": partition, "gpu": gpu}, variant(**KEYS))
    assert (request.gpu, request.gpu_count) == expected
    if "-" not in gpu and gpu.partition(":")[0] not in ("shard",):
        line = from_options({"line": f"-p {partition} --gres=gpu:{gpu}"}, variant(**KEYS))
        assert (line.gpu, line.gpu_count) == expected


def test_a_line_asks_for_a_gpu_or_for_parts_of_one(variant: Callable[..., Site]) -> None:
    site = variant(**KEYS)
    asked = {line: from_options({"line": f"-p core {line}"}, site) for line in ("--gres=gpu", "--gres=shard:2", "-G 2")}
    assert [(found.gpu, found.gpu_count) for found in asked.values()] == [("small", 1), ("part", 2), ("small", 2)]


@pytest.mark.parametrize(
    ("partition", "gpu", "text"),
    [
        ("devcore", "1", "'1' is not offered here; choose small:1, big:1, part:1, any:1 or none"),
        ("devcore", "t4", "devcore has no small, only part: choose core, or no GPU"),
        ("core", "a100", "'a100' is not offered here"),
        ("core", "nvidia", "'nvidia' is not offered here"),
        ("core", "\N{SUPERSCRIPT TWO}", "is not offered here"),
        ("core", "", None),
    ],
)
def test_a_gpu_that_is_not_there_is_refused_by_any_name(
    variant: Callable[..., Site], partition: str, gpu: str, text: str | None
) -> None:
    options = {"partition": partition, "gpu": gpu}
    if text is None:
        assert from_options(options, variant(**KEYS)).gpu == ""
    else:
        assert text in refused(options, variant(**KEYS))["gpu"]


def test_the_gpu_that_means_none_is_welcome_in_devcore(snowy: Site) -> None:
    assert from_options({"gpu": "t4:0", "partition": "devcore"}, snowy).gpu == ""


def test_an_environment_that_the_image_lacks_is_refused_at_the_image(variant: Callable[..., Site]) -> None:
    site = variant(images={"other.sif": {"path": "/other.sif"}}, environments={"tf-gpu": {"images": ["other.sif"]}})
    assert refused({"image": "container.sif"}, site) == {"image": "does not have tf-gpu: choose other.sif"}
    assert from_options({"image": "other.sif"}, site).image == "other.sif"


def test_memory_may_be_asked_for_where_the_site_allows(variant: Callable[..., Site]) -> None:
    site = variant(memory_free=True)
    assert from_options({"memory": "9000"}, site).memory == 9000
    assert from_options({"memory": ""}, site).memory is None
    assert refused({"memory": "9G"}, site) == {"memory": "'9G' is not a whole number"}
    assert "memory" in refused({"memory": 0}, site)


def test_a_careless_account_pattern_does_not_open_the_script(variant: Callable[..., Site]) -> None:
    site = variant(accounts={"pattern": "(?s).*"})
    assert from_options({"account": "anything"}, site).account == "anything"
    for account in ("a\n#SBATCH --wrap=id", "-a", "a b", "å"):
        assert "account" in refused({"account": account}, site)


@pytest.mark.parametrize(
    ("open_", "path"),
    [
        ("", "/lab"),
        ("course/lab1.ipynb", "/lab/tree/course/lab1.ipynb"),
        ("~/course", "/lab/tree/course"),
        ("a b/å?#%.ipynb", "/lab/tree/a%20b/%C3%A5%3F%23%25.ipynb"),
        ("{username}", "/lab/tree/%7Busername%7D"),  # JupyterHub fills such a template
    ],
)
def test_what_is_to_be_opened_becomes_a_path_of_lab(snowy: Site, open_: str, path: str) -> None:
    assert from_options({"open": open_}, snowy).lab_path() == path


# -- begin -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "text", "moment"),
    [
        # Summer time is UTC+2 in Stockholm, winter time UTC+1; these are all UTC.
        ("2026-10-01T10:00", "15:00", "2026-10-01T13:00"),
        ("2026-10-01T10:00", "15:00:30", "2026-10-01T13:00:30"),
        ("2026-10-01T10:00", "9:05", "2026-10-02T07:05"),  # passed today, so tomorrow
        ("2026-10-01T10:00", "12:00", "2026-10-02T10:00"),  # this very moment, too
        ("2026-10-01T22:30", "00:15", "2026-10-02T22:15"),  # 00:30 there, already the 2nd
        ("2026-10-01T10:00", "2026-10-01T15:00", "2026-10-01T13:00"),
        ("2026-10-01T10:00", "2026-10-01 15:00:07", "2026-10-01T13:00:07"),
        ("2026-10-01T10:00", "2026-12-24T15:00", "2026-12-24T14:00"),
        ("2026-10-01T10:01", "2026-10-01T12:00", "2026-10-01T10:00"),  # a minute late is not the past
        ("2026-10-01T10:00", "now+90minutes", "2026-10-01T11:30"),
        ("2026-10-01T10:00", "tomorrow 9:00", "2026-10-02T07:00"),
        # The day on which the clocks go back has 25 hours.
        ("2026-10-24T10:00", "tomorrow", "2026-10-24T22:00"),
        ("2026-10-24T10:00", "now+1day", "2026-10-25T10:00"),
        ("2026-10-24T10:00", "11:00", "2026-10-25T10:00"),
        # 02:30 happens twice, and the first one that is still to come counts.
        ("2026-10-24T10:00", "2026-10-25T02:30", "2026-10-25T00:30"),
        ("2026-10-25T01:10", "02:30", "2026-10-25T01:30"),
        ("2026-10-25T01:10", "2026-10-25T02:30", "2026-10-25T01:30"),
        # The clocks go forward from 02:00 to 03:00.
        ("2027-03-27T12:00", "2027-03-28T01:59", "2027-03-28T00:59"),
        ("2027-03-27T12:00", "2027-03-28T03:00", "2027-03-28T01:00"),
        ("2027-03-28T00:30", "03:15", "2027-03-28T01:15"),
        ("2027-03-27T12:00", "12:30", "2027-03-28T10:30"),
    ],
)
def test_begin_is_read_in_the_site_s_zone(snowy: Site, now: str, text: str, moment: str) -> None:
    begin = from_options({"begin": text}, snowy, at(now)).begin
    assert begin is not None
    assert datetime.fromtimestamp(begin, timezone.utc).isoformat()[:16] == moment[:16]
    assert begin == at(moment)


@pytest.mark.parametrize("now", ["2027-03-27T12:00", "2027-03-28T00:30"])
@pytest.mark.parametrize("text", ["02:00", "2:30", "02:59:59", "2027-03-28T02:30"])
def test_an_hour_that_does_not_exist_is_refused(snowy: Site, now: str, text: str) -> None:
    errors = refused({"begin": text}, snowy, at(now))
    assert errors == {"begin": f"{text!r} does not exist: the clocks go forward in that hour"}


def test_another_site_has_another_zone(variant: Callable[..., Site]) -> None:
    site = variant(time_zone="Asia/Kolkata")
    assert from_options({"begin": "2026-10-01T20:00"}, site, NOW).begin == at("2026-10-01T14:30")


@pytest.mark.parametrize("text", ["now", "", " now "])
def test_now_is_no_begin_at_all(snowy: Site, text: str) -> None:
    assert from_options({"begin": text}, snowy).begin is None


# -- hostile values ----------------------------------------------------------------------------------------------

HOSTILE: list[Any] = [
    "core\n#SBATCH --wrap=id",
    "4\n",
    "\n",
    "a'b",
    'a"b',
    "a\0b",
    "\0",
    "$(touch /tmp/x)",
    "${HOME}",
    "`id`",
    "{{7*7}}",
    "{% include 'x' %}",
    "{count}",
    "%j",
    "%(x)s",
    "a;b&c|d>e",
    "\\",
    "../../etc/passwd",
    "--help",
    "-A root",
    "😀",
    "\u202egnp.exe",
    "\u2028",
    "\ud800",  # JSON can carry half a character: "\ud800"
    "\x1b[31m",
    "<script>alert(1)</script>",
    "SNOWYSPAWNER_LAUNCHER",
    "x" * 100_000,
    "9" * 5000,
    "t4:" + "9" * 100,
    [],
    ["core"],
    [["a"]],
    {},
    {"a": "b"},
    True,
    False,
    1.5,
    float("nan"),
    float("inf"),
    -1,
    0,
    10**30,
    10**5000,  # more digits than Python is willing to write
]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: "huge" if type(value) is int else ascii(value)[:24])
@pytest.mark.parametrize("field", FIELDS)
def test_a_hostile_value_is_refused_in_words_or_does_nothing(
    snowy: Site, target: Target, field: str, value: Any
) -> None:
    errors: dict[str, str] = {}
    try:
        request = from_options({field: value}, snowy, NOW)
    except RequestError as error:
        errors = error.errors
    if errors:
        assert list(errors) == [field]
        sentence = errors[field]
        assert sentence
        # One short line of plain characters, fit for a log, a page and a terminal.
        assert len(sentence) < 400
        assert all(char.isprintable() for char in sentence)
        return
    text = script.build(snowy, request, target)
    text.encode()  # sbatch gets bytes
    ordinary = script.build(snowy, from_options({}, snowy), target).splitlines()
    extra = [line for line in text.splitlines() if line not in ordinary]
    # A valid choice changes #SBATCH lines at most, and those hold words only.
    assert all(re.fullmatch(r"#SBATCH --[a-z-]+(=[A-Za-z0-9_.:@+-]+)?", line) or '"gpu": ' in line for line in extra)
    assert re.fullmatch(r"/lab(/tree/[A-Za-z0-9_.~%/-]*)?", request.lab_path())
    json.dumps(request.model_dump(), allow_nan=False).encode()
    assert from_options(request.options(snowy), snowy, NOW) == request


@pytest.mark.parametrize("field", ["x" * 10_000, "a\nb", "<b>", "\0", "😀"])
def test_a_hostile_field_name_is_refused_and_shortened(snowy: Site, field: str) -> None:
    (name,) = refused({field: "x"}, snowy)
    assert len(name) <= 64
    assert field.startswith(name)


def test_a_long_text_is_quoted_short(snowy: Site) -> None:
    assert refused({"partition": "p" * 300}, snowy)["partition"].startswith(f"'{'p' * 57}…' is not offered")
    assert refused({"partition": "p" * 600}, snowy) == {"partition": "is too long: at most 512 characters"}


@pytest.mark.parametrize(
    ("root", "open_", "path"),
    [
        ("", "course/lab 1.ipynb", "/lab/tree/course/lab%201.ipynb"),
        ("work", "work/course/lab1.ipynb", "/lab/tree/course/lab1.ipynb"),
        ("work/", "work/lab1.ipynb", "/lab/tree/lab1.ipynb"),
        ("work", "lab1.ipynb", "/lab/tree/lab1.ipynb"),
        ("work", "workshop/lab1.ipynb", "/lab/tree/workshop/lab1.ipynb"),
        ("work", "work", "/lab"),
        ("work", "", "/lab"),
        ("a/b", "a/b/c", "/lab/tree/c"),
    ],
)
def test_what_to_open_is_below_what_jupyterlab_shows(snowy: Site, root: str, open_: str, path: str) -> None:
    assert from_options({"open": open_}, snowy).lab_path(root) == path


LISTED: dict[str, Any] = {
    "qos": {"short": {"partitions": ["core", "node"]}, "long@uni": {}},
    "constraints": {"bigmem": {}, "gpu&hbm80g": {"partitions": ["core"]}},
}


def test_what_the_site_lists_may_be_chosen(variant: Callable[..., Site]) -> None:
    site = variant(**LISTED)
    assert (from_options({}, site).qos, from_options({}, site).constraint) == ("", "")
    chosen = {"qos": "short", "constraint": "gpu&hbm80g"}
    request = from_options(chosen, site)
    assert {name: text for name, text in request.options(site).items() if name in chosen} == chosen
    # Empty is a choice of its own where the Site has a default.
    site = variant(**LISTED, defaults={"qos": "short"})
    assert from_options({}, site).qos == "short"
    assert from_options({"qos": ""}, site).qos == ""


@pytest.mark.parametrize(
    ("options", "errors"),
    [
        ({"qos": "other"}, {"qos": "'other' is not offered here; choose short or long@uni, or none"}),
        (
            {"qos": "short", "constraint": "gpu&hbm80g", "partition": "devcore", "gpu": "none"},
            {
                "qos": "short is only for partition core or node: choose that, or no QOS",
                "constraint": "gpu&hbm80g is only for partition core: choose that, or no constraint",
            },
        ),
        ({"constraint": ["bigmem"]}, {"constraint": "must be text"}),
    ],
)
def test_what_is_listed_elsewhere_is_refused(
    variant: Callable[..., Site], options: dict[str, Any], errors: dict[str, str]
) -> None:
    assert refused(options, variant(**LISTED)) == errors


def test_a_site_that_lists_nothing_offers_nothing(snowy: Site) -> None:
    assert refused({"qos": "x"}, snowy) == {"qos": "'x' is not offered here; there is none to choose"}


@pytest.mark.parametrize(
    ("line", "partition", "constraint", "qos"),
    [
        ("-p core -q short -C bigmem", "core", "bigmem", "short"),
        ("--qos=short --constraint=bigmem -p core", "core", "bigmem", "short"),
        # The constraint of a part of a partition is the partition, as before.
        ("-p fat -C 2TB --gres=none", "fat-2TB", "", ""),
        ("-p fat-2TB -C bigmem --gres=none", "fat-2TB", "bigmem", ""),
    ],
)
def test_a_line_has_both(variant: Callable[..., Site], line: str, partition: str, constraint: str, qos: str) -> None:
    parts = {"fat-2TB": {"name": "fat", "constraint": "2TB", "max_cores": 96, "max_time": "1-0"}}
    site = variant(**LISTED, partitions=parts)
    found = from_options({"line": line}, site)
    assert (found.partition, found.constraint, found.qos) == (partition, constraint, qos)
    again = from_options({"line": to_line(found.options(site))}, site)
    assert again == found


def test_a_constraint_that_nobody_has_is_no_line(variant: Callable[..., Site]) -> None:
    said = refused({"line": "-p core -C nowhere"}, variant(**LISTED))
    assert said == {"line": "-C nowhere: partition core has no such nodes here"}
