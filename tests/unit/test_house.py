"""The house keeps its floors (design.md §2): a room imports only from floors below its own."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

import snowyspawner

HOUSE = Path(snowyspawner.__file__).parent

# From the ground up. Rooms of slurm/ stand on several floors: facts and queue on the client, that on what it parses.
FLOORS: list[set[str]] = [
    {
        "_share",
        "standalone.end_warning",
        "choice.notebook_line",
        "standalone.helper",
        "standalone.launcher",
        "metrics",
        "slurm.processes",
        "slurm",
    }
    | {"choice", "session", "standalone", "web"}
    | {"slurm.names", "slurm.reasons", "slurm.reservations"}
    | {"slurm.times", "stored", "web.turns"},
    {"site.model", "slurm.nodes", "session.messages"},
    {"site.loading", "slurm.client"},
    {"session.estimate", "slurm.facts", "slurm.queue"},
    {"session.errors", "session.record", "site"},
    {"session.as_person", "choice.rules"},
    {"choice.request"},
    {"choice.presets", "session.script", "session.status", "session.stopping", "choice.summary", "session.tasks"},
    {"web.form"},
    {"web.job_api", "session.lifecycle"},
    {"web.card", "web.form_state"},
    {"web.form_pages"},
    {"web.session_pages"},
    {"restart", "spawner"},
    {"config"},
    {""},  # the package itself: what others import
    {"cli"},  # the command knows the package's version
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
ROOMS = {
    ".".join(path.relative_to(HOUSE).with_suffix("").parts).replace("__init__", "").rstrip("."): path
    for path in sorted(HOUSE.rglob("*.py"))
}


def imports(room: str) -> tuple[set[str], set[str]]:
    """Return what *room* imports: rooms of the house, and packages of others."""
    ours: set[str] = set()
    others: set[str] = set()
    package = room.split(".") if ROOMS[room].name == "__init__.py" and room else room.split(".")[:-1]
    for node in ast.walk(ast.parse(ROOMS[room].read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            others |= {name.split(".")[0] for name in names if name.split(".")[0] != "snowyspawner"}
            ours |= {name.partition(".")[2] for name in names if name.split(".")[0] == "snowyspawner"}
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0 and (node.module or "").split(".")[0] != "snowyspawner":
                others.add((node.module or "").split(".")[0])
                continue
            base = package[: len(package) - node.level + 1] if node.level else []
            base = base + [part for part in (node.module or "").split(".") if part and part != "snowyspawner"]
            # `from . import site` names a room, `from .site import load` something in one.
            for alias in node.names:
                inner = ".".join([*base, alias.name])
                ours.add(inner if inner in ROOMS else ".".join(base))
    return ours, others


def test_every_room_has_a_floor() -> None:
    assert set(ROOMS) == set(FLOOR)


@pytest.mark.parametrize("room", [room for room in FLOOR if room in ROOMS])
def test_a_room_imports_only_from_floors_below(room: str) -> None:
    above = {other for other in imports(room)[0] if FLOOR[other] >= FLOOR[room]}
    assert not above


def test_the_architecture_page_says_the_same() -> None:
    page = (HOUSE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    said = {
        name.replace("/", "."): int(floor) for floor, name in re.findall(r"^\| (\d+) \| `([\w/]+)\.py` \|", page, re.M)
    }
    assert said == {room: floor for room, floor in FLOOR.items() if ROOMS[room].name != "__init__.py"}


def test_imports_are_found_at_all() -> None:
    # The test above could not fail if the reading of imports did not work.
    assert imports("slurm.queue")[0] == {"metrics", "slurm.client"}
    assert {"site", "session.record", "session.messages", "slurm.queue"} <= imports("session.lifecycle")[0]
    assert {"", "session.as_person", "choice.request", "session.script", "site", "choice.summary"} == imports("cli")[0]
    assert {"batchspawner", "jupyterhub", "tornado"} <= imports("spawner")[1]


@pytest.mark.parametrize("text", ["standalone.launcher", "standalone.end_warning", "standalone.helper"])
def test_nothing_imports_what_is_carried_as_text(text: str) -> None:
    assert [room for room in ROOMS if text in imports(room)[0]] == []


@pytest.mark.parametrize("text", ["standalone.launcher", "standalone.end_warning", "standalone.helper"])
def test_what_is_carried_as_text_needs_the_standard_library_only(text: str) -> None:
    ours, others = imports(text)
    assert ours == set()
    assert others <= sys.stdlib_module_names


@pytest.mark.parametrize("room", sorted(room for room in ROOMS if FLOOR.get(room, 9) < FLOOR["web.job_api"]))
def test_only_the_upper_floors_know_jupyterhub(room: str) -> None:
    # errors.py is the way up: what it raises is JupyterHub's.
    if room != "session.errors":
        assert not imports(room)[1] & {"jupyterhub", "batchspawner", "tornado", "traitlets", "sqlalchemy"}
