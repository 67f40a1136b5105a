"""One short real job that answers from the node, by its log: what a session would meet there.

It is submitted as sessions are, with a session's options, and runs trial.py. Its answer is read as the person, as the
end of a session's log is, and is not trusted: it is the person's process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import pwd
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..choice import request
from ..session import messages, script
from ..session.as_person import Reader, ReadError
from ..site import Site
from ..slurm.client import ASK, SlurmClient, SlurmError, prefix_for
from ..slurm.squeue import JobRow, stage_of
from ..slurm.times import format_duration
from .report import Check, fail, plain, warn

#: The job's own time limit, and how long it may wait in the queue, in seconds.
TIME_LIMIT, QUEUE_LIMIT = 600, 1800
#: How long its log may take to be seen here after the job's end.
_SEEN_IN = 10.0
#: How long it may take to end when it is asked to, before everything in it is ended.
_ENDS_IN = 10.0
_EVERY = 1.0
_MARK = "snowyspawner-trial: "
_BY_HAND = "Try it on a node by hand, and see what it says: srun apptainer exec IMAGE true"
_NOT_BEGUN = "snowyspawner: the steps could not begin"
_STEPS = ("hub", "gpu", "runtime", "image", "environment", "end")
_MOST = 1000


@dataclass(frozen=True)
class Trial:
    """Whom to try what for. *say* shows how far it is."""

    site: Site
    hub_url: str  # of the hub's API, as jobs are given it
    hub_version: str
    account: pwd.struct_passwd
    client: SlurmClient
    reader: Reader
    say: Callable[[str], None]


def build(trial: Trial, wanted: request.SessionRequest) -> str:
    """Return the job script. Raises ValueError for an unusable home directory."""
    site = trial.site
    target = script.Target(f"snowyspawner-check-{secrets.token_hex(4)}", trial.account.pw_dir, trial.hub_url, 0)
    # Slurm's warning before the end is for sessions.
    options = [option for option in script.sbatch_options(site, wanted, target) if not option.startswith("--signal=")]
    lines = site.prologue.strip().splitlines()
    directives = [f"#SBATCH {option}" for option in options] + [line for line in lines if line.startswith("#SBATCH ")]
    commands = "\n".join(line for line in lines if not line.startswith("#SBATCH "))
    return f"""#!/bin/bash{" -l" if site.login_shell else ""}
{chr(10).join(directives)}
# A trial of what a session meets on a node, made by snowyspawner check.
# If its steps cannot begin, the log stays until it was read.
bye() {{
  trap - EXIT
  echo "{_NOT_BEGUN} (exit code $1)"
  trap : TERM
  sleep 20 & wait; kill $!
  rm -f -- "$(readlink /proc/$$/fd/1)"
}}
trap 'bye $?' EXIT
{commands}

shopt -s execfail
exec {site.python} -I /dev/fd/3 3<<'SNOWYSPAWNER_TRIAL' 5<<'SNOWYSPAWNER_LAUNCHER' 4<<'SNOWYSPAWNER_SPEC'
{script.carried("trial.py")}SNOWYSPAWNER_TRIAL
{script.carried("launcher.py")}SNOWYSPAWNER_LAUNCHER
{spec(trial, wanted)}
SNOWYSPAWNER_SPEC
bye $?
"""


def spec(trial: Trial, wanted: request.SessionRequest) -> str:
    """Return the job's spec, one line of JSON; its keys are those that trial.py reads."""
    site = trial.site
    return json.dumps(
        {
            "hub_url": f"{trial.hub_url.rstrip('/')}/",
            "gpu": site.gpus[wanted.gpu].vendor if wanted.gpu else "",
            "images": {key: image.model_dump(include={"path", "runtime", "entry", "binds"}, mode="json")
                       for key, image in site.images.items()},
            "environments": {key: {**each.model_dump(include={"kind", "conda", "prefix"}),
                                   "images": each.images or tuple(site.images)}
                             for key, each in site.environments.items()},
        }
    )  # fmt: skip


def parse_steps(lines: Iterable[str]) -> list[dict[str, Any]]:
    """Read the steps in a job's log. Whatever is not as trial.py writes it is passed over."""
    found: list[dict[str, Any]] = []
    for line in lines:
        if not line.startswith(_MARK) or len(found) >= _MOST:
            continue
        with contextlib.suppress(ValueError, RecursionError):
            said = json.loads(line.removeprefix(_MARK))
            if isinstance(said, dict) and said.get("step") in _STEPS and said.get("code") in range(256):
                found.append(said)
    return found


