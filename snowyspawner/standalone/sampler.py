"""What a session uses of its node: cores, memory and GPUs, in sums, means and peaks.

The hub sends this file's text with the claim; the launcher starts it with the server. What cannot be measured is left
out of the record: it is never 0, and never the session's end. Standard library only, Python 3.6 or newer. Nothing
imports it.
"""

import calendar
import contextlib
import glob
import http.client
import json
import os
import re
import subprocess
import threading
import time

PERIOD = 15.0  # seconds between two samples, at most
POINTS = 120  # of a curve, at most
# A session computes that has so many cores busy, or its GPUs for so many percent of the time. An idle server with a
# dozen idle kernels takes some hundredths of a core.
CORES, PERCENT = 0.1, 1.0
FIRST = 30.0  # seconds until the first record: a session that ends soon has one, too
# Utilization in percent, memory in MiB, power in W.
QUERY = ["--query-gpu=uuid,utilization.gpu,memory.used,memory.total,power.draw", "--format=csv,noheader,nounits"]
MIB = 1024.0 * 1024.0
TICKS = float(os.sysconf("SC_CLK_TCK"))


def job_cgroup(text, controller):
    """Return the job's part of a cgroup's path in /proc/PID/cgroup (cgroups(7)); empty where it has none of its own.

    *controller* is one of version 1's, or empty for version 2. Slurm's paths are …/job_17/step_batch/….
    """
    for line in text.splitlines():
        number, names, path = (line.split(":", 2) + ["", ""])[:3]
        if (controller in names.split(",")) if controller else (number == "0" and not names):
            found = re.match(r"(/.*?/job_[0-9]+)(/|$)", path)
            return found.group(1) if found else ""
    return ""


def numbers(path):
    """Return the lines ``NAME NUMBER`` of a cgroup's file. Raises OSError, ValueError."""
    with open(path) as lines:
        return {name: int(value) for name, value in (line.split() for line in lines)}


def number(path):
    """Return the one number in a file. Raises OSError, ValueError."""
    with open(path) as file:
        return int(file.read())


class Cgroup(object):
    """The job's cgroup, of either version. Slurm makes it where it is told to (cgroup.conf(5))."""

    def __init__(self, root="/sys/fs/cgroup", own="/proc/self/cgroup"):
        with open(own) as file:
            text = file.read()
        self.unified = root + job_cgroup(text, "") if job_cgroup(text, "") else ""
        self.cpu, self.memory = (
            "%s/%s%s" % (root, name, job_cgroup(text, name)) if job_cgroup(text, name) else ""
            for name in ("cpuacct", "memory")
        )

    def cpu_seconds(self):
        """Return the processor time of all of the job, in seconds. Raises OSError, ValueError, KeyError."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            if self.unified:
                return numbers(self.unified + "/cpu.stat")["usage_usec"] / 1e6
        if not self.cpu:
            raise OSError("no cgroup")
        return number(self.cpu + "/cpuacct.usage") / 1e9

    def memory_mib(self):
        """Return what the job holds, without files that are merely cached. Raises OSError, ValueError, KeyError."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            if self.unified:
                cached = numbers(self.unified + "/memory.stat")["inactive_file"]
                return (number(self.unified + "/memory.current") - cached) / MIB
        if not self.memory:
            raise OSError("no cgroup")
        cached = numbers(self.memory + "/memory.stat")["total_inactive_file"]
        return (number(self.memory + "/memory.usage_in_bytes") - cached) / MIB


