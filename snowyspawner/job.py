"""A job's life, as the hub stores it: ``submitting → pending → launching → serving → ended``, and ``stopping``."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

#: Changes whenever a stored job could no longer be read.
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
    job_id: str = ""
    cluster: str = ""
    node: str = ""
    port: int = 0
    token_id: int | None = None

    @property
    def alive(self) -> bool:
        """Whether Slurm may still have it."""
        return self.phase != "ended"

    def knows(self, secret: str) -> bool:
        """Tell whether *secret* is this job's, in a time that does not depend on it."""
        return hmac.compare_digest(_hash(secret), self.secret_hash)


def new_job(server_name: str, request: dict[str, Any]) -> tuple[Job, str]:
    """Make a `Job` with a name of its own; return it and its one-time secret, which is stored nowhere."""
    secret = secrets.token_urlsafe(32)
    job = Job(
        name=job_name(server_name, secrets.token_hex(4)),
        secret_hash=_hash(secret),
        submitted_at=time.time(),
        request=request,
    )
    return job, secret


def job_name(server_name: str, mark: str) -> str:
    """Return what Slurm calls a job of the server: *mark* makes it one of a kind."""
    label = re.sub(r"[^a-z0-9-]+", "-", server_name.lower()).strip("-")[:32] or "lab"
    return f"jupyter-{label}-{mark}"


def load_job(stored: Any) -> Job | None:
    """Read a stored job; None when there is none, or one that another version wrote and this one cannot read."""
    if not isinstance(stored, dict) or stored.get("version") != STATE_VERSION:
        return None
    try:
        return Job.model_validate(stored)
    except ValidationError:
        return None


def _hash(secret: str) -> str:
    # What somebody sends as a secret may be any text that JSON can hold, half a surrogate pair included.
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()
