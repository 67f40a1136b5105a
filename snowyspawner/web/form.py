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
from ..choice.request import FIELDS, form_values, review, written
from ..choice.rules import rules_of
from ..choice.summary import link
from ..site import Site
from ..slurm.times import parse_duration, say_duration

#: What the page asks for, below the hub's ``snowy/``; the link itself is ``snowy``.
ACTIONS = ("check", "estimate", "script", "line", "preset")


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
    own_presets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # name: values
    remembered: Sequence[str] = ()  # what of the last choice is not offered any more
    slurm_note: str = ""
    server_name: str = ""
    user_name: str = ""  # empty: the person who is signed in
    base_url: str = "/hub/"
    answer: Mapping[str, Any] = field(default_factory=dict)  # to a button that was pressed without JavaScript


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
    return _template().render(**variables(site, values, errors, known or Known(accounts=accounts)))


def variables(site: Site, values: Mapping[str, str], errors: Mapping[str, str], known: Known) -> dict[str, Any]:
    """Return what the template is rendered with."""
    remarks = review({name: text for name, text in values.items() if name in FIELDS}, site).remarks
    urls = addresses(known)
    presets, own_presets = _presets(site, known), _own_presets(site, known)
    return {
        "site": site,
        "values": values,
        "errors": {name: text for name, text in errors.items() if name in values},
        "other_errors": {name: text for name, text in errors.items() if name not in values},
        "remarks": {name: text for name, text in remarks.items() if name not in errors},
        "accounts": list(known.accounts),
        "limits": {key: say_duration(parse_duration(part.max_time)) for key, part in site.partitions.items()},
        "presets": presets,
        "own_presets": own_presets,
        "partitions": [
            {
                "key": key,
                "display_name": partition.display_name or key,
                "description": partition.description,
                "max_time": say_duration(parse_duration(partition.max_time)),
                "max_cores": partition.max_cores,
                "facts": known.facts.get(key),
            }
            for key, partition in site.partitions.items()
        ],
        "environments": [
            {"key": key, "display_name": item.display_name or key, "description": item.description, "gpu": item.gpu}
            for key, item in site.environments.items()
        ],
        "images": [
            {
                "key": key,
                "display_name": item.display_name or key,
                "description": item.description,
                "readable": known.readable.get(key),
            }
            for key, item in site.images.items()
        ],
        "reservations": list(known.reservations),
        "urls": urls,
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
            "presets": {preset["key"]: preset["values"] for preset in presets},
            "own_presets": {preset["key"]: preset["values"] for preset in own_presets},
            "defaults": form_values(site, known.accounts or None),
            "time_zone": site.time_zone,
            "memory_per_core": site.memory_per_core,
            "memory_free": site.memory_free,
            "urls": urls,
            "facts": {key: dict(facts) for key, facts in known.facts.items()},
            "facts_age": known.facts_age,
        },
    }


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
def _template() -> Template:
    loader = FileSystemLoader(share_dir() / "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # Jinja would sort the keys, and the page say "choose node or core" where the hub says "core or node".
    environment.policies["json.dumps_kwargs"] = {}
    return environment.get_template("snowy_options_form.html")
