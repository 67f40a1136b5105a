"""What the hub stores of a job: no secret, and nothing that a later version would misread."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from snowyspawner.job import STATE_VERSION, load_job, new_job


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


@pytest.mark.parametrize("stored", [None, {}, [], "x", 5, {"version": STATE_VERSION}])
def test_what_is_no_job_is_none(stored: Any) -> None:
    assert load_job(stored) is None


@pytest.mark.parametrize(
    "changes",
    [{"version": STATE_VERSION + 1}, {"version": 0}, {"phase": "sleeping"}, {"port": "x"}, {"submitted_at": None}],
)
def test_another_version_s_job_is_none(changes: dict[str, Any]) -> None:
    job, _ = new_job("lab", {})
    assert load_job({**job.model_dump(), **changes}) is None


@pytest.mark.parametrize("phase", ["submitting", "pending", "launching", "serving", "stopping", "ended"])
def test_a_job_is_alive_until_it_has_ended(phase: Any) -> None:
    job, _ = new_job("lab", {})
    job.phase = phase
    assert job.alive == (phase != "ended")


def test_there_is_no_other_phase() -> None:
    job, _ = new_job("lab", {})
    with pytest.raises(ValueError, match="phase"):
        job.phase = "sleeping"  # type: ignore[assignment]
