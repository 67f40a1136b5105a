"""The hub in front of the miniature cluster, in the foreground."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

from . import CHECKOUT, DemoError
from .cluster import Cluster
from .commands import POLL_INTERVAL
from .daemons import MARK, Daemons, program_of
from .directories import own_directory
from .progress import Progress
from .state import State, is_free

CONFIG = Path(__file__).parent / "jupyterhub_config.py"


def hub_directory(cluster: Cluster) -> Path:
    """Return the directory for what the hub keeps; secrets are in it."""
    return own_directory(cluster.state / "hub", 0o700)


def public_port(cluster: Cluster) -> int:
    """Return the port for browsers: 8000 or the next free one, and the same the next time if it can be.

    A proxy of ours that outlived its hub (kill -9) holds the port, and JupyterHub ends it when it starts.
    """
    state = State.load(cluster.state)
    left_over = any(program_of(pid).startswith("node") for pid in Daemons(cluster.state).pids(["hub"]))
    if left_over or is_free(state.hub_url_port):
        return state.hub_url_port
    state.hub_url_port = next(port for port in range(8000, 20000) if is_free(port))
    state.save()
    return state.hub_url_port


def answers(url: str) -> bool:
    """Tell whether a hub answers at *url*."""
    try:
        with urllib.request.urlopen(f"{url}/hub/health", timeout=5) as answer:  # noqa: S310 our own http address
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException):
        return False


def run_hub(cluster: Cluster, progress: Progress) -> int:
    """Run JupyterHub until it ends or Ctrl-C; return its exit code."""
    if not is_free(cluster.ports["hub"]):
        raise DemoError(f"a hub of {cluster.state} runs already")
    url_file = hub_directory(cluster) / "url"
    url_file.unlink(missing_ok=True)
    env = {
        **os.environ,
        **cluster.env,
        "SNOWYSPAWNER_DEMO_STATE": str(cluster.state),
        MARK: f"{cluster.state}:hub",
    }
    began = progress.elapsed
    # Ctrl-C reaches the hub, too, as it is in the same terminal: it ends by itself, and we wait for that.
    argv = [sys.executable, "-m", "jupyterhub", "-f", str(CONFIG)]
    log = cluster.state / "log" / "hub.log"
    with open(log, "ab") as out:
        hub = subprocess.Popen(argv, env=env, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    signal.signal(signal.SIGTERM, lambda *_: hub.terminate())
    with suppress(KeyboardInterrupt):
        while hub.poll() is None and not (url_file.exists() and answers(url_file.read_text().strip())):
            time.sleep(POLL_INTERVAL)
        if hub.poll() is None:
            progress.say(f"the hub answers, {progress.elapsed - began:.1f} s after its start")
            _welcome(cluster, url_file.read_text(encoding="utf-8").strip(), progress)
            hub.wait()
    if (code := hub.wait()) not in (0, -signal.SIGINT, 128 + signal.SIGINT, -signal.SIGTERM):
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:]
        raise DemoError("\n".join([f"the hub has ended with exit code {code}; the end of {log}:", *tail]))
    print(
        "\nThe hub has ended; the cluster is up, and sessions in it run on. The same command starts the hub again;"
        f"\n`make demo-down` (python -m demo down --state {cluster.state}) ends and removes everything."
    )
    return 0


def _welcome(cluster: Cluster, url: str, progress: Progress) -> None:
    lines = ["", f"    JupyterHub on {cluster.site.display_name}, in miniature:  {url}", "", "    sign in as"]
    lines += [f"        {name:14} password  {password}" for name, password in cluster.users.items()]
    lines += [
        "",
        f"    ready after {progress.elapsed:.1f} s; Ctrl-C ends the hub; its log: {cluster.state}/log/hub.log",
        "",
    ]
    print("\n".join(lines), flush=True)
