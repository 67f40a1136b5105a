"""What the hub stores of a job: no secret, and nothing that a later version would misread."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from snowyspawner.choice.presets import Own, load_own
from snowyspawner.choice.request import load
from snowyspawner.choice.several import load_group
from snowyspawner.session.record import STATE_VERSION, Job, load_ended, load_job, new_job

STATES = Path(__file__).with_name("states")


def test_a_new_job_has_a_name_of_its_own_and_a_secret_stored_nowhere() -> None:
    before = time.time()
    (one, secret), (two, other) = new_job("lab", {}), new_job("lab", {})
    assert one.name != two.name
    assert secret != other
    assert len(secret) >= 32
    assert secret not in one.model_dump_json()
    assert one.knows(secret)
    assert not one.knows(other)
    assert not one.knows("")
    assert not one.knows("å")
    assert (one.phase, one.job_id, one.alive) == ("submitting", "", True)
    assert before <= one.submitted_at <= time.time()


@pytest.mark.parametrize(
    ("server", "name"),
    [
        ("", "jupyter-lab"),
        ("gpu", "jupyter-gpu"),
        ("My Lab 2", "jupyter-my-lab-2"),
        ("../../etc\n#SBATCH --x", "jupyter-etc-sbatch---x"),
        ("å", "jupyter-lab"),
        ("---", "jupyter-lab"),
        ("x" * 300, "jupyter-" + "x" * 32),
        ("$(id) 'x'", "jupyter-id-x"),
    ],
)
def test_a_server_s_name_becomes_a_plain_word(server: str, name: str) -> None:
    job, _ = new_job(server, {})
    assert job.name.startswith(name + "-")
    assert re.fullmatch(r"jupyter-[a-z0-9-]{1,32}-[0-9a-f]{8}", job.name)


def test_a_job_survives_the_hub_s_database() -> None:
    job, _ = new_job("lab", {"cores": 4})
    job.phase, job.job_id, job.node, job.port, job.token_id = "serving", "17", "s1", 40000, 3
    assert load_job(json.loads(json.dumps(job.model_dump()))) == job


@pytest.mark.parametrize("stored", [None, {}, [], "x", 5, {"version": STATE_VERSION}, {"name": 7, "job_id": "x"}])
def test_what_is_no_job_is_none(stored: Any) -> None:
    assert load_job(stored) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"version": STATE_VERSION + 1},
        {"version": 0},
        {"version": "two"},
        {"version": None},
        {"phase": "sleeping"},
        {"port": "x"},
        {"submitted_at": None},
        {"secret_hash": None},
        {"token_id": "x"},
        {"request": None},
        {"request": []},
        {"node": 5, "begun_at": {}, "served_at": "noon"},
        {"a field of another version": {"x": 1}},
    ],
)
def test_a_job_that_another_version_stored_is_not_forgotten(changes: dict[str, Any]) -> None:
    """It may be alive: by its number Slurm knows it."""
    job, secret = new_job("lab", {"cores": 4})
    job.phase, job.job_id = "pending", "17"
    loaded = load_job({**job.model_dump(), **changes})
    assert loaded is not None
    assert (loaded.job_id, loaded.name, loaded.version, loaded.alive) == ("17", job.name, STATE_VERSION, True)
    kept = set(job.model_dump()) - set(changes) - {"phase"}
    assert loaded.model_dump(include=kept) == job.model_dump(include=kept)
    # Whose secret cannot be read is nobody's.
    assert loaded.knows(secret) == ("secret_hash" not in changes)


@pytest.mark.parametrize("missing", sorted(Job.model_fields))
def test_a_job_without_a_field_is_not_forgotten(missing: str) -> None:
    job, _ = new_job("lab", {})
    job.phase, job.job_id = "pending", "17"
    stored = job.model_dump()
    del stored[missing]
    loaded = load_job(stored)
    assert loaded is not None
    assert loaded.alive
    assert loaded.job_id == ("" if missing == "job_id" else "17")
    assert not loaded.knows("")


def test_a_number_that_is_stored_as_one_is_a_number() -> None:
    loaded = load_job({"job_id": 17, "phase": "queued"})
    assert loaded is not None
    assert (loaded.job_id, loaded.phase) == ("17", "pending")


@pytest.mark.parametrize("version", range(1, STATE_VERSION + 1))
def test_the_recorded_state_of_each_version_can_be_read(version: int) -> None:
    """What hubs have written into their databases, word by word; see the directory's README."""
    recorded = sorted((STATES / str(version)).glob("*.json"))
    assert recorded
    for path in recorded:
        state = json.loads(path.read_text())
        job, last, own = load_job(state["job"]), load_ended(state["last"]), load_own(state.get("own"))
        if state["job"]:
            assert job is not None
            assert job.model_dump(include=set(state["job"])) == {**state["job"], "version": STATE_VERSION}
            choice = load(job.request)
            # Fields that have come since are as if nothing had been chosen.
            assert choice.model_dump(include=set(state["job"]["request"])) == state["job"]["request"]
            assert choice.model_dump(exclude_defaults=True).keys() <= state["job"]["request"].keys()
        if state["last"]:
            assert last is not None
            assert last.model_dump(include=set(state["last"])) == state["last"]
            assert last.model_dump(exclude_defaults=True).keys() <= state["last"].keys()
        if state.get("group"):
            group = load_group(state["group"])
            assert group is not None
            assert group.model_dump() == state["group"]
        if state.get("own"):
            assert own.model_dump() == {**state["own"], "version": own.version}


@pytest.mark.parametrize(
    "changes",
    [
        {"a field that is gone": 5},
        {"gpu_count": "many"},
        {"begin": "noon"},
        {"open": None},
        {"time": None, "cores": "x"},
        {"environment": 7},
    ],
)
def test_a_request_of_another_version_is_read_as_far_as_it_goes(changes: dict[str, Any]) -> None:
    stored = {
        "environment": "tf-gpu",
        "image": "a.sif",
        "partition": "core",
        "cores": 4,
        "time": 3540,
        "open": "a.ipynb",
    }
    choice = load({**stored, **changes})
    kept = {name: value for name, value in stored.items() if name not in changes}
    assert choice.model_dump(include=set(kept)) == kept


@pytest.mark.parametrize("stored", [None, [], "x", 5, {}, {"x": 1}])
def test_what_is_no_request_is_blank(stored: Any) -> None:
    choice = load(stored)
    assert (choice.environment, choice.cores, choice.begin, choice.lab_path()) == ("", 0, None, "/lab")


@pytest.mark.parametrize(
    "stored", [None, [], "x", 5, {"presets": [], "last": "x"}, {"presets": {"a": 5}, "last": {"b": 1}}]
)
def test_what_is_no_preset_is_left_out(stored: Any) -> None:
    assert load_own(stored) == Own()


def test_presets_of_another_version_are_kept() -> None:
    stored = {"version": 7, "presets": {"mine": {"cores": "8", "x": "y"}}, "last": {"cores": "4"}, "starred": ["mine"]}
    own = load_own(stored)
    assert own.presets == {"mine": {"cores": "8", "x": "y"}}
    assert own.last == {"cores": "4"}


@pytest.mark.parametrize("phase", ["submitting", "pending", "launching", "serving", "stopping", "ended"])
def test_a_job_is_alive_until_it_has_ended(phase: Any) -> None:
    job, _ = new_job("lab", {})
    job.phase = phase
    assert job.alive == (phase != "ended")


def test_there_is_no_other_phase() -> None:
    job, _ = new_job("lab", {})
    with pytest.raises(ValueError, match="phase"):
        job.phase = "sleeping"  # type: ignore[assignment]
