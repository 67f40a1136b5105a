"""The miniature cluster and a hub on it, each started once for every worker; and which worker runs what."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from . import runs
from .hubs import Hub
from .scheduling import Scheduling, arrange

CLAIM = pytest.StashKey[runs.Claim]()
FIGURE = "figure"
BUSY = "SNOWYSPAWNER_TEST_BUSY"  # set for workers of a run whose state directory another run uses


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what .ci/run asks for."""
    parser.addoption("--no-skips", action="store_true", help="a test that is skipped has failed")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """With --no-skips, say that a skipped test has failed."""
    return _without_skips(item.config, (yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """The same for a file that skips itself."""
    return _without_skips(collector.config, (yield))


def _without_skips(config: pytest.Config, report: Any) -> Any:
    if config.option.no_skips and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, and nothing may be: {report.longrepr[2]}"
    return report


def pytest_xdist_auto_num_workers() -> int:
    """Say how many tests run side by side: a test waits half of its time, for Slurm, a server or a page."""
    return 2 * len(os.sched_getaffinity(0))


def pytest_configure(config: pytest.Config) -> None:
    """Claim the run's state directory, and remove what a run that was killed has left. Only root can have clusters."""
    if os.geteuid() != 0 or config.option.collectonly:
        return
    if hasattr(config, "workerinput"):
        runs.join()
        return
    config.stash[CLAIM] = claim = runs.Claim()
    os.environ.pop(BUSY, None)
    if not claim.held:
        os.environ[BUSY] = "1"
    elif not keeps_cluster():
        for line in claim.clean():
            print(f"left by an earlier run: {line}")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove what a worker that crashed has left."""
    claim = config.stash.get(CLAIM, None)
    if claim is None:
        return
    if claim.held and not keeps_cluster():
        for line in claim.clean():
            print(f"left by a worker that crashed: {line}")
    claim.release()


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Group tests by what they share, and put them in order: when they have been shuffled, before xdist reads it."""
    arrange(items)
    return (yield)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling | None:
    """Run what measures alone; see scheduling.py."""
    return Scheduling(config, log) if config.getvalue("dist") == "loadgroup" else None


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show what was measured: workers have no output of their own."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.getreports(kind)]
    figures = [text for report in reports for name, text in report.user_properties if name == FIGURE]
    if figures:
        terminalreporter.write_sep("=", "figures")
        terminalreporter.write_line("\n".join(figures))


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Keep a line about what was measured for the end of the run."""
    return lambda text: request.node.user_properties.append((FIGURE, text))


def keeps_cluster() -> bool:
    """Whether the cluster is to be up for the next run, too."""
    return bool(os.environ.get("SNOWYSPAWNER_KEEP_CLUSTER"))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """A real Slurm with accounting, two clusters, fake GPUs, and Apptainer; see demo/. Apart from a demo that is up."""
    from demo.apptainer import ApptainerUnavailable
    from demo.cluster import Cluster

    if os.environ.get(BUSY):
        pytest.fail(
            f"another run uses {runs.base()}: wait for its end, or set SNOWYSPAWNER_TEST_STATE to another directory",
            pytrace=False,
        )
    made = Cluster(runs.state_directory(), user_prefix=runs.account_prefix("snt"), image="small")
    try:
        made.up()
        yield made
    except ApptainerUnavailable as error:
        pytest.skip(f"NO CONTAINER TESTS: {error}")
    finally:
        if not keeps_cluster():
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
    hub.covered = True
    await hub.start()
    yield hub
    await hub.stop()


@pytest.fixture
async def users(cluster: Any, hub: Hub, slurm: Any) -> AsyncIterator[list[str]]:
    """The names of the demo accounts. Afterwards they are as new: no server, no job, no choice, an empty home."""
    names = list(cluster.users)
    if hub.process is None or hub.process.poll() is not None:
        await hub.start()  # a test that kills it has failed half way: one failure, not all that follow
    yield names
    for name in names:
        status, model = await hub.call("GET", f"/hub/api/users/{name}?include_stopped_servers")
        servers = model["servers"] if status == 200 else {}
        for server, its in servers.items():
            if not its["stopped"]:
                await hub.end(name, server)
        slurm("scancel", "-M", cluster.site.cluster, "-u", name)
        if servers:
            await hub.forget(name)
        empty(cluster.state / "home" / name)


def empty(home: Path) -> None:
    """Remove from a home directory what was not there when the account was made."""
    for entry in home.iterdir():
        if not Path("/etc/skel", entry.name).exists():
            subprocess.run(["rm", "-rf", "--one-file-system", "--", entry], check=True)
