"""Slurm's states, reasons and errors, and the launcher's codes, as sentences that a student understands.

Pure tables. Slurm's own text always stands beneath, so a sentence may be plain where Slurm is exact.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Words(NamedTuple):
    """What happened, what to do about it, and the form's field at fault (empty: none)."""

    sentence: str
    advice: str = ""
    field: str = ""

    def __str__(self) -> str:
        """Join sentence and advice."""
        return f"{self.sentence} {self.advice}".strip()


# sbatch's messages (slurm_errno.c), matched anywhere in what it printed. The first match counts.
_SBATCH: tuple[tuple[str, Words], ...] = (
    (
        r"Invalid account or account/partition combination|Invalid account",
        Words(
            "Slurm does not let you charge jobs to this project.",
            "Check the project's name; a new membership takes until the next morning to reach the cluster.",
            "account",
        ),
    ),
    (
        r"Invalid partition|invalid partition specified",
        Words("Slurm has no such partition.", "Choose another one.", "partition"),
    ),
    (
        r"Required partition not available|partition .*(down|inactive)|partition configuration not available now",
        Words("This partition is closed at the moment.", "Choose another one, or try later.", "partition"),
    ),
    (
        # sbatch prints the line about nodes, too.
        r"Memory specification can ?not be satisfied",
        Words("No node of this partition has that much memory.", "Ask for less.", "memory"),
    ),
    (
        r"Requested node configuration is not available",
        Words(
            "No node of this partition can ever give what you ask for.",
            "Ask for fewer cores or no GPU, or choose another partition.",
            "partition",
        ),
    ),
    (
        r"QOSMaxSubmitJobPerUserLimit|MaxSubmitJobs|job submit limit|Job violates accounting/QOS policy",
        Words(
            "You have as many jobs here as you may have at a time.",
            "Stop one, or choose another partition.",
            "partition",
        ),
    ),
    (
        r"User's group not permitted to use this partition|not permitted to use this partition",
        Words("You may not use this partition.", "Choose another one.", "partition"),
    ),
    (
        r"Requested time limit is invalid|time limit",
        Words("The time is longer than this partition allows.", "Ask for less time.", "time"),
    ),
    (
        r"reservation",
        Words("You cannot use this reservation.", "Check its name, or leave the field empty.", "reservation"),
    ),
    (
        r"Invalid --begin|begin",
        Words("Slurm does not understand when to begin.", "Choose another time, or now.", "begin"),
    ),
    (
        r"Invalid generic resource|gres",
        Words("This partition does not have that GPU.", "Choose another partition, or no GPU.", "gpu"),
    ),
    (
        r"Unable to contact slurm controller|Connection refused|Socket timed out|can't be reached"
        r"|talking to the database",
        Words("Slurm is not answering.", "Try again in a few minutes; nothing was started."),
    ),
    (
        r"gave no answer in",
        Words("Slurm is too slow to answer.", "Try again in a few minutes; nothing was started."),
    ),
)

#: The launcher's code for a node that does not reach the hub: also what a job means that runs and is silent.
NO_HUB = 76

# The launcher's codes: {image}, {environment} and {node} are filled in.
_LAUNCHER: dict[int, Words] = {
    65: Words(
        "Neither apptainer nor singularity was found on node {node}.",
        "Tell support, or choose an image that needs no container.",
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
}

#: Exit codes with which a job says by itself why it cannot serve.
LAUNCHER_CODES = frozenset(_LAUNCHER)

# squeue(1), JOB REASON CODES.
_REASON: dict[str, str] = {
    "None": "Slurm is looking at your job.",
    "Resources": "Waiting for free cores or GPUs.",
    "Priority": "Other jobs are before yours in the queue.",
    "BeginTime": "Waiting for the time that you chose.",
    "ReqNodeNotAvail": "The nodes that you need are in use, reserved or under maintenance.",
    "PartitionDown": "This partition is closed at the moment.",
    "JobHeldUser": "Your job is held; release it with scontrol release.",
    "JobHeldAdmin": "An administrator holds your job.",
    "QOSMaxJobsPerUserLimit": "You have as many jobs running here as you may have at a time.",
    "AssocGrpCpuLimit": "Your project uses as many cores as it may.",
}

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
    # Not Slurm's: `life` says so of a job that is back in the queue after it had run.
    "REQUEUED": Words("The job was put back into the queue.", "Start again."),
}


def refusal(stderr: str) -> Words:
    """Say in words why sbatch refused; *stderr* is what it printed."""
    for pattern, words in _SBATCH:
        if re.search(pattern, stderr, re.IGNORECASE):
            return words
    return Words("Slurm refused this job.")


def launch_failure(code: int, **facts: str) -> Words:
    """Say why a session could not be served. *facts*: image, environment, node."""
    known = _LAUNCHER.get(code)
    if known is None:
        return Words(f"The server ended before it answered (exit code {code}).")
    return Words(known.sentence.format(**facts), known.advice, known.field)


def reason(slurm_reason: str) -> str:
    """Say why a job waits; a reason that is not in the table is shown as Slurm says it."""
    # Nodes may follow: "ReqNodeNotAvail, UnavailableNodes:s[1-2]".
    return _REASON.get(slurm_reason.partition(",")[0]) or f"Slurm says: {slurm_reason}."


def ending(state: str, by: str = "", exit_code: int = 0, signal: int = 0) -> Words:
    """Say how a job ended. *by* is who cancelled it; *exit_code* and *signal* are its batch script's."""
    if state == "FAILED" and signal == _NO_LOG_SIGNAL:
        return _NO_LOG
    words = _END.get(state) or Words(f"The job ended; Slurm says: {state}.")
    if state == "CANCELLED" and by:
        return words._replace(sentence=f"The job was cancelled by {by}.")
    if state == "FAILED" and signal == 9:
        return _KILLED
    if state == "FAILED" and (exit_code or signal):
        how = f"exit code {exit_code}" if exit_code else f"signal {signal}"
        return words._replace(sentence=f"The server ended with an error ({how}).")
    return words
