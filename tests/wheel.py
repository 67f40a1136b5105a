"""The wheel that people install, built from a copy of the checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def build(where: Path) -> Path:
    """Build it in the directory *where*; return its path."""
    source = where / "source"
    source.mkdir()
    # A copy: building leaves directories behind.
    for name in ("snowyspawner", "share"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    # setuptools is one of the tests' own packages: pip need not download it into an environment for the build alone.
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(where), str(source))
    (wheel,) = where.glob("snowyspawner-*.whl")
    return wheel


def install(wheel: Path, python: Path, *options: str) -> None:
    """Install it into the environment of *python*, which needs no pip of its own."""
    _pip("--python", str(python), "install", *options, str(wheel))


def _pip(*words: str) -> None:
    argv = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *words]
    subprocess.run(argv, check=True, timeout=300)
