"""The life of one server's job: submitted once, followed, claimed, served, ended; never forgotten while alive.

JupyterHub is not known here, only what it asks for: `SnowySpawner` hands its questions on to a `Life`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pwd
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

from ..choice.request import load as load_request
from ..metrics import CORES_BUSY, ENDS, GPU_BUSY, GPU_HOURS_BACK, LAUNCH_SECONDS, QUEUE_SECONDS, STARTS
from ..site import Site
from ..slurm.accounting import JobEnd
from ..slurm.client import SlurmError, SlurmUnsureError, prefix_for, sees_all_jobs
from ..slurm.facts import Facts, shared_facts
from ..slurm.queue import SETTLING, QueueWatcher, Watched, shared_watcher
from ..slurm.squeue import stage_of
from ..slurm.times import say_duration
from ..stored import texts
from . import idle, messages, status
from .as_person import ReadError, shared_reader
from .errors import Reason, SessionError
from .messages import Words
from .record import STATE_VERSION, Ended, Job, Phase, load_ended, load_job
from .stopping import cancel
from .tasks import Tasks
from .usage import SHORTEST, Usage, shares_of, usage_of

# Phase "submitting" without a job id: a hub died between sbatch's start and its answer. Its sbatch may outlive it.
_ADOPT_FOR = 120.0
# After sbatch has timed out: so long may the job take to appear.
_APPEAR_FOR = 30.0
# A server that a signal ended: so long may Slurm take to say why.
_TELLS_IN = 5.0
# A job that squeue no longer shows, that sacct has no end of and whose server is silent is given up then.
_UNKNOWN_FOR = 600.0
# Somebody without an account is looked up again after so many seconds; a form is opened more often.
_NO_ACCOUNT_FOR = 60.0
# When accounting is asked what a job has used that has not said so itself, in seconds after its end and each other: it
# takes its time, and a site's own records come after the job's end.
_ACCOUNTED_AFTER = (5.0, 30.0, 120.0)
# What accounting has of a job that is over, for people who help, is good enough for so many seconds.
_RECORD_FOR = 60.0
# So long must the server be silent, whenever it is asked.
_SILENT_FOR = 60.0


class Life:
    """What the hub knows of one server's job, and what it does about it.

    *store* writes `state` to the hub's database at once, *log* is the spawner's, *label* names the server in it,
    *who* is the person. *timeout* is what Slurm's commands get, in seconds.
    """

    def __init__(
        self,
        site: Site,
        store: Callable[[], None],
        log: logging.Logger | logging.LoggerAdapter[logging.Logger],
        label: Callable[[], str],
        who: Callable[[], str],
        timeout: float = 30.0,
    ) -> None:
        self.site, self.store, self.log, self.label, self.who, self.timeout = site, store, log, label, who, timeout
        self.job: Job | None = None
        self.last: Ended | None = None  # how the previous job ended
        self.last_request: dict[str, str] = {}  # the options of the last accepted request
        self.attached = False  # a start() of this hub follows the job
        self.claimed_here = False  # the job has its environment from this hub
        self.failure: SessionError | None = None
        self.known_account: pwd.struct_passwd | None = None  # whom the jobs run as, once it was looked up
        self._slurm_name = ""
        self._looked_up = float("-inf")  # time.monotonic()
        self._watched: Watched | None = None
        self._early: JobEnd | None = None  # how the job ended before it served
        self._record: tuple[str, float, list[dict[str, str]]] = ("", 0.0, [])  # job id, time.monotonic(), rows
        self.tasks = Tasks(log, label)

    # -- state -------------------------------------------------------------------------------------------------

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up what an earlier hub stored, of whatever version."""
        self.job = load_job(state.get("job"))
        if state.get("job") and self.job is None:
            self.log.error("The stored job of %s cannot be read: %.500r", self.label(), state["job"])
        self.last = load_ended(state.get("last"))
        # Whatever else is stored, what was asked for is of the kinds that everybody here counts on.
        for held in (self.job, self.last):
            if held and held.request:
                held.request = load_request(held.request).model_dump()
        self.last_request = texts(state.get("last_request"))

    def state(self) -> dict[str, Any]:
        """Return what survives the hub: the job, how the last one ended, the last accepted choice."""
        return {
            "version": STATE_VERSION,
            "job": self.job.model_dump() if self.job else None,
            "last": self.last.model_dump() if self.last else None,
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
        return shared_watcher(self.site.cluster, self.site.slurm_conf, self.log, self.timeout)

    @property
    def facts(self) -> Facts:
        """What accounting says of people."""
        return shared_facts(self.watcher.client, self.log)

    @property
    def status(self) -> status.Status:
        """What is happening, as data. Reads memory only."""
        return status.status_of(self.job, self._watched, self.watcher, self.site)

    def enter(self, job: Job, phase: Phase, **changes: Any) -> None:
        """Change the job's phase and store that at once: a hub that dies in the next moment must not lose it."""
        for name, value in {**changes, "phase": phase}.items():
            setattr(job, name, value)
        self.store()

    # -- submission --------------------------------------------------------------------------------------------

    async def account(self) -> pwd.struct_passwd:
        """Look up whom the jobs run as. Raises `SessionError`."""
        try:
            # May ask LDAP, which may be slow.
            account, self._slurm_name = await asyncio.to_thread(_look_up, self.who())
        except KeyError:
            message = Words(f"{self.who()} has no account on this machine.", "Tell support.")
            raise SessionError(message, reason="unsupported") from None
        self.known_account = account
        return account

    @property
    def known_slurm_name(self) -> str:
        """What Slurm calls the person; until the account was looked up, the hub's name for them."""
        return self._slurm_name or self.who()

    @property
    def knows_name(self) -> bool:
        """Whether `known_slurm_name` is all that there is to know for now: the account was found, or lately was not."""
        return bool(self._slurm_name) or time.monotonic() - self._looked_up < _NO_ACCOUNT_FOR

    async def slurm_name(self) -> str:
        """Return what Slurm calls the person: the system's name for the account, which the hub's may only lead to.

        Without an account on this machine it is the hub's name.
        """
        if not self.knows_name:
            with contextlib.suppress(SessionError):
                await self.account()
            self._looked_up = time.monotonic()
        return self.known_slurm_name

    async def prefix(self) -> list[str]:
        """Return the words that make a command run as the person. Raises `SlurmError`: may be tried again."""
        try:
            return prefix_for(await self.account())
        except SessionError as error:
            if os.geteuid() == 0:
                return []  # the account is gone, the job is not: root may cancel any
            raise SlurmError("scancel", -1, str(error)) from None

    async def submit(self, job: Job, text: str, prefix: Sequence[str], env: Mapping[str, str]) -> None:
        """Hand the script *text* to sbatch; *prefix* makes it run as the person, *env* is all that the job inherits.

        Raises `SessionError` with what Slurm said. A caller that is cancelled does not stop it.
        """
        self.job, self.last, self.attached = job, None, True
        self.store()
        # In a task of its own: whoever cancels this start must not cut sbatch off from its answer.
        await asyncio.shield(self.tasks.begin("submit", self._sbatch(job, text, prefix, env)))
        if self.failure:
            raise self.failure

    async def _sbatch(self, job: Job, text: str, prefix: Sequence[str], env: Mapping[str, str]) -> None:
        try:
            job_id, cluster = await self.watcher.client.submit(text, prefix, env)
        except SlurmUnsureError as error:
            # The job may have been accepted all the same; then it has its name.
            if not await self.found(job, time.time() + _APPEAR_FOR):
                self._refused(job, error)
        except SlurmError as error:
            self._refused(job, error)
        else:
            self.log.info("Job %s (%s) submitted for %s", job_id, job.name, self.label())
            self.enter(job, "pending" if job.phase == "submitting" else job.phase, job_id=job_id, cluster=cluster)

    def _refused(self, job: Job, error: SlurmError) -> None:
        said = messages.refusal(error.stderr, messages.fields_sent(job.request))
        self.failure = SessionError(said, reason="slurm", detail=error.stderr)
        self.last = Ended(reason="slurm", detail=error.stderr, ended_at=time.time(), request=job.request)
        self.last.name, self.last.submitted_at = job.name, job.submitted_at
        self.attached = False
        self.enter(job, "ended")

    async def found(self, job: Job, until: float | None = None) -> bool:
        """Tell whether the stored job exists; one whose id was never stored is looked for by its name.

        It does not only once Slurm has answered, after *until* (epoch seconds; by default, as long as an sbatch
        that outlived its hub may take), and did not know it.
        """
        until = job.submitted_at + _ADOPT_FOR if until is None else until
        while not job.job_id:
            late, job_id = time.time() > until, ""
            try:
                job_id = await self._find(job)
            except SlurmError as error:
                self.log.warning("Looking for job %s: %s", job.name, error)
                late = False  # no answer is no answer
            if job_id:
                self.log.info("Found job %s (%s)", job_id, job.name)
                self.enter(job, "pending" if job.phase == "submitting" else job.phase, job_id=job_id)
            elif late:
                return False
            else:
                await asyncio.sleep(2)
        return True

    async def _find(self, job: Job) -> str:
        """Return the number of the job of this name, or an empty string. Raises `SlurmError`."""
        client, name = self.watcher.client, await self.slurm_name()
        if job_id := await client.find(job.name, name):
            return job_id
        # Slurm may hide it from the hub.
        prefix = [] if sees_all_jobs() else await self.prefix()
        if not prefix:
            return ""
        with contextlib.suppress(SlurmError):
            return await client.find(job.name, name, prefix)
        return ""

    # -- waiting -----------------------------------------------------------------------------------------------

    def watch(self, job: Job) -> Watched:
        """Return the watch on *job*, begun now if need be."""
        if self._watched is None or self._watched.job_id != job.job_id:
            self._watched = self.watcher.watch(job.job_id, job.submitted_at, self.prefix)
        return self._watched

    async def looked_at(self, job: Job, patience: float = 5.0) -> None:
        """Wait until Slurm was asked about the job once, *patience* seconds at most."""
        watched = self.watch(job)
        if watched.row is None and watched.end is None:
            await watched.changed(patience)
            await asyncio.sleep(0)  # whoever was woken as well goes first, and notes an end

    async def until_serving(self, job: Job, queue_timeout: float, launch_timeout: float) -> None:
        """Follow the job until its server answers. Raises `SessionError` when it cannot, or takes too long.

        *queue_timeout* (seconds; 0: no limit) counts from when the job should begin, *launch_timeout* from when
        it has begun.
        """
        watched = self.watch(job)
        should_begin = max(job.submitted_at, job.request.get("begin") or 0)
        launched: float | None = None
        now = time.time()
        while job.phase != "serving":
            before, now = now, time.time()
            if launched is not None and self.watcher.failing_since is not None:
                # Where the job runs is Slurm's word: nothing can come of a launch while Slurm is away.
                launched += now - before
            asked = self._slurm_may_tell(now)
            if self.failure and not asked:
                raise self.failure
            if end := watched.end or self._lost(watched, now):
                if end.state == "FAILED" and self.failure:
                    raise self.failure
                raise self._ended_early(job, end, await self._log_lines(job))
            if launched is None and (job.phase == "launching" or watched.has_run):
                launched = now
                job.begun_at = job.begun_at or (watched.row.start if watched.row and watched.has_run else None) or now
            if launched is not None:
                left = launched + launch_timeout - now
                if left <= 0:
                    # One that runs and has not claimed its session still looks for the hub.
                    reason: Reason = "launch_timeout" if job.phase == "launching" else "no_hub"
                    raise SessionError.given_up(reason, f"{launch_timeout:g} seconds", self._facts(job).node)
            else:
                left = should_begin + queue_timeout - now if queue_timeout else 3600.0
                if left <= 0:
                    raise SessionError.given_up("queue_timeout", f"{queue_timeout:g} seconds")
            await watched.changed(min(left, 0.5 if asked else 60.0))

    def _slurm_may_tell(self, now: float) -> bool:
        """Whether a signal ended the server, which the job has just said: whose it was, Slurm will say."""
        last = self.last
        return bool(last and last.reported and last.exit_code > 128 and now - last.ended_at < _TELLS_IN)

    @staticmethod
    def _lost(watched: Watched, now: float) -> JobEnd | None:
        """Return the end of a job that Slurm has not seen end, but that can serve nobody any more."""
        if watched.requeued:
            return JobEnd("REQUEUED", 0, 0)
        # One that was never seen may be hidden from the hub: that it is not shown says nothing.
        if watched.row is None:
            return None
        return JobEnd("UNKNOWN", 0, 0) if watched.unknown_for(now) > _UNKNOWN_FOR else None

    def _ended_early(self, job: Job, end: JobEnd, log: list[str]) -> SessionError:
        self._early = end  # stop() comes next, and its own scancel must not be taken for the cause
        if end.exit_code in messages.LAUNCHER_CODES:
            said = messages.launch_failure(end.exit_code, self._facts(job))
        elif job.phase == "pending" and end.state in ("COMPLETED", "FAILED") and not end.signal:
            said = messages.before_launcher(end.exit_code, self._facts(job).node)
        else:
            said = messages.ending(end.state, _name(end.by), end.exit_code, end.signal)
        detail = f"job {job.job_id}, {end.state}, exit code {end.exit_code}:{end.signal}"
        return SessionError(said, reason="ended", detail=detail, log=log)

    async def _log_lines(self, job: Job) -> list[str]:
        """Return the last lines of the log of a job that is over; keep them in `last`, unless it said its own.

        Never raises, and takes no longer than a `Reader` may.
        """
        last = self._last_of(job)
        if last.reported or last.log:
            return last.log
        try:
            found = await shared_reader(self.site).log(job.job_id, await self.account()) or []
        except (ReadError, SessionError) as error:
            self.log.warning("Cannot read the log of job %s: %s", job.job_id, error)
            return []
        lines = [line[:500] for line in found[-20:]]
        # It may have said something meanwhile, or a new job may be there.
        if self.job is job and not self._last_of(job).reported:
            self.last = self._last_of(job).model_copy(update={"log": lines})
        return lines

    def _last_of(self, job: Job) -> Ended:
        """Return what is known so far of how *job* ended."""
        return self.last if self.last and self.last.job_id == job.job_id else Ended(job_id=job.job_id)

    def _facts(self, job: Job) -> messages.JobFacts:
        row = self._watched.row if self._watched else None
        # A job that never reached the hub has not said where it is; Slurm has.
        return messages.facts_of(job.request, self.site, job.node or (row.node if row else ""))

    def started(self, error: BaseException | None) -> None:
        """Note how a start ended: *error*, None if it serves. One line in the log, whatever happened."""
        job = self.job
        outcome, cause = "serving", ""
        if isinstance(error, SessionError):
            # For whoever looks afterwards; stop() comes next, and must not be taken for the person's.
            self.failure, outcome, cause = error, "failed", error.reason
        elif error is not None:
            outcome, cause = ("cancelled", "") if isinstance(error, asyncio.CancelledError) else ("failed", "other")
        STARTS.labels(outcome, cause).inc()
        queue, launch = (job.queue_seconds, job.launch_seconds) if job else (0.0, 0.0)
        if job and outcome == "serving":
            QUEUE_SECONDS.observe(queue)
            LAUNCH_SECONDS.observe(launch)
        line = "Start of %s: outcome=%s%s job=%s queue=%.1fs launch=%.1fs"
        job_id = job.job_id if job else ""
        self.log.info(line, self.label(), outcome, f" cause={cause}" if cause else "", job_id or "-", queue, launch)

    # -- what the job says -------------------------------------------------------------------------------------

    def expects(self, *phases: Phase) -> Job | None:
        """Return the job if it is in one of *phases*: anything it says in another one comes too late."""
        return self.job if self.job and self.job.phase in phases else None

    def claimed(self, job: Job, node: str) -> None:
        """Note that the job has started and gets its environment now."""
        self.claimed_here = True
        self.enter(job, "launching", node=node, begun_at=job.begun_at or time.time())
        watched = self.watch(job)
        watched.ran_at = time.time()
        watched.wake()
        # Where it runs is asked for while its server starts.
        self.watcher.kick()

    async def node_of(self, job: Job, said: str) -> str:
        """Return the node on which Slurm says that the job runs; empty while it has not said so: then it is asked.

        *said* is what the job says. It is believed only of a job that Slurm hides from the hub, if it is a node of the
        cluster's.
        """
        watched = self.watch(job)
        row = watched.row
        if row and row.node and stage_of(row.state) in ("starting", "running", "suspended", "unknown"):
            return row.node
        self.watcher.kick()
        if row is not None or sees_all_jobs() or watched.unknown_for(time.time()) < SETTLING:
            return ""
        try:
            return next((node for node in await self.watcher.client.nodes() if same_node(node, said)), "")
        except SlurmError as error:
            self.log.warning("Cannot ask for the cluster's nodes: %s", error)
            return ""

    def serving(self, job: Job, port: int, node: str) -> None:
        """Note where the server answers."""
        self.enter(job, "serving", port=port, node=node, served_at=time.time())
        self.watch(job).wake()

    def gave_up(self, job: Job, code: int, detail: str, log: list[str]) -> None:
        """Note why the job cannot serve, or no longer does; its end follows."""
        if job.phase == "launching":
            said = messages.launch_failure(code, self._facts(job))
            self.failure = SessionError(said, reason="launch", detail=detail, log=log)
        now = time.time()
        self.last = Ended(job_id=job.job_id, exit_code=code, detail=detail, log=log, reported=True, ended_at=now)
        self.store()
        self.watch(job).leaves()
        self.watcher.kick()

    def used(self, job: Job, usage: Usage) -> None:
        """Note what the job has used so far: what is known if it ends without a word."""
        job.usage = usage
        idle.note(job, usage, self.site, time.time())
        self.store()

    @property
    def idle(self) -> idle.Idle | None:
        """When the session ends if nobody uses it until then; None: that is not known, or never."""
        return idle.idle_of(self.job, self.site) if self.job else None

    def keep(self, job: Job) -> None:
        """Let a session that nobody uses go on for as long again."""
        job.kept_at, job.warned_at = time.time(), 0.0
        self.store()

    # -- the end -----------------------------------------------------------------------------------------------

    async def guard(
        self,
        job: Job,
        answers: Callable[[], Awaitable[bool]],
        ended: Callable[[], Coroutine[Any, Any, Any]],
    ) -> None:
        """Wait for the end of a serving job, record it and call *ended*; *answers* asks the server itself."""
        watched = self.watch(job)
        silent_since: float | None = None
        while watched.end is None and job.phase == "serving":
            now = time.time()
            lost = self._lost(watched, now)
            if lost is None and watched.unknown_for(now) > _UNKNOWN_FOR:
                lost = JobEnd("UNKNOWN", 0, 0)  # of a hub before this one; its server can be asked
            # Slurm may have lost sight of a server that is well, and a network may be away for a while.
            silent = lost is not None and lost.state == "UNKNOWN" and not await answers()
            silent_since = (silent_since or now) if silent else None
            if lost and (lost.state == "REQUEUED" or (silent_since and now - silent_since >= _SILENT_FOR)):
                self.enter(job, "stopping")
                await cancel(self.watcher, watched, self.prefix, 0.0, self.log)
                self.record_end(job, lost)
                await ended()
                return
            await watched.changed(60.0 if silent_since is None else _SILENT_FOR / 4)
        if job.phase == "serving":
            await self._log_lines(job)
        if job.phase == "serving":  # not stopped meanwhile
            self.record_end(job)
            await ended()

    async def end_unused(
        self, job: Job, limit: int, grace: float, ended: Callable[[], Coroutine[Any, Any, Any]]
    ) -> None:
        """End a session that nobody has used for *limit* seconds, in order; record it and call *ended*.

        *grace* is in seconds, between SIGTERM and SIGKILL.
        """
        self.log.info("Nobody has used %s for %s: ending it", self.label(), say_duration(limit))
        self.enter(job, "stopping", unused_for=limit)
        await cancel(self.watcher, self.watch(job), self.prefix, grace, self.log)
        if job.alive:
            self.record_end(job)
        await ended()

    def record_end(self, job: Job, end: JobEnd | None = None, stopped: bool = False) -> None:
        """The job is over, or Slurm has promised it: keep why, and stop watching. *stopped*: by the person."""
        watched = self._watched
        end, self._early = end or self._early or (watched.end if watched else None), None
        last = self._last_of(job)
        if end:
            last.state, last.signal, last.by = end.state, end.signal, _name(end.by)
            if not last.reported:
                # What the job itself said goes first: sacct shows exit code 137 as 9.
                last.exit_code = end.exit_code
        if self.failure and not last.reason:
            last.reason, last.detail = self.failure.reason, last.detail or self.failure.detail
            last.log = last.log or self.failure.log
        if job.unused_for and not self.failure:
            last.reason, last.detail = "idle", f"unused for {say_duration(job.unused_for)}"
            partition = load_request(job.request).partition
            GPU_HOURS_BACK.labels(partition if partition in self.site.partitions else "other").inc(
                idle.given_back(job, time.time())
            )
        last.stopped = stopped and not self.failure and not job.unused_for
        last.ended_at, last.begun_at, last.node, last.request = time.time(), job.begun_at, job.node, job.request
        last.name, last.cluster = job.name, job.cluster
        last.submitted_at, last.served_at = job.submitted_at, job.served_at
        last.usage = job.usage
        self.last = last
        shown = "STOPPED" if last.stopped else "IDLE" if last.reason == "idle" else last.state or "CANCELLED"
        ENDS.labels(shown).inc()
        self._count_use(job)
        served = last.ended_at - job.served_at if job.served_at else 0.0
        line = "End of %s: state=%s exit_code=%d job=%s queue=%.1fs launch=%.1fs served=%.1fs"
        spent = (job.queue_seconds, job.launch_seconds, served)
        self.log.info(line, self.label(), shown, last.exit_code, job.job_id or "-", *spent)
        self.watcher.unwatch(job.job_id)
        self._watched, self.attached = None, False
        self.enter(job, "ended")
        if watched:
            watched.wake()  # whoever still follows it
        if job.usage is None and job.served_at and last.ended_at - job.served_at >= SHORTEST:
            self.tasks.begin("use", self._look_up_use(job))

    async def _look_up_use(self, job: Job) -> None:
        """Ask accounting what a job has used, and keep it with how the job ended, if that is still the last."""
        use = None
        for pause in _ACCOUNTED_AFTER:
            await asyncio.sleep(pause)
            try:
                prefix = [] if sees_all_jobs() else await self.prefix()
                use = await self.watcher.client.use(job.job_id, prefix)
            except SlurmError as error:
                self.log.warning("Cannot ask what job %s has used: %s", job.job_id, error)
            if use and use.seconds and use.cpu_seconds:
                break
        last = self.last
        if use and last and last.job_id == job.job_id and last.usage is None:
            self.last = last.model_copy(update={"usage": usage_of(use)})
            self.store()

    async def record(self, job_id: str) -> list[dict[str, str]]:
        """Return what accounting has of a job and its steps, asked at most once a minute. Raises `SlurmError`."""
        whose, asked, rows = self._record
        if whose != job_id or time.monotonic() - asked > _RECORD_FOR:
            prefix = [] if sees_all_jobs() else await self.prefix()
            rows = await self.watcher.client.record(job_id, prefix)
            self._record = job_id, time.monotonic(), rows
        return rows

    def _count_use(self, job: Job) -> None:
        if shares := shares_of(job.usage, job.request, self.site):
            for histogram, share in ((CORES_BUSY, shares.cores), (GPU_BUSY, shares.gpu)):
                if share is not None:
                    histogram.labels(shares.environment, shares.partition).observe(share)

    async def stop(self, grace: float) -> Job | None:
        """End the job; return it, or None when there was none.

        Returns only once Slurm has accepted that, or the job is known to be over. A submission under way is
        waited for. *grace* is in seconds, between SIGTERM and SIGKILL.
        """
        submitting = self.tasks.get("submit")
        if submitting:
            await asyncio.shield(submitting)
        job = self.job
        if job is None or not job.alive:
            return None
        self.enter(job, "stopping")
        if await self.found(job):
            await cancel(self.watcher, self.watch(job), self.prefix, grace, self.log)
        if job.alive:
            self.record_end(job, stopped=True)
        return job


def same_node(one: str, other: str) -> bool:
    """Tell whether two names are one node's: a node may say its name with its domain, or without."""
    one, other = one.lower(), other.lower()
    return one == other or (one.partition(".")[0] == other.partition(".")[0] and ("." in one) != ("." in other))


def _look_up(name: str) -> tuple[pwd.struct_passwd, str]:
    """Return the account of *name*, and what the system calls it. Raises KeyError.

    A directory may find one account by several names (``ann@uni.example``); Slurm knows the one that its number has.
    """
    account = pwd.getpwnam(name)
    try:
        return account, pwd.getpwuid(account.pw_uid).pw_name
    except KeyError:
        return account, account.pw_name


def _name(by: str) -> str:
    """Return who it was by name: accounting has it from the cluster's slurmctld as a number."""
    try:
        return pwd.getpwuid(int(by)).pw_name if by.isdigit() else by
    except (KeyError, OverflowError):
        return by
