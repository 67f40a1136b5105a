"""The course's own container, with TensorFlow: share/container built with what this machine's apt and pip reach.

What is downloaded stays in the cache, so a build that was interrupted goes on with what is there. Apptainer does its
part without privileges, as an account that owns nothing else.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from snowyspawner.site import Site

from . import CHECKOUT, DemoError
from .apptainer import program
from .commands import open_umask
from .debian import codename
from .directories import CACHE, cached, check_reachable, discard, machine_lock, own_directory
from .image import UNWANTED, debian, pip_download
from .progress import Progress
from .state import write

RECIPE = CHECKOUT / "share" / "container"
EXERCISE = CHECKOUT / "share" / "course"
ENVIRONMENTS = ("tf-gpu", "tf-mkl", "tf-pip")
PREFIXES = "/opt/envs"  # where the recipe has its environments
WHEELS = CACHE / "course-wheels"
IMAGE = CACHE / "course" / "container.sif"
BUILDER = "nobody"
# mksquashfs's default is level 9: more than twice the processor time of the whole build, for 4 % less. Every kernel
# reads gzip.
PACKING = "-comp gzip -Xcompression-level 3"
AT_A_TIME = 10  # packages that one call of pip downloads: what is lost when it is interrupted
# A lock file's paragraph: a name with its version, and the hashes of whatever pip may take for it.
PARAGRAPH = re.compile(r"^[A-Za-z0-9][^\n]*==[^\n]*\\\n(?:[ ]+--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+", re.MULTILINE)
HASH = re.compile(r"sha256:([0-9a-f]{64})")


def environments_of(words: str) -> tuple[str, ...]:
    """Return the environments that *words* names, in the recipe's order. Raises `DemoError`."""
    asked = words.replace(",", " ").split() or list(ENVIRONMENTS)
    for name in asked:
        if name not in ENVIRONMENTS:
            raise DemoError(f"--environments: {name!r} is not in the recipe; it has {', '.join(ENVIRONMENTS)}")
    return tuple(name for name in ENVIRONMENTS if name in asked)


def built() -> tuple[str, ...]:
    """Return the environments of the image that is there; none when there is none."""
    try:
        return tuple((IMAGE.parent / "environments").read_text(encoding="utf-8").split()) if IMAGE.exists() else ()
    except OSError:
        return ()


def paragraphs(lock: str) -> list[str]:
    """Return each package of a lock file (pip's format) with its hashes. Raises `DemoError` if some have none."""
    found = PARAGRAPH.findall(lock)
    pins = sum(bool(re.match(r"[A-Za-z0-9][^#\n]*==", line)) for line in lock.splitlines())
    if not found or len(found) != pins:
        raise DemoError(f"the lock file has {pins} packages, and {len(found)} with hashes")
    return found


def build(asked: str, progress: Progress) -> Path:
    """Build the image with the environments that *asked* names, unless it is there. Raises `DemoError`."""
    environments = environments_of(asked)
    with open_umask(), machine_lock("course"):
        key = _key(environments)
        if IMAGE.exists() and (IMAGE.parent / "key").read_text(encoding="utf-8") == key:
            progress.say(f"{IMAGE} is there: nothing to do")
            return IMAGE
        own_directory(WHEELS)
        with progress.step("Debian's base system"):
            base = _base()
        with progress.step("downloading the Python packages"):
            for name in environments:
                download(name, progress)
        with progress.step("building container.sif"):
            _build(environments, key, base, progress)
    progress.say(f"{IMAGE}: {', '.join(environments)}, {IMAGE.stat().st_size / 1e9:.2f} GB")
    return IMAGE


def _key(environments: tuple[str, ...]) -> str:
    files = [RECIPE / "course.def", RECIPE / "debian.txt", *(_lock(name) for name in environments)]
    files += sorted(file for file in EXERCISE.iterdir() if file.is_file())
    parts = [codename(), *environments, *(file.read_text(encoding="utf-8") for file in files)]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:10]


def _lock(environment: str) -> Path:
    return RECIPE / "locks" / f"{environment}.txt"


def _base() -> Path:
    """Return a squashfs with Debian and the packages of the recipe, as Apptainer's ``localimage`` takes it."""
    names = (RECIPE / "debian.txt").read_text(encoding="utf-8").split()

    def make(work: Path, final: Path) -> None:
        (work / "result").mkdir()
        tar = work / "base.tar"
        debian(tar, names, "--format=tar")
        with tar.open("rb") as stream:
            target = work / "result" / "base.squashfs"
            done = subprocess.run(
                ["/usr/bin/sqfstar", "-all-root", "-comp", "lz4", "-no-progress", "-quiet", target],
                stdin=stream,
                capture_output=True,
                encoding="utf-8",
            )
        if done.returncode:
            raise DemoError(f"sqfstar: exit code {done.returncode}\n{done.stderr[-2000:]}")

    key = hashlib.sha256(repr((names, UNWANTED, codename())).encode()).hexdigest()[:10]
    return cached(f"course-base-{key}", make) / "base.squashfs"


