"""What the form shows of the cluster is what is known: what Slurm does not show the hub is not shown as none."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from snowyspawner.site import Site
from snowyspawner.slurm.facts import Live
from snowyspawner.slurm.nodes import PartitionFacts
from snowyspawner.web import availability


@pytest.mark.parametrize(
    ("waiting", "shown"),
    [({"core": 3}, {"waiting": 3}), ({}, {"waiting": 0}), (None, {})],
    ids=["some", "none", "hidden"],
)
def test_jobs_that_are_hidden_are_left_out(snowy: Site, waiting: Any, shown: dict[str, int]) -> None:
    core = PartitionFacts(free_cores=5, total_cores=64, largest_block=4, free_gpus={"t4": 2})
    facts = SimpleNamespace(live=Live(time.monotonic(), {"core": core}, waiting))
    life: Any = SimpleNamespace(facts=facts, site=snowy)
    expected = {"free_cores": 5, "total_cores": 64, "free_gpus": {"t4": 2}, "largest_block": 4, "state": "up"}
    assert availability.partition_facts(life) == {"core": {**expected, **shown}}
