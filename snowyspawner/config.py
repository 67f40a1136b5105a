"""What a hub's configuration needs so that jobs may wait for hours, and outlive the hub."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import sys
from pathlib import Path
from typing import Any

from jupyterhub.app import JupyterHub
from sqlalchemy import event
from sqlalchemy.engine import Engine
from traitlets.config.loader import LazyConfigValue, PyFileConfigLoader

from . import restart, site
from ._share import share_dir
from .choice import request
from .session.errors import SessionError
from .spawner import SnowySpawner, ineffective_traits
from .web.form_state import PrefillError

# Where the values of batchspawner's traits have gone.
_INSTEAD = {
    "req_account": "accounts.default",
    "req_cluster": "cluster",
    "req_gres": "gpus",
    "req_memory": "memory_per_core",
    "req_ngpus": "gpus",
    "req_nprocs": "defaults.cores",
    "req_partition": "partitions",
    "req_prologue": "prologue",
    "req_queue": "partitions",
    "req_reservation": "defaults.reservation",
    "req_runtime": "defaults.time",
}


class ConfigError(ValueError):
    """The hub's configuration cannot work. The text names the setting and what to use instead."""


class QuietRefusals(logging.Filter):
    """A choice that is refused is no fault of the hub's: one line at level INFO instead of JupyterHub's tracebacks.

    JupyterHub logs the same refusal up to four times, and a link that fills in the form as a failure. Whatever is
    not about a refused choice or such a link passes untouched.
    """

    def __init__(self) -> None:
        super().__init__()
        self._told: BaseException | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        """Let a record pass, drop it, or make it one line."""
        if record.levelno < logging.WARNING:
            return True
        error = record.exc_info[1] if record.exc_info else sys.exc_info()[1]
        if isinstance(error, PrefillError):
            return False
        if not isinstance(error, SessionError) or error.reason != "request":
            # "Error starting server …: …" comes without the exception, but with its text, and at once.
            message, told = record.getMessage(), self._told
            return told is None or not (message.startswith("Error starting server ") and message.endswith(str(told)))
        if error is self._told:
            return False
        self._told = error
        # The first of them names the server; the cause names the fields, where the message leaves that to the form.
        whose = record.args[0] if isinstance(record.args, tuple) and record.args else ""
        said = error.__cause__ or error.jupyterhub_message
        record.msg, record.args = "Refused a choice of %s: %s", (whose, str(said).replace("\n", " "))
        record.exc_info = record.exc_text = None
        record.levelno, record.levelname = logging.INFO, logging.getLevelName(logging.INFO)
        return logging.getLogger(record.name).isEnabledFor(logging.INFO)


_quiet = QuietRefusals()


def quick_sqlite() -> None:
    """Let SQLite commit without waiting for the disk: else 40 starts at once hold the hub up for seconds.

    https://sqlite.org/wal.html: with ``synchronous=NORMAL`` a commit survives the end of the hub, however sudden;
    after the end of the whole machine the last ones may be missing. A job that the hub then does not know ends by
    itself when it starts. Other databases are left as they are.
    """
    if not event.contains(Engine, "connect", _use_wal):
        event.listen(Engine, "connect", _use_wal)


def _use_wal(connection: Any, _record: Any) -> None:
    if isinstance(connection, sqlite3.Connection):
        # Where there can be no WAL (in memory, on some network disks) SQLite says so, and stays as it was.
        with contextlib.suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")


