"""Runs in the job: claims the session, starts the single-user server in its container, reports to the hub.

The job script carries this file's text and gives it to the node's Python on file descriptor 3, with one JSON
spec on 4 and end_warning.py on 5, so that a node needs nothing of ours; JupyterLab's extension and sampler.py come with
the claim. Standard library only, Python 3.6 or newer. Nothing imports it.

What goes to standard error ends up in the job's log. Exit codes 65 to 82 are causes (see messages.py); any other is
the server's own.
"""

import contextlib
import glob
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import types
import urllib.error
import urllib.request
from collections import deque, namedtuple
from urllib.parse import urlsplit

NO_RUNTIME, IMAGE_MISSING, IMAGE_UNREADABLE, IMAGE_BROKEN, NO_CONTAINER, NO_SHELL = range(65, 71)
NO_CONDA, NO_ENVIRONMENT, NO_SERVER, NO_GPU, OLD_SERVER, NO_HUB, REFUSED = range(71, 78)
NO_HOME, NO_SCRATCH, NO_PORT, NOT_ACCEPTED, UNFORESEEN = range(78, 83)

# What each container runtime calls what is asked of it. Where the Site names none, it is the first that the node has.
# A new one is an entry here, and a value of Image.runtime in the Site's model.
Runtime = namedtuple("Runtime", "options bind directory")
RUNTIMES = {
    # --pwd is the spelling that old and new ones share.
    "apptainer": Runtime(["-q"], "--bind", "--pwd"),
    "singularity": Runtime(["-q"], "--bind", "--pwd"),
}

# The vendors of GPUs: Slurm's variable (gres.conf(5), Flags), the device files, and what runtimes are told.
Vendor = namedtuple("Vendor", "variable devices options")
VENDORS = {
    "nvidia": Vendor("CUDA_VISIBLE_DEVICES", "/dev/nvidia[0-9]*", ["--nv"]),
    "amd": Vendor("ROCR_VISIBLE_DEVICES", "/dev/kfd", ["--rocm"]),
    "intel": Vendor("ZE_AFFINITY_MASK", "/dev/dri/renderD*", []),  # /dev is in every container
}

# What would make the server, or the tools in the image, do something else than the image says.
HARMFUL = re.compile(
    r"PYTHON(PATH|HOME|STARTUP|USERBASE)|CONDA_.*|_CE_(M|CONDA)|VIRTUAL_ENV|SUDO_.*|MAIL|XDG_RUNTIME_DIR"
    r"|JUPYTER_(RUNTIME_DIR|CONFIG_DIR|PATH)|SNOWYSPAWNER_.*|BASH_FUNC_.*"
)

# Runs in the container as its /bin/sh, and goes on with bash where there is one: environments' activation scripts are
# written for it. Nothing of BASH_ENV's, a file of the node's, is read.
OUTER = 'unset BASH_ENV ENV; shell=$(command -v bash) || shell=/bin/sh; exec "$shell" -c "$@"'
# Runs in that shell: makes the environment active and becomes the server. What varies is a positional parameter.
INNER = r"""
kind=$1 base=$2 name=$3 gpu=$4 data=$5; shift 5
die() { code=$1; shift; printf 'snowyspawner: %s\n' "$*" >&2; exit "$code"; }
case $kind in
conda)
  if [ -z "$base" ]; then
    for b in /opt/conda /opt/miniconda3 /opt/miniforge3 /opt/mambaforge /opt/anaconda3 /usr/local/conda; do
      if [ -r "$b/etc/profile.d/conda.sh" ]; then base=$b; break; fi
    done
    if [ -z "$base" ] && command -v conda >/dev/null 2>&1; then base=$(conda info --base 2>/dev/null); fi
  fi
  [ -n "$base" ] && [ -r "$base/etc/profile.d/conda.sh" ] || die 71 "no conda in the image (looked in ${base:-/opt/conda and the like})"
  . "$base/etc/profile.d/conda.sh"
  conda activate "$name" || die 72 "no conda environment '$name' in the image; it has: $(ls "$base/envs" 2>/dev/null | tr '\n' ' ')" ;;
prefix)
  [ -d "$base/bin" ] || die 72 "no environment at $base in the image"
  PATH=$base/bin:$PATH; export PATH ;;
esac
server=$(command -v "$1") || die 73 "no $1 in environment '$name': pip install jupyterhub jupyterlab there"
if [ -n "$gpu" ]; then
  seen=
  for file in $gpu; do if [ -e "$file" ]; then seen=1; fi; done
  [ -n "$seen" ] || die 74 "a GPU was asked for, but none is visible in the container: no $gpu"
fi
python=$(dirname "$server")/python3
if [ -x "$python" ]; then
  version=$("$python" -c 'import jupyterhub; print(jupyterhub.__version__)' 2>/dev/null)
  case $version in 0.*|1.*) die 75 "jupyterhub $version in the image is too old: 2.0 or newer is needed" ;; esac
fi
# A login shell, Lab's own choice, runs the image's /etc/profile, which sets PATH anew.
shell=$(command -v bash || echo /bin/sh)
# The image may have a JUPYTER_PATH of its own.
if [ -n "$data" ]; then JUPYTER_PATH=$data${JUPYTER_PATH:+:$JUPYTER_PATH}; export JUPYTER_PATH; fi
exec "$@" "--ServerApp.terminado_settings={'shell_command': ['$shell']}"
"""

