"""What of the starts of several sessions can be tried without a hub; all else is in tests/cluster and tests/browser."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

import pytest
from tornado import web

from snowyspawner.choice import several
from snowyspawner.choice.request import RequestError
from snowyspawner.session.errors import SessionError
from snowyspawner.session.messages import Words
from snowyspawner.site import Site
from snowyspawner.spawner import _refusal
from snowyspawner.web.form_state import joined
from snowyspawner.web.several_pages import Outcome, SeveralHandler

GROUP = several.Group(id="0" * 16, title="two of them")


@pytest.fixture
def handler(snowy: Site) -> Any:
    """A handler whose starts end as `raises` has it, by the server's name."""
    handler: Any = SeveralHandler.__new__(SeveralHandler)
    handler.log_ = logging.getLogger("test")
    handler.raises = {}
    handler.groups = {}
    user = SimpleNamespace(name="ann", orm_spawners={}, spawners={})
    handler.spawner = SimpleNamespace(user=user, life=SimpleNamespace(site=snowy))
    handler.application = SimpleNamespace(settings={"log": handler.log_})

    async def spawn(spawner: Any, options: dict[str, Any]) -> None:
        handler.groups[spawner] = joined.get()
        if make := handler.raises.get(spawner):
            raise make()

    async def patiently(work: Coroutine[Any, Any, None]) -> asyncio.Future[None]:
        task = asyncio.ensure_future(work)
        await asyncio.wait([task])
        return task

    handler.spawn, handler.patiently, handler.fresh = spawn, patiently, lambda user, name, shown: name
    return handler


def outcomes(site: Site) -> list[Outcome]:
    plan = several.plan({"cores": "1,2,4"}, site)
    return [Outcome(session, None, {}) for session in plan.sessions]


@pytest.mark.parametrize(
    ("error", "errors", "too_often"),
    [
        # What every start is counted by: too many of them are refused one by one, and those before it go on.
        (
            lambda: SessionError(Words("Many were started.", "Try again."), reason="request", status_code=429),
            {"start": "Many were started. Try again."},
            True,
        ),
        (lambda: _refusal(RequestError({"partition": "is full"})), {"partition": "is full"}, False),
        (lambda: web.HTTPError(429, "Active user limit exceeded."), {"start": "Active user limit exceeded."}, True),
        (
            lambda: RuntimeError("ann:tf-gpu-2 pending spawn"),
            {"start": "the hub could not start it; tell support if that happens again"},
            False,
        ),
    ],
    ids=["limit of starts", "at its field", "JupyterHub's limit", "unforeseen"],
)
async def test_one_that_is_refused_holds_up_no_other(
    handler: Any, snowy: Site, error: Any, errors: dict[str, str], too_often: bool
) -> None:
    handler.raises["tf-gpu-2"] = error
    found = outcomes(snowy)
    await asyncio.gather(*(handler._start_one(outcome, GROUP) for outcome in found))
    assert [outcome.started for outcome in found] == [True, False, True]
    assert [outcome.errors for outcome in found] == [{}, errors, {}]
    assert [outcome.too_often for outcome in found] == [False, too_often, False]
    assert handler.groups == {f"tf-gpu-{cores}": GROUP for cores in (1, 2, 4)}
    assert joined.get() is None


async def test_one_that_is_cancelled_meanwhile_holds_up_no_other(handler: Any, snowy: Site) -> None:
    handler.raises["tf-gpu-2"] = asyncio.CancelledError
    found = outcomes(snowy)
    await asyncio.gather(*(handler._start_one(outcome, GROUP) for outcome in found))
    assert [outcome.started for outcome in found] == [True, False, True]
    assert found[1].errors == {"start": "was cancelled"}


async def test_a_hub_without_named_servers_starts_none(
    handler: Any, snowy: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_limit() -> int:
        return 0

    handler.get_current_user_named_server_limit = no_limit
    monkeypatch.setattr(SeveralHandler, "allow_named_servers", False)
    monkeypatch.setattr(
        "snowyspawner.session.admission.review",
        lambda life, options: several.review(options, snowy),
    )
    found = await handler._look(several.plan({"cores": "1,2"}, snowy), GROUP.id, 0.0)
    assert [outcome.errors for outcome in found] == [{"name": "this hub gives everybody one session at a time"}] * 2
