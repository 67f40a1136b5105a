"""What the pages show of one server, in every state it can be in."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest

from snowyspawner.choice.request import from_options
from snowyspawner.choice.several import Group
from snowyspawner.session import messages
from snowyspawner.session.errors import SessionError
from snowyspawner.session.lifecycle import Life
from snowyspawner.session.messages import Words
from snowyspawner.session.record import Ended, new_job
from snowyspawner.session.usage import Usage
from snowyspawner.site import load
from snowyspawner.web import card

SITE = load("snowy")
REQUEST = from_options({"environment": "tf-gpu", "time": "1:30:30"}, SITE).model_dump()


@pytest.fixture
async def life() -> Life:
    return Life(SITE, lambda: None, logging.getLogger("test"), lambda: "alice", lambda: "alice")


def with_job(life: Life, phase: Any, **changes: Any) -> Life:
    job, _ = new_job("", REQUEST)
    job.phase, job.job_id = phase, "7"
    for name, value in changes.items():
        setattr(job, name, value)
    life.job = job
    return life


@pytest.mark.parametrize(
    ("phase", "attached", "hub", "kind", "step"),
    [
        ("submitting", True, {"pending": "spawn"}, "waiting", 0),
        ("pending", True, {"pending": "spawn"}, "waiting", 1),
        ("launching", True, {"pending": "spawn"}, "starting", 2),
        ("serving", True, {"pending": "spawn"}, "starting", 2),
        ("serving", False, {"ready": True}, "running", 3),
        # A hub before this one submitted it; nobody has come to see it yet.
        ("pending", False, {}, "lost", 1),
        ("launching", False, {}, "lost", 2),
        ("stopping", False, {}, "stopping", 2),
        ("serving", True, {"pending": "stop"}, "stopping", 2),
    ],
)
async def test_kinds(life: Life, phase: str, attached: bool, hub: Any, kind: str, step: int) -> None:
    life.attached = attached
    found = card.card_of(with_job(life, phase), "alice", **hub)
    assert (found.kind, found.step, found.job_id) == (kind, step, "7")


CURVE = {"step": 15, "cores": [0, None, 2, 8], "gpu_busy": [50, 50, 50, 50]}


async def test_what_a_session_uses_is_drawn(life: Life) -> None:
    """A step for each value, a gap where nothing is known, the top where it is more than there is."""
    usage = Usage.model_validate({"seconds": 60, "cores": 2.5, "curve": CURVE})
    found = card.card_of(with_job(life, "serving", usage=usage), "alice", ready=True)
    assert found.curves == (
        ("Cores", "0 to 8 of 4", "M0.0 31.0H60.0M120.0 16.0H180.0L180.0 1.0H240.0"),
        ("GPU", "50 %", "M0.0 16.0H60.0L60.0 16.0H120.0L120.0 16.0H180.0L180.0 16.0H240.0"),
    )
    assert found.used.startswith("Used in 1 min: 2.5 of 4 cores")
    assert (found.advice, found.energy) == (None, "")
    before = found.stamp
    assert life.job
    life.job.usage = usage.model_copy(update={"curve": None})
    assert card.card_of(life, "alice", ready=True).stamp != before
    # Not while it waits, or stops.
    assert card.card_of(life, "alice", pending="stop").curves == ()


async def test_what_a_session_has_used_says_what_to_change(life: Life) -> None:
    usage = Usage.model_validate({"seconds": 3000, "cores": 1, "memory_peak": 300, "gpu_busy": 1, "gpu_energy": 9})
    ran = {"state": "COMPLETED", "request": REQUEST, "usage": usage, "begun_at": 1000.0, "ended_at": 4540.0}
    life.last = Ended(**ran)
    found = card.card_of(life, "alice")
    assert found.advice
    assert (found.advice.key, found.advice.changes) == ("gpu", {"gpu": "none"})
    assert found.energy == "Energy of the GPU alone: 9 Wh."
    # It ran for longer than was measured, or never began.
    for change in ({"ended_at": 9000.0}, {"begun_at": 0.0}, {"usage": None}):
        life.last = Ended(**{**ran, **change})
        assert card.card_of(life, "alice").advice is None


async def test_a_session_that_nobody_uses_says_when_it_ends(life: Life) -> None:
    life.site = load({"extends": "snowy", "idle": {"gpu": "30:00"}})
    now = time.time()
    found = card.card_of(with_job(life, "serving", unused_since=now - 1100), "alice", ready=True)
    assert found.unused_end is None
    before = found.stamp
    found = card.card_of(with_job(life, "serving", unused_since=now - 1300), "alice", ready=True)
    assert found.unused_end == now + 500
    assert found.stamp != before
    life.last = Ended(reason="idle", detail="unused for 30 min", begun_at=now, request=REQUEST, state="CANCELLED")
    life.job = None
    found = card.card_of(life, "alice")
    assert (found.title, found.detail, found.again) == ("Ended", "unused for 30 min", True)
    assert found.words.sentence.startswith("This session was ended because nobody used it")


async def test_nothing_has_run_yet(life: Life) -> None:
    found = card.card_of(life, "alice")
    assert (found.kind, found.title, found.again, found.asked) == ("idle", "Not running", False, ())


async def test_the_end_is_slurm_s(life: Life) -> None:
    """Begun plus the limit, of which Slurm makes whole minutes; the warning comes ten minutes before, or half way."""
    begun = time.time() - 60
    found = card.card_of(with_job(life, "serving", begun_at=begun), "alice", ready=True)
    assert found.ends_at == begun + 91 * 60
    assert found.warn_from == begun + 81 * 60
    assert not found.ends_soon
    with_job(life, "serving", begun_at=begun, request={**REQUEST, "time": 120})
    found = card.card_of(life, "alice", ready=True)
    assert found.warn_from == begun + 60
    assert found.ends_soon
    assert card.card_of(with_job(life, "pending"), "alice", pending="spawn").ends_at is None


@pytest.mark.parametrize(
    ("last", "failure", "offered"),
    [
        ({"state": "FAILED"}, None, True),
        ({"state": "TIMEOUT", "begun_at": 1.0}, None, True),
        ({"reason": "slurm", "detail": "sbatch: error: no"}, None, True),
        ({"state": "CANCELLED", "stopped": True}, None, False),
        (None, None, False),
        # What Slurm or the node has said; and what the hub has refused, which is nobody's but the person's.
        ({"state": "FAILED"}, SessionError(Words("No."), reason="launch"), True),
        ({"state": "FAILED"}, SessionError(Words("No."), reason="request"), False),
    ],
    ids=range(7),
)
async def test_what_there_is_to_show_support(life: Life, last: Any, failure: Any, offered: bool) -> None:
    life.last = Ended(request=REQUEST, **last) if last else None
    assert card.card_of(life, "alice", failure=failure).details is offered
    assert not card.card_of(with_job(life, "pending"), "alice", pending="spawn").details


async def test_a_job_that_ended_before_its_launcher_says_so_afterwards(life: Life) -> None:
    """As long as JupyterHub remembers the start's failure, and after that."""
    life.last = Ended(state="FAILED", exit_code=3, reason="ended", request=REQUEST)
    said = messages.before_launcher(3, "?")
    assert said.sentence == "The job ended before its launcher could begin (exit code 3)."
    assert card.card_of(life, "alice").words == said
    # One that has claimed its session got further.
    life.last.node = "s1"
    assert card.card_of(life, "alice").words != said


