"""Slurm's commands: parsers against their output, and the client against small programs that stand in for them.

Where a sample comes from stands beside it: the manual, or the message texts of Slurm 22.05.8's own library and
programs (``strings``), filled in by hand. The tests of the real thing are in tests/cluster.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from snowyspawner.slurm import client as client_module
from snowyspawner.slurm.accounting import JobEnd, parse_sacct
from snowyspawner.slurm.client import (
    ASK,
    KILL,
    SCRIPT_LIMIT,
    SlurmClient,
    SlurmError,
    SlurmTimeoutError,
    SlurmUnsureError,
    prefix_for,
)
from snowyspawner.slurm.sbatch import parse_job_id
from snowyspawner.slurm.squeue import ENDED, SQUEUE_FORMAT, WAITING, JobRow, parse_jobs, parse_squeue

# -- sbatch --parsable -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("17\n", ("17", "")),  # sbatch(1), --parsable
        ("17;snowy\n", ("17", "snowy")),  # the same, with -M snowy
        ("  17  \n", ("17", "")),
        # sbatch(1): what a submit plugin has to say is printed, too; so does a wrapper of the site's, also afterwards
        ("sbatch: Using default account\n17;snowy\n", ("17", "snowy")),
        ("17\nThis job costs 4 core-hours. 120 are left.\n", ("17", "")),
        ("Hello, ann.\r\n17;snowy\r\nHave a nice day.\r\n", ("17", "snowy")),
        # sbatch(1) without --parsable, which a wrapper may drop
        ("Submitted batch job 17\n", ("17", "")),
        ("Submitted batch job 17 on cluster snowy\n", ("17", "snowy")),
        ("sbatch: Submitted batch job 17 on cluster snowy_2.\n", ("17", "snowy_2")),
        # What says more goes before a number alone
        ("2026\n17;snowy\n", ("17", "snowy")),
        ("Submitted batch job 17\n4\n", ("17", "")),
        ("17\n17\n", ("17", "")),
    ],
)
def test_a_job_id_is_read(output: str, expected: tuple[str, str]) -> None:
    assert parse_job_id(output) == expected
    # A wrapper may put its own words, and sbatch's, on the other stream.
    assert parse_job_id("", output) == expected
    assert parse_job_id(output, "sbatch: 4 jobs are before yours\n99\n") == expected


@pytest.mark.parametrize("output", ["", "\n", "17;\n", "17;a b\n", "-1\n", "0\n", "17 18\n", "job 17\n", "17\n18\n"])
def test_anything_else_is_no_job_id(output: str) -> None:
    with pytest.raises(ValueError, match="no job id"):
        parse_job_id(output)
    with pytest.raises(ValueError, match="no job id"):
        parse_job_id("welcome\n", output)


# -- squeue ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "rows"),
    [
        ("", []),
        # squeue(1): %i %T %B %S %r, SLURM_TIME_FORMAT=%s; %B is n/a and %S may be N/A while the job waits
        ("17|PENDING|n/a|N/A|Resources\n", [JobRow("17", "PENDING", "", None, "Resources")]),
        ("17|RUNNING|s1|1790848800|None\n", [JobRow("17", "RUNNING", "s1", 1790848800, "None")]),
        ("17|PENDING|n/a|1790848800|BeginTime\n", [JobRow("17", "PENDING", "", 1790848800, "BeginTime")]),
        ("17|COMPLETED|s1|1790848800|None\n", [JobRow("17", "COMPLETED", "s1", 1790848800, "None")]),
        # With -M, before Slurm 20.02 in spite of -h
        (
            "CLUSTER: snowy\n17|RUNNING|s1|1790848800|None\nCLUSTER: rackham\n",
            [JobRow("17", "RUNNING", "s1", 1790848800, "None")],
        ),
        # Without -h, were it ever forgotten
        ("JOBID|STATE|EXEC_HOST|START_TIME|REASON\n", []),
        # squeue(1): the reason is free text and may hold anything
        (
            "17|PENDING|n/a|N/A|ReqNodeNotAvail, UnavailableNodes:s[1-2]\n18|PENDING|n/a|N/A|a|b|c\n",
            [
                JobRow("17", "PENDING", "", None, "ReqNodeNotAvail, UnavailableNodes:s[1-2]"),
                JobRow("18", "PENDING", "", None, "a|b|c"),
            ],
        ),
        ("17|PENDING|n/a|N/A|\n", [JobRow("17", "PENDING", "", None, "")]),
        # Blanks of a column that was wider
        (" 17 |RUNNING|s1 | 1790848800|None\n", [JobRow("17", "RUNNING", "s1", 1790848800, "None")]),
        # Elements of arrays are never ours
        ("17_4|RUNNING|s1|1790848800|None\n17|RUNNING|s1\nslurm_load_jobs error: x\n\n", []),
    ],
)
def test_squeue_is_read(output: str, rows: list[JobRow]) -> None:
    assert parse_squeue(output) == {row.job_id: row for row in rows}


@pytest.mark.parametrize(
    ("output", "ids"),
    [
        ("17|RUNNING|s1|1|None\n18|PENDING|n/a|N/A|Priority\n19|COMPLETED|s1|1|None\n", ["17", "18"]),
        # squeue(1): job arrays, https://slurm.schedmd.com/job_array.html; heterogeneous jobs: heterogeneous_jobs.html
        ("9_3|RUNNING|s1|1|None\n9_[4-6]|PENDING|n/a|N/A|Resources\n", ["9_3", "9_4", "9_5", "9_6"]),
        (
            "9_[0-4000000]|PENDING|n/a|N/A|Resources\n9_[5-1]|PENDING|n/a|N/A|x\n",
            [f"9_{task}" for task in range(1000)],
        ),
        ("9_[0-9:3,20%2]|PENDING|n/a|N/A|JobArrayTaskLimit\n", ["9_0", "9_3", "9_6", "9_9", "9_20"]),
        ("14+0|RUNNING|s1|1|None\n14+1|RUNNING|s2|1|None\n", ["14"]),
        ("9_3|FAILED|s1|1|None\nCLUSTER: snowy\nJOBID|STATE\n9_[x]|PENDING|n/a|N/A|x\n\n", []),
    ],
)
def test_every_job_that_is_not_over_counts(output: str, ids: list[str]) -> None:
    assert parse_jobs(output) == ids


# -- sacct -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "ends"),
    [
        ("", {}),
        # sacct(1), -X -n -P: JOB STATE CODES, "CANCELLED by" a uid, ExitCode is code:signal
        ("17|COMPLETED|0:0\n", {"17": JobEnd("COMPLETED", 0, 0)}),
        ("17|FAILED|66:0\n", {"17": JobEnd("FAILED", 66, 0)}),
        ("17|TIMEOUT|0:0\n", {"17": JobEnd("TIMEOUT", 0, 0)}),
        ("17|CANCELLED by 1001|0:15\n", {"17": JobEnd("CANCELLED", 0, 15, "1001")}),
        ("17|CANCELLED|0:0\n", {"17": JobEnd("CANCELLED", 0, 0)}),
        ("17|OUT_OF_MEMORY|0:125\n", {"17": JobEnd("OUT_OF_MEMORY", 0, 125)}),
        ("17|RUNNING|0:0\n18|PENDING|0:0\n19|NODE_FAIL|1:0\n", {"19": JobEnd("NODE_FAIL", 1, 0)}),
        # sacct(1): a state that was cut off ends in +; requeued jobs have a row for each run, and the last counts
        ("17|CANCELLED+|0:0\n", {"17": JobEnd("CANCELLED", 0, 0)}),
        ("17|NODE_FAIL|1:0\n17|COMPLETED|0:0\n", {"17": JobEnd("COMPLETED", 0, 0)}),
        # Steps have names behind a dot, should -X ever be forgotten
        ("17.batch|COMPLETED|0:0\nJobIDRaw|State|ExitCode\n17|COMPLETED\n\n", {}),
        ("17|COMPLETED|\n", {"17": JobEnd("COMPLETED", 0, 0)}),
    ],
)
def test_sacct_is_read(output: str, ends: dict[str, JobEnd]) -> None:
    assert parse_sacct(output) == ends


def test_no_state_is_both_over_and_waiting() -> None:
    assert not ENDED & WAITING


# -- whom a command runs as --------------------------------------------------------------------------------------

SOMEBODY = pwd.struct_passwd(("somebody", "x", 4711, 4712, "", "/home/somebody", "/bin/sh"))


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executable: Callable[..., Path]) -> Path:
    """A PATH with nothing on it but what the test writes."""
    for name in ("setpriv", "sudo"):
        executable(name, "#!/bin/sh\n")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


def test_a_hub_of_root_s_uses_setpriv(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    expected = [f"{path}/setpriv", "--reuid", "4711", "--regid", "4712", "--init-groups", "--"]
    assert prefix_for(SOMEBODY, ["A"]) == expected


def test_a_hub_of_the_person_s_own_needs_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert prefix_for(SOMEBODY, ["A"]) == []


def test_a_hub_of_a_service_account_uses_sudo_with_the_variables_by_name(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 999)
    sudo = f"{path}/sudo"
    # Slurm's own variables go along with every command.
    slurms = "LC_ALL,SLURM_CONF,SLURM_TIME_FORMAT"
    assert prefix_for(SOMEBODY) == [sudo, "-n", f"--preserve-env={slurms}", "-u", "somebody", "--"]
    # The names only: values would be seen by ps.
    assert prefix_for(SOMEBODY, {"B": "secret", "A": "1"}) == [
        sudo,
        "-n",
        f"--preserve-env=A,B,{slurms}",
        "-u",
        "somebody",
        "--",
    ]


def test_a_missing_sudo_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 999)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmError, match="sudo is not on the hub's PATH"):
        prefix_for(SOMEBODY)


# -- the client --------------------------------------------------------------------------------------------------


@dataclass
class StandIns:
    """Stands in for Slurm's commands: programs that note what they were given and answer what the test sets."""

    directory: Path

    def answer(self, command: str, out: str = "", err: str = "", code: int = 0, then: str = "") -> None:
        for name, text in (("out", out), ("err", err)):
            (self.directory / f"{command}.{name}").write_text(text)
        program = self.directory / command
        program.write_text(
            "#!/bin/sh\n"
            f'd={self.directory}/{command}\nfor word in "$@"; do printf "%s\\n" "$word"; done > $d.argv\n'
            f"env > $d.env; umask > $d.umask; pwd > $d.cwd; cat > $d.stdin; echo $$ > $d.pid\n{then}\n"
            f"cat $d.out; cat $d.err >&2; exit {code}\n"
        )
        program.chmod(0o755)

    def note(self, command: str, what: str) -> str:
        return (self.directory / f"{command}.{what}").read_text()

    def argv(self, command: str) -> list[str]:
        return self.note(command, "argv").splitlines()

    def env(self, command: str) -> dict[str, str]:
        pairs = dict(line.partition("=")[::2] for line in self.note(command, "env").splitlines())
        # The shell of the stand-in sets these itself.
        return {name: value for name, value in pairs.items() if name not in ("PWD", "OLDPWD", "SHLVL", "_")}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    directory = tmp_path / "slurm"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")
    monkeypatch.delenv("SLURM_CONF", raising=False)
    # What a hub started by hand may have; any of them would change what squeue prints.
    for name in ("SQUEUE_FORMAT", "SLURM_CLUSTERS", "SQUEUE_STATES", "SBATCH_PARTITION", "SACCT_FORMAT", "LC_ALL"):
        monkeypatch.setenv(name, "leaked")
    return StandIns(directory)


