"""The demo's pure parts: what it writes, whom it takes for its own, what it refuses."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from demo import (
    DemoError,
    __main__,
    accounts,
    daemons,
    debian,
    devices,
    directories,
    image,
    packages,
    privileges,
    slurm,
)
from demo import state as state_module
from demo.__main__ import main
from demo.cluster import Cluster
from demo.state import State, write
from snowyspawner.site import load


def plan(site="snowy", cpu=2, gpu=2, version=(22, 5)):
    found = load(site)
    cluster, login = slurm.cluster_names(found)
    files = [f"/dev/nvidia{number}" for number in range(slurm.gpu_count(found, gpu))]
    return slurm.Plan(
        site=found,
        directory=Path("/var/tmp/demo"),
        dbd_port=20000,
        cluster=cluster,
        cluster_port=20002,
        login=login,
        login_port=20001 if login != cluster else 20002,
        nodes=slurm.plan_nodes(found, cpu, gpu, 20010, files),
        login_nodes=() if login == cluster else (slurm.Node("r1", 20003),),
        version=version,
    )


def lines(text, start):
    """Return the lines that begin with *start*, each as a dict of its words."""
    return [
        dict(word.partition("=")[::2] for word in line.split()) for line in text.splitlines() if line.startswith(start)
    ]


def test_snowy_is_a_cluster_beside_its_login_cluster():
    made = plan()
    assert made.clusters == ("rackham", "snowy")
    text = slurm.slurm_conf(made, "snowy")
    assert lines(text, "ClusterName") == [{"ClusterName": "snowy"}]
    assert lines(text, "SlurmctldPort") == [{"SlurmctldPort": "20002"}]
    assert lines(text, "FirstJobId") == [{"FirstJobId": "2000001"}]
    partitions = {line["PartitionName"]: line for line in lines(text, "PartitionName")}
    assert partitions["core"]["Default"] == "YES"
    assert partitions["core"]["MaxTime"] == "10-00:00:00"
    assert partitions["core"]["Nodes"] == "s1,s2,s3,s4"
    assert partitions["node"]["OverSubscribe"] == "EXCLUSIVE"
    assert partitions["devcore"] == {
        "PartitionName": "devcore",
        "Nodes": "s1,s2",  # no node with a T4: Slurm itself refuses one
        "State": "UP",
        "MaxTime": "1:00:00",
        "QOS": "devcore",
    }
    assert slurm.partition_qos(made.site) == {"devcore": 1, "devel": 1}


def test_the_login_cluster_has_a_node_of_its_own():
    text = slurm.slurm_conf(plan(), "rackham")
    assert [line["NodeName"] for line in lines(text, "NodeName")] == ["r1"]
    assert lines(text, "SlurmctldPort") == [{"SlurmctldPort": "20001"}]


def test_nodes_have_the_sites_cores_memory_and_gpus():
    made = plan()
    nodes = lines(slurm.slurm_conf(made, "snowy"), "NodeName")
    assert {(n["CPUs"], n["RealMemory"], n["NodeAddr"]) for n in nodes} == {("16", "128000", "127.0.0.1")}
    assert [n.get("Gres") for n in nodes] == [None, None, "gpu:t4:1", "gpu:t4:1"]
    assert [n["Port"] for n in nodes] == ["20010", "20011", "20012", "20013"]
    assert "DefMemPerCPU=8000" in slurm.slurm_conf(made, "snowy")
    assert lines(slurm.gres_conf(made.nodes), "NodeName") == [
        {"NodeName": "s3", "Name": "gpu", "Type": "t4", "File": "/dev/nvidia0"},
        {"NodeName": "s4", "Name": "gpu", "Type": "t4", "File": "/dev/nvidia1"},
    ]


def test_nothing_listens_to_the_network():
    for cluster in ("snowy", "rackham"):
        assert "CommunicationParameters=NoInAddrAny,NoCtldInAddrAny" in slurm.slurm_conf(plan(), cluster)
    assert "CommunicationParameters=NoInAddrAny" in slurm.slurmdbd_conf(plan())


OTHER = {
    "extends": "snowy",
    "display_name": "Other Cluster",
    "cluster": "",
    "gpus": {
        "t4": None,
        "l40s": {"max_count": 2, "request": "--gpus=l40s:{count}"},
        "any": {"request": "--gpus-per-node={count}"},
    },
    "partitions": {"core": {"gpus": ["l40s"]}, "node": {"gpus": ["any"]}},
    "defaults": {"gpu": "l40s:1"},
}


def test_a_site_without_a_cluster_name_is_one_cluster():
    made = plan(OTHER)
    assert made.clusters == ("othercluster",)
    assert list(slurm.files(made)) == [
        made.directory / "conf/othercluster" / name for name in ("slurm.conf", "gres.conf", "slurmdbd.conf")
    ]


def test_gpu_types_take_turns_and_stay_in_their_partitions():
    made = plan(OTHER)
    text = slurm.slurm_conf(made, made.cluster)
    assert [n.get("Gres") for n in lines(text, "NodeName")] == [None, None, "gpu:l40s:2", "gpu:1"]
    nodes = {line["PartitionName"]: line["Nodes"] for line in lines(text, "PartitionName")}
    assert nodes == {"core": "o1,o2,o3", "node": "o1,o2,o4", "devcore": "o1,o2", "devel": "o1,o2"}
    assert [n.get("Type") for n in lines(slurm.gres_conf(made.nodes), "NodeName")] == ["l40s", "l40s", None]


def test_only_root_reads_slurmdbd_conf():
    modes = {path.name: mode for path, (_, mode) in slurm.files(plan()).items()}
    assert modes == {"slurm.conf": 0o644, "gres.conf": 0o644, "slurmdbd.conf": 0o600}


@pytest.mark.parametrize(("version", "text"), [((22, 5), ""), ((23, 11), "CgroupPlugin=disabled\n")])
def test_cgroups_are_switched_off_where_slurm_looks_for_them(version, text):
    assert slurm.cgroup_conf(version) == text


# Daemons


@pytest.fixture
def proc(tmp_path):
    """A /proc in which processes can be put, and the daemons of a state that looks there."""
    (tmp_path / "run").mkdir()
    (tmp_path / "proc").mkdir()

    class Proc:
        known = daemons.Daemons(tmp_path, tmp_path / "proc")

        def process(self, pid, mark=None, program="slurmd"):
            folder = tmp_path / "proc" / str(pid)
            folder.mkdir()
            environ = f"PATH=/bin\0{daemons.MARK}={mark}\0" if mark else "PATH=/bin\0"
            (folder / "environ").write_bytes(environ.encode())
            (folder / "cmdline").write_bytes(f"/usr/sbin/{program}\0-D\0".encode())

        def pid_file(self, name, text):
            (tmp_path / "run" / f"{name}.pid").write_text(text)

    return Proc()


def test_a_pid_file_is_believed_only_with_the_mark(proc, tmp_path):
    proc.pid_file("slurmd-s1", "41 abc\n")
    assert proc.known.pid("slurmd-s1") is None  # gone
    proc.process(41)
    assert proc.known.pid("slurmd-s1") is None  # somebody else has the number now
    proc.process(42, f"{tmp_path}:slurmd-s2")
    proc.pid_file("slurmd-s1", "42 abc\n")
    assert proc.known.pid("slurmd-s1") is None  # another daemon of ours
    proc.process(43, f"{tmp_path}:slurmd-s1")
    proc.pid_file("slurmd-s1", "43 abc\n")
    assert proc.known.pid("slurmd-s1") == 43


@pytest.mark.parametrize("text", ["", "abc\n", "-1 abc", "\xff"])
def test_a_broken_pid_file_is_no_daemon(proc, text):
    proc.pid_file("slurmd-s1", text)
    assert proc.known.pid("slurmd-s1") is None


def test_another_configuration_is_not_the_same_daemon(proc, tmp_path):
    daemon = daemons.Daemon("slurmd-s1", ["/usr/sbin/slurmd"], configuration="one")
    changed = daemons.Daemon("slurmd-s1", ["/usr/sbin/slurmd"], configuration="two")
    proc.process(43, f"{tmp_path}:slurmd-s1")
    proc.pid_file("slurmd-s1", f"43 {daemon.digest}\n")
    assert proc.known.pid("slurmd-s1", daemon.digest) == 43
    assert proc.known.pid("slurmd-s1", changed.digest) is None


def test_a_daemon_without_a_pid_file_is_found_by_its_mark(proc, tmp_path):
    proc.process(44, f"{tmp_path}:munged", "munged")
    proc.process(45, f"{tmp_path}-other:munged", "munged")
    assert proc.known.marked() == {44: "munged"}
    assert daemons.program_of(44, tmp_path / "proc") == "munged"


def test_a_real_process_is_started_once_and_stopped(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "log").mkdir()
    known = daemons.Daemons(tmp_path)
    daemon = daemons.Daemon("cat", ["/usr/bin/tail", "-f", "/dev/null"], prefix=["/usr/bin/env"])
    assert known.start(daemon)
    try:
        assert not known.start(daemon)
        pid = known.pid("cat")
        assert pid
        assert os.getsid(pid) == pid  # Ctrl-C in our terminal does not reach it
    finally:
        daemons.stop(known.marked())
    assert known.pid("cat") is None
    assert known.marked() == {}


def test_a_dead_daemon_is_reported_with_its_log(tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "munged.out").write_text("munged: Error: no key\n")
    with pytest.raises(DemoError, match=r"munged has stopped[\s\S]*no key"):
        daemons.Daemons(tmp_path).check("munged")


# Accounts


def test_names_are_the_prefix_and_a_number():
    assert accounts.choose_names("student", 3, True, lambda name: False, "abcdef") == (
        "student1",
        "student2",
        "student3",
    )


def test_taken_names_lead_to_another_prefix_unless_it_was_chosen():
    def taken(name):
        return name == "student2"

    assert accounts.choose_names("student", 2, True, taken, "abcdef") == ("studentabc-1", "studentabc-2")
    with pytest.raises(DemoError, match=r"student2 exists and was not made by this demo.*--user-prefix"):
        accounts.choose_names("student", 2, False, taken, "abcdef")


@pytest.mark.parametrize("prefix", ["", "Root", "-x", "a b", "a:b", "a" * 17, "1a"])
def test_a_prefix_is_a_plain_word(prefix):
    with pytest.raises(DemoError, match="--user-prefix"):
        accounts.choose_names(prefix, 1, True, lambda name: False, "abcdef")


def test_an_account_is_ours_by_its_home(tmp_path):
    assert not accounts.is_ours(State(tmp_path), "root")
    assert not accounts.is_ours(State(tmp_path), "nobody-of-this-name")


# Devices


def test_gpus_are_real_ones_our_own_or_free_names(tmp_path, monkeypatch):
    kinds = {"nvidia0": "real", "nvidia1": "stand-in", "nvidia2": "stand-in"}
    monkeypatch.setattr(devices, "kind", lambda path: kinds.get(path.name, "none"))
    mine = [str(tmp_path / "nvidia2")]
    found = [Path(path).name for path in devices.choose(3, mine, tmp_path)]
    assert found == ["nvidia0", "nvidia2", "nvidia3"]  # nvidia1 is another demo's


def test_only_stand_ins_are_removed(tmp_path):
    real = tmp_path / "nvidia0"
    real.touch()
    state = State(tmp_path, devices=[str(real), str(tmp_path / "nvidia1")])
    assert devices.remove(state) == []
    assert real.exists()


# State and directories


def test_a_state_is_remembered_and_secrets_are_roots(tmp_path):
    state = State(tmp_path, nodes=5, accounts=["student1"])
    state.save()
    password = state.remember_password("student1")
    assert State.load(tmp_path) == state
    assert state.passwords == {"student1": password}
    assert (tmp_path / "passwords.json").stat().st_mode & 0o777 == 0o600
    assert password not in (tmp_path / "state.json").read_text()


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """A cache of the test's own, where states remember each other."""
    for module in (directories, state_module):
        monkeypatch.setattr(module, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(state_module, "is_free", lambda port: True)


def test_two_states_never_choose_the_same_ports(tmp_path, own_cache, monkeypatch):
    """Also when nothing listens yet, and when both would begin to look at the same block."""
    monkeypatch.setattr(state_module.hashlib, "sha256", lambda data: hashlib.md5(b"the same"))  # noqa: S324
    states = [State(tmp_path / name) for name in ("a", "b", "c")]
    for state in states:
        state.path.mkdir()
        state.choose_ports()
    bases = [state.port_base for state in states]
    assert len({*bases}) == 3
    # What is kept goes first; what is gone is free again.
    states[1].choose_ports()
    assert states[1].port_base == bases[1]
    shutil.rmtree(states[0].path)
    later = State(tmp_path / "d")
    later.path.mkdir()
    later.choose_ports()
    assert later.port_base == bases[0]


def test_a_state_that_cannot_be_read_keeps_no_other_from_choosing(tmp_path, own_cache):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        State(tmp_path / name).choose_ports()
        (tmp_path / name / "state.json").write_text("{")
    State(tmp_path / "a").choose_ports()


def test_ports_for_others_are_free_ones(monkeypatch):
    monkeypatch.setattr(state_module, "is_free", lambda port: port % 2 == 0)
    assert state_module.free_ports(range(20, 30), 3) == [20, 22, 24]
    with pytest.raises(DemoError, match="fewer than 6 free ports between 20 and 29"):
        state_module.free_ports(range(20, 30), 6)


def test_a_damaged_state_is_named(tmp_path):
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(DemoError, match=r"state\.json cannot be read"):
        State.load(tmp_path)


def test_files_have_their_mode_whatever_the_umask(tmp_path):
    before = os.umask(0o077)
    try:
        write(tmp_path / "open", "x")
        write(tmp_path / "closed", "x", 0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "open").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "closed").stat().st_mode & 0o777 == 0o600


