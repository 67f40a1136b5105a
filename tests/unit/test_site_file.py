"""A Site file made from what Slurm says."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from snowyspawner import site as sites
from snowyspawner.admin import site_file
from snowyspawner.admin.site_file import DECIDE, site_text
from snowyspawner.admin.survey import Survey, host_time_zone, look
from snowyspawner.choice.request import problems
from snowyspawner.cli import main
from snowyspawner.site import Site, SiteError
from snowyspawner.slurm.configuration import ClusterConfig, NodeConfig, PartitionConfig, QosLimits
from snowyspawner.slurm.nodes import NodeRow
from snowyspawner.slurm.times import parse_duration
from tests.clusters import SITES, USER, Recorded

TOO_LONG = "x" * 2000


def survey(name: str, cluster: str = "", *without: str) -> Survey:
    """Return what was recorded of a site; commands with one of *without* in them fail."""
    client = Recorded(name, cluster)
    client.said = {said: text for said, text in client.said.items() if not any(part in said for part in without)}
    return asyncio.run(look(client, USER))


def read(text: str) -> Site:
    """Load the Site that a file holds, and find nothing wrong with it."""
    site = sites.load(yaml.safe_load(text))
    assert problems(site) == []
    return site


def row(node: str = "n1", partition: str = "main", cores: int = 16, **more: Any) -> NodeRow:
    given = {"memory": 64000, "gpus": {}, "time_limit": 3600, "exclusive": False, **more}
    return NodeRow(node, partition, "up", "idle", 0, cores, 0, cores, allocated_memory=0, gpus_used={}, **given)


def decisions(text: str) -> list[str]:
    """Return what stands below each mark."""
    return re.findall(rf"^ *{DECIDE}.*\n(?: *# .*\n)* *(\S+?):", text, re.MULTILINE)


@pytest.fixture(scope="module")
def made() -> Callable[[str], str]:
    """The file of each site, made once. A command that has changed since would not be among the recorded ones."""
    seen = {name: survey(name, "snowy" if name == "snowy" else "") for name in SITES}
    assert [each.failures for each in seen.values()] == [[]] * len(SITES)
    texts = {name: site_text(each) for name, each in seen.items()}
    return texts.__getitem__


# -- of clusters like those that we know -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(SITES))
def test_it_has_what_the_hand_written_site_has(name: str, made: Callable[[str], str]) -> None:
    """Of each of Slurm's partitions: cores, time, GPUs, whole nodes, jobs; of GPUs how many, and their request."""
    site, known = read(made(name)), sites.load(SITES[name])
    assert site.memory_per_core == known.memory_per_core
    assert site.cluster == known.cluster
    slurms = {key: known.slurm_partition(key) for key in known.partitions}
    assert set(site.partitions) == set(slurms.values())
    for partition, found in site.partitions.items():
        parts = [known.partitions[key] for key, slurm in slurms.items() if slurm == partition]
        assert found.max_cores == max(part.max_cores for part in parts)
        assert parse_duration(found.max_time) == max(parse_duration(part.max_time) for part in parts)
        assert found.whole_node == all(part.whole_node for part in parts)
        assert found.max_jobs == min((part.max_jobs for part in parts if part.max_jobs), default=None)
        wanted = {known.slurm_gpu(key) for part in parts for key in part.gpus}
        # What can be had in parts can be had as a whole, too.
        assert {site.slurm_gpu(key) for key in found.gpus} == wanted | ({""} if None in wanted else set())
    for key, gpu in site.gpus.items():
        alike = [each for other, each in known.gpus.items() if known.slurm_gpu(other) == site.slurm_gpu(key)]
        assert gpu.max_count == max((each.max_count for each in alike), default=1)
        assert {each.vendor for each in alike} <= {gpu.vendor}


@pytest.mark.parametrize("name", list(SITES))
def test_it_marks_what_slurm_does_not_know(name: str, made: Callable[[str], str]) -> None:
    marked = decisions(made(name))
    assert {"images", "environments", "prologue", "defaults", "accounts"} <= set(marked)
    extra = {
        "pelle": {"constraints", "fat", "gpu"},
        "alvis": {"constraints", "alvis"},
        "cosmos": {"gpu"},
        "gpus": {"gpu", "shard", "mi250", "max1550"},
    }
    assert set(marked) - {"images", "environments", "prologue", "defaults", "accounts"} == extra.get(name, set())


