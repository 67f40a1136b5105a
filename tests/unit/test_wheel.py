"""What is installed from a wheel works without the checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import snowyspawner

CHECKOUT = Path(snowyspawner.__file__).parent.parent

TRY = """
import pathlib, sys
import snowyspawner
from snowyspawner import site, form, request, script
from snowyspawner._share import share_dir
here = pathlib.Path(sys.prefix).resolve()
assert pathlib.Path(snowyspawner.__file__).resolve().is_relative_to(here), snowyspawner.__file__
assert share_dir() == here / "share" / "snowyspawner", share_dir()
snowy = site.load("snowy")
default = request.from_options({}, snowy)
assert "<select" in form.render(snowy, default.options(snowy), {})
print(script.build(snowy, default, script.Target("n", "/home/you", "http://h/", 1)))
"""


@pytest.mark.slow
def test_an_installed_wheel_has_its_sites_templates_and_launcher(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    # A copy: building leaves directories behind.
    for name in ("snowyspawner", "share"):
        shutil.copytree(CHECKOUT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        if (CHECKOUT / name).exists():
            shutil.copy(CHECKOUT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(tmp_path), str(source)], check=True, timeout=300)
    (wheel,) = tmp_path.glob("snowyspawner-*.whl")

    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    subprocess.run([*pip, "--python", str(python), "install", "--no-deps", str(wheel)], check=True, timeout=300)
    # The dependencies are those of this environment; its own snowyspawner comes later on the path, if at all.
    (site_packages,) = (home / "lib").glob("python*/site-packages")
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    done = subprocess.run([str(python), "-c", TRY], cwd="/", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "#SBATCH --partition=core" in done.stdout
    installed = {
        path.relative_to(home / "share" / "snowyspawner")
        for path in (home / "share" / "snowyspawner").rglob("*")
        if path.is_file()
    }
    for part in ("templates", "sites", "deploy"):
        there = {path.relative_to(CHECKOUT / "share") for path in (CHECKOUT / "share" / part).iterdir()}
        assert there <= installed
        assert there
    command = subprocess.run([str(home / "bin" / "snowyspawner"), "check"], cwd="/", capture_output=True, text=True)
    assert command.returncode == 0, command.stderr
    printed = subprocess.run([str(home / "bin" / "snowyspawner"), "helper"], cwd="/", capture_output=True)
    assert printed.returncode == 0, printed.stderr
    argv = ["/usr/bin/python3", "-IS", "-", "image", "container.sif"]
    helper = subprocess.run(argv, input=printed.stdout, cwd="/", capture_output=True)
    assert (helper.returncode, helper.stdout) == (0, b"missing\n"), helper.stderr
