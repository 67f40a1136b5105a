"""The services of the miniature cluster: which daemons, with what, and in which order."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from . import DemoError
from .accounting import fill, wait_registered
from .commands import SYSTEM_PATH, run, wait_until
from .daemons import Daemon, Daemons
from .slurm import HOST, Plan, files
from .state import write

# What a daemon is started by: as another user, or under Slurm's own host name (the machine's is not changed).
AS_MUNGE = ("setpriv", "--reuid=munge", "--regid=munge", "--clear-groups", "--")
ON_OWN_HOST = ("unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', HOST)


def _find(program: str) -> str:
    found = shutil.which(program, path=SYSTEM_PATH)
    if not found:
        raise DemoError(f"{program} is not installed: python -m demo packages")
    return found


def slurm_version() -> tuple[int, int]:
    """Return the installed Slurm's version, such as (22, 5)."""
    words = run([_find("slurmd"), "-V"]).split()
    major, minor = words[-1].split(".")[:2]
    return int(major), int(minor)


def munge(plan: Plan) -> Daemon:
    """Return the munge daemon with a key and a socket of its own: not the system's, which is never touched."""
    folder = plan.munge_socket.parent
    return Daemon(
        "munged",
        [
            _find("munged"),
            "--foreground",
            f"--socket={plan.munge_socket}",
            f"--key-file={folder}/key",
            f"--seed-file={folder}/seed",
            f"--pid-file={folder}/pid",
            f"--log-file={folder}/log",
            "--num-threads=4",
        ],
        prefix=AS_MUNGE,
    )


def database(plan: Plan) -> Daemon:
    """Return the database: reached by its own Unix socket only."""
    folder = plan.directory / "mysql"
    return Daemon(
        "mariadbd",
        [
            _find("mariadbd"),
            "--no-defaults",  # nothing of the system's own configuration
            "--user=mysql",
            f"--datadir={folder}/data",
            f"--socket={folder}/socket",
            f"--pid-file={folder}/pid",
            f"--tmpdir={_database_tmp(plan)}",
            "--skip-networking",
            "--skip-log-bin",
            "--performance-schema=OFF",
            "--innodb-buffer-pool-size=64M",
            "--innodb-log-file-size=16M",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-lock-wait-timeout=900",  # slurmdbd asks for it
        ],
    )


def daemons(plan: Plan) -> list[Daemon]:
    """Return Slurm's daemons: slurmdbd, a slurmctld for each cluster, a slurmd for each node."""
    made = files(plan)

    def text(cluster: str) -> str:
        folder = plan.conf(cluster).parent
        return "".join(content for path, (content, _) in sorted(made.items()) if path.parent == folder)

    def env(cluster: str) -> dict[str, str]:
        return {"SLURM_CONF": str(plan.conf(cluster))}

    # libmariadb's own name for "the socket is elsewhere"; slurmdbd.conf has no key for it.
    where = {"MYSQL_UNIX_PORT": str(plan.directory / "mysql" / "socket")}
    dbd_conf = made[plan.conf(plan.login).parent / "slurmdbd.conf"][0]
    result = [Daemon("slurmdbd", [_find("slurmdbd"), "-D"], env(plan.login) | where, dbd_conf, ON_OWN_HOST)]
    for cluster in plan.clusters:
        argv = [_find("slurmctld"), "-D"]
        result.append(Daemon(f"slurmctld-{cluster}", argv, env(cluster), text(cluster), ON_OWN_HOST))
    for cluster in plan.clusters:
        nodes = plan.nodes if cluster == plan.cluster else plan.login_nodes
        for node in nodes:
            argv = [_find("slurmd"), "-D", "-N", node.name]
            result.append(Daemon(f"slurmd-{node.name}", argv, env(cluster), text(cluster), ON_OWN_HOST))
    return result


def names(plan: Plan) -> list[str]:
    """Return the names of all daemons, in the order of their start."""
    return [daemon.name for daemon in (munge(plan), database(plan), *daemons(plan))]


def all_running(plan: Plan, known: Daemons) -> bool:
    """Tell whether every daemon runs with the configuration that it should have."""
    return all(known.pid(d.name, d.digest) for d in (munge(plan), database(plan), *daemons(plan)))


