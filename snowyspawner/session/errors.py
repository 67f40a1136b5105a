"""The one exception in which every failure of a start reaches the person."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Literal

from jupyterhub.spawner import SpawnException

from .messages import Words, given_up

#: Becomes a label of JupyterHub's metrics, so the list is closed.
Reason = Literal[
    "request", "slurm", "queue_timeout", "launch_timeout", "no_hub", "launch", "ended", "unreachable", "unsupported"
]  # an `Ended` may also have "idle"


class SessionError(SpawnException):  # type: ignore[misc]  # jupyterhub has no types
    """A session does not start, or ended before it served. Says what happened and what to do.

    JupyterHub looks for a message in three places (the exception's text, ``jupyterhub_message`` and
    ``jupyterhub_html_message``); all three are filled. The status is a 4xx: proxies replace 5xx pages.
    """

    def __init__(
        self,
        words: Words,
        *,
        reason: Reason,
        detail: str = "",
        log: Sequence[str] = (),
        status_code: int = 409,
    ) -> None:
        self.words, self.detail, self.log = words, detail, list(log)
        text = f"{words} ({detail})" if detail else str(words)
        super().__init__(text, reason=reason, status_code=status_code)
        self.jupyterhub_message = text
        self.jupyterhub_html_message = self._html()

    @classmethod
    def given_up(cls, reason: Reason, detail: str, node: str = "?") -> SessionError:
        """Return what a start ends with that the hub gives up; the same is said of it afterwards."""
        return cls(given_up(reason, node) or Words(reason), reason=reason, detail=detail)

    def _html(self) -> str:
        parts = [f"<p>{escape(str(self.words))}</p>"]
        if self.detail:
            parts.append(f"<p><small>{escape(self.detail)}</small></p>")
        if self.log:
            parts.append(f"<pre>{escape(chr(10).join(self.log))}</pre>")
        return "".join(parts)
