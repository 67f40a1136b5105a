"""What the hub reads as a person: the helper as a real process, and the class that runs it.

Real sudo, real accounts and real jobs' logs are in tests/cluster/test_ways_to_run.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from snowyspawner.cli import main
from snowyspawner.session.as_person import (
    ForbiddenError,
    HelperError,
    NoAnswerError,
    NotThereError,
    Reader,
    ReadError,
    RefusedError,
    helper_text,
    shared_reader,
    showable,
)
from snowyspawner.site import Site
from snowyspawner.standalone import helper

ME = pwd.getpwuid(os.getuid())
AS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be somebody else")


@pytest.fixture
def site(tmp_path: Path, variant: Callable[..., Site]) -> Site:
    """A Site whose paths are in the test's directory; no loaded one could have its logs there, not in the home."""
    made = variant(
        courses={
            "ml": f"{tmp_path}/ml.yaml",
            "fifo": f"{tmp_path}/fifo",
            "folder": f"{tmp_path}/folder",
            "project": f"{tmp_path}/proj/{{account}}/course.yaml",
        },
        images={
            "here": {"path": f"{tmp_path}/here.sif"},
            "gone": {"path": f"{tmp_path}/gone.sif"},
            "folder": {"path": f"{tmp_path}/folder"},
            "through": {"path": f"{tmp_path}/here.sif/x"},
            "circle": {"path": f"{tmp_path}/circle"},
            "host": {"runtime": "none"},
        },
    )
    (tmp_path / "here.sif").write_bytes(b"sif")
    (tmp_path / "folder").mkdir()
    (tmp_path / "circle").symlink_to("circle")
    os.mkfifo(tmp_path / "fifo")
    return made.model_copy(update={"log": f"{tmp_path}/100%%-%j.log"})


@pytest.fixture
def run(site: Site) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Give the helper's text to Python, as the hub does."""

    def run_it(*words: str, prefix: tuple[str, ...] = (), env: dict[str, str] | None = None) -> Any:
        argv = [*prefix, "/usr/bin/python3", "-IS", "-", *words]
        return subprocess.run(argv, input=helper_text(site).encode(), capture_output=True, timeout=5, env=env or {})

    return run_it


# -- helper: what it is asked ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("log",),
        ("log", "17", "18"),
        ("cat", "17"),
        ("look_up", "ml"),
        ("--help",),
        ("log", ""),
        ("log", "/etc/passwd"),
        ("log", "../17"),
        ("log", "17.log"),
        ("log", "-1"),
        ("log", "17\n"),
        ("log", " 17"),
        ("log", "٣"),  # a digit, but not one of Slurm's
        ("log", "1" * 19),
        ("course", ""),
        ("course", "/etc/passwd"),
        ("course", "../ml"),
        ("course", "ml\n"),
        ("course", "here"),  # an image's
        ("course", "ml", "g2021027"),  # which is no project's
        ("course", "project"),  # whose?
        ("course", "project", ""),
        ("course", "project", "."),
        ("course", "project", ".."),
        ("course", "project", "../g2021027"),
        ("course", "project", "a/b"),
        ("course", "project", "-a"),
        ("course", "project", "a b"),
        ("course", "project", "a\n"),
        ("course", "project", "å"),
        ("course", "project", "x" * 65),
        ("course", "project", "g2021027", "g2020014"),
        ("image", "here", "g2021027"),
        ("image", "/etc/passwd"),
        ("image", "host"),  # has no path
        ("image", "nosuch"),
    ],
)
def test_anything_but_a_verb_with_a_number_or_a_key_is_refused(run: Any, words: tuple[str, ...]) -> None:
    done = run(*words)
    assert (done.returncode, done.stdout) == (helper.USAGE, b"")
    assert b"Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_home_is_the_account_s_whatever_the_environment_says(variant: Callable[..., Site], tmp_path: Path) -> None:
    (tmp_path / "none-17").write_text("not this\n")
    text = helper_text(variant(log="none-%j"))
    done = subprocess.run(
        ["/usr/bin/python3", "-IS", "-", "log", "17"],
        input=text.encode(),
        capture_output=True,
        env={"HOME": str(tmp_path), "LOGNAME": "root", "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
    )
    assert done.returncode == helper.MISSING
    assert done.stderr.decode() == f"{ME.pw_dir}/none-17 does not exist.\n"


# -- helper: logs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b"", b""),
        (b"one\ntwo", b"one\ntwo"),
        (b"\xff\xfe\0\x1b[31m\r\n", b"\xff\xfe\0\x1b[31m\r\n"),
        (b"x" * 65536, b"x" * 65536),
        # From here on it is cut, at a line's beginning if there is one.
        (b"a\n" + b"x" * 65536, b"x" * 65536),
        (b"ab\n" + b"x" * 65535, b"x" * 65535),
        (b"a\nb\n" + b"x" * 65533 + b"\n", b"b\n" + b"x" * 65533 + b"\n"),
        (b"y" * 7 + b"x" * 65535 + b"\n", b"x" * 65535 + b"\n"),
    ],
    ids=["empty", "short", "bytes", "just fits", "a line", "part of a line", "two lines", "one long line"],
)
def test_the_end_of_a_log_is_printed(run: Any, tmp_path: Path, content: bytes, shown: bytes) -> None:
    (tmp_path / "100%-17.log").write_bytes(content)
    done = run("log", "17")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == shown


