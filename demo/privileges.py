"""Root: daemons, accounts and packages need it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping

from . import CHECKOUT, DemoError
from .packages import BROWSER, NEEDED, missing

# What pip, npm, apt and Python need to find their mirrors; sudo drops the rest.
KEPT = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "TERM", "LANG", "PATH")
KEPT_STARTS = ("PIP_", "NPM_CONFIG_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SNOWYSPAWNER_", "COVERAGE_", "PYTEST_")


def kept(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what root needs of a user's *environment*, and where that user's pip and npm keep their settings."""
    found = {k: v for k, v in environment.items() if k in KEPT or k.upper().startswith(KEPT_STARTS)}
    home = environment.get("HOME", "/nonexistent")
    for name, file in (("PIP_CONFIG_FILE", ".config/pip/pip.conf"), ("NPM_CONFIG_USERCONFIG", ".npmrc")):
        if os.path.exists(f"{home}/{file}"):
            found.setdefault(name, f"{home}/{file}")
    # Files that root makes in a user's checkout are in that user's way.
    return found | {"PYTHONDONTWRITEBYTECODE": "1"}


def become_root(words: list[str]) -> None:
    """Return if this is root; else start the same command again by sudo. Raises `DemoError` without either."""
    if os.geteuid() == 0:
        return
    sudo = shutil.which("sudo")
    if sudo and (sys.stdin.isatty() or subprocess.run([sudo, "-n", "true"], capture_output=True).returncode == 0):
        os.chdir(CHECKOUT)
        settings = [f"{name}={value}" for name, value in kept(os.environ).items()]
        os.execv(sudo, [sudo, "--", "env", *settings, sys.executable, "-m", "demo", *words])  # noqa: S606
    packages = " ".join(missing({**NEEDED, **BROWSER})) or "none"
    raise DemoError(
        "this needs root (or sudo without a password, or with one at a terminal), to start daemons and make accounts;"
        f" nothing was changed.\nDebian packages still missing: {packages}"
    )