def set_config(c: Any) -> None:
    """Complete the configuration *c* of a hub that uses SnowySpawner; call it last.

    Checks the Site, so that a mistake stops the hub and not a student. Sets, unless *c* already says otherwise:

    - ``JupyterHub.cleanup_servers = False``: else jobs that wait die with the hub;
    - ``JupyterHub.concurrent_spawn_limit = 0``: jobs in the queue count as spawning;
    - ``JupyterHub.init_spawners_timeout = 1``: else the hub starts 10 seconds later while any server is looked for;
    - ``JupyterHub.tornado_settings["slow_spawn_timeout"] = 3``: REST answers after so many seconds while a job waits,
      not after 10; the form does when Slurm has taken or refused it;
    - ``Spawner.consecutive_failure_limit = 0``: jobs that fail must not end the hub;
    - ``JupyterHub.template_paths``: our pages first.

    A database in SQLite is written in its WAL mode (`quick_sqlite`).

    A hub that starts with it also carries out the stops that it had not finished when it last ended.
    Also makes JupyterHub log a refused choice as one line (`QuietRefusals`).

    Raises `ConfigError` (a `snowyspawner.site.SiteError` for the Site).
    """
    ours = ("SnowySpawner", "SlurmSpawner", "BatchSpawnerRegexStates", "BatchSpawnerBase")
    # "in" and not attribute access, which would add an empty section.
    given = {f"{section}.{name}": name for section in ours if section in c for name in c[section]}
    without_effect = [key for key in given if given[key] in ineffective_traits()]
    if without_effect:
        lines = [
            f"c.{key} has no effect here: use the site's {_INSTEAD.get(given[key], 'keys (docs/reference/site.md)')}"
            for key in without_effect
        ]
        raise ConfigError("\n".join(lines))
    source = c.SnowySpawner.get("site", "snowy") if "SnowySpawner" in c else "snowy"
    if wrong := request.problems(site.load(source)):
        raise site.SiteError("\n".join(f"site: {line}" for line in wrong))
    hub = c.JupyterHub
    for name, value in (
        ("cleanup_servers", False),
        ("concurrent_spawn_limit", 0),
        ("init_spawners_timeout", 1),
    ):
        if name not in hub:
            setattr(hub, name, value)
    settings = hub.get("tornado_settings", {})
    if isinstance(settings, LazyConfigValue):
        settings.update({"slow_spawn_timeout": 3} | settings.to_dict().get("update", {}))
    else:
        hub.tornado_settings = {"slow_spawn_timeout": 3, **settings}
    if not any("consecutive_failure_limit" in c[name] for name in ("Spawner", *ours) if name in c):
        c.Spawner.consecutive_failure_limit = 0
    templates = str(share_dir() / "templates")
    paths = hub.get("template_paths", [])
    if isinstance(paths, LazyConfigValue):
        # c.JupyterHub.template_paths.append(…) of a value that is not there yet.
        paths = paths.get_value([])
    if templates not in paths:
        hub.template_paths = [*paths, templates]
    if "spawner_class" not in hub:
        hub.spawner_class = SnowySpawner
    quick_sqlite()
    restart.schedule()
    for name in ("JupyterHub", "tornado.application"):
        logging.getLogger(name).addFilter(_quiet)


def loaded(path: str) -> tuple[Any, JupyterHub]:
    """Run a hub's configuration file; return the configuration and the JupyterHub that it makes, which does not run.

    Raises `ConfigError`, and a `snowyspawner.site.SiteError` that `set_config` raises in it.
    """
    file = Path(path).resolve()
    if not file.is_file():
        raise ConfigError(f"{path}: there is no such file")
    try:
        config = PyFileConfigLoader(file.name, path=str(file.parent)).load_config()
        app = JupyterHub(config=config)
        app.spawner_class  # noqa: B018  imported only now
    except (ConfigError, site.SiteError):
        raise
    except Exception as error:  # it is Python
        raise ConfigError(f"{path}: {type(error).__name__}: {error}") from None
    return config, app


def trait_of(config: Any, spawner: type, name: str) -> Any:
    """Return what *config* says of a trait of the class *spawner*, or the trait's default."""
    for section in spawner.__mro__:
        given = config.get(section.__name__, {})
        if name in given:
            return given[name]
    return getattr(spawner, name).default_value


def site_of(path: str) -> Any:
    """Run a hub's configuration file, and return what it says of ``SnowySpawner.site``, or the default.

    Raises what `loaded` raises, and `ConfigError` for another spawner.
    """
    config, app = loaded(path)
    spawner = app.spawner_class
    if not issubclass(spawner, SnowySpawner):
        raise ConfigError(f"{path}: c.JupyterHub.spawner_class: {spawner.__name__}: must be snowy")
    return trait_of(config, spawner, "site")
