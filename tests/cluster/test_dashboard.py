"""The dashboard's questions, asked of a real Prometheus that scrapes a real hub."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo import packages
from demo.commands import SYSTEM_PATH
from demo.progress import Progress
from snowyspawner._share import share_dir

from ..faults import FaultHub
from ..hubs import until
from .test_slurm_away import end_all

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

PANELS = json.loads((share_dir() / "deploy" / "grafana-dashboard.json").read_text())["panels"]
CPU = {"environment": "tf-pip", "partition": "core", "cores": "2", "gpu": "none", "time": "0:10:00"}
# Of these there is nothing to see here: no session has a GPU that is asked, none goes unused, and nothing fails.
EMPTY = {
    "GPU-hours that unused sessions gave back",
    "GPUs that were busy, by environment",
    "Sessions whose GPU was busy for less than a twentieth of the time",
}


@pytest.fixture
async def own(cluster: Any, users: list[str]) -> AsyncIterator[FaultHub]:
    made = FaultHub(cluster, cluster.state / "fault-hub", usage_interval=2)
    await made.start()
    yield made
    await end_all(made, users)
    await made.stop()


@pytest.fixture
async def ask(own: FaultHub, tmp_path: Path) -> AsyncIterator[Callable[[str], Any]]:
    """Ask a Prometheus, which looks at the hub each second."""
    packages.install(packages.PROMETHEUS, Progress(quiet=True))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    job = {
        "job_name": "hub",
        "metrics_path": "/hub/metrics",
        "authorization": {"credentials": own.token},
        "static_configs": [{"targets": [own.url.removeprefix("http://")]}],
    }
    config = tmp_path / "prometheus.yml"
    config.write_text(yaml.safe_dump({"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}))
    arguments = [f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}"]
    with open(tmp_path / "prometheus.log", "wb") as log:
        process = subprocess.Popen(
            ["prometheus", *arguments, f"--web.listen-address=127.0.0.1:{port}"],
            env={**os.environ, "PATH": f"{os.environ['PATH']}:{SYSTEM_PATH}"},
            stdout=log,
            stderr=log,
        )

    async def answer(expression: str) -> list[dict[str, Any]]:
        assert process.poll() is None, (tmp_path / "prometheus.log").read_text()[-3000:]
        assert own.session
        params = {"query": expression}
        async with own.session.get(f"http://127.0.0.1:{port}/api/v1/query", params=params) as said:
            result = await said.json()
        assert result["status"] == "success", (expression, result)
        return list(result["data"]["result"])

    async def ready() -> bool:
        assert own.session
        try:
            async with own.session.get(f"http://127.0.0.1:{port}/-/ready") as said:
                return said.status == 200
        except OSError:
            return False

    await until(ready, 30, f"Prometheus; see {tmp_path}/prometheus.log")
    yield answer
    process.terminate()
    process.wait(30)


def expressions() -> list[tuple[str, str]]:
    """Return title and expression of each panel, as Grafana would ask."""
    asked = []
    for panel in PANELS:
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "5m").replace("$__range", "5m")
            asked.append((panel["title"], expression))
    return asked


async def test_each_panel_has_what_it_shows(own: FaultHub, ask: Callable[[str], Any], users: list[str]) -> None:
    name = users[0]
    # Prometheus counts the growth of what it has seen before: so each kind twice.
    for server in ("first", "second"):
        await own.serve(name, CPU, server)

        async def measured(server: str = server) -> Any:
            return ((await own.state(name, server))["job"]["usage"] or {"seconds": 0})["seconds"] > 31

        await until(measured, 60, "half a minute of it")
        await own.end(name, server)
        await until(lambda: ask('snowyspawner_ends_total{state="STOPPED"}'), 20, "the end in Prometheus")

    async def counted() -> Any:
        found = await ask('increase(snowyspawner_ends_total{state="STOPPED"}[5m])')
        return found and float(found[0]["value"][1]) > 0

    await until(counted, 20, "two ends in Prometheus")
    for title, expression in expressions():
        rows = await ask(expression)
        assert bool(rows) == (title not in EMPTY), (title, expression, rows)
        for row in rows:
            assert "e" not in row["metric"].get("user", ""), row
            assert float(row["value"][1]) >= 0, (title, row)
    (row,) = await ask(dict(expressions())["Cores that were busy, by environment"])
    assert row["metric"] == {"environment": "tf-pip"}
    assert 0 < float(row["value"][1]) < 0.5


async def test_what_the_dashboard_asks_for_is_what_the_hub_counts(own: FaultHub) -> None:
    """No panel asks for a name that was never there, which would be empty for ever."""
    _, metrics = await own.call("GET", "/hub/metrics")
    there = set(re.findall(r"^# TYPE (snowyspawner_\w+) (?:counter|gauge|histogram)$", metrics, re.M))
    asked = {name for _, text in expressions() for name in re.findall(r"snowyspawner_\w+", text)}
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in asked} <= there
    # And nothing that is counted is on no panel.
    assert {name for name in there if not name.endswith("_created")} == {
        re.sub("_(bucket|sum|count)$", "", name) for name in asked
    }
    labels = set(re.findall(r"[{,](\w+)=", "\n".join(re.findall(r"^snowyspawner_.*$", metrics, re.M))))
    assert labels <= {"le", "outcome", "cause", "state", "cluster", "environment", "partition", "task"}