def test_a_directory_that_somebody_else_prepared_is_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    for name in ("link", "open"):
        with pytest.raises(DemoError, match="was not made by this demo"):
            directories.own_directory(tmp_path / name)
    assert directories.own_directory(tmp_path / "new").is_dir()


def test_a_state_below_a_closed_directory_is_refused(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o700)
    with pytest.raises(DemoError, match="choose another --state"):
        directories.check_reachable(tmp_path / "closed" / "state")


@pytest.mark.parametrize("path", ["/var/tmp/" + "x" * 80, "/var/tmp/a b", "relative"])
def test_a_state_path_must_fit_a_socket_and_slurm_conf(path):
    with pytest.raises(DemoError, match="--state"):
        State(Path(path)).prepare()


def test_a_build_that_fails_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(directories, "CACHE", tmp_path / "cache")

    def broken(work, final):
        (work / "result").mkdir()
        raise DemoError("no")

    def works(work, final):
        (work / "result").mkdir()

    with pytest.raises(DemoError, match="no"):
        directories.cached("thing", broken)
    assert not (tmp_path / "cache" / "thing").exists()
    assert directories.cached("thing", works).is_dir()
    assert directories.cached("thing", broken).is_dir()  # not built again


# Packages, mirror, image


def test_services_are_held_back_and_an_existing_policy_comes_back(tmp_path):
    policy = tmp_path / "policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 0\n")
    with pytest.raises(KeyboardInterrupt), packages.no_services(policy):  # noqa: PT012
        assert "exit 101" in policy.read_text()
        raise KeyboardInterrupt
    assert policy.read_text() == "#!/bin/sh\nexit 0\n"
    assert [path.name for path in tmp_path.iterdir()] == ["policy-rc.d"]


