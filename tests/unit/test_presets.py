"""What is kept of a person: bounded, readable by the next version, and never offered where it is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from snowyspawner.choice.presets import NAME_LIMIT, PRESETS_LIMIT, Own, load_own, offered
from snowyspawner.choice.request import from_options
from snowyspawner.site import Site
from snowyspawner.site.fields import FIELDS

OPTIONS = dict.fromkeys(FIELDS, "x")


def test_presets_are_kept_under_their_names_the_newest_first() -> None:
    own = Own().with_preset("a", OPTIONS).with_preset(" b ", OPTIONS).with_preset("a", {**OPTIONS, "cores": "2"})
    assert list(own.presets) == ["a", "b"]
    assert own.presets["a"]["cores"] == "2"
    assert list(own.without_preset("a").without_preset("never").presets) == ["b"]
    assert load_own(own.model_dump()) == own


def test_what_passes_is_not_kept() -> None:
    own = Own().with_preset("a", OPTIONS).with_last(OPTIONS)
    for kept in (own.presets["a"], own.last):
        assert (kept["begin"], kept["reservation"], kept["open"]) == ("", "", "x")


def test_there_is_room_for_so_many() -> None:
    own = Own()
    for number in range(PRESETS_LIMIT):
        own = own.with_preset(str(number), OPTIONS)
    with pytest.raises(ValueError, match="you have 20 presets already: delete one first"):
        own.with_preset("another", OPTIONS)
    # One that is there may change.
    own.with_preset("3", {**OPTIONS, "cores": "9"})


@pytest.mark.parametrize(
    "name", ["", "  ", None, 3, ["a"], "x" * (NAME_LIMIT + 1), "a\nb", "a\0b", "\x1b[31m", "\u202e"]
)
def test_a_name_is_a_short_line(name: Any) -> None:
    with pytest.raises(ValueError, match="a preset"):
        Own().with_preset(name, OPTIONS)


@pytest.mark.parametrize("name", ["å", "</script>", "😀", "x" * NAME_LIMIT, "{{7*7}}"])
def test_any_text_is_a_name(name: str) -> None:
    assert list(Own().with_preset(name, OPTIONS).presets) == [name]


@pytest.mark.parametrize("stored", [None, {}, [], "x", {"version": 1, "presets": 3}, {"version": 1, "more": {}}])
def test_what_cannot_be_read_is_nothing(stored: Any) -> None:
    assert load_own(stored) == Own()


def test_a_last_choice_that_is_possible_is_offered_as_it_was(snowy: Site) -> None:
    options = from_options({"cores": 7, "environment": "tf-mkl", "gpu": "none"}, snowy).options(snowy)
    assert offered(options, snowy) == (options, [])


def test_what_has_vanished_falls_back_with_a_remark(variant: Callable[..., Site]) -> None:
    before = variant(environments={"tf-old": {}}, partitions={"long": {"max_cores": 64, "max_time": "60-0"}})
    choice = {"environment": "tf-old", "partition": "long", "cores": 64, "time": "59-0", "gpu": "none"}
    options = from_options(choice, before).options(before)
    values, remarks = offered(options, variant())
    # Without the partition, what only it allowed is not possible either.
    shown = {field: values[field] for field in choice}
    assert shown == {"environment": "tf-gpu", "partition": "core", "cores": "4", "time": "0:59:00", "gpu": "none"}
    assert from_options(values, variant())
    assert remarks[0] == "Your last choice of environment, tf-old, is not possible any more: it is tf-gpu now."
    assert len(remarks) == 4


def test_a_project_that_is_not_mine_any_more_falls_back(snowy: Site) -> None:
    options = from_options({"account": "staff"}, snowy).options(snowy)
    assert offered(options, snowy, ["g2021027"])[0]["account"] == "g2021027"
    # Nothing known is nothing wrong.
    assert offered(options, snowy, None)[0]["account"] == "staff"


@pytest.mark.parametrize("options", [{"cores": "x" * 600}, {"colour": "red"}, {"line": "-n 99"}, {"gpu": "\0"}])
def test_whatever_was_stored_something_possible_is_offered(snowy: Site, options: dict[str, str]) -> None:
    assert from_options(offered(options, snowy)[0], snowy)
