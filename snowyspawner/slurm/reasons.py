"""Why a job waits: Slurm's reasons as sentence, advice and the form's field at fault. Pure tables.

The names are those of job_reason_string() (Slurm 20.02 to 26.05; "Job Reason Codes" in Slurm's documentation). The
many that name a limit (``AssocGrpCpuLimit``, ``QOSMaxGRESPerUser``) are built from their parts: whose limit, of what
kind, on what.
"""

from __future__ import annotations

import re
from typing import NamedTuple

#: Sentence, advice, field.
Said = tuple[str, str, str]

_WAIT = "It starts by itself; you may close this page."
_SUPPORT = "Tell support."
_SHORTER = "Cancel it, and start one with less time."
_OTHER_PARTITION = "Cancel it, and choose another partition."
_ANOTHER_PROJECT = "Cancel it, and choose another project."
_LESS_OR_OTHER = "Cancel it, and ask for less, or choose another partition."

_SAID: dict[str, Said] = {
    "None": ("Slurm is looking at your job.", "", ""),
    "Priority": ("Other jobs are before yours in the queue.", _WAIT, ""),
    "Resources": ("Waiting for free cores or GPUs.", _WAIT, ""),
    "BeginTime": ("Waiting for the time that you chose.", _WAIT, ""),
    "ReqNodeNotAvail": (
        "The nodes that you need are in use, reserved or under maintenance.",
        "If it does not start soon, ask for less time, or choose another partition.",
        "partition",
    ),
    "NodeDown": ("A node that your job needs is out of order.", "Wait, or choose another partition.", "partition"),
    "FrontEndDown": ("A machine that your job needs is out of order.", "Wait, or tell support.", ""),
    "PartitionDown": ("This partition is closed at the moment.", "Wait, or choose another one.", "partition"),
    "PartitionInactive": ("This partition is closed at the moment.", "Wait, or choose another one.", "partition"),
    "PartitionNodeLimit": (
        "This partition does not give a job that many nodes, or its nodes are out of order.",
        *(_LESS_OR_OTHER, "partition"),
    ),
    "PartitionTimeLimit": (
        "The time is longer than this partition allows, so the job will not start.",
        *("Cancel it, and start one with less time, or in another partition.", "time"),
    ),
    "PartitionConfig": (
        "The job asks for something that this partition does not allow, so it will not start.",
        *(_LESS_OR_OTHER, "partition"),
    ),
    "BadConstraints": (
        "No node of this partition can ever give what the job asks for, so it will not start.",
        *(_LESS_OR_OTHER, "partition"),
    ),
    "Constraints": ("No node of the kind that the job asks for is free.", _WAIT, ""),
    "MaxMemPerLimit": (
        "The job asks for more memory than it may for its cores.",
        "Cancel it, and ask for less.",
        "memory",
    ),
    "JobHeldUser": (
        "Your job is held; release it with scontrol release.",
        "If you did not hold it, cancel it, and start again.",
        "",
    ),
    "JobHeldAdmin": ("An administrator holds your job.", _SUPPORT, ""),
    "JobHoldMaxRequeue": ("Your job failed to start several times and is held.", "Cancel it, and start again.", ""),
    "Dependency": ("Waiting for another job that it depends on.", "", ""),
    "DependencyNeverSatisfied": ("The job that it depends on has failed, so it will not start.", "Cancel it.", ""),
    "JobArrayTaskLimit": ("As many jobs of this array are running as may at a time.", _WAIT, ""),
    "Licenses": ("Waiting for a license that is in use.", _WAIT, ""),
    "Reservation": ("Waiting for its reservation to begin.", "If that is long ago, check its name.", "reservation"),
    "ReservationDeleted": ("Its reservation was deleted.", "Cancel it, and start one without it.", "reservation"),
    "ReservationInvalid": (
        "Its reservation is no longer valid.",
        "Cancel it, and start one without it.",
        "reservation",
    ),
    "InvalidAccount": ("Slurm does not let you charge jobs to this project.", _ANOTHER_PROJECT, "account"),
    "AccountNotAllowed": ("This project may not use this partition.", _LESS_OR_OTHER, "partition"),
    "InvalidQOS": ("Slurm does not know the class (QOS) of your job.", _SUPPORT, "partition"),
    "QOSNotAllowed": ("Jobs of this class (QOS) may not use this partition.", _OTHER_PARTITION, "partition"),
    "QOSUsageThreshold": ("Your project has used so much that this class (QOS) of job is closed to it.", "", "account"),
    "AccountingPolicy": ("The job is above a limit of yours or of your project's.", "Ask for less, or wait.", ""),
    "AssociationJobLimit": (
        "As many jobs are running in your project as may at a time.",
        "It starts when one of them ends.",
        "account",
    ),
    "AssociationResourceLimit": (
        "Your project uses as much as it may at a time.",
        "Wait until other jobs of the project end, or ask for less.",
        "account",
    ),
    "AssociationTimeLimit": ("Your project has not enough time left for this job.", _ANOTHER_PROJECT, "account"),
    "QOSJobLimit": ("As many jobs of this class (QOS) are running as may at a time.", _WAIT, "partition"),
    "QOSResourceLimit": (
        "The jobs of this class (QOS) use as much as they may at a time.",
        *("Wait, or ask for less.", "partition"),
    ),
    "QOSTimeLimit": ("The jobs of this class (QOS) have used up their time.", _OTHER_PARTITION, "partition"),
    "Cleaning": ("Slurm is still cleaning up after the job's last run.", _WAIT, ""),
    "Prolog": ("The node is being made ready.", "This takes a moment.", ""),
    "SchedDefer": ("Slurm will look for a place soon.", _WAIT, ""),
    "FedJobLock": ("The clusters are agreeing on where your job runs.", "This takes a moment.", ""),
    "BurstBufferResources": ("Waiting for room in the fast storage (burst buffer).", _WAIT, ""),
    "BurstBufferStageIn": ("Files are being copied to the fast storage (burst buffer).", _WAIT, ""),
    "BurstBufferOperation": ("The fast storage (burst buffer) failed.", _SUPPORT, ""),
    "PowerNotAvail": ("Waiting for electric power that other jobs use.", _WAIT, ""),
    "PowerReserved": ("Waiting for electric power that is reserved.", _WAIT, ""),
    "MaxPoweredUpNodes": ("As many nodes are switched on as may be at a time.", _WAIT, ""),
    "MpiPortsBusy": ("Waiting for network ports that other jobs use.", _WAIT, ""),
    "NvidiaImexChannels": ("Waiting for a connection between GPUs that other jobs use.", _WAIT, ""),
    "BlockMaxError": ("The nodes that your job needs had too many errors.", _SUPPORT, ""),
    "BlockFreeAction": ("The nodes that your job needs are being made free.", _WAIT, ""),
    "DeadLine": ("The job cannot end before its deadline any more.", "Cancel it, and start again.", "time"),
    # Of jobs that are over, or back in the queue after it
    "SystemFailure": (
        "Slurm itself, a file system or the network failed.",
        "Start again; if it stays, tell support.",
        "",
    ),
    "JobLaunchFailure": (
        "The job could not be launched on its node.",
        "Start again; if it stays, tell support.",
        "",
    ),
    "NonZeroExitCode": ("The server ended with an error.", "Start again.", ""),
    "RaisedSignal": ("The server was killed.", "Start again.", ""),
    "TimeLimit": ("The job reached its time limit.", "Start again with more time.", "time"),
    "InactiveLimit": ("The job was not active for too long.", "Start again.", ""),
    "OutOfMemory": ("The job used more memory than it had.", "Start again with more memory or more cores.", "memory"),
}