def test_a_log_of_a_terabyte_takes_no_longer(run: Any, tmp_path: Path) -> None:
    with open(tmp_path / "100%-17.log", "wb") as log:
        log.truncate(1 << 40)
        log.seek(0, 2)
        log.write(b"\nthe end\n")
    assert run("log", "17").stdout == b"the end\n"


def test_a_log_that_is_no_file_of_theirs_is_refused(run: Any, tmp_path: Path) -> None:
    """A FIFO, a link, a directory; none of them keeps the helper waiting."""
    os.mkfifo(tmp_path / "100%-1.log")
    (tmp_path / "secret").write_text("secret\n")
    (tmp_path / "100%-2.log").symlink_to("secret")
    (tmp_path / "100%-3.log").mkdir()
    for job_id, what in (("1", "is not a file"), ("2", "is a symbolic link"), ("3", "is not a file")):
        done = run("log", job_id)
        assert (done.returncode, done.stdout) == (helper.REFUSED, b"")
        assert what in done.stderr.decode()


@AS_ROOT
def test_a_log_of_somebody_else_s_is_refused(run: Any, tmp_path: Path) -> None:
    log = tmp_path / "100%-17.log"
    log.write_text("theirs\n")
    os.chown(log, 65534, 65534)
    done = run("log", "17")
    assert (done.returncode, done.stdout) == (helper.REFUSED, b"")
    assert "is somebody else's" in done.stderr.decode()


# -- helper: course files and images -----------------------------------------------------------------------------


def test_a_course_file_is_printed_whole_or_not_at_all(run: Any, tmp_path: Path) -> None:
    assert run("course", "ml").returncode == helper.MISSING
    (tmp_path / "ml.yaml").write_bytes(b"x" * 65536)
    assert run("course", "ml").stdout == b"x" * 65536
    (tmp_path / "ml.yaml").write_bytes(b"x" * 65537)
    done = run("course", "ml")
    assert (done.returncode, done.stdout) == (helper.REFUSED, b"")
    assert run("course", "fifo").returncode == run("course", "folder").returncode == helper.REFUSED


@pytest.mark.parametrize("account", ["g2021027", "uppmax2023-2-11", "abc@v100", "sens_1+x:y"])
def test_a_project_has_a_course_file_of_its_own(run: Any, tmp_path: Path, account: str) -> None:
    file = tmp_path / "proj" / account / "course.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("title: x\n")
    done = run("course", "project", account)
    assert (done.returncode, done.stdout) == (0, b"title: x\n")
    assert run("course", "project", "other").returncode == helper.MISSING


