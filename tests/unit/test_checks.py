"""`snowyspawner check -f`: each deliberate mistake is named, with its remedy, from facts that were gathered.

tests/cluster/test_check.py has the same on real Slurm, real sudo and real Apptainer.
"""

from __future__ import annotations

import asyncio
import json
import pwd
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from snowyspawner import cli
from snowyspawner._share import share_dir
from snowyspawner.admin import checks, host_checks, hub_checks, report, slurm_checks, sudo_checks, trial_job
from snowyspawner.admin.report import Check, State
from snowyspawner.admin.sudo_checks import SudoRule
from snowyspawner.choice import request
from snowyspawner.session import as_person
from snowyspawner.site import Site, load
from snowyspawner.slurm.client import SCRIPT_LIMIT
from snowyspawner.slurm.configuration import Association, ClusterConfig, NodeConfig, PartitionConfig, QosLimits
from snowyspawner.slurm.nodes import PartitionFacts
from snowyspawner.web.check_result import read_result

SITE = load("snowy")
RICH = load(
    {
        "extends": "snowy",
        "partitions": {"core": {"constraint": "fat", "max_memory": 128000}},
        "constraints": {"hbm80g": {}},
        "qos": {"short": {}},
    }
)
MOVED = load({"extends": "snowy", "courses": {"course": "/x/{account}.yaml"}})
LOCAL = load({"extends": "snowy", "cluster": "", "accounts": {"discover": False}})
TEMPLATES = str(share_dir() / "templates")

HUB = hub_checks.HubFacts(
    settings={"cleanup_servers": False, "concurrent_spawn_limit": 0},
    templates={"home.html": TEMPLATES, "spawn.html": TEMPLATES},
    versions={"jupyterhub": "6.1.1", "batchspawner": "1.3.0", "snowyspawner": "0.1.0"},
    url="http://login3.example:8081/hub/api",
    addresses=("10.0.0.3",),
    answer="6.1.1",
    database="/srv/jupyterhub/jupyterhub.sqlite",
    secret_file="/srv/jupyterhub/cookie_secret",
    secret_mode=0o600,
)
NODE = {"node_cores": 16, "node_memory": 128000, "usable_nodes": 4, "nodes": 4}
DAY = 86400
SLURM = slurm_checks.SlurmFacts(
    config=ClusterConfig("snowy", "22.05.8", now=1795858664),
    asked=(1795858664.2, 1795858679.0),
    nodes={
        "core": PartitionFacts(**NODE, total_gpus={"t4": 2}, time_limit=10 * DAY),
        "node": PartitionFacts(**NODE, total_gpus={"t4": 2}, time_limit=30 * DAY),
        "devcore": PartitionFacts(**NODE, time_limit=3600),
        "devel": PartitionFacts(**NODE, time_limit=None),
    },
    partitions={"core": PartitionConfig("core")},
    features=slurm_checks.features_of(NodeConfig(name, name, ("core", "node"), (name,)) for name in ("fat", "hbm80g")),
    qos={"normal": QosLimits(), "short": QosLimits(None, 1800, 4)},
    associations=(Association("g2021027"),),
    user="alice",
)
PATHS = {name: f"/usr/bin/{name}" for name in (*sudo_checks.NEEDED, *sudo_checks.FOR_PRIVATE)}
RULES = (
    SudoRule(("%hpcusers",), tuple(PATHS.values())),
    SudoRule(("%hpcusers",), (SITE.helper,), ("!setenv", "!authenticate")),
)
SUDO = sudo_checks.SudoFacts("jupyterhub", rules=RULES, paths=PATHS, person="alice")
ALONE = replace(SUDO, person="")
HELPER = sudo_checks.HelperFacts(SITE.helper, as_person.helper_text(SITE))
ALICE = pwd.struct_passwd(("alice", "x", 1000, 1000, "", "/home/alice", "/bin/bash"))


def with_core(**changes: Any) -> slurm_checks.SlurmFacts:
    assert SLURM.nodes is not None
    return replace(SLURM, nodes={**SLURM.nodes, "core": replace(SLURM.nodes["core"], **changes)})


def hub(**changes: Any) -> list[Check]:
    return hub_checks.judge(replace(HUB, **changes), SITE)


def slurm(facts: slurm_checks.SlurmFacts = SLURM, site: Site = SITE, **changes: Any) -> list[Check]:
    return slurm_checks.judge(site, replace(facts, **changes))


