"""What several unit tests share. Fixtures, not imports: other directories of tests have a conftest.py too."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from snowyspawner import site as site_module
from snowyspawner.session.script import Target
from snowyspawner.site import Site


@pytest.fixture(scope="session")
def snowy() -> Site:
    """The shipped site that everything else is compared with."""
    return site_module.load("snowy")


@pytest.fixture(scope="session")
def variant() -> Callable[..., Site]:
    """Snowy with some keys changed; null removes one."""

    def make(**changes: Any) -> Site:
        return site_module.load({"extends": "snowy", **changes})

    return make


@pytest.fixture
def target() -> Target:
    return Target("jupyter-lab-0123abcd", "/home/you", "http://hub.example:8081/hub/api/snowyspawner/", 7)


@pytest.fixture
def executable(tmp_path: Path) -> Callable[..., Path]:
    """Write a program into a directory of its own that can be a PATH; return its path."""

    def write(name: str, text: str, where: str = "bin") -> Path:
        path = tmp_path / where / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    return write


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Any]:
    """Wait until *condition* gives something true, and return that; fail after *deadline* seconds."""

    def wait(condition: Callable[[], Any], what: str, deadline: float = 15.0) -> Any:
        end = time.monotonic() + deadline
        while not (value := condition()):
            if time.monotonic() > end:
                pytest.fail(f"not within {deadline:g} s: {what}")
            time.sleep(0.02)
        return value

    return wait


@pytest.fixture(scope="session")
def aeventually() -> Callable[..., Awaitable[Any]]:
    """`eventually` for a test that runs in the event loop which has to make it true."""

    async def wait(condition: Callable[[], Any], what: str, deadline: float = 15.0) -> Any:
        end = time.monotonic() + deadline
        while not (value := condition()):
            if time.monotonic() > end:
                pytest.fail(f"not within {deadline:g} s: {what}")
            await asyncio.sleep(0.01)
        return value

    return wait
