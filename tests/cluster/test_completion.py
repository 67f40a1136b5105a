"""Completion in real shells, at a terminal: what somebody sees who presses Tab."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from demo import packages
from demo.commands import SYSTEM_PATH
from demo.progress import Progress

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent
#: As docs/reference/command.md has it, and a prompt to know the end of an answer by.
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'PS1="ready> "\n'),
    "zsh": (["zsh", "-f", "-i"], 'PS1="ready> "; autoload -U compinit && compinit -u -D\n'),
}
SWITCH_ON = 'eval "$(register-python-argcomplete snowyspawner)"\n'

FILES = {"mine.yaml": "", "notes.txt": "", "config.py": "open('was-run', 'w')\n"}
DISCARD = "\x05\x15"  # the line: to its end, and all of it

Press = Callable[..., str]


@pytest.fixture(params=list(SHELLS), scope="module")
def press(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Press]:
    """Type something at a shell's terminal; return what it shows until some words are there."""
    packages.install(packages.ZSH, Progress(quiet=True))
    argv, setting = SHELLS[request.param]
    terminal, shells = pty.openpty()
    environment = {"PATH": f"{BIN}:{SYSTEM_PATH}", "TERM": "dumb", "LC_ALL": "C.UTF-8", "COLUMNS": "200"}
    home = tmp_path_factory.mktemp("home")
    for name, text in FILES.items():
        (home / name).write_text(text)
    process = subprocess.Popen(
        argv,
        stdin=shells,
        stdout=shells,
        stderr=shells,
        env={**environment, "HOME": str(home)},
        cwd=home,
        start_new_session=True,
    )
    os.close(shells)

    def pressed(keys: str, *until: str) -> str:
        os.write(terminal, keys.encode())
        seen, deadline = "", time.monotonic() + 20
        while not set(until) <= set(seen.split()):
            ready, _, _ = select.select([terminal], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"not all of {until} in {seen!r}"
            seen += os.read(terminal, 4096).decode(errors="replace")
        return seen

    # The echo of what is typed has other words than its result.
    pressed(f"{setting}{SWITCH_ON}echo on-$?\n", "on-0")
    yield pressed
    os.close(terminal)
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    ("line", "offered", "not_offered"),
    [
        ("script --partition ", ["core", "devcore", "devel", "node"], "haswell"),
        ("script --site pelle --partition ", ["fat-2TB", "fat-3TB", "gpu", "haswell"], "devcore"),
        ("script --site pelle --gpu ", ["none", "t4:1", "h100:1", "h100:2"], "t4:2"),
        ("check --site ", ["pelle", "snowy", "mine.yaml"], "notes.txt"),
        ("", ["check", "form", "helper", "init", "link", "script"], "core"),
        ("check -f config.py --user ", ["nobody"], "root"),
        ("init --", ["--cluster", "--output"], "--site"),
    ],
)
def test_tab_offers_what_there_is(press: Press, line: str, offered: list[str], not_offered: str) -> None:
    seen = press(f"snowyspawner {line}\t\t", *offered)
    press(f"{DISCARD}echo next-$(( 1 + 1 ))\n", "next-2")
    assert not_offered not in seen.split()


def test_tab_completes_a_word(press: Press) -> None:
    press("snowyspawner script --part\tdevc\t", "--partition", "devcore")
    press(f"{DISCARD}echo next-$(( 1 + 1 ))\n", "next-2")


def test_tab_does_not_run_a_hub_s_configuration(press: Press) -> None:
    """It is Python; what is in it happens when the command is run, and not before."""
    press("snowyspawner script -f config.py --partition \t\t")
    press(f"{DISCARD}ls; echo next-$(( 1 + 1 ))\n", "next-2", "config.py")
    seen = press("ls; echo done-$(( 1 + 1 ))\n", "done-2")
    assert "was-run" not in seen.split()
