"""The miniature cluster and a hub on it, each started once for the whole run."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from .hubs import Hub, account_prefix


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """A real Slurm with accounting, two clusters, fake GPUs, and Apptainer; see demo/. Apart from a demo that is up."""
    from demo.apptainer import ApptainerUnavailable
    from demo.cluster import Cluster
    from demo.directories import default_state

    # A state of its own lets two runs of one checkout stand side by side.
    default = default_state()
    state = os.environ.get("SNOWYSPAWNER_TEST_STATE") or default.with_name(default.name + "-test")
    made = Cluster(state, user_prefix=os.environ.get("SNOWYSPAWNER_TEST_PREFIX") or account_prefix("snt"))
    try:
        made.up()
        yield made
    except ApptainerUnavailable as error:
        pytest.skip(f"NO CONTAINER TESTS: {error}")
    finally:
        if not os.environ.get("SNOWYSPAWNER_KEEP_CLUSTER"):
            made.down()


@pytest.fixture(scope="session")
def slurm(cluster: Any) -> Any:
    """Run a command of Slurm's as root on the login node; return what it printed."""

    def run(*argv: str, check: bool = True) -> str:
        done = subprocess.run(
            argv, env={**os.environ, **cluster.env}, capture_output=True, text=True, check=False, timeout=60
        )
        if check:
            assert done.returncode == 0, (argv, done.stdout, done.stderr)
        return done.stdout

    return run


@pytest.fixture(scope="session")
async def hub(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hub]:
    """One hub for all tests that do not harm it."""
    directory: Path = cluster.state / "test-hub"
    shutil.rmtree(directory, ignore_errors=True)  # of a run whose cluster was kept
    hub = Hub(cluster, directory)
    await hub.start()
    yield hub
    await hub.stop()


@pytest.fixture
async def users(cluster: Any, hub: Hub, slurm: Any) -> AsyncIterator[list[str]]:
    """The names of the demo accounts. Afterwards none of them has a server or a job left."""
    names = list(cluster.users)
    if hub.process is None or hub.process.poll() is not None:
        await hub.start()  # a test that kills it has failed half way: one failure, not all that follow
    yield names
    for name in names:
        status, model = await hub.call("GET", f"/hub/api/users/{name}?include_stopped_servers")
        for server in model["servers"] if status == 200 else []:
            await hub.end(name, server)
        slurm("scancel", "-M", cluster.site.cluster, "-u", name)