# What the runtime prints when it fails by itself (with code 255), and what that means.
RUNTIME_FAILURES = (
    (NO_CONTAINER, r"/dev/fuse|unsquashfs|user ?namespace|user account information|setuid|\bfuse:"),
    (IMAGE_BROKEN, r"image format not recognized|squashfs|SIF partition|corrupted|not a valid"),
    (IMAGE_MISSING, r"could not open image .*no such file"),
    (IMAGE_UNREADABLE, r"not readable by the current user|permission denied"),
    (NO_SHELL, r"/bin/sh: no such file"),
)
# Its first part, written in C, says "ERROR  : …" and ends with code 1 as a server may, which never says that.
STARTER_FAILURE = re.compile(r"ERROR +: ")
# The server's own configuration, beside the person's. Python's last garbage collection takes up to a second, which
# delays every stop.
SERVER_CONFIG = "import atexit, gc\natexit.register(gc.freeze)\n"
# Seconds that a server has to leave when another one takes its place.
END_PATIENCE = 5.0
COLORS = re.compile(r"\x1b\[[0-9;]*m")


class Failure(Exception):
    """The session cannot be served: a code of the table and the facts of this case."""

    def __init__(self, code, detail, log=()):
        Exception.__init__(self, detail)
        self.code, self.detail, self.log = code, detail, list(log)


def to_log(data):
    """Write *data* (bytes) to the job's log. On a full disk the log ends; the session must not."""
    # Not sys.stderr: it keeps what it could not write, and tries again until the interpreter fails at its end.
    with contextlib.suppress(OSError):
        os.write(2, data)


def say(text):
    """Write a line to the job's log."""
    to_log(("snowyspawner: %s\n" % text).encode(errors="replace"))


class Hub(object):
    """The hub, as this job sees it: one address, one name, one secret."""

    def __init__(self, spec, secret):
        self.url = spec["hub_url"]
        self.wait = spec["hub_wait"]
        self.identity = {
            "server": spec["server"],
            "name": spec["name"],
            "secret": secret,
            "job_id": os.environ.get("SLURM_JOB_ID", ""),
            "node": os.environ.get("SLURMD_NODENAME") or socket.gethostname().split(".")[0],
        }
        # A proxy of the site's is for the world outside.
        self.open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def post(self, verb, **fields):
        """Post once; return (status, answer). Raises OSError when nobody answers."""
        body = json.dumps(dict(self.identity, **fields)).encode()
        request = urllib.request.Request(self.url + verb, body, {"Content-Type": "application/json"})
        try:
            with self.open(request, timeout=20) as answer:
                return answer.status, json.loads(answer.read().decode() or "{}")
        except urllib.error.HTTPError as error:
            try:
                answer = json.loads(error.read(64 * 1024).decode())
            except (OSError, ValueError, http.client.HTTPException):
                answer = {}
            return error.code, answer if isinstance(answer, dict) else {}

    def insist(self, verb, **fields):
        """Post until the hub has answered with 200; wait for a hub that is away, or not ready to answer yet.

        Raises Failure: REFUSED when the hub does not know this job, NO_HUB when it stays away.
        """
        deadline, pause, said = time.time() + self.wait, 0.2, ""
        while True:
            try:
                status, answer = self.post(verb, **fields)
                problem = "it answers %d" % status
            except (OSError, ValueError, http.client.HTTPException) as error:
                status, answer = 0, {}
                problem = str(getattr(error, "reason", error))
            if status == 200:
                return answer
            if status in (404, 410):
                # JupyterHub's own errors say their status in JSON. A page is a proxy's that does not know the hub yet.
                if answer.get("status") == status:
                    raise Failure(REFUSED, "the hub no longer knows this session (%d)" % status)
            elif 400 <= status < 500 and status not in (408, 425, 429):
                raise Failure(
                    NOT_ACCEPTED, "the hub answers %s with %d: %s" % (verb, status, answer.get("message", ""))
                )
            # 202: the hub is taking the session up again. It is there, so there is nothing to say.
            if status != 202 and problem != said:
                say("waiting for the hub at %s: %s" % (self.url, problem))
                said = problem
            if time.time() > deadline:
                raise Failure(NO_HUB, "no answer from the hub at %s in %d s: %s" % (self.url, self.wait, problem))
            time.sleep(pause * random.uniform(0.8, 1.2))
            pause = 0.5 if status == 202 else min(pause * 1.6, 10)


