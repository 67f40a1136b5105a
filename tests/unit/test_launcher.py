"""The launcher as a real process, against a stand-in hub.

The server that it starts is a small program that stands in for jupyterhub-singleuser.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import http.server
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args
from urllib.request import urlopen

import pytest

from snowyspawner._share import share_dir
from snowyspawner.site.model import Gpu
from snowyspawner.standalone import end_warning, launcher, sampler

LAUNCHER = launcher.__file__
EXTENSION = share_dir() / "labextension" / "session.js"
SECRET = "one-time-secret"
TOKEN = "fresh-token"

# -S keeps coverage, which the launcher may run under, out of it: it must start fast.
SERVER = f"""#!{sys.executable} -IS
import http.server, json, os, signal, sys
from urllib.parse import urlsplit
mode, home = os.environ.get("STAND_IN_MODE", ""), os.environ["HOME"]
umask = os.umask(0); os.umask(umask)
first = not os.path.exists(home + "/server.json")
with open(home + "/server.part", "w") as out:
    json.dump({{"argv": sys.argv, "env": dict(os.environ), "cwd": os.getcwd(), "umask": umask, "pid": os.getpid(),
               "runtime_dir_exists": os.path.isdir(os.environ["JUPYTER_RUNTIME_DIR"]),
               "runtime_dir_mode": os.stat(os.environ["JUPYTER_RUNTIME_DIR"]).st_mode & 0o777}}, out)
os.rename(home + "/server.part", home + "/server.json")
if mode == "die":
    for n in range(30):
        print("line", n, flush=True)
    sys.exit(3)
if mode == "busy" or (mode == "busy once" and first):
    sys.exit("OSError: [Errno 98] Address already in use")
if mode == "deaf once" and first:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.spawnv(os.P_NOWAIT, "/bin/sleep", ["sleep", "317"])
if mode == "gentle":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
        if "/end/" in self.path:
            print("last words", flush=True)
            os._exit(int(self.path.rsplit("/", 1)[1]))
    def log_message(self, *_): pass
url = urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"])
print("serving", flush=True)
http.server.HTTPServer((url.hostname, url.port), Answer).serve_forever()
"""

# Stands in for apptainer: runs what comes after the image on this machine.
RUNTIME = """#!/bin/sh
printf '%s\\n' "$@" > "$HOME/runtime.argv"
[ -z "$STAND_IN_RUNTIME" ] || { echo "$STAND_IN_RUNTIME" >&2; exit 255; }
while [ "$1" != --pwd ]; do shift; done
shift 3
[ "$1" = /bin/sh ] || set -- /bin/sh "$@"
exec "$@"
"""


class StandInHub:
    """Stands in for the hub: notes what is posted, answers what the test sets (the last answer again and again)."""

    def __init__(self, port: int = 0) -> None:
        self.claims: list[tuple[int, Any]] = [(200, claim())]
        self.reports: list[tuple[int, Any]] = [(200, {})]
        self.posted: list[tuple[str, dict[str, Any]]] = []
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                verb = self.path.rsplit("/", 1)[1]
                answers = hub.claims if verb == "claim" else hub.reports
                status, answer = answers.pop(0) if len(answers) > 1 else answers[0]
                hub.posted.append((verb, body))
                # JupyterHub's errors are JSON with their status; text stands for a page of a proxy's.
                answer = {"status": status, **answer} if status >= 400 and isinstance(answer, dict) else answer
                data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def said(self, verb: str) -> list[dict[str, Any]]:
        return [body for said, body in self.posted if said == verb]

    @property
    def ports(self) -> list[int]:
        return [body["port"] for body in self.said("report") if "port" in body]

    @property
    def causes(self) -> list[dict[str, Any]]:
        return [body for body in self.said("report") if "code" in body]


def claim(mode: str = "", token: str = TOKEN, **env: str) -> dict[str, Any]:
    return {
        "cmd": ["jupyterhub-singleuser", "--flag", "it's $(id)"],
        "extension": EXTENSION.read_text(),
        "env": {
            "JUPYTERHUB_API_TOKEN": token,
            "JUPYTERHUB_SERVICE_URL": "http://0.0.0.0:0/user/you/",
            "JUPYTERHUB_SERVICE_PREFIX": "/user/you/",
            "STAND_IN_MODE": mode,
            **env,
        },
    }


class Job:
    """The launcher, started as the job script starts it."""

    def __init__(self, home: Path, spec: dict[str, Any], env: dict[str, str]) -> None:
        self.home, self.log_file = home, home / "job.log"
        spec_file = home / "spec.json"
        spec_file.write_text(json.dumps(spec))
        # As in the script: a shell opens the descriptors, and ignores the signal.
        text = 'trap "" USR1; spec=$1 warning=$2; shift 2; exec "$@" 4<"$spec" 5<"$warning"'
        words = ["/bin/sh", "-c", text, "sh", str(spec_file), end_warning.__file__]
        with self.log_file.open("wb") as log:
            # A session of its own, so that the test can end all of it.
            self.process = subprocess.Popen(
                [*words, sys.executable, "-I", LAUNCHER],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    @property
    def server(self) -> dict[str, Any]:
        return dict(json.loads((self.home / "server.json").read_text()))

    def wait(self, seconds: float = 15) -> int:
        return self.process.wait(seconds)


@pytest.fixture
def hub() -> Iterator[StandInHub]:
    hub = StandInHub()
    yield hub
    hub.close()


@pytest.fixture
def home(tmp_path: Path, executable: Callable[..., Path]) -> Path:
    home = tmp_path / "home"
    (home / "scratch").mkdir(parents=True)
    executable("jupyterhub-singleuser", SERVER)
    return home


@pytest.fixture
def launch(tmp_path: Path, home: Path, hub: StandInHub) -> Iterator[Callable[..., Job]]:
    jobs = []

    def start(env: dict[str, str] | None = None, **changes: Any) -> Job:
        spec = {
            "hub_url": f"http://127.0.0.1:{hub.port}/hub/api/snowyspawner/",
            "hub_wait": 20,
            "server": 7,
            "name": "jupyter-lab-0123abcd",
            "image": {"path": "/", "runtime": "none", "entry": "exec", "binds": []},
            "environment": {"kind": "none", "conda": "", "prefix": "", "name": "base"},
            "gpu": "",
            "limit": 3600,
            "warn": 600,
            "logs": {},
            "umask": "022",
            "listen": "127.0.0.1",
            "ports": "",
            "scratch": ["NOT_SET", "SCRATCH"],
            **changes,
        }
        around = {
            "HOME": str(home),
            "PATH": f"{tmp_path}/bin:/usr/bin:/bin",
            "SCRATCH": str(home / "scratch"),
            "SNOWYSPAWNER_SECRET": SECRET,
            "SLURM_JOB_ID": "17",
            "SLURMD_NODENAME": "s1",
            # So that what runs in this process is measured, too.
            **{name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")},
            **(env or {}),
        }
        jobs.append(Job(home, spec, around))
        return jobs[-1]

    yield start
    for job in jobs:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.process.pid, signal.SIGKILL)
        job.process.wait()


def tell_to_end(port: int, code: int) -> None:
    # It may end before it has finished answering.
    with contextlib.suppress(OSError):
        urlopen(f"http://127.0.0.1:{port}/end/{code}", timeout=10).close()


# -- a session ---------------------------------------------------------------------------------------------------


def test_a_session_is_claimed_served_reported_and_ends(
    launch: Callable[..., Job], hub: StandInHub, eventually: Callable[..., Any]
) -> None:
    job = launch()
    (port,) = eventually(lambda: hub.ports, "the server's port is reported")
    identity = {"server": 7, "name": "jupyter-lab-0123abcd", "secret": SECRET, "job_id": "17", "node": "s1"}
    assert hub.said("claim") == [identity]
    assert hub.said("report") == [{**identity, "port": port}]
    # It was reported only when it answered.
    urlopen(f"http://127.0.0.1:{port}/user/you/api", timeout=10).close()
    tell_to_end(port, 3)
    assert job.wait() == 3
    (cause,) = hub.causes
    assert cause == {
        **identity,
        "code": 3,
        "detail": "the server ended by itself (exit code 3)",
        "log": ["serving", "last words"],
    }


def test_the_server_gets_what_the_hub_sent_and_what_slurm_granted(
    launch: Callable[..., Job], hub: StandInHub, home: Path, eventually: Callable[..., Any]
) -> None:
    granted = {"SLURM_CPUS_ON_NODE": "4", "SLURM_MEM_PER_CPU": "8000"}
    job = launch({**granted, "TF_NUM_INTEROP_THREADS": "2"}, umask="027")
    (port,) = eventually(lambda: hub.ports, "the server's port is reported")
    server = job.server
    env = server["env"]
    assert env["JUPYTERHUB_API_TOKEN"] == TOKEN
    assert env["JUPYTERHUB_SERVICE_URL"] == f"http://127.0.0.1:{port}/user/you/"
    assert (env["OMP_NUM_THREADS"], env["TF_NUM_INTRAOP_THREADS"], env["CPU_LIMIT"]) == ("4", "4", "4")
    assert env["TF_NUM_INTEROP_THREADS"] == "2"  # a prologue may say otherwise
    assert env["MEM_LIMIT"] == str(4 * 8000 * 1024 * 1024)
    assert server["umask"] == 0o027
    assert server["cwd"] == str(home)
    # Words arrive as they were sent: no shell has read them. The last one is the launcher's own.
    assert server["argv"][1:3] == ["--flag", "it's $(id)"]
    assert re.fullmatch(r"--ServerApp\.terminado_settings={'shell_command': \['/.*sh'\]}", server["argv"][3])


HARMFUL = [
    *("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONUSERBASE", "VIRTUAL_ENV"),
    *("CONDA_PREFIX", "CONDA_SHLVL", "CONDA_DEFAULT_ENV", "_CE_M", "_CE_CONDA"),
    *("SUDO_USER", "SUDO_COMMAND", "MAIL", "XDG_RUNTIME_DIR"),
    *("JUPYTER_CONFIG_DIR", "JUPYTER_PATH", "SNOWYSPAWNER_OTHER"),
]


def test_what_would_harm_the_server_is_dropped(
    launch: Callable[..., Job], hub: StandInHub, eventually: Callable[..., Any]
) -> None:
    harmful = dict.fromkeys(HARMFUL, "/harm") | {"BASH_FUNC_module%%": "() { :; }"}
    job = launch({**harmful, "JUPYTER_RUNTIME_DIR": "/harm", "SLURM_PROCID": "0", "PYTHONUNBUFFERED": "1"})
    eventually(lambda: hub.ports, "the server's port is reported")
    env = job.server["env"]
    # JUPYTER_PATH is the launcher's own.
    assert not (harmful.keys() & env.keys()) - {"JUPYTER_PATH"}
    assert "/harm" not in env.values()
    assert (env["SLURM_PROCID"], env["PYTHONUNBUFFERED"]) == ("0", "1")


def test_the_one_time_secret_goes_to_the_hub_and_nowhere_else(
    launch: Callable[..., Job], hub: StandInHub, eventually: Callable[..., Any]
) -> None:
    job = launch()
    (port,) = eventually(lambda: hub.ports, "the server's port is reported")
    assert SECRET not in json.dumps(job.server)
    tell_to_end(port, 0)
    job.wait()
    assert SECRET not in job.log
    assert TOKEN not in job.log


def test_the_runtime_directory_is_the_session_s_own_and_goes_with_it(
    launch: Callable[..., Job], hub: StandInHub, home: Path, eventually: Callable[..., Any]
) -> None:
    job = launch()
    (port,) = eventually(lambda: hub.ports, "the server's port is reported")
    directory = Path(job.server["env"]["JUPYTER_RUNTIME_DIR"])
    assert directory.parent == home / "scratch"
    assert job.server["runtime_dir_exists"]
    assert job.server["runtime_dir_mode"] == 0o700
    tell_to_end(port, 0)
    assert job.wait() == 0
    assert list((home / "scratch").iterdir()) == []


def test_the_runtime_directory_goes_when_nothing_was_served(
    launch: Callable[..., Job], hub: StandInHub, home: Path
) -> None:
    hub.claims = [(404, {})]
    assert launch().wait() == launcher.REFUSED
    assert list((home / "scratch").iterdir()) == []


# -- the hub -----------------------------------------------------------------------------------------------------


def test_a_hub_that_is_not_ready_is_asked_again(
    launch: Callable[..., Job], hub: StandInHub, eventually: Callable[..., Any]
) -> None:
    # 202: the hub was restarted and takes the session up again. 502: the proxy is there and the hub is not.
    # 404 with a page: the proxy was restarted, too, and has no route to the hub.
    hub.claims = [(202, {}), (502, {}), (404, "<html>404"), (200, claim())]
    hub.reports = [(202, {}), (503, {}), (410, []), (404, ""), (200, {})]
    job = launch()
    eventually(lambda: len(hub.ports) == 5, "the port is reported until that is accepted")
    assert len(hub.said("claim")) == 4
    assert len(set(hub.ports)) == 1
    tell_to_end(hub.ports[0], 0)
    assert job.wait() == 0


def test_a_hub_that_is_away_is_waited_for(
    launch: Callable[..., Job], hub: StandInHub, eventually: Callable[..., Any]
) -> None:
    hub.close()
    job = launch()
    eventually(lambda: "waiting for the hub at" in job.log, "the log says what is waited for")
    back = StandInHub(hub.port)
    try:
        eventually(lambda: back.ports, "the server's port is reported")
        tell_to_end(back.ports[0], 0)
        assert job.wait() == 0
        # Said once, not at each try.
        assert job.log.count("waiting for the hub") == 1
    finally:
        back.close()
        hub.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
        hub.thread = threading.Thread(target=hub.server.serve_forever, kwargs={"poll_interval": 0.02})
        hub.thread.start()


def test_a_hub_that_stays_away_ends_the_job(launch: Callable[..., Job], tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/"
        job = launch(hub_url=url, hub_wait=1)
        assert job.wait() == launcher.NO_HUB
    assert f"(76): no answer from the hub at {url} in 1 s" in job.log


@pytest.mark.parametrize("status", [400, 401, 403, 405, 409, 413, 422])
@pytest.mark.parametrize("answer", [{"status": 400, "message": "node: not a node's name"}, "<html>", []], ids=type)
def test_a_hub_that_does_not_accept_what_the_job_says_has_not_forgotten_it(
    launch: Callable[..., Job], hub: StandInHub, status: int, answer: Any
) -> None:
    """Another version's hub, or a proxy with an opinion of its own: the log has what was answered."""
    hub.claims = [(status, answer)]
    job = launch()
    assert job.wait() == launcher.NOT_ACCEPTED
    said = answer["message"] if isinstance(answer, dict) else ""
    assert f"(81): the hub answers claim with {status}: {said}" in job.log
    assert not (job.home / "server.json").exists()


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
def test_a_hub_that_is_busy_is_asked_again(
    launch: Callable[..., Job], hub: StandInHub, eventually: Callable[..., Any], status: int
) -> None:
    hub.claims = [(status, {}), (200, claim())]
    job = launch()
    (port,) = eventually(lambda: hub.ports, "the server's port is reported")
    tell_to_end(port, 0)
    assert job.wait() == 0


