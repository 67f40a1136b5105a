"""What scontrol and sacctmgr say of how a cluster is set up."""

from __future__ import annotations

import pytest

from snowyspawner.slurm.configuration import (
    ClusterConfig,
    NodeConfig,
    PartitionConfig,
    QosLimits,
    parse_config,
    parse_node_configs,
    parse_partitions,
    parse_qos,
)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("", ClusterConfig(accounting=False)),
        (
            "Configuration data as of 2026-11-28T09:36:18\n"
            "AccountingStorageType   = accounting_storage/slurmdbd\n"
            "ClusterName             = snowy\n"
            "DefMemPerCPU            = 8000\n"
            "SelectType              = select/cons_tres\n"
            "SLURM_VERSION           = 22.05.8\n\n"
            "Slurmctld(primary) at localhost is UP\n",
            ClusterConfig("snowy", "22.05.8", 8000),
        ),
        (
            "AccountingStorageType   = accounting_storage/none\nClusterName = one\nDefMemPerNode = UNLIMITED\n"
            "SelectType              = select/linear\nSLURM_VERSION = 20.02.7\n",
            ClusterConfig("one", "20.02.7", None, whole_nodes=True, accounting=False),
        ),
        ("AccountingStorageType   = (null)\nDefMemPerCPU = 0\n", ClusterConfig(accounting=False)),
    ],
)
def test_the_configuration(output: str, expected: ClusterConfig) -> None:
    assert parse_config(output) == expected


def test_a_partition_has_its_limits() -> None:
    line = (
        "PartitionName=gpu AllowGroups=wheel,staff AllowAccounts=a,b AllowQos=ALL AllocNodes=ALL Default=YES QoS=gpu "
        "DefaultTime=01:00:00 Hidden=YES MaxNodes=1 MaxTime=2-00:00:00 MinNodes=0 MaxCPUsPerNode=12 Nodes=g[1-2] "
        "RootOnly=YES OverSubscribe=NO State=DRAIN DefMemPerCPU=4000 MaxMemPerNode=64000\n"
    )
    assert parse_partitions(f"{line}\nno such line\n") == {
        "gpu": PartitionConfig(
            *("gpu", True, True, True, "DRAIN", "gpu", 12, 64000, 172800, 4000),
            groups="wheel,staff",
            accounts="a,b",
        )
    }


def test_a_partition_without_limits_has_none() -> None:
    line = "PartitionName=all AllowGroups=ALL AllowAccounts=ALL Default=NO QoS=N/A MaxTime=UNLIMITED MaxCPUsPerNode=UNLIMITED MaxMemPerNode=UNLIMITED DefMemPerNode=UNLIMITED State=UP"  # noqa: E501
    assert parse_partitions(line) == {"all": PartitionConfig("all")}


def test_what_people_write_of_a_node_is_not_taken_for_slurm_s() -> None:
    """Reason and Comment are anybody's text, and stand behind Slurm's own keys."""
    line = (
        "NodeName=n1 Arch=x86_64 AvailableFeatures=a100,hbm80g Gres=gpu:a100:4(S:0-1) NodeAddr=n1.example.org "
        "NodeHostName=n1 Version=23.11.4 OS=Linux 5.14.0 #1 SMP Fri May  3 RealMemory=512000 ThreadsPerCore=2 "
        "Partitions=gpu,all  BootTime=2026-01-01T00:00:00 Reason=Partitions=evil NodeAddr=10.6.6.6 [root@2026]"
    )
    assert parse_node_configs(line) == [NodeConfig("n1", "n1.example.org", ("gpu", "all"), ("a100", "hbm80g"), 2)]


def test_a_node_that_says_little() -> None:
    assert parse_node_configs("NodeName=c1 AvailableFeatures=(null) State=IDLE+CLOUD\n") == [NodeConfig("c1", "c1")]


def test_the_limits_of_qos() -> None:
    output = "normal||||\nshort|2|00:15:00|cpu=64,gres/gpu=2,node=1\nlong||UNLIMITED|\ntoo|few\n"
    assert parse_qos(output) == {"short": QosLimits(2, 900, 64), "long": QosLimits()}
    assert parse_qos("normal|||\n") == {"normal": QosLimits()}
