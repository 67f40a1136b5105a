"""What `set_config` makes of a hub's configuration."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from traitlets.config import Config

from snowyspawner import ConfigError, SnowySpawner, set_config
from snowyspawner._share import share_dir
from snowyspawner.choice.request import RequestError
from snowyspawner.config import QuietRefusals
from snowyspawner.session.errors import SessionError
from snowyspawner.session.messages import Words
from snowyspawner.site import SiteError
from snowyspawner.spawner import ineffective_traits
from snowyspawner.web.form_state import PrefillError

TEMPLATES = str(share_dir() / "templates")


def test_what_waiting_jobs_need_is_set() -> None:
    c = Config()
    set_config(c)
    assert c.JupyterHub.cleanup_servers is False
    assert c.JupyterHub.concurrent_spawn_limit == 0
    assert c.JupyterHub.init_spawners_timeout == 1
    assert c.JupyterHub.template_paths == [TEMPLATES]
    assert c.JupyterHub.spawner_class is SnowySpawner


def test_what_is_given_is_kept() -> None:
    c = Config()
    c.JupyterHub.cleanup_servers = True
    c.JupyterHub.concurrent_spawn_limit = 7
    c.JupyterHub.init_spawners_timeout = 30
    c.JupyterHub.template_paths = ["/mine"]
    c.JupyterHub.spawner_class = "snowy"
    set_config(c)
    assert c.JupyterHub.cleanup_servers is True
    assert c.JupyterHub.concurrent_spawn_limit == 7
    assert c.JupyterHub.init_spawners_timeout == 30
    assert c.JupyterHub.template_paths == ["/mine", TEMPLATES]
    assert c.JupyterHub.spawner_class == "snowy"


def test_template_paths_that_are_appended_to_are_kept() -> None:
    # traitlets keeps what is appended to a list that has no value yet as a LazyConfigValue.
    c = Config()
    c.JupyterHub.template_paths.append("/mine")
    set_config(c)
    assert list(c.JupyterHub.template_paths) == ["/mine", TEMPLATES]


def test_calling_it_twice_is_calling_it_once() -> None:
    c = Config()
    set_config(c)
    once = c.copy()
    set_config(c)
    assert c == once


@pytest.mark.parametrize("trait", sorted(set(ineffective_traits())))
@pytest.mark.parametrize("section", ["SnowySpawner", "SlurmSpawner", "BatchSpawnerBase"])
def test_a_trait_without_effect_stops_the_hub(section: str, trait: str) -> None:
    c = Config()
    c[section][trait] = "x"
    with pytest.raises(ConfigError, match=rf"^c\.{section}\.{trait} has no effect here: use the site's \S+"):
        set_config(c)


@pytest.mark.parametrize(
    ("trait", "key"),
    [
        ("req_partition", "partitions"),
        ("req_account", "accounts.default"),
        ("req_runtime", "defaults.time"),
        ("req_nprocs", "defaults.cores"),
        ("req_gres", "gpus"),
        ("req_cluster", "cluster"),
        ("req_prologue", "prologue"),
        ("req_reservation", "defaults.reservation"),
        ("req_memory", "memory_per_core"),
        ("batch_script", "keys (docs/reference/site.md)"),
    ],
)
def test_the_site_s_key_is_named(trait: str, key: str) -> None:
    c = Config()
    c.SnowySpawner[trait] = "x"
    with pytest.raises(ConfigError) as caught:
        set_config(c)
    assert str(caught.value) == f"c.SnowySpawner.{trait} has no effect here: use the site's {key}"


def test_all_traits_without_effect_are_named_at_once() -> None:
    c = Config()
    c.SnowySpawner.req_partition = "core"
    c.SlurmSpawner.batch_script = "x"
    with pytest.raises(ConfigError, match=r"(?s)SnowySpawner\.req_partition.*SlurmSpawner\.batch_script"):
        set_config(c)


@pytest.mark.parametrize(
    "trait", ["req_partition", "batch_script", "exec_prefix", "state_running_re", "batch_submit_cmd"]
)
def test_batchspawner_s_traits_are_known_to_have_none(trait: str) -> None:
    assert trait in ineffective_traits()


@pytest.mark.parametrize("trait", ["site", "queue_timeout", "launch_timeout", "stop_grace", "start_timeout", "cmd"])
def test_our_own_and_jupyterhub_s_traits_have_their_effect(trait: str) -> None:
    assert trait not in ineffective_traits()


@pytest.mark.parametrize(
    ("site", "message"),
    [
        ("nosuch", "no such site"),
        ({"extends": "snowy", "nonsense": 1}, "nonsense: 1: no such key"),
        # Nobody could start anything: that is to stop the hub, too, and not a student.
        ({"extends": "snowy", "defaults": {"cores": 99}}, "cores: .*16"),
        ({"extends": "snowy", "accounts": {"default": "physics"}}, "account: 'physics'"),
        ({"extends": "snowy", "presets": {"mkl": {"choices": {"time": "2:00:00"}}}}, "time: 2 hours is too long"),
    ],
)
def test_a_bad_site_stops_the_hub(site: Any, message: str) -> None:
    c = Config()
    c.SnowySpawner.site = site
    with pytest.raises(SiteError, match=message):
        set_config(c)


def test_a_site_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: snowy\numask: 022\n")
    c = Config()
    c.SnowySpawner.site = str(file)
    with pytest.raises(SiteError, match="umask"):
        set_config(c)


# -- the log -----------------------------------------------------------------------------------------------------


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> logging.Logger:
    logger = logging.getLogger("test of refusals")
    logger.filters[:] = [QuietRefusals()]
    caplog.set_level(logging.INFO, logger.name)
    return logger


def refusal(reason: Any = "request") -> SessionError:
    error = SessionError(Words("Nothing was started."), reason=reason, status_code=400)
    error.__cause__ = RequestError({"cores": "too many"})
    return error


def raised(logger: logging.Logger, error: Exception, text: str, *args: Any) -> None:
    try:
        raise error
    except Exception:
        logger.exception(text, *args)


def test_a_refused_choice_is_one_line(log: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    """As JupyterHub 6.1 logs it: four times, two of them with a traceback."""
    error = refusal()
    raised(log, error, "Exception applying user_options for %s", "ann:lab")
    try:
        raise error
    except SessionError:
        log.error(f"Not starting ann's server: {error}")
    log.error(f"Error starting server ann: {error}")
    raised(log, error, "Failed to spawn single-user server with form")
    (record,) = caplog.records
    assert record.getMessage() == "Refused a choice of ann:lab: cores: too many"
    assert (record.levelname, record.exc_info) == ("INFO", None)


def test_the_next_refusal_is_the_next_line(log: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        raised(log, refusal(), "Exception applying user_options for %s", "ann")
    assert len(caplog.records) == 3


def test_a_link_that_fills_in_the_form_is_no_failure(log: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    raised(log, PrefillError(), "Failed to spawn single-user server with query arguments")
    assert caplog.records == []


@pytest.mark.parametrize(
    "error", [refusal("slurm"), refusal("launch"), RuntimeError("x"), KeyError("Refused")], ids=repr
)
def test_nothing_else_is_silenced(log: logging.Logger, caplog: pytest.LogCaptureFixture, error: Exception) -> None:
    raised(log, refusal(), "Exception applying user_options for %s", "ann")
    raised(log, error, "Unhandled error of %s", "ann")
    log.error("Something else")
    log.info("Nothing was started, by the way")
    kept = [(record.levelname, record.getMessage(), bool(record.exc_info)) for record in caplog.records[1:]]
    assert kept == [
        ("ERROR", "Unhandled error of ann", True),
        ("ERROR", "Something else", False),
        ("INFO", "Nothing was started, by the way", False),
    ]


def test_the_filter_is_set_once() -> None:
    for _ in range(2):
        set_config(Config())
    filters = [item for item in logging.getLogger("JupyterHub").filters if isinstance(item, QuietRefusals)]
    assert len(filters) == 1


def test_sqlite_commits_without_waiting_for_the_disk(tmp_path: Path) -> None:
    set_config(Config())
    set_config(Config())  # a second time changes nothing
    with create_engine(f"sqlite:///{tmp_path}/hub.sqlite").connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 1
    with create_engine("sqlite://").connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "memory"


def test_a_later_line_that_holds_the_same_words_is_not_swallowed(
    log: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    error = refusal()
    raised(log, error, "Exception applying user_options for %s", "ann")
    log.error("Error starting server ann: %s", error)  # JupyterHub's, of the same refusal
    before = len(caplog.records)
    log.error("Somebody asks about: %s", error)
    log.warning("Error starting server ann: %s, and more", error)
    assert len(caplog.records) == before + 2