async def test_what_was_asked_for(life: Life) -> None:
    assert dict(card.asked(REQUEST, SITE)) == {
        "Environment": "tf-gpu",
        "Cores": "4",
        "GPU": "1 \N{MULTIPLICATION SIGN} NVIDIA T4",
        "Partition": "core",
        "Time": "1 hour 30 minutes 30 seconds",
    }
    # Of another version, or of a Site that has changed.
    assert dict(card.asked({"gpu": "a100", "gpu_count": 2}, SITE))["GPU"] == "2 \N{MULTIPLICATION SIGN} a100"
    assert card.asked({}, SITE) == ()


@pytest.mark.parametrize(
    ("last", "title", "sentence"),
    [
        ({"stopped": True, "begun_at": 1.0}, "Stopped", "This session was stopped."),
        ({"stopped": True}, "Stopped", "This job was cancelled while it waited."),
        ({"state": "TIMEOUT", "begun_at": 1.0}, "Ended", messages.ending("TIMEOUT").sentence),
        ({"state": "CANCELLED", "by": "root", "begun_at": 1.0}, "Ended", "The job was cancelled by root."),
        ({"state": "REQUEUED", "begun_at": 1.0}, "Ended", "Slurm has put the job back into the queue"),
        ({"state": "UNKNOWN", "begun_at": 1.0}, "Ended", "Slurm lost sight of the job"),
        ({"state": "FAILED", "exit_code": 66, "node": "s1"}, "Ended", "The image /proj/g2020014/"),
        ({"reason": "launch", "exit_code": 1, "reported": True}, "Not started", "before it answered (exit code 1)"),
        ({"reason": "slurm", "detail": "sbatch: error: Invalid account"}, "Not started", "charge jobs to this project"),
        ({"reason": "queue_timeout"}, "Not started", "waited too long"),
        ({}, "Not started", "The session ended."),
        ({"state": "<b>", "begun_at": 1.0}, "Ended", "The job ended; Slurm says: <b>."),
    ],
)
async def test_how_it_ended(life: Life, last: dict[str, Any], title: str, sentence: str) -> None:
    life.last = Ended(job_id="7", request=REQUEST, ended_at=time.time(), **last)
    found = card.card_of(life, "alice")
    assert (found.kind, found.title, found.again) == ("ended", title, True)
    assert sentence in found.words.sentence


