"""The job script: a Site and a request become a short bash script. Pure, no I/O but reading our own launcher.

The script is complete in itself, so that what *Show the job script* shows is what runs. No value of a person's is
text of the shell: ``#SBATCH`` lines hold checked values, the rest is one line of JSON in a quoted heredoc.
"""

from __future__ import annotations

import json
import pwd
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .._share import share_dir
from ..choice import own
from ..choice.request import SessionRequest
from ..site import Environment, Image, Site
from ..site.fields import FIELDS
from ..slurm.times import format_duration

_LAUNCHER_END = "SNOWYSPAWNER_LAUNCHER"
_END_WARNING_END = "SNOWYSPAWNER_END_WARNING"
_SPEC_END = "SNOWYSPAWNER_SPEC"

#: sbatch(1), --signal: "the signal may be sent up to 60 seconds earlier than specified", in seconds.
_SIGNAL_EARLY = 60


@dataclass(frozen=True)
class Target:
    """What a script needs to know beside Site and request."""

    name: str  # the job's, and with its secret what the job shows to the hub
    home: str  # the person's home directory, absolute
    hub_url: str  # where claim and report are posted to; ends in a slash
    server: int  # the row of the hub's database


def sbatch_options(site: Site, request: SessionRequest, target: Target) -> list[str]:
    """Return the ``#SBATCH`` options, one per line of the script. Raises `ValueError` for an unusable home."""
    if not re.fullmatch(r"/[A-Za-z0-9_.,@%+=:/-]*", target.home, re.ASCII):
        raise ValueError(f"the home directory {target.home!r} has characters that sbatch cannot be given")
    cores = request.cores
    options = [f"--job-name={target.name}", f"--account={request.account}" if request.account else ""]
    # Also where the person left the time alone: some clusters give a minute to jobs that do not say.
    options += [
        f"--time={format_duration(request.time)}",
        f"--partition={site.slurm_partition(request.partition)}",
    ]
    if constraint := _all_of(site.partitions[request.partition].constraint, request.constraint):
        options.append(f"--constraint={constraint}")
    if site.single_node:
        options.append("--nodes=1")
    if site.cores_option == "ntasks":
        options.append(f"--ntasks={cores}")
    else:
        options += ["--ntasks=1", f"--cpus-per-task={cores}"]
    if request.memory:
        options.append(f"--mem={request.memory}M")
    if request.gpu:
        options.append(site.gpus[request.gpu].request.replace("{count}", str(request.gpu_count)))
    for name, field in FIELDS.items():
        if field.option and (value := getattr(request, name)):
            options.append(field.option.replace("{}", value))
    if request.begin:
        # Seconds since the epoch: sbatch would read anything else in its own zone.
        options.append(f"--begin=uts{request.begin}")
    if request.email_on_start:
        options.append("--mail-type=BEGIN")
    limit = request.time_limit
    warn = site.warning(limit)
    # Not for a session so short that it would come with the start; JupyterLab warns by its own clock, too.
    if 0 < warn < limit - _SIGNAL_EARLY:
        options.append(f"--signal=B:USR1@{warn}")
    # Sent twice, an interactive session would be somebody else's: it is never requeued. In file names % is
    # Slurm's, so that of a home directory is doubled.
    log = f"{target.home.rstrip('/').replace('%', '%%')}/{site.log}"
    options += ["--no-requeue", f"--chdir={target.home}", f"--output={log}", "--export=ALL"]
    return [option for option in options if option]


def _all_of(*constraints: str) -> str:
    """Return a constraint that asks for all of *constraints*, of which some may be empty: sbatch(1), --constraint."""
    wanted = list(filter(None, constraints))
    if len(wanted) < 2:
        return "".join(wanted)
    return "&".join(f"({each})" if re.search(r"[|,&]", each) and each[0] not in "[(" else each for each in wanted)


def spec(site: Site, request: SessionRequest, target: Target) -> str:
    """Return the launcher's spec, one line of JSON; its keys are those that launcher.py reads."""
    image, environment = _software(site, request, target.home)
    return json.dumps(
        {
            "hub_url": target.hub_url,
            "hub_wait": site.hub_wait,
            "server": target.server,
            "name": target.name,
            "image": image.model_dump(include={"path", "runtime", "entry", "binds"}, mode="json"),
            "environment": environment.model_dump(include={"kind", "conda", "prefix"}) | {"name": request.software},
            "gpu": site.gpus[request.gpu].vendor if request.gpu else "",
            "limit": request.time_limit,
            "logs": _old_logs(site),
            "warn": site.warning(request.time_limit),
            "umask": site.umask,
            "listen": site.listen,
            "ports": site.ports,
            "scratch": site.scratch,
        },
        sort_keys=True,
    )


