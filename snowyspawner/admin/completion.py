"""Completion of the command in a shell: the values that the site which is asked about allows."""

from __future__ import annotations

import argparse
import os
import pwd
from collections.abc import Iterable
from typing import Any

from .. import site
from ..site.fields import FIELDS

#: Options that name a file, and how such a file's name ends; empty: any.
_FILES = {"site": (".yaml", ".yml"), "config": (".py",), "course": (".yaml", ".yml"), "output": ()}
#: Options that name a person.
_PEOPLE = ("user", "job")
_FIRST_UID = 1000  # of people: login.defs(5), UID_MIN


def complete(parser: argparse.ArgumentParser, default: str) -> None:
    """Answer a shell that asks for completions, and end; do nothing if none asks. *default* is the usual site.

    A shell asks as argcomplete has taught it to; without that package (the extra ``completion``) there is no answer.
    """
    if "_ARGCOMPLETE" not in os.environ:
        return
    try:
        import argcomplete
        from argcomplete.completers import FilesCompleter
    except ImportError:
        return

    def values(prefix: str, action: argparse.Action, parsed_args: argparse.Namespace, **more: Any) -> Iterable[str]:
        files = FilesCompleter(_FILES[action.dest])(prefix) if action.dest in _FILES else ()
        return [*allowed(action.dest, parsed_args, default), *files]

    # It is called by keyword, and any callable will do.
    argcomplete.autocomplete(parser, default_completer=values)  # type: ignore[arg-type]


def allowed(option: str, args: argparse.Namespace, default: str) -> list[str]:
    """Return the values that *option* may have, as far as they can be counted; *args* is the line as it stands.

    A hub's configuration is not run for that: it is Python.
    """
    if option == "site":
        return site.shipped()
    if option in _PEOPLE:
        return [each.pw_name for each in pwd.getpwall() if each.pw_uid >= _FIRST_UID]
    given = vars(args)
    if option not in FIELDS or given.get("config"):
        return []
    try:
        return values_of(option, site.load(given.get("site") or default))
    except site.SiteError:
        return []


def values_of(name: str, the_site: site.Site) -> list[str]:
    """Return the values that a field may have on a site; empty if they cannot be counted."""
    field = FIELDS[name]
    if field.kind in ("member", "listed"):
        return list(getattr(the_site, field.table))
    if field.kind == "gpu":
        counts = [f"{key}:{n}" for key, gpu in the_site.gpus.items() for n in range(1, gpu.max_count + 1)]
        return ["none", *counts]
    return ["0", "1"] if field.kind == "flag" else []
