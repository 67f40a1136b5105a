"""What accounting says that a job used: rows of sacct, and the record that jobstats leaves there."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import pytest

from snowyspawner.session.usage import usage_of
from snowyspawner.slurm.accounting import JobUse, parse_jobstats, parse_use

# Of Slurm 22.05, `sacct -n -P -j 17 -o JobIDRaw,ElapsedRaw,TotalCPU,MaxRSS,AdminComment` on the miniature.
ROWS = "17|62|00:31.250||\n17.batch|62|00:31.250|573120K|\n17.extern|62|00:00.001|0|\n"


def record(said: Any) -> str:
    return "JS1:" + base64.b64encode(gzip.compress(json.dumps(said).encode(), mtime=0)).decode()


# As in jobstats' documentation, of a job with one GPU.
NODE = {
    "cpus": 12,
    "gpu_total_memory": {"1": 85899345920},
    "gpu_used_memory": {"1": 83314868224},
    "gpu_utilization": {"1": 98.6},
    "total_memory": 137438953472,
    "total_time": 57620.8,
    "used_memory": 84683702272,
}
SAID = {"gpus": 1, "nodes": {"della-k1g1": NODE}, "total_time": 50944}


@pytest.mark.parametrize(
    ("output", "use"),
    [
        (ROWS, JobUse(62.0, 31.25, 573120 / 1024)),
        ("17|62|1-02:03:04||\n17.batch|62|x|1.5G|\n", JobUse(62.0, 93784.0, 1536.0)),
        ("17|62|02:03:04.5||\n", JobUse(62.0, 7384.5, None)),
        ("17|5|00:01.000||\n17|62|00:31.250||\n", JobUse(62.0, 31.25)),  # requeued
        # Known later, or not at all.
        ("17|62|||\n17.batch|62|||\n", JobUse(62.0)),
        ("17|0|00:00:00||\n", JobUse(0.0, 0.0)),
        # What somebody else writes there.
        ("17|62|00:31.250||checked|by|me\n", JobUse(62.0, 31.25)),
        ("17|62|00:31.250||JS1:Short\n", JobUse(62.0, 31.25)),
        ("17|62|00:31.250||JS1:None\n", JobUse(62.0, 31.25)),
        ("", None),
        ("sacct: error: x\n", None),
        ("17|Unknown|00:31.250||\n", None),
        ("17.batch|62|00:31.250|1K|\n", None),
    ],
)
def test_rows_of_sacct(output: str, use: JobUse | None) -> None:
    assert parse_use(output) == use


def test_the_record_of_jobstats_comes_first() -> None:
    use = parse_use(f"17|62|00:31.250||{record(SAID)}\n17.batch|62|00:31.250|573120K|\n")
    assert use == JobUse(50944.0, 57620.8, 84683702272 / 2**20, 98.6, 81920.0, 83314868224 / 2**20)
    usage = usage_of(use)
    assert usage.cores == pytest.approx(1.131, abs=0.001)
    assert (usage.gpu_busy, usage.curve, usage.gpu_energy) == (98.6, None, None)


def test_several_nodes_and_gpus_are_taken_together() -> None:
    two = {"a": NODE, "b": {**NODE, "gpu_utilization": {"0": 0.0, "1": 1.4}}}
    use = parse_jobstats(record({**SAID, "nodes": two}))
    assert use
    assert use.cpu_seconds == 2 * 57620.8
    assert use.gpu_busy == pytest.approx(100 / 3)
    assert use.gpu_memory == 2 * 81920.0


@pytest.mark.parametrize(
    ("change", "use"),
    [
        # A GPU without a figure, a job without one, figures that are none.
        ({"gpu_utilization": None}, (None, 81920.0)),
        ({"gpu_utilization": {"1": "N/A"}, "gpu_used_memory": {"1": None}}, (None, None)),
        ({"gpu_utilization": {"1": 1000}, "gpu_total_memory": {}, "gpu_used_memory": []}, (None, None)),
        ({"gpu_utilization": {"1": True}}, (None, 81920.0)),
    ],
)
def test_what_jobstats_does_not_know_is_not_known(change: dict[str, Any], use: tuple[Any, Any]) -> None:
    found = parse_jobstats(record({**SAID, "nodes": {"a": {**NODE, **change}}}))
    assert found
    assert (found.gpu_busy, found.gpu_memory) == use


@pytest.mark.parametrize("change", [{"used_memory": -1}, {"used_memory": "much"}, {"used_memory": 1e300}])
def test_a_size_that_no_job_has_is_not_known(change: dict[str, Any]) -> None:
    found = parse_jobstats(record({**SAID, "nodes": {"a": {**NODE, **change}}}))
    assert found
    assert found.memory is None


@pytest.mark.parametrize(
    "comment",
    [
        "JS1:",
        "JS1:Short",
        "JS1:%%%%",
        "JS1:" + base64.b64encode(b"no gzip").decode(),
        "JS1:" + base64.b64encode(gzip.compress(b"no JSON", mtime=0)).decode(),
        "JS1:" + base64.b64encode(gzip.compress(b"[" * 100000, mtime=0)).decode(),
        # 64 MB in 64 kB.
        "JS1:" + base64.b64encode(gzip.compress(b" " * (1 << 26), mtime=0)).decode(),
        record([]),
        record({}),
        record({"total_time": 60}),
        record({"total_time": 60, "nodes": []}),
        record({"total_time": 60, "nodes": {}}),
        record({"total_time": 60, "nodes": {"a": 5}}),
        record({"total_time": 0, "nodes": {"a": NODE}}),
        record({"total_time": "long", "nodes": {"a": NODE}}),
        record(SAID)[:-40],
    ],
    ids=range(16),
)
def test_what_is_no_record_of_jobstats_is_passed_over(comment: str) -> None:
    assert parse_jobstats(comment) is None
    assert parse_use(f"17|62|00:31.250||{comment}\n") == JobUse(62.0, 31.25)