def _software(site: Site, request: SessionRequest, home: str) -> tuple[Image, Environment]:
    """Return the image and the environment that a request means, its own in place of the Site's."""
    image, environment = site.images[request.image], site.environments[request.environment]
    binds = []
    for name in own.OWN:
        # A project's directory may be no place that containers have by themselves, as they have the home directory.
        place = own.place_of(getattr(request, name), own.places(site, name), home)
        if place and place != home.rstrip("/"):
            binds.append(place)
    if request.own_container:
        runtime = "auto" if image.runtime == "none" else image.runtime
        path = own.written_out(request.own_container, home)
        image = image.model_copy(update={"path": path, "runtime": runtime, "entry": "exec"})
        environment = Environment(kind="none")
    if request.own_environment:
        environment = Environment(kind="prefix", prefix=own.written_out(request.own_environment, home))
    extra = tuple(
        place
        for place in dict.fromkeys(binds)
        # The runtime would part it at a colon.
        if ":" not in place and not any(f"{place}/".startswith(f"{bind.rstrip('/')}/") for bind in image.binds)
    )
    return image.model_copy(update={"binds": image.binds + extra}), environment


def _old_logs(site: Site) -> dict[str, Any]:
    """Say which files of a person's are logs of earlier jobs, and how many of them to keep; empty: remove none.

    Where the job's number is not in the file's name, none can be told for certain.
    """
    directory, _, name = site.log.rpartition("/")
    pattern = ""
    for part in re.findall(r"%%|%j|[^%]+", name):  # a Site allows nothing else of sbatch's
        if part == "%j":
            pattern += "(?P=job)" if "(?P<job>" in pattern else "(?P<job>[0-9]+)"
        else:
            pattern += re.escape(part.replace("%%", "%"))
    keep = site.keep_logs
    if "(?P<job>" not in pattern or "%" in directory or not (keep.days or keep.number):
        return {}
    return {"directory": directory, "pattern": pattern, "days": keep.days, "number": keep.number}


def variables(account: pwd.struct_passwd, secret: str) -> dict[str, str]:
    """Return all that the job inherits. Of secrets only the job's own.

    It is worth something until the job is over: to claim the session until its server answers, then to say how the
    server ended. Nothing else can be done with it, and the launcher takes it out of the server's environment.
    """
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": account.pw_dir,
        "USER": account.pw_name,
        "LOGNAME": account.pw_name,
        "SHELL": account.pw_shell or "/bin/sh",
        "SNOWYSPAWNER_SECRET": secret,
    }


def build(site: Site, request: SessionRequest, target: Target) -> str:
    """Return the job script. Raises `ValueError` when something in it cannot be written safely."""
    options = sbatch_options(site, request, target)
    if any(re.search(r"[^\x21-\x7e]", option) for option in options):
        raise ValueError("an sbatch option has characters that a script cannot carry")
    lines = site.prologue.strip().splitlines()
    # sbatch reads its options up to the first command only, which is ours; a Site's go last, and so over ours.
    directives = "\n".join([f"#SBATCH {option}" for option in options] + [s for s in lines if s.startswith("#SBATCH ")])
    commands = "\n".join(s for s in lines if not s.startswith("#SBATCH ")).strip()
    prologue = f"\n{commands}\n" if commands else ""
    return f"""#!/bin/bash{" -l" if site.login_shell else ""}
{directives}
# JupyterLab in {request.software}, made by snowyspawner.
# Slurm warns of the end by a signal that would end this shell; the launcher knows what to do with it.
trap '' USR1
trap 'echo "snowyspawner: the job ended before its launcher could begin (exit code $?)" >&2' EXIT
{prologue}
exec {site.python} -I /dev/fd/3 3<<'{_LAUNCHER_END}' 5<<'{_END_WARNING_END}' 4<<'{_SPEC_END}'
{carried("launcher.py")}{_LAUNCHER_END}
{carried("end_warning.py")}{_END_WARNING_END}
{spec(site, request, target)}
{_SPEC_END}
"""


@cache
def carried(name: str) -> str:
    """Return the text of a module of `standalone`: it goes with the script, or with the claim."""
    return (Path(__file__).parent.parent / "standalone" / name).read_text(encoding="utf-8")


@cache
def extension() -> str:
    """Return the JavaScript of the extension for JupyterLab, which goes with the claim."""
    return (share_dir() / "labextension" / "session.js").read_text(encoding="utf-8")
