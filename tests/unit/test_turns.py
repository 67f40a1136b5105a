"""Pieces of work in turn."""

from __future__ import annotations

import asyncio

from snowyspawner.web.turns import in_turn


async def test_one_goes_on_in_each_round_in_the_order_they_came() -> None:
    rounds, done = 0, []

    async def work(number: int) -> None:
        done.append((await in_turn(number), rounds))

    tasks = [asyncio.create_task(work(number)) for number in range(5)]
    while len(done) < 5:
        rounds += 1
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert [number for number, _ in done] == [0, 1, 2, 3, 4]
    assert len({when for _, when in done}) == 5


async def test_one_that_is_cancelled_holds_up_nobody() -> None:
    waiting = [asyncio.create_task(in_turn(None)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    waiting[1].cancel()
    async with asyncio.timeout(1):
        await waiting[2]
    assert [task.cancelled() for task in waiting] == [True, True, False]


def test_each_loop_has_its_own_turns() -> None:
    async def two() -> None:
        async with asyncio.timeout(1):
            await asyncio.gather(in_turn(1), in_turn(2))

    asyncio.run(two())
    asyncio.run(two())