# Free text that slurmctld writes in place of a name (state_desc; Slurm 20.02 to 25.05). The first match counts.
_TEXT: tuple[tuple[str, Said], ...] = (
    (
        r"ReqNodeNotAvail, Reserved for maintenance",
        (
            "Maintenance is planned, and the job would not end before it.",
            "Ask for less time, so that it ends before, or wait.",
            "time",
        ),
    ),
    (
        r"ReqNodeNotAvail, May be reserved",
        (
            "The nodes that you need are kept for a reservation or another job.",
            "Ask for less time, or choose another partition.",
            "partition",
        ),
    ),
    (
        r"Nodes required for job are DOWN, DRAINED or reserved",
        (
            "The nodes that you need are out of order, or kept for jobs before yours.",
            *("Wait, or choose another partition.", "partition"),
        ),
    ),
    (r"Reservation \S+ was deleted", _SAID["ReservationDeleted"]),
    (r"Reservation \S+ is invalid", _SAID["ReservationInvalid"]),
    (
        r"Reservation \S+, which this job was running under, has ended",
        ("Its reservation has ended.", "Start one without it.", "reservation"),
    ),
    (
        r"not in group permitted to use this partition",
        ("You may not use this partition.", "Cancel it, and choose another one.", "partition"),
    ),
    (
        r"Job is at or exceeds",
        ("The job reached a limit of yours or of your project's.", "Choose another project.", "account"),
    ),
    (r"(?i)launch failed requeued held|job requeued in held state", _SAID["JobHoldMaxRequeue"]),
    (r"burst.?buffer|stage-(?:in|out)", _SAID["BurstBufferOperation"]),
)

