"""Parsers and argv against what Slurm 20.02 to 25.05 really print and take.

Each table says where its samples come from. "recorded" is output of the real commands: of 22.05.8, Debian 12's, in
front of a miniature cluster of ours, or of a cluster whose people published it ("set in our format": what they show
is there, in the order of our fields; what they do not show, as a start time, is made up). "source" is Slurm's own
(github.com/SchedMD/slurm, branch slurm-VERSION): the format or the message text that its print.c or slurm_errno.c
holds, filled in by hand. Where a format is the same in several versions, all of them are named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from snowyspawner.choice.request import SessionRequest
from snowyspawner.session import messages
from snowyspawner.session.script import Target, sbatch_options
from snowyspawner.site import Site, load
from snowyspawner.slurm import client as client_module
from snowyspawner.slurm.accounting import JobEnd, parse_accounts, parse_record, parse_sacct
from snowyspawner.slurm.client import ASK, KILL, SlurmClient, SlurmError, parse_version
from snowyspawner.slurm.configuration import (
    Association,
    QosLimits,
    parse_associations,
    parse_config,
    parse_node_configs,
    parse_partitions,
    parse_qos,
)
from snowyspawner.slurm.nodes import SINFO_FORMAT, parse_gres, parse_nodes, parse_time_limit
from snowyspawner.slurm.sbatch import parse_job_id
from snowyspawner.slurm.squeue import JobRow, parse_pending, parse_squeue

ALL = "20.02, 22.05, 23.11, 25.05"

# -- sbatch --parsable -------------------------------------------------------------------------------------------

JOB_IDS = [
    ("19\n", ("19", ""), "22.05", "recorded: miniature Pelle"),
    ("19;pelle\n", ("19", "pelle"), "22.05", "recorded: miniature Pelle, with -M pelle"),
    ("49021945;rackham\n", ("49021945", "rackham"), ALL, "source: src/sbatch/sbatch.c prints %u, then ;%s with -M"),
    ("67108863\n", ("67108863", ""), ALL, "source: slurm.conf(5), MaxJobId's largest (0x03ffffff)"),
]


@pytest.mark.parametrize(("output", "expected", "version", "source"), JOB_IDS)
def test_the_job_id_of_sbatch(output: str, expected: tuple[str, str], version: str, source: str) -> None:
    assert parse_job_id(output) == expected


# -- squeue ------------------------------------------------------------------------------------------------------

SNOWY = "recorded: UPPMAX/UPPMAX-documentation, docs/software/squeue.md (Snowy), set in our format"

QUEUES = [
    (
        "3|RUNNING|p2|1795409127|None\n"
        "19|COMPLETED|p5|1795409127|None\n"
        "11|FAILED|n/a|1795409126|BadConstraints\n"
        "20|FAILED|p5|1795409127|NonZeroExitCode\n"
        "21|FAILED|p5|1795409127|JobLaunchFailure\n"
        "10|PENDING|n/a|1795410300|ReqNodeNotAvail, May be reserved for other job\n"
        "13|PENDING|n/a|N/A|PartitionTimeLimit\n"
        "4|PENDING|n/a|1795409701|BadConstraints\n"
        "6|PENDING|n/a|1795419926|BeginTime\n"
        "9_[1-10]|PENDING|n/a|1795415700|Priority\n"
        "5|PENDING|n/a|N/A|JobHeldUser\n",
        [
            JobRow("3", "RUNNING", "p2", 1795409127, "None"),
            JobRow("19", "COMPLETED", "p5", 1795409127, "None"),
            JobRow("11", "FAILED", "", 1795409126, "BadConstraints"),
            JobRow("20", "FAILED", "p5", 1795409127, "NonZeroExitCode"),
            JobRow("21", "FAILED", "p5", 1795409127, "JobLaunchFailure"),
            JobRow("10", "PENDING", "", 1795410300, "ReqNodeNotAvail, May be reserved for other job"),
            JobRow("13", "PENDING", "", None, "PartitionTimeLimit"),
            JobRow("4", "PENDING", "", 1795409701, "BadConstraints"),
            JobRow("6", "PENDING", "", 1795419926, "BeginTime"),
            JobRow("5", "PENDING", "", None, "JobHeldUser"),
        ],
        "22.05",
        "recorded: miniature Pelle",
    ),
    (
        "CLUSTER: pelle\nJOBID|STATE|EXEC_HOST|START_TIME|REASON\n3|RUNNING|p2|1795409127|None\n",
        [JobRow("3", "RUNNING", "p2", 1795409127, "None")],
        "22.05",
        "recorded: miniature Pelle, with -M pelle and without -h",
    ),
    (
        "CLUSTER: snowy\n"
        "9642748|PENDING|n/a|N/A|Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority "
        "partitions\n"
        "6968659|RESV_DEL_HOLD|n/a|N/A|Reservation uppmax2022-2-18_4 was deleted\n"
        "9639541|PENDING|n/a|N/A|ReqNodeNotAvail, UnavailableNodes:s230\n",
        [
            JobRow(
                *("9642748", "PENDING", "", None),
                "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions",
            ),
            JobRow("6968659", "RESV_DEL_HOLD", "", None, "Reservation uppmax2022-2-18_4 was deleted"),
            JobRow("9639541", "PENDING", "", None, "ReqNodeNotAvail, UnavailableNodes:s230"),
        ],
        "unknown",
        SNOWY,
    ),
    (
        "4320602|PENDING|n/a|N/A|Resources\n",
        [JobRow("4320602", "PENDING", "", None, "Resources")],
        "unknown, 2018",
        "recorded: OSC/ood_core, spec/fixtures/scripts/squeue_with_cluster_header.rb, its second job in our format",
    ),
    (
        "2714763|RUNNING|mantis-041|1795409127|None\n",
        [JobRow("2714763", "RUNNING", "mantis-041", 1795409127, "None")],
        "23.11",
        "recorded: virtualcell/vcell, vcell-server/src/test/resources/slurm-outputs/squeue-running.txt, likewise",
    ),
    (
        "4068884|RUNNING|p2034|1795409127|None\n",
        [JobRow("4068884", "RUNNING", "p2034", 1795409127, "None")],
        "25.05",
        "recorded: UPPMAX/UPPMAX-documentation, docs/software/ollama.md (Pelle), set in our format",
    ),
    (
        # What a time that is none is called; SLURM_TIME_FORMAT does not touch it
        "17|PENDING|n/a|Unknown|None\n18|PENDING|n/a|None|None\n",
        [JobRow("17", "PENDING", "", None, "None"), JobRow("18", "PENDING", "", None, "None")],
        "20.02, 22.05: Unknown; 25.05: also None",
        "source: src/common/parse_time.c, slurm_make_time_str",
    ),
]


@pytest.mark.parametrize(("output", "rows", "version", "source"), QUEUES)
def test_the_rows_of_squeue(output: str, rows: list[JobRow], version: str, source: str) -> None:
    assert parse_squeue(output) == {row.job_id: row for row in rows}


# -- sacct -------------------------------------------------------------------------------------------------------

VCELL = "recorded: virtualcell/vcell, vcell-server/src/test/resources/slurm-outputs/{}.txt, its last column set in ours"

ENDS = [
    (
        "1|CANCELLED by 0|0:0\n2|RUNNING|0:0\n8|PENDING|0:0\n12|FAILED|1:0\n19|COMPLETED|0:0\n"
        "20|FAILED|3:0\n21|FAILED|0:9\n22|FAILED|0:15\n",
        {
            "1": JobEnd("CANCELLED", 0, 0, "0"),
            "12": JobEnd("FAILED", 1, 0),
            "19": JobEnd("COMPLETED", 0, 0),
            "20": JobEnd("FAILED", 3, 0),
            "21": JobEnd("FAILED", 0, 9),
            "22": JobEnd("FAILED", 0, 15),
        },
        "22.05",
        "recorded: miniature Pelle",
    ),
    (
        "JobIDRaw|State|ExitCode\n1|CANCELLED by 0|0:0\n",
        {"1": JobEnd("CANCELLED", 0, 0, "0")},
        "22.05",
        "recorded: miniature Pelle, with -M pelle and without -n",
    ),
    ("1|CANCELLED+|0:0\n", {"1": JobEnd("CANCELLED", 0, 0)}, "22.05", "recorded: as sacct without -P cuts it off"),
    ("1|OUT_OF_ME+|0:125\n", {"1": JobEnd("OUT_OF_MEMORY", 0, 125)}, ALL, "source: the same, a column of ten"),
    (
        "2699001|CANCELLED by 54321|0:0\n2699001.batch|CANCELLED|0:15\n2699001.extern|COMPLETED|0:0\n",
        {"2699001": JobEnd("CANCELLED", 0, 0, "54321")},
        "23.11",
        VCELL.format("sacct-cancelled-by-user"),
    ),
    (
        "2699101|TIMEOUT|0:0\n2699102|OUT_OF_MEMORY|0:125\n2699103|NODE_FAIL|1:0\n2699104|FAILED|1:0\n",
        {
            "2699101": JobEnd("TIMEOUT", 0, 0),
            "2699102": JobEnd("OUT_OF_MEMORY", 0, 125),
            "2699103": JobEnd("NODE_FAIL", 1, 0),
            "2699104": JobEnd("FAILED", 1, 0),
        },
        "23.11",
        VCELL.format("sacct-terminal-states"),
    ),
    # Also in 23.11 and 25.05 it is a uid, never a name; 20.02 prints it signed
    (
        "9|CANCELLED by 4294967294|0:0\n",
        {"9": JobEnd("CANCELLED", 0, 0, "4294967294")},
        ALL,
        "source: src/sacct/print.c",
    ),
    (
        "9|CANCELLED by -2|0:0\n",
        {"9": JobEnd("CANCELLED", 0, 0, "-2")},
        "20.02",
        'source: src/sacct/print.c, "%s by %d"',
    ),
    ("9|COMPLETED|\n", {"9": JobEnd("COMPLETED", 0, 0)}, ALL, "source: an empty exit code, src/sacct/print.c"),
]


@pytest.mark.parametrize(("output", "ends", "version", "source"), ENDS)
def test_the_ends_of_sacct(output: str, ends: dict[str, JobEnd], version: str, source: str) -> None:
    assert parse_sacct(output) == ends


RECORDS = [
    (
        "2320002|FAILED|3:0|0:0|core|g2021027|s1|billing=1,cpu=1,mem=8000M,node=1|00:30:00|00:00:00|00:00.006||"
        "1795860453|1795860453|1795860453|jupyter-fails-b8db79c5\n"
        "2320002.batch|FAILED|3:0|||g2021027|s1|cpu=1,mem=8000M,node=1||00:00:00|00:00.006||1795860453|1795860453|"
        "1795860453|batch\n",
        [("2320002", "3:0", "core", "jupyter-fails-b8db79c5"), ("2320002.batch", "3:0", "", "batch")],
        "22.05",
        "recorded: miniature Snowy",
    ),
    (
        "7|RUNNING|0:0|0:0|core|g2021027|s1|cpu=1|00:30:00|00:00:39|00:00:00||1795860448|1795860448|Unknown|a|b\n",
        [("7", "0:0", "core", "a|b")],
        ALL,
        "source: src/sacct/print.c, a job's name may have the separator in it",
    ),
    ("sacct: error: no\n", [], ALL, "source: what is no row is none"),
]


@pytest.mark.parametrize(("output", "expected", "version", "source"), RECORDS)
def test_the_record_of_sacct(output: str, expected: list[tuple[str, ...]], version: str, source: str) -> None:
    rows = parse_record(output)
    assert [(row["JobID"], row["ExitCode"], row["Partition"], row["JobName"]) for row in rows] == expected
    assert all(row["Submit"].isdecimal() for row in rows)


VERSIONS = [
    ("slurm-wlm 22.05.8\n", "22.05.8", "22.05", "recorded: Debian 12"),
    ("slurm 20.02.7\n", "20.02.7", "20.02", "source: src/common/proc_args.c, print_slurm_version"),
    ("slurm 25.05.0-0rc1\n", "25.05.0-0rc1", "25.05", "source: the same"),
    ("sacct: fatal: no\n", "", ALL, "source: what is no version is none"),
]


@pytest.mark.parametrize(("output", "expected", "version", "source"), VERSIONS)
def test_the_version_of_a_command(output: str, expected: str, version: str, source: str) -> None:
    assert parse_version(output) == expected


# -- sacctmgr ----------------------------------------------------------------------------------------------------

ACCOUNTS = [
    ("demo\n", ["demo"], "22.05", "recorded: miniature Pelle"),
    ("", [], "22.05", "recorded: miniature Pelle, of somebody it does not know"),
    (
        "pzs1124\npzs1118\npzs1117\npzs1010\npzs0715\npzs1124\n",
        ["pzs1124", "pzs1118", "pzs1117", "pzs1010", "pzs0715"],
        "unknown",
        "recorded: OSC/ood_core, spec/fixtures/output/slurm/sacctmgr_show_accts_owens.txt, its first column; the "
        "repetition is a second association, with a partition",
    ),
]


@pytest.mark.parametrize(("output", "accounts", "version", "source"), ACCOUNTS)
def test_the_accounts_of_sacctmgr(output: str, accounts: list[str], version: str, source: str) -> None:
    assert parse_accounts(output) == accounts


# -- sinfo -------------------------------------------------------------------------------------------------------

CLUV = "recorded: mila-iqia/cluv, tests/test_vram.py, {} (sinfo's %G)"
VPENSO = "recorded: vpenso/prometheus-slurm-exporter, test_data/{}"
OSC = "recorded: OSC/ood_core, spec/fixtures/output/slurm/sinfo_gres.txt (Ascend)"

GRES = [
    ("(null)", {}, "20.11", VPENSO.format("slurm-20.11.8/sinfo_gpus_total.txt")),
    ("gpu:2", {"": 2}, "20.11", VPENSO.format("slurm-20.11.8/sinfo_gpus_total.txt")),
    ("gpu:0", {"": 0}, "20.11", VPENSO.format("slurm-20.11.8/sinfo_gpus_idle.txt, GresUsed")),
    ("gpu:0", {"": 0}, "22.05", "recorded: miniature Pelle, GresUsed of a node without a GPU"),
    ("gpu:8", {"": 8}, "21.08", VPENSO.format("slurm-21.08.5/sinfo_gpus_total.txt")),
    ("gpu:(null):0(IDX:N/A)", {"": 0}, "21.08", VPENSO.format("slurm-21.08.5/sinfo_gpus_idle.txt, GresUsed")),
    ("gpu:(null):3(IDX:0-7)", {"": 3}, "21.08", VPENSO.format("../gpus.go, in its comments")),
    ("gpu:A30:4(IDX:0-3),gpu:Q6K:4(IDX:0-3)", {"A30": 4, "Q6K": 4}, "21.08", VPENSO.format("../gpus.go, likewise")),
    (
        "gpu:1080ti:1(IDX:0),gpu:980gtx:1(IDX:1)",
        {"1080ti": 1, "980gtx": 1},
        "unknown, 2021",
        "recorded: Bartzi/LabShare, issue 114, GresUsed of a node with two types",
    ),
    ("gpu:titanx:0(IDX:N/A)", {"titanx": 0}, "unknown, 2021", "recorded: Bartzi/LabShare, issue 114"),
    ("gpu:t4:1", {"t4": 1}, "22.05", "recorded: miniature Pelle"),
    ("gpu:t4:0(IDX:N/A)", {"t4": 0}, "22.05", "recorded: miniature Pelle, GresUsed"),
    ("gpu:l40s:3(IDX:0-2)", {"l40s": 3}, "22.05", "recorded: miniature Pelle, GresUsed"),
    ("gpu:a100:4(S:0-1)", {"a100": 4}, "unknown", CLUV.format("NARVAL_SINFO")),
    (
        "gpu:a100_3g.20gb:3(S:1,3,7),gpu:a100_4g.20gb:1(S:3),gpu:a100_2g.10gb:4(S:1,5,7),gpu:a100_1g.5gb:7(S:1,5,7)",
        {"a100_3g.20gb": 3, "a100_4g.20gb": 1, "a100_2g.10gb": 4, "a100_1g.5gb": 7},
        "unknown",
        CLUV.format("NARVAL_SINFO"),
    ),
    (
        "gpu:nvidia_h100_80gb_hbm3_3g.40gb:3(S:0-1),gpu:nvidia_h100_80gb_hbm3_1g.10gb:6(S:0-1)",
        {"nvidia_h100_80gb_hbm3_3g.40gb": 3, "nvidia_h100_80gb_hbm3_1g.10gb": 6},
        "unknown",
        CLUV.format("RORQUAL_SINFO, shortened"),
    ),
    ("gpu:a100l:8", {"a100l": 8}, "unknown", CLUV.format("MILA_SINFO")),
    (
        "gpu:a100:4(S:0-3),nsight:no_consume:1,pfsdir:scratch:no_consume:1,gpfs:scratch:no_consume:1,vis:no_consume:1",
        {"a100": 4},
        "unknown",
        OSC,
    ),
    ("gpu:a100:2(IDX:0-1),nsight:0,pfsdir:scratch:0,gpfs:scratch:0", {"a100": 2}, "unknown", OSC),
    (
        "gpu:tesla:2,gpu:kepler:2,mps:400,bandwidth:lustre:no_consume:4G",
        {"tesla": 2, "kepler": 2},
        "25.05",
        "source: doc/html/gres.shtml, its example of a node",
    ),
    ("gpu:a100:1,gpu:a100_3g.20gb:2", {"a100": 1, "a100_3g.20gb": 2}, "25.05", "source: doc/html/gres.shtml, MIG"),
    ("gpu:2,shard:64", {"": 2}, "25.05", "source: doc/html/gres.shtml, sharding"),
]


@pytest.mark.parametrize(("text", "gpus", "version", "source"), GRES)
def test_the_gpus_of_a_node(text: str, gpus: dict[str, int], version: str, source: str) -> None:
    assert parse_gres(text) == gpus


# What is written with blanks, or by another field list, is set in ours: node, partition, up, state, cores, memory,
# allocated memory, Gres, GresUsed, time limit, oversubscription.
NODES = [
    (
        "cs22|hw-l|up|mixed|40/24/0/64|1030000|841728|||infinite|NO|",
        {"cores": 24, "memory": 1030000, "free_memory": 188272, "free_gpus": {}, "time": None},
        "unknown",
        "recorded: rivosinc/prometheus-slurm-exporter, exporter/fixtures/sinfo_fallback.txt",
    ),
    (
        "cs222|hw-l|up|allocated|96/0/0/96|1540000|1539792|gpu:a100:8|gpu:a100:3|infinite|NO|",
        {"cores": 0, "memory": 1540000, "free_memory": 0, "free_gpus": {"a100": 0}, "time": None},
        "unknown",
        "recorded: rivosinc/prometheus-slurm-exporter, likewise: GPUs are left, but no core",
    ),
    (
        "cs422|hw-l|up|draining|58/0/70/128|1540000|872016|||infinite|NO|",
        {"cores": 0, "memory": 1540000, "free_memory": 0, "free_gpus": {}, "time": None},
        "unknown",
        "recorded: rivosinc/prometheus-slurm-exporter, likewise",
    ),
    (
        "b003|b|up|mixed|29/3/0/32|386000|296960|(null)|gpu:0|1-00:00:00|NO|",
        {"cores": 3, "memory": 386000, "free_memory": 89040, "free_gpus": {}, "time": 86400},
        "unknown",
        VPENSO.format("sinfo_mem.txt: node, memory and cores"),
    ),
    (
        "a0001|nextgen|up|mixed-|40/80/0/120|921600|300000|gpu:a100:3(S:2,4,7),nsight:no_consume:1|"
        "gpu:a100:3(IDX:0-2),nsight:0|7-00:00:00|NO|",
        {"cores": 0, "memory": 921600, "free_memory": 0, "free_gpus": {"a100": 0}, "time": 604800},
        "unknown",
        OSC + ": state, Gres and GresUsed",
    ),
    (
        "p4|haswell|up|mixed|1/15/0/16|262144|6000|gpu:t4:1|gpu:t4:1(IDX:0)|10-00:00:00|NO|",
        {"cores": 15, "memory": 262144, "free_memory": 256144, "free_gpus": {"t4": 0}, "time": 864000},
        "22.05",
        "recorded: miniature Pelle",
    ),
    (
        "p3|fat|up|idle|0/96/0/96|128000+|0|(null)|gpu:0|30:00|EXCLUSIVE|",
        {"cores": 96, "memory": 128000, "free_memory": 128000, "free_gpus": {}, "time": 1800},
        ALL,
        "source: src/sinfo/print.c: the + of several sizes, minutes alone",
    ),
]


@pytest.mark.parametrize(("line", "expected", "version", "source"), NODES)
def test_the_nodes_of_sinfo(line: str, expected: dict[str, Any], version: str, source: str) -> None:
    [row] = parse_nodes(line)
    found = {"cores": row.free_cores, "memory": row.memory, "free_memory": row.free_memory}
    assert found | {"free_gpus": row.free_gpus, "time": row.time_limit} == expected


TIMES = [
    ("infinite", None, ALL, "source: src/sinfo/print.c, _print_time"),
    ("n/a", None, ALL, "source: src/sinfo/print.c, _print_time"),
    ("UNLIMITED", None, ALL, "source: src/common/parse_time.c, mins2time_str and secs2time_str"),
    ("10-00:00:00", 864000, "22.05", "recorded: miniature Pelle"),
    ("2-00:00:00", 172800, "22.05", "recorded: miniature Pelle"),
    ("1:00:00", 3600, "unknown", "recorded: UPPMAX/UPPMAX-documentation, docs/software/sinfo.md (Rackham's devel)"),
    ("30:00", 1800, ALL, "source: sinfo(1), its example of a debug partition"),
]


@pytest.mark.parametrize(("text", "seconds", "version", "source"), TIMES)
def test_the_time_limits_of_sinfo(text: str, seconds: int | None, version: str, source: str) -> None:
    assert parse_time_limit(text) == seconds


def test_the_waiting_jobs_of_squeue() -> None:
    # As QUEUES: Snowy's own, and the miniature Pelle's
    output = (
        "core|Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions\n"
        "core|Priority\ncore|Priority\nnode|Resources\nveryfat|ReqNodeNotAvail, UnavailableNodes:s230\n"
        "pelle|JobHeldUser\ngpu,haswell|BadConstraints\n"
    )
    assert parse_pending(output) == {"core": 3, "node": 1, "veryfat": 1}


# -- how a cluster is set up ---------------------------------------------------------------------------------------

# The miniatures' own are in tests/unit/clusters.
PARTITION_FORMAT = "source: src/api/partition_info.c, slurm_sprint_partition_info"
PARTITIONS = [
    (
        "PartitionName=gpu AllowGroups=ALL AllowAccounts=ai AllowQos=ALL AllocNodes=ALL Default=YES QoS=N/A "
        "DefaultTime=NONE DisableRootJobs=NO ExclusiveUser=NO GraceTime=0 Hidden=NO MaxNodes=UNLIMITED "
        "MaxTime=2-00:00:00 MinNodes=0 LLN=NO MaxCPUsPerNode=24 Nodes=g[1-2] PriorityJobFactor=1 PriorityTier=1 "
        "RootOnly=NO ReqResv=NO OverSubscribe=NO OverTimeLimit=NONE PreemptMode=OFF State=UP TotalCPUs=64 "
        "TotalNodes=2 SelectTypeParameters=NONE JobDefaults=(null) DefMemPerCPU=4000 MaxMemPerNode=UNLIMITED",
        *("20.02, 22.05", PARTITION_FORMAT),
    ),
    (
        "PartitionName=gpu AllowGroups=ALL AllowAccounts=ai AllowQos=ALL AllocNodes=ALL Default=YES QoS=N/A "
        "DefaultTime=NONE DisableRootJobs=NO ExclusiveUser=NO ExclusiveTopo=NO GraceTime=0 Hidden=NO "
        "MaxNodes=UNLIMITED MaxTime=2-00:00:00 MinNodes=0 LLN=NO MaxCPUsPerNode=24 MaxCPUsPerSocket=UNLIMITED "
        "NodeSets=gpus Nodes=g[1-2] PriorityJobFactor=1 PriorityTier=1 RootOnly=NO ReqResv=NO OverSubscribe=NO "
        "OverTimeLimit=NONE PreemptMode=OFF State=UP TotalCPUs=64 TotalNodes=2 SelectTypeParameters=NONE "
        "JobDefaults=(null) DefMemPerCPU=4000 MaxMemPerNode=UNLIMITED TRES=cpu=64,mem=512000M,node=2,billing=64",
        *("23.11 (without ExclusiveTopo), 25.05", PARTITION_FORMAT),
    ),
]


@pytest.mark.parametrize(("line", "version", "source"), PARTITIONS)
def test_the_partitions_of_scontrol(line: str, version: str, source: str) -> None:
    [found] = parse_partitions(line).values()
    assert (found.name, found.default, found.qos, found.accounts, found.state) == ("gpu", True, "", "ai", "UP")
    assert (found.max_cores, found.max_time, found.memory_per_core, found.max_memory) == (24, 172800, 4000, None)


NODE_FORMAT = "source: src/api/node_info.c, slurm_sprint_node_table"
NODE_CONFIGS = [
    (
        "NodeName=g1 Arch=x86_64 CoresPerSocket=16  CPUAlloc=0 CPUTot=64 CPULoad=0.01 AvailableFeatures=hbm80g,ib "
        "ActiveFeatures=ib Gres=gpu:a100:4(S:0-1) NodeAddr=g1-ib NodeHostName=g1 Version=20.02.7 OS=Linux "
        "3.10.0-1160.el7.x86_64 #1 SMP Mon Oct 19 16:18:59 UTC 2020  RealMemory=512000 AllocMem=0 FreeMem=500000 "
        "Sockets=2 Boards=1 State=IDLE ThreadsPerCore=2 TmpDisk=0 Weight=1 Owner=N/A MCS_label=N/A "
        "Partitions=gpu,all  BootTime=2021-01-01T00:00:00 SlurmdStartTime=2021-01-01T00:00:00",
        *("20.02", NODE_FORMAT),
    ),
    (
        "NodeName=g1 Arch=x86_64 CoresPerSocket=16  CPUAlloc=0 CPUEfctv=64 CPUTot=64 CPULoad=0.01 "
        "AvailableFeatures=hbm80g,ib ActiveFeatures=ib Gres=gpu:a100:4(S:0-1) NodeAddr=g1-ib NodeHostName=g1 "
        "Version=25.05.1 OS=Linux 5.14.0-503.el9.x86_64 #1 SMP PREEMPT_DYNAMIC Thu Jan 1  RealMemory=512000 AllocMem=0 "
        "FreeMem=500000 Sockets=2 Boards=1 State=IDLE+DYNAMIC_NORM ThreadsPerCore=2 TmpDisk=0 Weight=1 Owner=N/A "
        "MCS_label=N/A Partitions=gpu,all  BootTime=2026-01-01T00:00:00 SlurmdStartTime=2026-01-01T00:00:00 "
        "LastBusyTime=2026-01-01T00:00:00 ResumeAfterTime=None Topology=default:s1 Comment=Partitions=none",
        *("22.05, 23.11 (without Topology), 25.05", NODE_FORMAT),
    ),
]


@pytest.mark.parametrize(("line", "version", "source"), NODE_CONFIGS)
def test_the_nodes_of_scontrol(line: str, version: str, source: str) -> None:
    [found] = parse_node_configs(line)
    assert found == ("g1", "g1-ib", ("gpu", "all"), ("hbm80g", "ib"), 2)


CONFIGS = [
    ("AccountingStorageType   = accounting_storage/slurmdbd", True, ALL, "source: src/api/config_info.c"),
    ("AccountingStorageType   = accounting_storage/none", False, "20.02, 22.05", "source: slurm.conf(5)"),
    ("AccountingStorageType   = (null)", False, "23.11, 25.05", "source: src/common/log.h, a string that is not set"),
]


@pytest.mark.parametrize(("line", "accounting", "version", "source"), CONFIGS)
def test_the_configuration_of_scontrol(line: str, accounting: bool, version: str, source: str) -> None:
    assert parse_config(line).accounting is accounting


CLOCKS = [
    ("Configuration data as of 1795858664\n", 1795858664, "22.05", "recorded: miniature Snowy"),
    (
        "Configuration data as of 2023-09-12T10:22:31\n",
        None,
        "20.02",
        "source: src/api/config_info.c, slurm_print_ctl_conf, without SLURM_TIME_FORMAT",
    ),
]


@pytest.mark.parametrize(("line", "now", "version", "source"), CLOCKS)
def test_the_clock_of_scontrol(line: str, now: int | None, version: str, source: str) -> None:
    assert parse_config(line).now == now


QOS = [
    ("devcore|1||\n", {"devcore": QosLimits(1)}, "22.05", "recorded: miniature Snowy"),
    (
        "short||00:30:00|cpu=4,gres/gpu=1\n",
        {"short": QosLimits(None, 1800, 4)},
        "22.05",
        "recorded: miniature Snowy, of a QOS made with MaxWall=30 MaxTRESPerJob=cpu=4,gres/gpu=1",
    ),
]


@pytest.mark.parametrize(("output", "expected", "version", "source"), QOS)
def test_the_limits_of_sacctmgr(output: str, expected: dict[str, QosLimits], version: str, source: str) -> None:
    assert parse_qos(output) == expected


ASSOCIATIONS = [
    (
        "g2020014|||\ng2021027|||\n",
        [Association("g2020014"), Association("g2021027")],
        "22.05",
        "recorded: miniature Snowy",
    ),
    (
        "abc|gpu|1-00:00:00|cpu=16\n",
        [Association("abc", "gpu", 86400, 16)],
        ALL,
        "source: src/sacctmgr/association_functions.c, its fields Account, Partition, MaxWall, MaxTRES",
    ),
]


@pytest.mark.parametrize(("output", "expected", "version", "source"), ASSOCIATIONS)
def test_the_associations_of_a_person(output: str, expected: list[Association], version: str, source: str) -> None:
    assert parse_associations(output) == expected


# -- what sbatch says when it refuses ------------------------------------------------------------------------------

FAILED = "sbatch: error: Batch job submission failed: "
ERRNO = "source: src/common/slurm_errno.c"

# Of the messages that all four versions have, none has another wording in another version; newer ones add some.
REFUSALS = [
    (FAILED + "Invalid account or account/partition combination specified", "account", "22.05", "recorded"),
    (
        "sbatch: error: invalid partition specified: nosuch\n" + FAILED + "Invalid partition name specified",
        *("partition", "22.05", "recorded"),
    ),
    (FAILED + "Required partition not available (inactive or drain)", "partition", "22.05", "recorded"),
    (FAILED + "Requested node configuration is not available", "partition", "22.05", "recorded"),
    (
        "sbatch: error: Memory specification can not be satisfied\n"
        + FAILED
        + "Requested node configuration is not available",
        *("memory", "22.05", "recorded"),
    ),
    (
        "sbatch: error: CPU count per node can not be satisfied\n"
        + FAILED
        + "Requested node configuration is not available",
        *("cores", "22.05", "recorded"),
    ),
    (FAILED + "Requested reservation is invalid", "reservation", "22.05", "recorded"),
    (FAILED + "Access denied to requested reservation", "reservation", "22.05", "recorded"),
    (
        "Invalid time specification (pos=0): foo\nsbatch: error: Invalid --begin specification",
        "begin",
        "22.05",
        "recorded",
    ),
    ("sbatch: error: Invalid --time specification", "time", "22.05", "recorded"),
    ("sbatch: error: Invalid generic resource (gres) specification", "gpu", "22.05", "recorded"),
    (FAILED + "Invalid feature specification", "constraint", "22.05", "recorded"),
    (FAILED + "Invalid qos specification", "qos", "22.05", "recorded"),
    (
        "sbatch: error: AssocMaxSubmitJobLimit\n" + FAILED + "Job violates accounting/QOS policy (job submit limit, "
        "user's size and/or time limits)",
        *("account", "22.05", "recorded, with MaxSubmitJobs=1"),
    ),
    (
        "sbatch: error: No cluster 'nosuch' known by database.\nsbatch: error: 'nosuch' can't be reached now, or it is "
        "an invalid entry for --cluster.  Use 'sacctmgr list clusters' to see available clusters.",
        *("", "22.05", "recorded"),
    ),
    ("slurm_load_jobs error: Unable to contact slurm controller (connect failure)", "", "22.05", "recorded"),
    ("sbatch: fatal: Unable to process configuration file", "", "22.05", "recorded"),
    (FAILED + "Requested time limit is invalid (missing or exceeds some limit)", "time", ALL, ERRNO),
    (FAILED + "Time limit specification required, but not provided", "time", ALL, ERRNO),
    (FAILED + "Memory required by task is not available", "memory", ALL, ERRNO),
    (FAILED + "More processors requested than permitted", "cores", ALL, ERRNO),
    (FAILED + "CPU count specification invalid", "cores", ALL, ERRNO),
    (FAILED + "Partition in DOWN state", "partition", ALL, ERRNO),
    (FAILED + "User's group not permitted to use this partition", "partition", ALL, ERRNO),
    (FAILED + "Required node not available (down, drained or reserved)", "partition", ALL, ERRNO),
    (FAILED + "No partition specified or system default partition", "partition", ALL, ERRNO),
    (FAILED + "Requested reservation not usable now", "reservation", ALL, ERRNO),
    (FAILED + "Job can not start due to maintenance reservation.", "begin", ALL, ERRNO),
    (FAILED + "Invalid GRES specification (with and without type identification)", "gpu", ALL, ERRNO),
    (FAILED + "Insufficient GRES available in allocation", "gpu", "22.05, 23.11, 25.05", ERRNO),
    (FAILED + "System submissions disabled", "", ALL, ERRNO),
    (FAILED + "Invalid user id", "", ALL, ERRNO),
    (FAILED + "Access/permission denied", "", ALL, ERRNO),
    (FAILED + "Invalid authentication credential", "", ALL, ERRNO),
    (FAILED + "Authentication credential expired", "", "23.11, 25.05", ERRNO),
    (FAILED + "I/O error writing script/environment to file", "", ALL, ERRNO),
    (FAILED + "Rate limit exceeded, please retry momentarily", "", "23.11, 25.05", ERRNO),
    (FAILED + "Rate limit exceeded, please retry later", "", "25.05", ERRNO),
    (FAILED + "Controller is in standby mode, try a different controller", "", "22.05, 23.11, 25.05", ERRNO),
    (FAILED + "Socket timed out on send/recv operation", "", ALL, ERRNO),
    (FAILED + "Resource temporarily unavailable", "", ALL, "source: errno EAGAIN, sbatch.c's retries"),
]


@pytest.mark.parametrize(("stderr", "field", "version", "source"), REFUSALS)
def test_a_refusal_of_sbatch_is_understood(stderr: str, field: str, version: str, source: str) -> None:
    said = messages.refusal(stderr)
    assert said.field == field
    assert said.sentence != messages.refusal("").sentence
    assert said.advice


GONE = [
    ("scancel: error: Kill job error on job id 19: Invalid job id specified", "22.05", "recorded"),
    ("scancel: error: Kill job error on job id 19: Invalid job id specified", "20.02, 23.11, 25.05", "src/scancel"),
    ("scancel: error: Kill job error on job id 19: Job/step already completing or completed", ALL, "src/scancel"),
]


@pytest.mark.parametrize(("stderr", "version", "source"), GONE)
async def test_a_job_that_is_gone_is_cancelled(
    stderr: str, version: str, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*args: Any, **kwargs: Any) -> str:
        raise SlurmError("scancel", 1, stderr)

    client = SlurmClient()
    monkeypatch.setattr(client, "_answer", fails)
    await client.cancel("19", [])


# -- argv ----------------------------------------------------------------------------------------------------------

# Every option that we pass to Slurm's commands: all are in 20.02, 22.05, 23.11 and 25.05, with the same meaning. Where
# they are found: the long options of src/common/slurm_opt.c (sbatch), src/scancel/opt.c, src/squeue/opts.c,
# src/sinfo/opts.c, src/scontrol/scontrol.c, src/sacct/options.c, src/sacctmgr/sacctmgr.c.
OPTIONS = {
    "sbatch": {
        *(
            "--parsable",
            "--test-only",
            "-M",
            "--job-name",
            "--account",
            "--time",
            "--partition",
            "--constraint",
            "--nodes",
        ),
        *("--ntasks", "--cpus-per-task", "--mem", "--gres", "--reservation", "--begin", "--mail-type"),
        *("--no-requeue", "--chdir", "--output", "--export", "--signal"),
        "--gpus",  # documented since 19.05
        "--gpus-per-node",  # likewise
    },
    # --batch: the batch script alone; --full: the batch script and its children, too.
    "scancel": {"-M", "--signal", "--batch", "--full"},
    "squeue": {"-M", "-h", "--states", "-j", "-o", "--name", "-u", "-p", "-a"},
    "sinfo": {"-M", "-h", "-a", "-N", "-O"},
    "scontrol": {"-M", "-a", "-o"},
    "sacct": {"-M", "-X", "-n", "-P", "-j", "-o", "-V"},
    "sacctmgr": {"-n", "-P"},
}


def _options(argv: list[str]) -> Iterator[str]:
    return (word.partition("=")[0] for word in argv if re.match(r"--?[A-Za-z]", word))


class _Recorder(SlurmClient):
    """A client that runs nothing and notes what it would have run."""

    def __init__(self) -> None:
        super().__init__("snowy")
        self.argv: dict[str, set[str]] = {}
        self.env: list[dict[str, str]] = []

    async def _answer(self, purpose: Any, words: Any, env: Any, *rest: Any, **more: Any) -> tuple[str, str]:
        command, *args = words
        self.argv.setdefault(command, set()).update(_options(list(args)))
        self.env.append(dict(env))
        return ("ClusterName = snowy\n" if args == ["show", "config"] else "17\n"), ""


async def test_every_option_of_ours_is_in_every_version() -> None:
    client = _Recorder()
    await client.submit("x", [], {})
    for how in ((), ASK, KILL):
        await client.cancel("17", [], how)
    await client.queue(["17"])
    await client.find("name", "you")
    await client.ends(["17"])
    await client.use("17")
    await client.record("17")
    await client.version()
    await client.jobs_in("core", "you")
    await client.accounts("you")
    await client.would_start("x", [], {})
    await client.partitions()
    await client.nodes()
    await client.waiting()
    await client.reservations()
    await client.config()
    await client.partition_configs()
    await client.node_configs()
    await client.qos_limits()
    await client.associations("you")
    await client.clusters()
    client.cluster = ""
    assert await client.cluster_name() == "snowy"
    await client.hides_jobs()
    # A method that is new has to be called here, too.
    public = {name for name, value in vars(SlurmClient).items() if not name.startswith("_") and callable(value)}
    assert public == {
        *("submit", "submit_command", "would_start", "cancel", "queue", "find", "ends", "jobs_in", "accounts"),
        *("record", "version", "use", "partitions", "waiting", "reservations", "cluster_name", "nodes", "hides_jobs"),
        *("node_rows", "config", "partition_configs", "node_configs", "qos_limits", "associations", "clusters"),
    }
    for command, options in client.argv.items():
        assert options <= OPTIONS[command], command
    assert set(client.argv) == set(OPTIONS)
    assert client_module._BASE_ENV["SLURM_TIME_FORMAT"] == "%s"
    assert all(env["SLURM_TIME_FORMAT"] == "%s" for env in client.env[1:])


@pytest.mark.parametrize("name", ["snowy", "pelle"])
def test_every_option_of_a_job_script_is_in_every_version(name: str) -> None:
    site = load(name)
    target = Target(name="jupyter-x", home="/home/you", hub_url="http://hub/hub/", server=1)
    seen: set[str] = set()
    for partition in site.partitions:
        for gpu in ("", *site.gpus):
            seen |= set(_options(sbatch_options(site, _asking_for_everything(site, partition, gpu), target)))
    assert seen <= OPTIONS["sbatch"]
    assert {"--begin", "--mail-type", "--reservation", "--chdir", "--export"} <= seen


def _asking_for_everything(site: Site, partition: str, gpu: str) -> SessionRequest:
    return SessionRequest.model_construct(
        **{"environment": next(iter(site.environments)), "image": next(iter(site.images)), "partition": partition},
        **{"cores": 4, "gpu": gpu, "gpu_count": 1, "memory": 4000, "time": 3540, "begin": 1790848800},
        **{"account": "demo", "reservation": "lab", "email_on_start": True, "open": ""},
    )


# Values whose form matters, where Slurm reads them in all four, and what of ours has them.
VALUES = [
    ("--begin=uts", "src/common/parse_time.c: uts and seconds", "script"),
    ("'%s'", "src/common/parse_time.c: SLURM_TIME_FORMAT is a format of strftime's", "environment"),
    ("NodeList:|,", "src/sinfo/opts.c, _parse_long_token: a width of 0, and a suffix", "sinfo"),
]


@pytest.mark.parametrize(("value", "source", "where"), VALUES)
def test_values_have_the_form_that_every_version_reads(value: str, source: str, where: str) -> None:
    site = load("snowy")
    target = Target(name="jupyter-x", home="/home/you", hub_url="http://hub/hub/", server=1)
    ours = {
        "script": sbatch_options(site, _asking_for_everything(site, "core", ""), target),
        "environment": [repr(client_module._BASE_ENV["SLURM_TIME_FORMAT"])],
        "sinfo": list(SINFO_FORMAT),
    }
    assert any(value in each for each in ours[where])


def test_the_sources_are_named() -> None:
    # A sample whose origin nobody can look up is an invention.
    for table in (
        *(JOB_IDS, QUEUES, ENDS, RECORDS, VERSIONS, ACCOUNTS, GRES, NODES, TIMES, REFUSALS, GONE),
        *(PARTITIONS, NODE_CONFIGS, CONFIGS, CLOCKS, QOS, ASSOCIATIONS),
    ):
        for sample in table:
            assert re.match(r"recorded|source: |src/", str(sample[-1])), sample