@pytest.mark.parametrize("reason", ["queue_timeout", "launch_timeout", "no_hub", "unreachable"])
async def test_why_the_hub_gave_up_is_said_the_same_then_and_later(life: Life, reason: Any) -> None:
    failure = SessionError.given_up(reason, "180 seconds", "s1")
    assert failure.words.sentence
    assert "{" not in failure.words.sentence
    life.last = Ended(job_id="7", request=REQUEST, reason=reason, state="CANCELLED", node="s1", detail="180 seconds")
    assert card.card_of(life, "alice").words == failure.words == card.card_of(life, "alice", failure=failure).words


@pytest.mark.parametrize("state", ["REQUEUED", "UNKNOWN"])
async def test_a_job_that_can_serve_nobody_is_said_the_same_then_and_later(life: Life, state: str) -> None:
    life.last = Ended(job_id="7", request=REQUEST, state=state, begun_at=1.0)
    assert card.card_of(life, "alice").words == messages.ending(state)


async def test_tell_support_says_whom(life: Life) -> None:
    life.last = Ended(job_id="7", request=REQUEST, reason="unreachable", node="s1")
    assert "support" in card.card_of(life, "alice").words.advice
    assert card.card_of(life, "alice").support == ("support@uppmax.uu.se", "mailto:support@uppmax.uu.se")
    assert card.card_of(life, "alice").names_support
    life.last = Ended(job_id="7", request=REQUEST, state="TIMEOUT", begun_at=1.0)
    assert not card.card_of(life, "alice").names_support


async def test_a_failure_that_jupyterhub_remembers(life: Life) -> None:
    life.last = Ended(job_id="7", request=REQUEST, state="TIMEOUT", begun_at=1.0)
    refused = SessionError(Words("Nothing was started.", "Ask for less.", "time"), reason="request")
    found = card.card_of(life, "alice", failure=refused)
    # Nothing was submitted, so the job before is not what the page is about.
    assert (found.title, found.words.sentence, found.job_id, found.again) == (
        "Not started",
        "Nothing was started.",
        "",
        False,
    )
    failed = SessionError(Words("No."), reason="launch", detail="code 65", log=["line"])
    found = card.card_of(life, "alice", failure=failed)
    assert (found.words.sentence, found.detail, found.log, found.again) == ("No.", "code 65", ("line",), True)