BASE = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "SLURM_TIME_FORMAT": "%s"}


async def test_submit_gives_sbatch_the_script_and_the_job_s_environment(slurm: StandIns) -> None:
    slurm.answer("sbatch", "17;snowy\n")
    env = {"HOME": "/home/you", "SNOWYSPAWNER_SECRET": "s3cret"}
    assert await SlurmClient("snowy").submit("#!/bin/bash\n# å\n", [], env) == ("17", "snowy")
    assert slurm.argv("sbatch") == ["--parsable", "-M", "snowy"]
    assert slurm.note("sbatch", "stdin") == "#!/bin/bash\n# å\n"
    assert slurm.env("sbatch") == env
    assert slurm.note("sbatch", "cwd") == "/\n"
    # slurmstepd opens the job's log with it.
    assert slurm.note("sbatch", "umask").strip() == "0077"


async def test_the_prefix_comes_before_the_command(slurm: StandIns, executable: Callable[..., Path]) -> None:
    slurm.answer("sbatch", "17\n")
    as_user = executable("as-user", f'#!/bin/sh\necho "$@" > {slurm.directory}/prefix\nshift 2\nexec "$@"\n')
    await SlurmClient().submit("x", [str(as_user), "-u", "you"], {})
    assert (slurm.directory / "prefix").read_text() == f"-u you {slurm.directory}/sbatch --parsable\n"