def test_what_a_killed_run_left_of_the_policy_is_put_right(tmp_path):
    policy = tmp_path / "policy-rc.d"
    policy.write_text(f"#!/bin/sh\n{packages.OURS}exit 101\n")
    (tmp_path / "policy-rc.d.snowyspawner-kept").write_text("theirs")
    with packages.no_services(policy):
        pass
    assert policy.read_text() == "theirs"


def test_only_what_is_missing_is_installed():
    wanted = {"coreutils": "ls", "nothing": "no-such-program", "c": "lib:libc.so.6", "file": "/no/such/file"}
    assert packages.missing(wanted) == ["nothing", "file"]


def test_the_mirror_is_the_main_archives():
    rows = [
        "https://third.example/debian/|bookworm|main|Third",
        "http://mirror.example/debian-security/|bookworm-security|main|Debian",
        "http://mirror.example/debian/|bookworm|contrib|Debian",
        "http://mirror.example/debian/|bookworm|main|Debian",
    ]
    assert debian.choose_mirror(rows, "bookworm") == "http://mirror.example/debian/"
    with pytest.raises(DemoError, match="no source for trixie"):
        debian.choose_mirror(rows, "trixie")


def test_a_copied_environment_says_its_own_name(tmp_path):
    first, second = tmp_path / "one", tmp_path / "two"
    (first / "bin").mkdir(parents=True)
    (first / "pyvenv.cfg").write_text("command = python3 -m venv /opt/conda/envs/one\n")
    (first / "bin" / "jupyter").write_text("#!/opt/conda/envs/one/bin/python\n")
    (first / "bin" / "jupyter").chmod(0o755)
    (second / "bin").mkdir(parents=True)
    for name in ("pyvenv.cfg", "bin/jupyter"):
        os.link(first / name, second / name)
    image.rename_prefix(second, "/opt/conda/envs/one", "/opt/conda/envs/two")
    assert (second / "bin" / "jupyter").read_text() == "#!/opt/conda/envs/two/bin/python\n"
    assert (second / "bin" / "jupyter").stat().st_mode & 0o777 == 0o755
    assert (first / "bin" / "jupyter").read_text() == "#!/opt/conda/envs/one/bin/python\n"