def test_a_server_that_the_hub_does_not_accept_is_ended_and_told(launch: Callable[..., Job], hub: StandInHub) -> None:
    hub.reports = [(403, {"message": "node: not where this job runs"}), (200, {})]
    job = launch()
    assert job.wait() == launcher.NOT_ACCEPTED
    assert hub.causes[0]["detail"] == "the hub answers report with 403: node: not where this job runs"
    with pytest.raises(ProcessLookupError):
        os.kill(job.server["pid"], 0)


@pytest.mark.parametrize(
    "given",
    [
        {"env": {"NUMBER": 5}, "cmd": ["jupyterhub-singleuser"]},
        {"env": {"NUL": "a\0b"}, "cmd": ["jupyterhub-singleuser"]},
        {"env": None, "cmd": ["jupyterhub-singleuser"]},
        {"cmd": []},
        {},
    ],
)
def test_what_nobody_has_foreseen_is_told(launch: Callable[..., Job], hub: StandInHub, given: dict[str, Any]) -> None:
    """The person reads that the launcher failed; support finds where in the log."""
    answer = claim()
    more = given.get("env")
    answer["env"] = {**answer["env"], **more} if more else more
    answer["cmd"] = given.get("cmd")
    hub.claims = [(200, {name: value for name, value in answer.items() if name in given})]
    job = launch()
    assert job.wait() == launcher.UNFORESEEN
    assert "Traceback (most recent call last):" in job.log
    (cause,) = hub.causes
    assert cause["code"] == launcher.UNFORESEEN
    assert cause["detail"] == cause["log"][-1]
    assert re.match(r"\w+Error: ", cause["detail"])


@pytest.mark.parametrize("status", [404, 410])
def test_a_hub_that_does_not_know_the_job_ends_it(launch: Callable[..., Job], hub: StandInHub, status: int) -> None:
    hub.claims = [(status, {})]
    job = launch()
    assert job.wait() == launcher.REFUSED
    # There is nobody to tell.
    assert hub.said("report") == []
    assert not (job.home / "server.json").exists()


def test_a_session_that_was_given_up_meanwhile_ends_with_its_server(
    launch: Callable[..., Job], hub: StandInHub
) -> None:
    hub.reports = [(410, {})]
    job = launch()
    assert job.wait() == launcher.REFUSED
    with pytest.raises(ProcessLookupError):
        os.kill(job.server["pid"], 0)


def test_a_hub_restarted_between_claim_and_report_is_claimed_from_again(
    launch: Callable[..., Job], hub: StandInHub, eventually: Callable[..., Any]
) -> None:
    hub.claims = [(200, claim(token="stale")), (200, claim(token="fresh"))]
    hub.reports = [(200, {"again": True}), (200, {})]
    job = launch()
    eventually(lambda: len(hub.ports) == 2, "a second server is reported")
    assert len(hub.said("claim")) == 2
    assert job.server["env"]["JUPYTERHUB_API_TOKEN"] == "fresh"
    tell_to_end(hub.ports[1], 5)
    assert job.wait() == 5


def runs(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_a_server_that_does_not_leave_makes_room_for_the_next_one_all_the_same(
    launch: Callable[..., Job], hub: StandInHub, eventually: Callable[..., Any]
) -> None:
    """A server whose hub was restarted may go on asking that, and hear nothing else."""
    hub.reports = [(200, {"again": True}), (200, {})]
    hub.claims = [(200, claim(mode="deaf once"))]
    job = launch()
    eventually(lambda: hub.ports, "the first server is reported")
    first = launcher.family(job.server["pid"])
    assert len(first) == 2
    eventually(lambda: len(hub.ports) == 2, "a second server is reported")
    assert "the server does not end, killing it" in job.log
    # An orphan stays a zombie until it is reaped.
    eventually(lambda: not any(runs(pid) for pid in first), "both have ended")
    tell_to_end(hub.ports[1], 5)
    assert job.wait() == 5


# -- the end -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_passed_on_and_its_code_is_the_job_s(
    launch: Callable[..., Job], hub: StandInHub, eventually: Callable[..., Any], number: int
) -> None:
    job = launch()
    eventually(lambda: hub.ports, "the server's port is reported")
    job.process.send_signal(number)
    code = job.wait()
    # Python's own answer to SIGINT is an exception, which -2 or 130 are the shell's words for.
    assert code == 128 + number
    (cause,) = hub.causes
    # Whoever sent it knows why.
    assert (cause["code"], cause["detail"]) == (code, "")


def test_a_server_that_leaves_in_order_is_a_success(
    launch: Callable[..., Job], hub: StandInHub, eventually: Callable[..., Any]
) -> None:
    hub.claims = [(200, claim("gentle"))]
    job = launch()
    eventually(lambda: hub.ports, "the server's port is reported")
    job.process.send_signal(signal.SIGTERM)
    assert job.wait() == 0


def test_a_signal_ends_a_job_that_waits_for_the_hub(
    launch: Callable[..., Job], hub: StandInHub, home: Path, eventually: Callable[..., Any]
) -> None:
    hub.claims = [(202, {})]
    job = launch()
    eventually(lambda: hub.said("claim"), "it claims")
    job.process.send_signal(signal.SIGTERM)
    assert job.wait(5) == 143
    assert list((home / "scratch").iterdir()) == []


def test_a_signal_ends_a_job_that_claims_for_the_second_time(
    launch: Callable[..., Job], hub: StandInHub, eventually: Callable[..., Any]
) -> None:
    hub.claims = [(200, claim()), (202, {})]
    hub.reports = [(200, {"again": True})]
    job = launch()
    eventually(lambda: len(hub.said("claim")) > 2, "it claims again")
    job.process.send_signal(signal.SIGTERM)
    try:
        code = job.wait(3)
    except subprocess.TimeoutExpired:
        pytest.fail("SIGTERM was given to the server that had ended already")
    assert code == 143


def test_a_hub_that_is_away_at_the_end_is_not_waited_for(
    launch: Callable[..., Job], hub: StandInHub, eventually: Callable[..., Any]
) -> None:
    hub.reports = [(200, {}), (502, {})]
    job = launch()
    (port,) = eventually(lambda: hub.ports, "the server's port is reported")
    tell_to_end(port, 4)
    assert job.wait(5) == 4


# -- before the end ----------------------------------------------------------------------------------------------

# Says what Slurm would: in turn the lines of a file, the last one again and again; how often it was asked is noted.
SQUEUE = """#!/bin/sh
echo "$SLURM_TIME_FORMAT $*" >> "$HOME/asked"
sed -n "$(wc -l < "$HOME/asked")p;\\$p" "$HOME/ends" | head -n 1
"""


@pytest.fixture
def slurm_says(home: Path, executable: Callable[..., Path]) -> Callable[..., None]:
    """Let squeue answer with these ends, in seconds from now; without any, it fails."""

    def says(*left: float) -> None:
        executable("squeue", SQUEUE if left else "#!/bin/sh\nexit 1\n")
        (home / "ends").write_text("".join(f"{int(time.time() + seconds)}\n" for seconds in left))

    return says