async def test_slurm_conf_is_passed_on_and_replaces_the_cluster_s_name(
    slurm: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm.answer("sbatch", "17\n")
    slurm.answer("squeue")
    await SlurmClient("snowy", "/etc/snowy.conf").submit("x", [], {"A": "1"})
    assert slurm.argv("sbatch") == ["--parsable"]
    assert slurm.env("sbatch") == {"A": "1", "SLURM_CONF": "/etc/snowy.conf"}
    await SlurmClient("snowy", "/etc/snowy.conf").queue(["1", "2"])
    assert "-M" not in slurm.argv("squeue")
    assert slurm.env("squeue") == {**BASE, "SLURM_CONF": "/etc/snowy.conf"}
    # The hub's own, where the Site says nothing.
    monkeypatch.setenv("SLURM_CONF", "/etc/hub.conf")
    await SlurmClient("snowy").queue(["1", "2"])
    assert slurm.argv("squeue")[:2] == ["-M", "snowy"]
    assert slurm.env("squeue") == {**BASE, "SLURM_CONF": "/etc/hub.conf"}


async def test_queue_asks_once_for_everybody(slurm: StandIns) -> None:
    slurm.answer("squeue", "17|RUNNING|s1|1790848800|None\n")
    rows = await SlurmClient("snowy").queue(["9", "17", "9"])
    assert rows == {"17": JobRow("17", "RUNNING", "s1", 1790848800, "None")}
    assert slurm.argv("squeue") == ["-M", "snowy", "-h", "--states=all", "-j", "17,9", "-o", SQUEUE_FORMAT]
    assert slurm.env("squeue") == BASE
    assert slurm.note("squeue", "stdin") == ""


async def test_one_job_is_asked_for_as_two(slurm: StandIns) -> None:
    # reference/feasibility.md: `squeue -j 99999` fails, `-j 99999,99999` is empty and a success.
    slurm.answer("squeue")
    assert await SlurmClient().queue(["17"]) == {}
    assert slurm.argv("squeue") == ["-h", "--states=all", "-j", "17,17", "-o", SQUEUE_FORMAT]


async def test_for_no_jobs_nothing_is_run(slurm: StandIns) -> None:
    slurm.answer("squeue")
    slurm.answer("sacct")
    assert await SlurmClient().queue([]) == {}
    assert await SlurmClient().ends([]) == {}
    assert not list(slurm.directory.glob("*.argv"))


async def test_a_job_is_found_by_its_name(slurm: StandIns) -> None:
    slurm.answer("squeue", "CLUSTER: snowy\n17|PENDING|n/a|N/A|Priority\n")
    assert await SlurmClient("snowy").find("jupyter-lab-01", "you") == "17"
    assert slurm.argv("squeue") == [
        *("-M", "snowy", "-h", "--states=all", "--name", "jupyter-lab-01", "-u", "you", "-o", SQUEUE_FORMAT)
    ]
    slurm.answer("squeue")
    assert await SlurmClient("snowy").find("jupyter-lab-01", "you") == ""


async def test_ends_asks_accounting(slurm: StandIns) -> None:
    slurm.answer("sacct", "17|CANCELLED by 1001|0:15\n18|RUNNING|0:0\n")
    assert await SlurmClient("snowy").ends(["18", "17", "18"]) == {"17": JobEnd("CANCELLED", 0, 15, "1001")}
    assert slurm.argv("sacct") == ["-M", "snowy", "-X", "-n", "-P", "-j", "17,18", "-o", "JobIDRaw,State,ExitCode"]
    assert slurm.env("sacct") == BASE


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ((), ["-M", "snowy", "17"]),
        (ASK, ["-M", "snowy", "--signal=TERM", "--batch", "17"]),
        (KILL, ["-M", "snowy", "--signal=KILL", "--full", "17"]),
    ],
)
async def test_cancel_ends_a_job(slurm: StandIns, how: tuple[str, ...], words: list[str]) -> None:
    slurm.answer("scancel")
    await SlurmClient("snowy").cancel("17", [], how)
    assert slurm.argv("scancel") == words
    assert slurm.env("scancel") == BASE