@pytest.mark.parametrize("failure", [RuntimeError("boom"), TimeoutError(), OSError(28, "No space left")])
async def test_no_failure_is_blank(life: Life, failure: Exception) -> None:
    found = card.card_of(life, "alice", failure=failure)
    assert found.title == "Not started"
    assert found.words.sentence == "The hub could not start this session."
    assert found.words.advice
    assert found.detail == str(failure)


async def test_times_in_words(life: Life) -> None:
    found = card.card_of(life, "alice")
    now = time.time()
    assert found.since(now - 59) == "less than a minute"
    assert found.since(now + 3700) == "1 h 1 min"
    assert found.since(now - 90000) == "1 d 1 h"
    assert found.hour(None) == found.iso(None) == found.since(None) == ""
    assert len(found.hour(now + 3 * 86400)) == len("2027-01-31 15:00")


async def test_the_stamp_changes_with_what_is_shown(life: Life) -> None:
    life.attached = True
    first = card.card_of(with_job(life, "pending"), "alice", pending="spawn").stamp
    assert card.card_of(life, "alice", pending="spawn").stamp == first
    with_job(life, "launching", node="s1")
    assert card.card_of(life, "alice", pending="spawn").stamp != first


async def test_what_was_started_together_stands_together(life: Life) -> None:
    """What runs or waits comes first; a group goes by any of its sessions, which are in the order of their numbers."""
    life.attached = True
    waits = card.card_of(with_job(life, "pending"), "alice", pending="spawn")
    over = waits._replace(kind="ended", job_id="8")
    one, two = Group(id="1" * 16, title="one"), Group(id="2" * 16, title="two")
    names: list[tuple[str, card.Card, Group | None]] = [
        ("", over, None),
        ("b-1", over, two),
        ("lab-2", waits, None),
        ("a-16", over, one),
        ("a-4", waits, one),
        ("b-2", over, two),
    ]
    found = card.sections(names)
    assert [(section.group, [name for name, _ in section.sessions]) for section in found] == [
        (None, ["lab-2"]),
        (one, ["a-4", "a-16"]),
        (None, [""]),
        (two, ["b-1", "b-2"]),
    ]
    assert [section.alive for section in found] == [True, True, False, False]
    changed = card.sections([*names[:3], ("a-16", over._replace(job_id="9"), one), *names[4:]])
    assert [before.stamp == after.stamp for before, after in zip(found, changed, strict=True)] == [
        True,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(
    "request_",
    [
        {"time": "noon"},
        {"time": None, "cores": "many", "gpu": ["t4"]},
        {"gpu": {"t4": 1}, "gpu_count": "x", "partition": 5},
        {"image": [], "environment": {}},
        {"a field of another version": 1},
        {"begin": "noon", "reservation": 5},
    ],
)
async def test_a_request_that_another_version_stored_breaks_no_page(life: Life, request_: dict[str, Any]) -> None:
    last = Ended(job_id="7", ended_at=time.time(), state="FAILED", exit_code=72).model_dump()
    job, _ = new_job("lab", {})
    waits = {**job.model_dump(), "job_id": "8", "phase": "launching", "begun_at": time.time(), "request": request_}
    life.load({"last": {**last, "request": request_}})
    assert card.card_of(life, "alice").job_id == "7"
    life.load({"job": waits})
    assert card.card_of(life, "alice").job_id == "8"
    assert life.job is not None
    assert life.job.queue_seconds >= 0
    assert life.status.sentence


async def test_a_gpu_without_a_name_for_people_has_slurm_s() -> None:
    gpus = {key: gpu.model_copy(update={"display_name": ""}) for key, gpu in SITE.gpus.items()}
    plain = SITE.model_copy(update={"gpus": gpus})
    asked = dict(card.asked({**REQUEST, "gpu": "t4", "gpu_count": 2}, plain))
    assert asked["GPU"] == "2 \N{MULTIPLICATION SIGN} t4"