def sudo(facts: sudo_checks.SudoFacts = SUDO, **changes: Any) -> Iterable[Check]:
    return sudo_checks.sudo(SITE, replace(facts, **changes))


def helper(site: Site = SITE, **changes: Any) -> Iterable[Check]:
    return sudo_checks.helper(site, replace(HELPER, **changes), "hub.py")


def says(command: str, text: str) -> list[Check]:
    """What is said when a command of Slurm's fails with *text*, and so nothing is known."""
    return slurm_checks.judge(SITE, slurm_checks.SlurmFacts(errors={command: text}))


def steps(*told: dict[str, Any], site: Site = SITE) -> Iterable[Check]:
    trial = SimpleNamespace(site=site, hub_url=HUB.url, hub_version="6.1.1")
    return trial_job.judge(trial, told, "s3")  # type: ignore[arg-type]


def of(step: str, code: int = 0, **more: Any) -> dict[str, Any]:
    return {"step": step, "code": code, "seconds": 0.5, **more}


def closed() -> slurm_checks.SlurmFacts:
    """Facts in which a partition has a QOS, and is for one project only."""
    return replace(SLURM, partitions={"core": PartitionConfig("core", qos="short", accounts="abc")})


#: What is wrong, which check says so, how bad it is, a part of what it says, a part of the remedy.
MISTAKES: list[tuple[str, Callable[[], Iterable[Check]], str, State, str, str]] = [
    # the hub's configuration
    ("another spawner", lambda: hub(ours=False, spawner="Simple"), "spawner", "fail", "Simple", '= "snowy"'),
    ("req_", lambda: hub(without_effect=("SnowySpawner.req_gres",)), "spawner", "fail", "req_gres has no", "site file"),
    ("internal_ssl", lambda: hub(internal_ssl=True), "spawner", "fail", "not supported", "Remove c.JupyterHub.int"),
    (
        "no set_config",
        lambda: hub(settings={"cleanup_servers": True}),
        "set_config",
        "fail",
        "end with",
        r"set_config\(c",
    ),
    (
        "spawn limit",
        lambda: hub(settings={"concurrent_spawn_limit": 100}),
        "set_config",
        "warn",
        "is 100",
        "Set it to 0",
    ),
    ("no pages", lambda: hub(templates={"home.html": ""}), "templates", "fail", "home.html", "set_config"),
    ("other pages", lambda: hub(templates={"home.html": "/x"}), "templates", "warn", "home.html is taken", "extends"),
    ("an old hub runs", lambda: hub(answer="6.0.0"), "versions", "warn", "hub that runs is 6.0.0", "Restart the hub"),
    # the network
    (
        "loopback",
        lambda: hub(url="http://127.0.0.1:8081/hub/api", addresses=("127.0.0.1",)),
        *("hub's address", "fail", "the node itself", "hub_connect_ip"),
    ),
    ("etc hosts", lambda: hub(addresses=("127.0.1.1",)), "hub's address", "warn", "127.0.1.1 here", "/etc/hosts"),
    ("no such host", lambda: hub(addresses=()), "hub's address", "fail", "stands for no address", "hub_connect_ip"),
    ("listens here", lambda: hub(listens="127.0.0.1"), "hub's address", "fail", "listens on 127", r'hub_ip = "0\.0'),
    (
        "no hub",
        lambda: hub(answer="", no_answer="refused"),
        "hub's address",
        "warn",
        "no hub runs there",
        "systemctl start",
    ),
    ("firewall", lambda: hub(answer="", no_answer="timeout"), "hub's address", "fail", "nobody answers", "port 8081"),
    (
        "another program",
        lambda: hub(answer="", no_answer="what answers there is no JupyterHub"),
        *("hub's address", "fail", "no JupyterHub", "sport = :8081"),
    ),
    # PAM, sign-in
    (
        "PAM",
        lambda: hub(euid=900, account="jh", reads_shadow=False),
        "sign-in",
        "fail",
        "jh cannot check",
        "OAuth, LDAP",
    ),
    (
        "PAM by sssd",
        lambda: hub(euid=900, account="jh", reads_shadow=False, pam_others=True),
        *("sign-in", "warn", "/etc/shadow", "Try it"),
    ),
    ("no service", lambda: hub(pam_service="x", pam_file=False), "sign-in", "fail", "'x' has no file", "service ="),
    ("nobody", lambda: hub(anybody=False), "sign-in", "fail", "lets nobody in", "allow_all = True"),
    ("broken", lambda: hub(broken="TraitError: no"), "sign-in", "fail", "TraitError: no", "Mend the settings"),
    # where the hub writes
    (
        "database",
        lambda: hub(database_writable=False),
        "database",
        "fail",
        "cannot write",
        "chown -f root /srv/jupyterhub",
    ),
    ("open secret", lambda: hub(secret_mode=0o644), "cookie secret", "fail", "mode 0644", "rm /srv"),
    ("group's secret", lambda: hub(secret_mode=0o640), "cookie secret", "warn", "0640", "chmod 600"),
    (
        "secret's directory",
        lambda: hub(secret_mode=None, secret_writable=False),
        "cookie secret",
        "fail",
        "make",
        "cookie_",
    ),
    ("other's secret", lambda: hub(secret_readable=False), "cookie secret", "fail", "cannot read", "chown root /srv"),
    # Slurm
    ("no sinfo", lambda: slurm(missing=("sinfo",)), "Slurm's commands", "fail", "PATH: sinfo", "directory of Slurm's"),
    (
        "wrong -M",
        lambda: says("sinfo", "sinfo: error: 'x' can't be reached now, or it is an invalid entry for --cluster."),
        *("Slurm's commands", "fail", "sinfo: 'x' can't", "sacctmgr show cluster"),
    ),
    (
        "no slurm.conf",
        lambda: says("sinfo", "fatal: configuration file"),
        "Slurm's commands",
        "fail",
        "conf",
        "SLURM_CONF",
    ),
    (
        "munge",
        lambda: says("squeue", "Munge encode failed"),
        "Slurm's commands",
        "fail",
        "Munge",
        r"munge -n \| unmunge",
    ),
    (
        "no slurmdbd",
        lambda: says("sacctmgr", "slurmdbd: refused"),
        "Slurm's commands",
        "fail",
        "refused",
        "discover: false",
    ),
    (
        "no accounting",
        lambda: slurm(site=LOCAL, errors={"sacct": "Slurm accounting storage is disabled"}),
        *("Slurm's commands", "warn", "sacct: Slurm accounting", "how a job ended"),
    ),
    ("away", lambda: says("sinfo", "Unable to contact slurm controller"), "Slurm's commands", "fail", "Unable", "ping"),
    ("an old Slurm", lambda: slurm(config=ClusterConfig("", "19.05.2")), "Slurm's version", "warn", "19.05", "--job"),
    ("a new Slurm", lambda: slurm(config=ClusterConfig("", "26.05.0")), "Slurm's version", "warn", "26.05", "--job"),
    ("clock", lambda: slurm(asked=(1795859165.0, 1795859166.0)), "clock", "fail", "500 s", "chronyc"),
    ("clock a little", lambda: slurm(asked=(1795858701.0, 1795858701.1)), "clock", "warn", "36 s", "chronyc"),
    ("no partition", lambda: slurm(nodes={}), "partitions", "fail", "no partition 'core'", "partitions.core"),
    ("time", lambda: slurm(with_core(time_limit=DAY)), "partitions", "fail", "MaxTime is 1-00", '"1-00:00:00"'),
    ("cores", lambda: slurm(with_core(node_cores=8)), "partitions", "fail", "largest node has 8", "max_cores: 8"),
    (
        "memory",
        lambda: slurm(with_core(node_memory=64000), RICH),
        *("partitions", "fail", "largest node has 64000", "max_memory: 64000"),
    ),
    ("closed", lambda: slurm(with_core(state="down")), "partitions", "warn", "core: is down", "sinfo -R -p core"),
    (
        "GPU",
        lambda: slurm(with_core(total_gpus={"a100": 2})),
        "GPUs",
        "fail",
        "type 't4'.*shows a100",
        "gpus.t4.request",
    ),
    ("feature", lambda: slurm(features={"core": {"hbm80g"}}, site=RICH), "features", "fail", "fat", "core.constraint"),
    (
        "constraint",
        lambda: slurm(features={"core": {"fat"}}, site=RICH),
        "features",
        "fail",
        "hbm80g",
        "constraints.hbm",
    ),
    ("QOS", lambda: slurm(site=RICH, qos={"normal": QosLimits()}), "QOS", "fail", "no QOS short", "qos.short"),
    ("QOS's limit", lambda: slurm(closed()), "limits", "warn", "max_cores is 16; its QOS short", "max_cores: 4"),
    ("closed to all", lambda: slurm(closed()), "limits", "warn", "only abc use it", "accounts.default"),
    (
        "association's limit",
        lambda: slurm(associations=(Association("g2021027", "core", 60),)),
        *("limits", "warn", 'alice\'s project g2021027 lets a job have "0:01:00"', "core.max_time"),
    ),
    (
        "no project",
        lambda: slurm(associations=()),
        "projects",
        "fail",
        "no project of alice",
        "sacctmgr add user alice",
    ),
    (
        "another project",
        lambda: slurm(associations=(Association("g2020014"),)),
        *("projects", "warn", "not g2021027", "account=g2021027"),
    ),
    (
        "pattern",
        lambda: slurm(associations=(Association("abc"),)),
        *("projects", "fail", "matches `accounts.pattern`", "accounts.pattern"),
    ),
    # sudo
    ("no sudo", lambda: sudo(sudo=""), "sudo", "fail", "there is no sudo", "apt install sudo"),
    ("no rule", lambda: sudo(rules=(), said="a password is required"), "sudo", "fail", "password", "visudo -c"),
    ("as anybody", lambda: sudo(rules=(SudoRule(("ALL",), ("/usr/bin/sbatch",)),)), "sudo", "fail", "as ALL", "%hpc"),
    ("as root", lambda: sudo(rules=(SudoRule(("root",), ("/usr/bin/sbatch",)),)), "sudo", "fail", "as root", "%hpc"),
    ("everything", lambda: sudo(rules=(SudoRule(("bob",), ("ALL",)),)), "sudo", "fail", "every command", "/usr/bin/sb"),
    (
        "more",
        lambda: sudo(rules=(*RULES, SudoRule(("bob",), ("/bin/sh",)))),
        "sudo",
        "warn",
        "also run /bin/sh",
        "none",
    ),
    (
        "no SETENV",
        lambda: sudo(refused={"sbatch": "sorry, you are not allowed to set the following environment variables: X"}),
        *("sudo", "fail", "/usr/bin/sbatch: sorry", "SETENV:"),
    ),
    (
        "not in the group",
        lambda: sudo(refused={"sbatch": "a password"}),
        "sudo",
        "fail",
        "as alice",
        "a group that alice",
    ),
    ("no squeue", lambda: sudo(refused={"squeue": "a password"}), "sudo", "warn", "squeue", "PrivateData"),
    ("no scancel", lambda: sudo(ALONE, rules=RULES[1:]), "sudo", "fail", "no rule names /usr/bin/scancel", "sudoers"),
    (
        "a password",
        lambda: sudo(ALONE, rules=(*RULES[:1], replace(RULES[1], options=()))),
        *("sudo", "fail", "helper asks for a password", "NOPASSWD:"),
    ),
    (
        "no SETENV, nobody",
        lambda: sudo(ALONE, rules=(replace(RULES[0], options=("!authenticate",)), RULES[1])),
        *("sudo", "fail", "sbatch gets none", "SETENV:"),
    ),
    # the helper
    (
        "no helper",
        lambda: helper(text=None, error="No such file"),
        "helper",
        "fail",
        "No such file",
        "install -D -o root",
    ),
    ("old helper", lambda: helper(text="#\n" + str(HELPER.text)), "helper", "fail", "not this version's", "-f hub.py"),
    (
        "another site's",
        lambda: helper(site=MOVED),
        "helper",
        "fail",
        "another site.*: courses differ",
        "snowyspawner helper",
    ),
    ("its owner", lambda: helper(uid=1000), "helper", "fail", "user id 1000", "chown root:root"),
    ("its mode", lambda: helper(mode=0o775), "helper", "fail", "mode 0775", "chmod 0755"),
    ("closed to people", lambda: helper(mode=0o700), "helper", "fail", "cannot run it", "chmod 0755"),
    ("its directory", lambda: helper(loose=("/srv",)), "helper", "fail", "write to /srv", "chmod go-w /srv"),
    (
        "its runtimes",
        lambda: helper(text=str(HELPER.text).replace("/usr/bin/singularity", "/opt/singularity")),
        *("helper", "warn", "runtimes", "install -D"),
    ),
    # people, images, disks
    (
        "no account",
        lambda: host_checks.person("bob", None),
        "account",
        "fail",
        "bob has no account",
        "getent passwd bob",
    ),
    (
        "a home with a blank",
        lambda: host_checks.person("bob", pwd.struct_passwd(("bob", "x", 1, 1, "", "/home/b b", ""))),
        *("account", "fail", "/home/b b", "usermod -d"),
    ),
    (
        "root",
        lambda: host_checks.person("r", pwd.struct_passwd(("r", "x", 0, 0, "", "/", ""))),
        "account",
        "fail",
        "is root",
        "NAME",
    ),
    (
        "no image",
        lambda: host_checks.images(SITE, "alice", {"container.sif": "missing"}),
        *("images", "fail", "does not exist", "images.container.sif.path"),
    ),
    (
        "a closed image",
        lambda: host_checks.images(SITE, "alice", {"container.sif": "forbidden"}),
        *("images", "fail", "alice may not read /proj", "namei -l /proj"),
    ),
    (
        "a disk that hangs",
        lambda: host_checks.images(SITE, "alice", {"container.sif": "unknown"}),
        *("images", "warn", "cannot be told", "hang"),
    ),
    (
        "no environment",
        lambda: host_checks.environments(SITE, {"tf-gpu": "/x"}),
        "environments",
        "fail",
        "/x does not",
        "ls -d /x",
    ),
    (
        "a disk of its own",
        lambda: host_checks.logs(SITE, "/home/a", "tmpfs"),
        "logs",
        "warn",
        "own",
        "findmnt -T /home/a",
    ),
    (
        "a strange disk",
        lambda: host_checks.logs(SITE, "/home/a", "xyz"),
        "logs",
        "warn",
        "do the nodes",
        "srun ls -d /home/a",
    ),
    # what a job says
    (
        "node: hub",
        lambda: steps(of("hub", 76, detail="timed out")),
        "job: hub",
        "fail",
        "cannot reach.*timed",
        "curl http",
    ),
    (
        "node: no runtime",
        lambda: steps(of("image", 65, image="container.sif")),
        *("job: image container.sif", "fail", "on node s3", "module load apptainer"),
    ),
    (
        "node: no image",
        lambda: steps(of("image", 66, image="container.sif")),
        *("job: image container.sif", "fail", "/proj/.*does not exist", "on a disk that the"),
    ),
    (
        "node: no environment",
        lambda: steps(of("environment", 72, image="container.sif", environment="tf-gpu")),
        *("job: tf-gpu in container.sif", "fail", "has no environment tf-gpu", "environments"),
    ),
    (
        "node: no jupyterhub",
        lambda: steps(of("environment", 73, image="container.sif", environment="tf-gpu")),
        *("job: tf-gpu in container.sif", "fail", "is not in environment", "pip install jupyterhub"),
    ),
    (
        "node: jupyterhub 5",
        lambda: steps(of("environment", image="i", environment="e", version="5.4.0")),
        *("job: e in i", "warn", "5.4.0 in it, 6.1.1 at the hub", "jupyterhub==6.1.1"),
    ),
    (
        "node: no GPU",
        lambda: steps(of("gpu", 74, detail="no /dev/nvidia")),
        "job: gpu",
        "fail",
        "shows none",
        "gres.conf",
    ),
    (
        "node: no nvidia-smi",
        lambda: steps(of("gpu", asked=False)),
        "job: gpu",
        "warn",
        "no nvidia-smi",
        "srun nvidia-smi",
    ),
    ("node: broke", lambda: steps(of("end", 82, detail="OSError: x")), "job: end", "fail", "OSError: x", "Report it"),
]


