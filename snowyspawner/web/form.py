"""The options form: a Site, what is known and what was typed become HTML. Jinja's autoescape escapes all of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from .._share import share_dir
from ..choice.course import Card, version
from ..choice.own import outside, places
from ..choice.request import form_values, review, software, written
from ..choice.rules import rules_of
from ..choice.several import LISTS, MOST, means_several, verdict
from ..choice.summary import link
from ..site import Site
from ..site.fields import FIELDS, MOST_CORES, MOST_MEMORY, PARTS, Field
from ..slurm.times import parse_duration, say_duration

_UNREADABLE = "You may not read it at the moment, or it is not there: are you a member of its project?"
_MOST_BUTTONS = 5
_QUICK_TIMES = {"0:30:00": "30 min", "0:59:00": "59 min", "2:00:00": "2 h", "3:00:00": "3 h", "8:00:00": "8 h"}

#: What the Start of a course's card sends: the card's key. It is no field of a session.
COURSE = "_course"

#: What the page asks for, below the hub's ``snowy/``; the link itself is ``snowy``.
ACTIONS = ("check", "estimate", "script", "line", "preset", "several")


@dataclass(frozen=True)
class Known:
    """What a form shows beside the Site and the values; all of it may be unknown.

    *facts* has per partition what the contract with the page says (free cores and so on), *facts_age* is in
    seconds; *readable* tells of an image whether this person may read it.
    """

    accounts: Sequence[str] = ()  # the person's; empty: not known, then any may be typed
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    facts_age: float | None = None
    reservations: Sequence[Mapping[str, str]] = ()  # active, and this person's: name, sentence
    readable: Mapping[str, bool | None] = field(default_factory=dict)
    courses: Mapping[str, Card] = field(
        default_factory=dict
    )  # cards of the person's courses, by the value that Start submits
    own_presets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # name: values
    remembered: Sequence[str] = ()  # what of the last choice is not offered any more
    slurm_note: str = ""
    server_name: str = ""
    user_name: str = ""  # empty: the person who is signed in
    base_url: str = "/hub/"
    answer: Mapping[str, Any] = field(default_factory=dict)  # to a button that was pressed without JavaScript
    named_servers: bool = False  # a person may have several sessions
    several: Mapping[str, Sequence[str]] = field(default_factory=dict)  # what stands in the section for them


def render(
    site: Site,
    values: Mapping[str, str],
    errors: Mapping[str, str],
    accounts: Sequence[str] = (),
    known: Known | None = None,
) -> str:
    """Return the form's fields (JupyterHub makes the ``<form>`` around them).

    *values* is what each field shows, whatever it is; *errors* has a sentence per field, and may name fields
    that do not exist.
    """
    return template("snowy_options_form.html").render(
        **variables(site, values, errors, known or Known(accounts=accounts))
    )


def variables(site: Site, values: Mapping[str, str], errors: Mapping[str, str], known: Known) -> dict[str, Any]:
    """Return what the template is rendered with."""
    choice = {name: text for name, text in values.items() if name in FIELDS}
    remarks = (verdict if means_several(choice, site) else review)(choice, site).remarks
    urls = addresses(known)
    presets, own_presets, of_courses = _presets(site, known), _own_presets(site, known), _of_courses(known)
    parts = _parts(site, values, errors, known)
    return {
        "site": site,
        "values": values,
        "errors": {name: text for name, text in errors.items() if name in values},
        "other_errors": {name: text for name, text in errors.items() if name not in values},
        "remarks": {name: text for name, text in remarks.items() if name not in errors},
        "parts": parts,
        # In the order of the form, also those that it does not show.
        "labels": {name: FIELDS[name].label for part in PARTS for name in _of_part(part)},
        "presets": presets,
        "own_presets": own_presets,
        "several": _several(site, known) if known.named_servers else [],
        "several_open": any(known.several.values()),
        "of_courses": of_courses,
        "course_button": COURSE,
        "urls": urls,
        "software": lambda chosen: software(chosen["environment"], chosen["own_environment"], chosen["own_container"]),
        "snowy_link": lambda options: link(options, known.base_url, known.server_name, known.user_name),
        "snowy_static": lambda name: static_url(known.base_url, name),
        "server_name": known.server_name,
        "remembered": list(known.remembered),
        "slurm_note": known.slurm_note,
        "facts_age": known.facts_age,
        "answer": dict(known.answer),
        # What the page's JavaScript reads. JSON can hold it.
        "data": {
            "rules": rules_of(site),
            "fields": {
                name: {"kind": field.kind, "may_be_empty": field.may_be_empty, "several": field.several}
                for name, field in FIELDS.items()
            },
            "most_sessions": MOST,
            "most": {"number": MOST_CORES, "memory": MOST_MEMORY},
            "presets": {preset["key"]: preset["values"] for preset in presets},
            "own_presets": {preset["key"]: preset["values"] for preset in own_presets},
            "of_courses": {card["key"]: card["values"] for card in of_courses if card["values"]},
            "courses": version(known.courses),
            "defaults": form_values(site, known.accounts or None),
            "time_zone": site.time_zone,
            "memory_per_core": site.memory_per_core,
            "memory_free": site.memory_free,
            "urls": urls,
            "facts": {key: dict(facts) for key, facts in known.facts.items()},
            "facts_age": known.facts_age,
        },
    }


def _of_part(part: str) -> list[str]:
    """Return the fields of a part of the form, in its order."""
    mine = [name for name, field in FIELDS.items() if field.part == part]
    return sorted(mine, key=lambda name: not FIELDS[name].first)


def _parts(site: Site, values: Mapping[str, str], errors: Mapping[str, str], known: Known) -> list[dict[str, Any]]:
    """Return the parts of the form with what is drawn in each."""
    drawing = _Drawing(site, values, errors, known)
    parts = []
    for key, title in PARTS.items():
        drawn = [(name, drawing.of(name)) for name in _of_part(key)]
        fields = [{"name": name, **control} for name, control in drawn if control]
        parts.append({"key": key, "title": title, "fields": fields})
    return parts


@dataclass
class _Drawing:
    """How each kind of field is drawn here: the control (a macro of the template), its help, what it offers.

    Nothing for a field that this Site has no use for.
    """

    site: Site
    values: Mapping[str, str]
    errors: Mapping[str, str]
    known: Known

    def of(self, name: str) -> dict[str, Any]:
        field = FIELDS[name]
        drawn: dict[str, Any] = getattr(self, field.kind)(name, field)
        return {"help": field.help, **drawn} if drawn else {}

    def member(self, name: str, field: Field) -> dict[str, Any]:
        items = [self._item(field.table, key, item) for key, item in getattr(self.site, field.table).items()]
        return {"control": "group", "items": items, "wide": field.table == "partitions"}

    def _item(self, table: str, key: str, item: Any) -> dict[str, Any]:
        if table == "images":
            text = ": ".join(filter(None, [item.display_name, item.description]))
            lost = self.known.readable.get(key) is False
            return {"value": key, "name": key, "text": text, "warning": _UNREADABLE if lost else ""}
        shown = {"value": key, "name": item.display_name or key, "text": item.description}
        if table == "partitions":
            limits = f"{say_duration(parse_duration(item.max_time))}, {item.max_cores} cores"
            shown |= {"limits": limits, "facts": self.known.facts.get(key) or {}}
        return shown

    def listed(self, name: str, field: Field) -> dict[str, Any]:
        offered = {
            key: ": ".join(filter(None, [item.display_name or key, item.description]))
            for key, item in getattr(self.site, field.table).items()
        }
        if offered:
            return {"control": "choice", "options": {"": "None", **offered}}
        # What somebody asked for by a link stays visible.
        return {"control": "entry"} if self.values.get(name) or name in self.errors else {}

    def gpu(self, name: str, field: Field) -> dict[str, Any]:
        items = [{"value": "none", "name": "No GPU", "text": "CPU only"}]
        for key, item in self.site.gpus.items():
            what = item.display_name or key
            counts = range(1, item.max_count + 1)
            items += [
                {"value": f"{key}:{count}", "name": f"{count} \N{MULTIPLICATION SIGN} {what}", "text": ""}
                for count in counts
            ]
        if len(items) > _MOST_BUTTONS:
            return {"control": "choice", "options": {item["value"]: item["name"] for item in items}}
        return {"control": "group", "items": items} if self.site.gpus else {}

    def number(self, name: str, field: Field) -> dict[str, Any]:
        most = max(partition.max_cores for partition in self.site.partitions.values())
        memory = f"{round(self.site.memory_per_core / 1000, 1)}".removesuffix(".0")
        quick = [(str(count), str(count)) for count in (1, 4, 8, 16) if count <= most]
        text = f"Each core brings {memory} GB of memory."
        return {"control": "entry", "help": text, "inputmode": "numeric", "quick": quick}

    def memory(self, name: str, field: Field) -> dict[str, Any]:
        return {"control": "entry", "inputmode": "numeric", "unit": " in MB"} if self.site.memory_free else {}

    def duration(self, name: str, field: Field) -> dict[str, Any]:
        return {"control": "entry", "quick": list(_QUICK_TIMES.items())}

    def begin(self, name: str, field: Field) -> dict[str, Any]:
        ways = "15:00, tomorrow 9:00, now+1hour or 2027-01-31T15:00"
        return {"control": "begin", "help": f"{ways}; the time of {self.site.time_zone}. Empty: as soon as possible."}

    def account(self, name: str, field: Field) -> dict[str, Any]:
        accounts = {account: account for account in self.known.accounts}
        return {"control": "choice", "options": accounts} if accounts else {"control": "entry"}

    def reservation(self, name: str, field: Field) -> dict[str, Any]:
        if self.known.reservations:
            offered = {
                item["name"]: ": ".join(filter(None, [item["name"], item.get("sentence", "")]))
                for item in self.known.reservations
            }
            text = "Nodes that are kept for your course."
            return {"control": "choice", "options": {"": "None", **offered}, "help": text}
        return {
            "control": "entry",
            "help": "Only if your teacher gave you one.",
            "fold": "I was given a reservation",
            "open": bool(self.values.get(name) or name in self.errors),
        }

    def flag(self, name: str, field: Field) -> dict[str, Any]:
        return {"control": "check", "text": "Send me mail when the job starts"}

    def path(self, name: str, field: Field) -> dict[str, Any]:
        return {"control": "entry", "placeholder": "course/lab1.ipynb"}

    def own(self, name: str, field: Field) -> dict[str, Any]:
        allowed = places(self.site, name)
        # What somebody asked for by a link stays visible.
        if not (allowed or self.values.get(name) or name in self.errors):
            return {}
        where = f" It {outside(allowed, self.known.accounts)}." if allowed else ""
        example = "~/lab.sif" if field.table == "containers" else "~/envs/mine"
        return {
            "control": "entry",
            "help": field.help + where,
            "placeholder": example,
            "fold": f"Use {field.in_words.replace('your', 'my')}",
            "open": bool(self.values.get(name) or name in self.errors),
        }

    def repository(self, name: str, field: Field) -> dict[str, Any]:
        return {
            "control": "entry",
            "placeholder": "https://github.com/ORGANISATION/COURSE",
            "fold": "Fetch a git repository",
            "open": bool(self.values.get(name) or name in self.errors),
        }


def _several(site: Site, known: Known) -> list[dict[str, Any]]:
    """Return what is drawn in the section for several sessions: boxes for members of a table, else a text field."""
    drawn = []
    for name, declared in LISTS.items():
        given = known.several.get(name, ())
        table = getattr(site, declared.table) if declared.table else {}
        items = [
            {"value": key, "name": item.display_name or key, "checked": key in given} for key, item in table.items()
        ]
        drawn.append({"name": name, "label": declared.label, "boxes": items, "text": ",".join(given)})
    return drawn


def addresses(known: Known) -> dict[str, str]:
    """Return the addresses of what the page asks for; they say for which server, as a posted form does not."""
    about = {"user": known.user_name, "server": known.server_name}
    query = urlencode({name: text for name, text in about.items() if text})
    start = f"{known.base_url}snowy"
    urls = {action: f"{start}/{action}" + (f"?{query}" if query else "") for action in ACTIONS}
    return {**urls, "link": start, "static": f"{start}/static/"}


def static_url(base_url: str, name: str) -> str:
    """Return the address of a file of share/static, with its content's hash: it may be cached for ever."""
    return f"{base_url}snowy/static/{name}?v={_content_hash(name)}"


