"""Which sessions are ended because nobody uses them: a table of limits, times and what is not known."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from snowyspawner.session import idle
from snowyspawner.session.record import Job, new_job
from snowyspawner.session.usage import Usage, sampler
from snowyspawner.site import Site, SiteError, load

NOW = 1790848800.0
LIMITS = {"gpu": "30:00", "cpu": "2:00:00", "warn": "10:00"}
GPU = {"gpu": "t4", "gpu_count": 1}


def job(request: dict[str, Any] | None = None, **changes: Any) -> Job:
    wanted = {"environment": "tf-mkl", "image": "", "partition": "core", "cores": 4, "time": 7200, **(request or {})}
    made, _ = new_job("", wanted)
    made.phase, made.begun_at = "serving", NOW - 3600
    for name, value in changes.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("limits", "there", "request_", "limit", "warn"),
    [
        ({}, None, {}, 0, 0),  # off, as it is by default
        ({}, None, GPU, 0, 0),
        (LIMITS, None, {}, 7200, 600),
        (LIMITS, None, GPU, 1800, 600),
        ({"gpu": "30:00"}, None, {}, 0, 0),
        ({"gpu": "30:00"}, None, GPU, 1800, 600),
        ({"gpu": "4:00"}, None, GPU, 240, 120),  # warned half way
        ({"gpu": "30:00", "warn": ""}, None, GPU, 1800, 0),
        # A partition's own take the place of all of the Site's.
        (LIMITS, {"gpu": "10:00", "warn": "1:00"}, GPU, 600, 60),
        (LIMITS, {"gpu": "10:00"}, {}, 0, 0),
        (LIMITS, {}, GPU, 0, 0),
        # A partition that is not there any more.
        (LIMITS, None, {"partition": "gone", **GPU}, 1800, 600),
    ],
)
def test_limits(
    variant: Callable[..., Site],
    limits: dict[str, str],
    there: dict[str, str] | None,
    request_: dict[str, Any],
    limit: int,
    warn: int,
) -> None:
    over = {"partitions": {"core": {"idle": there}}} if there is not None else {}
    site = variant(idle=limits, **over)
    made = job(request_, unused_since=NOW - 60)
    found = idle.idle_of(made, site)
    if limit:
        assert found == (limit, NOW - 60 + limit, NOW - 60 + limit - warn)
    else:
        assert found is None
    assert sampler(idle.load(made.request), site, 120)["idle"] == bool(limit)


@pytest.mark.parametrize("changes", [{"unused_since": 0.0}, {"phase": "stopping"}, {"phase": "ended"}])
def test_what_is_not_known_or_over_is_not_ended(variant: Callable[..., Site], changes: dict[str, Any]) -> None:
    assert idle.idle_of(job(GPU, **{"unused_since": NOW, **changes}), variant(idle=LIMITS)) is None


def test_keep_it_is_good_for_one_more_period(variant: Callable[..., Site]) -> None:
    site = variant(idle=LIMITS)
    made = job(GPU, unused_since=NOW - 1500)
    found = idle.idle_of(made, site)
    assert found
    assert (found.is_near(NOW - 301), found.is_near(NOW)) == (False, True)
    made.kept_at = NOW
    found = idle.idle_of(made, site)
    assert found
    assert (found.ends_at, found.is_near(NOW)) == (NOW + 1800, False)
    # Used after that: what counts is the later of the two.
    made.unused_since = NOW + 60
    assert idle.idle_of(made, site) == (1800, NOW + 1860, NOW + 1260)


def test_nobody_is_ended_without_the_time_of_a_warning(variant: Callable[..., Site]) -> None:
    """The hub was away for an hour, or hears for the first time that the session is not used."""
    site = variant(idle=LIMITS)
    made = job(GPU)
    idle.note(made, Usage(seconds=9000, unused=5000.0), site, NOW)
    found = idle.idle_of(made, site)
    assert found
    assert (found.is_near(NOW), found.ends_at) == (True, NOW + 600)
    # It counts from the first time on that it is said.
    idle.note(made, Usage(seconds=9120, unused=5120.0), site, NOW + 120)
    found = idle.idle_of(made, site)
    assert found
    assert found.ends_at == NOW + 600
    # Used, and then again not: a new warning.
    idle.note(made, Usage(seconds=9130, unused=1.0), site, NOW + 130)
    assert made.warned_at == 0
    idle.note(made, Usage(seconds=11000, unused=1900.0), site, NOW + 2030)
    found = idle.idle_of(made, site)
    assert found
    assert found.ends_at == NOW + 2630


def test_since_when_it_is_unused_is_the_job_s_word(snowy: Site) -> None:
    made = job()
    idle.note(made, Usage(seconds=3000, unused=90.0), snowy, NOW)
    assert made.unused_since == NOW - 90
    idle.note(made, Usage(seconds=3000), snowy, NOW)
    assert made.unused_since == 0


@pytest.mark.parametrize(
    ("request_", "hours"), [(GPU, 1.0), ({"gpu": "t4", "gpu_count": 2}, 2.0), ({}, 0.0), ({**GPU, "time": 60}, 0.0)]
)
def test_gpu_hours_that_are_given_back(request_: dict[str, Any], hours: float) -> None:
    assert idle.given_back(job(request_), NOW) == hours
    assert idle.given_back(job(request_, begun_at=0.0), time.time()) == 0.0


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"idle": {"gpu": "soon"}}, "idle.gpu"),
        ({"idle": {"gpu": "0"}}, "idle.gpu"),
        ({"idle": {"gpu": 30}}, "idle.gpu"),
        ({"idle": {"warn": "never"}}, "idle.warn"),
        ({"idle": {"tpu": "30:00"}}, "idle.tpu"),
        ({"partitions": {"core": {"idle": {"cpu": "-1"}}}}, "partitions.core.idle.cpu"),
        ({"co2": -1}, "co2"),
        ({"co2": "much"}, "co2"),
    ],
)
def test_a_mistake_names_the_key(given: dict[str, Any], key: str) -> None:
    with pytest.raises(SiteError, match=rf"site: {key}: "):
        load({"extends": "snowy", **given})