def test_another_recipe_is_another_image(monkeypatch):
    before = image.path(load("snowy"))
    assert [str(prefix) for prefix in image.prefixes(load("snowy"))] == [
        "/opt/conda/envs/tf-gpu",
        "/opt/conda/envs/tf-mkl",
        "/opt/conda/envs/tf-pip",
    ]
    monkeypatch.setattr(image, "PYTHON", ("jupyterhub",))
    assert image.path(load("snowy")) != before


# The command line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nodes": 0}, "--nodes"),
        ({"gpu_nodes": -1}, "--gpu-nodes"),
        ({"users": 0}, "--users"),
        ({"nodes": 79, "gpu_nodes": 2}, "at most 80 nodes"),
    ],
)
def test_impossible_sizes_are_refused(tmp_path, options, message):
    with pytest.raises(DemoError, match=message):
        Cluster(tmp_path, **options)


def test_an_unknown_site_is_named(tmp_path):
    with pytest.raises(DemoError, match=r"--site: nowhere: no such site"):
        _ = Cluster(tmp_path, site="nowhere").site


def test_sizes_are_remembered(tmp_path):
    Cluster(tmp_path, nodes=7)._state.save()
    assert Cluster(tmp_path)._state.nodes == 7
    assert Cluster(tmp_path, nodes=3)._state.nodes == 3


