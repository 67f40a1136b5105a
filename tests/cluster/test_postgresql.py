"""PostgreSQL as the hub's database, a real one: many starts, and hub and database killed."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from demo import packages
from demo.commands import open_umask, wait_until
from demo.daemons import MARK
from demo.progress import Progress

from ..faults import FaultHub, ready
from ..hubs import Hub, until
from .test_slurm_away import ONE, end_all, job_ids, later

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


class Database:
    """A PostgreSQL of its own, which listens on a socket in its directory, and knows people by their uid (peer)."""

    def __init__(self, state: Path) -> None:
        self.directory, self.mark = state / "postgresql", f"{state}:postgresql"
        self.bin = max(Path("/usr/lib/postgresql").glob("*/bin"))
        shutil.rmtree(self.directory, ignore_errors=True)
        with open_umask():
            self.directory.mkdir()
        shutil.chown(self.directory, "postgres", "postgres")
        self._run("initdb", "--auth=peer", "--no-sync", "-D", str(self.directory / "data"))
        self.start()
        self._run("createuser", "-h", str(self.directory), "root")
        self._run("createdb", "-h", str(self.directory), "-O", "root", "hub")

    @property
    def url(self) -> str:
        return f"postgresql+psycopg2://root@/hub?host={self.directory}"

    def _words(self, program: str, *words: str) -> list[str]:
        return [
            "setpriv",
            "--reuid=postgres",
            "--regid=postgres",
            "--init-groups",
            "--",
            str(self.bin / program),
            *words,
        ]

    def _run(self, program: str, *words: str) -> None:
        subprocess.run(self._words(program, *words), check=True, capture_output=True, cwd="/", timeout=60)

    def start(self) -> None:
        words = ["-D", str(self.directory / "data"), "-k", str(self.directory), "-c", "listen_addresses="]
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(
                self._words("postgres", *words),
                env={**os.environ, MARK: self.mark},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        ask = self._words("pg_isready", "-h", str(self.directory))

        def answers() -> bool:
            assert self.process.poll() is None, (self.directory / "log").read_text()[-3000:]
            return subprocess.run(ask, capture_output=True, cwd="/").returncode == 0

        wait_until(answers, "PostgreSQL", 30)

    def kill(self) -> None:
        """End all of its processes at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def database(cluster: Any) -> Iterator[Database]:
    packages.install(packages.POSTGRESQL, Progress(quiet=True))
    made = Database(cluster.state)
    yield made
    made.kill()


@pytest.fixture
async def own(cluster: Any, hub: Hub, users: list[str], database: Database) -> AsyncIterator[FaultHub]:
    made = FaultHub(cluster, cluster.state / "fault-hub")
    made.more_env["SNOWYSPAWNER_TEST_DATABASE"] = database.url
    await made.start()
    try:
        yield made
        await end_all(made, users)
    finally:
        await made.stop()


async def test_40_starts_and_neither_hub_nor_database_loses_one(
    own: FaultHub, database: Database, users: list[str], cluster: Any
) -> None:
    """All at once; then both are killed, then the database alone while the hub runs."""
    starts = [(users[n % 3], f"n{n}") for n in range(40)]
    await own.serve(users[0], ONE, "serves")
    begin = later(cluster, 3600)
    answers = await asyncio.gather(*(own.submit(user, {**ONE, "begin": begin}, server) for user, server in starts))
    assert {status for status, _ in answers} <= {201, 202}
    jobs = await job_ids(own, [*starts, (users[0], "serves")])
    assert len(set(jobs.values())) == 41

    await own.stop(signal.SIGKILL)
    database.kill()
    database.start()
    await own.start()
    assert await job_ids(own, list(jobs)) == jobs
    await ready(own, users[0], "serves")

    database.kill()
    database.start()

    async def same() -> bool:
        status, _ = await own.call("GET", f"/hub/api/users/{users[0]}")
        return status == 200 and await job_ids(own, list(jobs)) == jobs

    await until(same, 30, f"what the hub knew before; see {own.log_path}")
    await own.end(users[0], "serves")