def prepare(plan: Plan) -> None:
    """Write the configuration and make the directories."""
    for name in ("run", "log", "conf", "ctld", "spool", "munge"):
        (plan.directory / name).mkdir(exist_ok=True)
    for cluster in plan.clusters:
        plan.conf(cluster).parent.mkdir(exist_ok=True)
        (plan.directory / "ctld" / cluster).mkdir(exist_ok=True, mode=0o700)
    for node in (*plan.nodes, *plan.login_nodes):
        (plan.directory / "spool" / node.name).mkdir(exist_ok=True)
    for path, (text, mode) in files(plan).items():
        write(path, text, mode)
    folder = plan.munge_socket.parent
    shutil.chown(folder, "munge", "munge")
    if not (folder / "key").exists():
        fresh = folder / "key.new"
        fresh.touch(mode=0o400)
        fresh.write_bytes(os.urandom(128))
        shutil.chown(fresh, "munge", "munge")
        fresh.rename(folder / "key")
    for folder in (plan.directory / "mysql", _database_tmp(plan)):
        folder.mkdir(exist_ok=True)
        shutil.chown(folder, "mysql", "mysql")


def prepare_database(plan: Plan) -> None:
    """Make an empty database if there is none."""
    data = plan.directory / "mysql" / "data"
    if data.exists():
        return
    fresh = data.with_name("data.unfinished")
    shutil.rmtree(fresh, ignore_errors=True)
    options = ["--no-defaults", "--user=mysql", f"--datadir={fresh}", f"--tmpdir={_database_tmp(plan)}"]
    run([_find("mariadb-install-db"), *options, "--skip-test-db", "--innodb-log-file-size=16M"])
    fresh.rename(data)


def _database_tmp(plan: Plan) -> Path:
    """Return where the database keeps temporary tables: in /tmp those of two that start at once have the same name."""
    return plan.directory / "mysql" / "tmp"


def start(plan: Plan, known: Daemons, accounts: list[str]) -> None:
    """Bring all daemons up, in order; those that run already stay as they are."""
    prepare(plan)
    known.start(munge(plan))
    prepare_database(plan)
    known.start(database(plan))
    _wait(known, "munged", lambda: _connects(plan.munge_socket))
    _wait(known, "mariadbd", lambda: _connects(plan.directory / "mysql" / "socket"))
    dbd, *others = daemons(plan)
    known.start(dbd)
    _wait(known, "slurmdbd", lambda: _listens(plan.dbd_port))
    fill(plan, accounts)
    for daemon in others:
        known.start(daemon)
    for cluster, port in {plan.login: plan.login_port, plan.cluster: plan.cluster_port}.items():
        _wait(known, f"slurmctld-{cluster}", partial(_listens, port))
    wait_registered(plan)
    for cluster in plan.clusters:
        _wait_nodes(plan, cluster)


def node_states(plan: Plan, cluster: str) -> dict[str, str]:
    """Return the state of each of a cluster's nodes, as sinfo names it."""
    env = {"SLURM_CONF": str(plan.conf(cluster))}
    rows = run(["sinfo", "--noheader", "--Node", "--format=%N %T"], env=env, timeout=30, may_fail=True)
    return dict(row.split()[:2] for row in rows.splitlines() if row.strip())


def _wait_nodes(plan: Plan, cluster: str) -> None:
    wanted = {node.name for node in (plan.nodes if cluster == plan.cluster else plan.login_nodes)}
    env = {"SLURM_CONF": str(plan.conf(cluster))}
    revived: set[str] = set()

    def ready() -> bool:
        states = node_states(plan, cluster)
        for name, state in states.items():
            # A node that was set down or drained (by a test, say) is what `up` is there to put right.
            if name not in revived and state.startswith(("down", "drain")) and "*" not in state:
                revived.add(name)
                argv = ["scontrol", "update", f"NodeName={name}", "State=RESUME"]
                run(argv, env=env, timeout=30, may_fail=True)
        return wanted <= {n for n, s in states.items() if s.split("*")[0] in _WELL and "*" not in s}

    wait_until(ready, f"the nodes of {cluster}", 60)


_WELL = ("idle", "mixed", "allocated", "completing", "planned", "reserved")


def _wait(known: Daemons, name: str, condition: Callable[[], bool]) -> None:
    def ready() -> bool:
        known.check(name)
        return condition()

    wait_until(ready, name, 60)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def cancel_jobs(plan: Plan, timeout: float = 15) -> int:
    """End every job of the clusters and return how many there were; silent when Slurm does not answer."""
    count = 0
    for cluster in plan.clusters:
        env = {"SLURM_CONF": str(plan.conf(cluster))}
        if found := _jobs(env):
            count += len(found)
            run(["scancel", "--signal=KILL", "--full", *found], env=env, timeout=30, may_fail=True)
            run(["scancel", *found], env=env, timeout=30, may_fail=True)
            with suppress(DemoError):  # whatever is left is ended with its account
                wait_until(partial(_no_jobs, env), "the jobs' end", timeout)
    return count


def _jobs(env: Mapping[str, str]) -> list[str]:
    return run(["squeue", "--noheader", "--format=%A"], env=env, timeout=20, may_fail=True).split()


def _no_jobs(env: Mapping[str, str]) -> bool:
    return not _jobs(env)
