"""Slurm's and the launcher's words, as sentences. The messages are those of Slurm 22.05.8's own library."""

from __future__ import annotations

import ctypes
import re
import shutil
from pathlib import Path

import pytest

from snowyspawner.session import messages
from snowyspawner.session.messages import Words
from snowyspawner.site.fields import FIELDS
from snowyspawner.slurm import reasons
from snowyspawner.slurm.squeue import ENDED, STATE_STAGE, WAITING, stage_of
from snowyspawner.standalone import launcher

FACTS = messages.JobFacts(image="/proj/{x}/a.sif", environment="tf-gpu", node="s1")


@pytest.mark.parametrize(
    ("stderr", "field"),
    [
        # `strings libslurmfull.so`, 22.05.8-4+deb12u3, behind sbatch's "Batch job submission failed: %m"
        ("Invalid account or account/partition combination specified", "account"),
        ("Invalid partition name specified", "partition"),
        ("Required partition not available (inactive or drain)", "partition"),
        ("Requested partition configuration not available now", "partition"),
        ("User's group not permitted to use this partition", "partition"),
        ("Requested node configuration is not available", "partition"),
        ("Requested time limit is invalid (missing or exceeds some limit)", "time"),
        ("Requested reservation is invalid", "reservation"),
        ("Requested reservation not usable now", "reservation"),
        ("Access denied to requested reservation", "reservation"),
        ("Invalid generic resource (gres) specification", "gpu"),
        # What a second job in devcore gets, MaxSubmitJobsPerUser=1: it is not about time
        ("Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)", "partition"),
        ("Unable to contact slurm controller (connect failure)", ""),
        ("Unable to contact slurm controller (receive failure)", ""),
        ("Socket timed out on send/recv operation", ""),
    ],
)
def test_a_refusal_of_sbatch_s_is_shown_at_its_field(stderr: str, field: str) -> None:
    said = messages.refusal(f"sbatch: error: Batch job submission failed: {stderr}")
    assert said.field == field
    assert said.sentence != messages.refusal("").sentence
    assert said.advice


@pytest.mark.parametrize(
    ("stderr", "field"),
    [
        # Of sbatch itself and of other parts of Slurm
        ("sbatch: error: Invalid --begin specification", "begin"),
        ("sbatch: error: invalid partition specified: nosuch", "partition"),
        (
            "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates "
            "accounting/QOS policy (job submit limit, user's size and/or time limits)",
            "partition",
        ),
        (
            "sbatch: error: There is a problem talking to the database: Connection refused.  Only local cluster "
            "communication is available, remove --cluster from your command line or contact your admin",
            "",
        ),
        ("sbatch: error: 'snowy' can't be reached now, or it is an invalid entry for --cluster.", ""),
        ("sbatch gave no answer in 30 seconds", ""),  # SlurmTimeoutError
    ],
)
def test_other_refusals_are_known_too(stderr: str, field: str) -> None:
    said = messages.refusal(stderr)
    assert said.field == field
    assert said != messages.refusal("")


@pytest.mark.parametrize("stderr", ["", "sbatch: error: something new", "{node} %s"])
def test_an_unknown_refusal_blames_no_field(stderr: str) -> None:
    assert messages.refusal(stderr) == Words("Slurm refused this job.")


FAILED = "sbatch: error: Batch job submission failed: "
NODES = FAILED + "Requested node configuration is not available"
VIOLATES = FAILED + "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"


@pytest.mark.parametrize(
    "said",
    [
        # A site's plugins and wrappers write what they like, and any of Slurm's words may be in it.
        f"No reservation for this job\n{FAILED}Unspecified error",
        f"sbatch: reservation, gres, begin, time limit: see the manual\n{FAILED}Unspecified error",
        f"sbatch: lua: Requested reservation is invalid, using none\n{FAILED}Unspecified error",
        "sbatch: error: You are over quota, try again",
        "error: disk usage above the time limit of 7 days; begin to delete",
        "sbatch: error: your credential for the license server was refused",
        "sbatch: error: cannot find generic resource manager",
        f"sbatch: error: partition courses is down for this project\n{FAILED}Unspecified error",
    ],
)
def test_a_word_in_free_text_is_no_cause(said: str) -> None:
    assert messages.refusal(said) == Words("Slurm refused this job.")


