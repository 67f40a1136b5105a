"""What a session uses: real processes, recorded trees of cgroups, and stand-ins for nvidia-smi."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from snowyspawner.session.record import Ended, new_job
from snowyspawner.session.usage import Usage, energy_of, lines_of, read_usage, said_of, shares_of
from snowyspawner.site import Site
from snowyspawner.standalone import sampler
from snowyspawner.standalone.sampler import Amd, Cgroup, Curve, Nvidia, Processes, Sampler, Server, job_cgroup

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


# Real ones, where this account may make any: version 1, as on this machine's kernel, or version 2.
MOUNTS = {
    "version 1": ("/sys/fs/cgroup/cpuacct", "/sys/fs/cgroup/memory"),
    "version 2": ("/sys/fs/cgroup",),
}


def writable_cgroups() -> tuple[str, ...]:
    """Return the mounts below which a job's cgroup can be made and measured; none: nowhere."""
    for mounts in MOUNTS.values():
        files = ("cpuacct.usage", "memory.usage_in_bytes") if len(mounts) == 2 else ("cgroup.subtree_control",)
        if all(os.access(Path(mount, file), os.R_OK) for mount, file in zip(mounts, files, strict=True)):
            enabled = Path(mounts[0], "cgroup.subtree_control")
            if os.access(mounts[0], os.W_OK) and (len(mounts) == 2 or "memory" in enabled.read_text()):
                return mounts
    return ()


@pytest.fixture
def job_cgroups() -> Iterator[list[Path]]:
    """Cgroups as slurmstepd makes them, one for each mount: …/job_17/step_batch. They are empty when they go."""
    mounts = writable_cgroups()
    made = []
    for mount in mounts:
        for old in Path(mount).glob("snowyspawner-test-*"):  # of a run that was killed
            for path in (*sorted(old.rglob("*/"), reverse=True), old):
                with contextlib.suppress(OSError):
                    path.rmdir()
        step = Path(mount, f"snowyspawner-test-{os.getpid()}", "job_17", "step_batch")
        step.mkdir(parents=True)
        made.append(step)
        if len(mounts) == 1:
            for parent in (step.parent.parent, step.parent):
                (parent / "cgroup.subtree_control").write_text("+cpu +memory")
    yield made
    for step in made:
        for path in (step, *list(step.parents)[:2]):
            path.rmdir()


def test_a_real_cgroup_is_read(
    job_cgroups: list[Path], tmp_path: Path, eventually: Callable[..., Any], work: Callable[..., int]
) -> None:
    """Work, memory and cached files of a process in it. Where none can be made, a job's processes are measured."""
    if not job_cgroups:
        made = sampler.begin({"interval": 60, "gpu": ""}, lambda record: None)
        made.close()
        assert isinstance(made.source, sampler.Processes)
        return
    data = tmp_path / "data"
    data.write_bytes(os.urandom(1024) * 200 * 1024)
    with data.open("rb+") as file:  # out of the cache, so that it is this cgroup's to read it
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    moves = "\n".join(f"open({str(step / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))" for step in job_cgroups)
    pid = work(f"""import os, time
{moves}
held = bytearray(300 * 1024 * 1024)
held[::4096] = b"x" * len(held[::4096])
read = sum(len(part) for part in iter(lambda f=open({str(data)!r}, "rb"): f.read(1 << 20), b""))
print("up", flush=True)
end = time.monotonic() + 1000
while time.monotonic() < end:
    pass
""")
    found = Cgroup("/sys/fs/cgroup", f"/proc/{pid}/cgroup")
    # The kernel brings memory.stat up to date every two seconds.
    eventually(lambda: 300 < found.memory_mib() < 300 + 60, "the memory that is held, without the file")
    before, began = found.cpu_seconds(), time.monotonic()
    held = Processes(pid)
    first = held.cpu_seconds()
    time.sleep(2)
    used, passed, by_itself = found.cpu_seconds() - before, time.monotonic() - began, held.cpu_seconds() - first
    # What it gets of a core depends on what else runs.
    assert by_itself - 0.1 <= used <= passed + 0.1


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
def smi(executable: Callable[..., Path]) -> Callable[[str], Nvidia]:
    """A stand-in for nvidia-smi, which prints what a test says."""
    made = []

    def make(lines: str) -> Nvidia:
        program = executable("nvidia-smi", f"#!/bin/sh\n# A stand-in for nvidia-smi.\n{lines}\n")
        made.append(Nvidia(str(program), "0", 15.0))
        return made[-1]

    yield make  # type: ignore[misc]
    for gpus in made:
        gpus.close()
        assert gpus.child.stdout
        gpus.child.stdout.close()