def test_the_whole_of_one(made: Callable[[str], str]) -> None:
    """What a person reads: comments where they belong."""
    text = made("snowy").replace(host_time_zone() or "UTC", "ZONE")
    assert text.startswith("# The site file of snowy, Slurm 22.05.8: a draft by `snowyspawner init`.\n")
    assert "# Other clusters (snowyspawner init --cluster NAME): rackham\n" in text
    assert (
        "partitions:\n  # 4 nodes; Slurm's default\n  core:\n    max_cores: 16\n    max_memory: 128000\n"
        '    max_time: "10-00:00:00"\n    gpus: [t4]\n' in text
    )
    assert "  # 2 nodes; with the limits of QOS devcore\n  devcore:\n" in text
    assert f"{DECIDE} this is the default of you. Empty: everybody's own.\naccounts:\n  default: g2021027\n" in text
    assert "gpus:\n  # On 2 nodes.\n  t4:\n    max_count: 1\n    request: --gres=gpu:t4:{count}\n" in text


def test_features_that_differ_within_a_partition_can_be_chosen(made: Callable[[str], str]) -> None:
    site = read(made("pelle"))
    assert {key: item.partitions for key, item in site.constraints.items()} == {"2TB": ("fat",), "3TB": ("fat",)}


# -- of clusters that have other things --------------------------------------------------------------------------------


def test_what_has_no_limit_is_for_a_person_to_decide() -> None:
    text = site_text(Survey(rows=[row(time_limit=None)], config=ClusterConfig("one")))
    assert read(text).partitions["main"].max_time == "7-00:00:00"
    assert read(text).memory_per_core == 4000
    assert set(decisions(text)) >= {"main", "memory_per_core", "time_zone"}


@pytest.mark.parametrize(
    ("config", "qos", "expected"),
    [
        ({}, {}, {"max_cores": 16, "max_memory": 64000, "max_time": "1:00:00", "max_jobs": None}),
        ({"max_cores": 8, "max_memory": 1000}, {}, {"max_cores": 8, "max_memory": 1000}),
        ({"qos": "few"}, {"max_jobs": 2, "max_time": 900, "max_cores": 4}, {"max_jobs": 2, "max_time": "0:15:00"}),
        ({"max_time": 7200}, {}, {"max_time": "1:00:00"}),
    ],
)
def test_the_least_of_all_limits_counts(config: Any, qos: Any, expected: dict[str, Any]) -> None:
    partitions = {"main": PartitionConfig("main", **config)}
    text = site_text(Survey(rows=[row()], partitions=partitions, qos={"few": QosLimits(**qos)}))
    found = read(text).partitions["main"]
    assert {key: getattr(found, key) for key in expected} == expected


def test_nodes_of_several_sizes_are_said() -> None:
    text = site_text(
        Survey(rows=[row(cores=16), row("n2", cores=64, memory=256000), row("n3", cores=64, memory=256000)])
    )
    assert "# 3 nodes; 16 cores with 64000 MB, 64 cores with 256000 MB\n" in text
    assert read(text).partitions["main"].max_cores == 64


def test_threads_are_said() -> None:
    text = site_text(Survey(rows=[row()], nodes=[NodeConfig("n1", "n1"), NodeConfig("n2", "n2", threads=2)]))
    assert "# Some nodes have 2 threads on a core, each of them a CPU.\ncores_option: cpus-per-task\n" in text
    assert read(text).node_address == "{node}"


def test_who_may_use_a_partition_is_said() -> None:
    config = PartitionConfig("main", hidden=True, state="DOWN", groups="staff", accounts="a,b")
    text = site_text(Survey(rows=[row()], partitions={"main": config}))
    assert "# 1 node; hidden; its state is DOWN\n" in text
    assert "# For these accounts only: a,b\n  # For these groups only: staff\n" in text


def test_partitions_that_nobody_can_use_are_left_out() -> None:
    partitions = {name: PartitionConfig(name, root_only=name == "admin") for name in ("empty", "admin", "main")}
    text = site_text(Survey(rows=[row(), row(partition="admin"), row(partition="a b")], partitions=partitions))
    assert list(read(text).partitions) == ["main"]
    for name, why in (("empty", "has no nodes"), ("admin", "is for root only"), ("a b", "has a name that sbatch")):
        assert f"# Not in here: partition {name}, which {why}" in text


