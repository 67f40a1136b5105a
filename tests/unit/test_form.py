"""The options form: every field is there, shows what was typed and what was wrong, and escapes what others wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest

from snowyspawner.choice.course import Card
from snowyspawner.choice.request import form_values, from_form, from_options
from snowyspawner.choice.rules import rules_of
from snowyspawner.site import Site
from snowyspawner.site.fields import FIELDS
from snowyspawner.web.form import COURSE, Known, render, variables

HOSTILE = "</select></option><script>alert('x')</script>\"'>{{ 7*7 }}"

# Elements that end by themselves.
VOID = {"input", "br", "hr", "img", "link", "meta"}


class Page(HTMLParser):
    """Collects fields, options and texts; fails on tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.texts: dict[str, str] = {}  # by id of the innermost element that has one
        self.ids: list[str] = []
        self.options: dict[str, dict[str, bool]] = {}  # of each select: value, selected
        self._select = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        assert len(given) == len(attrs), "an attribute is there twice"
        self.tags.append((tag, given))
        if tag == "select":
            self._select = given["name"]
            self.options[self._select] = {}
        if tag == "option":
            self.options[self._select][given["value"]] = "selected" in given
        if given.get("type") == "radio":
            self.options.setdefault(given["name"], {})[given["value"]] = "checked" in given
        if tag not in VOID:
            self.open.append(tag)
            self.ids.append(given.get("id", ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.ids.pop()

    def handle_data(self, data: str) -> None:
        key = next((name for name in reversed(self.ids) if name), "")
        self.texts[key] = self.texts.get(key, "") + data

    def field(self, name: str) -> dict[str, str]:
        """Return the field itself, or the group of its choices."""
        (found,) = (given for _, given in self.tags if given.get("id") == f"snowy-{name}")
        assert name in (found.get("name"), found.get("data-field"))
        return found

    def posted(self) -> dict[str, list[str]]:
        """Return what a browser would send if nothing was touched."""
        form: dict[str, list[str]] = {}
        for tag, given in self.tags:
            if tag == "select":
                form[given["name"]] = [value for value, selected in self.options[given["name"]].items() if selected]
            elif (
                tag == "input"
                and "name" in given
                and (given.get("type") not in ("checkbox", "radio") or "checked" in given)
            ):
                form.setdefault(given["name"], []).append(given.get("value", ""))
        return form

    def scripts(self) -> int:
        return sum(tag == "script" for tag, _ in self.tags)


# The page's own: a line that says there is JavaScript, the script, and its data.
SCRIPTS = 3


def values_of(site: Site, **changes: str) -> dict[str, str]:
    return {**from_options({}, site).options(site), **changes}


def page(site: Site, errors: dict[str, str] | None = None, **changes: str) -> Page:
    return Page(render(site, values_of(site, **changes), errors or {}))


# A Site that has a use for every field.
EVERY: dict[str, Any] = {"memory_free": True, "qos": {"short": {}}, "constraints": {"bigmem": {"description": "<b>"}}}


def test_every_field_is_there_with_a_label(variant: Callable[..., Site]) -> None:
    shown = page(variant(**EVERY))
    labels = [given["for"] for tag, given in shown.tags if tag == "label"]
    for tag, given in shown.tags:
        if tag in ("input", "select") and given.get("type") != "hidden":
            assert labels.count(given["id"]) == 1, given
    for field in FIELDS:
        shown.field(field)


def test_memory_is_asked_for_only_where_the_site_allows(snowy: Site) -> None:
    # Nor a QOS or a constraint, of which it offers none.
    assert from_form(page(snowy).posted()).keys() == set(FIELDS) - {"memory", "qos", "constraint"} | {"line"}


def test_what_the_site_lists_is_offered_and_may_be_left_out(variant: Callable[..., Site]) -> None:
    shown = page(variant(**EVERY))
    assert set(shown.options["qos"]) == {"", "short"}
    assert set(shown.options["constraint"]) == {"", "bigmem"}
    assert shown.posted()["qos"] == [""]
    assert page(variant(**EVERY), qos="short").posted()["qos"] == ["short"]


def test_a_site_without_gpus_asks_for_none(variant: Callable[..., Site]) -> None:
    site = variant(
        gpus=None,
        defaults={"gpu": None},
        presets=None,
        partitions={"core": {"gpus": []}, "node": {"gpus": []}},
    )
    assert "gpu" not in page(site).posted()


def test_ids_are_unique(variant: Callable[..., Site]) -> None:
    shown = page(variant(**EVERY), errors=dict.fromkeys(FIELDS, "wrong"))
    ids = [given["id"] for _, given in shown.tags if "id" in given]
    assert len(ids) == len(set(ids))
    # What describes a field exists.
    for _, given in shown.tags:
        assert set(given.get("aria-describedby", "").split()) <= set(ids), given


def test_a_form_that_nobody_touched_asks_for_the_defaults(snowy: Site) -> None:
    assert from_options(from_form(page(snowy).posted()), snowy) == from_options({}, snowy)


@pytest.mark.parametrize(
    "changes",
    [
        {"environment": "tf-mkl", "partition": "devcore", "gpu": "none", "cores": 16, "time": "1:00:00"},
        {"email_on_start": True, "open": "a b/å.ipynb", "reservation": "x"},
    ],
)
def test_a_form_that_shows_a_request_sends_that_request(snowy: Site, changes: dict[str, Any]) -> None:
    request = from_options(changes, snowy)
    shown = Page(render(snowy, request.options(snowy), {}))
    assert from_options(from_form(shown.posted()), snowy) == request


@pytest.mark.parametrize("default", [True, False])
def test_the_site_s_default_for_mail_is_shown(variant: Callable[..., Site], default: bool) -> None:
    site = variant(defaults={"email_on_start": default})
    # As the spawner makes them.
    values = form_values(site)
    assert ("checked" in Page(render(site, values, {})).field("email_on_start")) == default


@pytest.mark.parametrize("field", ["environment", "image", "partition", "gpu"])
def test_the_choices_are_the_site_s_and_one_is_selected(snowy: Site, field: str) -> None:
    options = page(snowy).options[field]
    expected = {
        "environment": ["tf-gpu", "tf-mkl", "tf-pip"],
        "image": ["container.sif"],
        "partition": ["core", "node", "devcore", "devel"],
        "gpu": ["none", "t4:1"],
    }[field]
    assert list(options) == expected
    assert [value for value, selected in options.items() if selected] == [values_of(snowy)[field]]


@pytest.mark.parametrize("field", ["environment", "image", "partition", "gpu"])
def test_a_value_that_is_not_offered_stays_visible(snowy: Site, field: str) -> None:
    shown = page(snowy, {field: "is not offered"}, **{field: "gone"})
    assert shown.options[field]["gone"]
    assert shown.posted()[field] == ["gone"]


@pytest.mark.parametrize("field", [field for field in FIELDS if field != "memory"])
def test_an_error_stands_at_its_field(snowy: Site, field: str) -> None:
    shown = page(snowy, {field: "is <wrong>"})
    given = shown.field(field)
    assert given["aria-invalid"] == "true"
    assert f"snowy-{field}-error" in given["aria-describedby"].split()
    assert shown.texts[f"snowy-{field}-error"].strip() == "is <wrong>"
    # Nobody else is at fault.
    assert [other.get("name") or other["data-field"] for _, other in shown.tags if "aria-invalid" in other] == [field]
    assert any(given.get("href") == f"#snowy-{field}" for tag, given in shown.tags if tag == "a")


def test_without_errors_nothing_looks_wrong(snowy: Site) -> None:
    html = render(snowy, values_of(snowy), {})
    assert "aria-invalid" not in html
    assert 'id="snowy-errors"' not in html
    assert "snowy-error" not in html


def test_an_error_of_a_field_that_does_not_exist_is_shown_all_the_same(snowy: Site) -> None:
    shown = page(snowy, {HOSTILE: "there is no such field"})
    assert HOSTILE in shown.texts["snowy-errors"]
    assert "there is no such field" in shown.texts["snowy-errors"]
    assert shown.scripts() == SCRIPTS


@pytest.mark.parametrize("field", [field for field in FIELDS if field not in ("memory", "email_on_start")])
def test_what_a_person_typed_is_escaped(snowy: Site, field: str) -> None:
    shown = page(snowy, {field: HOSTILE}, **{field: HOSTILE})
    assert shown.scripts() == SCRIPTS
    assert shown.posted()[field] == [HOSTILE]
    assert shown.texts[f"snowy-{field}-error"].strip() == HOSTILE


def test_what_the_site_says_is_escaped(variant: Callable[..., Site]) -> None:
    said = {"display_name": HOSTILE, "description": HOSTILE}
    site = variant(
        **said,
        partitions={"core": said},
        gpus={"t4": {"display_name": HOSTILE}},
        images={"container.sif": said},
        environments={"tf-gpu": said},
        presets={"gpu": said},
    )
    shown = page(site)
    assert shown.scripts() == SCRIPTS
    assert shown.posted() == page(variant()).posted()
    assert HOSTILE in "".join(shown.texts.values())


def test_what_slurm_and_a_person_said_is_escaped(snowy: Site) -> None:
    known = Known(
        accounts=[HOSTILE, "g2021027"],
        facts={"core": {"free_cores": HOSTILE, "state": HOSTILE, "free_gpus": {HOSTILE: 1}}},
        reservations=[{"name": HOSTILE, "sentence": HOSTILE}],
        own_presets={HOSTILE: values_of(snowy)},
        remembered=[HOSTILE],
        slurm_note=HOSTILE,
        server_name=HOSTILE,
        user_name=HOSTILE,
        answer={"title": HOSTILE, "sentences": [HOSTILE], "argv": [HOSTILE], "script": HOSTILE},
    )
    html = render(snowy, values_of(snowy), {}, known=known)
    shown = Page(html)
    assert shown.scripts() == SCRIPTS
    assert "<script>alert" not in html
    assert HOSTILE in shown.texts["snowy-slurm"]
    data = json.loads(shown.texts["snowy-data"])
    assert data["own_presets"][HOSTILE]["cores"] == "4"
    assert data["facts"]["core"]["state"] == HOSTILE


def test_the_page_gets_what_the_server_goes_by(snowy: Site) -> None:
    known = Known(
        accounts=["staff"], facts={"core": {"free_cores": 3}}, facts_age=4.0, server_name="two", user_name="ann"
    )
    data = json.loads(Page(render(snowy, values_of(snowy), {}, known=known)).texts["snowy-data"])
    assert data["rules"] == rules_of(snowy)
    assert data["defaults"] == form_values(snowy, ["staff"])
    assert data["presets"]["mkl"] == {
        **form_values(snowy, ["staff"]),
        "environment": "tf-mkl",
        "partition": "devcore",
        "gpu": "none",
    }
    assert (data["facts"], data["facts_age"]) == ({"core": {"free_cores": 3}}, 4.0)
    assert data["urls"]["check"] == "/hub/snowy/check?user=ann&server=two"
    assert (data["time_zone"], data["memory_per_core"], data["memory_free"]) == ("Europe/Stockholm", 8000, False)


def test_the_site_s_own_words_are_those_a_request_would_use(variant: Callable[..., Site]) -> None:
    site = variant(defaults={"time": "59", "gpu": "t4"}, presets={"mkl": {"choices": {"time": "30", "gpu": "none"}}})
    assert form_values(site) == from_options({}, site).options(site)
    data = json.loads(Page(render(site, form_values(site), {})).texts["snowy-data"])
    assert data["presets"]["gpu"] == form_values(site)
    assert data["presets"]["mkl"]["time"] == "0:30:00"


def test_the_section_for_several_sessions(snowy: Site) -> None:
    """Only where people may have several; its fields are none of a session's, and show what was sent in them."""
    assert "_cores" not in page(snowy).posted()
    lists = {"cores": ["1,,4"], "environment": ["tf-pip"]}
    errors = {"cores": "'1,,4' has a place without a value"}
    html = render(snowy, values_of(snowy), errors, known=Known(named_servers=True, several=lists))
    shown = Page(html)
    (text,) = (given for tag, given in shown.tags if given.get("name") == "_cores")
    boxes = {given["value"]: "checked" in given for _, given in shown.tags if given.get("name") == "_environment"}
    assert (text["value"], text["aria-invalid"]) == ("1,,4", "true")
    assert shown.texts["snowy-several-cores-error"] == errors["cores"]
    assert boxes == {"tf-gpu": False, "tf-mkl": False, "tf-pip": True}
    (fold,) = (given for _, given in shown.tags if given.get("id") == "snowy-several")
    assert "open" in fold
    (button,) = (given for _, given in shown.tags if given.get("id") == "snowy-several-go")
    assert button["formaction"] == "/hub/snowy/several"
    closed = Page(render(snowy, values_of(snowy), {}, known=Known(named_servers=True)))
    assert "open" not in next(given for _, given in closed.tags if given.get("id") == "snowy-several")


def test_a_list_in_a_field_is_remarked_on(snowy: Site) -> None:
    shown = page(snowy, cores="1,4")
    assert shown.texts["snowy-cores-remark"].startswith("Starts 2 sessions side by side")


def test_a_remark_is_no_error(snowy: Site) -> None:
    shown = page(snowy, environment="tf-mkl")
    assert "tf-mkl makes no use of a GPU" in shown.texts["snowy-gpu-remark"]
    assert not any("aria-invalid" in given for _, given in shown.tags)


def test_static_files_are_asked_for_by_their_content(snowy: Site) -> None:
    html = render(snowy, values_of(snowy), {}, known=Known(base_url="/base/hub/"))
    assert re.search(r'href="/base/hub/snowy/static/snowy\.css\?v=[0-9a-f]{16}"', html)
    assert re.search(r'src="/base/hub/snowy/static/snowy-form\.js\?v=[0-9a-f]{16}"', html)


@pytest.mark.parametrize(
    ("support", "href"),
    [
        ("help@uni.example", "mailto:help@uni.example"),
        ("https://uni.example/help?of=hpc", "https://uni.example/help?of=hpc"),
        ("", None),
    ],
)
def test_the_form_says_whom_to_turn_to(variant: Callable[..., Site], support: str, href: str | None) -> None:
    shown = page(variant(support=support))
    links = [given["href"] for tag, given in shown.tags if tag == "a" and given.get("href") == href]
    assert links == ([href] if href else [])
    assert ("Support:" in render(variant(support=support), values_of(variant()), {})) == bool(href)


def test_a_course_s_card_is_text_and_what_cannot_be_started_has_no_control(snowy: Site) -> None:
    """Whoever may write to a project's directory wrote it."""
    open_card = Card(HOSTILE, HOSTILE, values_of(snowy, cores="3"), (HOSTILE,), HOSTILE)
    closed = Card(HOSTILE, HOSTILE, None, (HOSTILE,), HOSTILE)
    cards = {f"{HOSTILE}/1": open_card, f"{HOSTILE}/2": closed}
    html = render(snowy, values_of(snowy), {}, known=Known(courses=cards))
    shown = Page(html)
    assert shown.scripts() == SCRIPTS
    assert html.count("alert(") == html.count("alert(&#39;x&#39;)") + html.count("alert(\\u0027x\\u0027)")
    starts = [given for tag, given in shown.tags if tag == "button" and given.get("name") == COURSE]
    assert [given["value"] for given in starts] == [f"{HOSTILE}/1"]
    assert [value for value in shown.options["_preset"] if value.startswith("course:")] == [f"course:{HOSTILE}/1"]
    data = variables(snowy, values_of(snowy), {}, Known(courses=cards))["data"]
    assert data["of_courses"] == {f"{HOSTILE}/1": open_card.values}