def judge(trial: Trial, steps: Iterable[Mapping[str, Any]], node: str) -> Iterator[Check]:
    """Say what each step means."""
    for step in steps:
        kind, code = step["step"], step["code"]
        image, environment = (_text(step, key) for key in ("image", "environment"))
        took = step.get("seconds")
        seconds = float(took) if isinstance(took, (int, float)) and 0 <= took < 1e6 else 0.0
        name = {
            "runtime": f"job: runtime of {image}",
            "image": f"job: image {image}",
            "environment": f"job: {environment} in {image}",
        }.get(kind, f"job: {kind}")
        if kind == "end" and not code:
            continue
        if code:
            path = trial.site.images[image].path if image in trial.site.images else image
            words = messages.launch_failure(code, messages.JobFacts(path, environment, node))
            said = " ".join(filter(None, [words.sentence, _text(step, "detail")]))
            yield fail(name, said, _remedy(trial, kind, code) or words.advice or _BY_HAND)._replace(seconds=seconds)
        else:
            yield _fine(trial, kind, name, step)._replace(seconds=seconds)


def _text(step: Mapping[str, Any], key: str) -> str:
    value = step.get(key, "")
    return plain(value)[:400] if isinstance(value, str) else ""


def _remedy(trial: Trial, kind: str, code: int) -> str:
    """Say what an administrator can do where a person is told to tell support."""
    if kind == "hub":
        return (
            f"Is the hub running, and does its firewall let nodes in? From a node: curl {trial.hub_url}/."
            " Else set c.JupyterHub.hub_connect_ip to this host's name in the cluster's network"
        )
    return {
        65: "Install apptainer on the nodes, or load it in the site file's `prologue`: module load apptainer",
        69: "See what the node says: srun apptainer exec IMAGE true. Is /dev/fuse there, are user namespaces on?",
        72: "Mend `environments` in the site file: the name has to be one that the image has",
        73: "Put it into the image, in that environment: pip install jupyterhub jupyterlab",
        74: "See what the node has: srun --gres=gpu:1 nvidia-smi -L; gres.conf has to name its device files",
        82: "Report it with this line: it is snowyspawner's fault",
    }.get(code, "")


def _fine(trial: Trial, kind: str, name: str, step: Mapping[str, Any]) -> Check:
    version, detail = _text(step, "version"), _text(step, "detail")
    if kind == "hub":
        return Check(name, "ok", f"JupyterHub {version} answers at {trial.hub_url}")
    if kind == "gpu" and not step.get("asked"):
        said = f"{detail}, and there is no nvidia-smi to ask"
        return warn(name, said, "See whether the driver works: srun nvidia-smi -L")
    if kind == "environment":
        if not version:
            return warn(name, "is active; its jupyterhub does not say its version", "Try a session in it")
        if version.split(".")[0] != trial.hub_version.split(".")[0]:
            said = f"jupyterhub {version} in it, {trial.hub_version} at the hub"
            return warn(name, said, f"Build the image with the hub's: pip install 'jupyterhub=={trial.hub_version}'")
        return Check(name, "ok", f"is active; jupyterhub {version}")
    return Check(name, "ok", detail or "starts")


async def run(trial: Trial) -> list[Check]:
    """Submit the job, follow it, read its answer, end it. A caller that is cancelled ends it, too."""
    try:
        env = script.variables(trial.account, "")
        prefix = prefix_for(trial.account, env)
        wanted = await _choice(trial, prefix)
        text = build(trial, wanted)
    except (request.RequestError, ValueError, SlurmError) as error:
        return [fail("job", f"cannot be submitted: {error}", "See the other lines")]
    began = time.monotonic()
    # sbatch's answer is waited for whatever happens: without it, nobody could end the job.
    submitting = asyncio.ensure_future(trial.client.submit(text, prefix, env))
    try:
        await asyncio.shield(submitting)
    except SlurmError as error:
        words = messages.refusal(error.stderr)
        remedy = " ".join(filter(None, [words.advice, "See the other lines, and: sbatch --test-only"]))
        return [fail("job", f"Slurm refuses it: {words.sentence} ({error.stderr})", remedy)]
    except asyncio.CancelledError:
        with contextlib.suppress(SlurmError):
            await trial.client.cancel((await submitting)[0], prefix)
        raise
    job_id = submitting.result()[0]
    read = False
    try:
        found, read = await _follow(trial, job_id, prefix, began)
        return found
    finally:
        await _end(trial, job_id, prefix, ASK if read else ())


