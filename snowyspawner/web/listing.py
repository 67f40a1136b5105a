"""All sessions as rows: of which some are shown, in an order. Pure: reads memory only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode

from ..choice.request import load
from ..session.lifecycle import Life
from .card import Card, Kind, gpu_of, natural

#: What a page calls a phase, in the order in which sessions are shown.
PHASES: Mapping[Kind, str] = {
    "running": "Running",
    "starting": "Starting",
    "waiting": "In the queue",
    "lost": "In the queue, followed by nobody",
    "stopping": "Stopping",
    "ended": "Ended",
}
#: By what rows can be put in order, and what a page calls it.
COLUMNS: Mapping[str, str] = {
    "person": "Person",
    "server": "Server",
    "job": "Job",
    "phase": "Phase",
    "node": "Node",
    "partition": "Partition",
    "project": "Project",
    "cores": "Cores",
    "gpu": "GPU",
    "time": "Time",
    "started": "Started",
}
#: Rows on a page.
MOST = 500
_LONGEST = 100  # characters of a text to look for


class Row(NamedTuple):
    """One session. Times are in epoch seconds, None where there is none."""

    person: str
    server: str  # as its owner has called it; empty: the default one
    card: Card
    cluster: str
    partition: str
    project: str
    cores: int
    gpu: str
    started: float | None
    until: float | None  # when it ends; if it waits, since when; if it has ended, when that was
    may_stop: bool
    may_read: bool  # its log, and what goes to support

    @property
    def reason(self) -> str:
        """Say why it is as it is."""
        status, words = self.card.status, self.card.words
        return (status.why or status.sentence) if status else words.sentence

    @property
    def time(self) -> str:
        """Say how long it still lasts, how long it has waited, or how long ago it has ended."""
        said = self.card.since(self.until)
        form = {"waiting": "waits {}", "lost": "waits {}", "ended": "{} ago"}.get(self.card.kind, "{} left")
        return form.format(said) if said else ""

    @property
    def stops(self) -> bool:
        """Whether there is something to stop, for whoever looks."""
        return self.may_stop and self.card.kind not in ("ended", "stopping", "idle")

    def has(self, word: str) -> bool:
        """Tell whether *word*, in lower case, is in what it is looked for by."""
        texts = (self.person, self.server, self.card.job_id, self.card.node, self.project)
        return any(word in text.lower() for text in texts)


def row_of(life: Life, card: Card, person: str, server: str, may_stop: bool, may_read: bool) -> Row | None:
    """Return the row of a session; None when there is none under this name."""
    held = life.job if life.job and life.job.alive else life.last
    if card.kind == "idle" or held is None:
        return None
    wanted = load(held.request)
    waits = card.kind in ("waiting", "lost")
    return Row(
        person,
        server,
        card,
        held.cluster or life.site.cluster,
        wanted.partition,
        wanted.account,
        wanted.cores,
        gpu_of(wanted, life.site),
        held.begun_at or None,
        card.ended_at if card.kind == "ended" else card.submitted_at if waits else card.ends_at,
        may_stop,
        may_read,
    )


class View(NamedTuple):
    """Which rows are shown, and in what order, as the page's address has it."""

    text: str = ""
    phase: str = ""  # a Kind; empty: all
    sort: str = ""  # a key of `COLUMNS`, behind - for the other way round; empty: as `PHASES` has them

    @classmethod
    def read(cls, argument: Callable[[str], str]) -> View:
        """Read an address; what means nothing is passed over. *argument* gives one by its name, or an empty text."""
        text, phase, sort = (argument(name).strip()[:_LONGEST] for name in ("text", "phase", "sort"))
        return cls(text, phase if phase in PHASES else "", sort if sort.removeprefix("-") in COLUMNS else "")

    def query(self, **changes: str) -> str:
        """Return it, changed, as the query of an address; empty or with its question mark."""
        given = {name: value for name, value in {**self._asdict(), **changes}.items() if value}
        return f"?{urlencode(given)}" if given else ""

    def by(self, column: str) -> str:
        """Return the query that sorts by *column*; the other way round if it does so already."""
        return self.query(sort=f"-{column}" if self.sort == column else column)

    def direction(self, column: str) -> str:
        """Return what ARIA calls the order of *column*; empty if it is not the one."""
        return {column: "ascending", f"-{column}": "descending"}.get(self.sort, "")

    def choose(self, rows: Iterable[Row]) -> list[Row]:
        """Return the rows that are shown, in their order."""
        words = self.text.lower().split()
        found = [
            row
            for row in rows
            if (not self.phase or row.card.kind == self.phase) and all(row.has(word) for word in words)
        ]
        found.sort(key=_usual)
        if self.sort:
            value = _VALUES[self.sort.removeprefix("-")]
            having = [row for row in found if value(row)]
            having.sort(key=lambda row: _order(value(row)), reverse=self.sort.startswith("-"))
            # Whichever way round, the others come last.
            found = having + [row for row in found if not value(row)]
        return found


_ORDER = {kind: at for at, kind in enumerate(PHASES)}


def _usual(row: Row) -> tuple[int, float]:
    newest = row.card.ended_at or row.started or row.card.submitted_at or 0.0
    return _ORDER.get(row.card.kind, len(_ORDER)), -newest


def _order(value: Any) -> Any:
    return natural(value.lower()) if isinstance(value, str) else value


#: What is compared, by column; nothing: the row has none.
_VALUES: Mapping[str, Callable[[Row], Any]] = {
    "person": lambda row: row.person,
    "server": lambda row: row.server,
    "job": lambda row: row.card.job_id,
    "phase": lambda row: 1 + _ORDER.get(row.card.kind, len(_ORDER)),
    "node": lambda row: row.card.node,
    "partition": lambda row: row.partition,
    "project": lambda row: row.project,
    "cores": lambda row: row.cores,
    "gpu": lambda row: row.gpu,
    "time": lambda row: row.until,
    "started": lambda row: row.started,
}