def test_a_course_file_is_no_link(run: Any, tmp_path: Path) -> None:
    """What leads to it may be one: a project's place on a disk often is."""
    (tmp_path / "secret").write_text("secret\n")
    (tmp_path / "ml.yaml").symlink_to("secret")
    done = run("course", "ml")
    assert (done.returncode, done.stdout) == (helper.REFUSED, b"")
    assert done.stderr.decode() == f"{tmp_path}/ml.yaml is a symbolic link.\n"
    (tmp_path / "disk" / "a").mkdir(parents=True)
    (tmp_path / "disk" / "a" / "course.yaml").write_text("title: x\n")
    (tmp_path / "proj").symlink_to("disk")
    assert run("course", "project", "a").stdout == b"title: x\n"


@pytest.mark.parametrize(
    ("key", "answer"),
    [("here", "readable"), ("folder", "readable"), ("gone", "missing"), ("through", "missing"), ("circle", "unknown")],
)
def test_an_image_is_tried(run: Any, key: str, answer: str) -> None:
    done = run("image", key)
    assert (done.returncode, done.stdout.decode()) == (0, f"{answer}\n")


@AS_ROOT
def test_what_this_person_may_not_read_is_said(run: Any, tmp_path: Path) -> None:
    """Nobody may enter the test's directory."""
    tmp_path.parent.chmod(0o700)
    (tmp_path / "ml.yaml").write_text("x")
    nobody = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--")
    env = {"PATH": os.environ["PATH"]}
    assert run("image", "here", prefix=nobody, env=env).stdout == b"forbidden\n"
    assert run("course", "ml", prefix=nobody, env=env).returncode == helper.FORBIDDEN


# -- helper: its text --------------------------------------------------------------------------------------------


