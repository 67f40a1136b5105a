"""Where the templates, sites and other data files of share/ are."""

from __future__ import annotations

import importlib.metadata
from functools import cache
from pathlib import Path


@cache
def share_dir() -> Path:
    """Return the directory that holds ``templates/`` and ``sites/``.

    In a checkout (and an editable installation) that is ``share/`` beside the package; an installed wheel
    has put the files under ``share/snowyspawner`` of whichever prefix pip used (``--user`` and ``--prefix``
    included), which only the wheel's own RECORD knows.

    Raises `FileNotFoundError` when neither is there: the installation is damaged.
    """
    checkout = Path(__file__).resolve().parent.parent / "share"
    if (checkout / "sites").is_dir():
        return checkout
    for file in importlib.metadata.files("snowyspawner") or []:
        if file.parts[-4:-1] == ("share", "snowyspawner", "sites"):
            return Path(str(file.locate())).resolve().parent.parent
    raise FileNotFoundError("snowyspawner's data files (share/snowyspawner) are missing; install it again")
