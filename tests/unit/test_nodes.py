"""What sinfo and squeue say of partitions: parsers and sums, on output of the real commands.

Samples of other versions of Slurm are in test_recorded.py.
"""

from __future__ import annotations

import pytest

from snowyspawner.slurm.nodes import (
    SINFO_FORMAT,
    NodeRow,
    PartitionFacts,
    free_of,
    parse_gres,
    parse_nodes,
    parse_time_limit,
    summarize,
)
from snowyspawner.slurm.squeue import PENDING_FORMAT, parse_pending

# Recorded with SINFO_FORMAT from Slurm 22.05.8: a miniature Pelle, whose partitions are busy in different ways;
# p6 is in somebody's reservation.
BUSY = """\
p1|pelle|up|allocated|96/0/0/96|786432|576000|(null)|gpu:0|10-00:00:00|NO|
p2|fat|up|allocated|96/0/0/96|2097152|576000|(null)|gpu:0|10-00:00:00|EXCLUSIVE|
p3|fat|up|idle|0/96/0/96|3145728|0|(null)|gpu:0|10-00:00:00|EXCLUSIVE|
p4|haswell|up|mixed|1/15/0/16|262144|6000|gpu:t4:1|gpu:t4:1(IDX:0)|10-00:00:00|NO|
p5|gpu|up|mixed|4/60/0/64|393216|1000|gpu:l40s:10|gpu:l40s:3(IDX:0-2)|2-00:00:00|NO|
p6|gpu|up|reserved|0/64/0/64|393216|0|gpu:h100:2|gpu:h100:0(IDX:N/A)|2-00:00:00|NO|
"""

# The same, with a node down, one drained, one under maintenance in a partition that was closed.
CLOSED = """\
p1|pelle|up|down|0/0/96/96|786432|0|(null)|gpu:0|10-00:00:00|NO|
p2|fat|up|drained|0/0/96/96|2097152|0|(null)|gpu:0|10-00:00:00|EXCLUSIVE|
p3|fat|up|idle|0/96/0/96|3145728|0|(null)|gpu:0|10-00:00:00|EXCLUSIVE|
p4|haswell|drain|maint|0/16/0/16|262144|0|gpu:t4:1|gpu:t4:0(IDX:N/A)|10-00:00:00|NO|
p5|gpu|up|idle|0/64/0/64|393216|0|gpu:l40s:10|gpu:l40s:0(IDX:N/A)|2-00:00:00|NO|
p6|gpu|up|reserved|0/64/0/64|393216|0|gpu:h100:2|gpu:h100:0(IDX:N/A)|2-00:00:00|NO|
"""


def row(**changes: object) -> str:
    """Return a line of sinfo's: an idle node of 16 cores and two T4s, changed as told."""
    values: dict[str, object] = {
        **{"node": "s1", "partition": "core", "available": "up", "state": "idle", "cores": "0/16/0/16"},
        **{"memory": "128000", "allocated_memory": "0", "gres": "gpu:t4:2", "used": "gpu:t4:0(IDX:N/A)"},
        **{"time": "10-00:00:00", "share": "NO"},
    } | changes
    return "|".join(map(str, values.values())) + "|\n"


def test_the_commands_are_asked_for_fields_that_are_never_cut_off() -> None:
    # sinfo(1), -O: "type[:[.][size][suffix]]"; no size is as wide as it needs.
    assert SINFO_FORMAT[:4] == ("-h", "-a", "-N", "-O")
    assert SINFO_FORMAT[4].count(":|") == SINFO_FORMAT[4].count(",") + 1 == 11
    assert PENDING_FORMAT[-1] == "%P|%r"


def test_a_node_is_read() -> None:
    rows = parse_nodes(BUSY)
    assert rows[4] == NodeRow(
        **{"node": "p5", "partition": "gpu", "available": "up", "state": "mixed"},
        **{"allocated": 4, "idle": 60, "other": 0, "total": 64, "memory": 393216, "allocated_memory": 1000},
        **{"gpus": {"l40s": 10}, "gpus_used": {"l40s": 3}, "time_limit": 2 * 86400, "exclusive": False},
    )
    assert rows[4].free_memory == 392216
    assert rows[4].free_gpus == {"l40s": 7}
    assert len(rows) == 6
    assert [each.exclusive for each in rows] == [False, True, True, False, False, False]


def test_a_busy_cluster_is_summed_up() -> None:
    facts = summarize(parse_nodes(BUSY))
    assert list(facts) == ["pelle", "fat", "haswell", "gpu"]
    assert facts["gpu"] == PartitionFacts(
        free_cores=60,
        total_cores=128,
        largest_block=60,
        free_gpus={"l40s": 7, "h100": 0},  # those in the reservation are not for everybody
        total_gpus={"l40s": 10, "h100": 2},
        state="up",
        nodes=2,
        usable_nodes=1,
        node_cores=64,
        node_memory=393216,
        time_limit=2 * 86400,
    )
    assert (facts["pelle"].free_cores, facts["pelle"].usable_nodes) == (0, 1)
    assert (facts["fat"].free_cores, facts["fat"].largest_block, facts["fat"].total_cores) == (96, 96, 192)
    assert (facts["haswell"].free_cores, facts["haswell"].free_gpus) == (15, {"t4": 0})