@pytest.mark.parametrize(
    ("said", "sent", "field", "sentence"),
    [
        # The last error first; one before it where it says less.
        (
            f"sbatch: error: Invalid --begin specification\n{FAILED}Invalid partition name specified",
            *({"begin", "partition"}, "partition", "Slurm has no such partition."),
        ),
        (
            f"sbatch: error: Memory specification can not be satisfied\n{NODES}",
            *({"memory", "partition"}, "memory", "No node of this partition has that much memory."),
        ),
        # The Site gives memory with the cores: there is no field for it.
        (
            f"sbatch: error: Memory specification can not be satisfied\n{NODES}",
            *({"partition"}, "partition", "No node of this partition can ever give what you ask for."),
        ),
        # What was not sent is not at fault.
        (f"{FAILED}Requested reservation is invalid", {"partition"}, "", "Slurm refused this job."),
        (f"{FAILED}Invalid generic resource (gres) specification", {"partition"}, "", "Slurm refused this job."),
        (
            f"{FAILED}Invalid account or account/partition combination specified",
            *({"partition"}, "", "Slurm does not let you charge jobs to your own default project."),
        ),
        (
            f"sbatch: error: AssocMaxSubmitJobLimit\n{VIOLATES}",
            *({"partition"}, "", "You have as many jobs running or waiting in this project as you may have at a time."),
        ),
        # Behind an error, on standard output, with another program's name before it.
        (f"{FAILED}Invalid qos specification\nBye.", {"partition"}, "partition", "You may not send jobs of this class"),
        (f"{FAILED}Invalid qos specification", {"partition", "qos"}, "qos", "You may not send jobs of this QOS"),
        (f"{FAILED}Invalid feature specification", {"constraint"}, "constraint", "No node has what this constraint"),
        (f"{FAILED}Invalid feature specification", {"partition"}, "partition", "No node of this partition can ever"),
        ("error: Invalid qos specification", {"partition"}, "partition", "You may not send jobs of this class"),
        ("/opt/site/bin/sbatch: fatal: Invalid qos specification", {"partition"}, "partition", "You may not send jobs"),
    ],
)
def test_the_error_decides_and_only_a_field_that_was_sent(said: str, sent: set[str], field: str, sentence: str) -> None:
    found = messages.refusal(said, sent)
    assert found.field == field
    assert found.sentence.startswith(sentence)


def test_the_fields_that_slurm_is_told_of_are_those_that_have_a_value() -> None:
    request = {
        "account": None,
        "partition": "core",
        "cores": 4,
        "gpu": None,
        "gpu_count": 0,
        "image": "a",
        "begin": None,
    }
    assert messages.fields_sent(request) == {"partition", "cores"}


def test_every_field_that_is_blamed_exists() -> None:
    blamed = {said.field for _, said in messages._SBATCH} | {said.field for said in messages._LAUNCHER.values()}
    blamed |= {field for _, _, field in reasons._SAID.values()} | {said[2] for _, said in reasons._TEXT}
    blamed |= {resource.field for resource in reasons._RESOURCES.values()}
    assert blamed <= {"", *FIELDS}


@pytest.mark.parametrize("code", range(65, 80))
def test_every_code_of_the_launcher_s_has_a_sentence(code: int) -> None:
    said = messages.launch_failure(code, FACTS)
    assert said.sentence.endswith(".")
    assert said.advice
    # The facts are filled in, and what looks like a template in them is left as it is.
    assert "{" not in str(said).replace("{x}", "")
    assert code in messages.LAUNCHER_CODES


def test_the_launcher_s_codes_are_those_that_have_words() -> None:
    codes = {value for name, value in vars(launcher).items() if name.isupper() and isinstance(value, int)}
    assert codes == messages.LAUNCHER_CODES


def test_a_launch_failure_names_what_was_asked_for() -> None:
    assert "/proj/{x}/a.sif" in messages.launch_failure(66, FACTS).sentence
    assert "s1" in messages.launch_failure(66, FACTS).sentence
    assert "tf-gpu" in messages.launch_failure(72, FACTS).sentence
    assert messages.launch_failure(72, FACTS).field == "environment"


@pytest.mark.parametrize("code", [0, 1, 64, 90, 137, 255])
def test_any_other_code_is_the_server_s_own(code: int) -> None:
    assert str(messages.launch_failure(code, FACTS)) == f"The server ended before it answered (exit code {code})."


@pytest.mark.parametrize("reason", ["Resources", "Priority", "BeginTime", "PartitionDown", "JobHeldUser", "None"])
def test_a_reason_is_said_in_words(reason: str) -> None:
    # squeue(1), JOB REASON CODES
    assert "Slurm says" not in messages.reason(reason)


def test_the_nodes_behind_a_reason_do_not_hide_it() -> None:
    # As squeue %r prints it (_unavail_nodes in slurmctld's node_scheduler.c)
    assert "maintenance" in messages.reason("ReqNodeNotAvail, UnavailableNodes:s[1-2]")