def download(environment: str, progress: Progress) -> None:
    """Download what the lock file of *environment* names and is not there yet, some packages at a time."""
    wanted = paragraphs(_lock(environment).read_text(encoding="utf-8"))
    there = _hashes()
    missing = [text for text in wanted if not there.intersection(HASH.findall(text))]
    for at in range(0, len(missing), AT_A_TIME):
        progress.say(f"{environment}: {len(wanted) - len(missing) + at} of {len(wanted)} packages are there")
        work = WHEELS / "unfinished"
        discard(work)
        work.mkdir()
        asked = work / "requirements.txt"
        asked.write_text("".join(missing[at : at + AT_A_TIME]), encoding="utf-8")
        # Not into pip's own cache, too: it is gigabytes.
        options = ("--no-cache-dir", "--no-deps", "--require-hashes")
        pip_download(work, *options, "--requirement", str(asked), timeout=3600)
        for wheel in work.glob("*.whl"):
            wheel.chmod(0o644)
            wheel.replace(WHEELS / wheel.name)
        discard(work)
    progress.say(f"{environment}: all of {len(wanted)} packages are there")


def _hashes() -> set[str]:
    found = set()
    for wheel in WHEELS.glob("*.whl"):
        digest = hashlib.sha256()
        with wheel.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        found.add(digest.hexdigest())
    return found


def _build(environments: tuple[str, ...], key: str, base: Path, progress: Progress) -> None:
    account = pwd.getpwnam(BUILDER)
    work = CACHE / "course.unfinished"
    discard(work)
    work.mkdir()
    try:
        # Whoever builds may not be able to pass the way to the checkout.
        for directory in (RECIPE, EXERCISE):
            shutil.copytree(directory, work / directory.name)
        mine = work / "own"
        mine.mkdir()
        os.chown(mine, account.pw_uid, account.pw_gid)
        check_reachable(mine)
        argv = [
            str(program()),
            "build",
            "--ignore-fakeroot-command",
            f"--mksquashfs-args={PACKING}",
            "--bind",
            f"{WHEELS}:/mnt",
            "--build-arg=BOOTSTRAP=localimage",
            f"--build-arg=FROM={base}",
            f"--build-arg=ENVIRONMENTS={' '.join(environments)}",
            str(mine / "container.sif"),
            "course.def",
        ]
        _show(argv, work / RECIPE.name, mine, account, progress.say)
        result = work / "result"
        result.mkdir()
        _take(mine / "container.sif", result / "container.sif")
        write(result / "environments", " ".join(environments) + "\n")
        write(result / "key", key)
        discard(IMAGE.parent)
        result.rename(IMAGE.parent)
    finally:
        discard(work)


def _take(made: Path, final: Path) -> None:
    """Copy what the builder has made. Whoever else is the builder could have put a link to a file of root's there."""
    with open(os.open(made, os.O_RDONLY | os.O_NOFOLLOW), "rb") as source:
        found = os.fstat(source.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_uid != made.parent.stat().st_uid:
            raise DemoError(f"{made} is not what the build has made")
        with final.open("xb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
    final.chmod(0o755)


def _show(argv: list[str], cwd: Path, home: Path, account: pwd.struct_passwd, say: Callable[[str], None]) -> None:
    """Run *argv* as *account*, and show its lines. Raises `DemoError` with the last of them."""
    environment = {"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin", "HOME": str(home), "LC_ALL": "C.UTF-8"}
    environment |= {"APPTAINER_TMPDIR": str(home), "APPTAINER_CACHEDIR": str(home / "cache")}
    process = subprocess.Popen(
        argv,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=[],
    )
    last: list[str] = []
    ended = threading.Event()
    grows = threading.Thread(target=_say_how_it_grows, args=(home, ended, say), daemon=True)
    grows.start()
    try:
        for line in _lines(process.stdout or ()):
            say(line)
            last = [*last[-14:], line]
    except BaseException:
        process.terminate()  # only a terminal's Ctrl-C reaches it, too
        raise
    finally:
        ended.set()
        grows.join()
        code = process.wait()
    if code:
        raise DemoError(f"apptainer build: exit code {code}\n" + "\n".join(last))


def _say_how_it_grows(home: Path, ended: threading.Event, say: Callable[[str], None]) -> None:
    """Say every quarter of a minute how much of the image is written: mksquashfs takes minutes without a word."""
    while not ended.wait(15):
        with suppress(OSError):  # it may have gone meanwhile
            if size := sum(file.stat().st_size for file in home.glob("bundle-*/squashfs-*")):
                say(f"packing: {size / 1e9:.1f} GB are written")


def _lines(stream: Iterable[str]) -> Iterator[str]:
    for line in stream:
        if text := line.rstrip():
            yield re.sub(r"^(INFO|WARNING): +", r"\1: ", text)


def fits(site: Site) -> bool:
    """Tell whether the image is there and has an environment of the Site's."""
    return any(name in built() for name in site.environments)


def over(site: Site) -> dict[str, Any]:
    """Return what a Site has to say differently to use the image: where its environments are, and which.

    Raises `DemoError` if the image has none of the Site's.
    """
    have = built()
    here = [name for name in site.environments if name in have]
    if not here:
        offered = ", ".join(site.environments)
        raise DemoError(f"--image course: it has {', '.join(have)}, and the Site {offered}")
    gone = [name for name, entry in site.environments.items() if name not in have and entry.kind != "none"]
    laid: dict[str, Any] = {
        "environments": {
            **{name: {"kind": "prefix", "conda": None, "prefix": f"{PREFIXES}/{name}"} for name in here},
            **dict.fromkeys(gone),
        }
    }
    default = site.defaults.environment
    if default in gone:
        laid["defaults"] = {"environment": here[0], "gpu": "none"}
    lost = [key for key, preset in site.presets.items() if (preset.choices.environment or default) in gone]
    if lost:
        laid["presets"] = dict.fromkeys(lost)
    return laid