def test_a_gpu_s_mean_peak_and_energy(smi: Callable[[str], Nvidia], eventually: Callable[..., Any]) -> None:
    lines = "; ".join(f"echo '{UUID}, {busy}, {used}, 15360, 30.5'" for busy, used in ((0, 400), (12, 1400), (6, 900)))
    gpus = smi(f"{lines}; exec sleep 100")
    eventually(lambda: gpus.samples == 3, "three samples")
    assert gpus.record() == {
        "gpu_busy": 6.0,
        "gpu_memory_peak": 1400.0,
        "gpu_memory": 15360.0,
        "gpu_energy": 30.5 * 45 / 3600,
    }


def test_two_gpus_are_taken_together(smi: Callable[[str], Nvidia], eventually: Callable[..., Any]) -> None:
    gpus = smi(f"echo '{UUID}, 100, 1000, 15360, 70'; echo 'GPU-2, 0, 10, 15360, 10'; exec sleep 100")
    eventually(lambda: gpus.samples == 2, "two samples")
    assert gpus.record()["gpu_busy"] == 50.0
    assert (gpus.record()["gpu_memory_peak"], gpus.record()["gpu_memory"]) == (1010.0, 30720.0)


def test_what_a_slice_does_not_tell_is_not_known(smi: Callable[[str], Nvidia], eventually: Callable[..., Any]) -> None:
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
def test_a_program_that_fails_makes_it_not_known(smi: Callable[[str], Nvidia], lines: str) -> None:
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
        gpus = Nvidia(program, visible, 3.6)
        gpus.child.wait(10)
        gpus.close()
        assert gpus.child.stdout
        gpus.child.stdout.close()
        assert (tmp_path / "asked").read_text() == (
            "--query-gpu=uuid,utilization.gpu,memory.used,memory.total,power.draw --format=csv,noheader,nounits"
            f" --loop=4{own}\n"
        )


# AMD's: files as the kernel's documentation of amdgpu has them, for no such GPU is here.


def amd(root: Path, cards: dict[str, dict[str, str]]) -> str:
    for number, (bus, files) in enumerate(cards.items()):
        tree(root / bus, files)
        (root / "drm" / f"renderD{128 + number}").mkdir(parents=True)
        (root / "drm" / f"renderD{128 + number}" / "device").symlink_to(root / bus)
    return str(root / "drm")


CARD = {
    "gpu_busy_percent": "40\n",
    "mem_info_vram_used": f"{2 << 30}\n",
    "mem_info_vram_total": f"{64 << 30}\n",
    "hwmon/hwmon3/power1_average": "250000000\n",
    "hwmon/hwmon3/power1_cap": "560000000\n",
}


def test_amd_s_gpus_are_read_from_the_kernel(tmp_path: Path) -> None:
    root = amd(tmp_path, {"0000:c1:00.0": CARD})
    gpus = Amd("", root)
    gpus.sample(15.0)
    assert gpus.record() == {
        "gpu_busy": 40.0,
        "gpu_memory_peak": 2048.0,
        "gpu_memory": 65536.0,
        "gpu_energy": 250 * 15 / 3600,
    }


def test_only_the_job_s_own_of_amd_s_count_by_their_place_on_the_bus(tmp_path: Path) -> None:
    idle = {**CARD, "gpu_busy_percent": "0\n"}
    # Their numbers are not in the order of the bus; a card of another vendor has no such files.
    root = amd(tmp_path, {"0000:c1:00.0": CARD, "0000:02:00.0": idle, "0000:01:00.0": {"vendor": "0x1a03"}})
    for visible, busy in (("0", 0.0), ("1", 40.0), ("0,1", 20.0), ("", 20.0)):
        gpus = Amd(visible, root)
        gpus.sample(15.0)
        assert gpus.record()["gpu_busy"] == busy, visible