@pytest.mark.parametrize(
    ("made", "name", "state", "said", "remedy"),
    [pytest.param(*rest, id=what) for what, *rest in MISTAKES],
)
def test_a_mistake_is_named_with_its_remedy(
    made: Callable[[], Iterable[Check]], name: str, state: State, said: str, remedy: str
) -> None:
    found = [check for check in made() if check.name == name and check.state == state]
    assert any(re.search(said, check.said) and re.search(remedy, check.remedy) for check in found), found


@pytest.mark.parametrize(
    "made",
    [
        hub,
        lambda: hub(secret_mode=None),
        lambda: hub(euid=900, account="alice", reads_shadow=False, people=frozenset({"alice"})),
        slurm,
        lambda: slurm(site=RICH),
        sudo,
        lambda: sudo(ALONE),
        helper,
        lambda: host_checks.person("alice", ALICE),
        lambda: host_checks.images(SITE, "alice", {"container.sif": "readable"}),
        lambda: host_checks.environments(SITE, {}),
        lambda: host_checks.logs(SITE, "/home/alice", "nfs4"),
        lambda: host_checks.logs(load({"extends": "snowy", "node_address": "127.0.0.1"}), "/home/alice", "ext4"),
        lambda: steps(of("hub", version="6.1.1"), of("environment", image="i", environment="e", version="6.0.2")),
        lambda: steps(of("gpu", asked=True, detail="GPU 0: Tesla T4"), of("runtime", detail="apptainer 1"), of("end")),
    ],
    ids=[
        *("hub", "no secret yet", "for itself", "Slurm", "a rich site", "sudo", "sudo, nobody", "helper", "account"),
        *("image", "environments", "NFS", "one machine", "node", "GPU"),
    ],
)
def test_nothing_is_named_where_all_is_well(made: Callable[[], Iterable[Check]]) -> None:
    assert [check for check in made() if check.state not in ("ok", "skip")] == []


