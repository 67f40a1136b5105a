"""What to change when a session is started again: each row of the table, and when nothing is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from snowyspawner.session.advice import advice_of
from snowyspawner.session.usage import Usage
from snowyspawner.site import Site

REQUEST = {"environment": "tf-mkl", "image": "course", "partition": "core", "cores": 4, "time": 3540}
GPU = {"environment": "tf-gpu", "gpu": "t4", "gpu_count": 1}


def curve(**values: list[float | None]) -> dict[str, Any]:
    return {"step": 60, **values}


def asked(site: Site, request: dict[str, Any]) -> dict[str, Any]:
    return {**REQUEST, "image": next(iter(site.images)), **request}


@pytest.mark.parametrize(
    ("request_", "usage", "key", "changes", "label"),
    [
        # Cores: 8 GB come with each.
        ({}, {"cores": 1.2, "memory_peak": 3000}, "fewer-cores", {"cores": "2"}, "with 2 cores and 16 GB"),
        ({"cores": 16}, {"cores": 0.5, "memory_peak": 300}, "fewer-cores", {"cores": "1"}, "with 1 core and 8 GB"),
        # What they hold has to fit.
        ({"cores": 16}, {"cores": 0.5, "memory_peak": 20000}, "fewer-cores", {"cores": "4"}, "with 4 cores and 32 GB"),
        # A peak of a tenth of the time is no reason to have them all the time.
        (
            {},
            {"cores": 1.2, "memory_peak": 300, "curve": curve(cores=[0.9] * 19 + [4.0])},
            "fewer-cores",
            {"cores": "1"},
            "with 1 core and 8 GB",
        ),
        ({"cores": 2}, {"cores": 1.9, "memory_peak": 300}, "more-cores", {"cores": "4"}, "with 4 cores and 32 GB"),
        ({"cores": 12}, {"cores": 11.5, "memory_peak": 300}, "more-cores", {"cores": "16"}, "with 16 cores and 128 GB"),
        # Memory comes first: without it nothing works.
        ({}, {"cores": 0.5, "memory_peak": 31000}, "memory", {"cores": "8"}, "with 8 cores and 64 GB"),
        (GPU, {"cores": 3, "gpu_busy": 2.0, "memory_peak": 300}, "gpu", {"gpu": "none"}, "without a GPU"),
        (
            GPU,
            {"cores": 1, "gpu_busy": 2.0, "memory_peak": 300, "gpu_memory": 15360, "gpu_memory_peak": 15000},
            "gpu",
            {"gpu": "none"},
            "without a GPU",
        ),
    ],
)
def test_advice(
    snowy: Site, request_: dict[str, Any], usage: dict[str, Any], key: str, changes: dict[str, str], label: str
) -> None:
    found = advice_of(Usage(**{"seconds": 3000, **usage}), asked(snowy, request_), snowy, 3540)
    assert found is not None
    assert (found.key, found.changes, found.label) == (key, changes, label)
    assert found.sentence.endswith(".")


@pytest.mark.parametrize(
    ("request_", "usage"),
    [
        # Too short, or too little of it measured.
        ({}, {"seconds": 299, "cores": 1, "memory_peak": 300}),
        ({}, {"seconds": 1700, "cores": 1, "memory_peak": 300}),
        # Not known, which is not little.
        ({}, {}),
        ({}, {"cores": 1}),
        ({}, {"memory_peak": 300}),
        (GPU, {"cores": 3, "memory_peak": 300}),
        # A GPU's memory says nothing: TensorFlow takes all of it.
        (GPU, {"cores": 3, "memory_peak": 300, "gpu_memory": 15360, "gpu_memory_peak": 15000}),
        (GPU, {"cores": 3, "memory_peak": 300, "gpu_memory": 15360, "gpu_memory_peak": 10}),
        # Busy now and then.
        (GPU, {"cores": 3, "gpu_busy": 6.0, "memory_peak": 300}),
        (GPU, {"cores": 3, "gpu_busy": 4.0, "memory_peak": 300, "curve": curve(gpu_busy=[0.0] * 10 + [90.0] * 2)}),
        ({}, {"cores": 2.1, "memory_peak": 300}),
        ({}, {"cores": 3.5, "memory_peak": 300}),
        ({}, {"cores": 1, "memory_peak": 20000}),
        # Nothing is larger, or smaller.
        ({"cores": 16}, {"cores": 16, "memory_peak": 300}),
        ({"cores": 16}, {"cores": 9, "memory_peak": 127000}),
        ({"cores": 1}, {"cores": 0.1, "memory_peak": 300}),
        # Whole nodes are whole nodes.
        ({"partition": "node", "cores": 16}, {"cores": 1, "memory_peak": 300}),
        ({"partition": "node"}, {"cores": 1, "memory_peak": 300}),
        # A partition that is not there any more.
        ({"partition": "gone"}, {"cores": 1, "memory_peak": 300}),
    ],
)
def test_no_advice(snowy: Site, request_: dict[str, Any], usage: dict[str, Any]) -> None:
    assert advice_of(Usage(**{"seconds": 3000, **usage}), asked(snowy, request_), snowy, 3540) is None


def test_no_advice_without_a_record(snowy: Site) -> None:
    assert advice_of(None, asked(snowy, {}), snowy, 3540) is None
    assert advice_of(Usage(seconds=3000, cores=1, memory_peak=1), {}, snowy, 3540) is None


def test_memory_is_asked_for_by_itself_where_the_site_lets_people(variant: Callable[..., Site]) -> None:
    site = variant(memory_free=True)
    request = asked(site, {"memory": 16000})
    full = advice_of(Usage(seconds=3000, cores=3, memory_peak=15900), request, site)
    assert full is not None
    assert (full.changes, full.label) == ({"memory": "32000"}, "with 32 GB")
    fewer = advice_of(Usage(seconds=3000, cores=1, memory_peak=3000), request, site)
    assert fewer is not None
    # What was asked for stays.
    assert (fewer.changes, fewer.label) == ({"cores": "1"}, "with 1 core")


def test_a_partition_that_needs_a_gpu_is_not_left_without(variant: Callable[..., Site], snowy: Site) -> None:
    site = variant(partitions={"core": {"gpu_required": True}})
    usage = Usage(seconds=3000, cores=3, gpu_busy=1.0, memory_peak=300)
    assert advice_of(usage, asked(site, GPU), snowy) is not None
    assert advice_of(usage, asked(site, GPU), site) is None
