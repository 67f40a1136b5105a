"""Pieces of work in turn on the hub's one thread: who asks for something else meanwhile waits for one, not for all."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

_locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


async def turn() -> None:
    """Wait for the caller's turn: one caller goes on in each round of the event loop, in the order they came."""
    async with _locks.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
        await asyncio.sleep(0)
