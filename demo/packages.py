"""Debian's packages: what is missing, and installing it without starting anything."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from . import DemoError
from .commands import SYSTEM_PATH, run
from .directories import machine_lock
from .progress import Progress

# Each package, with what shows that it is there: whatever else provides the same is as welcome.
NEEDED: Mapping[str, str] = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "slurm-client": "sbatch",
    "slurmdbd": "slurmdbd",
    "munge": "munged",
    "mariadb-server": "mariadbd",
    "squashfuse": "squashfuse",
    "squashfs-tools": "mksquashfs",
    "fuse3": "fusermount3",
    "uidmap": "newuidmap",
    "patchelf": "patchelf",
    "mmdebstrap": "mmdebstrap",
    "libseccomp2": "lib:libseccomp.so.2",
    "libsqlite3-0": "lib:libsqlite3.so.0",
    "sudo": "sudo",
    "nodejs": "node",
    "npm": "npm",
}
BROWSER: Mapping[str, str] = {
    "chromium-headless-shell": "chromium-headless-shell",
    "git": "git",
    "fonts-dejavu-core": "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
}
# For the test that installs the hub on a machine beside this one.
SYSTEMD: Mapping[str, str] = {"systemd": "/lib/systemd/systemd"}
# For the tests that sign in as docs/sign-in.md says.
SIGN_IN: Mapping[str, str] = {
    "slapd": "slapd",
    "libpam-oath": "lib:security/pam_oath.so",
    "openssl": "openssl",
    "ca-certificates": "/etc/ssl/certs/ca-certificates.crt",
}
# For the test of a hub with another database.
POSTGRESQL: Mapping[str, str] = {"postgresql": "/usr/lib/postgresql"}
# For the test that reads the dashboard's figures.
PROMETHEUS: Mapping[str, str] = {"prometheus": "prometheus"}
# For the tests that put a hub's clock ahead.
CLOCK: Mapping[str, str] = {"libfaketime": "lib:faketime/libfaketime.so.1"}
# For the test of the command's completion.
ZSH: Mapping[str, str] = {"zsh": "zsh"}
# Services that these packages would start, now or at the next boot. None of them is the demo's.
UNITS = {
    "slurmctld": "slurmctld.service",
    "slurmd": "slurmd.service",
    "slurmdbd": "slurmdbd.service",
    "munge": "munge.service",
    "mariadb-server": "mariadb.service",
    "prometheus": "prometheus.service",
    "slapd": "slapd.service",
    "postgresql": "postgresql.service",
}
POLICY = Path("/usr/sbin/policy-rc.d")
OURS = "# snowyspawner's demo: no service starts while it installs packages\n"


def missing(wanted: Mapping[str, str]) -> list[str]:
    """Return the packages whose files are not there."""
    return [name for name, sign in wanted.items() if not _is_there(sign)]


def _is_there(sign: str) -> bool:
    if sign.startswith("/"):
        return Path(sign).exists()
    if sign.startswith("lib:"):
        name = sign.removeprefix("lib:")
        return any(any(Path(root).glob(pattern)) for root in ("/usr/lib", "/lib") for pattern in (name, f"*/{name}"))
    path = f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}"
    return shutil.which(sign, path=path) is not None


def install(wanted: Mapping[str, str], progress: Progress) -> None:
    """Install what is missing. Raises `DemoError` when apt cannot."""
    if not (names := missing(wanted)):
        return
    if not shutil.which("apt-get"):
        raise DemoError(f"missing, and this is no Debian: {', '.join(names)}")
    with machine_lock("packages"), progress.step("installing Debian packages", ": " + " ".join(names)):
        names = missing(wanted)
        env = {"DEBIAN_FRONTEND": "noninteractive"}
        apt = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300"]
        if names:
            with no_services():
                run([*apt, "update"], env=env)
                run([*apt, "install", "-y", "--no-install-recommends", *names], env=env, timeout=1800)
            _disable(names)
    if left := missing(wanted):
        raise DemoError(f"apt-get installed {', '.join(left)}, and yet their programs are not there")


def _disable(names: list[str]) -> None:
    """Keep what was just installed from starting at the next boot."""
    units = [UNITS[name] for name in names if name in UNITS]
    if units and shutil.which("systemctl", path=SYSTEM_PATH):
        run(["systemctl", "disable", *units], may_fail=True, timeout=60)


@contextmanager
def no_services(policy: Path = POLICY) -> Iterator[None]:
    """Let Debian's maintainer scripts start no service; an existing policy is put back afterwards."""
    kept = policy.with_name(policy.name + ".snowyspawner-kept")

    def restore() -> None:
        if policy.exists() and OURS in policy.read_text(encoding="utf-8", errors="replace"):
            policy.unlink()
        if kept.exists() or kept.is_symlink():
            kept.replace(policy)

    restore()  # what a killed run left behind
    if policy.exists() or policy.is_symlink():
        policy.replace(kept)
    try:
        policy.write_text(f"#!/bin/sh\n{OURS}exit 101\n", encoding="utf-8")
        policy.chmod(0o755)
        yield
    finally:
        restore()
