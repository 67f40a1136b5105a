"""Every field of a choice is declared once, and whatever goes by the declaration knows its kind."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from snowyspawner._share import share_dir
from snowyspawner.choice import request
from snowyspawner.choice.rules import NAMES, rules_of
from snowyspawner.site import Site, load, shipped
from snowyspawner.site.fields import FIELDS, PARTS, Choices, Kind
from snowyspawner.site.model import Own
from snowyspawner.web import form


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_is_read_kept_and_drawn(name: str) -> None:
    field = FIELDS[name]
    assert field.kind in get_args(Kind)
    assert callable(getattr(request._Check, f"read_{field.kind}"))
    assert callable(getattr(form._Drawing, field.kind))
    assert name in request.SessionRequest.model_fields
    assert name in Choices.model_fields
    assert field.part in PARTS
    assert (field.kind in ("member", "listed", "own")) == bool(field.table)
    assert not field.table or field.table in (Own if field.kind == "own" else Site).model_fields
    assert all(re.fullmatch(r"-[A-Za-z]|--[a-z-]+", flag) for flag in field.flags)
    assert not field.option or re.fullmatch(r"--[a-z-]+=\{\}", field.option)


def test_what_they_are_called_is_told_apart() -> None:
    for of in ("label", "in_words"):
        assert len({getattr(field, of) for field in FIELDS.values()}) == len(FIELDS)
    flags = [flag for field in FIELDS.values() for flag in field.flags]
    assert len(set(flags)) == len(flags)


def test_no_kind_is_without_a_field() -> None:
    assert {field.kind for field in FIELDS.values()} == set(get_args(Kind))


@pytest.mark.parametrize("name", shipped())
def test_rules_look_at_what_may_be_looked_at(name: str) -> None:
    rules = rules_of(load(name))
    assert rules
    for rule in rules:
        assert {*rule["when"], *rule.get("given", ()), rule.get("value", "cores")} <= set(NAMES)


def test_the_page_knows_every_field_by_its_kind(variant: Callable[..., Site]) -> None:
    values = request.form_values(variant(memory_free=True))
    data: Any = form.variables(variant(memory_free=True), values, {}, form.Known())["data"]
    assert json.loads(json.dumps(data["fields"])).keys() == FIELDS.keys()
    script = (share_dir() / "static" / "snowy-form.js").read_text(encoding="utf-8")
    # Kinds whose texts have to be understood; any other is a text.
    for kind in ("gpu", "duration", "begin", "flag"):
        assert f'kind === "{kind}"' in script


@pytest.mark.parametrize("name", FIELDS)
def test_the_pages_for_people_say_what_it_is(name: str) -> None:
    """docs/: the student's table by label and flag, the teacher's by its name in a link, the reference by its key."""
    docs = Path(__file__).resolve().parents[2] / "docs"
    student, teacher, reference = (
        (docs / page).read_text(encoding="utf-8") for page in ("student.md", "teacher.md", "reference/site.md")
    )
    field = FIELDS[name]
    rows = [row for row in re.findall(r"^\| .* \|$", student, re.M) if field.label in row.split("|")[1]]
    assert rows or field.kind == "memory"  # which few clusters have
    assert not rows or not field.flags or any(re.search(rf"`{flag}[ =]", rows[0]) for flag in field.flags)
    assert f"`opt-{name}`" in teacher or field.kind in ("memory", "flag")
    assert f"`{name}`" in reference