# Whose limit, of what kind, on what, counted how.
_LIMIT = re.compile(
    r"(?P<whose>Assoc|QOS|)(?P<kind>Grp|Max|Min)"
    r"(?P<what>Cpu|CPU|Mem(?:ory)?|Node|GRES|License|BB|Billing|Energy|Unknown|SubmitJobs?|Jobs?|Wall(?:Duration)?)"
    r"(?P<time>RunMinutes|RunMins|Minutes)?(?P<per>PerJob|PerNode|PerUser|PerAccount)?(?:Limit|NotSatisfied)?"
)


class _Resource(NamedTuple):
    name: str  # "more … than"
    time: str  # what its minutes are called
    field: str
    many: bool = True  # fewer, or less


_RESOURCES = {
    "cpu": _Resource("cores", "core-hours", "cores"),
    "mem": _Resource("memory", "memory-hours", "memory", many=False),
    "node": _Resource("nodes", "node-hours", ""),
    "gres": _Resource("GPUs", "GPU-hours", "gpu"),
    "license": _Resource("licenses", "license-hours", ""),
    "bb": _Resource("fast storage (burst buffer)", "fast storage (burst buffer)", "", many=False),
    "billing": _Resource("cost units (billing)", "cost units (billing)", "cores"),
    "energy": _Resource("energy", "energy", "", many=False),
    "unknown": _Resource("of some resource", "of some resource", "", many=False),
}


def explain(reason: str) -> Said | None:
    """Say in words why a job waits; None for a reason that is not known. *reason* is squeue's ``%r``."""
    for pattern, said in _TEXT:
        if re.search(pattern, reason):
            return said
    # Nodes may follow: "ReqNodeNotAvail, UnavailableNodes:s[1-2]"; or a signal: "RaisedSignal:9(Killed)".
    name = re.split(r"[,:]", reason, maxsplit=1)[0].strip()
    return _SAID.get(name) or explain_limit(name)


def explain_limit(name: str) -> Said | None:
    """Say in words which limit a job is above; None when *name* names none. sbatch prints these names, too."""
    match = _LIMIT.fullmatch(name)
    if not match:
        return None
    whose, kind, what = match["whose"], match["kind"], match["what"].lower()
    if what.startswith(("job", "submit")):
        return _jobs(whose, kind, match["per"] or "", submitted=what.startswith("submit"))
    if what.startswith("wall"):
        return _wall(whose, kind)
    resource = _RESOURCES["mem" if what == "memory" else what]
    if kind == "Min":
        fewer = "fewer" if resource.many else "less"
        return (
            f"The job asks for {fewer} {resource.name} than a job of this class (QOS) must have.",
            *("Cancel it, and ask for more.", resource.field),
        )
    if kind == "Max" and match["per"] in ("PerJob", "PerNode"):
        return _too_much(whose, resource, match["per"], bool(match["time"]))
    return _together(whose, kind, resource, match["time"] or "", match["per"] or "")


