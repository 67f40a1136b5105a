"""`snowyspawner check -f` on real Slurm and real Apptainer, as root; test_ways_to_run.py has it under real sudo.

A run has as many mistakes in it as can be there at once, and each of them is a case.
"""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo.commands import open_umask
from demo.state import free_ports
from snowyspawner.cli import main

from ..faults import prologue
from ..hubs import Hub
from .test_session import queued

pytestmark = pytest.mark.cluster

CONFIG = """
import snowyspawner
c.JupyterHub.spawner_class = "snowy"
c.SnowySpawner.site = {site!r}
c.JupyterHub.hub_port = {port}
c.JupyterHub.db_url = "sqlite:///{directory}/hub.sqlite"
c.JupyterHub.cookie_secret_file = "{directory}/cookie_secret"
c.SnowySpawner.check_result = "{directory}/result.json"
c.Authenticator.allow_all = True
{more}
"""
GOOD = "c.JupyterHub.hub_ip = '127.0.0.1'\nsnowyspawner.set_config(c)"


def write_config(cluster: Any, directory: Path, site: dict[str, Any], more: str, port: int) -> Path:
    """Write a hub's configuration with the cluster's Site, over which *site* is laid."""
    with open_umask():
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "site.yaml").write_text(yaml.safe_dump({"extends": str(cluster.site_file), **site}))
        path = directory / "jupyterhub_config.py"
        path.write_text(CONFIG.format(site=str(directory / "site.yaml"), directory=directory, more=more, port=port))
    return path


Found = dict[str, list[dict[str, str]]]


@pytest.fixture(scope="module")
def run(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[int, Found]]:
    """Check a configuration as root; return the exit code, and what was said by the check's name."""

    def check(*words: str, site: dict[str, Any] | None = None, more: str = GOOD, port: int = 0) -> tuple[int, Found]:
        directory = tmp_path_factory.mktemp("check")
        file = write_config(cluster, directory, site or {}, more, port or cluster.ports["hub"])
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as out:
            for name, value in cluster.env.items():
                patch.setenv(name, value)
            code = main(["check", "--json", "-f", str(file), *words])
        told = json.loads(out.getvalue())
        kept = json.loads((directory / "result.json").read_text())
        assert kept["checks"] == told["checks"]
        assert kept["ok"] == told["ok"] == (code == 0)
        found: Found = {}
        for each in told["checks"]:
            found.setdefault(each["name"], []).append(each)
        return code, found

    return check


def wrong(found: Found) -> list[str]:
    return [f"{each['name']}: {each['said']}" for said in found.values() for each in said if each["state"] == "fail"]


def test_a_good_machine_has_nothing_wrong(run: Callable[..., Any], hub: Hub, users: list[str]) -> None:
    code, found = run("--user", users[0])
    assert (wrong(found), code) == ([], 0)
    assert [name for name, said in found.items() if said[0]["state"] == "warn"] == []
    assert found["hub's address"][0]["said"].endswith("answers this host")
    assert found["projects"][0]["said"] == f"{users[0]} has g2020014, g2021027"
    assert found["images"][0]["said"] == f"container.sif can be read by {users[0]}"