def test_what_amd_s_do_not_tell_is_not_known(tmp_path: Path) -> None:
    root = amd(tmp_path, {"0000:c1:00.0": {"gpu_busy_percent": "many\n", "hwmon/hwmon3/power1_input": "9000000\n"}})
    gpus = Amd("0", root)
    gpus.sample(3600.0)
    assert gpus.record() == {"gpu_energy": 9.0}
    for visible, where in (("1", root), ("a", root), ("", str(tmp_path / "nothing"))):
        with pytest.raises(OSError, match=r"not the numbers|no GPUs"):
            Amd(visible, where)


@pytest.mark.parametrize("vendor", ["amd", "intel", ""])
def test_without_such_gpus_a_session_is_measured_all_the_same(vendor: str) -> None:
    made = sampler.begin({"interval": 60, "gpu": vendor}, lambda record: None)
    assert made.gpus is None
    assert made.close()["seconds"] < 10


# -- curves ------------------------------------------------------------------------------------------------------------


def test_a_curve_has_the_mean_of_each_step() -> None:
    curve = Curve(("cores", "gpu_busy"), 15.0)
    for passed, cores in ((3, 1.0), (14.9, 2.0), (15, 4.0), (61, 0.5)):
        curve.add(passed, (cores, None))
    assert curve.record() == {"step": 15.0, "cores": [1.5, 4.0, None, None, 0.5]}