def test_what_is_closed_has_nothing_free() -> None:
    facts = summarize(parse_nodes(CLOSED))
    assert (facts["pelle"].free_cores, facts["pelle"].state, facts["pelle"].usable_nodes) == (0, "up", 0)
    assert (facts["fat"].free_cores, facts["fat"].usable_nodes) == (96, 1)
    assert (facts["haswell"].free_cores, facts["haswell"].free_gpus) == (0, {"t4": 0})
    assert (facts["haswell"].state, facts["haswell"].total_gpus) == ("drain", {"t4": 1})
    assert facts["gpu"].free_gpus == {"l40s": 10, "h100": 0}


@pytest.mark.parametrize(
    ("state", "free"),
    [
        # sinfo(1), NODE STATE CODES, and node_state_string() of Slurm's
        *((state, 12) for state in ("idle", "mixed", "completing", "idle~", "idle#", "mixed#", "allocated+")),
        *((state, 0) for state in ("drained", "draining", "drained*", "down", "down*", "maint", "reserved", "planned")),
        *(
            (state, 0)
            for state in ("mixed-", "idle*", "mixed$", "idle@", "idle^", "idle%", "idle!", "reboot^", "inval")
        ),
        *((state, 0) for state in ("fail", "failing", "future", "unknown", "perfctrs", "blocked", "n/a", "?", "")),
    ],
)
def test_only_a_node_that_takes_jobs_has_free_cores(state: str, free: int) -> None:
    facts = summarize(parse_nodes(row(state=state, cores="4/12/0/16")))["core"]
    assert (facts.free_cores, facts.largest_block, facts.total_cores) == (free, free, 16)
    assert facts.free_gpus == {"t4": 2 if free else 0}


@pytest.mark.parametrize("available", ["down", "drain", "inactive", "n/a"])
def test_a_closed_partition_has_no_free_cores(available: str) -> None:
    facts = summarize(parse_nodes(row(available=available)))["core"]
    assert (facts.free_cores, facts.free_gpus, facts.state) == (0, {"t4": 0}, available)


def test_a_node_in_two_partitions_counts_in_each() -> None:
    facts = summarize(parse_nodes(row() + row(partition="node", share="EXCLUSIVE") + row(node="s2", cores="8/8/0/16")))
    assert (facts["core"].free_cores, facts["core"].largest_block, facts["core"].nodes) == (24, 16, 2)
    assert (facts["node"].free_cores, facts["node"].largest_block, facts["node"].nodes) == (16, 16, 1)


def test_where_jobs_get_whole_nodes_a_node_in_use_is_not_free() -> None:
    line = row(cores="1/15/0/16", state="mixed", share="EXCLUSIVE")
    assert summarize(parse_nodes(line))["core"].free_cores == 0


def test_a_gpu_without_a_core_is_not_free() -> None:
    facts = summarize(parse_nodes(row(cores="16/0/0/16", state="allocated")))["core"]
    assert (facts.free_gpus, facts.total_gpus) == ({"t4": 0}, {"t4": 2})


@pytest.mark.parametrize(
    ("gres", "used", "free"),
    [
        ("gpu:t4:1,gpu:a100:2", "gpu:t4:1(IDX:0),gpu:a100:1(IDX:1)", {"t4": 0, "a100": 1}),
        ("gpu:2(S:0-1)", "gpu:(null):1(IDX:0)", {"": 1}),
        ("gpu:2", "gpu:2", {"": 0}),
        # Used ones without a type are taken from those with one
        ("gpu:t4:1,gpu:a100:2", "gpu:(null):2(IDX:0-1)", {"t4": 0, "a100": 1}),
        ("gpu:t4:1", "", {"t4": 1}),
        ("gpu:t4:1", "gpu:t4:4", {"t4": 0}),
        ("(null)", "gpu:0", {}),
    ],
)
def test_free_gpus_are_those_not_used(gres: str, used: str, free: dict[str, int]) -> None:
    assert parse_nodes(row(gres=gres, used=used))[0].free_gpus == free


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("", {}),
        ("(null)", {}),
        ("gpu:0", {"": 0}),
        ("gpu", {"": 1}),
        ("gpu:t4", {"t4": 1}),
        ("gpu:2", {"": 2}),
        ("gpu:a100:2(S:0),gpu:a100:2(S:1)", {"a100": 4}),
        ("craynetwork:4,gpu:t4:1,mps:t4:100", {"t4": 1}),
        ("gpu:t4:no_consume:1", {"t4": 1}),
        ("gpus:4,agpu:2", {}),
    ],
)
def test_gres_is_read(text: str, gpus: dict[str, int]) -> None:
    assert parse_gres(text) == gpus


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        # secs2time_str() of Slurm's: minutes have no hours before them
        *(("1-00:00:00", 86400), ("10-00:00:00", 864000), ("1:00:00", 3600), ("30:00", 1800), ("59:00", 3540)),
        *(("infinite", None), ("UNLIMITED", None), ("n/a", None), ("N/A", None), ("", None), ("INVALID", None)),
    ],
)
def test_a_time_limit_is_read(text: str, seconds: int | None) -> None:
    assert parse_time_limit(text) == seconds


