"""The queue watcher with many jobs at once: measured, not guessed."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from typing import Any

import pytest

from snowyspawner.slurm.client import SlurmClient
from snowyspawner.slurm.queue import QueueWatcher

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


async def test_1000_watched_jobs_do_not_hold_up_the_loop(
    cluster: Any, users: list[str], slurm: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Real ``sleep`` jobs, most of them pending; a snapshot blocks the event loop for less than 50 ms."""
    for name, value in cluster.env.items():
        monkeypatch.setenv(name, value)
    name = users[0]
    asked = f"-M {cluster.site.cluster} --parsable -A {cluster.site.accounts.default} -p core -n 16 -t 20 -o /dev/null"
    person = f"setpriv --reuid {name} --regid {name} --init-groups --"
    command = f"cd / && seq 1000 | xargs -P 4 -I% {person} sbatch {asked} --wrap 'exec sleep 600'"
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", command, env={**os.environ, **cluster.env}, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()
    ids = re.findall(r"^(\d+)", printed.decode(), re.M)
    assert len(ids) == 1000
    try:
        watcher = QueueWatcher(SlurmClient(cluster.site.cluster), logging.getLogger("test"))
        watched = [watcher.watch(job_id) for job_id in ids]
        lags: list[float] = []

        async def feel() -> None:
            while True:
                began = time.perf_counter()
                await asyncio.sleep(0.002)
                lags.append(time.perf_counter() - began - 0.002)

        feeling = asyncio.create_task(feel())
        for _ in range(10):
            await watcher.look()
        feeling.cancel()
        assert all(job.row is not None for job in watched)
        assert sum(job.row.state == "PENDING" for job in watched if job.row) > 900
        with capsys.disabled():
            print(f"\n1000 watched jobs: the loop was held up for {max(lags) * 1000:.1f} ms at most")
        assert max(lags) < 0.05
    finally:
        for job_id in ids:
            watcher.unwatch(job_id)
        slurm("scancel", "-M", cluster.site.cluster, "-u", name)
