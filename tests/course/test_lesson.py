"""The course's exercise as students do it: sessions through the hub, in the real container, and real training."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.course import EXERCISE, built

from .. import runs
from ..conftest import keeps_cluster
from ..hubs import Hub

TRAINED = [("tf-mkl", 1), ("tf-mkl", 2), ("tf-pip", 1), ("tf-pip", 2)]
EXECUTE = """
import subprocess, sys
done = subprocess.run(
    [sys.executable, "-m", "jupyter", "nbconvert", "--to", "notebook", "--execute", "--inplace", {name!r}],
    cwd="exercise", capture_output=True, text=True,
)
print(done.stderr[-3000:] if done.returncode else "executed")
"""
# Processor time for each second that passes while TensorFlow and NumPy compute with all that the session has.
BUSY = """
import os, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy, tensorflow

def busy(work):
    work()
    began, cpu = time.perf_counter(), time.process_time()
    for _ in range(6):
        work()
    return (time.process_time() - cpu) / (time.perf_counter() - began)

square = tensorflow.random.normal((2500, 2500))
plain = numpy.random.default_rng(1).random((2500, 2500))
print(busy(lambda: tensorflow.reduce_sum(square @ square).numpy()), busy(lambda: plain @ plain))
"""


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """The miniature with the course's container, beside the one of other tests."""
    from demo.cluster import Cluster

    made = Cluster(runs.state_directory("course"), user_prefix=runs.account_prefix("snc"), image="course")
    made.up()
    yield made
    if not keeps_cluster():
        made.down()


async def session(hub: Hub, user: str, environment: str, cores: int) -> str:
    """Start a session; return its name."""
    name = f"{environment}-{cores}"
    await hub.serve(
        user, {"environment": environment, "partition": "core", "gpu": "none", "cores": cores, "time": "0:59:00"}, name
    )
    return name


async def open_notebook(hub: Hub, cluster: Any, user: str, server: str, name: str) -> list[str]:
    """Run all cells of a notebook in the session; return what each printed."""
    home = cluster.state / "home" / user
    if not (home / "exercise").exists():
        shutil.copytree(EXERCISE, home / "exercise")
        for path in (home / "exercise", *(home / "exercise").iterdir()):
            shutil.chown(path, user, user)
    said = await hub.run(user, EXECUTE.format(name=name), server, 600)
    assert said == "executed", said
    _, model = await hub.call("GET", f"/user/{user}/{server}/api/contents/exercise/{name}")
    cells = [cell for cell in model["content"]["cells"] if cell["cell_type"] == "code"]
    return ["".join(output.get("text", "") for output in cell["outputs"]) for cell in cells]


def rows(cluster: Any, user: str) -> list[dict[str, str]]:
    text = (cluster.state / "home" / user / "exercise" / "timings.csv").read_text()
    return list(csv.DictReader(io.StringIO(text)))


async def test_students_compare_cores_and_environments(
    hub: Hub, users: list[str], cluster: Any, figure: Callable[[str], None]
) -> None:
    user = users[0]
    for environment, cores in TRAINED:
        server = await session(hub, user, environment, cores)
        said = await open_notebook(hub, cluster, user, server, "1-train.ipynb")
        assert re.search(rf"^Environment +{environment}$", said[0], re.MULTILINE), said[0]
        assert re.search(rf"^Cores +{cores} granted, {cores} threads for one operation$", said[0], re.MULTILINE)
        assert re.search(r"^GPU +none$", said[0], re.MULTILINE)
        assert ("built in" in said[0]) == (environment == "tf-mkl")
        assert "Wall time" in said[3]
        row = rows(cluster, user)[-1]
        assert (row["environment"], row["cores"], row["threads"]) == (environment, str(cores), str(cores))
        assert row["node"] == (await hub.state(user, server))["job"]["node"]
        assert int(row["epochs"]) == 5
        assert float(row["accuracy"]) > 0.85  # it has learnt something
        tensorflow, numpy = (float(word) for word in (await hub.run(user, BUSY, server, 300)).split())
        share = float(row["cpu_seconds"]) / float(row["seconds"])
        epoch = float(row["seconds_per_epoch"])
        figure(
            f"{environment}, {cores} cores: {epoch:.2f} s for an epoch, {share:.2f} cores busy;"
            f" multiplying: TensorFlow {tensorflow:.2f}, NumPy {numpy:.2f}"
        )
        # One with one core has one core's time, one with two has about two, whatever the node has.
        for busy in (tensorflow, numpy):
            assert 0.75 * cores < busy < 1.1 * cores
        assert share < 1.1 * cores
        await hub.end(user, server)
    assert [(row["environment"], int(row["cores"])) for row in rows(cluster, user)] == TRAINED
    server = await session(hub, user, "tf-mkl", 1)
    said = await open_notebook(hub, cluster, user, server, "2-compare.ipynb")
    assert said[0].startswith("4 runs")
    picture = cluster.state / "home" / user / "exercise" / "timings.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 20_000
    shutil.copy(picture, Path("/var/tmp/snowyspawner-timings.png"))


async def test_tf_gpu_without_a_gpu_says_so_and_trains_on_the_cpu(hub: Hub, users: list[str], cluster: Any) -> None:
    if "tf-gpu" not in built():
        pytest.skip('the image was built without tf-gpu: make image ENVIRONMENTS=""')
    server = await session(hub, users[0], "tf-gpu", 2)
    said = await open_notebook(hub, cluster, users[0], server, "1-train.ipynb")
    assert "This session has no GPU: TensorFlow trains on the CPU." in said[0]
    assert "built for GPUs" in said[0]
    (row,) = rows(cluster, users[0])
    assert (row["environment"], row["gpu"]) == ("tf-gpu", "none")
    assert float(row["accuracy"]) > 0.85


async def test_the_image_has_this_exercise(hub: Hub, users: list[str]) -> None:
    """If not, `make image` makes it anew."""
    server = await session(hub, users[0], built()[-1], 1)
    for file in sorted(EXERCISE.iterdir()):
        if file.is_file():
            said = await hub.run(users[0], f"print(open('/opt/course/exercise/{file.name}').read())", server)
            assert said == file.read_text(encoding="utf-8").strip(), file.name


async def test_every_environment_has_what_a_course_needs(hub: Hub, users: list[str]) -> None:
    """JupyterLab's extensions of nbgitpuller and jupyter-resource-usage are on, and git is there for the first."""
    for environment in built():
        server = await session(hub, users[0], environment, 1)
        status, answer = await hub.call("GET", f"/user/{users[0]}/{server}/api/metrics/v1")
        assert status == 200, answer
        assert answer["rss"] > 0
        said = await hub.run(
            users[0], "import shutil, nbgitpuller, json; print(json.dumps(bool(shutil.which('git'))))", server
        )
        assert json.loads(said) is True
        await hub.end(users[0], server)