@pytest.mark.parametrize("hours", [0.4, 0.5, 0.6, 1, 10, 240])
def test_a_curve_has_a_point_for_all_of_the_time_and_120_at_most(hours: float) -> None:
    curve = Curve(("cores",), 15.0)
    samples = int(hours * 240)
    for number in range(samples):
        # The first half of the session is busy.
        curve.add(number * 15.0 + 7, (1.0 if number < samples / 2 else 0.0,))
    record = curve.record()
    values = record["cores"]
    assert len(values) == -(-samples * 15 // record["step"])
    assert 60 <= len(values) <= 120
    assert sum(values) / len(values) == pytest.approx(0.5, abs=0.02)
    assert (values[0], values[-1]) == (1.0, 0.0)
    assert read_usage({"seconds": 1, "curve": json.loads(json.dumps(record))}).curve


def test_a_long_silence_is_a_gap() -> None:
    """A suspended job measures nothing."""
    curve = Curve(("cores",), 15.0)
    curve.add(1, (1.0,))
    curve.add(10 * 86400, (2.0,))
    values = curve.record()["cores"]
    assert (values[0], values[-1], set(values[1:-1])) == (1.0, 2.0, {None})
    assert len(values) <= 120


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
    made.before = (0.0, made.first, 0.0, 0.0)
    record = made.record()
    assert made.now == {"cores": pytest.approx(1.5, abs=0.01), "memory": 500.0}
    assert record.pop("curve")["cores"] == [None, pytest.approx(1.5, abs=0.01)]
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


def test_what_is_shown_is_shown_at_each_sample_whatever_comes_of_it(eventually: Callable[..., Any]) -> None:
    shown: list[dict[str, Any]] = []

    def show(record: dict[str, Any]) -> None:
        shown.append(record)
        raise OSError("No space left on device")

    made = Sampler(lambda record: None, 0.4, Source(), show=show)
    made.start()
    eventually(lambda: len(shown) >= 3, "three samples")
    made.close()
    assert shown[-1]["now"]["cores"] == pytest.approx(1.5, abs=0.2)
    assert len(shown[-1]["curve"]["cores"]) >= 2


def test_a_fault_of_ours_is_not_the_session_s_end() -> None:
    made = Sampler(lambda record: None, 60, Source())
    made.curve = None
    made.before = (-100.0, 0.0, 0.0, 0.0)
    assert made.close() is None


# -- whether it is used ------------------------------------------------------------------------------------------------


class StandInServer:
    """Stands in for the session's own server: it was used *ago* seconds ago, or fails."""

    def __init__(self, ago: float | Exception) -> None:
        self.ago = ago

    def used_at(self) -> float:
        if isinstance(self.ago, Exception):
            raise self.ago
        return time.time() - self.ago


@pytest.mark.parametrize(
    ("ago", "cores", "gpu", "unused"),
    [
        (500, 0.02, None, 500),
        (0, 0.02, None, 0),
        (-60, 0.02, None, 0),  # its clock is ahead
        # A silent kernel that computes.
        (500, 0.1, None, 0),
        (500, 1.0, None, 0),
        # What is not known is taken for use.
        (500, None, None, 0),
        (OSError("no answer"), 0.02, None, 0),
        (ValueError("no JSON"), 0.02, None, 0),
        (KeyError("last_activity"), 0.02, None, 0),
        # With a GPU that counts as well.
        (500, 0.02, 0.0, 500),
        (500, 0.02, 0.9, 500),
        (500, 0.02, 1.0, 0),
    ],
)
def test_a_session_is_unused_that_neither_computes_nor_was_touched(
    ago: Any, cores: float | None, gpu: float | None, unused: float
) -> None:
    made = Sampler(lambda record: None, 60, Source(), server=StandInServer(ago), has_gpu=gpu is not None)
    made.used_at = time.time() - 9000
    made.look_for_use(cores, gpu)
    assert time.time() - made.used_at == pytest.approx(unused, abs=1)


def test_a_gpu_that_is_not_known_is_taken_for_use() -> None:
    made = Sampler(lambda record: None, 60, Source(), server=StandInServer(500), has_gpu=True)
    made.used_at = time.time() - 9000
    made.look_for_use(0.0, None)
    assert time.time() - made.used_at < 1


def test_a_gpu_that_is_between_two_measurements_is_what_it_was(smi: Callable[[str], Nvidia]) -> None:
    """nvidia-smi has a clock of its own; one that has died is not known any more."""
    gpus = smi("exec sleep 100")
    made = Sampler(lambda record: None, 60, Source(), gpus)
    gpus.note("a", 40.0, None, None, None, 15.0)
    seen = []
    for passed in (15.0, 30.0, 45.0, 60.0):
        made.note(passed, 0.0)
        seen.append(made.now.get("gpu_busy"))
    assert seen == [40.0, 40.0, 40.0, None]


def test_a_session_that_was_suspended_is_taken_for_used() -> None:
    made = Sampler(lambda record: None, 60, Source(), server=StandInServer(9000))
    made.before, made.used_at = (100.0, 0.0, 0.0, 0.0), time.time() - 9000
    made.note(115.0, 0.0)
    assert time.time() - made.used_at > 8000
    made.note(5000.0, 0.0)
    assert time.time() - made.used_at < 5


def test_where_it_does_not_matter_nothing_is_said_of_use() -> None:
    assert "unused" not in Sampler(lambda record: None, 60, Source()).record()


@pytest.mark.parametrize("left", [0.0, 30.0])
def test_the_hub_learns_at_once_what_it_waits_for(eventually: Callable[..., Any], left: float) -> None:
    """That time is up; or that the session is used again."""
    server, sent = StandInServer(500), []

    def post(record: dict[str, Any]) -> dict[str, Any]:
        sent.append(record)
        if left:
            server.ago = 0
        return {"unused_left": left} if len(sent) == 1 else {}

    made = Sampler(post, 2.0, Source(), server=server)
    made.source.cpu_seconds = lambda: 0.0
    made.used_at, made.period = time.time() - 500, 0.1
    made.start()
    # The first is due after two seconds, the next by itself two seconds later.
    eventually(lambda: len(sent) == 2, "two records", 4.0)
    made.close()
    assert sent[1]["seconds"] - sent[0]["seconds"] < 1.0
    assert (sent[0]["unused"] > 400, sent[1]["unused"] > 400) == (True, not left)


@pytest.mark.parametrize(
    ("status", "body", "at"),
    [
        (200, '{"started": "x", "last_activity": "2026-10-01T10:00:00.123456Z", "kernels": 0}', 1790848800),
        (200, '{"last_activity": "2026-10-01T10:00:00Z"}', 1790848800),
        (403, '{"message": "Forbidden"}', None),
        (200, "<html>", None),
        (200, "{}", None),
        (200, "[1]", None),
        (200, '{"last_activity": "yesterday"}', None),
        (200, '{"last_activity": 5}', None),
    ],
)
def test_the_server_s_own_last_activity(status: int, body: str, at: int | None) -> None:
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers["Authorization"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *args: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.handle_request)
        thread.start()
        server = Server("127.0.0.1", listening.server_port, "/user/you/", "own-token")
        made = Sampler(lambda record: None, 60, Source(), server=server)
        made.used_at = 0.0
        made.look_for_use(0.0, None)
        thread.join()
    assert asked == [("/user/you/api/status", "token own-token")]
    if at is None:
        assert time.time() - made.used_at < 5
    else:
        assert made.used_at == at


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
        {"seconds": 60, "curve": {}},
        {"seconds": 60, "curve": {"step": 0}},
        {"seconds": 60, "curve": {"step": 15, "cores": [1] * 121}},
        {"seconds": 60, "curve": {"step": 15, "cores": [-1]}},
        {"seconds": 60, "curve": {"step": 15, "cores": [float("nan")]}},
        {"seconds": 60, "curve": {"step": 15, "gpu_busy": [101]}},
        {"seconds": 60, "curve": {"step": 15, "processes": [1]}},
        {"seconds": 60, "now": {"cores": 1}},
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


def test_its_curves_are_shares_of_what_the_session_had(snowy: Site) -> None:
    curve = {"step": 15, "cores": [0.04, 3.9, None, 8], "memory": [1, 2], "gpu_busy": [6, 6, 6, 6]}
    request = {"environment": "tf-mkl", "image": "", "partition": "core", "cores": 4, "time": 3540}
    usage = read_usage({"seconds": 60, "curve": curve})
    cores = ("Cores", "0.04 to 8 of 4", (0.01, 0.975, None, 1.0))
    assert lines_of(usage, request, snowy) == (cores,)
    assert lines_of(usage, {**request, **GPU}, snowy) == (cores, ("GPU", "6 %", (0.06,) * 4))
    assert lines_of(read_usage({"seconds": 60, "curve": {"step": 15, "cores": [1]}}), request, snowy) == ()
    assert lines_of(read_usage({"seconds": 60}), request, snowy) == lines_of(None, request, snowy) == ()


@pytest.mark.parametrize(
    ("energy", "co2", "said"),
    [
        (12.34, None, "Energy of the GPU alone: 12 Wh."),
        (0.42, 40, "Energy of the GPU alone: 0.4 Wh, 0.02 g of CO\N{SUBSCRIPT TWO}."),
        (0.1, 40, "Energy of the GPU alone: 0.1 Wh, less than 0.01 g of CO\N{SUBSCRIPT TWO}."),
        (2500, 400, "Energy of the GPU alone: 2.5 kWh, 1 kg of CO\N{SUBSCRIPT TWO}."),
        (12.34, 0, "Energy of the GPU alone: 12 Wh, 0 g of CO\N{SUBSCRIPT TWO}."),
        (None, 40, ""),
    ],
)
def test_energy_is_the_gpu_s_alone(snowy: Site, energy: float | None, co2: int | None, said: str) -> None:
    site = snowy.model_copy(update={"co2": co2})
    assert energy_of(Usage(seconds=60, gpu_energy=energy), site) == said
    assert energy_of(Usage(seconds=29, gpu_energy=energy), site) == energy_of(None, site) == ""


@pytest.mark.parametrize(
    ("request_", "usage", "shares"),
    [
        (GPU, {"cores": 1, "gpu_busy": 6}, ("tf-mkl", "core", 0.25, 0.06)),
        ({}, {"cores": 1, "gpu_busy": 6}, ("tf-mkl", "core", 0.25, None)),
        ({"partition": "node"}, {"cores": 4}, ("tf-mkl", "node", 0.25, None)),
        ({}, {"cores": 4.2}, ("tf-mkl", "core", 1.0, None)),
        (GPU, {}, ("tf-mkl", "core", None, None)),
        # Names of a person's are in no label.
        ({"own_environment": "/home/you/mine"}, {"cores": 1}, ("own", "core", 0.25, None)),
        ({"own_container": "/home/you/mine.sif"}, {"cores": 1}, ("own", "core", 0.25, None)),
        ({"environment": "mine", "partition": "gone"}, {"cores": 1}, ("other", "other", 0.25, None)),
        ({}, {"seconds": 29, "cores": 1}, None),
    ],
)
def test_what_is_counted_of_a_session(
    snowy: Site, request_: dict[str, Any], usage: dict[str, float], shares: Any
) -> None:
    request = {"environment": "tf-mkl", "image": "", "partition": "core", "cores": 4, "time": 3540, **request_}
    assert shares_of(Usage(**{"seconds": 3120, **usage}), request, snowy) == shares
    assert shares_of(None, request, snowy) is None


def test_it_is_stored_with_the_job_and_with_its_end() -> None:
    job, _ = new_job("", {})
    job.usage = Usage(seconds=60, cores=1)
    for stored in (job.model_dump(), Ended(usage=job.usage).model_dump()):
        assert json.loads(json.dumps(stored))["usage"]["cores"] == 1