def test_it_is_shown_a_line_for_each(
    cluster: Any, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in cluster.env.items():
        monkeypatch.setenv(name, value)
    file = write_config(cluster, tmp_path, {}, GOOD, cluster.ports["hub"])
    assert main(["check", "-f", str(file)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert f"✓ configuration: {file} can be run; what follows is checked as root" in lines
    assert "- projects: not looked at: name a person with --user" in lines
    assert all(re.match(r"[✓!-] [\w' -]+: .", line) for line in lines)


# -- mistakes ----------------------------------------------------------------------------------------------------

SITE_MISTAKES = [
    ("partitions", "nosuch: Slurm has no partition 'nosuch'; there is .*devcore", "partitions.nosuch"),
    ("partitions", "core: max_time is 20-00:00:00; Slurm's MaxTime is 10-00:00:00", r'"10-00:00:00"'),
    ("partitions", "devel: max_cores is 32; its largest node has 16", "partitions.devel.max_cores: 16"),
    ("partitions", "node: max_memory is 256000 MB; its largest node has 128000", "max_memory: 128000"),
    ("GPUs", "core: no node has GPUs of the type 'a100'.*shows t4", "gpus.a100.request"),
    ("features", "devcore: no node has the feature fat", "partitions.devcore.constraint"),
    ("QOS", "Slurm has no QOS nosuch; there is normal", "sacctmgr show qos"),
    ("images", "missing.sif: /proj/missing.sif does not exist", "ls -l /proj/missing.sif"),
    ("images", r"closed.sif: \w+ may not read /root/closed.sif", "namei -l /root"),
]


@pytest.fixture(scope="module")
def wrong_site(run: Callable[..., Any], cluster: Any) -> Found:
    """What is said of a site file with all of these mistakes."""
    site = {
        "partitions": {
            "nosuch": {"max_cores": 4, "max_time": "1:00:00"},
            "core": {"max_time": "20-00:00:00", "gpus": ["t4", "a100"]},
            "devel": {"max_cores": 32},
            "node": {"max_memory": 256000},
            "devcore": {"constraint": "fat"},
        },
        "gpus": {"a100": {"request": "--gres=gpu:a100:{count}"}},
        "qos": {"nosuch": {}},
        "images": {"missing.sif": {"path": "/proj/missing.sif"}, "closed.sif": {"path": "/root/closed.sif"}},
    }
    code, found = run("--user", next(iter(cluster.users)), site=site)
    assert code == 1
    return found


@pytest.mark.parametrize(("name", "said", "remedy"), SITE_MISTAKES, ids=[said[:40] for _, said, _ in SITE_MISTAKES])
def test_what_is_wrong_in_a_site_file(wrong_site: Found, name: str, said: str, remedy: str) -> None:
    is_named(wrong_site, name, said, remedy)


def test_nothing_else_is_wrong_in_it(wrong_site: Found) -> None:
    assert len(wrong(wrong_site)) == len(SITE_MISTAKES)


def is_named(found: Found, name: str, said: str, remedy: str, state: str = "fail") -> None:
    there = found.get(name, [])
    assert any(
        each["state"] == state and re.search(said, each["said"]) and re.search(remedy, each["remedy"]) for each in there
    ), there


HUB_MISTAKES = [
    ("spawner", "c.SnowySpawner.req_gres has no effect", "site file"),
    ("set_config", "cleanup_servers is True", "set_config"),
    ("templates", "not in c.JupyterHub.template_paths: .*snowy_options_form.html", "set_config"),
    ("hub's address", "jobs are given http://login..example:.*stands for no address", "hub_connect_ip"),
    ("cookie secret", "mode 0644: the hub refuses to start", "rm .*/cookie_secret"),
    ("sign-in", "'snowy-nosuch' has no file in /etc/pam.d", "c.PAMAuthenticator.service"),
    ("database", "/proj/nosuch/hub.sqlite", "chown"),
    ("projects", "Slurm has no project of nobody", "sacctmgr add user nobody account=g2021027"),
]


@pytest.fixture(scope="module")
def wrong_hub(run: Callable[..., Any]) -> Found:
    """What is said of a hub's configuration with all of these mistakes, and for somebody without a project."""
    more = """
from pathlib import Path
secret = Path(c.JupyterHub.cookie_secret_file)
secret.write_text("00" * 32)
secret.chmod(0o644)
c.SnowySpawner.req_gres = "gpu:1"
c.JupyterHub.hub_connect_ip = "login..example"
c.PAMAuthenticator.service = "snowy-nosuch"
c.JupyterHub.db_url = "sqlite:////proj/nosuch/hub.sqlite"
"""
    code, found = run("--user", "nobody", more=more)
    assert code == 1
    return found


@pytest.mark.parametrize(("name", "said", "remedy"), HUB_MISTAKES, ids=[said[:40] for _, said, _ in HUB_MISTAKES])
def test_what_is_wrong_in_a_hub_s_configuration(wrong_hub: Found, name: str, said: str, remedy: str) -> None:
    is_named(wrong_hub, name, said, remedy)


def test_a_cluster_that_slurm_does_not_know(run: Callable[..., Any]) -> None:
    _, found = run(site={"cluster": "nosuch"})
    is_named(found, "Slurm's commands", "nosuch", "sacctmgr show cluster")


def test_a_controller_that_does_not_answer(run: Callable[..., Any], cluster: Any, tmp_path: Path) -> None:
    (port,) = free_ports(cluster.spare_ports, 1)
    text = Path(cluster.env["SLURM_CONF"]).read_text()
    conf = tmp_path / "slurm.conf"
    conf.write_text(re.sub(r"^SlurmctldPort=.*$", f"SlurmctldPort={port}\nMessageTimeout=1", text, flags=re.M))
    _, found = run(site={"slurm_conf": str(conf)})
    is_named(found, "Slurm's commands", "Unable to contact slurm controller|no answer", "scontrol ping")
    assert found["partitions"][0]["state"] == "skip"


def test_what_answers_in_the_hub_s_place(run: Callable[..., Any], cluster: Any, hub: Hub) -> None:
    """A program that is no JupyterHub (the API of the hub's proxy), and none at all."""
    proxy = cluster.ports["proxy_api"]
    _, found = run(port=free_ports(cluster.spare_ports, 1)[0])
    is_named(found, "hub's address", "no hub runs there now", "systemctl start jupyterhub", state="warn")
    _, found = run(port=proxy)
    is_named(found, "hub's address", "no JupyterHub", f"sport = :{proxy}")


# -- a job -------------------------------------------------------------------------------------------------------


def logs_of(cluster: Any, user: str) -> list[Path]:
    return list((cluster.state / "home" / user).glob(".snowyspawner-*.log"))


def test_a_job_answers_from_the_node(
    run: Callable[..., Any], hub: Hub, users: list[str], cluster: Any, slurm: Any
) -> None:
    """Its GPUs are stand-ins, and so is the driver's program that is asked for them."""
    smi, gpu = cluster.state / "test-smi" / "nvidia-smi", "GPU 0: Tesla T4 (UUID: GPU-a-stand-in)"
    with open_umask():
        smi.parent.mkdir(exist_ok=True)
        smi.write_text(f'#!/bin/sh\n[ "$*" = -L ] && echo "{gpu}"\n')
        smi.chmod(0o755)
    code, found = run("--job", users[0], site=prologue(cluster, f'PATH="{smi.parent}:$PATH"'))
    assert (wrong(found), code) == ([], 0)
    job = {name: said[0] for name, said in found.items() if name.startswith("job")}
    assert re.fullmatch(r"job \d+ ran on node s[34], after \d+ s in the queue \(\d+\.\d s\)", job["job"]["said"])
    assert re.match(r"JupyterHub \S+ answers at http://127", job["job: hub"]["said"])
    assert job["job: runtime of container.sif"]["said"].startswith("apptainer version")
    for name in ("tf-gpu", "tf-mkl", "tf-pip"):
        assert re.match(r"is active; jupyterhub \d", job[f"job: {name} in container.sif"]["said"])
    assert re.fullmatch(rf"{re.escape(gpu)} \(\d+\.\d s\)", job["job: gpu"]["said"])
    assert queued(slurm, cluster, users[0]) == []
    assert logs_of(cluster, users[0]) == []


JOB_MISTAKES = [
    ("job: hub", "Node s[1-4] cannot reach the hub.*refused", r"curl http://127\.0\.0\.1:\d+/hub/api"),
    ("job: image missing.sif", "/proj/missing.sif does not exist", "on a disk that the compute nodes see"),
    ("job: bare in container.sif", "jupyterhub-singleuser is not in environment bare", "pip install jupyterhub"),
    ("job: gone in container.sif", "has no environment gone", "environments"),
]


@pytest.fixture(scope="module")
def wrong_job(run: Callable[..., Any], cluster: Any) -> Found:
    """What a job says where its hub, an image and two environments are not there."""
    site = {
        "images": {"missing.sif": {"path": "/proj/missing.sif"}},
        "environments": {
            "bare": {"kind": "prefix", "prefix": "/usr", "images": ["container.sif"]},
            "gone": {"images": ["container.sif"]},
        },
    }
    user, (port,) = next(iter(cluster.users)), free_ports(cluster.spare_ports, 1)
    code, found = run("--job", user, site=site, port=port)
    assert code == 1
    assert logs_of(cluster, user) == []
    return found


@pytest.mark.parametrize(("name", "said", "remedy"), JOB_MISTAKES, ids=[name for name, _, _ in JOB_MISTAKES])
def test_what_is_wrong_on_a_node(wrong_job: Found, name: str, said: str, remedy: str) -> None:
    is_named(wrong_job, name, said, remedy)
    # What is right is said all the same; and where there is no driver, the device files.
    is_named(wrong_job, "job: gpu", "device files are there", "srun nvidia-smi -L", state="warn")
    assert wrong_job["job: tf-mkl in container.sif"][0]["state"] == "ok"


def test_a_job_whose_steps_cannot_begin(run: Callable[..., Any], cluster: Any, users: list[str]) -> None:
    _, found = run("--job", users[0], site={"python": "/nosuch/python3"})
    assert logs_of(cluster, users[0]) == []
    is_named(found, "job", "ended too early.*/nosuch/python3: No such file", "`prologue` or `python`")


def test_a_job_that_slurm_refuses(run: Callable[..., Any], users: list[str]) -> None:
    _, found = run("--job", users[0], site={"prologue": "#SBATCH --partition=nosuch\n"})
    is_named(found, "job", "Slurm refuses it: .*[Ii]nvalid partition", "sbatch --test-only")


def test_control_c_ends_the_job(cluster: Any, users: list[str], slurm: Any, tmp_path: Path) -> None:
    """While it waits; what it waits for is said in words."""
    site = {"prologue": "#SBATCH --hold\n"}
    file = write_config(cluster, tmp_path, site, GOOD, cluster.ports["hub"])
    command = str(Path(sys.executable).with_name("snowyspawner"))
    # In a terminal Ctrl-C is not ignored, whatever the run of these tests does.
    words = ["env", "--default-signal=INT", command, "check", "-f", str(file), "--job", users[1]]
    with subprocess.Popen(
        words, env={**os.environ, **cluster.env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stderr is not None
        said = next(line for line in child.stderr if "is held" in line)
        assert re.match(r"job \d+: PENDING: Your job is held", said)
        assert len(queued(slurm, cluster, users[1])) == 1
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=30)
    assert (child.returncode, out, err) == (130, "", "")
    assert queued(slurm, cluster, users[1]) == []
