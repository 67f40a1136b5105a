"""The details of a session for people who help."""

from __future__ import annotations

import logging
import pwd
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from snowyspawner.choice.request import from_options
from snowyspawner.session import lifecycle, support
from snowyspawner.session.lifecycle import Life
from snowyspawner.session.messages import Words
from snowyspawner.session.record import Ended, new_job
from snowyspawner.session.script import Target, build, variables
from snowyspawner.site import Site, load

CHOICE = from_options({"environment": "tf-mkl", "gpu": "none", "account": "g2021027"}, load("snowy"))
WHOSE = support.Whose("alice", "lab", ["alice"], "/home/alice")
SAID = Words("The job ran out of memory.", "Ask for more.")
LAST = Ended(
    **{"job_id": "4711", "state": "FAILED", "exit_code": 3, "detail": "token=abc of /home/bob", "reason": "launch"},
    **{"node": "s1", "request": CHOICE.model_dump(), "reported": True},
    **{"submitted_at": 1795409100.0, "begun_at": 1795409220.0, "served_at": 1795409230.0, "ended_at": 1795412830.0},
)
RECORD = [
    {"JobID": "4711", "State": "FAILED", "ExitCode": "3:0", "NodeList": "s1", "Submit": "1795409100", "MaxRSS": ""},
    {"JobID": "4711.batch", "State": "CANCELLED by bob", "ExitCode": "0:9", "Submit": "Unknown", "MaxRSS": "81920K"},
]


def details(**changes: Any) -> str:
    found = support.Found(["first", "JUPYTERHUB_API_TOKEN=abc"], RECORD, "#!/bin/bash\n#SBATCH -n 4\n", "22.05.8")
    return support.details(LAST, SAID, load("snowy"), WHOSE, found._replace(**changes), 1795413000.0)


def test_all_of_it() -> None:
    text = details()
    sections = text.split("\n\n")
    assert sections[0].startswith("JupyterLab on Snowy: lab of alice, job 4711\n---")
    assert "Written at 2026-11-23 06:50:00 (Europe/Stockholm)" in sections[0]
    for line in (
        "The job ran out of memory. Ask for more.",
        "token=[removed] of /home/[removed]",
        "Cause: launch, as the job said itself",
        "Slurm's state: FAILED",
        "Exit code: 3",
        "Submitted: 2026-11-23 05:45:00",
        "Started: 2026-11-23 05:47:00, after 2 min",
        "Ready: 2026-11-23 05:47:10, after less than a minute",
        "Ended: 2026-11-23 06:47:10, after 1 h 0 min",
        "Environment: tf-mkl",
        "Project: g2021027",
        "JobID=4711, State=FAILED, ExitCode=3:0, NodeList=s1, Submit=2026-11-23 05:45:00",
        "JobID=4711.batch, State=CANCELLED by [removed], ExitCode=0:9, Submit=Unknown, MaxRSS=81920K",
        "Slurm 22.05.8",
        "The last 2 lines of the log",
        "JUPYTERHUB_API_TOKEN=[removed]",
        "#SBATCH -n 4",
    ):
        assert line in text.splitlines()
    assert text.endswith("\n")


def test_what_is_not_known_says_why() -> None:
    problems = {"log": "Reading as bob took long: /home/bob.", "record": "sacct: token=abc", "script": "No."}
    text = details(log=(), record=None, script=None, slurm="", problems=problems)
    assert "Reading as bob took long: /home/[removed]." in text
    assert "sacct: token=[removed]" in text
    assert "Slurm (not known)" in text
    assert text.rstrip().endswith("\nNo.")
    assert "There is none." in details(log=[])


@pytest.mark.parametrize("last", [Ended(), Ended(reason="slurm", detail="sbatch: error: no"), Ended(request={"x": 1})])
def test_of_little_there_is_little(last: Ended) -> None:
    text = support.details(last, SAID, load("snowy"), WHOSE, support.Found(), 0.0)
    assert "Choices" in text
    assert "job " not in text.splitlines()[0]


def test_a_long_log_is_cut() -> None:
    token = "0123456789abcdef" * 2
    text = details(log=["x " * 247 + token] * 5000)
    assert token[:6] not in text
    text = details(log=["x" * 600] * 5000)
    assert "The last 100 lines of the log" in text
    assert len(text) < 60_000


@pytest.mark.parametrize("name", ["snowy", "pelle"])
def test_no_secret_is_in_a_job_script(name: str) -> None:
    """What a job is told in secret is in its environment; the script that is shown is the one that is submitted."""
    site = load(name)
    request = from_options({"account": "uppmax2025-2-1"}, site)
    job, secret = new_job("lab", request.model_dump())
    account = pwd.struct_passwd(("alice", "x", 1000, 1000, "", "/home/alice", "/bin/sh"))
    assert secret in variables(account, secret).values()
    script = build(site, request, Target(job.name, "/home/alice", "http://hub:8081/hub/api/snowyspawner/", 7))
    assert secret not in script
    assert job.secret_hash not in script
    # And nothing of it looks like one, or the redaction would take it out: all of it arrives.
    short = support._short(script)
    assert WHOSE.redact(short) == short
    assert "def main" not in short
    assert len(short) < 6000
    assert f"#SBATCH --job-name={job.name}" in short


def test_a_mail_has_a_subject_and_a_short_body(variant: Any) -> None:
    site: Site = variant(support="help@example.org")
    last = LAST.model_copy(update={"detail": "x&y=ä token=abc " + "long " * 500})
    mail = support.mail(last, SAID, site, WHOSE)
    assert len(mail) < 2000
    found = urlsplit(mail)
    assert (found.scheme, found.path) == ("mailto", "help@example.org")
    query = parse_qs(found.query, strict_parsing=True)
    assert query["subject"] == ["JupyterLab on Snowy: lab of alice, job 4711"]
    (body,) = query["body"]
    assert "x&y=ä token=[removed] long" in body
    assert "\r\n" in body
    assert " " not in mail
    for other in ("", "https://support.example.org/new"):
        assert support.mail(last, SAID, variant(support=other), WHOSE) == ""


async def test_accounting_is_asked_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, now = [], 1000.0

    class StandInClient:
        """Answers as `SlurmClient` does, and notes for which job."""

        async def record(self, job_id: str, prefix: list[str]) -> list[dict[str, str]]:
            asked.append(job_id)
            return [{"JobID": job_id}]

    monkeypatch.setattr(Life, "watcher", SimpleNamespace(client=StandInClient()))
    monkeypatch.setattr(lifecycle, "sees_all_jobs", lambda: True)
    monkeypatch.setattr(lifecycle, "time", SimpleNamespace(monotonic=lambda: now))
    life = Life(load("snowy"), lambda: None, logging.getLogger("test"), lambda: "alice", lambda: "alice")
    for job_id, moment in (("7", 1000.0), ("7", 1059.0), ("7", 1061.0), ("8", 1062.0), ("8", 1063.0)):
        now = moment
        assert await life.record(job_id) == [{"JobID": job_id}]
    assert asked == ["7", "7", "8"]