def find_runtime(wanted):
    """Return the container runtime's path. Raises Failure(NO_RUNTIME)."""
    names = list(RUNTIMES) if wanted == "auto" else [wanted]
    for name in names:
        path = shutil.which(name)
        if path:
            return path
    raise Failure(NO_RUNTIME, "%s not found on PATH (%s)" % (" nor ".join(names), os.environ.get("PATH", "")))


def check_writable(code, path):
    """Raise Failure(code) unless something can be kept in directory *path*.

    A full disk and a used-up quota tell only when something is written, some of them only when that is flushed.
    """
    try:
        with tempfile.TemporaryFile(dir=path) as probe:
            probe.write(os.urandom(16 * 1024))  # zeros may take no room at all
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise Failure(code, "%s: %s" % (path, error.strerror))


def check_image(path):
    """Raise Failure unless the image is there and readable."""
    try:
        os.stat(path)
    except PermissionError as error:
        raise Failure(IMAGE_UNREADABLE, str(error))
    except OSError as error:
        raise Failure(IMAGE_MISSING, str(error))
    if not os.access(path, os.R_OK | (os.X_OK if os.path.isdir(path) else 0)):
        raise Failure(IMAGE_UNREADABLE, "%s: permission denied" % path)
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        raise Failure(IMAGE_BROKEN, "%s is empty" % path)


def check_gpu(vendor, env):
    """Raise Failure(NO_GPU) unless Slurm gave one and this node has any of that vendor's.

    Slurm's numbers count the node's GPUs; they are not those of the device files. Parts of a GPU (MIG) have names that
    stand for no number at all.
    """
    variable, pattern, _ = VENDORS[vendor]
    # With Flags=no_gpu_env, or for a vendor that this Slurm does not know, there is only its own variable.
    name = "SLURM_JOB_GPUS" if variable not in env and "SLURM_JOB_GPUS" in env else variable
    visible = env.get(name, "")
    devices = glob.glob(pattern)
    if not devices or visible in ("", "NoDevFiles"):
        raise Failure(NO_GPU, "%s=%s, devices: %s" % (name, visible, " ".join(sorted(devices)) or "no " + pattern))


def granted(env):
    """Return (cores, memory in MB or 0) that Slurm gave on this node."""
    cores = int(env.get("SLURM_CPUS_ON_NODE") or 1)
    if env.get("SLURM_MEM_PER_NODE", "").isdigit():
        return cores, int(env["SLURM_MEM_PER_NODE"])
    if env.get("SLURM_MEM_PER_CPU", "").isdigit():
        return cores, int(env["SLURM_MEM_PER_CPU"]) * cores
    return cores, 0


