"""Runs in the job of `snowyspawner check --job`: does what a session does up to its server, and says how it went.

The job script carries this file's text on file descriptor 3, one JSON spec on 4 and launcher.py on 5, whose functions
it uses: what is tried is what sessions do. Standard library only, Python 3.6 or newer. Nothing imports it.

Each step is a line of JSON in the job's log, behind `MARK`: its name, how many seconds it took, a code (0: fine; 65 to
82 as in launcher.py) and what there is to say. After the last one it waits to be told that the log was read (SIGTERM),
and removes the log.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types
import urllib.request

MARK = "snowyspawner-trial: "
STEP_SECONDS = 120  # that a container has to start
READ_SECONDS = 60  # that the log has to be read
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Runs in place of the server, when its environment is active.
SAY_VERSION = '\nprintf "%s%s\\n" snowyspawner-version: "$version"\nexit 0'


class Over(BaseException):
    """Somebody has ended the job: no failure of a step's."""


def end(number, frame):
    """Take the first signal; those that follow change nothing."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Over


def tell(step, began, code=0, **said):
    """Write how a step went to the log."""
    text = json.dumps(dict(said, step=step, code=code, seconds=round(time.time() - began, 2)), sort_keys=True)
    os.write(2, ("\n%s%s\n" % (MARK, text)).encode())


def run(argv, env):
    """Run a command; return its exit code and the lines that it printed. A signal N gives 128 + N, no answer 124."""
    child = subprocess.Popen(
        argv, env=env, cwd=os.path.expanduser("~"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        out, _ = child.communicate(timeout=STEP_SECONDS)
    except subprocess.TimeoutExpired:
        return 124, ["no answer in %d seconds" % STEP_SECONDS]
    finally:
        with contextlib.suppress(OSError):
            os.killpg(child.pid, signal.SIGKILL)
    code = child.returncode if child.returncode >= 0 else 128 - child.returncode
    return code, out.decode(errors="replace").rstrip().split("\n")[-20:]


class Ended(object):
    """What launcher.failure_of reads of a server that has ended."""

    def __init__(self, lines):
        self.tail = lines


def try_hub(url):
    """Ask the hub for its version, as a session's first request would reach it."""
    began = time.time()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=10) as answer:
            tell("hub", began, version=str(json.loads(answer.read(4096).decode())["version"]))
    except Exception as error:
        tell("hub", began, 76, detail=str(getattr(error, "reason", error)) or type(error).__name__)


def try_gpu(launcher, vendor):
    """Look for the GPU that Slurm gave, and ask the driver's own program for it; tell whether it is there."""
    began = time.time()
    try:
        launcher.check_gpu(vendor, os.environ)
    except launcher.Failure as failure:
        tell("gpu", began, failure.code, detail=failure.detail)
        return False
    smi = shutil.which("nvidia-smi") if vendor == "nvidia" else None
    if smi:
        code, lines = run([smi, "-L"], os.environ)
        tell("gpu", began, 74 if code else 0, detail="; ".join(lines), asked=True)
        return code == 0
    tell("gpu", began, detail="the device files are there", asked=False)
    return True


def try_image(launcher, spec, key, image, env):
    """Start an image, and each of its environments in it."""
    began, runtime = time.time(), ""
    try:
        if image["runtime"] != "none":
            runtime = launcher.find_runtime(image["runtime"])
            _, lines = run([runtime, "--version"], env)
            tell("runtime", began, image=key, detail=lines[-1])
            began = time.time()
            launcher.check_image(image["path"])
        with_image = {"image": image, "environment": {"kind": "none", "prefix": "", "conda": "", "name": ""}, "gpu": ""}
        start(launcher, with_image, runtime, env, "exit 0")
    except launcher.Failure as failure:
        tell("image", began, failure.code, image=key, detail=failure.detail)
        return
    tell("image", began, image=key)
    for name, environment in spec["environments"].items():
        if key not in environment["images"]:
            continue
        began = time.time()
        wanted = {"image": image, "environment": dict(environment, name=name), "gpu": spec["gpu"]}
        try:
            lines = start(launcher, wanted, runtime, env, launcher.INNER)
            versions = [line.partition(":")[2] for line in lines if line.startswith("snowyspawner-version:")]
            tell("environment", began, image=key, environment=name, version="".join(versions[-1:]))
        except launcher.Failure as failure:
            tell("environment", began, failure.code, image=key, environment=name, detail=failure.detail)


def start(launcher, spec, runtime, env, shell):
    """Run the shell text where a session's server would run; return what it printed. Raises launcher.Failure."""
    inner, launcher.INNER = launcher.INNER, shell
    try:
        claim = {"cmd": ["jupyterhub-singleuser"], "shell": SAY_VERSION}
        argv = launcher.server_command(spec, claim, runtime, "/tmp", "")
    finally:
        launcher.INNER = inner
    code, lines = run(argv, env)
    if code == 124:
        raise launcher.Failure(launcher.NO_CONTAINER, lines[-1])
    if code:
        raise launcher.failure_of(Ended(lines), code)
    return lines


def carried(descriptor):
    """Return the text that the job script has put on *descriptor*."""
    with os.fdopen(descriptor, encoding="utf-8") as stream:
        return stream.read()


def steps():
    """Do all steps."""
    spec = json.loads(carried(4))
    launcher = types.ModuleType("launcher")
    exec(compile(carried(5), "launcher.py", "exec"), launcher.__dict__)  # noqa: S102  our own text
    began = time.time()
    env = {name: value for name, value in os.environ.items() if not launcher.HARMFUL.fullmatch(name)}
    try_hub(spec["hub_url"])
    if spec["gpu"] and not try_gpu(launcher, spec["gpu"]):
        spec["gpu"] = ""  # said once; what else there is can be tried without
    for key, image in spec["images"].items():
        try_image(launcher, spec, key, image, env)
    tell("end", began, node=os.environ.get("SLURMD_NODENAME", ""))


def main():
    """Try everything; return the job's exit code."""
    for number in SIGNALS:
        signal.signal(number, end)
    try:
        try:
            steps()
        except Exception as error:
            tell("end", time.time(), 82, detail="%s: %s" % (type(error).__name__, error))
        time.sleep(READ_SECONDS)
    except Over:
        pass
    with contextlib.suppress(OSError):
        os.unlink(os.readlink("/proc/self/fd/2"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
