"""What the exercise's notebooks share: the data, what this session is, and the timings that they write down and draw.

Uses what the course's container has, and nothing of snowyspawner.
"""

import csv
import datetime
import gzip
import os
import platform
import statistics
import sys
import time
from pathlib import Path

# TensorFlow's own messages: all of them where there is a GPU, as they say what is wrong with it; else no more than
# what a student has to read.
# Slurm says NoDevFiles where it has handed out none.
HAS_GPU = os.environ.get("CUDA_VISIBLE_DEVICES", "").strip() not in ("", "NoDevFiles")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1" if HAS_GPU else "3")

DATA = Path("/usr/share/datasets/fashion-mnist")  # of Debian's package dataset-fashion-mnist, in MNIST's format
TIMINGS = Path("timings.csv")
COLUMNS = (
    "when",
    "environment",
    "tensorflow",
    "onednn",
    "cores",
    "threads",
    "gpu",
    "node",
    "job",
    "dense_layers",
    "parameters",
    "epochs",
    "seconds",
    "seconds_per_epoch",
    "cpu_seconds",
    "accuracy",
)


def images():
    """Return (x_train, y_train), (x_test, y_test): 28 x 28 numbers from 0 to 1 each, and what they show, 0 to 9."""
    return tuple(
        (_read(f"{part}-images-idx3", 16).reshape(-1, 28, 28) / 255.0, _read(f"{part}-labels-idx1", 8))
        for part in ("train", "t10k")
    )


def _read(name, header):
    import numpy

    with gzip.open(DATA / f"{name}-ubyte.gz") as stream:
        return numpy.frombuffer(stream.read(), dtype=numpy.uint8, offset=header)


def environment():
    """Return the name of the environment in which this Python runs."""
    return os.environ.get("CONDA_DEFAULT_ENV") or Path(sys.prefix).name


def cores():
    """Return how many cores the job was given."""
    return int(os.environ.get("CPU_LIMIT") or os.environ.get("SLURM_CPUS_ON_NODE") or len(os.sched_getaffinity(0)))


def threads():
    """Return how many threads TensorFlow uses for one operation."""
    import tensorflow

    asked = tensorflow.config.threading.get_intra_op_parallelism_threads()
    return asked or int(os.environ.get("TF_NUM_INTRAOP_THREADS") or len(os.sched_getaffinity(0)))


def gpus():
    """Return the names of the GPUs that TensorFlow sees."""
    import tensorflow

    config = tensorflow.config
    return [
        config.experimental.get_device_details(gpu).get("device_name", gpu.name)
        for gpu in config.list_physical_devices("GPU")
    ]


def onednn():
    """Tell whether TensorFlow computes with oneDNN: ``built in``, ``on`` or ``off``.

    An ordinary build for x86 has it on where the processor has instructions for neural networks
    (tensorflow/core/util/util.cc, IsMKLEnabled), unless TF_ENABLE_ONEDNN_OPTS says otherwise.
    """
    from tensorflow.python.util import _pywrap_util_port

    if _pywrap_util_port.IsMklEnabled():
        return "built in"
    asked = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "")
    if asked:
        return "off" if asked in ("0", "false") else "on"
    flags = set(Path("/proc/cpuinfo").read_text().split())
    return "on" if flags & {"avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile"} else "off"


