"""Pieces of work in turn on the hub's one thread: who asks for something else meanwhile waits for one, not for all."""

from __future__ import annotations

import asyncio
from typing import TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")

_locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


async def in_turn(value: T) -> T:
    """Return *value* in the caller's turn: one caller goes on in each round of the loop, in the order they came."""
    async with _locks.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
        await asyncio.sleep(0)
    return value
