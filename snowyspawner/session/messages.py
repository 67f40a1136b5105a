"""Slurm's states, reasons and errors, and the launcher's codes, as sentences that a student understands.

Pure tables; why a job waits is in slurm/reasons.py. Slurm's own text always stands beneath, so a sentence may be
plain where Slurm is exact.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from typing import Any, NamedTuple

from ..choice.own import OWN
from ..choice.request import load
from ..site import Site
from ..site.fields import FIELDS
from ..slurm import reasons

#: The fields of a request that become options of sbatch's.
FIELDS_OF_SLURM = tuple(name for name, field in FIELDS.items() if field.of_slurm)


class Words(NamedTuple):
    """What happened, what to do about it, and the form's field at fault (empty: none)."""

    sentence: str
    advice: str = ""
    field: str = ""

    def __str__(self) -> str:
        """Join sentence and advice."""
        return f"{self.sentence} {self.advice}".strip()


_BUSY = Words("Slurm is busy.", "Try again in a minute; nothing was started.")
_AWAY = Words("Slurm is not answering.", "Try again in a few minutes; nothing was started.")
_SLOW = Words("Slurm is too slow to answer.", "Try again in a few minutes; nothing was started.")

# What sbatch says is wrong: whole messages of slurm_errno.c (Slurm 20.02 to 25.05), sbatch and its options' parser.
# Never a word that any message could hold: a site's own plugins write there, too. The first match counts.
_SBATCH: tuple[tuple[str, Words], ...] = (
    (
        r"Invalid account( or account/partition combination)?( specified)?$",
        Words(
            "Slurm does not let you charge jobs to this project.",
            "Check the project's name; a new membership takes until the next morning to reach the cluster.",
            "account",
        ),
    ),
    (
        r"Invalid account( or account/partition combination)?( specified)?$",
        # It was left to Slurm.
        Words("Slurm does not let you charge jobs to your own default project.", "Choose another project."),
    ),
    (
        r"Invalid partition( name)? specified|No partition specified or system default partition",
        Words("Slurm has no such partition.", "Choose another one.", "partition"),
    ),
    (
        r"Required partition not available|Partition in DOWN state|Partition is in use"
        r"|Requested partition configuration not available now",
        Words("This partition is closed at the moment.", "Choose another one, or try later.", "partition"),
    ),
    (
        r"Memory specification can ?not be satisfied|Memory required by task is not available"
        r"|Invalid --mem specification|Invalid memory specification",
        Words("No node of this partition has that much memory.", "Ask for less.", "memory"),
    ),
    (
        r"CPU count (per node )?(specification )?can ?not be satisfied|More processors requested than permitted"
        r"|(CPU|Task) count specification invalid|Requested more tasks than available processors",
        Words("No node of this partition has that many cores.", "Ask for fewer cores.", "cores"),
    ),
    (
        r"Required node not available|Requested nodes are busy",
        Words("The nodes are out of order or reserved.", "Choose another partition, or try later.", "partition"),
    ),
    (
        r"User's group not permitted to use this partition",
        Words("You may not use this partition.", "Choose another one.", "partition"),
    ),
    (
        r"Invalid qos specification",
        Words("You may not send jobs of this QOS, or not here.", "Choose another one, or none.", "qos"),
    ),
    (
        r"Invalid feature specification|Invalid constraint",
        Words("No node has what this constraint asks for.", "Choose another one, or none.", "constraint"),
    ),
    (
        r"Invalid qos specification|breached requested QOS usage threshold",
        Words("You may not send jobs of this class (QOS) here.", "Choose another partition or project.", "partition"),
    ),
    (
        r"Time limit specification required",
        Words("The cluster wants to know for how long.", "Say a time.", "time"),
    ),
    (
        r"Requested time limit is invalid|Invalid --time specification",
        Words("The time is longer than this partition allows.", "Ask for less time.", "time"),
    ),
    (
        r"Job can ?not start due to maintenance reservation",
        Words("Maintenance is planned for that time.", "Choose another time, or less of it.", "begin"),
    ),
    (
        r"Requested reservation (is invalid|not usable now|is in use)|Access denied to requested reservation",
        Words("You cannot use this reservation.", "Check its name, or leave the field empty.", "reservation"),
    ),
    (
        r"Invalid --begin specification|Invalid time specification \(pos=",
        Words("Slurm does not understand when to begin.", "Choose another time, or now.", "begin"),
    ),
    (
        r"(Invalid|Duplicate) generic resource \(gres\) specification|Invalid GRES |Insufficient GRES available"
        r"|Requested GRES option unsupported|Invalid Trackable RESource",
        Words("This partition does not have that GPU.", "Choose another partition, or no GPU.", "gpu"),
    ),
    (
        r"System submissions disabled|Requested operation is presently disabled",
        Words("The cluster takes no jobs at the moment.", "Its news page may say why; try again later."),
    ),
    (r"Rate limit exceeded|Resource temporarily unavailable|Slurm temporarily unable to accept job", _BUSY),
    (
        r"Unable to contact slurm controller|Connection refused|Socket timed out on send/recv|can't be reached now"
        r"|in standby mode|problem talking to the database|Zero Bytes were transmitted|Unable to connect to database"
        r"|DNS SRV|Communication (connection|shutdown) failure|Message (send|receive) failure",
        _AWAY,
    ),
    (r"sbatch gave no answer in", _SLOW),
    (
        r"sbatch printed no job id",
        Words("Slurm seemed to take the job, but has no such job.", "Start again; if it stays, tell support."),
    ),
    (
        r"Invalid user id|Invalid group id|Access/permission denied|User not found",
        Words("Slurm does not know you, or does not let you send jobs.", "Tell support."),
    ),
    (
        r"authentication credential|Invalid job credential|Protocol authentication error"
        r"|Unable to process configuration file|configuration source|is not on the hub's PATH"
        r"|writing script/environment",
        Words("Slurm is not set up right for this hub.", "Tell support; nothing was started."),
    ),
)