def processor():
    """Return the model of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def session():
    """Print what this session is."""
    import tensorflow

    build = tensorflow.sysconfig.get_build_info()
    seen = gpus()
    for name, value in (
        ("Environment", environment()),
        ("TensorFlow", f"{tensorflow.__version__}, built for " + ("GPUs" if build.get("is_cuda_build") else "CPUs")),
        ("oneDNN", onednn()),
        ("Cores", f"{cores()} granted, {threads()} threads for one operation"),
        ("Processor", processor()),
        ("GPU", ", ".join(seen) or "none"),
        ("Node", os.environ.get("SLURMD_NODENAME") or platform.node()),
        ("Job", os.environ.get("SLURM_JOB_ID", "none")),
    ):
        print(f"{name:12} {value}")
    if build.get("is_cuda_build") and not seen:
        print("\nThis session has no GPU: TensorFlow trains on the CPU.")


def clock():
    """Return a callback for ``model.fit`` that times each epoch and adds a row to timings.csv at the end."""
    import tensorflow

    class Clock(tensorflow.keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.epochs, self.began, self.cpu = [], time.perf_counter(), time.process_time()

        def on_epoch_begin(self, epoch, logs=None):
            self.epoch_began = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            self.epochs.append(time.perf_counter() - self.epoch_began)

        def on_train_end(self, logs=None):
            seconds, cpu = time.perf_counter() - self.began, time.process_time() - self.cpu
            # The first one has TensorFlow's own preparations in it.
            each = statistics.median(self.epochs[1:] or self.epochs)
            dense = sum(isinstance(layer, tensorflow.keras.layers.Dense) for layer in self.model.layers)
            row = {
                "when": datetime.datetime.now().isoformat(timespec="seconds"),
                "environment": environment(),
                "tensorflow": tensorflow.__version__,
                "onednn": onednn(),
                "cores": cores(),
                "threads": threads(),
                "gpu": ", ".join(gpus()) or "none",
                "node": os.environ.get("SLURMD_NODENAME") or platform.node(),
                "job": os.environ.get("SLURM_JOB_ID", ""),
                "dense_layers": dense,
                "parameters": self.model.count_params(),
                "epochs": len(self.epochs),
                "seconds": f"{seconds:.2f}",
                "seconds_per_epoch": f"{each:.3f}",
                "cpu_seconds": f"{cpu:.2f}",
                "accuracy": f"{(logs or {}).get('accuracy', float('nan')):.4f}",
            }
            add(row)
            print(f"\n{each:.2f} s for an epoch, {cpu / seconds:.1f} cores busy: added to {TIMINGS}")

    return Clock()


def add(row, path=None):
    """Add a row to timings.csv. Sessions side by side may do so at the same time: it is written in one piece."""
    path = TIMINGS if path is None else path
    try:
        with open(path, "x", newline="") as new:
            new.write(",".join(COLUMNS) + "\n")
    except FileExistsError:
        pass
    with open(path, "a", newline="") as out:
        csv.DictWriter(out, COLUMNS, lineterminator="\n").writerow(row)


def timings(path=None):
    """Return the rows of timings.csv, numbers as numbers. A row that is no timing is passed over."""
    path = TIMINGS if path is None else path
    if not path.exists():
        raise SystemExit(f"There is no {path} yet: run 1-train.ipynb first.")
    rows = []
    with open(path, newline="") as lines:
        for row in csv.DictReader(lines):
            try:
                row["cores"], row["dense_layers"] = int(row["cores"]), int(row["dense_layers"])
                row["seconds_per_epoch"] = float(row["seconds_per_epoch"])
            except (KeyError, TypeError, ValueError):
                continue
            rows.append(row)
    return rows


def best(rows):
    """Return {(environment, with a GPU, dense layers): {cores: the quickest seconds of an epoch}}."""
    found = {}
    for row in rows:
        curve = found.setdefault((row["environment"], row["gpu"] != "none", row["dense_layers"]), {})
        curve[row["cores"]] = min(row["seconds_per_epoch"], curve.get(row["cores"], float("inf")))
    return found


def _label(key):
    name, gpu, layers = key
    return f"{name}{' with a GPU' if gpu else ''}, {layers} dense layers"


def draw(rows, file="timings.png"):
    """Draw seconds, speed-up and efficiency against cores, and the quickest of each; keep the picture in *file*."""
    from matplotlib import pyplot
    from matplotlib.ticker import ScalarFormatter

    curves = best(rows)
    figure, axes = pyplot.subplots(2, 2, figsize=(11, 8), layout="constrained")
    (times, speed), (efficiency, bars) = axes
    most = max((max(curve) for curve in curves.values()), default=1)
    for key, curve in sorted(curves.items()):
        if key[1]:
            continue  # with a GPU, cores say little
        n = sorted(curve)
        times.plot(n, [curve[c] for c in n], marker="o", label=_label(key))
        # Against the smallest number of cores that was measured, which need not be one.
        up = [curve[n[0]] / curve[c] * n[0] for c in n]
        speed.plot(n, up, marker="o", label=_label(key))
        efficiency.plot(n, [100 * u / c for u, c in zip(up, n, strict=True)], marker="o", label=_label(key))
    speed.plot([1, most], [1, most], color="grey", linestyle=":", label="as many times as cores")
    for plot, title, unit in (
        (times, "Time", "seconds for an epoch"),
        (speed, "Speed-up", "times one core"),
        (efficiency, "Efficiency", "% of the cores' power"),
    ):
        plot.set(title=title, xlabel="cores", ylabel=unit, ylim=(0, None), xscale="log")
        ticks = sorted({1, most, *(cores for curve in curves.values() for cores in curve)})
        plot.set_xticks(ticks)
        plot.xaxis.set_major_formatter(ScalarFormatter())
        plot.minorticks_off()
        if plot.get_legend_handles_labels()[0]:
            plot.legend(fontsize="small")
    quickest = sorted(((min(curve.values()), _label(key), min(curve, key=curve.get)) for key, curve in curves.items()))
    names = [f"{label}, {cores} core{'s' * (cores > 1)}" for _, label, cores in quickest]
    bars.barh(names, [seconds for seconds, _, _ in quickest])
    bars.invert_yaxis()
    bars.set(title="The quickest of each", xlabel="seconds for an epoch")
    figure.savefig(file, dpi=110)
    return figure
