"""What a session uses: real processes, recorded trees of cgroups, and stand-ins for nvidia-smi."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from snowyspawner.session.record import Ended, new_job
from snowyspawner.session.usage import Usage, read_usage, said_of
from snowyspawner.site import Site
from snowyspawner.standalone import sampler
from snowyspawner.standalone.sampler import Cgroup, Gpus, Processes, Sampler, job_cgroup

# /proc/self/cgroup of a batch step under Slurm 22.05 and 23.11, by slurmd's own layout (cgroup.conf(5)).
V2 = "0::/system.slice/slurmstepd.scope/job_17/step_batch/user/task_0\n"
V1 = """12:pids:/system.slice/slurmd.service
9:memory:/slurm/uid_1000/job_17/step_batch/task_0
4:cpu,cpuacct:/slurm/uid_1000/job_17/step_batch/task_0
1:name=systemd:/system.slice/slurmd.service
0::/system.slice/slurmd.service
"""
NONE = "0::/user.slice/user-0.slice/session-1.scope\n"


# -- cgroups -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "controller", "path"),
    [
        (V2, "", "/system.slice/slurmstepd.scope/job_17"),
        (V2, "memory", ""),
        (V1, "", ""),
        (V1, "cpuacct", "/slurm/uid_1000/job_17"),
        (V1, "memory", "/slurm/uid_1000/job_17"),
        (V1, "pids", ""),
        (NONE, "", ""),
        ("", "", ""),
        ("0::/a/job_17\n", "", "/a/job_17"),
        ("0::/a/job_17x/b\n", "", ""),
        ("nonsense\n::\n", "memory", ""),
    ],
)
def test_a_job_s_cgroup_is_found(text: str, controller: str, path: str) -> None:
    assert job_cgroup(text, controller) == path


def tree(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.mark.parametrize(
    ("own", "files"),
    [
        (
            V2,
            {
                "system.slice/slurmstepd.scope/job_17/cpu.stat": "usage_usec 90500000\nuser_usec 1\nsystem_usec 2\n",
                "system.slice/slurmstepd.scope/job_17/memory.current": "734003200\n",
                "system.slice/slurmstepd.scope/job_17/memory.stat": "file 209715200\ninactive_file 209715200\n",
            },
        ),
        (
            V1,
            {
                "cpuacct/slurm/uid_1000/job_17/cpuacct.usage": "90500000000\n",
                "memory/slurm/uid_1000/job_17/memory.usage_in_bytes": "734003200\n",
                "memory/slurm/uid_1000/job_17/memory.stat": "cache 209715200\ntotal_inactive_file 209715200\n",
            },
        ),
    ],
    ids=["version 2", "version 1"],
)
def test_a_cgroup_is_read_without_the_file_cache(tmp_path: Path, own: str, files: dict[str, str]) -> None:
    tree(tmp_path, {"own": own, **{f"fs/{name}": text for name, text in files.items()}})
    found = Cgroup(str(tmp_path / "fs"), str(tmp_path / "own"))
    assert found.cpu_seconds() == 90.5
    assert found.memory_mib() == 500.0


@pytest.mark.parametrize("own", [V1, V2])
def test_what_a_cgroup_does_not_tell_is_not_known(tmp_path: Path, own: str) -> None:
    """A controller may be off, and a file may hold what no kernel writes."""
    tree(tmp_path, {"own": own})
    found = Cgroup(str(tmp_path / "fs"), str(tmp_path / "own"))
    made = Sampler(None, 60, found)
    made.began -= 100
    assert list(made.record()) == ["seconds"]
    job = "fs/system.slice/slurmstepd.scope/job_17" if own == V2 else "fs/memory/slurm/uid_1000/job_17"
    tree(tmp_path, {f"{job}/memory.stat": "inactive_file many\n", f"{job}/memory.current": "max\n"})
    assert list(made.record()) == ["seconds"]


# -- processes ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def work() -> Iterator[Callable[[str], int]]:
    """Run Python below a process of its own; return that one's pid."""
    running = []

    def start(code: str) -> int:
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
        running.append(child)
        assert child.stdout
        assert child.stdout.readline() == b"up\n"
        return child.pid

    yield start
    for child in running:
        os.killpg(child.pid, 9)
        child.wait()
        assert child.stdout
        child.stdout.close()


def memory(pid: int, proc: str = "/proc") -> float:
    found = Processes(pid, proc)
    found.cpu_seconds()
    return float(found.memory_mib())


BUSY = """import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "print('up', flush=True)\\nwhile True: pass"])
time.sleep(1000)
"""
SHORT = """import subprocess, sys, time
print("up", flush=True)
while True:
    subprocess.run([sys.executable, "-c", "sum(range(10**6))"])
"""
HELD = """import time
held = bytearray(500 * 1024 * 1024)
held[::4096] = b"x" * len(held[::4096])
print("up", flush=True)
time.sleep(1000)
"""


