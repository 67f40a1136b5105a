"""The miniature of any Site: which nodes it needs, and which partition has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from demo import DemoError, slurm
from demo.accounting import CLOSED_PROJECT, projects
from demo.cluster import MOST_NODES, Cluster
from snowyspawner import site as site_module
from snowyspawner.site import Site

SITES = Path(__file__).resolve().parent.parent / "sites"
GPUS = SITES / "gpus.yaml"
EVERY = [*site_module.shipped(), *sorted(SITES.glob("*.yaml"))]


def plan(site: Site, cpu: int = 2, gpu: int = 2) -> slurm.Plan:
    cluster, login = slurm.cluster_names(site)
    files = [f"/dev/nvidia{number}" for number in range(slurm.gpu_count(site, gpu))]
    return slurm.Plan(
        site=site,
        directory=Path("/var/tmp/demo"),
        dbd_port=20000,
        cluster=cluster,
        cluster_port=20002,
        login=login,
        login_port=20002,
        nodes=slurm.plan_nodes(site, cpu, gpu, 20010, files),
        login_nodes=(),
        version=(22, 5),
    )


def conf(site: Site, start: str, cpu: int = 2, gpu: int = 2) -> dict[str, dict[str, str]]:
    """Return the lines of slurm.conf that begin with *start*, each as a table of its words."""
    made = plan(site, cpu, gpu)
    text = slurm.slurm_conf(made, made.cluster)
    lines = [dict(word.split("=", 1) for word in line.split()) for line in text.splitlines() if line.startswith(start)]
    return {line[start]: line for line in lines}


@pytest.fixture(scope="module")
def pelle() -> Site:
    return site_module.load("pelle")


def test_pelle_has_nodes_of_each_size_and_with_each_gpu(pelle: Site) -> None:
    nodes = conf(pelle, "NodeName")
    assert {name: (line["CPUs"], line.get("Gres"), line.get("Features")) for name, line in nodes.items()} == {
        "p1": ("96", None, None),
        "p2": ("96", None, "2TB"),
        "p3": ("96", None, "3TB"),
        "p4": ("16", "gpu:t4:1", None),
        "p5": ("64", "gpu:l40s:10", None),
        "p6": ("64", "gpu:h100:2", None),
    }
    assert nodes["p3"]["RealMemory"] == str(3 * 1024 * 1024)
    assert conf(pelle, "PartitionName") == {
        "haswell": {"PartitionName": "haswell", "Nodes": "p4", "State": "UP", "MaxTime": "10-00:00:00"}
        | {"Default": "YES"},
        "pelle": {"PartitionName": "pelle", "Nodes": "p1", "State": "UP", "MaxTime": "10-00:00:00"},
        "gpu": {"PartitionName": "gpu", "Nodes": "p5,p6", "State": "UP", "MaxTime": "2-00:00:00"},
        "fat": {"PartitionName": "fat", "Nodes": "p2,p3", "State": "UP", "MaxTime": "10-00:00:00"}
        | {"OverSubscribe": "EXCLUSIVE"},
    }


def test_pelle_is_one_cluster(pelle: Site) -> None:
    assert plan(pelle).clusters == ("pelle",)


@pytest.mark.parametrize("source", EVERY, ids=lambda source: Path(source).stem)
def test_a_miniature_is_small_and_every_choice_has_a_node(source: str | Path) -> None:
    site = site_module.load(source)
    made = plan(site)
    assert len(made.nodes) == slurm.node_count(site, 2, 2) <= 8
    for key, part in site.partitions.items():
        having = [node for node in made.nodes if key in node.partitions]
        assert having
        assert all(node.cores == part.max_cores and node.feature == part.constraint for node in having)
        for gpu in part.gpus:
            kind, most = slurm.gpu_type(site.gpus[gpu].request), site.gpus[gpu].max_count
            assert any(node.gpu == kind and (node.shards or len(node.devices)) == most for node in having)
        if not part.gpus:
            assert not any(node.devices for node in having)


@pytest.mark.parametrize("source", EVERY, ids=lambda source: Path(source).stem)
def test_without_gpu_nodes_every_partition_still_has_nodes(source: str | Path) -> None:
    site = site_module.load(source)
    made = plan(site, cpu=1, gpu=0)
    assert not any(node.devices for node in made.nodes)
    assert {key for node in made.nodes for key in node.partitions} == set(site.partitions)


def test_more_nodes_are_of_the_default_partition_and_gpus_take_turns(pelle: Site, variant: Callable[..., Site]) -> None:
    usual = site_module.load({"extends": "pelle", "defaults": {"partition": "pelle", "gpu": "none"}})
    assert len(conf(usual, "PartitionName", cpu=5)["pelle"]["Nodes"].split(",")) == 3
    assert [node.gpu for node in plan(pelle, gpu=4).nodes if node.gpu] == ["t4", "l40s", "h100", "t4"]
    assert conf(variant(), "PartitionName", cpu=5, gpu=1)["devcore"]["Nodes"] == "s1,s2,s3,s4,s5"


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        ("--gres=gpu:t4:{count}", "t4"),
        ("--gres=gpu:{count}", "gpu"),
        ("--gpus={count}", "gpu"),
        ("--gpus=l40s:{count}", "l40s"),
        ("--gpus-per-node=A100fat:{count}", "A100fat"),
        ("--gpus-per-node={count}", "gpu"),
    ],
)
def test_a_gpu_has_the_name_that_its_request_gives_it(request_: str, name: str) -> None:
    assert slurm.gpu_type(request_) == name


def test_a_gpu_that_is_shared_in_parts_is_one_device_file() -> None:
    site = site_module.load(GPUS)
    made = plan(site)
    (node,) = [node for node in made.nodes if node.shards]
    assert (len(node.devices), node.shards) == (1, 4)
    text = slurm.slurm_conf(made, made.cluster)
    assert "GresTypes=gpu,shard\n" in text
    assert f"NodeName={node.name} " in text
    assert " Gres=gpu:1,shard:4\n" in text
    assert f"NodeName={node.name} Name=shard Count=4\n" in slurm.gres_conf(made.nodes)


def test_parts_of_one_partition_share_its_limit_of_jobs() -> None:
    parts: dict[str, Any] = {
        "a": {"name": "all", "max_cores": 2, "max_time": "60", "max_jobs": 3},
        "b": {"name": "all", "max_cores": 4, "max_time": "1-0", "max_jobs": 2, "constraint": "big"},
    }
    site = site_module.load(
        {
            "extends": "snowy",
            "partitions": {**dict.fromkeys(("core", "node", "devcore", "devel")), **parts},
            "defaults": {"partition": "a", "cores": 1, "gpu": "none"},
            "presets": None,
        }
    )
    assert slurm.partition_qos(site) == {"all": 2}
    assert conf(site, "PartitionName")["all"]["MaxTime"] == "1-0"  # the longest of both; the hub holds people to each


def test_a_site_is_a_path_from_wherever_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text("extends: snowy\ndisplay_name: Mine\n")
    monkeypatch.chdir(tmp_path)
    made = Cluster(tmp_path / "state", site="mine.yaml")
    monkeypatch.chdir("/")
    assert made.site.display_name == "Mine"


def test_too_many_nodes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match=f"at most {MOST_NODES} nodes"):
        Cluster(tmp_path, site="pelle", nodes=MOST_NODES, gpu_nodes=1)


@pytest.mark.parametrize("source", EVERY, ids=lambda source: Path(source).stem)
def test_people_have_two_projects_the_sites_default_first(source: str | Path) -> None:
    """So that one can be chosen that Slurm would not have taken anyway; and there is one that is not theirs."""
    site = site_module.load(source)
    first, second = projects(site)
    assert first == (site.accounts.default or "demo")
    assert len({first, second, CLOSED_PROJECT}) == 3
