"""Checks of the hub's host: a person's account, images, environments, logs.

The functions `look_at_…` gather, and may wait for a disk; those named after a check judge, and are pure.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..session import as_person
from ..site import Site
from .hub_checks import is_loopback
from .report import Check, fail, ok, skip, warn

# What computers of a cluster share, and what one has for itself (proc(5), /proc/filesystems).
_SHARED = re.compile(
    r"nfs4?|lustre|gpfs|beegfs|ceph|fuse\.ceph.*|cifs|smb3|afs|panfs|wekafs|pvfs2|gfs2|ocfs2|glusterfs|9p"
)
_OWN = re.compile(r"tmpfs|ramfs|ext[234]|xfs|btrfs|zfs|overlay|f2fs|squashfs|iso9660")


def person(name: str, account: pwd.struct_passwd | None) -> Iterator[Check]:
    """Judge a person's account on this host."""
    if account is None:
        yield fail(
            "account",
            f"{name} has no account on this host",
            f"Let this host know them as the nodes do: getent passwd {name}",
        )
    elif account.pw_uid == 0:
        yield fail("account", f"{name} is root: no session is started as root", "Check for a person with --user NAME")
    elif not re.fullmatch(r"/[A-Za-z0-9_.,@%+=:/-]*", account.pw_dir, re.ASCII):
        said = f"{name}'s home directory {account.pw_dir!r} has characters that sbatch cannot be given"
        yield fail("account", said, "Give them a home directory without blanks: usermod -d")
    else:
        yield ok("account", f"{name}, home directory {account.pw_dir}")


def images(site: Site, whose: str, answers: Mapping[str, as_person.Readable]) -> Iterator[Check]:
    """Judge whether *whose* images can be read: an answer of `as_person.Reader.image` for each."""
    for key, answer in answers.items():
        path = site.images[key].path
        if answer == "missing":
            remedy = f"Mend `images.{key}.path` in the site file, or copy the image there: ls -l {path}"
            yield fail("images", f"{key}: {path} does not exist on this host", remedy)
        elif answer == "forbidden":
            said = f"{key}: {whose} may not read {path}"
            yield fail("images", said, f"Let them: namei -l {path} shows where they may not go; chmod o+rx, chmod o+r")
        elif answer == "unknown":
            said = f"{key}: cannot be told of {path}"
            yield warn("images", said, "Does the disk hang, or is the helper at fault? See the other lines")
    if all(answer == "readable" for answer in answers.values()):
        yield ok("images", f"{', '.join(answers)} can be read by {whose}")


def environments(site: Site, missing: Mapping[str, str]) -> Iterator[Check]:
    """Judge the environments that are directories of this host; *missing* are the paths that are not there, by key."""
    for key, path in missing.items():
        said = f"{key}: {path} does not exist on this host"
        yield fail("environments", said, f"Mend `environments.{key}` in the site file: ls -d {path}")
    named = [key for key, path in outside_of_images(site).items() if key not in missing]
    inside = [key for key in site.environments if key not in named and key not in missing]
    if named:
        yield ok("environments", f"{', '.join(named)} are on this host")
    if inside:
        yield skip("environments", f"{', '.join(inside)} are inside images: check --job USER starts them")


def outside_of_images(site: Site) -> dict[str, str]:
    """Return the directories of the environments that are used without a container, by key."""
    found = {}
    for key, environment in site.environments.items():
        used = environment.images or tuple(site.images)
        path = environment.prefix or environment.conda
        if path and all(site.images[image].runtime == "none" for image in used):
            found[key] = path
    return found


def look_at_environments(site: Site) -> dict[str, str]:
    """Return those of `outside_of_images` that are not there."""
    return {key: path for key, path in outside_of_images(site).items() if not os.path.isdir(path)}


def file_system(path: str, mounts: str) -> str:
    """Return the type of the file system that *path* is on; *mounts* is the text of /proc/mounts (proc(5))."""
    best, kind = "", ""
    for line in mounts.splitlines():
        parts = line.split()
        if len(parts) < 3:
            continue
        where = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), parts[1])
        inside = path == where or path.startswith(where.rstrip("/") + "/")
        if inside and len(where) >= len(best):
            best, kind = where, parts[2]
    return kind


def look_at_logs(site: Site, home: str) -> tuple[str, str]:
    """Return the directory of the logs of somebody with this *home*, and the type of its file system."""
    directory = os.path.realpath(os.path.dirname(os.path.join(home, site.log)))
    return directory, file_system(directory, Path("/proc/mounts").read_text(encoding="utf-8", errors="replace"))


def logs(site: Site, directory: str, kind: str) -> Iterator[Check]:
    """Judge whether hub and nodes see the same logs."""
    name, said = "logs", f"{directory} is on {kind or 'an unknown file system'}"
    if is_loopback(site.address("n1")):
        yield ok(name, f"{directory}: the nodes are this host")
    elif _SHARED.fullmatch(kind):
        yield ok(name, f"{said}, which computers share")
    elif _OWN.fullmatch(kind):
        remedy = "Mount the home directories of the cluster here: else nobody is shown a log. See: findmnt -T"
        yield warn(name, f"{said}, which is this host's own", f"{remedy} {directory}")
    else:
        yield warn(name, f"{said}: do the nodes see it?", f"Look for the same file there: srun ls -d {directory}")
