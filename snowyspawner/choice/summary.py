"""A choice in other words: what it costs, how its times are read, as a link and as a notebook.py line. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode

from ..site import Site
from ..site.fields import FIELDS
from ..slurm.times import say_duration
from .notebook_line import to_line
from .request import Review, SessionRequest, form_values


def cost(request: SessionRequest, site: Site) -> str:
    """Say what a session takes if it uses all its time: ``… = 3.9 core-hours, 32 GB, 1 NVIDIA T4``."""
    return total([request], site)


def total(requests: Sequence[SessionRequest], site: Site) -> str:
    """Say what sessions side by side take altogether if they use all their time; empty when there are none.

    A partition that gives whole nodes charges all their cores, whatever was asked for.
    """
    if not requests:
        return ""
    whole = [site.partitions[request.partition].whole_node for request in requests]
    cores, sizes = zip(*(charged(request, site) for request in requests), strict=True)
    memory = sum(sizes)
    hours = sum(count * request.time for request, count in zip(requests, cores, strict=True)) / 3600
    taken = _count(sum(cores), "core")
    if all(whole):
        taken += " (the whole node)" if len(whole) == 1 else " (whole nodes)"
    times = {request.time for request in requests}
    if len(times) == 1:
        taken += f" \N{MULTIPLICATION SIGN} {say_duration(times.pop())}"
    gpus = Counter[str]()
    for request in requests:
        gpus[request.gpu] += request.gpu_count
    parts = [f"{taken} = {_count(hours, 'core-hour')}", f"{_number(memory / 1000)} GB"]
    return ", ".join(parts + [f"{count} {_gpu_name(gpu, site)}" for gpu, count in gpus.items() if count])


def charged(request: SessionRequest, site: Site) -> tuple[int, int]:
    """Return the cores and the memory (MB) that a session has and pays for, also where its partition is not there now.

    A partition that gives whole nodes gives all their cores, whatever was asked for.
    """
    partition = site.partitions.get(request.partition)
    cores = partition.max_cores if partition and partition.whole_node else request.cores
    return cores, request.memory or cores * site.memory_per_core


def difference(request: SessionRequest, other: SessionRequest, site: Site) -> str:
    """Say where, with what environment and with what GPU *other* is not *request*: ``in devcore, without a GPU``."""
    parts = []
    if other.software != request.software:
        parts.append(f"with {other.software}")
    if other.partition != request.partition:
        parts.append(f"in {other.partition}")
    if (other.gpu, other.gpu_count) != (request.gpu, request.gpu_count):
        parts.append(f"with {other.gpu_count} {_gpu_name(other.gpu, site)}" if other.gpu else "without a GPU")
    return ", ".join(parts)


def _gpu_name(gpu: str, site: Site) -> str:
    return site.gpus[gpu].display_name or gpu


def said(read: Mapping[str, Any], site: Site) -> dict[str, str]:
    """Say the times of a choice in words; *read* is a `request.Review`'s, so one that cannot be read is missing."""
    words = {}
    if "time" in read:
        words["time"] = say_duration(read["time"])
    if "begin" in read:
        words["begin"] = say_moment(read["begin"], site) if read["begin"] else "now"
    return words


def say_moment(moment: float, site: Site) -> str:
    """Say epoch seconds as a date and time of the Site's zone: ``Thu 1 Oct 15:00 (Europe/Stockholm)``."""
    at = datetime.fromtimestamp(moment, site.zone)
    days = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
    months = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    # Not strftime: what %a gives depends on the hub's locale.
    return f"{days[at.weekday()]} {at.day} {months[at.month - 1]} {at:%H:%M} ({site.time_zone})"


def as_shown(options: Mapping[str, Any], found: Review) -> dict[str, str]:
    """Return the texts of *options* as the form shows them: what a line set, and each choice by its usual name."""
    texts = {field: text for field, text in {**found.line, **options}.items() if isinstance(text, str)}
    texts.pop("line", None)
    if "gpu" in texts and "gpu" in found.read:
        texts["gpu"] = f"{found.read['gpu']}:{found.read['gpu_count']}" if found.read["gpu"] else "none"
    if "email_on_start" in texts and "email_on_start" in found.read:
        texts["email_on_start"] = str(int(found.read["email_on_start"]))
    return texts


def shared_options(request: SessionRequest, site: Site, accounts: Sequence[str] | None = None) -> dict[str, str]:
    """Return the fields that a link or line has to say so that somebody else gets the same.

    Left out are empty ones, and a project that is what this person gets anyway: others have their own.
    """
    defaults = form_values(site, accounts)
    options = request.options(site)
    same = {field for field in ("account", "email_on_start") if options[field] == defaults[field]}
    # An empty field only matters where the default is not.
    return {f: options[f] for f in FIELDS if f not in same and (options[f] or defaults[f])}


def link(options: Mapping[str, str], base_url: str = "/hub/", server_name: str = "", user_name: str = "") -> str:
    """Return the address that opens the form with *options*; *base_url* is the hub's, with a slash at its end.

    With *server_name* it is that server's form, with *user_name* that person's: for the page's own use.
    """
    about = urlencode({name: text for name, text in (("server", server_name), ("user", user_name)) if text})
    query = "&".join(filter(None, (_opt(tuple(options.items())), about)))
    return f"{base_url}snowy" + (f"?{query}" if query else "")


@lru_cache(maxsize=256)  # a form has a link for each card, the same for everybody
def _opt(options: tuple[tuple[str, str], ...]) -> str:
    # A list stays one that people can read.
    return urlencode([(f"opt-{field}", text) for field, text in options], safe=",")


def line(options: Mapping[str, str], site: Site) -> str:
    """Return *options* as a notebook.py line. The image is named where it is not the Site's default."""
    usual = options.get("image") == form_values(site)["image"]
    return to_line({field: text for field, text in options.items() if not (usual and field == "image")})


def _count(number: float, what: str) -> str:
    text = _number(number)
    return f"{text} {what}{'' if text == '1' else 's'}"


def _number(value: float) -> str:
    """Write three digits at most, and none that say nothing: ``3.93`` as 3.9, ``128.0`` as 128."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}".removesuffix(".0") if value >= 0.1 else f"{value:.2g}"