@pytest.mark.parametrize(
    "error",
    [
        # scancel's own "Kill job error on job id %s: %s", with texts of slurm_errno.c in 22.05.8
        "scancel: error: Kill job error on job id 17: Invalid job id specified",
        "scancel: error: Kill job error on job id 17: Job/step already completing or completed",
    ],
)
async def test_cancelling_a_job_that_is_gone_is_a_success(slurm: StandIns, error: str) -> None:
    slurm.answer("scancel", err=error, code=1)
    await SlurmClient().cancel("17", [])


async def test_a_cancellation_that_slurm_refuses_is_an_error(slurm: StandIns) -> None:
    error = "scancel: error: Kill job error on job id 17: Access/permission denied"
    slurm.answer("scancel", err=error, code=1)
    with pytest.raises(SlurmError, match="Access/permission denied"):
        await SlurmClient().cancel("17", [])


async def test_an_error_carries_what_slurm_said(slurm: StandIns) -> None:
    slurm.answer("sbatch", err="sbatch: error: Batch job submission failed: Invalid account\n", code=1)
    with pytest.raises(SlurmError) as caught:
        await SlurmClient().submit("x", [], {})
    assert (caught.value.command, caught.value.returncode) == ("sbatch", 1)
    assert caught.value.stderr == "sbatch: error: Batch job submission failed: Invalid account"


