"""Environments of a person's own, for tests: real ones, quick to make.

They are virtual environments of Debian's Python, which is the image's, too; what is installed in one of the image's own
is lent to them by a .pth file, so that they work in the image only.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from demo.commands import open_umask

LENDER = "/opt/conda/envs/tf-pip"
SERVER = "import sys\nfrom jupyterhub.singleuser import main\nsys.exit(main())\n"


def make_environment(path: Path, owner: str = "", *, server: bool = True) -> Path:
    """Make an environment that has jupyterhub where the image is."""
    with open_umask():
        path.parent.mkdir(parents=True, exist_ok=True)
        run("/usr/bin/python3", "-m", "venv", "--without-pip", str(path))
        (packages,) = path.glob("lib/python3*/site-packages")
        (packages / "image.pth").write_text(f"{LENDER}/lib/python3.11/site-packages\n")
        for name in ("etc", "share"):  # Jupyter's extensions and JupyterLab itself
            (path / name).mkdir(exist_ok=True)
            (path / name / "jupyter").symlink_to(f"{LENDER}/{name}/jupyter")
        if server:
            (path / "bin" / "jupyterhub-singleuser").write_text(f"#!{path}/bin/python3\n{SERVER}")
            (path / "bin" / "jupyterhub-singleuser").chmod(0o755)
    if owner:
        run("chown", "-R", f"{owner}:", str(path.parent))
    return path


def run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, (argv, done.stderr)
