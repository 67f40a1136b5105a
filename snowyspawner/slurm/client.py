"""Run Slurm's commands: argv lists, no shell, a time limit, at most a few at once; typed results.

Whom a command runs as is decided by an argv prefix (`prefix_for`). Reading the queue needs no prefix.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import re
import shutil
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from .accounting import (
    ACCOUNTS_FORMAT,
    RECORD_FORMAT,
    SACCT_FORMAT,
    USE_FORMAT,
    JobEnd,
    JobUse,
    parse_accounts,
    parse_record,
    parse_sacct,
    parse_use,
)
from .configuration import (
    ASSOCIATIONS_FORMAT,
    NODES,
    PARTITIONS,
    QOS_FORMAT,
    Association,
    ClusterConfig,
    NodeConfig,
    PartitionConfig,
    QosLimits,
    parse_associations,
    parse_config,
    parse_node_configs,
    parse_partitions,
    parse_qos,
)
from .nodes import SINFO_FORMAT, NodeRow, PartitionFacts, parse_nodes, summarize
from .processes import starting
from .reservations import RESERVATIONS, Reservation, parse_reservations
from .sbatch import IN_DOUBT, parse_job_id, parse_would_start
from .squeue import PENDING_FORMAT, SQUEUE_FORMAT, JobRow, parse_jobs, parse_pending, parse_squeue

T = TypeVar("T")

#: sbatch reads the script from a pipe. What fits in the pipe is delivered by one write, so a hub that dies can
#: never leave half a script behind, which sbatch would accept.
SCRIPT_LIMIT = 64 * 1024 - 1

# The hub's own variables must not steer squeue (SQUEUE_FORMAT, SLURM_CLUSTERS …), so a command gets only these.
_BASE_ENV = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "SLURM_TIME_FORMAT": "%s"}

_SUDO_KEEPS = ("LC_ALL", "SLURM_CONF", "SLURM_TIME_FORMAT")


class SlurmError(Exception):
    """A command of Slurm's failed. *stderr* is what it said, *returncode* its exit code."""

    def __init__(self, command: str, returncode: int, stderr: str) -> None:
        super().__init__(f"{command} exited with {returncode}: {stderr}")
        self.command, self.returncode, self.stderr = command, returncode, stderr


class SlurmUnsureError(SlurmError):
    """A command failed, and what it was asked to do may have happened all the same."""


class SlurmTimeoutError(SlurmUnsureError):
    """A command gave no answer in time."""

    def __init__(self, command: str, seconds: float) -> None:
        super().__init__(command, -1, f"{command} gave no answer in {seconds:g} seconds")


#: How a job may be signaled: SIGTERM for the batch script alone, which ends in order what it has started; SIGKILL
#: for everything. scancel's own SIGTERM goes to every process, also to the one that holds the image up.
ASK = ("--signal=TERM", "--batch")
KILL = ("--signal=KILL", "--full")


def parse_hides_jobs(output: str) -> bool:
    """Read from ``scontrol show config`` whether people are shown no jobs but their own: slurm.conf(5), PrivateData."""
    match = re.search(r"^PrivateData\s*= *(\S+)", output, re.MULTILINE)
    return match is not None and not {"jobs", "all"}.isdisjoint(match[1].lower().split(","))


def parse_version(output: str) -> str:
    """Read ``sacct -V`` (``slurm 22.05.8``); empty when it says something else."""
    match = re.match(r"slurm\S*\s+([0-9][0-9A-Za-z.-]{0,30})\s*$", output)
    return match[1] if match else ""


def parse_cluster_name(output: str) -> str:
    """Read the cluster's name from ``scontrol show config``. Raises `SlurmError` when there is none."""
    match = re.search(r"^ClusterName\s*= *(\S+)", output, re.MULTILINE)
    if not match:
        raise SlurmError("scontrol", 0, "scontrol show config names no cluster")
    return match[1]