async def test_output_that_is_no_utf_8_is_no_accident(slurm: StandIns) -> None:
    slurm.answer("squeue", then="printf '17|PENDING|n/a|N/A|\\377\\n'")
    assert (await SlurmClient().queue(["17"]))["17"].reason == "\ufffd"


@pytest.mark.parametrize(
    ("out", "err", "code"),
    [
        ("nothing of the kind\n", "", 0),
        ("17\n18\n", "", 0),
        # sbatch was done, and what a wrapper did next failed
        ("17\n", "quota: no such file\n", 1),
        ("", "Submitted batch job 17 on cluster snowy\nquota: no such file\n", 2),
        # slurmctld has the job, or has not: its answer was lost
        ("", "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n", 1),
        ("", "sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received\n", 1),
    ],
)
async def test_a_job_that_may_be_there_is_not_called_refused(slurm: StandIns, out: str, err: str, code: int) -> None:
    slurm.answer("sbatch", out, err, code)
    with pytest.raises(SlurmUnsureError):
        await SlurmClient().submit("x", [], {})


async def test_an_sbatch_that_is_killed_may_have_been_done(slurm: StandIns) -> None:
    slurm.answer("sbatch", then="kill -9 $$")
    with pytest.raises(SlurmUnsureError) as caught:
        await SlurmClient().submit("x", [], {})
    assert caught.value.returncode == -9


async def test_an_error_on_standard_output_is_an_error(slurm: StandIns) -> None:
    slurm.answer("sbatch", "error: you are over quota\n", "Bye.\n", code=1)
    with pytest.raises(SlurmError) as caught:
        await SlurmClient().submit("x", [], {})
    assert not isinstance(caught.value, SlurmUnsureError)
    assert caught.value.stderr == "error: you are over quota\nBye."


