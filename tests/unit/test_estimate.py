"""Slurm is asked seldom: the same question once, one person not too often, all people two at a time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from snowyspawner.session.estimate import (
    FRESH_FOR,
    PER_MINUTE,
    PER_MINUTE_OF_ALL,
    STARTS_PER_MINUTE,
    STARTS_PER_MINUTE_OF_ALL,
    Estimator,
    TooOftenError,
)
from snowyspawner.slurm.client import SlurmError, SlurmTimeoutError, SlurmUnsureError
from snowyspawner.slurm.sbatch import parse_would_start
from snowyspawner.slurm.times import say_wait


class StandInClient:
    """A stand-in for SlurmClient, so that answers come when the test lets them."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.now = self.most = 0
        self.error: SlurmError | None = None
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def would_start(self, script: str, prefix: Any, env: Any) -> int:
        self.asked.append(script)
        self.now += 1
        self.most = max(self.most, self.now)
        await self.may_answer.wait()
        self.now -= 1
        if self.error:
            raise self.error
        return 1_790_000_000


class Clock:
    time = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def client() -> StandInClient:
    return StandInClient()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def estimator(client: StandInClient, clock: Clock) -> Estimator:
    return Estimator(client, clock)  # type: ignore[arg-type]


async def test_the_same_question_is_asked_once_a_minute(
    estimator: Estimator, client: StandInClient, clock: Clock
) -> None:
    client.may_answer.clear()
    asking = [asyncio.create_task(estimator.ask("ann", "script", [], {})) for _ in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    client.may_answer.set()
    answers = await asyncio.gather(*asking)
    assert {answer.start for answer in answers} == {1_790_000_000}
    assert client.asked == ["script"]
    # Another person's is another question: limits are per person.
    await estimator.ask("bob", "script", [], {})
    assert len(client.asked) == 2
    clock.time += FRESH_FOR
    await estimator.ask("ann", "script", [], {})
    assert len(client.asked) == 3


async def test_who_asks_too_often_has_to_wait(estimator: Estimator, client: StandInClient, clock: Clock) -> None:
    for number in range(PER_MINUTE):
        await estimator.ask("ann", f"script {number}", [], {})
    with pytest.raises(TooOftenError):
        await estimator.ask("ann", "another", [], {})
    await estimator.ask("bob", "another", [], {})
    # What has been answered is answered again.
    assert (await estimator.ask("ann", "script 3", [], {})).good
    clock.time += 60
    await estimator.ask("ann", "another", [], {})


async def test_all_together_have_to_wait_when_they_ask_too_often(
    estimator: Estimator, client: StandInClient, clock: Clock
) -> None:
    for number in range(PER_MINUTE_OF_ALL):
        await estimator.ask(f"person{number}", "script", [], {})
    with pytest.raises(TooOftenError):
        await estimator.ask("ann", "script", [], {})
    assert len(client.asked) == PER_MINUTE_OF_ALL
    clock.time += 60
    await estimator.ask("ann", "script", [], {})


async def test_starts_are_counted_by_themselves(estimator: Estimator, clock: Clock) -> None:
    for _ in range(STARTS_PER_MINUTE):
        estimator.starts.take("ann")
    with pytest.raises(TooOftenError):
        estimator.starts.take("ann")
    estimator.limiter.take("ann")
    for number in range(STARTS_PER_MINUTE_OF_ALL - STARTS_PER_MINUTE):
        estimator.starts.take(f"person{number}")
    with pytest.raises(TooOftenError):
        estimator.starts.take("bob")
    clock.time += 60
    estimator.starts.take("ann")


async def test_other_questions_of_buttons_count_too(estimator: Estimator, client: StandInClient) -> None:
    for _ in range(PER_MINUTE):
        estimator.limiter.take("ann")
    with pytest.raises(TooOftenError):
        await estimator.ask("ann", "script", [], {})
    assert client.asked == []


@pytest.mark.parametrize(
    "error",
    [
        SlurmTimeoutError("sbatch", 30),
        SlurmUnsureError("sbatch", -9, "sbatch was ended by a signal"),
        SlurmError("sbatch", 1, "sbatch: error: Unable to contact slurm controller (connect failure)"),
        SlurmError("sbatch", 1, "allocation failure: Rate limit exceeded, please retry momentarily"),
    ],
)
async def test_no_answer_is_no_estimate_and_is_not_remembered(
    estimator: Estimator, client: StandInClient, error: SlurmError
) -> None:
    client.error = error
    answer = await estimator.ask("ann", "script", [], {})
    assert (answer.answered, answer.good, answer.start) == (False, False, None)
    client.error = None
    assert (await estimator.ask("ann", "script", [], {})).good


async def test_no_more_than_two_are_asked_at_a_time(estimator: Estimator, client: StandInClient) -> None:
    client.may_answer.clear()
    asking = [asyncio.create_task(estimator.ask(f"person{n}", "script", [], {})) for n in range(10)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert client.now == 2
    client.may_answer.set()
    await asyncio.gather(*asking)
    assert client.most == 2


async def test_who_gives_up_does_not_spoil_it_for_others(estimator: Estimator, client: StandInClient) -> None:
    client.may_answer.clear()
    first, second = (asyncio.create_task(estimator.ask("ann", "script", [], {})) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    client.may_answer.set()
    assert (await second).good


async def test_a_refusal_is_an_answer_in_words(estimator: Estimator, client: StandInClient) -> None:
    client.error = SlurmError("sbatch", 1, "allocation failure: Requested reservation is invalid")
    answer = await estimator.ask("ann", "script", [], {})
    assert not answer.good
    assert answer.refused is not None
    assert answer.refused.field == "reservation"
    assert answer.detail == "allocation failure: Requested reservation is invalid"


@pytest.mark.parametrize(
    ("wait", "said"),
    [
        (-5, "now"),
        (0, "now"),
        (60, "now"),
        (61, "in about 1 minute"),
        (110, "in about 2 minutes"),
        (3600, "in about 1 hour"),
        (7000, "in about 2 hours"),
        (86400 * 3.2, "in about 3 days"),
    ],
)
def test_a_wait_is_said_roughly(wait: float, said: str) -> None:
    assert say_wait(wait) == said


@pytest.mark.parametrize(
    ("output", "start"),
    [
        # Slurm 22.05, SLURM_TIME_FORMAT=%s.
        ("sbatch: Job 2 to start at 1795408771 using 4 processors on nodes s3 in partition core", 1795408771),
        ("sbatch: lua: welcome\nsbatch: Job 17 to start at 1795408771 using 1 processors on nodes s[3-4]", 1795408771),
        # Without that variable, and without an answer.
        ("sbatch: Job 2 to start at 2026-11-23T05:00:00 using 4 processors on nodes s3", None),
        ("", None),
    ],
)
def test_slurm_s_guess_is_read(output: str, start: int | None) -> None:
    assert parse_would_start(output) == start