def session(job: Job) -> dict[str, int]:
    """What JupyterLab is told."""
    root = job.server["env"]["JUPYTER_PATH"].split(":")[0]
    return dict(json.loads(Path(root, "labextensions/snowyspawner/static/session.json").read_text()))


def test_slurm_s_signal_warns_and_ends_nothing(
    launch: Callable[..., Job],
    hub: StandInHub,
    home: Path,
    slurm_says: Callable[..., None],
    eventually: Callable[..., Any],
) -> None:
    slurm_says(3600, 610)
    job = launch()
    (port,) = eventually(lambda: hub.ports, "the server's port is reported")
    eventually(lambda: session(job)["end"] > time.time() + 3590, "JupyterLab knows the end")
    assert session(job)["notice"] == 0
    job.process.send_signal(signal.SIGUSR1)
    eventually(lambda: "snowyspawner: this session ends at " in job.log, "the log has the warning")
    # Slurm was asked once more: somebody has shortened the job.
    assert re.search(r"this session ends at \d\d:\d\d, in 10 minutes: save your work\n", job.log)
    told = eventually(lambda: session(job)["notice"] and session(job), "JupyterLab is told")
    assert abs(told["end"] - time.time() - 610) < 5
    assert told["warn"] == 600
    assert (home / "asked").read_text() == "%s --noheader --jobs=17 --format=%e\n" * 2
    # It was for the launcher alone; the server would have ended of it.
    urlopen(f"http://127.0.0.1:{port}/user/you/api", timeout=10).close()
    tell_to_end(port, 0)
    assert job.wait() == 0


def test_a_signal_that_comes_before_all_else_does_no_harm(
    launch: Callable[..., Job], hub: StandInHub, slurm_says: Callable[..., None], eventually: Callable[..., Any]
) -> None:
    slurm_says(610)
    hub.claims = [(202, {})]
    # As Slurm does, leave the shell the time for its first line.
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        job = launch()
    finally:
        signal.signal(signal.SIGUSR1, before)
    for _ in range(50):
        job.process.send_signal(signal.SIGUSR1)
        time.sleep(0.01)
    eventually(lambda: hub.said("claim"), "it claims")
    job.process.send_signal(signal.SIGUSR1)
    eventually(lambda: "in 10 minutes: save your work" in job.log, "the log has the warning")
    hub.claims = [(200, claim())]
    eventually(lambda: hub.ports, "the server's port is reported")
    assert session(job)["notice"]


def test_a_signal_that_slurm_never_sends_is_not_missed(
    launch: Callable[..., Job], hub: StandInHub, slurm_says: Callable[..., None], eventually: Callable[..., Any]
) -> None:
    slurm_says(60 + end_warning.LOOK_AHEAD + 2)
    job = launch(warn=60)
    eventually(lambda: hub.ports, "the server's port is reported")
    eventually(lambda: "in 1 minute: save your work" in job.log, "the log has the warning")
    time.sleep(0.5)
    assert job.log.count("save your work") == 1


def test_an_end_that_was_put_off_is_not_warned_of(
    launch: Callable[..., Job], hub: StandInHub, slurm_says: Callable[..., None], eventually: Callable[..., Any]
) -> None:
    slurm_says(60 + end_warning.LOOK_AHEAD + 2, 3600)
    job = launch(warn=60)
    eventually(lambda: hub.ports, "the server's port is reported")
    eventually(lambda: session(job)["end"] > time.time() + 3590, "JupyterLab knows the new end")
    assert "save your work" not in job.log


@pytest.mark.parametrize("variable", [{}, {"SLURM_JOB_END_TIME": "0"}, {"SLURM_JOB_END_TIME": "soon"}], ids=str)
def test_without_slurm_s_commands_the_end_is_the_limit_from_now(
    launch: Callable[..., Job],
    hub: StandInHub,
    slurm_says: Callable[..., None],
    eventually: Callable[..., Any],
    variable: dict[str, str],
) -> None:
    slurm_says()
    job = launch(variable, limit=7200)
    eventually(lambda: hub.ports, "the server's port is reported")
    assert abs(int(job.server["env"]["SLURM_JOB_END_TIME"]) - time.time() - 7200) < 5
    assert session(job)["end"] == int(job.server["env"]["SLURM_JOB_END_TIME"])


def test_an_end_that_slurm_has_said_is_not_asked_for(
    launch: Callable[..., Job],
    hub: StandInHub,
    home: Path,
    slurm_says: Callable[..., None],
    eventually: Callable[..., Any],
) -> None:
    slurm_says(100)
    end = int(time.time()) + 7200
    job = launch({"SLURM_JOB_END_TIME": str(end)})
    eventually(lambda: hub.ports, "the server's port is reported")
    assert job.server["env"]["SLURM_JOB_END_TIME"] == str(end)
    assert session(job) == {"end": end, "warn": 600, "notice": 0, "usage": None}
    assert not (home / "asked").exists()


def test_jupyterlab_finds_the_extension_beside_what_the_image_has(
    launch: Callable[..., Job], hub: StandInHub, home: Path, conda: Path, eventually: Callable[..., Any]
) -> None:
    with (conda / "etc" / "profile.d" / "conda.sh").open("a") as out:
        out.write("JUPYTER_PATH=/opt/course/jupyter; export JUPYTER_PATH\n")
    job = launch(environment={**CONDA, "conda": str(conda), "name": "tf-mkl"})
    eventually(lambda: hub.ports, "the server's port is reported")
    ours, theirs = job.server["env"]["JUPYTER_PATH"].split(":")
    assert theirs == "/opt/course/jupyter"
    # With the session's own files, so that it goes with them.
    assert Path(ours).parent == Path(job.server["env"]["JUPYTER_RUNTIME_DIR"])
    extension = Path(ours) / "labextensions" / "snowyspawner"
    package = json.loads((extension / "package.json").read_text())
    assert package["name"] == extension.name
    assert (extension / package["jupyterlab"]["_build"]["load"]).read_text() == EXTENSION.read_text()


def test_jupyterlab_is_told_what_the_session_uses(
    launch: Callable[..., Job], hub: StandInHub, eventually: Callable[..., Any]
) -> None:
    text = Path(sampler.__file__).read_text()
    had = {"cores": 4, "memory": 32000}
    body = {**claim(), "sampler": {"text": text, "interval": 0.4, "gpu": "", "had": had}}
    hub.claims = [(200, body)]
    job = launch()
    eventually(lambda: hub.ports, "the server's port is reported")
    usage: dict[str, Any] = eventually(lambda: session(job)["usage"], "it is told")  # type: ignore[assignment]
    assert usage["had"] == had
    assert usage["now"]["memory"] > 1