def server_environment(spec, claim, runtime_dir, port, end):
    """Return the variables of the server: the job's, less what harms, with what the hub sent."""
    env = {name: value for name, value in os.environ.items() if not HARMFUL.fullmatch(name)}
    env.setdefault("PATH", "/usr/local/bin:/usr/bin:/bin")
    cores, memory = granted(env)
    # Else TensorFlow takes all there are.
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        env.setdefault(name, str(cores))
    env["CPU_LIMIT"] = str(cores)
    if memory:
        env["MEM_LIMIT"] = str(memory * 1024 * 1024)
    env["SLURM_JOB_END_TIME"] = str(end)  # as Slurm itself does from 23.02 on
    env.update(claim["env"])
    url = urlsplit(env["JUPYTERHUB_SERVICE_URL"])
    host = "[%s]" % spec["listen"] if ":" in spec["listen"] else spec["listen"]
    env["JUPYTERHUB_SERVICE_URL"] = "%s://%s:%d%s" % (url.scheme, host, port, url.path)
    env["JUPYTER_RUNTIME_DIR"] = runtime_dir
    env["JUPYTER_CONFIG_PATH"] = ":".join(filter(None, [runtime_dir, env.get("JUPYTER_CONFIG_PATH")]))
    return env


def server_command(spec, claim, runtime, scratch, data):
    """Return the argv that becomes the server: [runtime … image] /bin/sh -c INNER … jupyterhub-singleuser …"""
    image, environment = spec["image"], spec["environment"]
    base = environment["prefix"] if environment["kind"] == "prefix" else environment["conda"]
    shell = INNER.replace("\nexec", claim.get("shell", "") + "\nexec")
    inner = ["-c", OUTER, "sh", shell, "snowyspawner", environment["kind"], base, environment["name"]]
    inner += [VENDORS[spec["gpu"]].devices if spec["gpu"] else "", data] + list(claim["cmd"])
    if image["runtime"] == "none":
        return ["/bin/sh"] + inner
    called = RUNTIMES[os.path.basename(runtime)]
    command = [runtime] + called.options + [image["entry"]]
    if spec["gpu"]:
        command += VENDORS[spec["gpu"]].options
    # A bind source that the node does not have would be fatal; /tmp is bound anyway.
    for path in image["binds"] + ([] if scratch == "/tmp" else [scratch]):
        if os.path.exists(path):
            command += [called.bind, path]
        else:
            say("%s does not exist on this node, so it is not bound" % path)
    command += [called.directory, os.path.expanduser("~"), image["path"]]
    return command + (["/bin/sh"] if image["entry"] == "exec" else []) + inner


def free_port(address, ports=""):
    """Return a port that nobody listens on now; of *ports* (FIRST-LAST) if any are named. Raises Failure(NO_PORT)."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    wanted = [0]
    if ports:
        first, last = ports.split("-")
        wanted = list(range(int(first), int(last) + 1))
        # In any order: others look for theirs, too.
        random.shuffle(wanted)
    for port in wanted:
        with socket.socket(family) as probe:
            try:
                probe.bind((address, port))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise Failure(NO_PORT, "all ports of %s are taken" % (ports or "this node"))


def listener(port):
    """Return the uid that listens on *port* (/proc/net/tcp, proc(5)), or None when nobody does."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table) as lines:
                rows = [line.split() for line in lines if " 0A " in line]
        except OSError:
            continue
        for row in rows:
            if row[3:4] == ["0A"] and int(row[1].rsplit(":", 1)[1], 16) == port:
                return int(row[7])
    return None