# What Slurm says last when it has said something more exact before.
_SBATCH_IN_GENERAL: tuple[tuple[str, Words], ...] = (
    (
        r"Requested node configuration is not available|Invalid (preferred )?feature specification"
        r"|Requested topology configuration",
        Words(
            "No node of this partition can ever give what you ask for.",
            "Ask for fewer cores or no GPU, or choose another partition.",
            "partition",
        ),
    ),
    (
        r"Job violates accounting/QOS policy",
        Words(
            "You have as many jobs here as you may have at a time.",
            "Stop one, or choose another partition.",
            "partition",
        ),
    ),
)

# "sbatch: error: Batch job submission failed: Invalid qos specification"; what follows is what is wrong.
_ERROR_LINE = re.compile(r"(?:[\w./-]+: )?(?:error|fatal): (?:Batch job submission failed: )?(.*)", re.IGNORECASE)

#: The launcher's code for a node that does not reach the hub: also what a job means that runs and is silent.
NO_HUB = 76

# The launcher's codes: the names of `JobFacts` in braces are filled in.
_LAUNCHER: dict[int, Words] = {
    65: Words(
        "Neither apptainer nor singularity was found on node {node}.",
        "Tell support (the site's prologue may have to load it), or choose an image that needs no container.",
    ),
    66: Words(
        "The image {image} does not exist (seen from node {node}).",
        "Is the path right, and on a disk that the compute nodes see?",
        "image",
    ),
    67: Words(
        "You may not read the image {image}.",
        "Are you a member of its project? Ask its owner for chmod g+r, and g+x on the folders.",
        "image",
    ),
    68: Words("The image {image} is damaged, or no container image.", "Copy it again.", "image"),
    69: Words("Node {node} could not set up the container.", "Tell support."),
    70: Words("The image {image} has no /bin/sh.", "snowyspawner needs one.", "image"),
    71: Words("There is no conda in the image {image}.", "Choose another image or environment.", "image"),
    72: Words("The image {image} has no environment {environment}.", "Choose another environment.", "environment"),
    73: Words(
        "jupyterhub-singleuser is not in environment {environment}.",
        "It needs: pip install jupyterhub jupyterlab.",
        "environment",
    ),
    74: Words("A GPU was asked for, but node {node} shows none.", "Try again; if it stays, tell support.", "gpu"),
    75: Words(
        "The jupyterhub in environment {environment} is too old.",
        "It needs 2.0 or newer: pip install -U jupyterhub jupyterlab.",
        "environment",
    ),
    76: Words("Node {node} cannot reach the hub.", "Tell support."),
    77: Words("The hub no longer knew this session when its job started.", "Start it again."),
    78: Words(
        "Nothing can be written to your home directory from node {node}.",
        "If your quota is used up, or the disk is full, delete something; else tell support.",
    ),
    79: Words(
        "The disk for temporary files on node {node} is full, or closed to you.", "Start again, or tell support."
    ),
    80: Words(
        "No port is free on node {node}, of those that a server may have.",
        "Start again, later or in another partition; if it stays, tell support.",
    ),
    81: Words(
        "The hub did not accept what the job on node {node} said.",
        "Start again; if it stays, tell support: the log says what the hub answered.",
    ),
    82: Words("The launcher failed with an unexpected error on node {node}.", "Tell support, and show them the log."),
}