def cost(pid: int) -> tuple[float, float]:
    """Return the processor time of a process alone, in seconds, and what it holds, in MiB."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    held = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert held
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), int(held[1]) / 1024


def test_the_sampler_costs_nearly_nothing(
    launch: Callable[..., Job], hub: StandInHub, eventually: Callable[..., Any]
) -> None:
    """With and without it, side by side; it takes a sample every 15 seconds, here twenty times as many."""
    text, had = Path(sampler.__file__).read_text(), {"cores": 4, "memory": 32000}
    jobs = []
    for measured in (True, False):
        body = {"sampler": {"text": text, "interval": 3.0, "gpu": "", "had": had}} if measured else {}
        hub.claims = [(200, {**claim(), **body})]
        jobs.append(launch())
        eventually(lambda: len(hub.ports) == len(jobs), "the server's port is reported")
    time.sleep(1)  # what a start takes is over
    before, began = [cost(job.process.pid) for job in jobs], time.monotonic()
    time.sleep(12)
    samples = (time.monotonic() - began) / 0.75
    (with_it, held), (without, held_without) = (cost(job.process.pid) for job in jobs)
    each = ((with_it - before[0][0]) - (without - before[1][0])) / samples
    print(f"a sample takes {1000 * each:.1f} ms, the sampler holds {held - held_without:.1f} MiB")
    assert each / sampler.PERIOD < 0.002
    assert held - held_without < 4


def test_without_a_script_nothing_is_added_to_jupyterlab(
    launch: Callable[..., Job], hub: StandInHub, slurm_says: Callable[..., None], eventually: Callable[..., Any]
) -> None:
    slurm_says(10)
    hub.claims = [(200, {**claim(), "extension": ""})]
    job = launch(warn=0)
    eventually(lambda: hub.ports, "the server's port is reported")
    assert "JUPYTER_PATH" not in job.server["env"]
    assert "save your work" not in job.log


def test_logs_of_earlier_jobs_are_removed_at_the_start(
    launch: Callable[..., Job], hub: StandInHub, home: Path, eventually: Callable[..., Any]
) -> None:
    for number in range(1, 7):
        (home / f".snowyspawner-{number}.log").touch()
        os.utime(home / f".snowyspawner-{number}.log", (number, number))
    pattern = r"\.snowyspawner\-(?P<job>[0-9]+)\.log"
    job = launch(logs={"directory": "", "pattern": pattern, "days": 0, "number": 3})
    eventually(lambda: hub.ports, "the server's port is reported")
    eventually(lambda: "removed 4 old logs" in job.log, "the log says what was removed")
    assert sorted(path.name for path in home.glob(".snowy*")) == [".snowyspawner-5.log", ".snowyspawner-6.log"]


# -- what can go wrong -------------------------------------------------------------------------------------------


def test_a_server_that_dies_before_it_answers_reports_its_last_lines(
    launch: Callable[..., Job], hub: StandInHub
) -> None:
    hub.claims = [(200, claim("die"))]
    job = launch()
    assert job.wait() == 3
    (cause,) = hub.causes
    assert cause["code"] == 3
    assert cause["detail"] == "the server ended before it answered (exit code 3)"
    assert cause["log"] == [f"line {n}" for n in range(10, 30)]
    # The job's log has all of them.
    assert "line 0\n" in job.log


def test_a_port_that_somebody_else_has_taken_is_replaced(
    launch: Callable[..., Job], hub: StandInHub, eventually: Callable[..., Any]
) -> None:
    hub.claims = [(200, claim("busy once"))]
    job = launch()
    (port,) = eventually(lambda: hub.ports, "the second server's port is reported")
    taken = re.search(r"port (\d+) was taken by somebody else", job.log)
    assert taken
    assert int(taken[1]) != port


def test_the_port_is_one_of_those_that_the_firewall_lets_through(
    launch: Callable[..., Job], hub: StandInHub, eventually: Callable[..., Any]
) -> None:
    job = launch(ports="20000-20100")
    (port,) = eventually(lambda: hub.ports, "the server's port is reported")
    assert 20000 <= port <= 20100
    tell_to_end(port, 0)
    assert job.wait() == 0


def test_80_no_port_is_free(launch: Callable[..., Job], hub: StandInHub) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        job = launch(ports=f"{port}-{port}")
        assert job.wait() == launcher.NO_PORT
    assert hub.causes[0]["code"] == 80
    assert hub.causes[0]["detail"] == f"all ports of {port}-{port} are taken"


def test_ports_are_tried_in_any_order() -> None:
    first = 50000
    assert len({launcher.free_port("127.0.0.1", f"{first}-{first + 999}") for _ in range(20)}) > 5


def test_three_taken_ports_are_enough(launch: Callable[..., Job], hub: StandInHub) -> None:
    hub.claims = [(200, claim("busy"))]
    job = launch()
    assert job.wait() == 1
    assert job.log.count("was taken by somebody else") == 2
    assert hub.causes[0]["log"] == ["OSError: [Errno 98] Address already in use"]


def test_a_full_disk_below_the_log_ends_neither_session_nor_report(
    launch: Callable[..., Job], hub: StandInHub, home: Path, eventually: Callable[..., Any]
) -> None:
    # Every write fails with "No space left on device".
    (home / "job.log").symlink_to("/dev/full")
    job = launch()
    (port,) = eventually(lambda: hub.ports, "the server's port is reported")
    tell_to_end(port, 3)
    assert job.wait() == 3
    assert hub.causes[0]["log"] == ["serving", "last words"]


def test_colors_are_for_terminals_not_for_pages(
    launch: Callable[..., Job], hub: StandInHub, home: Path, executable: Callable[..., Path]
) -> None:
    executable("apptainer", RUNTIME)
    (home / "a.sif").write_text("x")
    raw = "\x1b[31mFATAL:  \x1b[0m Couldn't determine user account information: user: unknown userid 1001"
    job = launch({"STAND_IN_RUNTIME": raw}, image={**IMAGE, "path": f"{home}/a.sif"})
    said = "FATAL:   Couldn't determine user account information: user: unknown userid 1001"
    assert failing(job, hub, 69, said)["log"] == [said]


IMAGE = {"runtime": "auto", "entry": "exec", "binds": []}
CONDA = {"kind": "conda", "prefix": "", "name": "tf-gpu"}


def failing(job: Job, hub: StandInHub, code: int, detail: str) -> dict[str, Any]:
    assert job.wait() == code, job.log
    (cause,) = hub.causes
    assert cause["code"] == code
    assert detail in cause["detail"]
    assert hub.ports == []
    return cause


def test_65_no_runtime(launch: Callable[..., Job], hub: StandInHub, home: Path, tmp_path: Path) -> None:
    # Nothing but the server on PATH: this machine may have a real apptainer.
    job = launch({"PATH": f"{tmp_path}/bin"}, image={**IMAGE, "path": str(home)})
    failing(job, hub, 65, "apptainer nor singularity not found on PATH")


def test_66_the_image_is_missing(launch: Callable[..., Job], hub: StandInHub, executable: Callable[..., Path]) -> None:
    executable("apptainer", RUNTIME)
    job = launch(image={**IMAGE, "path": "/nowhere/a.sif"})
    failing(job, hub, 66, "/nowhere/a.sif")


def test_68_the_image_is_empty(
    launch: Callable[..., Job], hub: StandInHub, home: Path, executable: Callable[..., Path]
) -> None:
    executable("apptainer", RUNTIME)
    (home / "a.sif").touch()
    failing(launch(image={**IMAGE, "path": f"{home}/a.sif"}), hub, 68, "a.sif is empty")


def test_69_the_runtime_s_own_failure_is_told_by_what_it_printed(
    launch: Callable[..., Job], hub: StandInHub, home: Path, executable: Callable[..., Path]
) -> None:
    executable("apptainer", RUNTIME)
    (home / "a.sif").write_text("x")
    raw = "FATAL: fuse: failed to open /dev/fuse: Permission denied"
    job = launch({"STAND_IN_RUNTIME": raw}, image={**IMAGE, "path": f"{home}/a.sif"})
    assert failing(job, hub, 69, raw)["log"] == [raw]


def test_71_no_conda(launch: Callable[..., Job], hub: StandInHub, home: Path) -> None:
    job = launch(environment={**CONDA, "conda": str(home / "none")})
    failing(job, hub, 71, f"no conda in the image (looked in {home}/none)")


@pytest.fixture
def conda(tmp_path: Path) -> Path:
    """Stands in for conda: `conda activate` of a directory below envs/."""
    base = tmp_path / "conda"
    (base / "etc" / "profile.d").mkdir(parents=True)
    (base / "envs" / "tf-mkl" / "bin").mkdir(parents=True)
    (base / "envs" / "tf-pip" / "bin").mkdir(parents=True)
    (base / "etc" / "profile.d" / "conda.sh").write_text(
        f'conda() {{ [ -d "{base}/envs/$2" ] || {{ echo "EnvironmentNameNotFound: $2" >&2; return 1; }}\n'
        f'PATH="{base}/envs/$2/bin:$PATH"; CONDA_DEFAULT_ENV=$2; export PATH CONDA_DEFAULT_ENV; }}\n'
    )
    return base


def test_72_the_environment_is_missing_and_those_there_are_are_named(
    launch: Callable[..., Job], hub: StandInHub, conda: Path
) -> None:
    job = launch(environment={**CONDA, "conda": str(conda)})
    cause = failing(job, hub, 72, "no conda environment 'tf-gpu' in the image; it has: tf-mkl tf-pip")
    assert "EnvironmentNameNotFound: tf-gpu" in cause["log"]


def test_72_the_prefix_is_missing(launch: Callable[..., Job], hub: StandInHub, home: Path) -> None:
    job = launch(environment={"kind": "prefix", "conda": "", "prefix": f"{home}/no", "name": "mine"})
    failing(job, hub, 72, f"no environment at {home}/no in the image")


def test_73_the_server_is_missing(launch: Callable[..., Job], hub: StandInHub, tmp_path: Path) -> None:
    (tmp_path / "bin" / "jupyterhub-singleuser").unlink()
    failing(launch(), hub, 73, "no jupyterhub-singleuser in environment 'base'")


def test_74_the_gpu_is_missing(launch: Callable[..., Job], hub: StandInHub) -> None:
    # Without Slurm's variable there is no GPU for this job, whatever the machine has.
    failing(launch(gpu="nvidia"), hub, 74, "CUDA_VISIBLE_DEVICES=")


@pytest.mark.parametrize("version", ["0.9.6", "1.5.1"])
def test_75_jupyterhub_is_too_old(
    launch: Callable[..., Job], hub: StandInHub, executable: Callable[..., Path], version: str
) -> None:
    executable("python3", f"#!/bin/sh\necho {version}\n")
    failing(launch(), hub, 75, f"jupyterhub {version} in the image is too old")


def test_78_the_home_directory_cannot_be_written_to(launch: Callable[..., Job], hub: StandInHub) -> None:
    # Root, who may run this, writes wherever there is a directory.
    failing(launch({"HOME": "/nowhere"}), hub, 78, "/nowhere: No such file or directory")


def test_79_the_scratch_directory_cannot_be_written_to() -> None:
    with pytest.raises(launcher.Failure) as caught:
        launcher.make_runtime_directory("/proc")
    assert caught.value.code == 79
    assert caught.value.detail.startswith("/proc: ")


def test_79_a_scratch_directory_without_room_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(launcher.os, "fsync", full)
    with pytest.raises(launcher.Failure, match="No space left on device"):
        launcher.make_runtime_directory(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_directory_with_room_is_left_as_it_was(tmp_path: Path) -> None:
    launcher.check_writable(78, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", ["2.0.0", "6.1.1", "10.0"])
def test_a_newer_jupyterhub_is_welcome(
    launch: Callable[..., Job],
    hub: StandInHub,
    executable: Callable[..., Path],
    eventually: Callable[..., Any],
    version: str,
) -> None:
    executable("python3", f"#!/bin/sh\necho {version}\n")
    launch()
    assert eventually(lambda: hub.ports, "the server's port is reported")


@pytest.mark.parametrize("entry", ["exec", "run"])
def test_the_server_runs_in_the_container_with_the_environment_active(
    launch: Callable[..., Job],
    hub: StandInHub,
    home: Path,
    conda: Path,
    executable: Callable[..., Path],
    eventually: Callable[..., Any],
    entry: str,
) -> None:
    executable("singularity", RUNTIME)
    (home / "a.sif").write_text("x")
    image = {"path": f"{home}/a.sif", "runtime": "singularity", "entry": entry, "binds": [str(conda), "/nowhere"]}
    job = launch(image=image, environment={**CONDA, "conda": str(conda), "name": "tf-mkl"})
    eventually(lambda: hub.ports, "the server's port is reported")
    env = job.server["env"]
    assert env["CONDA_DEFAULT_ENV"] == "tf-mkl"
    assert env["PATH"].startswith(f"{conda}/envs/tf-mkl/bin:")
    argv = (home / "runtime.argv").read_text().splitlines()
    assert argv[:9] == [
        "-q",
        entry,
        "--bind",
        str(conda),
        "--bind",
        f"{home}/scratch",
        "--pwd",
        str(home),
        image["path"],
    ]
    assert (argv[9] == "/bin/sh") == (entry == "exec")
    assert "/nowhere does not exist on this node" in job.log


# -- its parts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "log", "cause"),
    [
        # What Apptainer really printed: reference/containers.md §4, "raw"
        (255, "FATAL:   could not open image /p/a.sif: stat /p/a.sif: no such file or directory", 66),
        (255, "FATAL:   /p/a.sif is not readable by the current user", 67),
        (255, "FATAL:   could not open image /p/a.sif: lstat /p/a.sif: permission denied", 67),
        (255, "FATAL:   image format not recognized", 68),
        (255, "squashfuse_ll exited: Something went wrong trying to read the squashfs image.", 68),
        (255, "FATAL: could not open image /p/a.sif: failed to read SIF partition at offset 32768: EOF", 68),
        (255, "fuse: failed to open /dev/fuse: Permission denied", 69),
        (255, 'FATAL: while extracting: exec: "unsquashfs": executable file not found in $PATH', 69),
        (255, "FATAL: Couldn't determine user account information: user: unknown userid 4711", 69),
        # Of its part in C, which ends with code 1
        (1, "ERROR  : Failed to create user namespace: maximum number of user namespaces exceeded", 69),
        (1, "ERROR  : something new", 69),
        (255, "FATAL: stat /bin/sh: no such file or directory", 70),
        (255, "FATAL: something new", 69),
        (255, "", 69),
        # Of INNER
        (71, "snowyspawner: no conda in the image (looked in /opt/conda)", 71),
        (72, "snowyspawner: no conda environment 'x' in the image; it has: a b", 72),
        (73, "snowyspawner: no jupyterhub-singleuser in environment 'x'", 73),
        (74, "snowyspawner: a GPU was asked for", 74),
        (75, "snowyspawner: jupyterhub 1.5 in the image is too old", 75),
        (72, "", 72),
        # Of the server
        (1, "Traceback", 1),
        (1, "ERROR: permission denied", 1),
        (1, "[E 2026-01-01 00:00:00.000 ServerApp] no user namespace", 1),
        (127, "not found", 127),
        (137, "", 137),
        (0, "", 1),  # an end before it answered is a failure, whatever it calls itself
    ],
)
def test_why_a_server_ended_is_told_by_code_and_text(code: int, log: str, cause: int) -> None:
    lines = ["INFO: something before", *([log] if log else [])]
    failure = launcher.failure_of(SimpleNamespace(tail=deque(lines)), code)
    assert failure.code == cause
    assert failure.log == lines
    if log and (code in (*range(71, 76), 255) or cause == 69):
        # The very line, so that support knows.
        assert failure.detail == log.removeprefix("snowyspawner: ")


SPEC: dict[str, Any] = {
    "image": {"path": "/p/a.sif", "runtime": "auto", "entry": "exec", "binds": []},
    "environment": {"kind": "conda", "conda": "/opt/conda", "prefix": "", "name": "tf-gpu"},
    "gpu": "nvidia",
}


@pytest.mark.parametrize(
    ("shells", "expected"), [(("bash",), "bash f"), ((), "sh")], ids=["an image with bash", "an image without"]
)
def test_activation_scripts_written_for_bash_run_in_bash(
    tmp_path: Path, shells: tuple[str, ...], expected: str
) -> None:
    """Compiler packages of conda have them: ``function f() {`` ends dash. Where there is no bash it is /bin/sh."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in shells:
        (tools / name).symlink_to(f"/bin/{name}")
    (tmp_path / "env.sh").write_text("echo from BASH_ENV; exit 9\n")
    script = (
        'if [ -n "${BASH_VERSION:-}" ]; then eval \'function f() { echo "bash f"; }\'; f; else echo sh; fi; echo "$@"'
    )
    done = subprocess.run(
        ["/bin/sh", "-c", launcher.OUTER, "sh", script, "snowyspawner", "a b", "$(id)"],
        env={"PATH": str(tools), "BASH_ENV": str(tmp_path / "env.sh")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [expected, "a b $(id)"]


def test_the_command_s_words_are_arguments_never_shell_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/you")
    nasty = ["x", "a b", "$(id)", "'", '"', "\n", "{{x}}", "", "å"]
    command = launcher.server_command(SPEC, {"cmd": nasty}, "/usr/bin/apptainer", "/tmp", "/tmp/share")
    assert command == [
        *("/usr/bin/apptainer", "-q", "exec", "--nv", "--pwd", "/home/you", "/p/a.sif", "/bin/sh"),
        *(
            "-c",
            launcher.OUTER,
            "sh",
            launcher.INNER,
            "snowyspawner",
            "conda",
            "/opt/conda",
            "tf-gpu",
            "/dev/nvidia[0-9]*",
            "/tmp/share",
        ),
        *nasty,
    ]


@pytest.mark.parametrize("runtime", ["apptainer", "singularity"])
@pytest.mark.parametrize(
    ("vendor", "options", "devices"),
    [
        ("", [], ""),
        ("nvidia", ["--nv"], "/dev/nvidia[0-9]*"),
        ("amd", ["--rocm"], "/dev/kfd"),
        ("intel", [], "/dev/dri/renderD*"),
    ],
)
def test_the_container_gets_the_gpus_of_their_vendor(
    runtime: str, vendor: str, options: list[str], devices: str
) -> None:
    command = launcher.server_command({**SPEC, "gpu": vendor}, {"cmd": ["x"]}, runtime, "/tmp", "/tmp/share")
    assert command[: command.index("--pwd")] == [runtime, "-q", "exec", *options]
    assert command[-3:] == [devices, "/tmp/share", "x"]


@pytest.mark.parametrize(
    ("devices", "code"), [("{0}/nvidia[0-9]*", 0), ("{0}/kfd", 0), ("{0}/dri/renderD*", 74), ("", 0)]
)
def test_the_container_is_looked_into_for_the_gpu(tmp_path: Path, devices: str, code: int) -> None:
    """A node may have one that the container does not show."""
    for name in ("nvidia3", "kfd"):
        (tmp_path / name).touch()
    words = ["none", "", "base", devices.format(tmp_path), "", "/bin/true"]
    done = subprocess.run(["/bin/sh", "-c", launcher.INNER, "snowyspawner", *words], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert ("none is visible in the container" in done.stderr) == (code == 74)


def test_every_vendor_of_a_site_is_known_to_the_launcher() -> None:
    vendors = set(get_args(Gpu.model_fields["vendor"].annotation))
    assert vendors == set(launcher.VENDORS)


def test_without_a_runtime_only_the_shell_is_left() -> None:
    spec = {**SPEC, "image": {**SPEC["image"], "runtime": "none"}}
    assert launcher.server_command(spec, {"cmd": ["x"]}, "", "/tmp", "/tmp/share")[:2] == ["/bin/sh", "-c"]


def test_a_runscript_gets_the_arguments_of_its_shell() -> None:
    spec = {**SPEC, "image": {**SPEC["image"], "entry": "run"}}
    command = launcher.server_command(spec, {"cmd": ["x"]}, "apptainer", "/tmp", "/tmp/share")
    assert command[command.index("/p/a.sif") + 1] == "-c"


def test_a_prefix_takes_the_place_of_conda_s_directory() -> None:
    spec = {**SPEC, "environment": {"kind": "prefix", "conda": "", "prefix": "/sw/env", "name": "mine"}}
    command = launcher.server_command(spec, {"cmd": ["x"]}, "apptainer", "/tmp", "/tmp/share")
    assert command[-6:] == ["prefix", "/sw/env", "mine", "/dev/nvidia[0-9]*", "/tmp/share", "x"]


def test_only_what_the_node_has_is_bound(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    spec = {**SPEC, "image": {**SPEC["image"], "binds": [str(tmp_path), "/nowhere"]}}
    command = launcher.server_command(spec, {"cmd": ["x"]}, "apptainer", "/", "/tmp/share")
    assert [command[at + 1] for at, word in enumerate(command) if word == "--bind"] == [str(tmp_path), "/"]
    assert "/nowhere does not exist on this node" in capfd.readouterr().err


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_who_listens_on_a_port_is_known(family: socket.AddressFamily) -> None:
    address = "127.0.0.1" if family == socket.AF_INET else "::1"
    try:
        port = launcher.free_port(address)
    except OSError:
        pytest.skip("this machine has no IPv6")
    everywhere = "0.0.0.0" if family == socket.AF_INET else "::"  # noqa: S104
    assert launcher.listener(port) is None
    with socket.socket(family) as server:
        server.bind((address, port))
        assert launcher.listener(port) is None  # bound, but not listening
        assert not launcher.accepts(address, port)
        server.listen()
        assert launcher.listener(port) == os.getuid()
        assert launcher.accepts(address, port)
        assert launcher.accepts(everywhere, port)


def test_a_listener_that_is_no_http_server_does_not_answer() -> None:
    assert not launcher.answers("127.0.0.1", launcher.free_port("127.0.0.1"), "/")


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])  # noqa: S104
@pytest.mark.parametrize(
    ("status", "ours"),
    [(200, True), (401, True), (403, True), (204, False), (302, False), (404, False), (500, False), (503, False)],
)
def test_only_a_single_user_server_s_answers_count(address: str, status: int, ours: bool) -> None:
    """Something else of the person's may have taken the port: a web page that they write, for one."""

    class Ready(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Ready) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert launcher.answers(address, server.server_port, "/") == ours
        thread.join()


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        # sbatch(1), OUTPUT ENVIRONMENT VARIABLES
        ({}, (1, 0)),
        ({"SLURM_CPUS_ON_NODE": "4"}, (4, 0)),
        ({"SLURM_CPUS_ON_NODE": "4", "SLURM_MEM_PER_CPU": "8000"}, (4, 32000)),
        ({"SLURM_CPUS_ON_NODE": "16", "SLURM_MEM_PER_NODE": "128000"}, (16, 128000)),
        ({"SLURM_MEM_PER_NODE": "1000", "SLURM_MEM_PER_CPU": "8000"}, (1, 1000)),
        ({"SLURM_CPUS_ON_NODE": "", "SLURM_MEM_PER_NODE": ""}, (1, 0)),
    ],
)
def test_what_slurm_granted_is_read(env: dict[str, str], expected: tuple[int, int]) -> None:
    assert launcher.granted(env) == expected


NVIDIA, AMD, INTEL = "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK"


@pytest.mark.parametrize(
    ("vendor", "devices", "env", "there"),
    [
        ("nvidia", ["nvidia0"], {NVIDIA: "0", "SLURM_JOB_GPUS": "0"}, True),
        ("nvidia", ["nvidia0", "nvidia1"], {NVIDIA: "0", "SLURM_JOB_GPUS": "1"}, True),  # numbered anew in a cgroup
        ("nvidia", ["nvidia0"], {NVIDIA: "0"}, True),
        ("nvidia", [], {NVIDIA: "0", "SLURM_JOB_GPUS": "0"}, False),
        # Slurm counts the GPUs of a node, which need not be numbered like their files.
        ("nvidia", ["nvidia3"], {NVIDIA: "0", "SLURM_JOB_GPUS": "0"}, True),
        ("nvidia", ["nvidia0"], {NVIDIA: "NoDevFiles", "SLURM_JOB_GPUS": "0"}, False),
        ("nvidia", ["nvidia0"], {NVIDIA: "", "SLURM_JOB_GPUS": "0"}, False),
        ("nvidia", ["nvidia0"], {}, False),
        ("nvidia", ["nvidia0"], {"SLURM_JOB_GPUS": "0"}, True),  # gres.conf with Flags=no_gpu_env
        ("nvidia", ["nvidiactl", "nvidia-uvm"], {NVIDIA: "0"}, False),
        # Slices, by the names that NVIDIA's driver has for them, new and old.
        ("nvidia", ["nvidia0"], {NVIDIA: "MIG-8d2b2e56-d1b0-5e2e-9c0b-7a1f1f1c2a34"}, True),
        ("nvidia", ["nvidia0"], {NVIDIA: "MIG-GPU-9c3c1f2e-0c2c-11ef-8a57-0242ac120002/3/0"}, True),
        ("amd", ["kfd", "dri/renderD128"], {AMD: "0", NVIDIA: "0"}, True),
        ("amd", ["nvidia0"], {AMD: "0", NVIDIA: "0"}, False),
        ("amd", ["kfd"], {"SLURM_JOB_GPUS": "2"}, True),
        ("amd", ["kfd"], {NVIDIA: "0"}, False),
        ("intel", ["dri/renderD128"], {INTEL: "0"}, True),
        ("intel", ["dri/card0"], {INTEL: "0"}, False),
        ("intel", ["dri/renderD128"], {"SLURM_JOB_GPUS": "0"}, True),  # this Slurm knows none of Intel's
        ("intel", ["dri/renderD128"], {}, False),
    ],
)
def test_the_gpus_that_slurm_gave_must_be_there(
    monkeypatch: pytest.MonkeyPatch, vendor: str, devices: list[str], env: dict[str, str], there: bool
) -> None:
    files = [f"/dev/{name}" for name in devices]
    monkeypatch.setattr(launcher.glob, "glob", lambda pattern: fnmatch.filter(files, pattern))
    if there:
        launcher.check_gpu(vendor, env)
        return
    with pytest.raises(launcher.Failure) as caught:
        launcher.check_gpu(vendor, env)
    assert caught.value.code == launcher.NO_GPU


def test_apptainer_comes_before_singularity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executable: Callable[..., Path]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    singularity = executable("singularity", "#!/bin/sh\n")
    assert launcher.find_runtime("auto") == str(singularity)
    apptainer = executable("apptainer", "#!/bin/sh\n")
    assert launcher.find_runtime("auto") == str(apptainer)
    assert launcher.find_runtime("singularity") == str(singularity)


CHECK = """
    try:
        check_image(sys.argv[1])
    except Failure as failure:
        say(failure)
        sys.exit(failure.code)
"""


@pytest.mark.parametrize("kind", ["file", "directory", "in a closed directory"])
def test_67_an_image_that_may_not_be_read(kind: str) -> None:
    # Not in pytest's directory: that one is closed to others, which would be all that is seen here.
    with tempfile.TemporaryDirectory() as directory:
        image = Path(directory, "closed", "a.sif")
        image.parent.mkdir()
        if kind == "directory":
            image.mkdir()
        else:
            image.write_text("x")
        (image.parent if kind == "in a closed directory" else image).chmod(0)
        Path(directory).chmod(0o755)
        # Root may read everything, so as somebody else. The text goes by pipe: the checkout may be closed, too.
        somebody = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
        done = subprocess.run(
            ["/usr/bin/python3", "-I", "-", str(image)],
            input=Path(LAUNCHER).read_text().replace("    sys.exit(main())", CHECK),
            cwd="/",
            capture_output=True,
            text=True,
            timeout=30,
            **somebody,
        )
        (image.parent if kind == "in a closed directory" else image).chmod(0o700)
    assert done.returncode == launcher.IMAGE_UNREADABLE, done.stderr
    assert "ermission denied" in done.stderr


def test_an_unpacked_image_is_an_image(tmp_path: Path) -> None:
    launcher.check_image(str(tmp_path))
    assert stat.S_ISDIR(tmp_path.stat().st_mode)


@pytest.mark.parametrize(
    ("listen", "url"),
    [("0.0.0.0", "http://0.0.0.0:40000/user/you/"), ("::", "http://[::]:40000/user/you/")],  # noqa: S104
)
def test_the_server_listens_where_the_site_says(listen: str, url: str) -> None:
    env = launcher.server_environment({"listen": listen}, claim(), "/run", 40000, 1790000000)
    assert env["JUPYTERHUB_SERVICE_URL"] == url
    assert env["JUPYTER_RUNTIME_DIR"] == env["JUPYTER_CONFIG_PATH"] == "/run"


def test_a_configuration_path_that_the_hub_sends_stays() -> None:
    sent = claim()
    sent["env"]["JUPYTER_CONFIG_PATH"] = "/site/jupyter"
    env = launcher.server_environment({"listen": "127.0.0.1"}, sent, "/run", 40000, 0)
    assert env["JUPYTER_CONFIG_PATH"] == "/run:/site/jupyter"


def test_the_server_s_configuration_is_python_that_makes_its_end_quick(tmp_path: Path) -> None:
    path = launcher.make_runtime_directory(str(tmp_path))
    config = Path(path) / "jupyter_server_config.py"
    # Handlers run last first: this one, registered before the configuration's, after it.
    script = "import atexit, gc\natexit.register(lambda: print(gc.get_freeze_count() > 0))\n" + config.read_text()
    run = [sys.executable, "-c", script]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip() == "True"


def test_the_job_s_own_scratch_is_used_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MISSING", str(tmp_path / "none"))
    monkeypatch.setenv("THERE", str(tmp_path))
    monkeypatch.delenv("UNSET", raising=False)
    assert launcher.scratch_directory(["UNSET", "MISSING", "THERE"]) == str(tmp_path)
    assert launcher.scratch_directory(["UNSET"]) == launcher.tempfile.gettempdir()
