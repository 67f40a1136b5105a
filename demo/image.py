"""The demo's container image: a real SIF with the Site's environments, made without a conda channel.

Debian's Python, and below /opt/conda/envs a virtual environment for each of the Site's, with jupyterhub and jupyterlab
and nothing of snowyspawner. share/container/ has the recipe for a real one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from snowyspawner.site import Site

from . import DemoError
from .apptainer import program, root_options
from .commands import run
from .debian import codename, mirror
from .directories import CACHE, cached
from .progress import Progress

RECIPE = Path(__file__).parent / "recipe"
CONDA = PurePosixPath("/opt/conda")
# python3-venv makes the environments, libstdc++6 is what pyzmq's wheel wants, procps has ps for the terminal in Lab,
# git fetches a course's repository.
DEBIAN = ("python3-minimal", "python3-venv", "libstdc++6", "procps", "git")
PYTHON = ("jupyterhub>=6,<7", "jupyterlab>=4,<5", "ipykernel>=6", "nbgitpuller>=1.2")
# jsonschema imports it if it is there, for a check of addresses that Jupyter never asks for: half of a server's start.
SLOW_TO_IMPORT = ("rfc3987-syntax",)
# Documentation in a container is dead weight, and a fifth of the unpacking.
UNWANTED = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/lintian/*")
# What a Site binds is looked for on the node; images have the usual places as empty directories.
MOUNT_POINTS = ("/proj", "/sw", "/scratch", "/crex", "/domus")
# The quickest to write and to read, not the smallest.
SQUASHFS = ("-comp", "lz4", "-noappend", "-no-progress", "-quiet", "-all-root")
# A primary system partition with squashfs in it, and the number that SIF has for the architecture.
PARTITION = ("--datatype", "4", "--parttype", "2", "--partfs", "1")
ARCHITECTURES = {"x86_64": "2", "aarch64": "4"}


def prefixes(site: Site) -> list[PurePosixPath]:
    """Return where the image has environments: those of the Site that are in an image."""
    wanted = {
        PurePosixPath(env.prefix) if env.kind == "prefix" else PurePosixPath(env.conda or CONDA) / "envs" / name
        for name, env in site.environments.items()
        if env.kind != "none"
    }
    return sorted(wanted)


def _key(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:10]


def path(site: Site) -> Path:
    """Return where the image lies: under another name whenever the recipe says something else."""
    recipe = [file.read_text(encoding="utf-8") for file in sorted(RECIPE.iterdir()) if file.is_file()]
    parts = (
        DEBIAN,
        PYTHON,
        SLOW_TO_IMPORT,
        UNWANTED,
        MOUNT_POINTS,
        SQUASHFS,
        codename(),
        recipe,
        [str(p) for p in prefixes(site)],
    )
    return CACHE / f"image-{_key(*parts)}" / "container.sif"


def download(site: Site) -> Path | None:
    """Download the Python packages, as pip is set up on this machine; the image itself needs no network.

    None when the image is there already.
    """
    if path(site).exists():
        return None

    def build(work: Path, final: Path) -> None:
        pip_download(work / "result", *PYTHON)

    return cached(f"wheels-{_key(PYTHON, codename())}", build)


def pip_download(into: Path, *words: str, timeout: float = 600) -> None:
    """Download packages for the Python of an image, which is this Debian's, whichever Python runs the demo."""
    system = run(["/usr/bin/python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).strip()
    options = ["--only-binary=:all:", "--python-version", system, "--disable-pip-version-check", "--quiet"]
    run([sys.executable, "-m", "pip", "download", *options, "--dest", into, *words], timeout=timeout)


def build(site: Site, wheels: Callable[[], Path | None], runtime: Callable[[], object], progress: Progress) -> None:
    """Build the image if it is not there: *wheels* and *runtime* are waited for when they are needed."""
    if path(site).exists():
        return

    def make(work: Path, final: Path) -> None:
        root = work / "root"
        with progress.step("image: Debian's base system"):
            debian(root, DEBIAN, "--format=directory", "--skip=cleanup/reproducible")
        packages = wheels()
        if packages is None:
            raise DemoError("the image was removed while it was looked at: try again")
        with progress.step("image: the environments"):
            _environments(root, prefixes(site), packages)
            _finish(root)
        runtime()
        with progress.step("image: container.sif"):
            _pack(work, root)
            _verify(work / "result" / "container.sif", prefixes(site))

    cached(path(site).parent.name, make)


def debian(target: Path, packages: Iterable[str], *options: str) -> None:
    """Make a small Debian with *packages* in *target*, in the format that *options* of mmdebstrap say."""
    exclude = [f"--dpkgopt=path-exclude={pattern}" for pattern in UNWANTED]
    run(
        [
            "mmdebstrap",
            "--mode=root",
            "--variant=essential",
            "--dpkgopt=force-unsafe-io",
            *exclude,
            *options,
            f"--include={','.join(packages)}",
            codename(),
            target,
            mirror(),
        ]
    )


def _environments(root: Path, where: list[PurePosixPath], wheels: Path) -> None:
    """Make one environment and the others from it: the files are the same but for the name in a few of them."""

    def inside(*argv: str) -> None:
        run(
            ["chroot", root, *argv],
            env={"PYTHONDONTWRITEBYTECODE": "", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **_NO_PIP},
        )

    first = where[0]
    shutil.copytree(wheels, root / "wheels", copy_function=os.link)
    inside("/usr/bin/python3", "-m", "venv", str(first))
    options = ["--quiet", "--no-compile", "--no-index", "--find-links=/wheels", "--disable-pip-version-check"]
    inside(f"{first}/bin/python", "-m", "pip", "install", *options, *PYTHON)
    inside(f"{first}/bin/python", "-m", "pip", "uninstall", "--quiet", "--yes", *SLOW_TO_IMPORT)
    # A read-only image cannot keep what Python compiles, so every start would compile it all again.
    inside("/usr/bin/python3", "-m", "compileall", "-q", "-j", "0", f"{first}/lib", "/usr/lib/python3")
    shutil.rmtree(root / "wheels")
    for other in where[1:]:
        target = root / other.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        # Links: what does not differ is once on the disk and once in the image.
        run(["cp", "--archive", "--link", root / first.relative_to("/"), target])
        rename_prefix(target, str(first), str(other))


# pip in the image must not look for this machine's indexes and certificates, which are not there.
_NO_PIP = {
    "PIP_CONFIG_FILE": "/dev/null",
    "PIP_FIND_LINKS": "",
    "PIP_CERT": "",
    "PIP_INDEX_URL": "",
    "PIP_EXTRA_INDEX_URL": "",
}


def rename_prefix(environment: Path, old: str, new: str) -> None:
    """Say *new* wherever a copied environment's own files say *old*: its scripts and pyvenv.cfg."""
    name = PurePosixPath(old).name, PurePosixPath(new).name
    for file in [environment / "pyvenv.cfg", *(environment / "bin").iterdir()]:
        if file.is_symlink() or not file.is_file():
            continue
        text = file.read_bytes()
        fresh = text.replace(old.encode(), new.encode()).replace(f"({name[0]})".encode(), f"({name[1]})".encode())
        if fresh != text:
            # Not written in place: the file is a link, and its other name is in the first environment.
            beside = file.with_name(file.name + ".new")
            beside.write_bytes(fresh)
            beside.chmod(file.stat().st_mode)
            beside.replace(file)


def _finish(root: Path) -> None:
    profile = root / "opt" / "conda" / "etc" / "profile.d"
    profile.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(RECIPE / "conda.sh", profile / "conda.sh")
    (root / "opt" / "course").mkdir(parents=True)
    shutil.copyfile(RECIPE / "README", root / "opt" / "course" / "README")
    for point in MOUNT_POINTS:
        (root / point.lstrip("/")).mkdir(exist_ok=True)


def _pack(work: Path, root: Path) -> None:
    """Make the SIF of *root*.

    `apptainer build` would copy the whole tree first, which takes longer than everything else here. So it builds an
    empty image for what belongs to every one (``.singularity.d``), and mksquashfs and `apptainer sif` do the rest.
    """
    empty, common = work / "empty", work / "common"
    empty.mkdir()
    run([program(), "build", "--sandbox", common, empty])
    for entry in common.iterdir():
        if not (root / entry.name).exists() and not (root / entry.name).is_symlink():
            run(["cp", "--archive", entry, root / entry.name])
    extra = root / ".singularity.d"
    for name, text in (
        ("env/91-environment.sh", "export LANG=C.UTF-8 LC_ALL=C.UTF-8\n"),
        ("runscript", '#!/bin/sh\nexec /bin/bash "$@"\n'),
    ):
        (extra / name).unlink(missing_ok=True)
        (extra / name).write_text(text, encoding="utf-8")
        (extra / name).chmod(0o755)
    result = work / "result"
    result.mkdir()
    image = result / "container.sif"
    run(["mksquashfs", root, work / "root.squashfs", *SQUASHFS])
    run([program(), "sif", "new", image])
    arch = ARCHITECTURES.get(os.uname().machine)
    if arch is None:
        raise DemoError(f"no image for {os.uname().machine}: the demo knows {', '.join(ARCHITECTURES)}")
    run([program(), "sif", "add", *PARTITION, "--partarch", arch, image, work / "root.squashfs"])
    image.chmod(0o755)


# All of the first environment; of the others that they are themselves, as their files are the first one's.
CHECK = """
"$1/bin/python" -c 'import jupyterlab, ipykernel' || exit 1
"$1/bin/jupyterhub-singleuser" --version >/dev/null || exit 1
for prefix; do
    found=$("$prefix/bin/python" -I -c 'import sys; print(sys.prefix)') || exit 1
    [ "$found" = "$prefix" ] || { echo "$prefix says that it is $found" >&2; exit 1; }
    read -r first <"$prefix/bin/jupyterhub-singleuser"
    [ "$first" = "#!$prefix/bin/python" ] || { echo "$prefix/bin/jupyterhub-singleuser: $first" >&2; exit 1; }
done
[ -r /opt/course/README ]
"""


def _verify(image: Path, where: list[PurePosixPath]) -> None:
    """Look into the finished image. Raises `DemoError` if an environment does not work."""
    argv: list[str | Path] = [program(), "--quiet", "exec", *root_options(), image, "/bin/sh", "-c", CHECK, "check"]
    run([*argv, *(str(prefix) for prefix in where)])
