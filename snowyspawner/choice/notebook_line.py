"""A notebook.py line as options: the sbatch flags that the course's own script took, ``-n 4 … -- tf-mkl``.

Syntax: ``[./notebook.py] [FLAG …] [-- ENVIRONMENT [IMAGE]]``, the flags being sbatch's (sbatch(1)). A path in either
place is one's own; that of a container may stand alone. What comes out is checked by `request.from_options` like any
other choice.
"""

from __future__ import annotations

import argparse
import math
import re
import shlex
from collections.abc import Mapping
from typing import NoReturn

from ..site.fields import FIELDS
from . import own

_FIRST = ("account", "cores", "partition")  # as the course's own script had them
_ORDER = [*_FIRST, *(name for name, field in FIELDS.items() if field.flags and name not in _FIRST)]
_EXAMPLE = "-n 4 -p devcore --gres=gpu:t4:0 -t 2:00:00 -- tf-mkl"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; a line looks like {_EXAMPLE}")


def _parser() -> _Parser:
    parser = _Parser(prog="", add_help=False, allow_abbrev=False)
    for name in _ORDER:
        parser.add_argument(*FIELDS[name].flags, dest=name)
    # What else sbatch has for a GPU, without "gpu:" before it, and for the cluster.
    parser.add_argument("-G", "--gpus", "--gpus-per-node", dest="gpus")
    parser.add_argument("-M", "--clusters", "--cluster")
    return parser


def from_line(line: str, cluster: str = "") -> dict[str, str]:
    """Read a line; return the options it sets. *cluster* is the Site's, the only one that ``-M`` may name.

    ``-p`` and ``-C`` are as Slurm knows them (*partition*, *constraint*): which of the Site's that is, the Site knows.

    Raises `ValueError` that names the flag and what is allowed.
    """
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise ValueError(f"cannot be read: {error}") from None
    if words and words[0].rsplit("/", 1)[-1] in ("notebook.py", "notebookjob.sh", "sbatch"):
        words = words[1:]
    flags, positional = words, []
    if "--" in words:
        at = words.index("--")
        flags, positional = words[:at], words[at + 1 :]
    given = {key: value for key, value in vars(_parser().parse_args(flags)).items() if value is not None}
    if len(positional) > 2:
        raise ValueError(f"after -- come an environment and an image, not {len(positional)} words")
    given.update(_software(positional))
    asked = given.pop("clusters", cluster)
    if asked != cluster:
        raise ValueError(f"-M {asked}: sessions run on {cluster or 'this cluster'} here")
    if "gpu" in given:
        given["gpu"] = _gpu(given.pop("gpu"))
    if (gpus := given.pop("gpus", None)) is not None:
        given.setdefault("gpu", gpus)
    if (mail := given.get("email_on_start")) is not None:
        if mail.upper() not in ("BEGIN", "NONE"):
            raise ValueError(f"--mail-type={mail}: BEGIN or NONE is possible")
        given["email_on_start"] = "1" if mail.upper() == "BEGIN" else "0"
    if "memory" in given:
        given["memory"] = _megabytes(given["memory"])
    return given


def to_line(options: Mapping[str, str]) -> str:
    """Write *options* (as `request.SessionRequest.options` gives them) as a line that `from_line` reads back.

    Empty fields are left out, and a line has no word for ``open``.
    """
    said = {"gpu": {"none": "--gres=none"}, "email_on_start": {"1": "--mail-type=BEGIN", "0": "--mail-type=NONE"}}
    words = []
    for name in _ORDER:
        flag, text = FIELDS[name].flags[0], options.get(name, "")
        if text:
            before = f"{flag}=" if flag.startswith("--") else f"{flag} "
            before += "gpu:" if FIELDS[name].kind == "gpu" else ""
            words.append(said.get(name, {}).get(text) or before + shlex.quote(text))
    container, environment = (options.get(name, "") for name in ("own_container", "own_environment"))
    names = [environment or options.get("environment", ""), container or options.get("image", "")]
    if container and not environment and own.is_image(container):
        names = [container]
    # A path has nothing that needs quotes, but its ~.
    return " ".join([*words, "--", *(shlex.quote(name) if own.problem(name) else name for name in names if name)])


def _software(words: list[str]) -> dict[str, str]:
    """Take what stands behind ``--``: ENVIRONMENT [IMAGE], of the Site's or paths of one's own."""
    if len(words) == 1 and own.is_path(words[0]) and own.is_image(words[0]):
        return {"own_container": words[0]}
    given = {}
    for word, name in zip(words, ("environment", "image"), strict=False):
        mine = {"environment": "own_environment", "image": "own_container"}[name]
        given[mine if own.is_path(word) else name] = word
    return given


def _gpu(gres: str) -> str:
    """Take ``gpu:t4:1`` as the choice ``t4:1``, ``gpu:2`` as ``2``, ``shard:2`` as it is; ``none`` as none."""
    name, _, rest = gres.partition(":")
    if gres.lower() == "none":
        return "none"
    if name not in ("gpu", "shard") or "," in gres:
        raise ValueError(f"--gres={gres}: only a GPU is possible, such as gpu:t4:1")
    return (rest or "1") if name == "gpu" else gres


def _megabytes(text: str) -> str:
    """Turn ``--mem``'s K, M, G and T (default M) into MB, rounded up."""
    sizes = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2}
    unit = text[-1:].upper()
    number = text[:-1] if unit in sizes else text
    # Zero is sbatch's word for all the memory of a node.
    if not re.fullmatch(r"[1-9][0-9]{0,8}", number, re.ASCII):
        raise ValueError(f"--mem={text[:40]}: write a number and K, M, G or T")
    return str(math.ceil(int(number) * sizes.get(unit, 1)))
