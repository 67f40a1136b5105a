"""axe-core, which the browser tests look for barriers with; from npm, for tests only (its licence is MPL-2.0)."""

from __future__ import annotations

from pathlib import Path

from .commands import run
from .directories import CACHE, cached

VERSION = "4.14.1"
NAME = f"axe-core-{VERSION}"


def script() -> Path:
    """Return the script to be loaded into a page."""
    return CACHE / NAME / "node_modules" / "axe-core" / "axe.min.js"


def install() -> None:
    """Install it into the cache. npm's own configuration says from where."""

    def build(work: Path, final: Path) -> None:
        result = work / "result"
        result.mkdir()
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock", "--omit=dev"]
        run(["npm", "install", "--prefix", result, *options, f"axe-core@{VERSION}"])

    cached(NAME, build)