def accepts(address, port):
    """Tell whether somebody listens: much cheaper than `listener` on a node with thousands of connections."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        return probe.connect_ex((address, port)) == 0


def answers(address, port, path):
    """Tell whether a single-user server answers, which lets everybody read this *path*, or wants them to sign in."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status in (200, 401, 403)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def family(pid):
    """Return *pid* and the processes that it has started, and these (/proc/PID/stat, proc(5)), oldest first."""
    children = {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open(path, errors="replace") as stat:
                # "PID (a name, which may hold anything) STATE PPID …"
                number, rest = path.split("/")[2], stat.read().rpartition(")")[2].split()
            children.setdefault(int(rest[1]), []).append(int(number))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


class Server(object):
    """The single-user server: one child process, its last lines, its port."""

    current = None  # the one that signals are passed on to

    def __init__(self, command, env, port, umask):
        self.port = port
        self.tail = deque(maxlen=20)
        self.stopping = False
        previous = os.umask(int(umask, 8))
        try:
            self.child = subprocess.Popen(
                command, env=env, cwd=os.path.expanduser("~"), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
        finally:
            os.umask(previous)
        Server.current = self
        self.reader = threading.Thread(target=self.copy, daemon=True)
        self.reader.start()

    def copy(self):
        """Copy what the server prints to the job's log, and keep the end of it."""
        for line in iter(self.child.stdout.readline, b""):
            to_log(line)
            self.tail.append(COLORS.sub("", line.decode(errors="replace")).rstrip()[:500])

    def wait_until_up(self, address, path):
        """Return True once the server answers on its port, False when it ended first."""
        while self.child.poll() is None:
            # Somebody else's server on that port is never taken for ours.
            ours = accepts(address, self.port) and listener(self.port) == os.getuid()
            if ours and answers(address, self.port, path):
                return True
            time.sleep(0.1)
        self.reader.join(2)
        return False

    def end(self):
        """End it if it still runs, by force if it does not leave by itself: a server that has lost its hub may not."""
        if self.child.poll() is None:
            self.child.terminate()
        try:
            self.child.wait(END_PATIENCE)
        except subprocess.TimeoutExpired:
            say("the server does not end, killing it")
            for pid in family(self.child.pid):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        self.wait()

    def wait(self):
        """Wait for the end; return the exit code, 128 + N after signal N."""
        code = self.child.wait()
        self.reader.join(2)
        return code if code >= 0 else 128 - code


def failure_of(server, code):
    """Tell why a server ended before it answered."""
    log = list(server.tail)
    text = "\n".join(log)
    if NO_CONDA <= code <= OLD_SERVER:
        said = [line for line in log if line.startswith("snowyspawner: ")]
        return Failure(code, said[-1][len("snowyspawner: ") :] if said else "", log)
    if code == 255 or (code == 1 and any(STARTER_FAILURE.match(line) for line in log)):
        for cause, pattern in RUNTIME_FAILURES:
            if re.search(pattern, text, re.I):
                return Failure(cause, next((line for line in log if re.search(pattern, line, re.I)), ""), log)
        return Failure(NO_CONTAINER, log[-1] if log else "", log)
    return Failure(code or 1, "the server ended before it answered (exit code %d)" % code, log)


def start_server(spec, claim, scratch, runtime_dir, data, end):
    """Start the server and wait until it answers; with a new port if somebody else took the first. Raises Failure.

    *data* is for its JUPYTER_PATH, *end* when the job ends (epoch seconds).
    """
    image = spec["image"]
    check_writable(NO_HOME, os.path.expanduser("~"))
    runtime = ""
    if image["runtime"] != "none":
        runtime = find_runtime(image["runtime"])
        check_image(image["path"])
    if spec["gpu"]:
        check_gpu(spec["gpu"], os.environ)
    path = claim["env"].get("JUPYTERHUB_SERVICE_PREFIX", "/") + "api"
    for attempt in (1, 2, 3):
        port = free_port(spec["listen"], spec["ports"])
        env = server_environment(spec, claim, runtime_dir, port, end)
        server = Server(server_command(spec, claim, runtime, scratch, data), env, port, spec["umask"])
        if server.wait_until_up(spec["listen"], path):
            return server
        code = server.wait()
        if server.stopping:
            # Slurm ends what holds the image up, too: the container's last words are no cause. Slurm knows it.
            raise Failure(code if code > 128 else 128 + signal.SIGTERM, "ended before it answered", server.tail)
        taken = listener(port) is not None or re.search(r"already in use|is not available", "\n".join(server.tail))
        if attempt == 3 or not taken:
            raise failure_of(server, code)
        say("port %d was taken by somebody else, trying another" % port)
        Server.current = None  # a signal that comes now ends the job


def pass_on(number, frame):
    """Hand a signal to the server; without one, end."""
    server = Server.current
    if server is None:
        sys.exit(128 + number)
    server.stopping = True
    if server.child.poll() is None:
        server.child.send_signal(number)


def scratch_directory(names):
    """Return the job's own directory on the node: the first of these variables that names one, else /tmp."""
    for name in names:
        path = os.environ.get(name, "")
        if os.path.isdir(path) and os.access(path, os.W_OK):
            return path
    try:
        return tempfile.gettempdir()
    except OSError:  # none that can be written to, which make_runtime_directory will say
        return "/tmp"


def make_runtime_directory(scratch):
    """Make the session's own directory. Raises Failure(NO_SCRATCH)."""
    try:
        path = tempfile.mkdtemp(prefix="jupyter-", dir=scratch)
    except OSError as error:
        raise Failure(NO_SCRATCH, "%s: %s" % (scratch, error.strerror))
    try:
        check_writable(NO_SCRATCH, path)
        with open(os.path.join(path, "jupyter_server_config.py"), "w") as config:
            config.write(SERVER_CONFIG)
    except Failure:
        shutil.rmtree(path, ignore_errors=True)
        raise
    return path


def carried(descriptor):
    """Return the text that the job script has put on *descriptor*."""
    with os.fdopen(descriptor, encoding="utf-8") as stream:
        return stream.read()


def main():
    """Serve one session; return the job's exit code."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, pass_on)
    spec = json.loads(carried(4))
    hub = Hub(spec, os.environ.pop("SNOWYSPAWNER_SECRET", ""))
    try:
        return serve(spec, hub)
    except Exception:
        return unforeseen(hub)


def unforeseen(hub):
    """Say in the log and to the hub that something was wrong that nobody has thought of; return the exit code."""
    log = traceback.format_exc().rstrip().split("\n")[-20:]
    to_log(("\n".join(log) + "\n").encode(errors="replace"))
    if Server.current:
        Server.current.end()
    tell(hub, UNFORESEEN, log[-1], log)
    return UNFORESEEN


def tell(hub, code, detail, log, usage=None):
    """Tell the hub how it ended, if it is there; and what it has used, if that is known."""
    more = {"usage": usage} if usage else {}
    try:
        hub.post("report", code=code, detail=detail[:500], log=[line[:500] for line in log], **more)
    except (OSError, ValueError, http.client.HTTPException) as error:
        say("could not tell the hub: %s" % error)


def serve(spec, hub):
    """Serve the session that *spec* describes; return the job's exit code."""
    end_warning = types.ModuleType("end_warning")
    exec(compile(carried(5), "end_warning.py", "exec"), end_warning.__dict__)  # noqa: S102  our own text
    clock = end_warning.Clock(say)  # catches SIGUSR1, which the script has had ignored
    clock.start(spec["limit"], spec["warn"])
    if spec["logs"]:
        rest = (os.path.expanduser("~"), spec["logs"], hub.identity["job_id"], say)
        threading.Thread(target=end_warning.prune, args=rest, daemon=True).start()
    scratch = scratch_directory(spec["scratch"])
    runtime_dir = data = ""
    sampler = usage = None
    try:
        while True:
            # First: only who has claimed is listened to, also about what is wrong.
            claim = hub.insist("claim")
            if not runtime_dir:
                runtime_dir = make_runtime_directory(scratch)
                data = clock.add_to_lab(runtime_dir, claim.get("extension", ""))
            server = start_server(spec, claim, scratch, runtime_dir, data, clock.end)
            if not hub.insist("report", port=server.port).get("again"):
                break
            # The hub was restarted between claim and report: this server has a token that is no longer good.
            say("the hub was restarted, starting the server again")
            server.end()
            Server.current = None
        say("serving on port %d of %s" % (server.port, hub.identity["node"]))
        where = (spec["listen"], server.port, claim["env"].get("JUPYTERHUB_SERVICE_PREFIX", "/"))
        sampler = start_sampler(claim, hub, clock, where)
        code = server.wait()
        log = list(server.tail)
        say("the server ended with exit code %d" % code)
        detail = "" if server.stopping else "the server ended by itself (exit code %d)" % code
    except Failure as failure:
        code, detail, log = failure.code, failure.detail, failure.log
        say("cannot serve this session (%d): %s" % (code, detail))
        if Server.current:
            Server.current.end()
    finally:
        clock.close()
        if sampler:
            usage = sampler.close()
        shutil.rmtree(runtime_dir, ignore_errors=True)
    if code not in (NO_HUB, REFUSED):
        tell(hub, code, detail, log, usage)
    return code


def start_sampler(claim, hub, clock, where):
    """Start to measure what the session uses; None where the hub does not ask for it, or it cannot be."""
    if not claim.get("sampler"):
        return None
    module = types.ModuleType("sampler")
    try:
        exec(compile(claim["sampler"]["text"], "sampler.py", "exec"), module.__dict__)  # noqa: S102  the hub's
        had = claim["sampler"]["had"]
        post, show = lambda record: hub.post("report", usage=record)[1], lambda record: clock.use(dict(record, had=had))
        server = where + (claim["env"].get("JUPYTERHUB_API_TOKEN", ""),)
        return module.begin(claim["sampler"], post, show, server)
    except Exception as error:
        say("what this session uses is not measured: %s" % error)
        return None


if __name__ == "__main__":
    sys.exit(main())
