"""Who does not know a job's secret makes the hub do next to nothing. The whole of it is in tests/cluster."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from tornado import web

from snowyspawner.session.record import new_job
from snowyspawner.web.job_api import _BODY_LIMIT, JobHandler


class NoUsers:
    """Stands in for JupyterHub's users: to touch one is to build a Spawner."""

    def __getitem__(self, key: Any) -> Any:
        raise AssertionError("a Spawner is built")


@pytest.fixture
def body() -> dict[str, Any]:
    return {"server": 7, "name": "", "secret": "", "job_id": "17", "node": "s1"}


def find(state: Any, body: dict[str, Any], users: Any = None) -> Any:
    row = SimpleNamespace(user="ann", name="", state=state)
    handler: Any = SimpleNamespace(db=SimpleNamespace(get=lambda _, number: row), users=users or NoUsers())
    return JobHandler.find(handler, body)


@pytest.mark.parametrize("change", [{"secret": "x" * 43}, {"name": "other"}, {"job_id": "18"}, {"secret": "\ud800"}])
def test_no_spawner_is_built_before_the_secret_is_checked(body: dict[str, Any], change: dict[str, str]) -> None:
    job, secret = new_job("lab", {})
    job.job_id = "17"
    right = {**body, "name": job.name, "secret": secret}
    with pytest.raises(web.HTTPError, match="404"):
        find({"job": job.model_dump()}, {**right, **change})
    with pytest.raises(AssertionError, match="a Spawner is built"):
        find({"job": job.model_dump()}, right)


@pytest.mark.parametrize("state", [None, [], "x", {}, {"job": None}, {"job": "x"}, {"job": {"secret_hash": ""}}])
def test_a_state_that_is_none_knows_nobody(body: dict[str, Any], state: Any) -> None:
    with pytest.raises(web.HTTPError, match="404"):
        find(state, body)


def test_the_job_as_it_is_now_has_the_last_word(body: dict[str, Any]) -> None:
    job, secret = new_job("lab", {})
    other, _ = new_job("lab", {})
    right = {**body, "name": job.name, "secret": secret}
    for now in (None, other):
        spawner = SimpleNamespace(job=now, gave_up=None)
        with pytest.raises(web.HTTPError, match="404"):
            find({"job": job.model_dump()}, right, {"ann": SimpleNamespace(spawners={"": spawner})})


def test_no_more_of_a_body_is_kept_than_may_be_in_it() -> None:
    handler: Any = SimpleNamespace(_body=bytearray())
    for _ in range(100):
        JobHandler.data_received(handler, b"x" * 10_000)
    assert len(handler._body) == _BODY_LIMIT + 1
    with pytest.raises(web.HTTPError, match="too long"):
        JobHandler.read(handler, {})