def prefix_for(target: pwd.struct_passwd, keep: Iterable[str] = ()) -> list[str]:
    """Return the words that make a command run as *target*: setpriv for a root hub, sudo for another account.

    *keep* names the variables that sudo has to pass on. setuid by the event loop itself would cost 10 ms of it.
    """
    if os.geteuid() == target.pw_uid:
        return []
    if os.geteuid() == 0:
        ids = ["--reuid", str(target.pw_uid), "--regid", str(target.pw_gid)]
        return [_find("setpriv"), *ids, "--init-groups", "--"]
    # Slurm's own go along always; a name that is not set is passed over.
    names = ",".join(sorted({*keep, *_SUDO_KEEPS}))
    return [_find("sudo"), "-n", f"--preserve-env={names}", "-u", target.pw_name, "--"]


#: Gives the words of `prefix_for` for one person. Raises `SlurmError`.
Prefix = Callable[[], Awaitable[Sequence[str]]]


def sees_all_jobs() -> bool:
    """Tell whether Slurm shows this process every job whatever PrivateData says: that of root, at least."""
    return os.geteuid() == 0


def _checked(script: str) -> bytes:
    data = script.encode()
    if len(data) > SCRIPT_LIMIT:
        raise SlurmError("sbatch", -1, f"the job script has {len(data)} bytes, more than {SCRIPT_LIMIT}")
    return data


def _find(command: str) -> str:
    path = shutil.which(command)
    if not path:
        raise SlurmError(command, 127, f"{command} is not on the hub's PATH")
    return os.path.abspath(path)