class Processes(object):
    """The same of a process and all that it has started, for a node without cgroups.

    A node may have thousands of processes, so that they are looked through once for both, and with few steps.
    """

    def __init__(self, pid, proc="/proc"):
        self.pid, self.proc, self.before, self.family = pid, proc, 0.0, []

    def read(self, pid, name, size):
        """Return the beginning of a file of /proc/PID, at most *size* bytes. Raises OSError."""
        fd = os.open("%s/%s/%s" % (self.proc, pid, name), os.O_RDONLY)
        try:
            return os.read(fd, size)
        finally:
            os.close(fd)

    def cpu_seconds(self):
        """Return their processor time, in seconds; also of those that have ended and were waited for."""
        rows, children = {}, {}
        for name in os.listdir(self.proc):
            if name.isdigit():
                with contextlib.suppress(OSError, ValueError, IndexError):
                    # "PID (a name, which may hold anything) STATE PPID …", proc(5)
                    rows[int(name)] = fields = self.read(name, "stat", 1024).rpartition(b")")[2].split(None, 15)
                    children.setdefault(int(fields[1]), []).append(int(name))
        self.family = [self.pid]
        for pid in self.family:
            self.family += children.get(pid, [])
        # utime, stime, cutime and cstime. What nobody waits for is lost with it, and time does not run back.
        ticks = sum(sum(map(int, rows[pid][11:15])) for pid in self.family if pid in rows)
        self.before = max(self.before, ticks / TICKS)
        return self.before

    def memory_mib(self):
        """Return what those that `cpu_seconds` has found hold beside files. Raises OSError when none can be read."""
        kib, seen = 0, False
        for pid in self.family:
            with contextlib.suppress(OSError):
                held = re.findall(rb"^Rss(?:Anon|Shmem):\s+([0-9]+) kB$", self.read(pid, "status", 4096), re.M)
                kib, seen = kib + sum(map(int, held)), seen or bool(held)
        if not seen:
            raise OSError("no process can be read")
        return kib / 1024.0


class Gpus(object):
    """What is known of the job's GPUs together."""

    def __init__(self):
        self.busy = self.samples = self.joules = 0.0
        self.powered = False
        self.peak, self.total = {}, {}  # MiB, by GPU

    def note(self, gpu, busy, used, total, power, seconds):
        """Take a sample: percent, MiB, MiB and W, each None where not known; it stands for so many *seconds*."""
        if busy is not None and busy <= 100:
            self.busy, self.samples = self.busy + busy, self.samples + 1
        if used is not None and total is not None and len(self.peak) < 64:
            self.peak[gpu], self.total[gpu] = max(used, self.peak.get(gpu, 0.0)), total
        if power is not None:
            self.powered, self.joules = True, self.joules + power * seconds

    def sample(self, seconds):
        """Look at them, *seconds* after the last look."""

    def record(self):
        """Return what is known."""
        found = {}
        if self.samples:
            found["gpu_busy"] = self.busy / self.samples
        if self.peak:
            found.update(gpu_memory_peak=sum(self.peak.values()), gpu_memory=sum(self.total.values()))
        if self.powered:
            found["gpu_energy"] = self.joules / 3600.0
        return found

    def close(self):
        """End what looks at them."""


