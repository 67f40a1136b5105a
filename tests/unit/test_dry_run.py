"""What would come of a choice, as far as Slurm is not asked; the rest is in tests/cluster."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from snowyspawner.choice.request import from_options
from snowyspawner.session.script import Target, build
from snowyspawner.site import Site
from snowyspawner.web import dry_run


def life_on(site: Site, accounts: list[str] | None = None) -> Any:
    facts = SimpleNamespace(known_accounts=lambda name: accounts)
    return SimpleNamespace(site=site, facts=facts, known_slurm_name="ann")


@pytest.mark.parametrize("partition", ["core", "node"])
def test_what_is_nearly_the_same_is_possible_and_not_dearer(snowy: Site, partition: str) -> None:
    choice = from_options({"partition": partition, "account": "g2020014"}, snowy)
    others = list(dry_run.alternatives(life_on(snowy, ["g2020014"]), choice))
    assert choice not in others
    assert len({other.model_dump_json() for other in others}) == len(others)
    # devcore has no T4: there the presets' environments come without one.
    places = {(other.partition, other.gpu) for other in others}
    assert places == ({("devcore", "")} if partition == "core" else {("core", "t4"), ("devcore", "")})
    for other in others:
        assert from_options(other.options(snowy), snowy, accounts=["g2020014"]) == other
        assert (other.cores, other.time, other.account) == (choice.cores, choice.time, "g2020014")


def test_nothing_else_is_proposed_where_the_project_is_somebody_else_s(snowy: Site) -> None:
    choice = from_options({"account": "g2020014"}, snowy)
    assert list(dry_run.alternatives(life_on(snowy, ["g2021027"]), choice)) == []


@pytest.mark.parametrize(("cluster", "start"), [("snowy", ["sbatch", "-M", "snowy"]), ("", ["sbatch"])])
def test_the_command_has_the_script_s_options(
    cluster: str, start: list[str], variant: Callable[..., Site], target: Target
) -> None:
    site = variant(cluster=cluster)
    choice = from_options({}, site)
    command = dry_run.command(site, choice, target)
    assert command[: len(start)] == start
    lines = [line.removeprefix("#SBATCH ") for line in build(site, choice, target).splitlines()]
    assert set(command[len(start) :]) <= set(lines)
