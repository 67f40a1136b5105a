"""The wheel that people install, built from a copy of the checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement

from demo.image import SLOW_TO_IMPORT

ROOT = Path(__file__).resolve().parent.parent


def build(where: Path) -> Path:
    """Build it in the directory *where*; return its path."""
    source = where / "source"
    source.mkdir()
    # A copy: building leaves directories behind.
    for name in ("snowyspawner", "share"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "jupyterhub_config.py"):
        shutil.copy(ROOT / name, source)
    # setuptools is one of the tests' own packages: pip need not download it into an environment for the build alone.
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(where), str(source))
    (wheel,) = where.glob("snowyspawner-*.whl")
    return wheel


def install(wheel: Path, python: Path) -> Path:
    """Install it alone into the environment of *python*, which needs no pip of its own; return its site-packages."""
    _pip("--python", str(python), "install", "--no-deps", str(wheel))
    (site_packages,) = (python.parent.parent / "lib").glob("python*/site-packages")
    return site_packages


def copy_dependencies(site_packages: Path) -> None:
    """Copy what the wheel there asks for from our own environment, and nothing else.

    pip would take a minute to find the same. Others may read the copies, whatever the umask was.
    """
    (wheel,) = distributions(name="snowyspawner", path=[str(site_packages)])
    copied = {*SLOW_TO_IMPORT}  # not in our own either
    wanted = _requirements(wheel, set())
    while wanted:
        requirement = wanted.pop()
        asked = " ".join([requirement.name, *sorted(requirement.extras)])
        if asked in copied:
            continue
        copied.add(asked)
        found = distribution(requirement.name)
        wanted += _requirements(found, requirement.extras)
        for file in found.files or ():
            source, target = Path(str(file.locate())), site_packages / file
            if "bin" in file.parts:  # scripts name our own Python
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            # With its time: what Python has compiled is for a file of that time.
            shutil.copy2(source, target)
            target.chmod(source.stat().st_mode | 0o444)


def _requirements(found: Distribution, extras: set[str]) -> list[Requirement]:
    every = [Requirement(text) for text in found.requires or ()]
    return [
        requirement
        for requirement in every
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": e}) for e in extras or {""})
    ]


def _pip(*words: str) -> None:
    argv = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *words]
    subprocess.run(argv, check=True, timeout=300)
