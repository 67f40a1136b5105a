"""What goes together on a Site, as data: one list of rules for the hub, which decides, and for the page.

A rule is a dict that JSON can hold, so that the page's own interpreter (share/static) reads the very same list.
It is violated when every name of ``when`` has one of its values, every name of ``given`` has one and, if there is a
``most``, the number called ``value`` is greater. Of several violated rules of a field the first counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypedDict

from ..site import Partition, Site
from ..site.fields import FIELDS
from ..slurm.times import parse_duration, say_duration

#: What a rule may look at: texts, and numbers (cores, MB, seconds). ``gpu_type`` is "none" without a GPU.
NAMES = (*(name for name, field in FIELDS.items() if field.ruled), "gpu_type", "gpu_count")

Values = Mapping[str, "str | int | None"]


class _Always(TypedDict):
    field: str  # of the form, where the sentence stands
    when: dict[str, list[str]]
    say: str  # {value} is the value: for time in words


class Rule(_Always, total=False):
    """One rule. Whatever is left out of it does not matter."""

    value: str  # the name of the number that is compared
    most: int
    instead: dict[str, int]  # labels to choose instead, each with the most it allows
    given: list[str]  # names that must have a value
    remark: bool  # worth saying, but no refusal


def rules_of(site: Site) -> list[Rule]:
    """Return all rules of *site*, in the order in which they count; the same list each time, to be read only."""
    if "rules" not in site.derived:
        site.derived["rules"] = _make(site)
    rules: list[Rule] = site.derived["rules"]
    return rules


def _make(site: Site) -> list[Rule]:
    rules = _of_images(site)
    for key, partition in site.partitions.items():
        rules += _of_sizes(site, key, partition)
        rules += _of_gpus(site, key, partition)
    return rules + _of_listed(site) + _remarks(site)


def violations(rules: Iterable[Rule], values: Values) -> tuple[dict[str, str], dict[str, str]]:
    """Return what is refused and what is remarked, a sentence per field.

    *values* has the `NAMES` that are known; a rule about one that is missing or None is not violated.
    """
    errors: dict[str, str] = {}
    remarks: dict[str, str] = {}
    for rule in rules:
        if _violated(rule, values):
            (remarks if rule.get("remark") else errors).setdefault(rule["field"], sentence(rule, values))
    return errors, {field: text for field, text in remarks.items() if field not in errors}


def sentence(rule: Rule, values: Values) -> str:
    """Say what a violated *rule* says about these *values*."""
    number = values.get(rule.get("value", ""))
    shown = say_duration(number) if rule.get("value") == "time" and isinstance(number, int) else str(number)
    text = rule["say"].replace("{value}", shown)
    enough = [label for label, most in rule.get("instead", {}).items() if isinstance(number, int) and most >= number]
    return f"{text}, or choose {either(enough)}" if enough else text


def either(names: Iterable[str]) -> str:
    """Say ``a, b or c``."""
    *most, last = list(names) or ["nothing"]
    return f"{', '.join(most)} or {last}" if most else last


def _violated(rule: Rule, values: Values) -> bool:
    if any(values.get(name) not in allowed for name, allowed in rule["when"].items()):
        return False
    if not all(values.get(name) for name in rule.get("given", ())):
        return False
    if "most" not in rule:
        return True
    number = values.get(rule["value"])
    return isinstance(number, int) and number > rule["most"]


# Nothing of one's own takes the place of the Site's software.
_OF_THE_SITE = {"own_environment": [""], "own_container": [""]}


def _of_own() -> list[Rule]:
    """Say what is not used because something of one's own is."""
    rules: list[Rule] = []
    for field, name in (
        ("environment", "own_environment"),
        ("environment", "own_container"),
        ("image", "own_container"),
    ):
        what = FIELDS[name].in_words
        rules.append(
            {"field": field, "when": {}, "given": [name], "say": f"is not used: {what} takes its place", "remark": True}
        )
    return rules