def _too_much(whose: str, resource: _Resource, per: str, time: bool) -> Said:
    """Of one job: it does not start, however long it waits."""
    owner = "of your project" if whose == "Assoc" else "of this class (QOS)"
    amount = resource.time if time else resource.name
    where = " on one node" if per == "PerNode" else ""
    advice = f"Cancel it, and ask for less time{_or_fewer(resource)}." if time else "Cancel it, and ask for less."
    return (
        f"The job asks for more {amount}{where} than a job {owner} may have, so it will not start.",
        *(advice, "time" if time else resource.field),
    )


def _together(whose: str, kind: str, resource: _Resource, time: str, per: str) -> Said:
    """Of several jobs together: it starts when others have ended, or when the month is over."""
    if per == "PerUser":
        owner, they, others = "you", "you", "your other jobs"
    elif per == "PerAccount" or whose == "Assoc":
        owner, they, others = "your project", "it", "other jobs of the project"
    else:
        owner, they, others = "the jobs of this class (QOS)", "they", "others"
    field = "account" if they == "it" else resource.field
    if time == "Minutes":
        have = "has" if they == "it" else "have"
        little = "few" if resource.many or resource.time.endswith("-hours") else "little"
        return (
            f"{owner[0].upper()}{owner[1:]} {have} too {little} {resource.time} left for this job.",
            f"Cancel it, and ask for less time{_or_fewer(resource)}, or choose another project.",
            "account" if they == "it" else "time",
        )
    if time:
        return (
            f"With this job, {owner} would hold more {resource.time} than {they} may at a time.",
            f"Wait until {others} end, or ask for less time{_or_fewer(resource)}.",
            "time",
        )
    less = f"fewer {resource.name}" if resource.many and resource.field not in ("", "cores") else "less"
    less = "fewer cores" if resource.name == "cores" else less
    return (
        f"With this job, {owner} would use more {resource.name} than {they} may at a time.",
        f"Wait until {others} end, or ask for {less}.",
        resource.field or field,
    )


def _or_fewer(resource: _Resource) -> str:
    return {"cores": " or fewer cores", "memory": " or less memory", "GPUs": " or fewer GPUs"}.get(resource.name, "")


def _jobs(whose: str, kind: str, per: str, submitted: bool) -> Said:
    have = "running or waiting" if submitted else "running"
    advice = "Stop one, or choose another project." if submitted else "It starts when one of them ends."
    if kind == "Grp" and whose == "Assoc":
        return f"Your project has as many jobs {have} as it may have at a time.", advice, "account"
    if per == "PerAccount":
        return f"Your project has as many jobs of this class (QOS) {have} as it may have.", advice, "account"
    if kind == "Grp":
        return f"As many jobs of this class (QOS) are {have} as may be at a time.", _WAIT, "partition"
    if whose == "Assoc":
        return f"You have as many jobs {have} in this project as you may have at a time.", advice, "account"
    advice = "Stop one, or choose another partition." if submitted else "It starts when one of them ends."
    return f"You have as many jobs {have} here as you may have at a time.", advice, "partition"


def _wall(whose: str, kind: str) -> Said:
    if kind == "Grp":
        owner = "Your project has" if whose == "Assoc" else "The jobs of this class (QOS) have"
        field = "account" if whose == "Assoc" else "partition"
        return f"{owner} not enough time left for this job.", "Cancel it, and ask for less time.", field
    owner = "a job of your project" if whose == "Assoc" else "a job of this class (QOS)"
    return f"The time is longer than {owner} may have, so the job will not start.", _SHORTER, "time"