async def within(work: Coroutine[Any, Any, T], seconds: float | None) -> T:
    """Return what *work* returns; raises `asyncio.TimeoutError` (and cancels it) after *seconds*, None: never.

    Before Python 3.12, asyncio.wait_for passes over a cancellation that comes together with the result. A start
    that somebody has cancelled would go on.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait([task], timeout=seconds)
    finally:
        task.cancel()
    if not done:
        raise asyncio.TimeoutError
    return task.result()


#: What a command is for. Each purpose has slots of its own, so that a slow one holds up nothing but its like: slurmdbd
#: may hang and forty people look at forms, and a job is still submitted, followed and cancelled.
Purpose = Literal["job", "queue", "ends", "accounts", "look", "estimate"]


@dataclass(eq=False)
class SlurmClient:
    """Slurm's commands for one cluster.

    *cluster* is for ``-M`` (empty: the local cluster); with *slurm_conf*, the cluster's own configuration file,
    ``-M`` is not used, so that nothing depends on slurmdbd.
    """

    cluster: str = ""
    slurm_conf: str = ""
    #: Seconds that a command gets. What only looks something up has waited for its slot in them.
    timeout: float = 30.0
    # sbatch and scancel at once; more would only take the cores from the hub's own answers.
    at_once: int = field(default_factory=lambda: min(max(4, 2 * (os.cpu_count() or 1)), 16))
    _slots: dict[Purpose, asyncio.Semaphore] = field(init=False, repr=False)
    _local_name: str = field(default="", init=False, repr=False)

    def __post_init__(self) -> None:
        """Make the semaphores: they belong to the loop that first waits for them."""
        at_once: dict[Purpose, int] = {
            **{"job": self.at_once, "queue": 4, "ends": 2},
            **{"accounts": 2, "look": 4, "estimate": 2},
        }
        self._slots = {purpose: asyncio.Semaphore(number) for purpose, number in at_once.items()}

    async def submit(self, script: str, prefix: Sequence[str], env: Mapping[str, str]) -> tuple[str, str]:
        """Give *script* to sbatch; return job id and cluster.

        The job inherits *env* and nothing else. The umask is 077 because slurmstepd opens the job's log with it
        before the script can do anything. Raises `SlurmError`, `SlurmUnsureError` (the job may exist all the same).
        """
        command, *args = self.submit_command()
        try:
            out, said = await self._answer(
                "job", [command, *args], {**self._conf(), **env}, prefix, _checked(script), umask=0o077
            )
        except SlurmError as error:
            if IN_DOUBT.search(error.stderr):
                raise SlurmUnsureError(command, error.returncode, error.stderr) from None
            raise
        try:
            return parse_job_id(out, said)
        except ValueError as error:
            raise SlurmUnsureError(command, 0, str(error)) from None

    def submit_command(self) -> list[str]:
        """Return the command that `submit` runs; its options stand in the script, which it reads."""
        return ["sbatch", "--parsable", *self._cluster()]

    async def would_start(self, script: str, prefix: Sequence[str], env: Mapping[str, str]) -> int | None:
        """Ask Slurm when *script* would start if it were submitted now: epoch seconds, None when it does not say.

        Nothing is submitted, though Slurm counts up its job ids. Raises `SlurmError` when it would be refused.
        """
        words = ["sbatch", "--test-only", *self._cluster()]
        _, said = await self._answer("estimate", words, {**self._env(), **env}, prefix, _checked(script), umask=0o077)
        return parse_would_start(said)

    async def cancel(self, job_id: str, prefix: Sequence[str], how: Sequence[str] = ()) -> None:
        """End a job, or with one of `ASK` and `KILL` only signal it. A job that is gone is a success."""
        try:
            await self._answer("job", ["scancel", *self._cluster(), *how, job_id], self._env(), prefix)
        except SlurmUnsureError:
            raise
        except SlurmError as error:
            if not re.search(r"Invalid job id|already completing or completed", error.stderr):
                raise

    async def queue(self, job_ids: Iterable[str], prefix: Sequence[str] = ()) -> dict[str, JobRow]:
        """Ask once for all of *job_ids*. Those that squeue does not know, or does not show, are missing in the answer.

        *prefix* makes it ask as somebody else, who may be shown what the hub is not.
        """
        ids = sorted(set(job_ids))
        if not ids:
            return {}
        # One unknown id alone is an error, of several the unknown are left out: so never just one.
        ids = ids * 2 if len(ids) == 1 else ids
        args = [*self._cluster(), "-h", "--states=all", "-j", ",".join(ids), "-o", SQUEUE_FORMAT]
        return parse_squeue(await self._run("queue", "squeue", *args, prefix=prefix))

    async def find(self, name: str, user: str, prefix: Sequence[str] = ()) -> str:
        """Return the id of *user*'s job called *name*, or an empty string. *prefix* as in `queue`."""
        args = [*self._cluster(), "-h", "--states=all", "--name", name, "-u", user, "-o", SQUEUE_FORMAT]
        rows = parse_squeue(await self._run("queue", "squeue", *args, prefix=prefix))
        return next(iter(rows), "")

    async def ends(self, job_ids: Iterable[str], prefix: Sequence[str] = ()) -> dict[str, JobEnd]:
        """Ask accounting how *job_ids* ended. Jobs that are not over, or not known, are missing in the answer.

        *prefix* as in `queue`.
        """
        ids = ",".join(sorted(set(job_ids)))
        if not ids:
            return {}
        args = [*self._cluster(), "-X", "-n", "-P", "-j", ids, "-o", SACCT_FORMAT]
        return parse_sacct(await self._run("ends", "sacct", *args, prefix=prefix))

    async def use(self, job_id: str, prefix: Sequence[str] = ()) -> JobUse | None:
        """Ask accounting what a job that is over has used; None: it does not know the job. *prefix* as in `queue`."""
        args = [*self._cluster(), "-n", "-P", "-j", job_id, "-o", USE_FORMAT]
        return parse_use(await self._run("ends", "sacct", *args, prefix=prefix))

    async def record(self, job_id: str, prefix: Sequence[str] = ()) -> list[dict[str, str]]:
        """Return what accounting has of a job and its steps, by sacct's names; times are epoch seconds.

        *prefix* as in `queue`.
        """
        args = [*self._cluster(), "-n", "-P", "-j", job_id, "-o", RECORD_FORMAT]
        return parse_record(await self._run("look", "sacct", *args, prefix=prefix))

    async def version(self) -> str:
        """Return what Slurm's commands say of their version (``22.05.8``); they ask nobody for it."""
        return parse_version(await self._run("look", "sacct", "-V"))

    async def jobs_in(self, partition: str, user: str, prefix: Sequence[str] = ()) -> list[str]:
        """Return the ids of *user*'s jobs in *partition* that are not over. *prefix* as in `queue`."""
        args = [*self._cluster(), "-h", "-u", user, "-p", partition, "-o", SQUEUE_FORMAT]
        return parse_jobs(await self._run("look", "squeue", *args, prefix=prefix))

    async def accounts(self, user: str, prefix: Sequence[str] = ()) -> list[str]:
        """Ask accounting which accounts *user* may charge jobs to; the first is Slurm's own choice for them.

        *prefix* as in `queue`.
        """
        # Without a cluster's name, sacctmgr would show those of all clusters that share the database.
        words = ["-n", "-P", "show", "user", user, "withassoc", f"cluster={await self.cluster_name()}"]
        words.append(f"format={ACCOUNTS_FORMAT}")
        return parse_accounts(await self._run("accounts", "sacctmgr", *words, prefix=prefix))

    async def cluster_name(self) -> str:
        """Return what Slurm calls this cluster; asked once where the Site does not say. Raises `SlurmError`."""
        if not self.cluster and not self._local_name:
            self._local_name = parse_cluster_name(await self._run("look", "scontrol", "show", "config"))
        return self.cluster or self._local_name

    async def hides_jobs(self) -> bool:
        """Tell whether Slurm hides other people's jobs from this process, as far as it says so."""
        words = ("scontrol", *self._cluster(), "show", "config")
        return not sees_all_jobs() and parse_hides_jobs(await self._run("look", *words))

    async def partitions(self) -> dict[str, PartitionFacts]:
        """Return what is free in each partition, by Slurm's names."""
        return summarize(await self.node_rows())

    async def node_rows(self) -> list[NodeRow]:
        """Return each node in each of its partitions."""
        return parse_nodes(await self._run("look", "sinfo", *self._cluster(), *SINFO_FORMAT))

    async def nodes(self) -> list[str]:
        """Return the names of the cluster's nodes."""
        printed = await self._run("look", "sinfo", *self._cluster(), "-h", "-a", "-N", "-O", "NodeList:|")
        return sorted({line.strip(" |") for line in printed.splitlines() if line.strip(" |")})

    async def waiting(self) -> dict[str, int]:
        """Return how many jobs wait for each partition's nodes."""
        return parse_pending(await self._run("look", "squeue", *self._cluster(), *PENDING_FORMAT))

    async def reservations(self) -> list[Reservation]:
        """Return all reservations, also those that are not active."""
        return parse_reservations(await self._run("look", "scontrol", *self._cluster(), *RESERVATIONS))

    async def config(self) -> ClusterConfig:
        """Return how the cluster is set up."""
        return parse_config(await self._run("look", "scontrol", *self._cluster(), "show", "config"))

    async def partition_configs(self) -> dict[str, PartitionConfig]:
        """Return how each partition is set up, by Slurm's names."""
        return parse_partitions(await self._run("look", "scontrol", *self._cluster(), *PARTITIONS))

    async def node_configs(self) -> list[NodeConfig]:
        """Return how each node is set up."""
        return parse_node_configs(await self._run("look", "scontrol", *self._cluster(), *NODES))

    async def qos_limits(self) -> dict[str, QosLimits]:
        """Ask accounting for the limits of each QOS, by name."""
        words = ("-n", "-P", "show", "qos", f"format={QOS_FORMAT}")
        return parse_qos(await self._run("accounts", "sacctmgr", *words))

    async def associations(self, user: str, prefix: Sequence[str] = ()) -> list[Association]:
        """Ask accounting what *user* may do as part of each project. *prefix* as in `queue`."""
        words = ["-n", "-P", "show", "assoc", f"user={user}", f"cluster={await self.cluster_name()}"]
        words.append(f"format={ASSOCIATIONS_FORMAT}")
        return parse_associations(await self._run("accounts", "sacctmgr", *words, prefix=prefix))

    async def clusters(self) -> list[str]:
        """Ask accounting for the clusters that share its database."""
        return (await self._run("accounts", "sacctmgr", "-n", "-P", "show", "cluster", "format=cluster")).split()

    def _cluster(self) -> list[str]:
        return ["-M", self.cluster] if self.cluster and not self.slurm_conf else []

    def _conf(self) -> dict[str, str]:
        conf = self.slurm_conf or os.environ.get("SLURM_CONF", "")
        return {"SLURM_CONF": conf} if conf else {}

    def _env(self) -> dict[str, str]:
        return {**_BASE_ENV, **self._conf()}

    async def _run(self, purpose: Purpose, *words: str, prefix: Sequence[str] = ()) -> str:
        return (await self._answer(purpose, words, self._env(), prefix))[0]

    @asynccontextmanager
    async def _slot(self, purpose: Purpose, command: str) -> AsyncIterator[float]:
        """Wait for a slot; yield the seconds that the command has. Raises `SlurmTimeoutError` if none is left of them.

        What begins or ends a job waits as long as it takes: each before it has a time limit of its own.
        """
        began = time.monotonic()
        slots = self._slots[purpose]
        got = asyncio.ensure_future(slots.acquire())
        try:
            await asyncio.wait([got], timeout=None if purpose == "job" else self.timeout)
            if not got.done():
                raise SlurmTimeoutError(command, self.timeout)
            yield self.timeout if purpose == "job" else max(0.1, self.timeout - (time.monotonic() - began))
        finally:
            # Also when somebody who was cancelled has just got it.
            if got.done() and not got.cancelled():
                slots.release()
            else:
                got.cancel()

    async def _answer(
        self,
        purpose: Purpose,
        words: Sequence[str],
        env: Mapping[str, str],
        prefix: Sequence[str] = (),
        data: bytes | None = None,
        umask: int = -1,
    ) -> tuple[str, str]:
        """Run a command; return what it wrote to standard output and to standard error."""
        command, *args = words
        async with self._slot(purpose, command) as seconds:
            try:
                start = asyncio.create_subprocess_exec(
                    *prefix,
                    _find(command),
                    *args,
                    env=dict(env),
                    cwd="/",
                    umask=umask,
                    start_new_session=True,  # so that what it started itself can be ended with it
                    stdin=asyncio.subprocess.PIPE if data is not None else asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                )
                process = await starting(start)
            except OSError as error:
                raise SlurmError(command, -1, f"{command} could not be started: {error.strerror}") from None
            try:
                out, err = await within(process.communicate(data), seconds)
            except (TimeoutError, asyncio.TimeoutError):
                raise SlurmTimeoutError(command, self.timeout) from None
            finally:
                # Reached with a live process only when it timed out or the caller was cancelled. What sudo
                # started belongs to another user: it cannot be killed, so it is not waited for either.
                if process.returncode is None:
                    with contextlib.suppress(ProcessLookupError, PermissionError, asyncio.TimeoutError, TimeoutError):
                        os.killpg(process.pid, signal.SIGKILL)
                        # Not for ever: wait() is over only when nobody has its pipes any more.
                        await asyncio.wait_for(process.wait(), 2)
        said = err.decode(errors="replace").strip()
        printed = out.decode(errors="replace")
        if not process.returncode:
            return printed, said
        # Errors of a wrapper's may be on standard output.
        said = "\n".join(filter(None, [printed.strip(), said]))
        if process.returncode < 0:
            raise SlurmUnsureError(command, process.returncode, said or f"{command} was ended by a signal")
        raise SlurmError(command, process.returncode, said)