def test_the_command_prints_a_program_that_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["helper", "--site", "pelle"]) == 0
    program = tmp_path / "helper"
    program.write_text(capsys.readouterr().out)
    program.chmod(0o755)
    done = subprocess.run([str(program), "log", "999999999999"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (helper.MISSING, "")
    assert done.stderr == f"{ME.pw_dir}/.snowyspawner-999999999999.log does not exist.\n"


def test_the_helper_runs_on_python_3_6() -> None:
    vermin = Path(sys.executable).with_name("vermin")
    done = subprocess.run(
        [str(vermin), "-t=3.6-", "--violations", "--no-tips", helper.__file__],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout


# -- the reader --------------------------------------------------------------------------------------------------


async def test_lines_of_a_log_can_be_shown(site: Site, tmp_path: Path) -> None:
    reader = Reader(site)
    assert await reader.log("17", ME) is None
    log = tmp_path / "100%-17.log"
    log.touch()
    assert await reader.log("17", ME) == []
    log.write_bytes(b"\x1b[31mred\x1b[0m\n10%\r20%\r\n\xff\xfe\0\n\nend\n\n")
    assert await reader.log("17", ME) == ["red", "20%", "\ufffd\ufffd\ufffd", "", "end"]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("tab\there", "tab\there"),
        ("\x1b]0;title\x07text\x1b[?25l", "text"),
        ("\x9b31m\x7f", "\ufffd31m\ufffd"),
        ("<b>&amp;", "<b>&amp;"),
    ],
)
def test_what_steers_a_terminal_is_not_shown(line: str, shown: str) -> None:
    assert showable(line) == shown


async def test_a_refusal_is_an_error_with_a_sentence(site: Site, tmp_path: Path) -> None:
    reader = Reader(site)
    with pytest.raises(NotThereError, match=r"ml\.yaml does not exist"):
        await reader.course("ml", ME)
    with pytest.raises(RefusedError, match="is not a file"):
        await reader.course("fifo", ME)
    with pytest.raises(ReadError, match="1 to 18 digits"):
        await reader.log("../17", ME)
    with pytest.raises(KeyError):
        await reader.course("/etc/passwd", ME)
    with pytest.raises(KeyError):
        await reader.image("/etc/passwd", ME)
    for project in ("", "../x", "a/b", "."):
        with pytest.raises(ValueError, match="cannot be part of a path"):
            await reader.course("project", ME, project)
    with pytest.raises(NotThereError, match=r"/proj/g2021027/course\.yaml does not exist"):
        await reader.course("project", ME, "g2021027")
    (tmp_path / "ml.yaml").write_bytes("å\n".encode() + b"\xff")
    assert await reader.course("ml", ME) == "å\n\ufffd"


@AS_ROOT
async def test_a_hub_of_root_s_reads_as_the_person(site: Site, tmp_path: Path) -> None:
    tmp_path.parent.chmod(0o700)
    nobody = pwd.getpwnam("nobody")
    assert await Reader(site).image("here", nobody) == "forbidden"
    with pytest.raises(ForbiddenError, match="You may not read"):
        await Reader(site).course("ml", nobody)


async def test_an_image_is_readable_missing_or_nobody_knows(site: Site) -> None:
    reader = Reader(site)
    assert [await reader.image(key, ME) for key in ("here", "gone", "circle", "host")] == [
        *("readable", "missing", "unknown", "readable")
    ]
    reader.text = "print('sure')"
    assert await reader.image("here", ME) == "unknown"
    reader.text = "raise SystemExit(3)"
    assert await reader.image("here", ME) == "unknown"


async def test_a_helper_that_hangs_is_not_waited_for(site: Site, tmp_path: Path, aeventually: Any) -> None:
    reader = Reader(site, timeout=0.5, at_once=1)
    good, reader.text = (
        reader.text,
        f"import os, time; open('{tmp_path}/pid', 'w').write(str(os.getpid())); time.sleep(60)",
    )
    began = time.monotonic()
    with pytest.raises(NoAnswerError, match=r"longer than 0\.5 seconds"):
        await reader.log("17", ME)
    assert time.monotonic() - began < 2
    pid = int((tmp_path / "pid").read_text())
    await aeventually(lambda: not Path(f"/proc/{pid}").exists(), "it has ended")
    # Its place is free again.
    reader.text, reader.timeout = good, 5
    assert await reader.log("17", ME) is None


async def test_a_caller_that_is_cancelled_leaves_nothing_behind(site: Site, tmp_path: Path, aeventually: Any) -> None:
    reader = Reader(site)
    reader.text = f"import os, time; open('{tmp_path}/pid', 'w').write(str(os.getpid())); time.sleep(60)"
    call = asyncio.create_task(reader.log("17", ME))
    noted = tmp_path / "pid"
    await aeventually(lambda: noted.exists() and noted.read_text(), "it runs")
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await aeventually(lambda: not Path(f"/proc/{noted.read_text()}").exists(), "it has ended")


@pytest.mark.parametrize("to", ["stdout", "stderr"])
async def test_what_never_ends_is_not_read(site: Site, to: str) -> None:
    """It runs as the person, who could make it say anything."""
    reader = Reader(site)
    reader.text = f"import sys\nwhile True: sys.{to}.write('x' * 9999)"
    began = time.monotonic()
    with pytest.raises(RefusedError, match="longer than any that can be right"):
        await reader.log("17", ME)
    assert time.monotonic() - began < 3


@pytest.fixture
def everybody_s() -> Iterator[Path]:
    """A directory that every account can write to."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o1777)  # noqa: S103
        yield Path(name)


COUNT = """
import os, time
open("{0}/running.%d" % os.getpid(), "w")
print(len([name for name in os.listdir("{0}") if name.startswith("running")]))
time.sleep(0.2)
os.remove("{0}/running.%d" % os.getpid())
"""


async def test_one_at_a_time_runs_for_each_person(site: Site, everybody_s: Path) -> None:
    reader = Reader(site)
    reader.text = COUNT.format(everybody_s)
    assert await asyncio.gather(*(reader.log("17", ME) for _ in range(4))) == [["1"]] * 4


@AS_ROOT
async def test_a_few_at_a_time_run_for_all(site: Site, everybody_s: Path) -> None:
    reader = Reader(site, at_once=2)
    reader.text = COUNT.format(everybody_s)
    people = pwd.getpwall()[:6]
    seen = await asyncio.gather(*(reader.log("17", person) for person in people))
    assert max(int(line) for lines in seen for line in lines or []) == 2


# -- a hub that has to ask sudo ----------------------------------------------------------------------------------

SOMEBODY = pwd.struct_passwd(("somebody", "x", 4711, 4712, "", "/home/somebody", "/bin/sh"))
# Stands in for sudo: notes what it was given, and becomes the command.
SUDO = """#!/bin/sh
d=${0%/*}; printf '%s\\n' "$@" > "$d/argv"; env > "$d/env"; cat > "$d/stdin"
while [ "$1" != -- ]; do shift; done
shift; exec "$@"
"""


@pytest.fixture
def sudo(executable: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    path = executable("sudo", SUDO)
    monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")
    monkeypatch.setattr(os, "geteuid", lambda: 999)
    return path


async def test_a_service_account_runs_what_was_installed(
    site: Site, sudo: Path, executable: Callable[..., Path], tmp_path: Path
) -> None:
    installed = executable("installed", helper_text(site))
    (tmp_path / "ml.yaml").write_text("a: 1\n")
    reader = Reader(site.model_copy(update={"helper": str(installed)}))
    assert await reader.course("ml", SOMEBODY) == "a: 1\n"
    argv = (sudo.parent / "argv").read_text().split()
    assert argv[0] == "-n"
    assert argv[2:] == ["-u", "somebody", "--", str(installed), "course", "ml"]
    assert (sudo.parent / "stdin").read_text() == ""
    (tmp_path / "proj" / "g2021027").mkdir(parents=True)
    (tmp_path / "proj" / "g2021027" / "course.yaml").write_text("a: 2\n")
    assert await reader.course("project", SOMEBODY, "g2021027") == "a: 2\n"
    assert (sudo.parent / "argv").read_text().split()[-4:] == [str(installed), "course", "project", "g2021027"]
    # A file of the hub's has no variable that sudo would have to allow.
    names = {line.partition("=")[0] for line in (sudo.parent / "env").read_text().splitlines()}
    assert names - {"_", "PWD", "SHLVL", "OLDPWD"} == {"PATH"}


async def test_a_helper_of_another_site_is_named(
    site: Site, sudo: Path, executable: Callable[..., Path], snowy: Site
) -> None:
    installed = executable("installed", helper_text(snowy))
    reader = Reader(site.model_copy(update={"helper": str(installed)}))
    with pytest.raises(HelperError, match=f"{installed}: No such key in courses. Was it made for another site"):
        await reader.course("ml", SOMEBODY)


@pytest.mark.usefixtures("sudo")
async def test_a_helper_that_is_not_installed_is_an_error_for_the_administrator(site: Site, tmp_path: Path) -> None:
    reader = Reader(site.model_copy(update={"helper": f"{tmp_path}/none"}))
    with pytest.raises(HelperError, match=r"could not be run as somebody: .*none: not found"):
        await reader.log("17", SOMEBODY)
    assert await reader.image("here", SOMEBODY) == "unknown"


async def test_without_sudo_it_is_said(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 999)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HelperError, match="sudo is not on the hub's PATH"):
        await Reader(site).log("17", SOMEBODY)


async def test_a_site_has_one_reader(site: Site, snowy: Site) -> None:
    assert shared_reader(site) is shared_reader(site.model_copy())
    assert shared_reader(site) is not shared_reader(snowy)
    assert shared_reader(site) is not shared_reader(site.model_copy(update={"helper": "/other"}))
    with contextlib.suppress(ReadError):
        await shared_reader(site).log("17", ME)