def test_processor_time_of_a_child_counts(work: Callable[[str], int]) -> None:
    found = Processes(work(BUSY))
    before, began = found.cpu_seconds(), time.process_time_ns()
    wall = time.monotonic()
    time.sleep(1.5)
    used, passed = found.cpu_seconds() - before, time.monotonic() - wall
    # What it gets of a core depends on what else runs: the kernel's own word for that child is the measure.
    assert 0.2 * passed < used <= passed + 0.1
    assert time.process_time_ns() - began < 0.3e9  # it costs little


def test_processor_time_of_what_has_ended_counts_and_never_runs_back(work: Callable[[str], int]) -> None:
    found = Processes(work(SHORT))
    seen = []
    for _ in range(8):
        seen.append(found.cpu_seconds())
        time.sleep(0.2)
    assert seen == sorted(seen)
    assert seen[-1] - seen[0] > 0.2


def test_memory_that_is_held_counts(work: Callable[[str], int], tmp_path: Path) -> None:
    assert 500 < memory(work(HELD)) < 540


def test_memory_of_files_does_not_count(work: Callable[[str], int], tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(os.urandom(1024) * 300 * 1024)
    code = f"""import mmap, time
with open({str(tmp_path / "data")!r}, "rb") as file:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    total = sum(mapped[at] for at in range(0, len(mapped), 4096))
print("up", flush=True)
time.sleep(1000)
"""
    assert memory(work(code)) < 60


def test_a_process_that_is_not_there_is_not_known(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no process can be read"):
        memory(1, str(tmp_path))


# -- GPUs --------------------------------------------------------------------------------------------------------------

UUID = "GPU-5d4c0a2c-9d0f-2f5e-7f3f-0123456789ab"


@pytest.fixture
def smi(executable: Callable[..., Path]) -> Callable[[str], Gpus]:
    """A stand-in for nvidia-smi, which prints what a test says."""
    made = []

    def make(lines: str) -> Gpus:
        program = executable("nvidia-smi", f"#!/bin/sh\n# A stand-in for nvidia-smi.\n{lines}\n")
        made.append(Gpus(str(program), "0", 15.0))
        return made[-1]

    yield make  # type: ignore[misc]
    for gpus in made:
        gpus.close()
        assert gpus.child.stdout
        gpus.child.stdout.close()


def test_a_gpu_s_mean_peak_and_energy(smi: Callable[[str], Gpus], eventually: Callable[..., Any]) -> None:
    lines = "; ".join(f"echo '{UUID}, {busy}, {used}, 15360, 30.5'" for busy, used in ((0, 400), (12, 1400), (6, 900)))
    gpus = smi(f"{lines}; exec sleep 100")
    eventually(lambda: gpus.samples == 3, "three samples")
    assert gpus.record() == {
        "gpu_busy": 6.0,
        "gpu_memory_peak": 1400.0,
        "gpu_memory": 15360.0,
        "gpu_energy": 30.5 * 45 / 3600,
    }


def test_two_gpus_are_taken_together(smi: Callable[[str], Gpus], eventually: Callable[..., Any]) -> None:
    gpus = smi(f"echo '{UUID}, 100, 1000, 15360, 70'; echo 'GPU-2, 0, 10, 15360, 10'; exec sleep 100")
    eventually(lambda: gpus.samples == 2, "two samples")
    assert gpus.record()["gpu_busy"] == 50.0
    assert (gpus.record()["gpu_memory_peak"], gpus.record()["gpu_memory"]) == (1010.0, 30720.0)


def test_what_a_slice_does_not_tell_is_not_known(smi: Callable[[str], Gpus], eventually: Callable[..., Any]) -> None:
    gpus = smi(f"echo '{UUID}, [N/A], 900, 4864, [N/A]'; exec sleep 100")
    eventually(lambda: gpus.peak, "a sample")
    assert gpus.record() == {"gpu_memory_peak": 900.0, "gpu_memory": 4864.0}


@pytest.mark.parametrize(
    "lines",
    [
        "exit 9",
        "exec sleep 1000",
        "echo 'NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.'; exit 9",
        "echo ',,,,'; echo 'a, b, c, d, e'; echo 'x, -1, 1e99, nan, inf'; exec sleep 100",
        "head -c 100000 /dev/zero; exec sleep 100",
    ],
    ids=["dies", "hangs", "fails", "nonsense", "endless"],
)
def test_a_program_that_fails_makes_it_not_known(smi: Callable[[str], Gpus], lines: str) -> None:
    gpus = smi(lines)
    time.sleep(0.3)
    assert gpus.record() == {}


def test_a_missing_program_is_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    made = sampler.begin({"interval": 60, "gpu": "nvidia"}, lambda record: None)
    assert made.gpus is None
    assert made.close()["seconds"] < 10


def test_the_job_s_own_gpus_are_asked_for(executable: Callable[..., Path], tmp_path: Path) -> None:
    program = str(
        executable("nvidia-smi", f'#!/bin/sh\necho "$@" > {tmp_path}/argv; mv {tmp_path}/argv {tmp_path}/asked\n')
    )
    for visible, own in (("1,3", " --id=1,3"), (UUID, f" --id={UUID}"), ("MIG-1", ""), ("", "")):
        gpus = Gpus(program, visible, 3.6)
        gpus.child.wait(10)
        gpus.close()
        assert gpus.child.stdout
        gpus.child.stdout.close()
        assert (tmp_path / "asked").read_text() == (
            "--query-gpu=uuid,utilization.gpu,memory.used,memory.total,power.draw --format=csv,noheader,nounits"
            f" --loop=4{own}\n"
        )


# -- records -----------------------------------------------------------------------------------------------------------


class Source:
    """Stands in for what is measured: a core and a half, 500 MiB and then less."""

    def __init__(self) -> None:
        self.began, self.held = time.monotonic(), [500.0, 100.0]

    def cpu_seconds(self) -> float:
        return 7.0 + 1.5 * (time.monotonic() - self.began)

    def memory_mib(self) -> float:
        return self.held.pop(0) if self.held else 100.0


def test_a_record_has_means_and_peaks() -> None:
    source = Source()
    source.began -= 100
    made = Sampler(None, 60, source)
    made.began -= 100
    made.first = source.cpu_seconds() - 150
    record = made.record()
    assert record["cores"] == pytest.approx(1.5, abs=0.01)
    assert (record["memory"], record["memory_peak"]) == (500.0, 500.0)
    record = made.close()
    assert (record["memory"], record["memory_peak"]) == (100.0, 500.0)
    # What the hub takes.
    assert read_usage(json.loads(json.dumps(record))).memory_peak == 500.0


def test_records_are_sent_now_and_then_also_after_a_failure(eventually: Callable[..., Any]) -> None:
    sent: list[dict[str, float]] = []

    def post(record: dict[str, float]) -> None:
        sent.append(record)
        if len(sent) == 1:
            raise OSError("the hub is away")

    made = Sampler(post, 0.2, Source())
    made.start()
    eventually(lambda: len(sent) >= 3, "three records")
    made.close()
    count = len(sent)
    time.sleep(0.4)
    assert len(sent) <= count + 1
    assert sent[1]["seconds"] < sent[2]["seconds"]


# -- what the hub makes of it ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        None,
        [],
        {},
        {"cores": 1},
        {"seconds": -1},
        {"seconds": "60 s"},
        {"seconds": float("nan")},
        {"seconds": 60, "cores": float("inf")},
        {"seconds": 60, "gpu_busy": 101},
        {"seconds": 60, "cores": True and "many"},
        {"seconds": 60, "memory": 1e12},
        {"seconds": 60, "curve": [1] * 10000},
        {"seconds": 60, "cores": [1]},
    ],
)
def test_what_is_no_record_is_refused(said: Any) -> None:
    with pytest.raises(ValueError, match="usage: "):
        read_usage(said)


