"""End a job: asked to first, then told to, then killed. Slurm away: tried until it is back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from ..slurm.client import ASK, KILL, SlurmError
from ..slurm.queue import QueueWatcher, Watched
from ..slurm.squeue import ENDED

_PATIENCE = 5.0  # seconds between scancel and the next stage
_LEAVES_IN = 2.0  # seconds for a job that has said that it ends
_FORGOTTEN_AFTER = 10.0  # seconds after a start was cancelled
_PAUSE, _PAUSE_LIMIT = 1.0, 30.0  # seconds between two tries while Slurm does not answer


async def cancel(
    watcher: QueueWatcher,
    watched: Watched,
    prefix: Callable[[], Awaitable[Sequence[str]]],
    grace: float,
    log: logging.Logger | logging.LoggerAdapter[logging.Logger],
) -> None:
    """Ask the server to end, after *grace* seconds end the job, then kill what is left; wait for the end.

    Returns only once Slurm has accepted that, or the job is over. *prefix* gives the words that make a command run
    as the person; it may raise `SlurmError`, and is asked again.
    """
    # Accounting keeps its own exit code then, not that somebody cancelled it. One that is queued again stays there.
    if watched.leaving and not watched.requeued and await _is_over(watcher, watched, _LEAVES_IN):
        return
    stages: list[tuple[Sequence[str], float]] = [((), _PATIENCE), (KILL, _PATIENCE)]
    # A job that has spoken runs, whatever the last look at the queue says.
    if grace and not watched.requeued and (watched.ran_at or (watched.row and watched.row.state == "RUNNING")):
        stages.insert(0, (ASK, grace))
    for how, patience in stages:
        if watched.leaving and how == ASK:
            continue
        pause = _PAUSE
        while not watched.end:
            try:
                await watcher.client.cancel(watched.job_id, await prefix(), how)
                break
            except SlurmError as error:
                log.warning("Cannot cancel job %s yet: %s", watched.job_id, error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _PAUSE_LIMIT)
        # When its server has ended, there is nothing to wait for but that Slurm takes the job's end, too.
        if await _is_over(watcher, watched, patience, or_leaving=True) or (watched.leaving and how != ASK):
            return
    log.warning("Job %s is slow to end; Slurm has accepted its cancellation", watched.job_id)


async def _is_over(watcher: QueueWatcher, watched: Watched, seconds: float, *, or_leaving: bool = False) -> bool:
    """Wait at most *seconds* until nothing of the job runs any more, *or_leaving*: until it says that it ends.

    Tell whether nothing of it runs.
    """
    deadline = time.monotonic() + seconds
    while not watched.end and time.monotonic() < deadline:
        if watched.row and (watched.row.state == "COMPLETING" or watched.row.state in ENDED):
            return True  # Slurm only tidies up
        if or_leaving and watched.leaving:
            return False
        watcher.kick()
        await watched.changed(0.3)
    return watched.end is not None


async def stop_if_forgotten(
    start: asyncio.Future[Any],
    forgotten: Callable[[], bool],
    stop: Callable[[], Awaitable[None]],
    label: str,
    log: logging.Logger | logging.LoggerAdapter[logging.Logger],
) -> None:
    """Call *stop* some seconds after *start* was cancelled if the server is *forgotten* then. To be begun before it.

    JupyterHub gives a cancelled start one second, and answers 500 if it is too busy to see it end in that: its job
    would go on, and the server count as ready, also where there is no job yet. A hub that shuts down cancels its
    starts, too, and this with them.
    """
    await asyncio.wait([start])
    if not start.cancelled():
        return
    await asyncio.sleep(_FORGOTTEN_AFTER)
    if forgotten():
        log.warning("The start of %s was cancelled, and it was not stopped; stopping it now", label)
        await stop()
