"""What to change in a session that is started again, from what the one before used: a table. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..choice.request import SessionRequest, load, review
from ..choice.summary import charged
from ..site import Site
from .usage import Usage

#: Seconds of a session that say something about the next one.
ENOUGH = 300.0
# Of the time that the job had begun, so much must have been measured.
_MEASURED = 0.5


class Advice(NamedTuple):
    """One piece of advice."""

    key: str  # of its row
    sentence: str
    label: str  # what follows "Start again": with 2 cores
    changes: Mapping[str, str]  # options, as a person would write them


class _Facts(NamedTuple):
    usage: Usage
    wanted: SessionRequest
    site: Site
    cores: int  # that it had
    memory: int  # MB that it had

    @property
    def largest(self) -> int:
        """The most cores that a session may have in the same partition."""
        partition = self.site.partitions.get(self.wanted.partition)
        return partition.max_cores if partition else 0

    @property
    def by_cores(self) -> bool:
        """Whether fewer or more cores make a difference, and memory comes with them."""
        partition = self.site.partitions.get(self.wanted.partition)
        return partition is not None and not partition.whole_node

    def usually(self, name: str) -> float | None:
        """Return below what a value stayed for nine tenths of the time; its mean, where its curve is not known."""
        curve = self.usage.curve
        known = sorted(value for value in getattr(curve, name) if value is not None) if curve else []
        mean: float | None = getattr(self.usage, name)
        return known[int(0.9 * (len(known) - 1) + 0.5)] if len(known) >= 10 else mean


class _Row(NamedTuple):
    key: str
    change: Callable[[_Facts], Mapping[str, str]]  # empty: it does not apply
    sentence: Callable[[_Facts], str]
    label: Callable[[Mapping[str, str], _Facts], str]


def advice_of(usage: Usage | None, request: Any, site: Site, seconds: float = 0.0) -> Advice | None:
    """Return what to change, if anything is worth it; *request* is a stored one, of a job that ran for *seconds*."""
    if usage is None or usage.seconds < max(ENOUGH, _MEASURED * seconds):
        return None
    wanted = load(request)
    facts = _Facts(usage, wanted, site, *charged(wanted, site))
    if not facts.cores or not facts.memory:
        return None
    for row in _TABLE:
        changes = row.change(facts)
        # What the Site does not allow is no advice.
        if changes and not review({**wanted.options(site), "begin": "", "reservation": "", **changes}, site).errors:
            return Advice(row.key, row.sentence(facts), row.label(changes, facts), changes)
    return None


def _more_memory(facts: _Facts) -> Mapping[str, str]:
    peak = facts.usage.memory_peak
    if peak is None or peak < 0.9 * facts.memory:
        return {}
    if facts.site.memory_free:
        return {"memory": str(2 * facts.memory)}
    return _with_cores(2 * facts.cores, facts)


def _no_gpu(facts: _Facts) -> Mapping[str, str]:
    busy, usually = facts.usage.gpu_busy, facts.usually("gpu_busy")
    if not facts.wanted.gpu or busy is None or usually is None or busy >= 5 or usually >= 5:
        return {}
    return {"gpu": "none"}


def _fewer_cores(facts: _Facts) -> Mapping[str, str]:
    cores, peak = facts.usually("cores"), facts.usage.memory_peak
    if cores is None or peak is None:
        return {}
    fewer = 1
    while fewer < facts.cores and not (fewer >= cores and _holds(fewer, peak, facts)):
        fewer *= 2
    return _with_cores(fewer, facts) if fewer <= facts.cores / 2 else {}


def _more_cores(facts: _Facts) -> Mapping[str, str]:
    if facts.usage.cores is None or facts.usage.cores < 0.9 * facts.cores:
        return {}
    return _with_cores(min(2 * facts.cores, facts.largest), facts)


def _holds(cores: int, peak: float, facts: _Facts) -> bool:
    memory = facts.wanted.memory or cores * facts.site.memory_per_core
    return peak < 0.8 * memory


def _with_cores(cores: int, facts: _Facts) -> Mapping[str, str]:
    return {"cores": str(cores)} if facts.by_cores and cores != facts.cores and cores <= facts.largest else {}


def _label(changes: Mapping[str, str], facts: _Facts) -> str:
    if "memory" in changes:
        return f"with {int(changes['memory']) / 1000:g} GB"
    cores = int(changes["cores"])
    label = f"with {cores} core{'s' if cores != 1 else ''}"
    # Where memory comes with the cores, it is what one asks for.
    return label if facts.wanted.memory else f"{label} and {cores * facts.site.memory_per_core / 1000:g} GB"


def _of_cores(facts: _Facts) -> str:
    return "Its core" if facts.cores == 1 else f"All {facts.cores} cores"


#: The first row that applies counts. Nothing is made of a GPU's memory: TensorFlow takes all of it in any case.
_TABLE = (
    _Row("memory", _more_memory, lambda facts: "It used nearly all of its memory: with more it is safe.", _label),
    _Row(
        "gpu",
        _no_gpu,
        lambda facts: "The GPU had nearly nothing to do: without one a session starts sooner, and others get it.",
        lambda changes, facts: "without a GPU",
    ),
    _Row(
        "fewer-cores",
        _fewer_cores,
        lambda facts: "Fewer cores were enough most of the time: a smaller session starts sooner and costs less.",
        _label,
    ),
    _Row(
        "more-cores",
        _more_cores,
        lambda facts: (
            f"{_of_cores(facts)} {'was' if facts.cores == 1 else 'were'} busy nearly all the time: "
            "with more it may be faster."
        ),
        _label,
    ),
)