# -- what is read ------------------------------------------------------------------------------------------------

SUDO_LL = """\
Matching Defaults entries for jupyterhub on login3:
    env_reset, mail_badpass,
    secure_path=/usr/local/sbin\\:/usr/bin

Runas and Command-specific defaults for jupyterhub:
    Defaults!/usr/bin/sbatch, /usr/bin/scancel !requiretty, !pam_session

User jupyterhub may run the following commands on login3:

Sudoers entry:
    RunAsUsers: %users, nobody
    Options: setenv, !authenticate
    Commands:
\t/usr/bin/sbatch
\t/usr/bin/scancel

Sudoers entry: /etc/sudoers.d/more
    RunAsUsers: ALL
    Options: !authenticate
    Commands:
\tALL
"""


def test_the_rules_of_sudo() -> None:
    """Recorded: sudo 1.9.13; later ones add the file's name to the line that begins an entry."""
    assert sudo_checks.parse_rules(SUDO_LL) == (
        SudoRule(("%users", "nobody"), ("/usr/bin/sbatch", "/usr/bin/scancel")),
        SudoRule(("ALL",), ("ALL",), ("!authenticate",)),
    )
    assert sudo_checks.parse_rules("sudo: a password is required\n") == ()


MOUNTS = """\
/dev/vda1 / ext4 rw 0 0
tmpfs /tmp tmpfs rw 0 0
nas:/home /home nfs4 rw 0 0
none /home/my\\040own tmpfs rw 0 0
nas:/tmp /tmp nfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/home/alice", "nfs4"), ("/homes", "ext4"), ("/home/my own/x", "tmpfs"), ("/tmp", "nfs"), ("/", "ext4")],
)
def test_the_file_system_of_a_path(path: str, kind: str) -> None:
    assert host_checks.file_system(path, MOUNTS) == kind


def test_pam_s_service_is_read_with_what_it_includes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "login").write_text("auth optional pam_faildelay.so\n@include common-auth\nauth include system-auth\n")
    (tmp_path / "common-auth").write_text("auth sufficient pam_sss.so\n@include login\n")
    monkeypatch.setattr(hub_checks, "Path", lambda *parts: tmp_path / parts[-1])
    texts = hub_checks._pam_texts("login")
    assert "pam_sss.so" in "\n".join(texts)
    assert hub_checks._pam_texts("nosuch") == []


# -- how it is run and shown -------------------------------------------------------------------------------------


async def test_a_check_that_breaks_or_hangs_says_so() -> None:
    async def breaks() -> list[Check]:
        raise KeyError("core")

    (found,) = await checks.guarded("x", breaks())
    assert (found.name, found.state, found.said) == ("x", "fail", "the check broke: KeyError: 'core'")
    (found,) = await checks.guarded("x", checks.in_thread(time.sleep, 0.2), limit=0.01)  # type: ignore[arg-type]
    assert (found.state, found.said) == ("fail", "no answer in 0.01 s")
    assert found.remedy


async def test_work_in_a_thread_gives_back_what_it_returns_and_raises() -> None:
    assert await checks.in_thread(len, "abc") == 3
    with pytest.raises(ZeroDivisionError):
        await checks.in_thread(lambda: 1 // 0)


def test_a_line_for_each_and_its_remedy() -> None:
    found = [report.ok("site", "snowy"), report.fail("sudo", "no rule", "visudo -c"), report.skip("x", "y")]
    assert report.as_text(found, "utf-8") == "✓ site: snowy\n✗ sudo: no rule\n    visudo -c\n- x: y\n"
    assert (
        report.as_text(found, "ascii")
        == report.as_text(found, None)
        == "ok site: snowy\nX sudo: no rule\n    visudo -c\n- x: y\n"
    )
    assert "caf\\xe9" in report.as_text([report.ok("site", "café")], "ascii")
    assert not report.passed(found)
    assert report.passed([report.warn("a", "b", "c")])


def test_what_others_say_steers_no_terminal() -> None:
    (found,) = report.as_data([Check("job", "ok", "\x1b[2J\x1b]0;title\x07one\ntwo\x00", "\x9bx")])
    assert found == {"name": "job", "state": "ok", "said": "one two\ufffd", "remedy": "\ufffdx"}
    assert "\x1b" not in report.as_text([report.ok("job", "\x1b[31mred")], "utf-8")


def test_the_result_is_kept_for_the_hub_and_for_nobody_else(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("before")
    path.chmod(0o644)
    report.write(path, [Check("job", "ok", "runs", "", 0.25)], 1795858664.5)
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text()) == {
        "when": 1795858664.5,
        "ok": True,
        "checks": [{"name": "job", "state": "ok", "said": "runs (0.2 s)", "remedy": ""}],
    }
    assert read_result(str(path)) == (1795858664.5, [("job", "ok", "runs (0.2 s)", "")])
    assert [each.name for each in tmp_path.iterdir()] == ["result.json"]
    with pytest.raises(FileNotFoundError):
        report.write(tmp_path / "none" / "result.json", [], 0.0)


CONFIG = 'c.JupyterHub.spawner_class = "snowy"\nc.SnowySpawner.req_gres = "gpu:1"\nc.JupyterHub.hub_ip = "127.0.0.1"\n'


def test_the_facts_of_a_configuration(tmp_path: Path) -> None:
    """What is said without set_config: JupyterHub's own defaults."""
    from snowyspawner import config as hub_config

    file = tmp_path / "jupyterhub_config.py"
    file.write_text(CONFIG)
    facts = hub_checks.look(*hub_config.loaded(str(file)))
    assert facts.ours
    assert facts.without_effect == ("SnowySpawner.req_gres",)
    assert facts.settings["cleanup_servers"] is True
    assert facts.url == "http://127.0.0.1:8081/hub/api"
    assert facts.listens == "127.0.0.1"
    found = hub_checks.judge(facts, SITE)
    assert {check.name for check in found if check.state == "fail"} == {
        *("spawner", "set_config", "templates", "hub's address", "sign-in"),
    }
    assert set(facts.versions) == {"jupyterhub", "batchspawner", "snowyspawner"}
    assert not facts.anybody


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        (None, "configuration", "there is no such file"),
        ("1 / 0\n", "configuration", "ZeroDivisionError: division by zero"),
        (
            "c.SnowySpawner.req_gres = 'gpu:1'\nimport snowyspawner\nsnowyspawner.set_config(c)\n",
            "configuration",
            "req_gres",
        ),
        (
            "c.SnowySpawner.site = {'x': 1}\nimport snowyspawner\nsnowyspawner.set_config(c)\n",
            "site",
            "x: 1: no such key",
        ),
    ],
    ids=["no file", "Python", "no effect", "site"],
)
def test_a_configuration_that_cannot_be_run(
    text: str | None, name: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "jupyterhub_config.py"
    if text is not None:
        file.write_text(text)
    assert cli.main(["check", "--json", "-f", str(file)]) == 1
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert (told["ok"], err) == (False, "")
    wrong = [each for each in told["checks"] if each["state"] == "fail"]
    assert any(each["name"] == name and said in each["said"] and each["remedy"] for each in wrong)
    assert told["mistakes"] == [f"{each['name']}: {each['said']}" for each in wrong]
    assert told["checks"][-1]["state"] == "skip"


# -- the job -----------------------------------------------------------------------------------------------------


def trial_of(site: Site) -> trial_job.Trial:
    return trial_job.Trial(site, HUB.url, "6.1.1", ALICE, None, None, print)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "command",
    [["/bin/bash", "-n"], [str(Path(sys.executable).with_name("shellcheck")), "--norc", "--shell=bash"]],
    ids=["bash", "shellcheck"],
)
def test_the_job_s_script_is_a_session_s_in_what_slurm_reads(command: list[str], tmp_path: Path) -> None:
    site = load({"extends": "snowy", "prologue": "#SBATCH --comment=x\nmodule() { :; }\nmodule load apptainer\n"})
    text = trial_job.build(trial_of(site), request.from_options({}, site))
    assert len(text.encode()) <= SCRIPT_LIMIT
    header = [line for line in text.partition("\n# A trial")[0].splitlines() if line.startswith("#SBATCH")]
    for option in ("--partition=core", "--gres=gpu:t4:1", "--output=/home/alice/.snowyspawner-%j.log", "--comment=x"):
        assert f"#SBATCH {option}" in header
    assert not any("--signal" in line for line in header)
    file = tmp_path / "job.sh"
    file.write_text(text)
    done = subprocess.run([*command, str(file)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_is_tried_is_python_3_6() -> None:
    from snowyspawner.standalone import trial

    vermin = Path(sys.executable).with_name("vermin")
    argv = [str(vermin), "-t=3.6-", "--violations", "--no-tips", trial.__file__]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_what_a_job_says_is_not_trusted() -> None:
    good = 'snowyspawner-trial: {"step": "hub", "code": 0}'
    lines = [
        *("x", "snowyspawner-trial: ", "snowyspawner-trial: []", 'snowyspawner-trial: {"step": 1, "code": 0}'),
        *('snowyspawner-trial: {"step": "hub", "code": "0"}', 'snowyspawner-trial: {"step": "\\u001b[2J", "code": 0}'),
        *('snowyspawner-trial: {"step": ["hub"], "code": 1e400}', "snowyspawner-trial: " + "[" * 100_000, good),
    ]
    assert trial_job.parse_steps(lines) == [{"step": "hub", "code": 0}]
    assert len(trial_job.parse_steps([good] * 5000)) == 1000
    hostile = of("environment", image="\x1b[2J" * 500, environment={}, version=["6"], seconds="soon")
    (found,) = steps(hostile)
    assert found.seconds == 0.0
    assert "\x1b" not in report.as_text([found], "utf-8")
    (found,) = steps(of("image", 255, image="nosuch", detail="<b>"))
    assert (found.state, bool(found.remedy)) == ("fail", True)


async def test_the_job_is_ended_when_nobody_waits_any_more() -> None:
    """Also one that sbatch was just handing over."""
    cancelled = []

    class Client:
        async def submit(self, *_: Any) -> tuple[str, str]:
            await asyncio.sleep(0.01)
            return "17", ""

        async def accounts(self, user: str, *_: Any) -> list[str]:
            return ["g2021027"]

        async def cancel(self, job_id: str, *_: Any) -> None:
            cancelled.append(job_id)

    trial = replace(trial_of(SITE), client=Client())  # type: ignore[arg-type]
    task = asyncio.create_task(trial_job.run(trial))
    await asyncio.sleep(0.002)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled == ["17"]


def test_a_job_that_is_ended_removes_its_log_at_once(tmp_path: Path) -> None:
    """While it waits for a hub that does not answer: the script itself, run without Slurm."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/hub/api"
        site = load({"extends": "snowy", "python": sys.executable, "defaults": {"gpu": "none"}})
        account = pwd.struct_passwd(("alice", "x", 1000, 1000, "", str(tmp_path), "/bin/bash"))
        trial = replace(trial_of(site), hub_url=url, account=account)
        script, log = tmp_path / "job.sh", tmp_path / "job.log"
        script.write_text(trial_job.build(trial, request.from_options({}, site)))
        with log.open("wb") as output:
            child = subprocess.Popen(["/bin/bash", str(script)], stdout=output, stderr=output)
        silent.settimeout(20)
        with silent.accept()[0]:
            child.terminate()
            assert child.wait(20) == 0
    assert not log.exists()