@pytest.mark.parametrize(
    ("addresses", "expected", "marked"),
    [
        (["n1", "n2"], "{node}", False),
        (["n1.hpc.example", "n2.hpc.example"], "{node}.hpc.example", False),
        (["10.0.0.1", "10.0.0.2"], "{node}", True),
        (["127.0.0.1", "127.0.0.1"], "127.0.0.1", False),
        (["n1", "n2.hpc.example"], "{node}", True),
        (["$(reboot)", "$(reboot)"], "{node}", True),
    ],
)
def test_how_nodes_are_reached(addresses: list[str], expected: str, marked: bool) -> None:
    nodes = [NodeConfig(f"n{number}", address) for number, address in enumerate(addresses, 1)]
    text = site_text(Survey(rows=[row()], nodes=nodes))
    assert read(text).node_address == expected
    assert ("node_address" in decisions(text)) is marked


def test_gpus_without_a_type_and_of_other_vendors() -> None:
    text = site_text(
        Survey(rows=[row(gpus={"": 2}), row("n2", gpus={"mi250": 8}), row("n3", gpus={"T4": 1}, shards=4)])
    )
    gpus = read(text).gpus
    assert {key: gpu.request for key, gpu in gpus.items()} == {
        "gpu": "--gres=gpu:{count}",
        "mi250": "--gres=gpu:mi250:{count}",
        "T4": "--gres=gpu:T4:{count}",
        "shard": "--gres=shard:{count}",
    }
    assert (gpus["mi250"].vendor, gpus["T4"].vendor, gpus["shard"].max_count) == ("amd", "nvidia", 4)
    assert {"gpu", "mi250", "shard"} <= set(decisions(text))
    assert "T4" not in decisions(text)


def test_a_cluster_without_accounting_is_not_asked_for_accounts() -> None:
    text = site_text(Survey(rows=[row()], config=ClusterConfig("one", accounting=False)))
    assert read(text).accounts.discover is False


# -- hostile -----------------------------------------------------------------------------------------------------------

NASTY = ["no", "null", "1e3", "0x10", "1:30", "2026-01-01", "1.5", "_", "+1", "a@b", "a:b", "-x", "~", "a: b", "[", "#"]
NASTY += ["{{x}}", "a\nb: c", "<script>", "'", '"', "*a", "&a", "!!python/object", "%", "\u2028", "\x1b[31m", TOO_LONG]


@pytest.mark.parametrize("nasty", NASTY, ids=[str(number) for number in range(len(NASTY))])
def test_whatever_slurm_s_texts_hold_it_is_a_site(nasty: str) -> None:
    config = PartitionConfig(nasty, qos=nasty, state=nasty, groups=nasty, accounts=nasty)
    main_config = PartitionConfig("main", qos=nasty, state=nasty, groups=nasty, accounts=nasty)
    text = site_text(
        Survey(
            cluster="",
            user=nasty,
            config=ClusterConfig(nasty, nasty),
            rows=[row(), row(partition=nasty, gpus={nasty: 2}), row("n2", partition=nasty)],
            partitions={"main": main_config, nasty: config},
            nodes=[NodeConfig("n1", nasty, ("main", nasty), (nasty,)), NodeConfig("n2", nasty, ("main", nasty))],
            accounts=[nasty],
            clusters=[nasty],
            failures=[nasty],
        )
    )
    site = read(text)
    assert site.slurm_partition(list(site.partitions)[-1]) in (nasty, "main")
    assert all(char.isprintable() or char == "\n" for char in text)
    assert max(map(len, text.splitlines())) < 2500
    # Nothing but comments and what this module writes itself begins a line.
    assert not re.search(r"^b: c", text, re.MULTILINE)


