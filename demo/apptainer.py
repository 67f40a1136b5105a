"""Apptainer: the distribution's, or Debian unstable's package in a directory of its own.

Debian 12 and 13 have none. Unstable's runs on them beside unstable's own libc (the system's is not touched), and finds
its files relative to where it lies.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from . import DemoError
from .commands import SYSTEM_PATH, run
from .debian import KEYRING, mirror
from .directories import CACHE, cached
from .packages import install as install_packages
from .progress import Progress

NAME = "apptainer-1"  # counts up when the steps below change
CANDIDATES = ("apptainer", "singularity-container")
NOBODY = ("--reuid=65534", "--regid=65534", "--clear-groups", "--")


class ApptainerUnavailable(DemoError):  # noqa: N818 a state of affairs
    """There is no way to Apptainer on this machine. The text says why."""


def _system() -> Path | None:
    found = shutil.which("apptainer", path=SYSTEM_PATH) or shutil.which("singularity", path=SYSTEM_PATH)
    return Path(found).parent if found else None


def bin_directory() -> Path:
    """Return the directory for the PATH of a job."""
    return _system() or CACHE / NAME / "bin"


def program() -> Path:
    """Return the path of apptainer (or singularity)."""
    names = (bin_directory() / "apptainer", bin_directory() / "singularity")
    return next((path for path in names if path.exists()), names[0])


def installed() -> bool:
    """Tell whether it is there."""
    return program().exists()


def install() -> None:
    """Make sure that there is an Apptainer. Raises `ApptainerUnavailable`."""
    if installed():
        return
    if run(["setpriv", *NOBODY, "unshare", "--user", "echo", "yes"], may_fail=True).strip() != "yes":
        raise ApptainerUnavailable(
            "ordinary users may not make user namespaces on this machine, and containers are made of them: see sysctl"
            " kernel.unprivileged_userns_clone, user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns"
        )
    try:
        for name in CANDIDATES:
            if _candidate(name):
                install_packages({name: name.partition("-")[0]}, Progress(quiet=True))
                return
        cached(NAME, _build)
        version = run([program(), "--version"])
    except DemoError as error:
        if not _system():
            shutil.rmtree(CACHE / NAME, ignore_errors=True)
        raise ApptainerUnavailable(f"Apptainer cannot be had: {error}") from None
    if "version" not in version:
        raise ApptainerUnavailable(f"{program()} --version says {version!r}")


def _candidate(name: str) -> bool:
    """Tell whether this machine's own apt sources have a package."""
    rows = run(["apt-cache", "policy", name], may_fail=True).splitlines()
    return any(row.strip().startswith("Candidate:") and "(none)" not in row for row in rows)


def _build(work: Path, final: Path) -> None:
    """Unpack unstable's Apptainer and libc, and tie the two together."""
    if not KEYRING.exists():
        raise DemoError(f"{KEYRING} is missing, and packages are not taken unverified: apt-get install {KEYRING.stem}")
    packages = download(work / "apt", ["apptainer", "libc6"])
    result = work / "result"
    libc = work / "libc"
    run(["dpkg-deb", "-x", packages["apptainer"], result])
    run(["dpkg-deb", "-x", packages["libc6"], libc])
    shutil.rmtree(result / "usr" / "share" / "doc", ignore_errors=True)
    (starter,) = result.glob("usr/lib/*/apptainer/bin/starter")
    (loader,) = (path for path in libc.glob("usr/lib/*/ld-linux*.so.*"))
    own = result / "libc"
    own.mkdir()
    for library in loader.parent.glob("*.so*"):
        shutil.copy2(library, own / library.name)
    where = final / "libc"
    for binary in (result / "usr" / "bin" / "apptainer", starter):
        interpreter = str(where / loader.name)
        run(["patchelf", "--set-interpreter", interpreter, "--force-rpath", "--set-rpath", where, binary])
    # It looks for etc and var below its prefix, and its starter (in lib/<architecture>) below <prefix>/lib.
    for name in ("etc", "var"):
        (result / "usr" / name).symlink_to(f"../{name}")
        (result / "usr" / "lib" / name).symlink_to(f"../../{name}")
    (result / "var" / "lib" / "apptainer" / "mnt" / "session").mkdir(parents=True, exist_ok=True)
    (result / "bin").mkdir()
    (result / "bin" / "apptainer").symlink_to("../usr/bin/apptainer")
    (result / "bin" / "singularity").symlink_to("../usr/bin/apptainer")


def download(work: Path, names: list[str], suite: str = "sid") -> dict[str, Path]:
    """Download packages of another suite into *work* with an apt state of its own; signatures are verified."""
    for folder in ("state/lists/partial", "cache/archives/partial", "etc/none.d"):
        (work / folder).mkdir(parents=True)
    (work / "status").touch()
    source = ["Types: deb", f"URIs: {mirror()}", f"Suites: {suite}", "Components: main", f"Signed-By: {KEYRING}"]
    (work / "etc" / "debian.sources").write_text("\n".join(source) + "\n", encoding="utf-8")
    settings = {
        "Dir::State": work / "state",
        "Dir::State::status": work / "status",
        "Dir::Cache": work / "cache",
        "Dir::Etc::sourcelist": work / "etc" / "debian.sources",
        "Dir::Etc::sourceparts": work / "etc" / "none.d",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": work / "etc" / "none.d",
        # Its usual user _apt could not write to our directory.
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
    }
    options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    run(["apt-get", "-q", *options, "update", "-o", "APT::Update::Error-Mode=any"], cwd=work)
    run(["apt-get", "-q", *options, "download", *names], cwd=work)
    found = {}
    for name in names:
        (found[name],) = work.glob(f"{name}_*.deb")
    return found


def root_options() -> list[str]:
    """Return what root must add to `exec`: without a full set of capabilities only a user namespace works."""
    return ["--userns"] if os.geteuid() == 0 else []
