"""configurable-http-proxy, JupyterHub's proxy, from npm."""

from __future__ import annotations

import shutil
from pathlib import Path

from . import DemoError
from .commands import SYSTEM_PATH, run
from .directories import CACHE, cached

# The last version for Node 10 and newer: Debian 12 has Node 18, and 5.x wants 20.
VERSION = "4.6.3"
NAME = f"configurable-http-proxy-{VERSION}"


def installed() -> bool:
    """Tell whether it is in the cache."""
    return _script().exists()


def _script() -> Path:
    return CACHE / NAME / "node_modules" / "configurable-http-proxy" / "bin" / "configurable-http-proxy"


def command() -> list[str]:
    """Return what starts the proxy: the script by its interpreter, wherever node is."""
    node = shutil.which("node") or shutil.which("node", path=SYSTEM_PATH)
    if not node:
        raise DemoError("node is not installed: python -m demo packages")
    return [node, str(_script())]


def install() -> None:
    """Install it into the cache. npm's own configuration says from where."""

    def build(work: Path, final: Path) -> None:
        result = work / "result"
        result.mkdir()
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock", "--omit=dev"]
        run(["npm", "install", "--prefix", result, *options, f"configurable-http-proxy@{VERSION}"])

    cached(NAME, build)