_NOT_THERE = (
    "It was there when you pressed Start, or could not be looked at from the hub: is it on a disk that the nodes see?"
)

# The same of what is the person's own, by the field that names it. An environment goes first.
_LAUNCHER_OWN: dict[str, dict[int, Words]] = {
    "own_environment": {
        72: Words(
            "Your own environment {environment} is not there, or its Python does not run in this container"
            " (seen from node {node}).",
            "If you have moved or removed it, make it anew; else choose the container in which you made it.",
            "own_environment",
        ),
        73: Words(
            "jupyterhub-singleuser is not in your own environment {environment}.",
            "It needs: {environment}/bin/python -m pip install jupyterhub jupyterlab.",
            "own_environment",
        ),
        75: Words(
            "The jupyterhub in your own environment {environment} is too old.",
            "It needs 2.0 or newer: {environment}/bin/python -m pip install -U jupyterhub jupyterlab.",
            "own_environment",
        ),
    },
    "own_container": {
        66: Words("Your own container {image} does not exist (seen from node {node}).", _NOT_THERE, "own_container"),
        67: Words(
            "You may not read your own container {image} (seen from node {node}).",
            "Ask its owner for chmod g+r, and g+x on the folders.",
            "own_container",
        ),
        68: Words(
            "Your own container {image} is damaged, or no container image.", "Build or copy it again.", "own_container"
        ),
        70: Words("Your own container {image} has no /bin/sh.", "snowyspawner needs one.", "own_container"),
        73: Words(
            "jupyterhub-singleuser is not in your own container {image}.",
            "In its definition file, add to %post: python3 -m pip install jupyterhub jupyterlab; then build it again.",
            "own_container",
        ),
        75: Words(
            "The jupyterhub in your own container {image} is too old.",
            "It needs 2.0 or newer: build it again with pip install -U jupyterhub jupyterlab.",
            "own_container",
        ),
    },
}

#: Exit codes with which a job says by itself why it cannot serve.
LAUNCHER_CODES = frozenset(_LAUNCHER)

# With this signal in place of an exit code Slurm says that it could not open the job's log: ESLURMD_IO_ERROR, 4021,
# of which the seven bits of a signal are left. Nothing of the job has run, so nobody else can tell.
_NO_LOG_SIGNAL = 53
_NO_LOG = Words(
    "Slurm could not write the job's log to your home directory.",
    "If your quota is used up, or the disk is full, delete something. Is the directory there, and yours to write to?"
    " Else tell support.",
)

# What Slurm makes of too much memory where it has no cgroups to tell it.
_KILLED = Words(
    "The server was killed.",
    "Mostly that means that it used more memory than the job had. Ask for more cores: memory comes with them.",
)

# squeue(1), JOB STATE CODES, of jobs that are over.
_END: dict[str, Words] = {
    "COMPLETED": Words("The server ended."),
    "FAILED": Words("The server ended with an error."),
    "CANCELLED": Words("The job was cancelled."),
    "TIMEOUT": Words("The job reached its time limit.", "Ask for more time."),
    "OUT_OF_MEMORY": Words(
        "The job used more memory than it had.",
        "Ask for more memory; where there is no field for it, it comes with the cores.",
    ),
    "NODE_FAIL": Words("The node failed.", "Start again; you will get another one."),
    "PREEMPTED": Words("The job had to make room for another one.", "Start again."),
    "DEADLINE": Words("The job could not start before its deadline."),
    "BOOT_FAIL": Words("The node did not start.", "Start again; you will get another one."),
    "LAUNCH_FAILED": Words("The job could not be launched on its node.", "Start again; if it stays, tell support."),
    "REVOKED": Words("The job was given to another cluster.", "Start again."),
}

