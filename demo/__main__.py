"""``python -m demo``: the commands."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import DemoError, axe, packages, privileges
from .directories import default_state
from .progress import Progress, warn

if TYPE_CHECKING:
    from .cluster import Cluster

ABOUT = """\
A miniature of a Site on this machine: real Slurm with accounting, real Apptainer, people who may sign in.

Everything lies under one state directory, and what takes long to make (Apptainer, the container image, the hub's
proxy) in /var/tmp/snowyspawner-cache, shared by all checkouts. An existing Slurm, munge or database is not touched.
"""
RUN = """\
Bring the cluster up and run a hub in the foreground. Ctrl-C ends the hub alone: sessions stay in Slurm, and the next
`run` finds them again. `python -m demo down` ends and removes everything: jobs, daemons, accounts with their homes.
"""


IMAGE = """\
Build the course's container (share/container): Debian, and TensorFlow in three environments. It takes gigabytes of
downloads, which are kept: a build that is interrupted goes on with what is there. `make demo` uses it from then on.
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--state", type=Path, help="state directory (default: one for this checkout in /var/tmp)")
    size = argparse.ArgumentParser(add_help=False, parents=[common])
    size.add_argument("--site", help="shipped Site or path of a YAML file (default: snowy)")
    size.add_argument("--nodes", type=int, help="nodes without a GPU (default: 2; at least one of each size)")
    size.add_argument("--gpu-nodes", type=int, help="nodes with GPUs (default: 2; at least one of each type; 0: none)")
    size.add_argument("--users", type=int, help="demo accounts (default: 3)")
    size.add_argument(
        "--user-prefix", help="accounts are PREFIX1, PREFIX2 … (default: student, or another if that is taken)"
    )
    size.add_argument(
        "--image",
        choices=("auto", "small", "course"),
        default="auto",
        help="container image: small, or course, which `make image` builds (default: course if it is there)",
    )
    size.add_argument("--since", type=float, help=argparse.SUPPRESS)  # when `make` began, seconds since the epoch
    top = argparse.ArgumentParser(
        prog="python -m demo", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sub = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    raw = argparse.RawDescriptionHelpFormatter
    sub.add_parser("up", parents=[size], help="bring the cluster up; quick when it is up")
    sub.add_parser("down", parents=[common], help="end and remove everything but the cache")
    sub.add_parser("status", parents=[common], help="show what runs")
    sub.add_parser("env", parents=[common], help="print export lines: SLURM_CONF of the login cluster, and PATH")
    sub.add_parser("run", parents=[size], help="up, then a hub in the foreground", description=RUN, formatter_class=raw)
    big = sub.add_parser(
        "image", help="build the course's container, with TensorFlow", description=IMAGE, formatter_class=raw
    )
    big.add_argument(
        "--environments", default="", metavar="NAMES", help='a part of it: "tf-mkl tf-pip" (default: all three)'
    )
    big.add_argument("--since", type=float, help=argparse.SUPPRESS)
    installs = sub.add_parser("packages", help="install the Debian packages that are missing")
    installs.add_argument("--browser", action="store_true", help="also what the browser tests need")
    installs.add_argument("--since", type=float, help=argparse.SUPPRESS)
    as_root = sub.add_parser("as-root", help="run a command as root, by sudo if need be, with what pip and npm need")
    as_root.add_argument("argv", nargs=argparse.REMAINDER, metavar="COMMAND …")
    return top


def _cluster(state: Path, **size: Any) -> Cluster:
    # Half a second: it imports the package. Commands that need no cluster go before every `make test-one`.
    from .cluster import Cluster

    return Cluster(state, **size)


def up(options: argparse.Namespace) -> None:
    """Bring the cluster up and print who may sign in."""
    _brought_up(options)


def _brought_up(options: argparse.Namespace) -> tuple[Cluster, Progress]:
    progress = Progress(since=options.since)
    cluster = _cluster(
        options.state,
        site=options.site,
        nodes=options.nodes,
        gpu_nodes=options.gpu_nodes,
        users=options.users,
        user_prefix=options.user_prefix,
        image=options.image,
        progress=progress,
    )
    known = set(cluster.users)
    cluster.up()
    progress.table()
    new = {name: password for name, password in cluster.users.items() if name not in known}
    for name, password in new.items():
        print(f"new account {name}, password {password}")
    progress.say(f"up: {cluster.state}")
    return cluster, progress


def down(options: argparse.Namespace) -> None:
    """Take everything down and print what was undone."""
    for line in _cluster(options.state).down() or ["nothing was up"]:
        print(line)


def status(options: argparse.Namespace) -> None:
    """Print what runs."""
    print("\n".join(_cluster(options.state).status()))


def env(options: argparse.Namespace) -> None:
    """Print lines for a shell's eval."""
    for name, value in _cluster(options.state).env.items():
        print(f"export {name}={shlex.quote(value)}")


def hub(options: argparse.Namespace) -> int:
    """Bring the cluster up and run a hub until Ctrl-C."""
    from .hub import run_hub

    return run_hub(*_brought_up(options))


def course_image(options: argparse.Namespace) -> None:
    """Build the course's container."""
    from . import apptainer, course

    progress = Progress(since=options.since)
    packages.install(packages.NEEDED, progress)
    apptainer.install()
    course.build(options.environments, progress)
    progress.table()


def install(options: argparse.Namespace) -> None:
    """Install Debian packages, and what the browser tests need from npm."""
    wanted = {**packages.NEEDED, **(packages.BROWSER if options.browser else {})}
    packages.install(wanted, Progress(since=options.since))
    if options.browser:
        axe.install()


def as_root(options: argparse.Namespace) -> None:
    """Become another command."""
    argv = [word for word in options.argv if word != "--"] if options.argv[:1] == ["--"] else options.argv
    if not argv:
        raise DemoError("as-root: which command? Such as: python -m demo as-root -- make test-quick")
    try:
        os.execvp(argv[0], argv)  # noqa: S606 an argv, no shell
    except OSError as error:
        raise DemoError(f"{argv[0]}: {error.strerror}") from None


COMMANDS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "up": up,
    "down": down,
    "status": status,
    "env": env,
    "run": hub,
    "image": course_image,
    "packages": install,
    "as-root": as_root,
}


def main(argv: list[str] | None = None) -> int:
    """Run a command; return the exit code."""
    words = sys.argv[1:] if argv is None else argv
    options = parser().parse_args(words)
    state = getattr(options, "state", None)
    if state is not None:
        options.state = state.absolute()
    elif "state" in options:
        options.state = Path(os.environ.get("SNOWYSPAWNER_DEMO_STATE") or default_state())
    # As Ctrl-C: what was begun is put in order, or left so that the next `up` goes on from there.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        # Whose process is whose can only root see, but that nothing is there, everybody can.
        if options.command != "env" and not (options.command == "status" and not options.state.exists()):
            privileges.become_root(words)
        return COMMANDS[options.command](options) or 0
    except DemoError as error:
        warn(f"demo: {error}")
        return 1
    except KeyboardInterrupt:
        warn("\ndemo: interrupted; `python -m demo up` goes on from here, `python -m demo down` removes what is there")
        return 130


if __name__ == "__main__":
    sys.exit(main())
