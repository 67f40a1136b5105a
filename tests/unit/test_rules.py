"""Rules are data: what JSON carries to the page is all that the server knows of limits."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from snowyspawner import site as sites
from snowyspawner.choice.request import review
from snowyspawner.choice.rules import NAMES, either, rules_of, violations
from snowyspawner.site import Site
from snowyspawner.slurm.times import format_duration, parse_duration, say_duration

SITES = ["snowy", "pelle"]


def interpret(rules: list[dict[str, Any]], values: dict[str, Any]) -> dict[str, str]:
    """Read the rules as the page's JavaScript does, word by word from the contract; return the refusals."""
    found: dict[str, str] = {}
    for rule in rules:
        if any(values[name] not in allowed for name, allowed in rule["when"].items()) or rule.get("remark"):
            continue
        if not all(values[name] for name in rule.get("given", [])):
            continue
        number = values[rule["value"]] if "value" in rule else None
        if "most" in rule and (number is None or number <= rule["most"]):
            continue
        said = say_duration(number) if rule.get("value") == "time" else str(number)
        text = rule["say"].replace("{value}", said)
        if labels := [
            label for label, most in rule.get("instead", {}).items() if number is not None and most >= number
        ]:
            text += ", or choose " + either(labels)
        found.setdefault(rule["field"], text)
    return found


def drawn(site: Site, count: int, seed: int) -> list[dict[str, Any]]:
    dice = random.Random(seed)  # noqa: S311
    times = [parse_duration(part.max_time) + more for part in site.partitions.values() for more in (-1, 0, 1, 86400)]
    cores = [part.max_cores + more for part in site.partitions.values() for more in (-1, 0, 1)]
    return [
        {
            "environment": dice.choice([*site.environments]),
            "image": dice.choice([*site.images]),
            "own_container": dice.choice(["", "", "~/lab.sif"]),
            "own_environment": dice.choice(["", "", "/proj/g2021027/envs/lab"]),
            "partition": dice.choice([*site.partitions]),
            "gpu": dice.choice(
                ["none", *(f"{key}:{n}" for key, gpu in site.gpus.items() for n in (1, gpu.max_count + 1))]
            ),
            "cores": dice.choice(cores),
            "time": format_duration(dice.choice(times)),
            "memory": dice.choice([None, 1, 262144, 262145, 10_000_000]) if site.memory_free else None,
        }
        for _ in range(count)
    ]


def at_fault(site: Site, choice: dict[str, Any]) -> set[str]:
    """Say from the Site itself, and not from the rules, which fields are at fault."""
    partition, environment = site.partitions[choice["partition"]], site.environments[choice["environment"]]
    gpu, _, count = choice["gpu"].partition(":")
    found = set()
    of_the_site = not choice["own_container"] and not choice["own_environment"]
    if of_the_site and environment.images and choice["image"] not in environment.images:
        found.add("image")
    if choice["cores"] > partition.max_cores:
        found.add("cores")
    if choice["memory"] and partition.max_memory and choice["memory"] > partition.max_memory:
        found.add("memory")
    if parse_duration(choice["time"]) > parse_duration(partition.max_time):
        found.add("time")
    if gpu != "none" and (gpu not in partition.gpus or int(count) > site.gpus[gpu].max_count):
        found.add("gpu")
    return found


@pytest.mark.parametrize("name", [*SITES, "several"])
def test_what_is_refused_is_what_the_rules_say(name: str, variant: Callable[..., Site]) -> None:
    several = {
        "images": {"other.sif": {"path": "/other.sif"}},
        "environments": {"tf-mkl": {"images": ["other.sif"]}, "both": {"images": ["other.sif", "container.sif"]}},
        "gpus": {"a100": {"request": "--gres=gpu:a100:{count}", "max_count": 4}},
        "partitions": {"node": {"gpus": ["a100"]}},
    }
    site = variant(**several) if name == "several" else sites.load(name)
    rules = json.loads(json.dumps(rules_of(site)))
    seen: set[str] = set()
    account = {"account": "g2021027"}
    for choice in drawn(site, 400, seed=len(name)):
        found = review({**choice, **account}, site)
        gpu, _, count = choice["gpu"].partition(":")
        values = {
            **choice,
            **account,
            "time": parse_duration(choice["time"]),
            "gpu_type": gpu,
            "gpu_count": int(count or 0),
        }
        assert set(found.errors) == at_fault(site, choice)
        assert found.errors == interpret(rules, values)
        assert (found.request is None) == bool(found.errors)
        seen |= found.errors.keys()
    assert seen >= {"cores", "time", "gpu"}


@pytest.mark.parametrize("name", SITES)
def test_rules_name_only_what_there_is(name: str) -> None:
    site = sites.load(name)
    fields = {"environment", "image", "partition", "cores", "gpu", "memory", "time", "account"}
    for rule in rules_of(site):
        assert rule["field"] in fields
        assert set(rule["when"]) <= set(NAMES)
        assert ("most" in rule) == ("value" in rule)
        assert rule.get("value", "cores") in NAMES
        assert set(rule) <= {"field", "when", "given", "value", "most", "say", "instead", "remark"}


@pytest.mark.parametrize(
    ("choice", "remark"),
    [
        ({"gpu": "none"}, "tf-gpu is made for a GPU: without one it computes on the cores"),
        ({"environment": "tf-mkl"}, "tf-mkl makes no use of a GPU: choose no GPU, or the environment tf-gpu"),
        ({"environment": "tf-mkl", "gpu": "none"}, ""),
        ({}, ""),
    ],
)
def test_what_is_perhaps_not_meant_is_legal_with_a_remark(snowy: Site, choice: dict[str, str], remark: str) -> None:
    found = review(choice, snowy)
    assert found.request is not None
    assert found.remarks == ({"gpu": remark} if remark else {})


def test_of_a_field_that_is_refused_nothing_is_remarked(snowy: Site) -> None:
    found = review({"environment": "tf-mkl", "partition": "devcore", "gpu": "t4:1"}, snowy)
    assert list(found.errors) == ["gpu"]
    assert found.remarks == {}


def test_what_is_not_known_violates_nothing(snowy: Site) -> None:
    assert violations(rules_of(snowy), {}) == ({}, {})
    assert violations(rules_of(snowy), {"partition": "core", "cores": None, "memory": None}) == ({}, {})


def test_a_value_that_cannot_be_read_is_said_once(snowy: Site) -> None:
    found = review({"cores": "many", "gpu": "?", "partition": "devcore", "time": "2:00:00"}, snowy)
    assert "whole number" in found.errors["cores"]
    assert "is not offered here" in found.errors["gpu"]
    assert set(found.errors) == {"cores", "gpu", "time"}
    # It was read, and is refused all the same.
    assert found.read["time"] == 7200
    assert "cores" not in found.read
