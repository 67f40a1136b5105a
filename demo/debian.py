"""This machine's Debian: its release, and the mirror that its apt is set up for."""

from __future__ import annotations

import re
from pathlib import Path

from . import DemoError
from .commands import run

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
FORMAT = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)"


def codename(os_release: Path = Path("/etc/os-release")) -> str:
    """Return the release's name, such as bookworm."""
    found = re.search(r'^VERSION_CODENAME="?([a-z]+)"?$', os_release.read_text(encoding="utf-8"), re.MULTILINE)
    if not found:
        raise DemoError("/etc/os-release names no VERSION_CODENAME: the demo needs Debian")
    return found[1]


def mirror() -> str:
    """Return the address of the main archive, as apt's configuration has it."""
    release = codename()
    rows = run(["apt-get", "indextargets", "--format", FORMAT, "Created-By: Packages"]).splitlines()
    return choose_mirror(rows, release)


def choose_mirror(rows: list[str], release: str) -> str:
    """Return the address of *release*'s main archive among apt's index targets (third parties' are there, too)."""
    for row in rows:
        uri, target, component, origin = row.split("|")
        if target == release and component == "main" and origin in ("Debian", "$(ORIGIN)"):
            return uri
    raise DemoError(f"apt has no source for {release} main: see /etc/apt/sources.list.d")
