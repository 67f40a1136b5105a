"""A job's life, as the hub stores it: ``submitting → pending → launching → serving → ended``, and ``stopping``."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict

from ..stored import read
from .usage import Usage

#: Changes when a stored job has to be read in another way: with it come a migration and a recorded state for the tests.
STATE_VERSION = 1

Phase = Literal["submitting", "pending", "launching", "serving", "stopping", "ended"]


class Job(BaseModel):
    """One job. No secret is in it: of the one-time secret the hash is kept, of the API token the row's id."""

    model_config = ConfigDict(validate_assignment=True)

    version: int = STATE_VERSION
    phase: Phase = "submitting"
    name: str
    secret_hash: str
    submitted_at: float  # epoch seconds
    request: dict[str, Any]  # SessionRequest.model_dump()
    options: dict[str, Any] = {}  # what it was made of, as it came in
    job_id: str = ""
    cluster: str = ""
    node: str = ""
    port: int = 0
    token_id: int | None = None
    begun_at: float = 0.0  # epoch seconds: when it left the queue; 0: not yet
    served_at: float = 0.0  # epoch seconds: when its server answered
    usage: Usage | None = None  # what it has used, as it has said last
    unused_since: float = 0.0  # epoch seconds: since when nobody has used it, as far as is known; 0: it is not known
    warned_at: float = 0.0  # epoch seconds: since when it is said that it will be ended for that; 0: it is not
    kept_at: float = 0.0  # epoch seconds: when the person said last that it is to go on all the same
    unused_for: int = 0  # seconds: it is ended because nobody used it for so long; 0: it is not

    @property
    def queue_seconds(self) -> float:
        """Return how long it waited for its turn: from its submission, or the time it was to begin."""
        due = max(self.submitted_at, self.request.get("begin") or 0)
        return max(0.0, (self.begun_at or time.time()) - due)

    @property
    def launch_seconds(self) -> float:
        """Return how long its server took to answer; so far, if it has not."""
        return max(0.0, (self.served_at or time.time()) - self.begun_at) if self.begun_at else 0.0

    @property
    def alive(self) -> bool:
        """Whether Slurm may still have it."""
        return self.phase != "ended"

    def knows(self, secret: str) -> bool:
        """Tell whether *secret* is this job's, in a time that does not depend on it."""
        return hmac.compare_digest(_hash(secret), self.secret_hash)


class Ended(BaseModel):
    """How a session ended, as data: the sentences are `messages`' business. Kept until the next start."""

    job_id: str = ""
    state: str = ""  # Slurm's (TIMEOUT), or REQUEUED, or UNKNOWN: Slurm lost sight of it
    exit_code: int = 0  # the launcher's own if it could still say it, else the batch script's
    signal: int = 0
    by: str = ""  # for CANCELLED: the user name of who did it
    stopped: bool = False  # by the person, here
    reason: str = ""  # an `errors.Reason` if it never served; idle: nobody used it
    detail: str = ""
    log: list[str] = []  # the last lines
    reported: bool = False  # the job itself said exit_code, detail and log
    node: str = ""
    name: str = ""  # the job's
    cluster: str = ""
    submitted_at: float = 0.0  # epoch seconds; 0: a version before this one has not kept it
    begun_at: float = 0.0  # epoch seconds; 0: it never left the queue
    served_at: float = 0.0  # epoch seconds; 0: its server has never answered
    ended_at: float = 0.0  # epoch seconds
    request: dict[str, Any] = {}  # SessionRequest.model_dump()
    usage: Usage | None = None  # what it had used, as it had said last


def load_ended(stored: Any) -> Ended | None:
    """Read a stored `Ended`, of this version or another; None when there is none."""
    return read(Ended, stored) if stored else None


def new_job(server_name: str, request: dict[str, Any], options: Mapping[str, Any] | None = None) -> tuple[Job, str]:
    """Make a `Job` with a name of its own; return it and its one-time secret, which is stored nowhere."""
    secret = secrets.token_urlsafe(32)
    job = Job(
        name=job_name(server_name, secrets.token_hex(4)),
        secret_hash=_hash(secret),
        submitted_at=time.time(),
        request=request,
        options=dict(options or {}),
    )
    return job, secret


def job_name(server_name: str, mark: str) -> str:
    """Return what Slurm calls a job of the server: *mark* makes it one of a kind."""
    label = re.sub(r"[^a-z0-9-]+", "-", server_name.lower()).strip("-")[:32] or "lab"
    return f"jupyter-{label}-{mark}"


#: What has to be done to a job that a version before this one stored, by that version's number: it becomes the next's.
_MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}

# Of a stored job that lacks them. No secret has this hash: what is left of such a job cannot claim its session.
_MISSING: dict[str, Any] = {"name": "", "secret_hash": "", "request": {}}


def load_job(stored: Any) -> Job | None:
    """Read a stored job, of this version or another; None when there is none.

    A job that may be alive is never forgotten: as long as its number or its name can be read, so can the job.
    """
    if not isinstance(stored, dict):
        return None
    values, version = dict(stored), stored.get("version")
    while isinstance(version, int) and version in _MIGRATIONS and version < STATE_VERSION:
        values, version = _MIGRATIONS[version](values), version + 1
    number = values.get("job_id")
    if isinstance(number, int) and not isinstance(number, bool):
        values["job_id"] = str(number)
    if values.get("phase") not in get_args(Phase):
        # Another version's. The queue knows whether it waits, runs or is over.
        values["phase"] = "pending" if values.get("job_id") else "submitting"
    # When it was submitted counts for how long it may wait.
    job = read(Job, {**values, "version": STATE_VERSION}, {**_MISSING, "submitted_at": time.time()})
    return job if job and (job.job_id.isdigit() or job.name) else None


def _hash(secret: str) -> str:
    # What somebody sends as a secret may be any text that JSON can hold, half a surrogate pair included.
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()
