"""`snowyspawner init` on real Slurm: what is marked is filled in, and a hub with that file starts a session."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo import apptainer
from demo.accounting import projects
from demo.commands import open_umask
from snowyspawner import site
from snowyspawner.admin.site_file import DECIDE, site_text
from snowyspawner.admin.survey import look
from snowyspawner.choice.request import problems
from snowyspawner.slurm.client import SlurmClient

from ..faults import FaultHub
from .test_slurm_away import end_all

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

COMMAND = Path(sys.executable).parent / "snowyspawner"
FACTS = """
import json, os, sys
print(json.dumps([os.environ["SLURM_JOB_PARTITION"], os.environ["APPTAINER_CONTAINER"], sys.prefix]))
"""

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def command(cluster: Any) -> Command:
    """Run the command as an administrator on the login node does."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, **cluster.env}
        return subprocess.run([COMMAND, *words], env=env, capture_output=True, text=True, timeout=60, check=False)

    return run


def below(text: str, key: str) -> str:
    """Return the comments above a key of the file."""
    lines = text.splitlines()
    at = lines.index(next(line for line in lines if line.startswith(f"{key}:")))
    above = next(number for number in range(at, 0, -1) if not lines[number - 1].startswith("#"))
    return "\n".join(lines[above:at])


async def test_what_is_marked_is_filled_in_and_a_session_serves(
    cluster: Any, users: list[str], command: Command, tmp_path: Path
) -> None:
    file = tmp_path / "site.yaml"
    done = command("init", "--cluster", cluster.site.cluster, "-o", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    text = file.read_text()
    assert done.stdout == f"{file}: written; {text.count(DECIDE)} lines are marked {DECIDE}\n"
    assert command("check", "--site", str(file)).returncode == 0

    found = yaml.safe_load(text)
    filled: dict[str, Any] = {
        "images": {"container.sif": {"path": str(cluster.image)}},
        "environments": {"tf-mkl": {}, "tf-gpu": {"gpu": True}},
        "prologue": f'export PATH="{apptainer.bin_directory()}:$PATH"\n',
        "defaults": {**found["defaults"], "environment": "tf-mkl"},
    }
    for key in filled:
        assert DECIDE in below(text, key), key
    assert set(filled) <= set(found)

    own = FaultHub(cluster, cluster.state / "fault-hub")
    own.config = Path(__file__).resolve().parents[1] / "site_hub_config.py"
    with open_umask():
        (own.directory / "own.yaml").write_text(yaml.safe_dump({**found, **filled}))
    await own.start()
    try:
        await own.serve(users[0], {})
        seen = json.loads(await own.run(users[0], FACTS))
        assert seen == [cluster.site.defaults.partition, str(cluster.image), "/opt/conda/envs/tf-mkl"]
        state = await own.state(users[0])
        assert state["job"]["cluster"] == cluster.site.cluster
        await own.end(users[0])
    finally:
        await end_all(own, users)
        await own.stop()


async def test_the_default_account_of_who_asks_is_offered(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in cluster.env.items():
        monkeypatch.setenv(name, value)
    survey = await look(SlurmClient(cluster.site.cluster), next(iter(cluster.users)))
    assert survey.failures == []
    loaded = site.load(yaml.safe_load(site_text(survey)))
    assert loaded.accounts.default == projects(cluster.site)[0]
    assert problems(loaded) == []


def test_the_login_cluster_is_the_one_without_a_name(cluster: Any, command: Command) -> None:
    done = command("init")
    assert (done.returncode, done.stderr) == (0, "")
    loaded = site.load(yaml.safe_load(done.stdout))
    assert (loaded.cluster, loaded.display_name) == ("", "Rackham")
    assert f"# Other clusters (snowyspawner init --cluster NAME): {cluster.site.cluster}\n" in done.stdout


def test_a_cluster_that_slurm_does_not_know_gives_nothing(command: Command, tmp_path: Path) -> None:
    done = command("init", "--cluster", "nosuch", "-o", str(tmp_path / "site.yaml"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "sinfo: " in done.stderr
    assert "No cluster 'nosuch' known by database" in done.stderr
    assert done.stderr.endswith("there is nothing to write\n")
    assert not (tmp_path / "site.yaml").exists()
