"""A list in a field means several sessions; what is no list, or too long a one, is said at its field."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from snowyspawner.choice import several, summary
from snowyspawner.choice.request import RequestError, form_values, from_options, review
from snowyspawner.site import Site
from snowyspawner.site.fields import FIELDS

CPU = {"partition": "core", "gpu": "none", "time": "1:00:00"}
TEXTS = "a list may have whole numbers and texts, and nothing else"
MKL = {**CPU, "environment": "tf-mkl"}


def test_which_fields_may_have_a_list_is_declared() -> None:
    assert list(several.LISTS) == [name for name, field in FIELDS.items() if field.several] == ["environment", "cores"]


@pytest.mark.parametrize(
    ("options", "names", "title"),
    [
        ({"cores": "1,4,8,16"}, "tf-mkl-1 tf-mkl-4 tf-mkl-8 tf-mkl-16", "tf-mkl on 1, 4, 8 and 16 cores"),
        ({"cores": " 8 , 4,\t1 "}, "tf-mkl-8 tf-mkl-4 tf-mkl-1", "tf-mkl on 8, 4 and 1 cores"),
        ({"cores": [1, "4", 8]}, "tf-mkl-1 tf-mkl-4 tf-mkl-8", "tf-mkl on 1, 4 and 8 cores"),
        # One that is there twice, however it is written, is one.
        ({"cores": "4,1,04,4"}, "tf-mkl-4 tf-mkl-1", "tf-mkl on 4 and 1 cores"),
        ({"cores": [4, "4"]}, "tf-mkl-4", "tf-mkl on 4 cores"),
        ({"environment": "tf-mkl,tf-pip", "cores": 1}, "tf-mkl-1 tf-pip-1", "tf-mkl and tf-pip on 1 core"),
        (
            {"environment": ["tf-pip", "tf-mkl"], "cores": "2,4"},
            "tf-pip-2 tf-pip-4 tf-mkl-2 tf-mkl-4",
            "tf-pip and tf-mkl on 2 and 4 cores",
        ),
        ({"environment": "", "cores": "1,2"}, "tf-gpu-1 tf-gpu-2", "tf-gpu on 1 and 2 cores"),
        ({"line": "-n 1,4 -- tf-mkl,tf-pip"}, "tf-mkl-1 tf-mkl-4", "tf-mkl on 1 and 4 cores"),
        # Without a list it is one session, as usual.
        ({}, "tf-mkl-4", "tf-mkl on 4 cores"),
        ({"cores": None}, "tf-mkl-4", "tf-mkl on 4 cores"),
        ({"cores": "16"}, "tf-mkl-16", "tf-mkl on 16 cores"),
    ],
)
def test_a_list_is_a_session_for_each_of_its_values(
    snowy: Site, options: dict[str, Any], names: str, title: str
) -> None:
    options = json.loads(json.dumps({**MKL, **options}))
    plan = several.plan(options, snowy)
    assert [session.name for session in plan.sessions] == names.split()
    assert plan.title == title
    assert several.means_several(options, snowy) == bool(plan.lists)
    for session in plan.sessions:
        made = from_options(session.options, snowy)
        assert f"{made.environment}-{made.cores}" == session.name
        assert session.values == {"environment": made.environment, "cores": str(made.cores)}
        assert (made.gpu, made.time) == ("", 3600)


def test_what_a_line_sets_is_read_first(snowy: Site) -> None:
    line = {"line": "-n 1,4 -p devcore --gres=gpu:t4:0 -t 30 -- tf-mkl,tf-pip"}
    plan = several.plan(line, snowy)
    assert [session.name for session in plan.sessions] == ["tf-mkl-1", "tf-mkl-4", "tf-pip-1", "tf-pip-4"]
    assert {from_options(session.options, snowy).partition for session in plan.sessions} == {"devcore"}
    # Written as a line again, it is the same.
    shared = {**summary.shared_options(from_options(plan.sessions[0].options, snowy), snowy), **plan.written}
    assert several.plan({"line": summary.line(shared, snowy)}, snowy).sessions[-1].name == "tf-pip-4"
    # A field counts more than the line, as ever.
    assert [session.name for session in several.plan({**line, "cores": "2"}, snowy).sessions] == [
        "tf-mkl-2",
        "tf-pip-2",
    ]
    assert several.means_several(line, snowy)
    assert not several.means_several({"line": "-n 1,4", "cores": "2"}, snowy)


@pytest.mark.parametrize(
    ("options", "field", "sentence"),
    [
        ({"cores": "1,,4"}, "cores", "'1,,4' has a place without a value: write values with commas between them"),
        ({"cores": ","}, "cores", "',' has a place without a value"),
        ({"cores": "1,4,"}, "cores", "'1,4,' has a place without a value"),
        ({"cores": ["1", " "]}, "cores", "'1, ' has a place without a value"),
        ({"cores": []}, "cores", "is an empty list"),
        ({"cores": [1, True]}, "cores", TEXTS),
        ({"cores": [1, 4.0]}, "cores", TEXTS),
        ({"cores": [[1], 4]}, "cores", TEXTS),
        ({"cores": [{"a": 1}]}, "cores", TEXTS),
        ({"cores": [None]}, "cores", TEXTS),
        ({"cores": ["1,4", 8]}, "cores", "has a list in a list"),
        ({"cores": [1] * 10**6}, "cores", "has 1000000 values: at most 16 sessions can be started at once"),
        ({"cores": "1," * 300}, "cores", "is too long: at most 512 characters"),
        ({"cores": list(range(1, 18))}, "cores", "has 17 values: at most 16 sessions can be started at once"),
        (
            {"environment": "tf-gpu,tf-mkl,tf-pip", "cores": "1,2,3,4,5,6"},
            "cores",
            "makes 18 sessions: at most 16 can be started at once",
        ),
        ({"environment": "tf-mkl,,"}, "environment", "'tf-mkl,,' has a place without a value"),
        ({"line": "--nonsense"}, "line", "unrecognized arguments: --nonsense"),
        ({"line": "-n 1,,4"}, "cores", "'1,,4' has a place without a value"),
    ],
)
def test_a_list_that_cannot_be_read_is_refused_at_its_field(
    snowy: Site, options: dict[str, Any], field: str, sentence: str
) -> None:
    with pytest.raises(RequestError) as refused:
        several.plan({**CPU, **options}, snowy)
    assert list(refused.value.errors) == [field]
    assert refused.value.errors[field].startswith(sentence)
    found = several.verdict({**CPU, **options, "time": "soon"}, snowy)
    assert (found.plan, found.requests) == (None, [])
    # What is wrong beside it is said, too.
    assert found.errors.pop("time").startswith("'soon' is not a duration")
    assert found.errors == refused.value.errors


@pytest.mark.parametrize(
    ("options", "errors"),
    [
        ({"cores": "1,x"}, {"cores": "for x: 'x' is not a whole number"}),
        ({"cores": "1,4.5"}, {"cores": "for 4.5: '4.5' is not a whole number"}),
        ({"cores": "١,٤"}, {"cores": "for ١: '١' is not a whole number"}),  # noqa: RUF001  digits, not ours
        ({"cores": "-1,0"}, {"cores": "for -1: '-1' is not a whole number"}),
        ({"cores": "16,17,18"}, {"cores": "for 17: a node of core has 16: ask for 16 or fewer"}),
        ({"cores": [10**5000, 1]}, {"cores": f"for {'9' * 31}…: is too long"}),
        ({"cores": "1,\x00"}, {"cores": "for ?: '\\x00' has characters that cannot be typed"}),
        ({"environment": "tf-mkl,$(id)"}, {"environment": "for $(id): '$(id)' is not offered here; choose"}),
        # What is wrong with all of them is said once.
        ({"cores": "1,4", "time": "soon"}, {"time": "'soon' is not a duration"}),
        ({"cores": "1,4", "partition": "devcore", "gpu": "t4:1"}, {"gpu": "devcore has no GPUs"}),
        # A list where there can be none.
        ({"cores": "1,4", "partition": "core,node"}, {"partition": "'core,node' is not offered here"}),
        ({"cores": "1,4", "time": ["30", "60"]}, {"time": "must be text"}),
        ({"cores": "1,4", "colour": "red,blue"}, {"colour": "there is no such field"}),
    ],
)
def test_what_is_wrong_with_some_of_them_names_the_first(
    snowy: Site, options: dict[str, Any], errors: dict[str, str]
) -> None:
    found = several.verdict({**CPU, **options}, snowy)
    assert found.errors.keys() == errors.keys()
    for field, sentence in errors.items():
        assert found.errors[field].startswith(sentence)
    assert len(found.requests) == sum(
        review(session.options, snowy).request is not None
        for session in several.plan({**CPU, **options}, snowy).sessions
    )


def test_the_remark_says_how_many_there_are(snowy: Site) -> None:
    said = "Starts {} sessions side by side; you confirm them on the next page."
    assert several.verdict({**MKL, "cores": "1,4"}, snowy).remarks == {"cores": said.format(2)}
    both = several.verdict({**CPU, "environment": "tf-mkl,tf-pip", "cores": "1,4"}, snowy)
    assert both.remarks == {"cores": said.format(4)}
    assert several.verdict({**CPU, "environment": "tf-mkl,tf-pip"}, snowy).remarks == {"environment": said.format(2)}
    assert several.verdict({**MKL, "cores": "4,4"}, snowy).remarks == {}
    gpu = several.verdict({"environment": "tf-gpu,tf-mkl", "gpu": "t4:1"}, snowy)
    assert gpu.remarks["gpu"].startswith("for tf-mkl: tf-mkl makes no use of a GPU")


@pytest.mark.parametrize(
    ("value", "given"), [("1,4", "'1,4'"), ("1,,", "'1,,'"), ([1, 4], "a list"), ([], "a list"), ([[[]]], "a list")]
)
@pytest.mark.parametrize("field", ["cores", "environment"])
def test_where_one_session_is_started_a_list_is_refused(snowy: Site, field: str, value: Any, given: str) -> None:
    error = review({field: value}, snowy).errors[field]
    assert error.startswith(f"{given} means several sessions, and this starts one: ")
    assert "POST …/hub/snowy/several" in error


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (("tf_mkl", "4"), ["tf-mkl-4"]),
        (("2.14 (MKL)", "4"), ["s-2-14-mkl-4"]),
        (("é", "4"), ["s-4"]),
        (("", ""), ["s"]),
        (("x" * 300, "16"), ["x" * 22 + "-16"]),
        (("tf", "9" * 300), ["tf-" + "9" * 9]),
    ],
)
def test_a_server_s_name_is_one_that_jupyterhub_allows(values: tuple[str, str], names: list[str]) -> None:
    from jupyterhub.slugs import is_valid_safe_slug

    taken: set[str] = set()
    for number in range(1, several.MOST + 1):
        name = several._name(values, taken)
        assert is_valid_safe_slug(name)
        assert name == names[0] + (f"-{number}" if number > 1 else "")
        taken.add(name)
    assert len(taken) == several.MOST


def test_environments_that_make_the_same_name_are_told_apart(variant: Callable[..., Site]) -> None:
    site = variant(environments={"tf.mkl": {"description": "Another"}})
    plan = several.plan({"environment": "tf-mkl,tf.mkl"}, site)
    assert [session.name for session in plan.sessions] == ["tf-mkl-4", "tf-mkl-4-2"]


def test_the_form_s_section_goes_before_the_form_s_own_fields() -> None:
    form = {
        "cores": ["4"],
        "environment": ["tf-gpu"],
        "time": ["60"],
        "_cores": ["1, 4", " "],
        "_environment": ["tf-mkl", "tf-pip"],
        "_xsrf": ["x"],
        "preset_name": ["mine"],
    }
    assert several.section(form) == {"environment": ["tf-mkl", "tf-pip"], "cores": ["1, 4"]}
    assert several.sent(form) == {"cores": "1, 4", "environment": "tf-mkl,tf-pip", "time": "60"}
    assert several.sent({**form, "_cores": [""], "_environment": []}) == {
        "cores": "4",
        "environment": "tf-gpu",
        "time": "60",
    }
    assert several.sent({"_cores": ["8"], "cores": ["4"]}) == {"cores": "8"}


def test_the_form_shows_the_first_of_a_list_and_all_in_its_section() -> None:
    values, lists = several.parted({"cores": "1, 4", "environment": "tf-pip ,tf-mkl", "time": "60"})
    assert values == {"cores": "1", "environment": "tf-pip", "time": "60"}
    assert lists == {"environment": ["tf-pip", "tf-mkl"], "cores": ["1,4"]}
    assert several.sent({name: [text] for name, text in values.items()} | {f"_{n}": t for n, t in lists.items()}) == {
        "cores": "1,4",
        "environment": "tf-pip,tf-mkl",
        "time": "60",
    }
    assert several.parted({"cores": "4", "time": "1,2"}) == ({"cores": "4", "time": "1,2"}, {})


def test_a_title_is_short_and_can_be_printed(snowy: Site) -> None:
    hostile = ["\x1b[31m" + "x" * 90, "\u202e", *(f"e{number}" * 20 for number in range(14))]
    title = several.plan({"environment": hostile}, snowy).title
    assert len(title) == 200
    assert title.isprintable()
    assert several.Group(id=several.new_id(), title=title).title == title


def test_a_group_survives_the_hub_s_database() -> None:
    group = several.Group(id=several.new_id(), title="tf-mkl on 1 and 4 cores")
    assert several.load_group(json.loads(json.dumps(group.model_dump()))) == group
    assert several.new_id() != several.new_id()


@pytest.mark.parametrize(
    ("stored", "title"),
    [
        (None, None),
        ({}, None),
        ("0123456789abcdef", None),
        ([], None),
        ({"id": "../../etc/passwd"}, None),
        ({"id": "0123456789abcdef\n"}, None),
        ({"id": "0123456789ABCDEF"}, None),
        ({"id": 7, "title": "x"}, None),
        ({"id": "0123456789abcdef"}, ""),
        ({"id": "0123456789abcdef", "title": None}, ""),
        ({"id": "0123456789abcdef", "title": "x" * 999}, ""),
        ({"id": "0123456789abcdef", "title": "\x07"}, ""),
        ({"id": "0123456789abcdef", "title": "of another version", "colour": 5}, "of another version"),
    ],
)
def test_a_group_that_another_version_stored_is_read_as_far_as_it_goes(stored: Any, title: str | None) -> None:
    group = several.load_group(stored)
    assert (group and group.title) == title


def test_together_they_cost_the_sum(snowy: Site) -> None:
    requests = [from_options({"cores": cores, "time": "1:00:00"}, snowy) for cores in (1, 4, 8, 16)]
    times = "\N{MULTIPLICATION SIGN}"
    assert summary.total(requests, snowy) == f"29 cores {times} 1 hour = 29 core-hours, 232 GB, 4 NVIDIA T4"
    node = [from_options({**MKL, "partition": "node", "cores": cores}, snowy) for cores in (1, 4)]
    assert summary.total(node, snowy) == f"32 cores (whole nodes) {times} 1 hour = 32 core-hours, 256 GB"
    other = from_options({**MKL, "cores": 1, "time": "2:00:00"}, snowy)
    assert summary.total([requests[0], other], snowy) == "2 cores = 3 core-hours, 16 GB, 1 NVIDIA T4"
    assert summary.total([], snowy) == ""


def test_the_form_shows_what_a_list_means(snowy: Site) -> None:
    values = {**form_values(snowy), **MKL, "cores": "1,4"}
    assert "Starts 2 sessions" in several.verdict(values, snowy).remarks["cores"]
