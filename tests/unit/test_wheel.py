"""What is installed from a wheel works without the checkout."""

from __future__ import annotations

import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.wheel import ROOT, build, install

TRY = """
import pathlib, sys
import snowyspawner
from snowyspawner import site
from snowyspawner.choice import request
from snowyspawner.session import script
from snowyspawner.web import form
from snowyspawner._share import share_dir
here = pathlib.Path(sys.prefix).resolve()
assert pathlib.Path(snowyspawner.__file__).resolve().is_relative_to(here), snowyspawner.__file__
assert share_dir() == here / "share" / "snowyspawner", share_dir()
snowy = site.load("snowy")
default = request.from_options({}, snowy)
assert 'name="environment"' in form.render(snowy, default.options(snowy), {})
assert "missing" not in form.static_url("/hub/", "snowy.css")
print(script.build(snowy, default, script.Target("n", "/home/you", "http://h/", 1)))
"""


@pytest.mark.slow
def test_an_installed_wheel_has_its_sites_templates_and_launcher(tmp_path: Path) -> None:
    wheel = build(tmp_path)
    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    site_packages = install(wheel, python)
    # The dependencies are those of this environment; its own snowyspawner comes later on the path, if at all.
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")

    done = subprocess.run([str(python), "-c", TRY], cwd="/", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "#SBATCH --partition=core" in done.stdout
    installed = {
        path.relative_to(home / "share" / "snowyspawner")
        for path in (home / "share" / "snowyspawner").rglob("*")
        if path.is_file()
    }
    for part in ("templates", "sites", "deploy", "labextension", "static"):
        there = {path.relative_to(ROOT / "share") for path in (ROOT / "share" / part).iterdir()}
        assert there <= installed
        assert there
    command = subprocess.run([str(home / "bin" / "snowyspawner"), "check"], cwd="/", capture_output=True, text=True)
    assert command.returncode == 0, command.stderr
    printed = subprocess.run([str(home / "bin" / "snowyspawner"), "helper"], cwd="/", capture_output=True)
    assert printed.returncode == 0, printed.stderr
    argv = ["/usr/bin/python3", "-IS", "-", "image", "container.sif"]
    helper = subprocess.run(argv, input=printed.stdout, cwd="/", capture_output=True)
    assert (helper.returncode, helper.stdout) == (0, b"missing\n"), helper.stderr