def _presets(site: Site, known: Known) -> list[dict[str, Any]]:
    defaults = form_values(site, known.accounts or None)
    presets = []
    for key, preset in site.presets.items():
        chosen = preset.choices.model_dump(exclude_none=True)
        values = {**defaults, **{name: written(name, value) for name, value in chosen.items()}}
        facts = known.facts.get(values["partition"])
        presets.append(
            {
                "key": key,
                "display_name": preset.display_name,
                "description": preset.description,
                "values": values,
                "facts": facts,
            }
        )
    return presets


def _of_courses(known: Known) -> list[dict[str, Any]]:
    """Return the cards of courses; those that cannot be chosen have no values."""
    return [
        {
            "key": key,
            "display_name": card.title,
            "description": card.description,
            "values": card.values,
            "facts": known.facts.get(card.values["partition"]) if card.values else None,
            "remarks": card.remarks,
            "when": card.when,
        }
        for key, card in known.courses.items()
    ]


def _own_presets(site: Site, known: Known) -> list[dict[str, Any]]:
    defaults = form_values(site, known.accounts or None)
    presets = []
    for name, given in known.own_presets.items():
        values = {**defaults, **given}
        facts = known.facts.get(values["partition"])
        presets.append({"key": name, "display_name": name, "description": "", "values": values, "facts": facts})
    return presets


@cache
def _content_hash(name: str) -> str:
    try:
        return hashlib.sha256((share_dir() / "static" / name).read_bytes()).hexdigest()[:16]
    except OSError:
        return "missing"


@cache
def template(name: str) -> Template:
    """Return a template that needs nothing of JupyterHub's."""
    loader = FileSystemLoader(share_dir() / "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # Jinja would sort the keys, and the page say "choose node or core" where the hub says "core or node".
    environment.policies["json.dumps_kwargs"] = {}
    return environment.get_template(name)
