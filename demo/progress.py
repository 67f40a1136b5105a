"""What is being done and how long it took, for people who wait."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Progress:
    """Lines such as ``[ 12.3 s] installing Debian packages``, and a table at the end.

    Steps may overlap and may run in any thread.
    """

    def __init__(self, since: float | None = None, quiet: bool = False) -> None:
        """Count from *since* (seconds since the epoch), or from now."""
        self._began = time.time() if since is None else since
        self._quiet = quiet
        self._lock = threading.Lock()
        self._steps: list[tuple[str, float, float]] = []

    @property
    def elapsed(self) -> float:
        """Return seconds since the beginning."""
        return time.time() - self._began

    def say(self, text: str) -> None:
        """Print a line with the elapsed time in front."""
        if not self._quiet:
            with self._lock:
                print(f"[{self.elapsed:6.1f} s] {text}", flush=True)

    @contextmanager
    def step(self, name: str, more: str = "") -> Iterator[None]:
        """Name what happens inside (*more* is said, too, but not repeated in the table), and note how long it took."""
        self.say(name + more)
        began = self.elapsed
        try:
            yield
        finally:
            with self._lock:
                self._steps.append((name, began, self.elapsed))

    def table(self) -> None:
        """Print every step with its beginning and duration, and the sum."""
        if self._quiet or not self._steps:
            return
        with self._lock:
            width = max(len(name) for name, _, _ in self._steps)
            print(f"\n{'step':{width}}  {'began':>8}  {'took':>8}")
            for name, began, ended in sorted(self._steps, key=lambda step: step[1]):
                print(f"{name:{width}}  {began:6.1f} s  {ended - began:6.1f} s")
            print(f"{'all of it (steps overlap)':{width}}  {'':8}  {self.elapsed:6.1f} s", flush=True)


def warn(text: str) -> None:
    """Print *text* to stderr."""
    print(text, file=sys.stderr, flush=True)