# Not Slurm's: `lifecycle` gives up what can serve nobody any more.
_LOST: dict[str, Words] = {
    "REQUEUED": Words("Slurm has put the job back into the queue: what ran in it is gone.", "Start again."),
    "UNKNOWN": Words("Slurm lost sight of the job, and its server did not answer.", "Start again, or tell support."),
}

# Why the hub gave a start up, by the reason of its `errors.SessionError`: {node} is filled in.
_GIVEN_UP: dict[str, Words] = {
    "queue_timeout": Words("The job waited too long in the queue.", "Ask for less, or try another partition."),
    "launch_timeout": Words("The job started, but its server did not answer in time.", "Start again."),
    "no_hub": _LAUNCHER[NO_HUB],
    "unreachable": Words("The server ran on node {node}, but the hub could not reach it.", "Tell support."),
    "unsupported": Words("The hub could not start the job.", "Tell support."),
    "idle": Words(
        "This session was ended because nobody used it and it computed nothing: others can use its place.",
        "Start again when you need it.",
    ),
}

# The same as _END, of jobs that are not over.
_STATE: dict[str, Words] = {
    "PENDING": Words("The job waits in the queue."),
    "CONFIGURING": Words("The node is being made ready.", "This may take some minutes."),
    "POWER_UP_NODE": Words("The node is being switched on.", "This may take some minutes."),
    "RUNNING": Words("The job is running."),
    "RESIZING": Words("The job is running; its size is about to change."),
    "SIGNALING": Words("The job is running; a signal is on its way to it."),
    "UPDATE_DB": Words("The job is running."),
    "SUSPENDED": Words("The job is suspended: others use its cores.", "It goes on by itself; what is open stays."),
    "STOPPED": Words("The job is stopped, but keeps its cores.", "It goes on when it gets the signal CONT."),
    "COMPLETING": Words("The job is ending."),
    "STAGE_OUT": Words("The job is ending; its files are being copied."),
    "REQUEUED": Words("The job is back in the queue."),
    "EXPEDITING": Words("The job is back in the queue."),
    "REQUEUE_FED": Words("The job is back in the queue of another cluster."),
    "RECONFIG_FAIL": Words("The node could not be made ready; the job is back in the queue."),
    "REQUEUE_HOLD": Words("The job is back in the queue, and held.", "Stop it, and start again."),
    "SPECIAL_EXIT": Words("The job is back in the queue, and held.", "Stop it, and start again."),
    "RESV_DEL_HOLD": Words("The job is held: its reservation was deleted.", "Start one without it.", "reservation"),
}


def refusal(printed: str, sent: Container[str] = frozenset(FIELDS_OF_SLURM)) -> Words:
    """Say in words why sbatch refused; *printed* is what it said, *sent* are the fields that Slurm was told of.

    The last error counts; one before it only where that one is general or not known. What is no error is a note of
    the site's, and a field that was left empty is never at fault.
    """
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    errors = [match[1] for line in lines if (match := _ERROR_LINE.match(line))]
    general = None
    for line in reversed(errors or lines):
        # Before "Job violates accounting/QOS policy" it names the limit, as squeue would.
        if limit := reasons.explain_limit(line):
            said = _refused(Words(*limit))
            return said if said.field in sent else said._replace(field="")
        if found := _first(_SBATCH, line, sent):
            return found
        general = general or _first(_SBATCH_IN_GENERAL, line, sent)
    return general or Words("Slurm refused this job.")


def is_answer(said: Words) -> bool:
    """Tell whether a `refusal` is about what was asked for; otherwise Slurm has not looked at it."""
    return said not in (_BUSY, _AWAY, _SLOW)


