"""The whole miniature: brought up, taken down, looked at."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from snowyspawner.site import Site, SiteError, load, shipped

from . import DemoError, accounts, apptainer, course, devices, image, packages, proxy, services
from .accounting import projects
from .commands import open_umask
from .daemons import Daemons, all_pids, program_of, stop
from .directories import default_state, discard, locked
from .progress import Progress
from .slurm import LOGIN_CLUSTER, Node, Plan, cluster_names, gpu_count, node_count, plan_nodes
from .state import State, write

# Places in a state's block of ports.
DBD, LOGIN_CTLD, CTLD, LOGIN_NODE, SPARE, FIRST_NODE, HUB, PROXY_API = 0, 1, 2, 3, 4, 10, 90, 91
MOST_NODES = HUB - FIRST_NODE


@dataclass
class Options:
    """What may be asked for; None means: as before, or the default."""

    site: str | None = None
    nodes: int | None = None
    gpu_nodes: int | None = None
    users: int | None = None
    user_prefix: str | None = None


class Cluster:
    """A miniature of a Site, in one state directory.

    After `up` it can be used: `env` (for Slurm's commands and Apptainer), `site_file`, `users` (name to password),
    `image`. `up` on a cluster that is up changes nothing and is quick; `down` undoes everything but the cache.
    """

    def __init__(
        self,
        state: str | Path | None = None,
        *,
        site: str | None = None,
        nodes: int | None = None,
        gpu_nodes: int | None = None,
        users: int | None = None,
        user_prefix: str | None = None,
        image: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Look at what *state* remembers; what is given here goes first.

        *image* is ``small``, which is built when it is not there, ``course``, which has to be, or ``auto``: the
        course's if it is there and has an environment of the Site's.
        """
        self._state = State.load(Path(state or default_state()))
        if site is not None and site not in shipped() and Path(site).exists():
            site = str(Path(site).absolute())  # it is read again, by whoever stands in another directory
        self._progress = progress or Progress(quiet=True)
        asked = {"site": site, "nodes": nodes, "gpu_nodes": gpu_nodes, "users": users, "user_prefix": user_prefix}
        asked |= {"image": None if image == "auto" else image}
        if user_prefix is not None and user_prefix != self._state.user_prefix and self._state.accounts:
            raise DemoError(f"--user-prefix: {self._state.path} has accounts already: down first")
        for key, value in asked.items():
            if value is not None:
                setattr(self._state, key, value)
        if image == "auto":
            self._state.image = "course" if course.fits(self.site) else "small"
        if user_prefix is not None:
            self._state.prefix_fallback = False
        if self._state.nodes < 1 or self._state.gpu_nodes < 0 or self._state.users < 1:
            raise DemoError("--nodes and --users must be at least 1, --gpu-nodes at least 0")
        if self._state.nodes + self._state.gpu_nodes > MOST_NODES:
            raise DemoError(f"at most {MOST_NODES} nodes")
        self._daemons = Daemons(self._state.path)

    # What tests and the hub's configuration ask for.

    @property
    def state(self) -> Path:
        """Return the state directory."""
        return self._state.path

    @property
    def site_file(self) -> Path:
        """Return the Site as it is here: the real one, with this machine's addresses and image."""
        return self.state / "site.yaml"

    @property
    def users(self) -> dict[str, str]:
        """Return the demo accounts and their passwords."""
        passwords = self._state.passwords
        return {name: passwords[name] for name in self._state.accounts if name in passwords}

    @property
    def image(self) -> Path:
        """Return the container image."""
        return course.IMAGE if self._state.image == "course" else image.path(self.site)

    @contextmanager
    def stand_in(self, *device_files: str) -> Iterator[None]:
        """Have stand-ins for these device files meanwhile, where there is nothing: a node with other GPUs has them."""
        devices.add(self._state, device_files)
        try:
            yield
        finally:
            devices.remove(self._state, device_files)
            self._state.save()

    @property
    def proxy_command(self) -> list[str]:
        """Return what starts configurable-http-proxy."""
        return proxy.command()

    @property
    def site(self) -> Site:
        """Return the Site that is made small here."""
        try:
            return load(self._state.site)
        except SiteError as error:
            raise DemoError(f"--site: {error}") from None

    @property
    def env(self) -> dict[str, str]:
        """Return the environment of a login node: Slurm's configuration, and Apptainer on the PATH."""
        conf = self.state / "conf" / cluster_names(self.site)[1] / "slurm.conf"
        path = f"{apptainer.bin_directory()}:{os.environ.get('PATH', '/usr/local/bin:/usr/bin:/bin')}"
        return {"SLURM_CONF": str(conf), "PATH": path}

    @property
    def ports(self) -> dict[str, int]:
        """Return the hub's ports: the same at every start, as running sessions know them."""
        return {"hub": self._state.port(HUB), "proxy_api": self._state.port(PROXY_API)}

    @property
    def spare_ports(self) -> range:
        """Return ports of the state's block that the cluster leaves to others: more hubs, in the tests."""
        return range(self._state.port(SPARE), self._state.port(FIRST_NODE))

    @property
    def is_up(self) -> bool:
        """Tell whether everything runs as it should."""
        if not self._state.exists or not self._state.port_base:
            return False
        state, ready = self._state, apptainer.installed() and self.image.exists() and proxy.installed()
        names = [n for n in state.accounts if accounts.is_ours(state, n)]
        if not ready or len(names) != state.users or set(names) != set(self.users) or not self.site_file.exists():
            return False
        if any(devices.kind(Path(path)) == "none" for path in state.devices):
            return False
        return services.all_running(self._plan(), self._daemons)

    # Up and down.

    def up(self) -> None:
        """Bring up what does not run yet. Raises `DemoError`."""
        with open_umask():
            self._state.prepare()
            if self._state.image == "course" and not self.image.exists():
                raise DemoError("--image course: it is not there; `make image` builds it")
            with locked(self.state / "lock"):
                if self.is_up:
                    devices.open_fuse(self._state)
                    self._write_site()  # with the other image, if that was asked for
                    self._state.save()
                    return
                self._up()

    def _up(self) -> None:
        say, step = self._progress.say, self._progress.step
        self._state.save()
        with ThreadPoolExecutor() as pool:
            wheels = pool.submit(self._step, "downloading the image's Python packages", self._download)
            packages.install(packages.NEEDED, self._progress)
            runtime = pool.submit(self._step, "installing Apptainer", apptainer.install)
            built = pool.submit(self._build_image, wheels, runtime)
            node_proxy = pool.submit(self._step, "installing configurable-http-proxy", proxy.install)
            with step("demo accounts"):
                names = accounts.make(self._state, say)
            with step("Slurm: munge, MariaDB, slurmdbd, slurmctld, slurmd"):
                if not any(self._daemons.marked()):
                    self._state.choose_ports()
                files = devices.make(self._state, gpu_count(self.site, self._state.gpu_nodes))
                if self._state.devices:
                    say(f"stand-ins for GPUs: {', '.join(self._state.devices)} (removed by down)")
                self._state.save()
                if node_count(self.site, self._state.nodes, self._state.gpu_nodes) > MOST_NODES:
                    raise DemoError(f"the Site needs more than {MOST_NODES} nodes")
                plan = self._plan(files)
                self._stop_others(plan)
                services.start(plan, self._daemons, names)
            for future in (runtime, built, node_proxy):
                future.result()
        if changed := devices.open_fuse(self._state):
            say(f"{changed} (put back by down)")
        self._write_site()

    def _step(self, name: str, function: Any, *arguments: Any) -> Any:
        with self._progress.step(name):
            return function(*arguments)

    def _download(self) -> Path | None:
        return None if self._state.image == "course" else image.download(self.site)

    def _build_image(self, wheels: Future[Path | None], runtime: Future[None]) -> None:
        if self._state.image != "course":
            image.build(self.site, wheels.result, runtime.result, self._progress)

    def _write_site(self) -> None:
        site = self.site
        pattern = site.accounts.pattern
        strange = [name for name in projects(site) if not re.fullmatch(pattern, name)]
        here = {
            "extends": self._state.site,
            "node_address": "127.0.0.1",
            "listen": "127.0.0.1",
            "python": "/usr/bin/python3",
            "slurm_conf": "",
            "prologue": f'export PATH="{apptainer.bin_directory()}:$PATH"\n',
            # Projects' directories are the demo's own.
            "courses": {key: f"{self.state}{path}" for key, path in site.courses.items()},
            "own": {
                kind: [f"{self.state}{place}" if place.startswith("/") else place for place in places]
                for kind, places in site.own.model_dump().items()
            },
            # The projects that exist here may not look like the Site's.
            "accounts": {"pattern": "|".join([f"(?:{pattern})", *strange]) if strange else pattern},
            "images": {
                name: {"path": str(self.image), "runtime": "auto", "entry": "exec", "binds": []}
                for name, entry in site.images.items()
                if entry.runtime != "none"
            },
        }
        if self._state.image == "course":
            here |= course.over(site)
        head = "# Written by `python -m demo up`: the Site as it is on this machine.\n"
        write(self.site_file, head + yaml.safe_dump(here, sort_keys=False))

    def down(self) -> list[str]:
        """Stop everything, undo everything, and return what was undone, a line each."""
        if not self._state.exists:
            return []
        with locked(self.state / "lock"):
            return self._down()

    def _down(self) -> list[str]:
        done = []
        if self._daemons.marked() and (jobs := services.cancel_jobs(self._plan())):
            done.append(f"{jobs} jobs ended")
        stop(self._hub_processes())
        running = self._daemons.marked()
        order = ("hub", "slurmd-", "slurmctld-", "slurmdbd", "munged", "mariadbd")
        for start in order:
            stop(pid for pid, name in running.items() if name.startswith(start))
        stop(self._stray_steps(), grace=2)
        stop(self._daemons.marked())
        if running:
            done.append(f"stopped: {', '.join(sorted(set(running.values())))}")
        if gone := accounts.remove(self._state):
            done.append(f"accounts removed, with their homes: {', '.join(gone)}")
        if gone := devices.remove(self._state):
            done.append(f"device files removed: {', '.join(gone)}")
        if changed := devices.close_fuse(self._state):
            done.append(changed)
        (self.state / "state.json").unlink()
        discard(self.state)
        done.append(f"{self.state} removed")
        return done

    def _hub_processes(self) -> list[int]:
        """Return the hub that was started by hand: the process in its pid file, if it has our files open."""
        try:
            pid = int((self.state / "hub" / "jupyterhub.pid").read_text(encoding="ascii"))
        except (OSError, ValueError):
            return []
        return [pid] if _uses(pid, self.state) else []

    def _stray_steps(self) -> list[int]:
        """Return the slurmstepds of jobs that outlived their slurmd; setproctitle hides their mark."""
        return [pid for pid in all_pids() if program_of(pid).startswith("slurmstepd") and _uses(pid, self.state)]

    def _stop_others(self, plan: Plan) -> None:
        """Stop the daemons that the plan no longer has: nodes that were asked for before and are not now."""
        wanted = set(services.names(plan))
        stop(pid for pid, name in self._daemons.marked().items() if name not in wanted and name != "hub")

    def status(self) -> list[str]:
        """Return what there is and what runs, a line each."""
        if not self._state.exists:
            return [f"nothing is up ({self.state} does not exist)"]
        lines = [f"state directory  {self.state}", f"site             {self._state.site}"]
        plan = self._plan()
        for name in services.names(plan):
            pid = self._daemons.pid(name)
            lines.append(f"{name:24} {f'pid {pid}' if pid else 'STOPPED'}")
        for cluster in plan.clusters:
            lines += [f"node {n:19} {s} ({cluster})" for n, s in services.node_states(plan, cluster).items()]
        lines.append(f"accounts         {', '.join(self._state.accounts)}")
        lines.append(f"device files     {', '.join(self._state.devices) or 'none made'}")
        return lines

    def _plan(self, gpu_files: list[str] | None = None) -> Plan:
        state, site = self._state, self.site
        cluster, login = cluster_names(site)
        if gpu_files is None:
            gpu_files = devices.choose(gpu_count(site, state.gpu_nodes), state.devices)
        single = cluster == login
        return Plan(
            site=site,
            directory=state.path,
            dbd_port=state.port(DBD),
            cluster=cluster,
            cluster_port=state.port(CTLD),
            login=login,
            login_port=state.port(CTLD if single else LOGIN_CTLD),
            nodes=plan_nodes(site, state.nodes, state.gpu_nodes, state.port(FIRST_NODE), gpu_files),
            login_nodes=() if single else (Node(f"{LOGIN_CLUSTER[0]}1", state.port(LOGIN_NODE)),),
            version=services.slurm_version(),
        )


def _uses(pid: int, directory: Path) -> bool:
    """Tell whether a process has a file below *directory* open."""
    try:
        links = [os.readlink(entry.path) for entry in os.scandir(f"/proc/{pid}/fd")]
    except OSError:
        return False
    return any(link.startswith(f"{directory}/") for link in links)