def test_names_that_become_one_key_stay_apart() -> None:
    """What can be a key is one: people write ``-p a-b``."""
    rows = [row(partition=name, gpus={kind: 1}) for name, kind in (("a@b", "x"), ("a:b", "X"), ("a-b", "gpu"))]
    site = read(site_text(Survey(rows=[*rows, row("n9", "a-b", gpus={"": 1})])))
    assert {key: site.slurm_partition(key) for key in site.partitions} == {"a-b-2": "a@b", "a-b-3": "a:b", "a-b": "a-b"}
    assert {key: site.slurm_gpu(key) for key in site.gpus} == {"x": "x", "X": "X", "gpu": "gpu", "gpu-any": ""}


# -- commands that fail ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("without", "named"),
    [
        ("show config", ["scontrol show config"]),
        ("show partition", ["scontrol show partition"]),
        ("show node", ["scontrol show node"]),
        ("sacctmgr", ["sacctmgr show cluster", "sacctmgr show qos", "sacctmgr show user"]),
    ],
)
def test_what_a_command_would_have_said_is_missing_and_that_is_said(without: str, named: list[str]) -> None:
    seen = survey("puhti", "", without)
    failed = [line.partition(":")[0] for line in seen.failures]
    assert set(named) <= set(failed)
    text = site_text(seen)
    assert set(read(text).partitions) == set(sites.load(SITES["puhti"]).partitions)
    for name in named:
        assert f"{DECIDE} this failed, and what it would have said is missing: {name}: " in text


def test_without_sinfo_nothing_is_known() -> None:
    with pytest.raises(SiteError, match="shows no partition"):
        site_text(survey("puhti", "", "sinfo"))


def test_a_command_that_hangs_is_given_up(
    executable: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("sinfo", "scontrol"):
        path = executable(name, "#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")
    monkeypatch.setattr(site_file, "_PATIENCE", 0.05)
    assert main(["init", "-o", str(tmp_path / "site.yaml")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "sinfo: sinfo gave no answer in 0.05 seconds\n" in err
    assert "there is nothing to write" in err
    assert not (tmp_path / "site.yaml").exists()


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command ask what was recorded of Pelle."""
    monkeypatch.setattr(site_file, "SlurmClient", lambda cluster, timeout: Recorded("pelle", cluster))


def test_init_writes_a_new_file_only(recorded: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "site.yaml"
    assert main(["init", "-o", str(file)]) == 0
    text = file.read_text()
    assert capsys.readouterr().out == f"{file}: written; {text.count(DECIDE)} lines are marked {DECIDE}\n"
    assert main(["check", "--site", str(file)]) == 0
    file.write_text("mine")
    (tmp_path / "link.yaml").symlink_to(tmp_path / "elsewhere")
    capsys.readouterr()
    for name in ("site.yaml", "link.yaml"):
        assert main(["init", "--output", str(tmp_path / name)]) == 1
        assert capsys.readouterr().err.endswith(f"{tmp_path / name}: cannot be written: File exists\n")
    assert file.read_text() == "mine"
    assert not (tmp_path / "elsewhere").exists()


def test_init_prints_and_says_what_failed(recorded: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever runs the tests is not the one of whom sacctmgr's answer was recorded."""
    assert main(["init"]) == 0
    out, err = capsys.readouterr()
    assert read(out).display_name == "Pelle"
    assert err == "sacctmgr show user: sacctmgr: nothing recorded\n"


@pytest.mark.parametrize("name", ["-x", "a b", "a;b", "x" * 65, "../x"])
def test_a_cluster_has_a_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", f"--cluster={name}"]) == 1
    assert capsys.readouterr().err.startswith(f"--cluster: {name!r}: must be a cluster's name")


@pytest.mark.parametrize(
    ("variable", "link", "expected"),
    [
        ("", "/usr/share/zoneinfo/Europe/Stockholm", "Europe/Stockholm"),
        ("Europe/Helsinki", "/usr/share/zoneinfo/Europe/Stockholm", "Europe/Helsinki"),
        (":Europe/Helsinki", "/etc/localtime", "Europe/Helsinki"),
        ("CET-1CEST", "/usr/share/zoneinfo/Europe/Stockholm", "Europe/Stockholm"),
        ("", "/etc/localtime", ""),
        ("../../etc/passwd", "/usr/share/zoneinfo/nosuch", ""),
    ],
)
def test_the_host_s_time_zone(variable: str, link: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", variable)
    monkeypatch.setattr("os.path.realpath", lambda path: link)
    assert host_time_zone() == expected