def fields_sent(request: Mapping[str, Any]) -> set[str]:
    """Return the fields of a stored request of which Slurm is told, for `refusal`; without a request, any may be."""
    return {name for name in FIELDS_OF_SLURM if request.get(name) or not request}


def _first(table: Sequence[tuple[str, Words]], line: str, sent: Container[str]) -> Words | None:
    for pattern, found in table:
        if re.search(pattern, line, re.IGNORECASE) and (not found.field or found.field in sent):
            return found
    return None


def _refused(pending: Words) -> Words:
    """Say of a job that was refused what is said of one that waits: there is nothing to cancel, nothing that starts."""
    sentence = re.sub(r", so (?:it|the job) will not start", "", pending.sentence)
    advice = pending.advice.removeprefix("Cancel it, and ").replace("It starts when", "Try again when")
    return Words(sentence, advice[:1].upper() + advice[1:], pending.field)


class JobFacts(NamedTuple):
    """What a sentence about a job may name: paths, names, and which of it is the person's own (fields)."""

    image: str
    environment: str
    node: str
    own: tuple[str, ...] = ()


def facts_of(request: Mapping[str, Any], site: Site, node: str) -> JobFacts:
    """Return what there is to name of a job with a stored *request*, of any version, on *node* (empty: not known)."""
    wanted = load(request)
    image = site.images.get(wanted.image)
    path = wanted.own_container or (image.path if image else wanted.image)
    mine = tuple(name for name in OWN if getattr(wanted, name))
    return JobFacts(path, wanted.own_environment or wanted.environment, node or "?", mine)


def launch_failure(code: int, facts: JobFacts) -> Words:
    """Say why a session could not be served."""
    tables = [_LAUNCHER_OWN[name] for name in ("own_environment", "own_container") if name in facts.own]
    known = next((table[code] for table in (*tables, _LAUNCHER) if code in table), None)
    if known is None:
        return Words(f"The server ended before it answered (exit code {code}).")
    named = facts._asdict()
    return Words(known.sentence.format(**named), known.advice.format(**named), known.field)


def given_up(reason: str, node: str = "?") -> Words | None:
    """Say why the hub gave a start or a session up; None for a *reason* of which something else says more."""
    said = _GIVEN_UP.get(reason)
    return said and said._replace(sentence=said.sentence.format(node=node))


def before_launcher(exit_code: int, node: str) -> Words:
    """Say why a job ended that ran and has not said anything: its script got no further than its first lines."""
    how = {
        126: "exit code 126: a program could not be run",
        127: "exit code 127: a program was not found",
    }.get(exit_code, f"exit code {exit_code}")
    where = "" if node == "?" else f" on node {node}"
    return Words(
        f"The job ended{where} before its launcher could begin ({how}).",
        "Tell support: the site's prologue ends the job, its python is not on the node, or the disk for temporary "
        "files is full. The log says which.",
    )


def pending(slurm_reason: str) -> Words:
    """Say why a job waits, what to do, and the field at fault; an unknown reason is shown as Slurm says it."""
    said = reasons.explain(slurm_reason)
    return Words(*said) if said else Words(f"Slurm says: {slurm_reason}.")


def reason(slurm_reason: str) -> str:
    """Say why a job waits, in one sentence."""
    return pending(slurm_reason).sentence


def state(slurm_state: str) -> Words:
    """Say what a job is doing; an unknown state is shown as Slurm says it."""
    return _STATE.get(slurm_state) or _END.get(slurm_state) or Words(f"Slurm says: {slurm_state}.")


def ending(state: str, by: str = "", exit_code: int = 0, signal: int = 0) -> Words:
    """Say how a job ended. *by* is who cancelled it; *exit_code* and *signal* are its batch script's."""
    if state == "FAILED" and signal == _NO_LOG_SIGNAL:
        return _NO_LOG
    words = _END.get(state) or _LOST.get(state) or Words(f"The job ended; Slurm says: {state}.")
    if state == "CANCELLED" and by:
        return words._replace(sentence=f"The job was cancelled by {by}.")
    if state == "FAILED" and signal == 9:
        return _KILLED
    if state == "FAILED" and (exit_code or signal):
        how = f"exit code {exit_code}" if exit_code else f"signal {signal}"
        return words._replace(sentence=f"The server ended with an error ({how}).")
    return words