def _of_images(site: Site) -> list[Rule]:
    rules: list[Rule] = []
    for key, environment in site.environments.items():
        lacking = [image for image in site.images if image not in environment.images]
        if environment.images and lacking:
            say = f"does not have {key}: choose {either(environment.images)}"
            when = {"environment": [key], "image": lacking, **_OF_THE_SITE}
            rules.append({"field": "image", "when": when, "say": say})
    return rules


def _of_sizes(site: Site, key: str, partition: Partition) -> list[Rule]:
    here = {"partition": [key]}
    longest = parse_duration(partition.max_time)
    most = partition.max_cores
    rules: list[Rule] = [
        {
            "field": "cores",
            "when": here,
            "value": "cores",
            "most": most,
            "say": f"a node of {key} has {most}: ask for {most} or fewer",
        },
        {
            "field": "time",
            "when": here,
            "value": "time",
            "most": longest,
            "say": f"{{value}} is too long for {key}: at most {say_duration(longest)}",
            "instead": {name: parse_duration(other.max_time) for name, other in site.partitions.items()},
        },
    ]
    if partition.max_memory:
        say = f"a node of {key} has {partition.max_memory} MB: ask for that or less"
        rules.append(
            {"field": "memory", "when": here, "value": "memory", "most": partition.max_memory, "say": say},
        )
    return rules


def _of_gpus(site: Site, key: str, partition: Partition) -> list[Rule]:
    rules: list[Rule] = []
    for gpu, item in site.gpus.items():
        where = {"partition": [key], "gpu_type": [gpu]}
        if gpu in partition.gpus:
            say = f"a node has {item.max_count} {gpu} at most: ask for {item.max_count}"
            rules.append({"field": "gpu", "when": where, "value": "gpu_count", "most": item.max_count, "say": say})
            continue
        what = f"has no {gpu}, only {either(partition.gpus)}" if partition.gpus else "has no GPUs"
        others = [name for name, other in site.partitions.items() if gpu in other.gpus]
        remedy = f"choose {either(others)}, or no GPU" if others else "choose no GPU"
        rules.append({"field": "gpu", "when": where, "say": f"{key} {what}: {remedy}"})
    if partition.gpu_required:
        others = [name for name, other in site.partitions.items() if not other.gpu_required]
        remedy = f", or partition {either(others)}" if others else ""
        say = f"{key} is only for sessions with a GPU: choose {either(f'{gpu}:1' for gpu in partition.gpus)}{remedy}"
        rules.append({"field": "gpu", "when": {"partition": [key], "gpu_type": ["none"]}, "say": say})
    return rules


def _of_listed(site: Site) -> list[Rule]:
    rules: list[Rule] = []
    for name, field in FIELDS.items():
        table = getattr(site, field.table) if field.kind == "listed" else {}
        for key, item in table.items():
            others = [other for other in site.partitions if other not in item.partitions]
            if item.partitions and others:
                say = f"{key} is only for partition {either(item.partitions)}: choose that, or no {field.in_words}"
                rules.append({"field": name, "when": {name: [key], "partition": others}, "say": say})
    return rules


def _remarks(site: Site) -> list[Rule]:
    """What is legal and perhaps not meant: the course compares its environment for the GPU with and without one."""
    rules = _of_own()
    gpus = list(site.gpus)
    useful = [key for key, environment in site.environments.items() if environment.gpu]
    for key, environment in site.environments.items():
        if not gpus or not useful:
            continue
        if environment.gpu:
            when, say = ["none"], f"{key} is made for a GPU: without one it computes on the cores"
        else:
            when = gpus
            say = f"{key} makes no use of a GPU: choose no GPU, or the environment {either(useful)}"
        both = {"environment": [key], "gpu_type": when, **_OF_THE_SITE}
        rules.append({"field": "gpu", "when": both, "say": say, "remark": True})
    return rules