@pytest.mark.parametrize("reason", ["SomethingNew", "{x}", ""])
def test_an_unknown_reason_is_shown_as_slurm_says_it(reason: str) -> None:
    assert messages.reason(reason) == f"Slurm says: {reason}."


@pytest.mark.parametrize(
    "state",
    ["COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "PREEMPTED", "DEADLINE", "BOOT_FAIL"],
)
def test_every_end_has_a_sentence(state: str) -> None:
    # squeue(1), JOB STATE CODES
    assert messages.ending(state).sentence
    assert "Slurm says" not in messages.ending(state).sentence


def test_who_cancelled_is_named() -> None:
    assert messages.ending("CANCELLED", "root").sentence == "The job was cancelled by root."
    assert messages.ending("CANCELLED").sentence == "The job was cancelled."
    assert "root" not in messages.ending("TIMEOUT", "root").sentence


def test_a_log_that_slurm_could_not_open_is_told_by_its_signal() -> None:
    # ExitCode 0:53 in sacct, as Slurm 22.05.8 leaves it
    said = messages.ending("FAILED", "", 0, 53)
    assert said.sentence == "Slurm could not write the job's log to your home directory."
    assert said.advice


@pytest.mark.parametrize(
    ("exit_code", "signal", "sentence"),
    [
        (0, 0, "The server ended with an error."),
        (3, 0, "The server ended with an error (exit code 3)."),
        (0, 15, "The server ended with an error (signal 15)."),
        (0, 9, "The server was killed."),  # "FAILED|0:9": Slurm 22.05.8's OverMemoryKill
    ],
)
def test_how_a_server_failed_is_told(exit_code: int, signal: int, sentence: str) -> None:
    assert messages.ending("FAILED", "", exit_code, signal).sentence == sentence


def test_a_signal_of_slurm_s_own_does_not_hide_its_state() -> None:
    # sacct: "CANCELLED by 0|0:15", "OUT_OF_MEMORY|0:125"
    assert messages.ending("CANCELLED", "root", 0, 15) == messages.ending("CANCELLED", "root")
    assert messages.ending("OUT_OF_MEMORY", "", 0, 125) == messages.ending("OUT_OF_MEMORY")


def test_an_unknown_end_is_shown_as_slurm_says_it() -> None:
    assert messages.ending("SOMETHING_NEW").sentence == "The job ended; Slurm says: SOMETHING_NEW."


def test_sentence_and_advice_are_joined() -> None:
    assert str(Words("A.", "B.")) == "A. B."
    assert str(Words("A.")) == "A."


# -- completeness, by the names that Slurm's own library gives ------------------------------------------------------

# job_state_string() knows the states, and looks at these bits of the same number for what else is the matter
# (slurm.h, JOB_STATE_BASE and JOB_STATE_FLAGS).
_STATES, _FLAGS = range(256), [1 << bit for bit in range(8, 32)]


def _library() -> ctypes.CDLL:
    # Debian's slurm-wlm-basic-plugins, and where Slurm's own build and its RPMs put it.
    directories = [*Path("/usr/lib").glob("*/slurm*"), Path("/usr/lib64/slurm"), Path("/usr/local/lib/slurm")]
    found = [each / "libslurmfull.so" for each in directories if (each / "libslurmfull.so").exists()]
    if not found and not shutil.which("sinfo"):
        pytest.skip("no Slurm on this machine")
    assert found, "Slurm is installed, but its library was not found"
    return ctypes.CDLL(str(found[0]))


def _names(function: str, numbers: list[int]) -> list[str]:
    named = getattr(_library(), function)
    named.restype, named.argtypes = ctypes.c_char_p, [ctypes.c_uint32]
    return list(dict.fromkeys(named(number).decode() for number in numbers))


def test_every_reason_that_slurm_knows_has_words() -> None:
    # Beyond its last one it gives the number, or InvalidReason (25.05).
    names = [
        n for n in _names("slurm_job_reason_string", list(range(1000))) if not re.fullmatch(r"\d+|InvalidReason", n)
    ]
    assert len(names) > 150
    assert {"Resources", "Priority", "AssocGrpCpuLimit", "QOSMaxGRESPerUser"} <= set(names)
    for name in names:
        said = messages.pending(name)
        assert "Slurm says" not in said.sentence, name
        assert re.fullmatch(r"[A-Z].*[.]", said.sentence), name
        assert not said.advice or re.fullmatch(r"[A-Z].*[.]", said.advice), name
        assert said.field in {"", *FIELDS}, name


def test_every_state_that_slurm_knows_has_a_phase_and_words() -> None:
    names = [n for n in _names("slurm_job_state_string", [*_STATES, *_FLAGS]) if n != "?"]
    assert len(names) >= 24
    assert {"PENDING", "OUT_OF_MEMORY", "REQUEUE_HOLD", "CONFIGURING", "COMPLETING"} <= set(names)
    for name in names:
        assert stage_of(name) != "unknown", name
        assert "Slurm says" not in messages.state(name).sentence, name
        assert stage_of(name) != "over" or "Slurm says" not in messages.ending(name).sentence, name


def test_states_and_phases_have_the_same_names() -> None:
    assert set(STATE_STAGE) == set(messages._STATE) | set(messages._END)
    assert set(messages._END) == ENDED
    assert not ENDED & WAITING


@pytest.mark.parametrize(
    ("state", "phase"),
    [
        *(("PENDING", "waiting"), ("REQUEUE_HOLD", "waiting"), ("CONFIGURING", "starting"), ("RUNNING", "running")),
        *(("SUSPENDED", "suspended"), ("COMPLETING", "stopping"), ("TIMEOUT", "over"), ("SOMETHING_NEW", "unknown")),
    ],
)
def test_a_state_stands_somewhere_in_a_job_s_life(state: str, phase: str) -> None:
    assert stage_of(state) == phase


def test_a_state_never_seen_before_is_alive_and_shown_as_slurm_says_it() -> None:
    assert "SOMETHING_NEW" not in ENDED | WAITING
    assert messages.state("SOMETHING_NEW") == Words("Slurm says: SOMETHING_NEW.")


@pytest.mark.parametrize(
    ("reason", "sentence", "field"),
    [
        ("AssocGrpCpuLimit", "With this job, your project would use more cores than it may at a time.", "cores"),
        ("AssocGrpCPUMinutesLimit", "Your project has too few core-hours left for this job.", "account"),
        ("AssocGrpMemMinutes", "Your project has too few memory-hours left for this job.", "account"),
        ("QOSMaxGRESPerUser", "With this job, you would use more GPUs than you may at a time.", "gpu"),
        ("MaxCpuPerAccount", "With this job, your project would use more cores than it may at a time.", "cores"),
        ("MaxCpuRunMinsPerUser", "With this job, you would hold more core-hours than you may at a time.", "time"),
        ("QOSMinMemory", "The job asks for less memory than a job of this class (QOS) must have.", "memory"),
        ("AssocMaxJobsLimit", "You have as many jobs running in this project as you may have at a time.", "account"),
        ("QOSMaxJobsPerUserLimit", "You have as many jobs running here as you may have at a time.", "partition"),
        (
            "AssocMaxWallDurationPerJobLimit",
            *("The time is longer than a job of your project may have, so the job will not start.", "time"),
        ),
        (
            "QOSMaxCpuPerNode",
            "The job asks for more cores on one node than a job of this class (QOS) may have, so it will not start.",
            "cores",
        ),
    ],
)
def test_a_limit_is_built_from_its_parts(reason: str, sentence: str, field: str) -> None:
    assert messages.pending(reason)[0] == sentence
    assert messages.pending(reason).field == field
    assert messages.pending(reason).advice


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        # Free text of slurmctld's (state_desc; 22.05 and 25.05)
        ("ReqNodeNotAvail, Reserved for maintenance", "Maintenance"),
        ("ReqNodeNotAvail, May be reserved for other job", "reservation"),
        ("Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions", "order"),
        ("Reservation uppmax2022-2-18_4 was deleted", "deleted"),
        ("RaisedSignal:9(Killed)", "killed"),
        ("uid 1001 not in group permitted to use this partition (gpu). groups allowed: staff", "may not use"),
        ("launch failed requeued held", "failed to start"),
    ],
)
def test_free_text_of_slurm_s_is_understood(reason: str, word: str) -> None:
    assert word in messages.pending(reason).sentence
    assert "Slurm says" not in messages.reason(reason)


@pytest.mark.parametrize("reason", ["AssocGrpBananaLimit", "QOSMaxCpuPerMoon", "MaxMemory!", "SomethingNew"])
def test_a_limit_never_seen_before_is_shown_as_slurm_says_it(reason: str) -> None:
    assert messages.pending(reason) == Words(f"Slurm says: {reason}.")


def test_a_refusal_names_the_limit_and_nothing_to_cancel() -> None:
    stderr = (
        "sbatch: error: QOSMaxCpuPerJobLimit\nsbatch: error: Batch job submission failed: Job violates "
        "accounting/QOS policy (job submit limit, user's size and/or time limits)"
    )
    assert messages.refusal(stderr) == Words(
        "The job asks for more cores than a job of this class (QOS) may have.", "Ask for less.", "cores"
    )
