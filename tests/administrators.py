"""A hub with an administrator, a teacher who sees one group's sessions, and a student; sessions of all kinds on it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from .conftest import empty
from .faults import FaultHub, prologue
from .hubs import until

ONE = {"environment": "tf-mkl", "partition": "core", "cores": "1", "gpu": "none", "time": "30"}
#: What the job of a server called ``fails…`` does instead: all that it has from the hub stands in its log.
_FAILS = """case "$SLURM_JOB_NAME" in jupyter-fails*)
  env; printf 'JOBID USER ST\\n17 somebody R\\n'; echo '/home/somebody/setup.sh: Permission denied'; exit 3;; esac"""


class AdminHub(FaultHub):
    """The hub, and who is who on it."""

    def __init__(self, cluster: Any) -> None:
        self.check = cluster.state / "fault-hub" / "check.json"
        over = {**prologue(cluster, _FAILS), "support": "help@example.org"}
        super().__init__(cluster, cluster.state / "fault-hub", over, check_result=str(self.check))
        self.config = Path(__file__).parent / "admin_hub_config.py"
        self.student, self.teacher, self.admin = sorted(cluster.users)

    async def wait(self, user: str, server: str = "", seconds: float = 3600) -> dict[str, Any]:
        """Start a session that waits for its time; return its job."""
        at = datetime.fromtimestamp(time.time() + seconds, self.cluster.site.zone)
        await self.submit(user, {**ONE, "begin": at.strftime("%Y-%m-%dT%H:%M:%S")}, server)
        return await self.job(user, server)

    async def fail(self, user: str) -> dict[str, Any]:
        """Start a session whose job fails on the node; return how it ended."""
        await self.submit(user, ONE, "fails")

        async def ended() -> Any:
            model = await self.model(user, "fails")
            return model["state"].get("last") if model and model["stopped"] else None

        found: dict[str, Any] = await until(ended, 60, f"the end of {user}'s session; see {self.log_path}")
        return found


@asynccontextmanager
async def admin_hub(cluster: Any, slurm: Any, covered: bool = False) -> AsyncIterator[AdminHub]:
    """The hub, running; afterwards nobody has a job, or anything in their home directory."""
    made = AdminHub(cluster)
    made.covered = covered
    await made.start()
    try:
        yield made
    finally:
        await made.stop()
        for name in cluster.users:
            slurm("scancel", "-M", cluster.site.cluster, "-u", name)
        of = ("-M", cluster.site.cluster, "-h", "-u", ",".join(cluster.users))
        await until(lambda: not slurm("squeue", *of).strip(), 30, "nobody has a job")
        for name in cluster.users:
            empty(cluster.state / "home" / name)