@pytest.mark.parametrize(
    "line",
    [
        *("", "CLUSTER: snowy", "sinfo: error: x", "s1|core|up"),
        row(cores="16"),
        "NODELIST|PARTITION|AVAIL|STATE|CPUS(A/I/O/T)|MEMORY|ALLOCMEM|GRES|GRES_USED|TIMELIMIT|OVERSUBSCRIBE|",
    ],
)
def test_other_lines_are_passed_over(line: str) -> None:
    assert parse_nodes(f"{line}\n") == []
    assert summarize([]) == {}


def test_memory_may_be_the_least_of_several_or_unknown() -> None:
    assert parse_nodes(row(memory="128000+"))[0].memory == 128000
    assert parse_nodes(row(memory="N/A"))[0].memory == 0


# Recorded with PENDING_FORMAT from Slurm 22.05.8
WAITING = """\
gpu|ReqNodeNotAvail, May be reserved for other job
gpu|PartitionTimeLimit
gpu|PartitionConfig
gpu,haswell|Resources
gpu,haswell|BadConstraints
pelle|BeginTime
pelle|Resources
pelle|Priority
pelle|JobHeldUser
"""


def test_jobs_that_wait_for_nodes_are_counted_by_partition() -> None:
    assert parse_pending(WAITING) == {"gpu": 2, "haswell": 1, "pelle": 2}
    assert parse_pending("CLUSTER: pelle\nslurm_load_jobs error: x\n") == {}


@pytest.mark.parametrize(
    "reason",
    [
        *("JobHeldAdmin", "Dependency", "DependencyNeverSatisfied", "JobArrayTaskLimit", "QOSMaxJobsPerUserLimit"),
        *("AssocGrpCpuLimit", "InvalidAccount", "Reservation"),
    ],
)
def test_a_job_that_would_not_start_anyway_is_in_nobody_s_way(reason: str) -> None:
    assert parse_pending(f"core|{reason}\n") == {}


@pytest.mark.parametrize(
    ("kind", "free", "expected"),
    [
        ("t4", {"t4": 2}, 2),
        ("t4", {"T4": 2}, 2),
        ("T4", {"tesla_t4": 2, "tesla_v100": 8}, 2),
        ("a100", {"nvidia_a100-sxm4-40gb": 3, "nvidia_a100-pcie-40gb": 1, "h100": 4}, 4),
        ("3g.20gb", {"a100_3g.20gb": 2, "a100_1g.5gb": 7}, 2),
        ("t4", {"t4": 0, "tesla_t4": 5}, 0),  # the very name goes first
        ("t4", {"": 6}, 6),
        ("", {"t4": 2, "v100": 3}, 5),
        # Unknown is not none.
        ("t4", {}, None),
        ("t4", {"v100": 1}, None),
        ("t4", {"rt40": 1, "gt4x": 1}, None),
        ("", {}, None),
    ],
)
def test_the_site_s_type_is_found_among_slurm_s(kind: str, free: dict[str, int], expected: int | None) -> None:
    assert free_of(kind, free) == expected


@pytest.mark.parametrize(
    ("gres", "used", "free"),
    [
        # gres.conf(5): 8 shards on 2 GPUs, four to each
        ("gpu:a100:2,shard:a100:8", "gpu:a100:0,shard:a100:0", {"a100": 2}),
        ("gpu:a100:2,shard:a100:8", "gpu:a100:0,shard:a100:1(IDX:0)", {"a100": 1}),
        ("gpu:a100:2,shard:8", "gpu:a100:0,shard:5", {"a100": 0}),
        ("gpu:a100:2,shard:8", "gpu:a100:1,shard:4", {"a100": 0}),
    ],
)
def test_a_gpu_of_which_a_part_is_used_is_not_free(gres: str, used: str, free: dict[str, int]) -> None:
    (row,) = parse_nodes(f"s1|core|up|idle|0/16/0/16|128000|0|{gres}|{used}|infinite|NO|\n")
    assert row.free_gpus == free