async def test_a_script_that_does_not_fit_into_a_pipe_is_refused(slurm: StandIns) -> None:
    slurm.answer("sbatch", "17\n")
    with pytest.raises(SlurmError, match="65536 bytes"):
        await SlurmClient().submit("å" * (SCRIPT_LIMIT // 2) + "xx", [], {})
    assert not (slurm.directory / "sbatch.argv").exists()
    assert await SlurmClient().submit("x" * SCRIPT_LIMIT, [], {}) == ("17", "")
    assert len(slurm.note("sbatch", "stdin")) == SCRIPT_LIMIT


async def test_a_missing_command_is_named(slurm: StandIns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(slurm.directory))
    with pytest.raises(SlurmError, match="squeue is not on the hub's PATH") as caught:
        await SlurmClient().queue(["17"])
    assert caught.value.returncode == 127


async def test_a_machine_out_of_resources_is_an_error_of_slurm_s(
    slurm: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm.answer("squeue")

    async def fork_fails(*args: Any, **kwargs: Any) -> Any:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    # Nothing but this can make fork fail on purpose and leave the tests alive.
    monkeypatch.setattr(client_module.asyncio, "create_subprocess_exec", fork_fails)
    with pytest.raises(SlurmError, match="Resource temporarily unavailable"):
        await SlurmClient().queue(["17"])


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_command_that_hangs_is_ended_and_said_so(slurm: StandIns) -> None:
    slurm.answer("squeue", then="exec sleep 60")
    with pytest.raises(SlurmTimeoutError, match=r"squeue gave no answer in 0\.5 seconds"):
        await SlurmClient(timeout=0.5).queue(["17"])
    assert not alive(int(slurm.note("squeue", "pid")))


async def test_a_caller_that_is_cancelled_leaves_no_command_behind(
    slurm: StandIns, aeventually: Callable[..., Awaitable[Any]]
) -> None:
    slurm.answer("squeue", then="exec sleep 60")
    call = asyncio.create_task(SlurmClient().queue(["17"]))
    noted = slurm.directory / "squeue.pid"
    await aeventually(lambda: noted.exists() and noted.read_text(), "squeue runs")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not alive(int(noted.read_text()))


@pytest.mark.parametrize("rounds", range(8))
async def test_a_hub_that_shuts_down_does_not_wait_for_a_command_that_starts(slurm: StandIns, rounds: int) -> None:
    """It cancels every task there is, asyncio's own that connects pipes among them, and waits for all."""
    slurm.answer("squeue", then="exec sleep 60")
    mine = asyncio.all_tasks()
    call = asyncio.create_task(SlurmClient().queue(["17"]))
    for _ in range(rounds):
        await asyncio.sleep(0)
    every = asyncio.all_tasks() - mine
    for task in every:
        task.cancel()
    _, pending = await asyncio.wait(every, timeout=5)
    assert not pending
    assert call.cancelled()
    noted = slurm.directory / "squeue.pid"
    assert not (noted.exists() and noted.read_text() and alive(int(noted.read_text())))


@pytest.mark.parametrize(("cluster", "conf"), [("snowy", ""), ("", ""), ("", "/etc/pelle/slurm.conf")])
async def test_accounting_is_asked_about_this_cluster_only(slurm: StandIns, cluster: str, conf: str) -> None:
    """Several clusters may share a database: what somebody has on another one is no project here."""
    slurm.answer("sacctmgr", "g1|g1\n")
    # scontrol(1), show config, as 22.05 and 25.05 print it
    slurm.answer("scontrol", "Configuration data as of x\nBOOT_TIME = x\nClusterName             = pelle\nX = y\n")
    client = SlurmClient(cluster, conf)
    assert await client.accounts("ann") == ["g1"]
    assert f"cluster={cluster or 'pelle'}" in slurm.argv("sacctmgr")
    assert (slurm.directory / "scontrol.argv").exists() == (not cluster)
    # It is asked for once.
    slurm.answer("scontrol", err="away", code=1)
    assert await client.accounts("ann") == ["g1"]


async def test_without_the_cluster_s_name_nobody_s_projects_are_known(slurm: StandIns) -> None:
    slurm.answer("sacctmgr", "g1|g1\n")
    slurm.answer("scontrol", "slurmctld is down\n")
    with pytest.raises(SlurmError, match="names no cluster"):
        await SlurmClient().accounts("ann")
    assert not (slurm.directory / "sacctmgr.argv").exists()


#: Waits for the test's leave, and notes how many of its kind run.
WAITS = (
    'touch "$d.running.$$"; ls $d.running.* | wc -l >> $d.seen\n'
    'while [ ! -e "$d.go" ]; do sleep 0.05; done; rm "$d.running.$$"'
)


@pytest.mark.parametrize("command", ["sbatch", "squeue", "sacct", "sacctmgr", "sinfo"])
async def test_no_more_than_a_few_commands_run_at_once(
    slurm: StandIns, aeventually: Callable[..., Awaitable[Any]], command: str
) -> None:
    slurm.answer(command, out="17\n" if command == "sbatch" else "", then=WAITS)
    client = SlurmClient("snowy", at_once=2)
    ask: dict[str, Callable[[int], Any]] = {
        "sbatch": lambda n: client.submit("x", [], BASE),
        "squeue": lambda n: client.queue([str(n)]),
        "sacct": lambda n: client.ends([str(n)]),
        "sacctmgr": lambda n: client.accounts(f"person{n}"),
        "sinfo": lambda n: client.partitions(),
    }
    most = {"squeue": 4, "sinfo": 4}.get(command, 2)
    calls = [asyncio.create_task(ask[command](n)) for n in range(2 * most + 1)]
    counted = slurm.directory / f"{command}.seen"
    await aeventually(lambda: counted.exists() and len(counted.read_text().splitlines()) == most, "some run")
    await asyncio.sleep(0.1)
    assert len(list(slurm.directory.glob(f"{command}.running.*"))) == most
    (slurm.directory / f"{command}.go").touch()
    await asyncio.gather(*calls)
    seen = [int(line) for line in slurm.note(command, "seen").splitlines()]
    assert len(seen) == 2 * most + 1
    assert max(seen) == most


async def test_what_hangs_holds_up_nothing_but_its_like(
    slurm: StandIns, aeventually: Callable[..., Awaitable[Any]]
) -> None:
    """slurmdbd hangs and many people look at forms: jobs are submitted, followed and cancelled all the same."""
    for command in ("sacctmgr", "sacct", "sinfo", "scontrol"):
        slurm.answer(command, then=WAITS)
    slurm.answer("sbatch", "17\n")
    slurm.answer("squeue", "17|RUNNING|s1|1790848800|None\n")
    slurm.answer("scancel")
    client = SlurmClient("snowy")
    asking = [
        asyncio.create_task(work)
        for n in range(20)
        for work in (client.accounts(f"person{n}"), client.ends([str(n)]), client.partitions(), client.reservations())
    ]
    await aeventually(lambda: (slurm.directory / "sacctmgr.seen").exists(), "they hang")
    began = time.monotonic()
    assert await client.submit("x", [], BASE) == ("17", "")
    assert (await client.queue(["17"]))["17"].state == "RUNNING"
    await client.cancel("17", [])
    assert time.monotonic() - began < 3
    for command in ("sacctmgr", "sacct", "sinfo", "scontrol"):
        (slurm.directory / f"{command}.go").touch()
    await asyncio.gather(*asking)


async def test_waiting_for_a_slot_counts_and_is_bounded(slurm: StandIns) -> None:
    slurm.answer("sacctmgr", then="sleep 20")
    client = SlurmClient("snowy", timeout=0.5)
    began = time.monotonic()
    answers = await asyncio.gather(*(client.accounts(f"person{n}") for n in range(12)), return_exceptions=True)
    assert all(isinstance(answer, SlurmTimeoutError) for answer in answers), answers
    assert time.monotonic() - began < 2
    # All slots are given back.
    slurm.answer("sacctmgr", "g1|g1\n")
    assert await asyncio.gather(*(client.accounts("ann") for _ in range(5))) == [["g1"]] * 5


async def test_who_gives_up_waiting_for_a_slot_takes_none(slurm: StandIns) -> None:
    slurm.answer("sacctmgr", "g1|g1\n", then="sleep 0.2")
    client = SlurmClient("snowy")
    for pause in (0, 0, 0.01, 0.05, 0.1, 0.2, 0.21, 0.25):
        asking = [asyncio.create_task(client.accounts(f"person{n}")) for n in range(6)]
        await asyncio.sleep(pause)
        for task in asking[::2]:
            task.cancel()
        done = await asyncio.gather(*asking, return_exceptions=True)
        assert done[1::2] == [["g1"]] * 3
    assert [slots._value for slots in client._slots.values()] == [client.at_once, 4, 2, 2, 4, 2]