class Nvidia(Gpus):
    """NVIDIA's, as one nvidia-smi prints them every few seconds; it is never waited for. Raises OSError."""

    def __init__(self, program, visible, period):
        super(Nvidia, self).__init__()
        every = ["--loop=%d" % max(1, round(period))]
        # By number, or by UUID; parts of a GPU (MIG) have no utilization, and nvidia-smi knows them otherwise.
        own = ["--id=" + visible] if visible and not re.search("MIG", visible) else []
        self.child = subprocess.Popen(
            [program] + QUERY + every + own,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.period = period
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        """Take what it prints, until it ends."""
        for line in iter(lambda: self.child.stdout.readline(4096), b""):
            with contextlib.suppress(ValueError):
                self.take(line.decode(errors="replace"))

    def take(self, line):
        """Take a line. Raises ValueError for one that is none."""
        uuid, busy, used, total, power = [field.strip() for field in line.split(",")]

        def known(text):
            return float(text) if re.match(r"[0-9]{1,9}(\.[0-9]{1,9})?$", text) else None

        self.note(uuid, known(busy), known(used), known(total), known(power), self.period)

    def close(self):
        """End it."""
        # A driver that hangs keeps it, and what it has started may hold the pipe: neither holds up the session's end.
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self.child.kill()
            self.child.wait(1)
            self.reader.join(1)


class Amd(Gpus):
    """AMD's, as the kernel shows them; rocm-smi reads the same, but would have to be started for each look.

    The files are those of the kernel's documentation of amdgpu. Raises OSError where *visible* ones are not there.
    """

    def __init__(self, visible, root="/sys/class/drm"):
        super(Amd, self).__init__()
        cards = (os.path.realpath(path) for path in glob.glob(root + "/renderD*/device"))
        # Numbered by their places on the bus, as ROCm and Slurm do.
        cards = sorted(card for card in cards if os.path.exists(card + "/gpu_busy_percent"))
        try:
            self.cards = [cards[int(place)] for place in visible.split(",")] if visible else cards
        except (ValueError, IndexError):
            raise OSError("not the numbers of GPUs: " + visible)
        if not self.cards:
            raise OSError("no GPUs in " + root)

    def sample(self, seconds):
        """Look at them."""
        for card in self.cards:

            def known(name, unit, card=card):
                for path in sorted(glob.glob(card + name)):
                    with contextlib.suppress(OSError, ValueError):
                        return number(path) / unit
                return None

            self.note(
                card,
                known("/gpu_busy_percent", 1.0),
                known("/mem_info_vram_used", MIB),
                known("/mem_info_vram_total", MIB),
                known("/hwmon/hwmon*/power1_[ai]*", 1e6),  # power1_average; newer ones have power1_input
                seconds,
            )


class Curve(object):
    """How values went: for each step of the time their means. The steps grow longer as time goes on."""

    def __init__(self, names, step):
        self.names, self.step = names, step
        self.rows = []  # of each step: for each name a sum and a count

    def add(self, passed, values):
        """Take the *values* of one moment, *passed* seconds after the beginning; None: not known."""
        while passed >= self.step * POINTS:
            self.step *= 2
            pairs = [self.rows[at : at + 2] for at in range(0, len(self.rows), 2)]
            self.rows = [[tuple(map(sum, zip(*cells))) for cells in zip(*pair)] for pair in pairs]
        at = int(passed // self.step)
        # Nothing was measured while the job was suspended.
        self.rows += [[(0.0, 0)] * len(self.names) for _ in range(at + 1 - len(self.rows))]
        self.rows[at] = [
            cell if value is None else (cell[0] + value, cell[1] + 1) for cell, value in zip(self.rows[at], values)
        ]

    def record(self):
        """Return it: ``step`` in seconds, and of each name that has any the list of its means."""
        found = {"step": self.step}
        for name, cells in zip(self.names, zip(*self.rows)):
            if any(count for _, count in cells):
                found[name] = [round(total / count, 3) if count else None for total, count in cells]
        return found


class Server(object):
    """The session's own server, which knows when somebody used it last.

    *token* is its own. JupyterLab's page asks it much by itself, and the extension marks what it asks
    (share/labextension/).
    """

    def __init__(self, host, port, prefix, token):
        self.host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        self.port, self.prefix, self.token = port, prefix, token

    def used_at(self):
        """Return when it was used last, in epoch seconds. Raises OSError, HTTPException, ValueError, KeyError."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=5)
        try:
            connection.request("GET", self.prefix + "api/status", headers={"Authorization": "token " + self.token})
            answer = connection.getresponse()
            if answer.status != 200:
                raise OSError("it answers %d" % answer.status)
            said = json.loads(answer.read(65536).decode())["last_activity"]
        finally:
            connection.close()
        return calendar.timegm(time.strptime(said[:19], "%Y-%m-%dT%H:%M:%S"))


class Sampler(object):
    """Samples from its start on, and hands a record to *post* now and then, to *show* each time. Raises nothing.

    What is shown says how it is now, too.
    """

    def __init__(self, post, interval, source, gpus=None, show=None, server=None, has_gpu=False):
        self.post, self.interval, self.source, self.gpus, self.show = post, interval, source, gpus, show
        self.server, self.has_gpu = server, has_gpu  # a server: how long it has not been used is of interest
        self.used_at = time.time()
        self.unused_end = 0  # epoch seconds: when the hub ends it for that; 0: not soon
        self.period = min(PERIOD, interval / 4.0)
        self.began = time.monotonic()
        self.first = self.measured("cpu_seconds")
        self.memory = self.peak = None
        # No step is without a sample, though one may be a little late.
        self.curve = Curve(("cores", "memory", "gpu_busy"), 2 * self.period)
        self.before = (0.0, self.first, 0.0, 0.0)  # seconds, processor time, the GPUs' sum and number of samples
        self.gpu = None  # when its utilization was measured last, and what it was
        self.now = {}
        self.closed = threading.Event()
        self.looking = threading.Lock()

    def measured(self, what):
        """Return a measurement; None: it cannot be had."""
        try:
            return getattr(self.source, what)()
        except (OSError, ValueError, KeyError, IndexError):
            return None

    def record(self):
        """Take a sample; return what is known: seconds, cores (their mean number), memory (MiB), GPUs, the curve."""
        with self.looking:
            return self.look()

    def look(self):
        """Do that, one thread at a time."""
        passed, cpu = time.monotonic() - self.began, self.measured("cpu_seconds")
        found = {"seconds": passed}
        if cpu is not None and self.first is not None and passed > 1:
            found["cores"] = max(0.0, cpu - self.first) / passed
        self.memory = self.measured("memory_mib")
        if self.memory is not None:
            self.peak = max(self.memory, self.peak or 0.0)
            found["memory"] = max(0.0, self.memory)
        if self.peak is not None:
            found["memory_peak"] = max(0.0, self.peak)
        self.note(passed, cpu)
        if self.gpus:
            found.update(self.gpus.record())
        if self.server:
            found["unused"] = max(0.0, time.time() - self.used_at)
        found = {name: round(value, 3) for name, value in found.items()}
        curve = self.curve.record()
        return dict(found, curve=curve) if len(curve) > 1 else found

    def note(self, passed, cpu):
        """Note how it is now: since the sample before."""
        then, cpu_then, busy_then, samples_then = self.before
        if passed - then < self.period / 2:
            return
        if self.gpus:
            self.gpus.sample(passed - then)
        busy, samples = (self.gpus.busy, self.gpus.samples) if self.gpus else (0.0, 0.0)
        cores = gpu = None
        if cpu is not None and cpu_then is not None:
            cores = max(0.0, cpu - cpu_then) / (passed - then)
        if samples > samples_then:
            self.gpu = (passed, (busy - busy_then) / (samples - samples_then))
        # Two clocks of the same period: now and then there is none between two looks.
        if self.gpu and passed - self.gpu[0] < 2.5 * self.period:
            gpu = self.gpu[1]
        self.before = (passed, cpu, busy, samples)
        # It is of the time that has passed: its last moment may be in the next step.
        self.curve.add((then + passed) / 2.0, (cores, self.memory, gpu))
        # One that was suspended, or could not be measured for a while, may have been used before that.
        self.look_for_use(cores if passed - then < 60 + 4 * self.period else None, gpu)
        known = {"cores": cores, "memory": self.memory, "gpu_busy": gpu}
        self.now = {name: round(value, 3) for name, value in known.items() if value is not None}

    def look_for_use(self, cores, gpu):
        """Note when it was used, or has computed, last. What is not known is taken for use."""
        computes = cores is None or cores >= CORES or (self.has_gpu and (gpu is None or gpu >= PERCENT))
        if not self.server or computes:
            self.used_at = time.time()
            return
        try:
            self.used_at = min(time.time(), max(self.used_at, self.server.used_at()))
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
            self.used_at = time.time()

    def start(self):
        """Begin, in the background."""
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        """Sample until closed."""
        due = self.began + min(FIRST, self.interval)
        while not self.closed.wait(self.period):
            record = self.record()
            # When it is about to be ended for not being used, the hub learns at once that it is, and when time is up.
            used_again = self.unused_end and record.get("unused", 0) < 2 * self.period
            if time.monotonic() >= due or used_again or 0 < self.unused_end <= time.time():
                due = time.monotonic() + self.interval
                # The hub may be away; the next record says more than this one.
                with contextlib.suppress(Exception):
                    answer = self.post(record)
                    left = (answer or {}).get("unused_left")
                    self.unused_end = 0 if left is None else time.time() + left
            if self.show:
                with contextlib.suppress(Exception):
                    self.show(dict(record, now=self.now, unused_end=self.unused_end))

    def close(self):
        """End; return the last record, None if there is none."""
        self.closed.set()
        record = None
        # Whatever is wrong with it, the session ends as it should.
        with contextlib.suppress(Exception):
            record = self.record()
        if self.gpus:
            self.gpus.close()
        return record


def begin(spec, post, show=None, server=None):
    """Begin for a job: *spec* has the seconds between two records and the vendor of its GPUs (empty: none).

    *server* are the arguments of its `Server`, which is asked where *spec* says that unused sessions are ended.
    """
    source = Cgroup()
    if not (source.unified or source.cpu):
        source = Processes(os.getpid())
    gpus = None
    with contextlib.suppress(OSError):
        if spec["gpu"] == "nvidia":
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
            gpus = Nvidia("nvidia-smi", visible, min(PERIOD, spec["interval"] / 4.0))
        elif spec["gpu"] == "amd":
            gpus = Amd(os.environ.get("SLURM_JOB_GPUS", ""))
    watched = Server(*server) if server and spec.get("idle") else None
    sampler = Sampler(post, spec["interval"], source, gpus, show, watched, bool(spec["gpu"]))
    sampler.start()
    return sampler
