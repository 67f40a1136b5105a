"""A user's own container or environment, by its path: how it is written, where it may be. Pure.

What there is on the disk is looked at as the person (session/as_person.py), and said here in words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from ..site import Site
from ..site.fields import FIELDS
from ..slurm import names
from .rules import either

#: The fields that name software of one's own.
OWN = tuple(name for name, field in FIELDS.items() if field.kind == "own")

# Neither : nor , which part what is bound into a container; no name of . or .. alone.
_PATH = r"(~|(/(?!\.{1,2}(/|$))[A-Za-z0-9_.@%+=-]+))(/(?!\.{1,2}(/|$))[A-Za-z0-9_.@%+=-]+)+"
_ADDRESS = r"[A-Za-z][A-Za-z0-9+.-]*://.*"
# By which a word of a line is a container's.
_IMAGE = (".sif", ".simg", ".img", ".sqfs", ".squashfs")

#: What is wrong with it, or "ready"; the helper's words (standalone/helper.py).
Answer = Literal[
    "ready",
    "missing",
    "forbidden",
    "outside",
    "no_environment",
    "no_container",
    "no_server",
    "moved",
    "broken",
    "unknown",
]


class Found(NamedTuple):
    """What there is at a path. *detail* goes with the answer: a path, a kind of environment, or what was printed."""

    answer: Answer
    detail: str = ""


def places(site: Site, name: str) -> tuple[str, ...]:
    """Return below which directories the Site allows what the field *name* names, as the Site says it."""
    found: tuple[str, ...] = getattr(site.own, FIELDS[name].table)
    return found


def problem(text: str) -> str:
    """Say what is wrong with how a path is written; empty if it is one."""
    if re.fullmatch(_ADDRESS, text, re.ASCII):
        return "is an address: fetch it first, with apptainer pull ~/NAME.sif ADDRESS, and name that file"
    if not re.fullmatch(_PATH, text, re.ASCII):
        return "is not a path: write ~/NAME or /DIRECTORY/NAME, without spaces, quotes, colons, commas and .."
    return ""


def is_path(word: str) -> bool:
    """Tell whether a *word* of a notebook.py line is a path, and not the name of something of the Site's."""
    return "/" in word or word == "~"


def is_image(word: str) -> bool:
    """Tell whether a path is called as the file of a container is."""
    return word.lower().endswith(_IMAGE)


def written_out(path: str, home: str) -> str:
    """Return *path* with the *home* directory in place of ~."""
    return home.rstrip("/") + path[1:] if path.startswith("~") else path


def place_of(path: str, allowed: Sequence[str], home: str, accounts: Sequence[str] | None = None) -> str:
    """Return the directory of those *allowed* that *path* is below, written out; empty: none.

    *home* is the person's, and so are *accounts*; where these are not known, any may be theirs.
    """
    path = written_out(path, home)
    for place in allowed:
        whose = names.ACCOUNT_IN_PATH if accounts is None else "|".join(map(re.escape, accounts)) or "(?!)"
        directory = re.escape(written_out(place, home)).replace(re.escape("{account}"), f"({whose})")
        if found := re.match(f"{directory}(?=/.)", path, re.ASCII):
            return found.group()
    return ""


def outside(allowed: Sequence[str], accounts: Sequence[str] | None = None) -> str:
    """Say where such software may be."""
    shown: list[str] = []
    for place in allowed:
        mine = [
            place.replace("{account}", account)
            for account in accounts or ()
            if re.fullmatch(names.ACCOUNT_IN_PATH, account)
        ]
        shown += mine[:3] if "{account}" in place and mine else [place.replace("{account}", "PROJECT")]
    return f"must be below {either(shown)}"


def refusal(name: str, path: str, found: Found) -> str:
    """Say why what the field *name* names by *path* cannot be started, and what to do; empty if it can.

    What the hub's host could not tell is left to the job.
    """
    container = FIELDS[name].table == "containers"
    install = _install(path, found.detail)
    sentences: dict[Answer, str] = {
        "missing": f"{path} does not exist"
        + ("" if container else f": make it with python3 -m venv {path}, then {_install(path, 'venv')}"),
        "forbidden": f"you may not read {path}: ask its owner for chmod -R g+rX",
        "outside": f"{path} leads to {found.detail}, where this site does not allow it: copy it, or make it anew",
        "no_environment": f"{path} is no environment: it has no bin/python; name the directory that has bin in it",
        "no_container": f"{path} is no container: name a file that apptainer build or apptainer pull has made",
        "no_server": f"{path} has no jupyterhub-singleuser: "
        + (
            "add python3 -m pip install jupyterhub jupyterlab to %post of its definition file, and build it again"
            if container
            else f"install it with {install}"
        ),
        "moved": f"{path} was made as {found.detail} and does not work elsewhere: make it anew here, and install "
        "jupyterhub and jupyterlab in it",
        "broken": f"{path} cannot be opened ({found.detail}): copy it again, or build it again",
    }
    return sentences.get(found.answer, "")


def _install(path: str, kind: str) -> str:
    if kind == "conda":
        return f"conda install --prefix {path} --channel conda-forge jupyterhub-singleuser"
    return f"{path}/bin/python -m pip install jupyterhub jupyterlab"
