"""Work in the background: one of each name, and never silent about a failure."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from snowyspawner import restart
from snowyspawner.metrics import BACKGROUND_FAILURES
from snowyspawner.session import tasks
from snowyspawner.session.tasks import Tasks
from snowyspawner.spawner import SnowySpawner

LOG = logging.getLogger("test")


def failures(task: str) -> float:
    return float(BACKGROUND_FAILURES.labels(task)._value.get())


async def test_of_each_name_there_is_one(aeventually: Callable[..., Awaitable[Any]]) -> None:
    kept, go = Tasks(LOG, lambda: "ann:lab"), asyncio.Event()

    async def work() -> None:
        await go.wait()

    first = kept.begin("stop", work())
    assert kept.begin("stop", work()) is first
    assert kept.keep("stop", work) is first
    assert kept.begin("guard", work()) is not first
    assert kept.busy
    go.set()
    await aeventually(lambda: not kept.busy, "both are done")


async def test_what_is_replaced_ends_and_the_new_one_runs() -> None:
    kept, ran = Tasks(LOG, lambda: "ann:lab"), asyncio.Event()

    async def work() -> None:
        ran.set()

    first = kept.begin("forgotten", asyncio.sleep(60))
    await kept.replace("forgotten", work())
    assert ran.is_set()
    assert first.cancelled()


@pytest.mark.parametrize("error", [UnicodeError("label empty or too long"), KeyError("x"), OSError("x")])
async def test_a_failure_is_logged_and_counted(caplog: pytest.LogCaptureFixture, error: Exception) -> None:
    before = failures("stop")

    async def work() -> None:
        raise error

    with pytest.raises(type(error)):
        await Tasks(LOG, lambda: "ann:lab").begin("stop", work())
    assert "stop of ann:lab failed" in caplog.text
    assert failures("stop") == before + 1


async def test_what_is_kept_is_begun_again_after_a_failure_until_it_ends_well(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tasks, "_PAUSE", 0.001)
    before, tries = failures("guard"), []

    async def work() -> None:
        tries.append(1)
        if len(tries) < 4:
            raise UnicodeError("label empty or too long")

    await Tasks(LOG, lambda: "ann:lab").keep("guard", work)
    assert len(tries) == 4
    assert caplog.text.count("guard of ann:lab failed") == 3
    assert failures("guard") == before + 3


async def test_what_is_kept_can_be_cancelled_while_it_pauses() -> None:
    async def work() -> None:
        raise ValueError

    task = Tasks(LOG, lambda: "ann:lab").keep("guard", work)
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("address", ["a..b", "x" * 70, "[::1", "s1 s2", "127.0.0.1:1"])
async def test_an_address_that_is_none_is_out_of_reach(address: str) -> None:
    """Neither a start nor the watch over a session ends with an accident because of it."""
    spawner = SimpleNamespace(server=None, _address=lambda job: f"http://{address}:1234")
    assert await SnowySpawner._problem(spawner, None)  # type: ignore[arg-type]


class StandInHub:
    """Stands in for a JupyterHub with these rows; the server called "bad" cannot be made."""

    def __init__(self, *rows: tuple[str, Any]) -> None:
        self.db, self.log, self.stopped, self.made = self, LOG, [], []  # type: ignore[var-annotated]
        self.users: dict[str, Any] = {"ann": SimpleNamespace(spawners=self)}
        self.rows = [SimpleNamespace(id=n, name=name, state=state, user="ann") for n, (name, state) in enumerate(rows)]

    def query(self, _: Any) -> list[Any]:
        return self.rows

    def __getitem__(self, name: str) -> Any:
        if name == "bad":
            raise ValueError("a state that cannot be read")
        self.made.append(name)
        return SimpleNamespace(finish_stop=lambda: self.stopped.append(name))


def test_a_stop_that_cannot_be_taken_up_holds_up_no_other(caplog: pytest.LogCaptureFixture) -> None:
    stopping = {"job": {"phase": "stopping", "name": "jupyter-x"}}
    hub = StandInHub(
        *(("", None), ("list", []), ("job", {"job": "x"}), ("serves", {"job": {"phase": "serving"}})),
        ("over", {"job": {"phase": "ended"}}),
        *(("bad", stopping), ("good", stopping)),
    )
    assert restart.finish_stops(hub) == (["jupyter-x"], True)
    assert hub.stopped == ["good"]
    # A job that is there is in memory, for the page of all sessions; one that is over is not.
    assert hub.made == ["serves", "good"]
    assert "'bad'" in caplog.text
    hub.rows = hub.rows[6:]
    assert restart.finish_stops(hub) == (["jupyter-x"], False)
