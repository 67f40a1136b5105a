"""What a session uses, as its job says it: checked, and in words. Pure."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError

from ..choice.request import SessionRequest, load
from ..choice.summary import charged
from ..site import Site
from ..slurm.accounting import JobUse
from ..slurm.times import say_running

#: Below this nothing is said: seconds.
SHORTEST = 30.0

_Number = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False), Strict(False)]
_Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False), Strict(False)]


#: Points of a curve, at most.
_POINTS = 120


class Curve(BaseModel):
    """How a session went: for each step its mean. None: it could not be measured then."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    step: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False), Strict(False)]  # seconds
    cores: Annotated[list[_Number | None], Field(max_length=_POINTS)] = []
    memory: Annotated[list[_Number | None], Field(max_length=_POINTS)] = []  # MiB
    gpu_busy: Annotated[list[_Percent | None], Field(max_length=_POINTS)] = []  # percent


class Usage(BaseModel):
    """A job's own record (standalone/sampler.py). None: it could not be measured, which is not 0."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    seconds: _Number  # for which it was measured
    cores: _Number | None = None  # that were busy, in the mean
    memory: _Number | None = None  # MiB, now
    memory_peak: _Number | None = None  # MiB
    gpu_busy: _Percent | None = None  # of the time, in the mean
    gpu_memory: _Number | None = None  # MiB that the GPUs have
    gpu_memory_peak: _Number | None = None  # MiB
    gpu_energy: _Number | None = None  # Wh, of the GPUs alone
    curve: Curve | None = None
    unused: _Number | None = None  # seconds for which it has neither computed nor been used


def read_usage(said: Any) -> Usage:
    """Read what a job says. Raises `ValueError`: it is no record."""
    try:
        return Usage.model_validate(said)
    except ValidationError as error:
        raise ValueError(f"usage: {error.error_count()} values that no job has") from None


def sampler(request: SessionRequest, site: Site, interval: int) -> dict[str, Any]:
    """Return what a job's sampler has to know (standalone/sampler.py); empty: nothing is measured.

    *interval* is in seconds, between two records.
    """
    if not interval:
        return {}
    gpu = site.gpus.get(request.gpu)
    cores, memory = charged(request, site)
    return {
        "interval": interval,
        "gpu": gpu.vendor if gpu else "",
        "had": {"cores": cores, "memory": memory},
        "idle": bool(site.idle_limits(request.partition, bool(request.gpu))[0]),
    }


def usage_of(use: JobUse) -> Usage:
    """Return what accounting says of a job as if the job had said it: without a curve, and its energy is not known."""
    return Usage(
        seconds=use.seconds,
        cores=use.cpu_seconds / use.seconds if use.cpu_seconds is not None and use.seconds else None,
        memory_peak=use.memory,
        gpu_busy=use.gpu_busy,
        gpu_memory=use.gpu_memory,
        gpu_memory_peak=use.gpu_memory_peak,
    )


class Line(NamedTuple):
    """One of the curves of a session, as a page draws it."""

    label: str  # Cores
    said: str  # in words: from 0.1 to 3.9 of 4
    shares: tuple[float | None, ...]  # of what the session had, 0 to 1; None: not known


def lines_of(usage: Usage | None, request: Any, site: Site) -> tuple[Line, ...]:
    """Return the curves of a session with a stored *request*: its cores, and its GPU if it has one."""
    if usage is None or usage.curve is None:
        return ()
    wanted = load(request)
    cores, _ = charged(wanted, site)
    curves = [("Cores", usage.curve.cores, cores, f" of {cores}")]
    if wanted.gpu:
        curves.append(("GPU", usage.curve.gpu_busy, 100, " %"))
    lines = []
    for label, values, most, unit in curves:
        known = [value for value in values if value is not None]
        if len(known) < 2 or not most:
            continue
        low, high = _short(min(known)), _short(max(known))
        said = f"{low if low == high else f'{low} to {high}'}{unit}"
        shares = tuple(None if value is None else min(1.0, value / most) for value in values)
        lines.append(Line(label, said, shares))
    return tuple(lines)


class Shares(NamedTuple):
    """Of what a session had, what it used, 0 to 1 (None: not known), under names that many sessions have."""

    environment: str  # a key of the Site's, own, or other
    partition: str  # the same
    cores: float | None
    gpu: float | None


def shares_of(usage: Usage | None, request: Any, site: Site) -> Shares | None:
    """Return what is counted of a session with a stored *request*; None when too little was measured."""
    if usage is None or usage.seconds < SHORTEST:
        return None
    wanted = load(request)
    had, _ = charged(wanted, site)
    own = wanted.own_environment or wanted.own_container
    return Shares(
        "own" if own else wanted.environment if wanted.environment in site.environments else "other",
        wanted.partition if wanted.partition in site.partitions else "other",
        min(1.0, usage.cores / had) if usage.cores is not None and had else None,
        usage.gpu_busy / 100 if usage.gpu_busy is not None and wanted.gpu else None,
    )


def said_of(usage: Usage | None, request: Any, site: Site) -> str:
    """Say what a session with a stored *request* has used, against what it had; empty when that is not known.

    ``Used in 52 min: 1.2 of 4 cores, 3.1 of 32 GB, GPU busy 6 % of the time (most memory 1.4 of 15 GB).``
    """
    if usage is None or usage.seconds < SHORTEST:
        return ""
    wanted = load(request)
    cores, memory = charged(wanted, site)
    parts = []
    if usage.cores is not None:
        parts.append(f"{_short(usage.cores)} of {cores} core{'s' if cores != 1 else ''}")
    if usage.memory_peak is not None:
        parts.append(f"{_short(usage.memory_peak / 1000)} of {_short(memory / 1000)} GB")
    if wanted.gpu:
        parts.append(_of_gpus(usage))
    if usage.cores is None and usage.memory_peak is None and usage.gpu_busy is None:
        return ""
    return f"Used in {say_running(usage.seconds)}: {', '.join(parts)}."


def energy_of(usage: Usage | None, site: Site) -> str:
    """Say what the GPUs took, apart from all else: ``Energy of the GPU alone: 12 Wh, 0.5 g of CO₂.``"""
    if usage is None or usage.gpu_energy is None or usage.seconds < SHORTEST:
        return ""
    hours = usage.gpu_energy
    text = f"{_short(hours / 1000)} kWh" if hours >= 1000 else f"{_short(hours)} Wh"
    if site.co2 is not None:
        grams = hours / 1000 * site.co2
        small = "less than 0.01" if 0 < grams < 0.01 else _short(grams)
        text += f", {_short(grams / 1000)} kg" if grams >= 1000 else f", {small} g"
        text += " of CO\N{SUBSCRIPT TWO}"
    return f"Energy of the GPU alone: {text}."


def _of_gpus(usage: Usage) -> str:
    if usage.gpu_busy is None:
        return "GPU not known"
    text = f"GPU busy {usage.gpu_busy:.0f} % of the time"
    if usage.gpu_memory and usage.gpu_memory_peak is not None:
        text += f" (most memory {_short(usage.gpu_memory_peak / 1000)} of {_short(usage.gpu_memory / 1000)} GB)"
    return text


def _short(number: float) -> str:
    """Write a number with no digits that say nothing: 0.06, 1.2, 32."""
    if number >= 10:
        return f"{number:.0f}"
    return f"{number:.1f}".removesuffix(".0") if number >= 0.1 else f"{number:.1g}" if number >= 0.01 else "0"