GPU = {"gpu": "t4", "gpu_count": 1}


@pytest.mark.parametrize(
    ("request_", "usage", "said"),
    [
        ({}, {"cores": 1.24, "memory_peak": 3120}, "Used in 52 min: 1.2 of 4 cores, 3.1 of 32 GB."),
        ({"cores": 1}, {"cores": 0.06, "memory_peak": 96}, "Used in 52 min: 0.06 of 1 core, 0.1 of 8 GB."),
        ({"partition": "node"}, {"cores": 4}, "Used in 52 min: 4 of 16 cores."),
        ({"memory": 64000}, {"memory_peak": 12345}, "Used in 52 min: 12 of 64 GB."),
        (
            GPU,
            {"cores": 1, "gpu_busy": 6.4, "gpu_memory": 15360, "gpu_memory_peak": 1400},
            "Used in 52 min: 1 of 4 cores, GPU busy 6 % of the time (most memory 1.4 of 15 GB).",
        ),
        (GPU, {"cores": 1}, "Used in 52 min: 1 of 4 cores, GPU not known."),
        (GPU, {}, ""),
        ({}, {}, ""),
        ({}, {"seconds": 29, "cores": 1}, ""),
    ],
)
def test_what_was_used_is_said_in_a_sentence(
    snowy: Site, request_: dict[str, Any], usage: dict[str, float], said: str
) -> None:
    request = {"environment": "tf-mkl", "image": "", "partition": "core", "cores": 4, "time": 3540, **request_}
    assert said_of(Usage(**{"seconds": 3120, **usage}), request, snowy) == said
    assert said_of(None, request, snowy) == ""


def test_it_is_stored_with_the_job_and_with_its_end() -> None:
    job, _ = new_job("", {})
    job.usage = Usage(seconds=60, cores=1)
    for stored in (job.model_dump(), Ended(usage=job.usage).model_dump()):
        assert json.loads(json.dumps(stored))["usage"]["cores"] == 1