async def _end(trial: Trial, job_id: str, prefix: list[str], how: tuple[str, ...]) -> None:
    """End the job, and wait until it is over: it removes its log."""
    deadline = time.monotonic() + _ENDS_IN
    with contextlib.suppress(SlurmError):
        await trial.client.cancel(job_id, prefix, how)
        while (row := await _look(trial, job_id, prefix)) and stage_of(row.state) != "over":
            if time.monotonic() > deadline:
                await trial.client.cancel(job_id, prefix)
                break
            await asyncio.sleep(0.2)


async def _choice(trial: Trial, prefix: list[str]) -> request.SessionRequest:
    """Return the Site's default choice with a short time limit, charged to one of the person's projects."""
    site, accounts = trial.site, None
    default = request.from_options({}, site)
    if site.accounts.discover:
        with contextlib.suppress(SlurmError):
            name = trial.account.pw_name
            # PrivateData may hide them from the hub.
            accounts = await trial.client.accounts(name) or await trial.client.accounts(name, prefix) or None
    options = {"time": format_duration(min(default.time, TIME_LIMIT))}
    if accounts and default.account not in accounts:
        options["account"] = accounts[0]
    return request.from_options(options, site, accounts=accounts)


async def _follow(trial: Trial, job_id: str, prefix: list[str], began: float) -> tuple[list[Check], bool]:
    """Return what the job says, and whether all of it was read and the job still waits to be told so."""
    told, waited = "", 0.0
    over_at: float | None = None
    lines: list[str] = []
    while True:
        row = await _look(trial, job_id, prefix)
        stage = stage_of(row.state) if row else "unknown"
        now = time.monotonic() - began
        if stage == "waiting":
            waited = now
        else:
            try:
                lines = await trial.reader.log(job_id, trial.account) or []
            except ReadError as error:
                return [fail("job", f"its log cannot be read: {error}", "See the helper's line, and the logs'")], False
        steps = parse_steps(lines)
        node = row.node if row else next((_text(step, "node") for step in steps if step["step"] == "end"), "")
        if any(step["step"] == "end" for step in steps):
            first = Check("job", "ok", f"job {job_id} ran on node {node or '?'}, after {waited:.0f} s in the queue")
            return [first._replace(seconds=now), *judge(trial, steps, node or "?")], True
        over_at = over_at or (now if stage == "over" else None)
        not_begun = any(line.startswith(_NOT_BEGUN) for line in lines)
        # A shared disk may show the end of a log later than Slurm that of the job.
        if not_begun or (over_at is not None and now - over_at > _SEEN_IN):
            return [*judge(trial, steps, node or "?"), _broken(row, lines)], False
        if now > QUEUE_LIMIT + (0 if stage == "waiting" else TIME_LIMIT):
            why = messages.pending(row.reason).sentence if row and stage == "waiting" else "it did not answer"
            said = f"job {job_id} was given up after {now:.0f} s: {why}"
            return [fail("job", said, "Try again when the queue is shorter")], False
        if (progress := _progress(job_id, row)) != told:
            told = progress
            trial.say(progress)
        await asyncio.sleep(_EVERY)


async def _look(trial: Trial, job_id: str, prefix: list[str]) -> JobRow | None:
    """Return what squeue shows of the job: to this account, or else to the person."""
    for words in ([], prefix) if prefix else ([],):
        with contextlib.suppress(SlurmError):
            if row := (await trial.client.queue([job_id], words)).get(job_id):
                return row
    return None


def _progress(job_id: str, row: JobRow | None) -> str:
    if row is None:
        return f"job {job_id}: submitted"
    if stage_of(row.state) == "waiting":
        return f"job {job_id}: {row.state}: {messages.pending(row.reason).sentence}"
    return f"job {job_id}: {row.state} on node {row.node or '?'}"


def _broken(row: JobRow | None, lines: list[str]) -> Check:
    """Say how a job ended that has not come to the end of its steps."""
    words = messages.ending(row.state) if row and stage_of(row.state) == "over" else messages.Words("")
    last = plain(" / ".join(line for line in lines[-3:] if not line.startswith(_MARK)))
    said = " ".join(filter(None, ["it ended too early.", words.sentence, f"Its log ends in: {last}" if last else ""]))
    remedy = "Mend the site file's `prologue` or `python` if the log's last lines say so; else try again"
    return fail("job", said, remedy)
