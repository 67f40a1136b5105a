"""Slurm's and the launcher's words, as sentences. The messages are those of Slurm 22.05.8's own library."""

from __future__ import annotations

import pytest

from snowyspawner import launcher, words
from snowyspawner.request import FIELDS
from snowyspawner.words import Words

FACTS = {"image": "/proj/{x}/a.sif", "environment": "tf-gpu", "node": "s1"}


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
    said = words.refusal(f"sbatch: error: Batch job submission failed: {stderr}")
    assert said.field == field
    assert said.sentence != words.refusal("").sentence
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
    said = words.refusal(stderr)
    assert said.field == field
    assert said != words.refusal("")


@pytest.mark.parametrize("stderr", ["", "sbatch: error: something new", "{node} %s"])
def test_an_unknown_refusal_blames_no_field(stderr: str) -> None:
    assert words.refusal(stderr) == Words("Slurm refused this job.")


def test_every_field_that_is_blamed_exists() -> None:
    blamed = {said.field for _, said in words._SBATCH} | {said.field for said in words._LAUNCHER.values()}
    assert blamed <= {"", *FIELDS}


@pytest.mark.parametrize("code", range(65, 80))
def test_every_code_of_the_launcher_s_has_a_sentence(code: int) -> None:
    said = words.launch_failure(code, **FACTS)
    assert said.sentence.endswith(".")
    assert said.advice
    # The facts are filled in, and what looks like a template in them is left as it is.
    assert "{" not in str(said).replace("{x}", "")
    assert code in words.LAUNCHER_CODES


def test_the_launcher_s_codes_are_those_that_have_words() -> None:
    codes = {value for name, value in vars(launcher).items() if name.isupper() and isinstance(value, int)}
    assert codes == words.LAUNCHER_CODES


def test_a_launch_failure_names_what_was_asked_for() -> None:
    assert "/proj/{x}/a.sif" in words.launch_failure(66, **FACTS).sentence
    assert "s1" in words.launch_failure(66, **FACTS).sentence
    assert "tf-gpu" in words.launch_failure(72, **FACTS).sentence
    assert words.launch_failure(72, **FACTS).field == "environment"


@pytest.mark.parametrize("code", [0, 1, 64, 80, 137, 255])
def test_any_other_code_is_the_server_s_own(code: int) -> None:
    assert str(words.launch_failure(code, **FACTS)) == f"The server ended before it answered (exit code {code})."


@pytest.mark.parametrize("reason", ["Resources", "Priority", "BeginTime", "PartitionDown", "JobHeldUser", "None"])
def test_a_reason_is_said_in_words(reason: str) -> None:
    # squeue(1), JOB REASON CODES
    assert "Slurm says" not in words.reason(reason)


def test_the_nodes_behind_a_reason_do_not_hide_it() -> None:
    # As squeue %r prints it (_unavail_nodes in slurmctld's node_scheduler.c)
    assert "maintenance" in words.reason("ReqNodeNotAvail, UnavailableNodes:s[1-2]")


@pytest.mark.parametrize("reason", ["SomethingNew", "{x}", ""])
def test_an_unknown_reason_is_shown_as_slurm_says_it(reason: str) -> None:
    assert words.reason(reason) == f"Slurm says: {reason}."


@pytest.mark.parametrize(
    "state",
    ["COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "PREEMPTED", "DEADLINE", "BOOT_FAIL"],
)
def test_every_end_has_a_sentence(state: str) -> None:
    # squeue(1), JOB STATE CODES
    assert words.ending(state).sentence
    assert "Slurm says" not in words.ending(state).sentence


def test_who_cancelled_is_named() -> None:
    assert words.ending("CANCELLED", "root").sentence == "The job was cancelled by root."
    assert words.ending("CANCELLED").sentence == "The job was cancelled."
    assert "root" not in words.ending("TIMEOUT", "root").sentence


def test_a_log_that_slurm_could_not_open_is_told_by_its_signal() -> None:
    # ExitCode 0:53 in sacct, as Slurm 22.05.8 leaves it
    said = words.ending("FAILED", "", 0, 53)
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
    assert words.ending("FAILED", "", exit_code, signal).sentence == sentence


def test_a_signal_of_slurm_s_own_does_not_hide_its_state() -> None:
    # sacct: "CANCELLED by 0|0:15", "OUT_OF_MEMORY|0:125"
    assert words.ending("CANCELLED", "root", 0, 15) == words.ending("CANCELLED", "root")
    assert words.ending("OUT_OF_MEMORY", "", 0, 125) == words.ending("OUT_OF_MEMORY")


def test_an_unknown_end_is_shown_as_slurm_says_it() -> None:
    assert words.ending("REVOKED").sentence == "The job ended; Slurm says: REVOKED."


def test_sentence_and_advice_are_joined() -> None:
    assert str(Words("A.", "B.")) == "A. B."
    assert str(Words("A.")) == "A."
