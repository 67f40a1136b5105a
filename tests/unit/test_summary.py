"""A choice in other words: its cost, its times, as a link, as a line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from snowyspawner import site as sites
from snowyspawner.choice import summary
from snowyspawner.choice.notebook_line import from_line, to_line
from snowyspawner.choice.request import from_options, review
from snowyspawner.site import Site

NOW = 1_790_000_000.0  # 2026-09-21 15:13:20 in Stockholm


@pytest.mark.parametrize(
    ("choice", "cost"),
    [
        ({}, "4 cores * 59 minutes = 3.9 core-hours, 32 GB, 1 NVIDIA T4"),
        ({"gpu": "none", "cores": 1, "time": "1:00:00"}, "1 core * 1 hour = 1 core-hour, 8 GB"),
        ({"gpu": "none", "cores": 16, "time": "10-0"}, "16 cores * 10 days = 3840 core-hours, 128 GB"),
        ({"gpu": "none", "cores": 1, "time": "0:01:00"}, "1 core * 1 minute = 0.017 core-hours, 8 GB"),
        # A whole node costs all of it.
        (
            {"partition": "node", "cores": 2, "time": "2:00:00"},
            "16 cores (the whole node) * 2 hours = 32 core-hours, 128 GB, 1 NVIDIA T4",
        ),
    ],
)
def test_what_a_session_costs(snowy: Site, choice: dict[str, Any], cost: str) -> None:
    assert summary.cost(from_options(choice, snowy), snowy) == cost.replace("*", "\N{MULTIPLICATION SIGN}")


def test_memory_asked_for_is_what_counts(variant: Callable[..., Site]) -> None:
    site = variant(memory_free=True)
    assert ", 2.5 GB" in summary.cost(from_options({"memory": 2500, "gpu": "none"}, site), site)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"environment": "tf-mkl", "partition": "devcore", "gpu": "none"}, "with tf-mkl, in devcore, without a GPU"),
        ({"partition": "node"}, "in node"),
        ({"gpu": "none"}, "without a GPU"),
        ({}, ""),
    ],
)
def test_another_choice_is_told_by_what_differs(snowy: Site, other: dict[str, Any], said: str) -> None:
    one = from_options({}, snowy)
    assert summary.difference(one, from_options(other, snowy), snowy) == said


def test_a_gpu_where_there_was_none_is_named(snowy: Site) -> None:
    without, one = from_options({"gpu": "none"}, snowy), from_options({}, snowy)
    assert summary.difference(without, one, snowy) == "with 1 NVIDIA T4"


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"time": "30", "begin": ""}, {"time": "30 minutes", "begin": "now"}),
        ({"time": "1:30"}, {"time": "1 minute 30 seconds", "begin": "now"}),
        ({"begin": "18:00"}, {"time": "59 minutes", "begin": "Mon 21 Sep 18:00 (Europe/Stockholm)"}),
        ({"begin": "09:00"}, {"time": "59 minutes", "begin": "Tue 22 Sep 09:00 (Europe/Stockholm)"}),
        # Refused for another reason, it can be said all the same; not if it cannot be read.
        ({"time": "20-0"}, {"time": "20 days", "begin": "now"}),
        ({"time": "soon", "begin": "late"}, {}),
    ],
)
def test_times_are_said_as_they_are_read(snowy: Site, choice: dict[str, Any], said: dict[str, str]) -> None:
    assert summary.said(review(choice, snowy, NOW).read, snowy) == said


CHOICES: list[dict[str, Any]] = [
    {},
    {"environment": "tf-mkl", "partition": "devcore", "gpu": "none", "cores": 16, "time": "1:00:00"},
    {"begin": "18:00", "reservation": "lab_1", "email_on_start": True},
    {"open": "a b/å?&#.ipynb"},
    {"account": "staff"},
]


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_a_link_brings_back_the_same_request(snowy: Site, choice: dict[str, Any]) -> None:
    request = from_options(choice, snowy, NOW)
    link = summary.link(summary.shared_options(request, snowy), "/hub/")
    parts = urlsplit(link)
    assert parts.path == "/hub/snowy"
    options = {key.removeprefix("opt-"): values[-1] for key, values in parse_qs(parts.query, True).items()}
    assert all(key.startswith("opt-") for key in parse_qs(parts.query, True))
    assert from_options(options, snowy, NOW) == request


@pytest.mark.parametrize("choice", [choice for choice in CHOICES if "open" not in choice], ids=str)
def test_a_line_brings_back_the_same_request(snowy: Site, choice: dict[str, Any]) -> None:
    request = from_options(choice, snowy, NOW)
    line = summary.line(summary.shared_options(request, snowy), snowy)
    assert from_options({"line": line}, snowy, NOW) == request


def test_pelle_s_lines_and_links_bring_back_the_same_request() -> None:
    pelle = sites.load("pelle")
    request = from_options({"memory": 9000, "gpu": "none", "account": "uppmax2025-2-1"}, pelle, NOW, ["uppmax2025-2-1"])
    shared = summary.shared_options(request, pelle, ["uppmax2025-2-1"])
    # One's only project is what one gets: for another person it is another.
    assert "account" not in shared
    line = summary.line(shared, pelle)
    assert "--mem=9000" in line
    assert from_options({"line": line}, pelle, NOW, ["uppmax2025-2-1"]) == request


def test_no_address_without_anything_to_say() -> None:
    assert summary.link({}) == "/hub/snowy"
    assert summary.link({"cores": "8"}, "https://h/hub/", "two") == "https://h/hub/snowy?opt-cores=8&server=two"


def test_a_line_is_what_a_person_would_write(snowy: Site) -> None:
    choice = {"environment": "tf-mkl", "partition": "devcore", "gpu": "none", "time": "0:30:00"}
    shared = summary.shared_options(from_options(choice, snowy), snowy)
    assert summary.line(shared, snowy) == "-n 4 -p devcore --gres=none -t 0:30:00 -- tf-mkl"


def test_hostile_values_stay_words_of_a_line() -> None:
    options = {"account": "a b'; rm -rf /", "cores": "$(id)", "environment": "x y"}
    assert from_line(to_line(options)) == options


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"gpu": "t4:0"}, {"gpu": "none"}),
        ({"gpu": "t4"}, {"gpu": "t4:1"}),
        ({"gpu": "t9"}, {"gpu": "t9"}),
        ({"email_on_start": "true"}, {"email_on_start": "1"}),
        ({"line": "-n 8 --gres=gpu:t4:0 -- tf-mkl"}, {"cores": "8", "gpu": "none", "environment": "tf-mkl"}),
        # What stands in a field of its own goes before the line.
        ({"line": "-n 8", "cores": "2"}, {"cores": "2"}),
        ({"cores": 3}, {}),
    ],
)
def test_what_was_typed_is_shown_by_its_usual_name(snowy: Site, options: dict[str, Any], shown: dict[str, str]) -> None:
    assert summary.as_shown(options, review(options, snowy)) == shown