def test_status_of_nothing(tmp_path, capsys):
    assert __main__.main(["status", "--state", str(tmp_path / "none")]) == 0
    assert "nothing is up" in capsys.readouterr().out


def test_env_is_the_login_clusters(tmp_path, capsys):
    assert __main__.main(["env", "--state", str(tmp_path)]) == 0
    assert f"export SLURM_CONF={tmp_path}/conf/rackham/slurm.conf\n" in capsys.readouterr().out


def test_without_root_or_sudo_nothing_is_changed(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(privileges.shutil, "which", lambda *_, **__: None)
    assert __main__.main(["up", "--state", str(tmp_path / "state")]) == 1
    said = capsys.readouterr().err
    assert "needs root" in said
    assert "mariadb-server" in said
    assert not (tmp_path / "state").exists()


def test_sudo_keeps_what_pip_and_npm_need(tmp_path):
    (tmp_path / ".npmrc").touch()
    environment = {"HOME": str(tmp_path), "PIP_INDEX_URL": "x", "https_proxy": "y", "AWS_SECRET_ACCESS_KEY": "z"}
    assert privileges.kept(environment) == {
        "PIP_INDEX_URL": "x",
        "https_proxy": "y",
        "NPM_CONFIG_USERCONFIG": f"{tmp_path}/.npmrc",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [([], "which command?"), (["--"], "which command?"), (["--", "/no/such/program"], "No such file or directory")],
)
def test_as_root_says_what_is_wrong_with_its_command(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(privileges, "become_root", lambda words: None)
    monkeypatch.setattr("demo.__main__.signal.signal", lambda *_: None)
    assert main(["as-root", *words]) == 1
    assert said in capsys.readouterr().err
