"""The life of one server's job: submitted once, followed, claimed, served, ended; never forgotten while alive.

JupyterHub is not known here, only what it asks for: `SnowySpawner` hands its questions on to a `Life`.
"""

from __future__ import annotations

import asyncio
import logging
import pwd
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from . import words
from .errors import SessionError
from .job import STATE_VERSION, Job, Phase, load_job
from .request import RequestError, SessionRequest
from .site import Site
from .slurm.client import ASK, ENDED, KILL, WAITING, JobEnd, SlurmError, SlurmTimeoutError, prefix_for
from .slurm.facts import Facts, shared_facts
from .slurm.queue import QueueWatcher, Watched, shared_watcher
from .words import Words

# Phase "submitting" without a job id: a hub died between sbatch's start and its answer. Its sbatch may outlive it.
_ADOPT_FOR = 120.0
# After sbatch has timed out: so long may the job take to appear.
_APPEAR_FOR = 30.0


class Life:
    """What the hub knows of one server's job, and what it does about it.

    *store* writes `state` to the hub's database at once, *log* is the spawner's, *label* names the server in it.
    """

    def __init__(
        self,
        site: Site,
        store: Callable[[], None],
        log: logging.Logger | logging.LoggerAdapter[logging.Logger],
        label: Callable[[], str],
    ) -> None:
        self.site, self.store, self.log, self.label = site, store, log, label
        self.job: Job | None = None
        self.last: dict[str, Any] | None = None  # how the previous job ended
        self.last_request: dict[str, str] = {}  # the options of the last accepted request
        self.account: pwd.struct_passwd | None = None  # whom jobs run as
        self.attached = False  # a start() of this hub follows the job
        self.claimed_here = False  # the job has its environment from this hub
        self.failure: SessionError | None = None
        self._watched: Watched | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}

    # -- state -------------------------------------------------------------------------------------------------

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up what an earlier hub stored."""
        self.job = load_job(state.get("job"))
        self.last = state.get("last")
        self.last_request = state.get("last_request") or {}

    def state(self) -> dict[str, Any]:
        """Return what survives the hub: the job, how the last one ended, the last accepted choice."""
        return {
            "version": STATE_VERSION,
            "job": self.job.model_dump() if self.job else None,
            "last": self.last,
            "last_request": self.last_request,
        }

    def forget_if_over(self) -> None:
        """Forget the job unless it may still be alive."""
        if self.job and not self.job.alive:
            self.job = None

    @property
    def resumable(self) -> bool:
        """Whether a start should attach to the stored job."""
        return self.job is not None and self.job.phase in ("submitting", "pending", "launching")

    @property
    def watcher(self) -> QueueWatcher:
        """The cluster's one queue watcher."""
        return shared_watcher(self.site.cluster, self.site.slurm_conf, self.log)

    @property
    def facts(self) -> Facts:
        """What accounting says of people."""
        return shared_facts(self.watcher.client, self.log)

    async def check_room(self, choice: SessionRequest, user: str) -> None:
        """Refuse what this person has too much of already. Raises `RequestError`; Slurm away: Slurm decides."""
        partition = self.site.partitions[choice.partition]
        if partition.max_jobs is None:
            return
        try:
            jobs = await self.watcher.client.jobs_in(self.site.slurm_partition(choice.partition), user)
        except SlurmError as error:
            self.log.warning("Cannot count the jobs of %s: %s", user, error)
            return
        if len(jobs) >= partition.max_jobs:
            others = [name for name, other in self.site.partitions.items() if other.max_jobs is None]
            remedy = f", or choose {' or '.join(others)}" if others else ""
            have = f"job {', '.join(jobs)} is" if len(jobs) == 1 else f"jobs {', '.join(jobs)} are"
            text = f"{have} there already, and {partition.max_jobs} at a time is allowed: stop it first{remedy}"
            raise RequestError({"partition": text})

    def enter(self, job: Job, phase: Phase, **changes: Any) -> None:
        """Change the job's phase and store that at once: a hub that dies in the next moment must not lose it."""
        for name, value in {**changes, "phase": phase}.items():
            setattr(job, name, value)
        self.store()

    # -- submission --------------------------------------------------------------------------------------------

    async def find_account(self, name: str) -> pwd.struct_passwd:
        """Look up whom the jobs of *name* run as. Raises `SessionError`."""
        try:
            # May ask LDAP, which may be slow.
            self.account = await asyncio.to_thread(pwd.getpwnam, name)
        except KeyError:
            message = Words(f"{name} has no account on this machine.", "Tell support.")
            raise SessionError(message, reason="unsupported") from None
        return self.account

    async def submit(self, job: Job, text: str, env: Mapping[str, str]) -> None:
        """Hand the script *text* to sbatch as this person; *env* is all that the job inherits.

        Raises `SessionError` with what Slurm said. A caller that is cancelled does not stop it.
        """
        self.job, self.last, self.attached = job, None, True
        self.store()
        # In a task of its own: whoever cancels this start must not cut sbatch off from its answer.
        await asyncio.shield(self.in_background("submit", self._sbatch(job, text, env)))
        if self.failure:
            raise self.failure

    async def _sbatch(self, job: Job, text: str, env: Mapping[str, str]) -> None:
        try:
            job_id, cluster = await self.watcher.client.submit(text, prefix_for(self._who(), env), env)
        except SlurmTimeoutError as error:
            # The job may have been accepted all the same; then it has its name.
            if not await self.found(job, time.time() + _APPEAR_FOR):
                self._refused(job, error)
        except SlurmError as error:
            self._refused(job, error)
        else:
            self.log.info("Job %s (%s) submitted for %s", job_id, job.name, self.label())
            # A quick job may have claimed its session before sbatch returned.
            self.enter(job, "pending" if job.phase == "submitting" else job.phase, job_id=job_id, cluster=cluster)

    def _refused(self, job: Job, error: SlurmError) -> None:
        self.failure = SessionError(words.refusal(error.stderr), reason="slurm", detail=error.stderr)
        self.attached = False
        self.enter(job, "ended")

    async def found(self, job: Job, until: float | None = None) -> bool:
        """Tell whether the stored job exists; one whose id was never stored is looked for by its name.

        *until* is in epoch seconds; by default, as long as an sbatch that outlived its hub may take.
        """
        until = job.submitted_at + _ADOPT_FOR if until is None else until
        while not job.job_id:
            job_id = ""
            try:
                job_id = await self.watcher.client.find(job.name, self._who().pw_name)
            except SlurmError as error:
                self.log.warning("Looking for job %s: %s", job.name, error)
            if job_id:
                self.log.info("Found job %s (%s)", job_id, job.name)
                self.enter(job, "pending" if job.phase == "submitting" else job.phase, job_id=job_id)
            elif time.time() > until:
                return False
            else:
                await asyncio.sleep(2)
        return True

    # -- waiting -----------------------------------------------------------------------------------------------

    def watch(self, job: Job) -> Watched:
        """Return the watch on *job*, begun now if need be."""
        if self._watched is None or self._watched.job_id != job.job_id:
            self._watched = self.watcher.watch(job.job_id, job.submitted_at)
        return self._watched

    async def until_serving(self, job: Job, queue_timeout: float, launch_timeout: float) -> None:
        """Follow the job until its server answers. Raises `SessionError` when it cannot, or takes too long.

        *queue_timeout* (seconds; 0: no limit) counts from when the job should begin, *launch_timeout* from when
        it has begun.
        """
        watched = self.watch(job)
        should_begin = max(job.submitted_at, job.request.get("begin") or 0)
        launched: float | None = None
        while job.phase != "serving":
            if self.failure:
                raise self.failure
            if watched.end:
                raise self._ended_early(job, watched.end)
            now = time.time()
            running = watched.row is not None and watched.row.state not in WAITING
            if launched is None and (job.phase == "launching" or running):
                launched = now
            if launched is not None:
                left = launched + launch_timeout - now
                if left <= 0:
                    slow = Words("The job started, but its server did not answer in time.", "Start again.")
                    if job.phase != "launching":
                        # It runs and has not claimed its session: it still looks for the hub.
                        slow = words.launch_failure(words.NO_HUB, **self._facts(job))
                    raise SessionError(slow, reason="launch_timeout", detail=f"{launch_timeout:g} seconds")
            else:
                left = should_begin + queue_timeout - now if queue_timeout else 3600.0
                if left <= 0:
                    slow = Words("The job waited too long in the queue.", "Ask for less, or try another partition.")
                    raise SessionError(slow, reason="queue_timeout", detail=f"{queue_timeout:g} seconds")
            await watched.changed(min(left, 3600.0))

    def _ended_early(self, job: Job, end: JobEnd) -> SessionError:
        if end.exit_code in words.LAUNCHER_CODES:
            said = words.launch_failure(end.exit_code, **self._facts(job))
        else:
            said = words.ending(end.state, _name(end.by), end.exit_code, end.signal)
        detail = f"job {job.job_id}, {end.state}, exit code {end.exit_code}:{end.signal}"
        return SessionError(said, reason="ended", detail=detail)

    def _facts(self, job: Job) -> dict[str, str]:
        image = self.site.images.get(job.request["image"])
        row = self._watched.row if self._watched else None
        return {
            "image": image.path if image else job.request["image"],
            "environment": job.request["environment"],
            # A job that never reached the hub has not said where it is; Slurm has.
            "node": job.node or (row.node if row and row.node else "?"),
        }

    def describe(self) -> tuple[int, str]:
        """Say what is happening: percent, sentence. Reads memory only."""
        job = self.job
        if job is None or job.phase == "submitting":
            return 5, "Handing the job to Slurm."
        if job.phase in ("stopping", "ended"):
            return 95, "Stopping."
        row = self._watched.row if self._watched else None
        if job.phase == "pending":
            if row is None:
                return 10, f"Job {job.job_id} is in the queue."
            if row.state in WAITING:
                return 20, f"Job {job.job_id} is in the queue. {words.reason(row.reason)}"
            return 50, f"Job {job.job_id} has started on node {row.node}."
        if job.phase == "launching":
            return 70, f"JupyterLab is starting on node {job.node}, environment {job.request['environment']}."
        return 90, f"JupyterLab answers on node {job.node}."

    # -- what the job says -------------------------------------------------------------------------------------

    def expects(self, *phases: Phase) -> Job | None:
        """Return the job if it is in one of *phases*: anything it says in another one comes too late."""
        return self.job if self.job and self.job.phase in phases else None

    def claimed(self, job: Job, job_id: str, node: str) -> None:
        """Note that the job has started and gets its environment now."""
        self.claimed_here = True
        self.enter(job, "launching", job_id=job_id, node=node)
        self.watch(job).wake()

    def serving(self, job: Job, port: int, node: str) -> None:
        """Note where the server answers."""
        self.enter(job, "serving", port=port, node=node)
        self.watch(job).wake()

    def gave_up(self, job: Job, code: int, detail: str, log: list[str]) -> None:
        """Note why the job cannot serve, or no longer does; its end follows."""
        if job.phase == "launching":
            said = words.launch_failure(code, **self._facts(job))
            self.failure = SessionError(said, reason="launch", detail=detail, log=log)
        self.last = {"job_id": job.job_id, "exit_code": code, "detail": detail, "log": log}
        self.store()
        self.watch(job).wake()
        self.watcher.kick()

    # -- the end -----------------------------------------------------------------------------------------------

    async def guard(self, job: Job, ended: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Wait for the end of a serving job, record it and call *ended*."""
        watched = self.watch(job)
        while watched.end is None and job.phase == "serving":
            await watched.changed()
        if job.phase == "serving":
            self.record_end(job)
            await ended()

    def record_end(self, job: Job) -> None:
        """The job is over, or Slurm has promised it: keep why, and stop watching."""
        end = self._watched.end if self._watched else None
        if end:
            before = self.last if self.last and self.last.get("job_id") == job.job_id else {}
            # What the job itself said goes first: sacct shows exit code 137 as 9.
            self.last = {**end._asdict(), **before, "job_id": job.job_id}
        self.log.info("Job %s of %s is over: %s", job.job_id, self.label(), end.state if end else "cancelled")
        self.watcher.unwatch(job.job_id)
        self._watched, self.attached = None, False
        self.enter(job, "ended")

    async def stop(self, grace: float) -> Job | None:
        """End the job; return it, or None when there was none.

        Returns only once Slurm has accepted that, or the job is known to be over. A submission under way is
        waited for. *grace* is in seconds, between SIGTERM and SIGKILL.
        """
        submitting = self._tasks.get("submit")
        if submitting and not submitting.done():
            await asyncio.shield(submitting)
        job = self.job
        if job is None or not job.alive:
            return None
        self.enter(job, "stopping")
        if await self.found(job):
            await self._cancel(job, grace)
        self.record_end(job)
        return job

    async def _cancel(self, job: Job, grace: float) -> None:
        """Ask the server to end, after *grace* seconds end the job, then kill what is left; wait for the end.

        Slurm away: try until it is back.
        """
        prefix, watched = prefix_for(self._who()), self.watch(job)
        stages: list[tuple[Sequence[str], float]] = [((), 5.0), (KILL, 5.0)]
        if watched.row and watched.row.state == "RUNNING":
            stages.insert(0, (ASK, grace))
        for how, patience in stages:
            pause = 1.0
            while not watched.end:
                try:
                    await self.watcher.client.cancel(job.job_id, prefix, how)
                    break
                except SlurmError as error:
                    self.log.warning("Cannot cancel job %s yet: %s", job.job_id, error)
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, 30.0)
            deadline = time.monotonic() + patience
            while not watched.end and time.monotonic() < deadline:
                # Nothing of it runs any more; Slurm only tidies up.
                if watched.row and (watched.row.state == "COMPLETING" or watched.row.state in ENDED):
                    return
                self.watcher.kick()
                await watched.changed(0.3)
            if watched.end:
                return
        self.log.warning("Job %s is slow to end; Slurm has accepted its cancellation", job.job_id)

    # -- helpers -----------------------------------------------------------------------------------------------

    def _who(self) -> pwd.struct_passwd:
        if self.account is None:
            raise RuntimeError("find_account was not called")
        return self.account

    def in_background(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run *work* unless the task of that name is still running; keep it, and log what it raises."""
        task = self._tasks.get(name)
        if task and not task.done():
            work.close()
            return task

        def done(finished: asyncio.Task[None]) -> None:
            if not finished.cancelled() and (error := finished.exception()):
                self.log.error("%s of %s failed", name, self.label(), exc_info=error)

        task = self._tasks[name] = asyncio.create_task(work, name=f"snowyspawner {name} {self.label()}")
        task.add_done_callback(done)
        return task


def _name(by: str) -> str:
    """Return who it was by name: accounting has it from the cluster's slurmctld as a number."""
    try:
        return pwd.getpwuid(int(by)).pw_name if by.isdigit() else by
    except (KeyError, OverflowError):
        return by
