"""The options form: Site, values and errors become HTML. Everything is escaped by Jinja's autoescape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from ._share import share_dir
from .site import Site
from .slurm.times import parse_duration, say_duration


def render(site: Site, values: Mapping[str, str], errors: Mapping[str, str], accounts: Sequence[str] = ()) -> str:
    """Return the form's fields (JupyterHub makes the ``<form>`` around them).

    *values* is what each field shows, whatever it is; *errors* has a sentence per field, and may name fields
    that do not exist. *accounts* are the person's, empty when they are not known: then any may be typed.
    """
    known = {field: error for field, error in errors.items() if field in values}
    limits = {key: say_duration(parse_duration(part.max_time)) for key, part in site.partitions.items()}
    return _template().render(
        site=site,
        values=values,
        errors=known,
        other_errors={field: error for field, error in errors.items() if field not in values},
        limits=limits,
        accounts=accounts,
    )


@cache
def _template() -> Template:
    loader = FileSystemLoader(share_dir() / "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("snowy_options_form.html")
