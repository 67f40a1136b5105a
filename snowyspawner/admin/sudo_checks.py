"""Checks of what a hub that is not root needs: sudo's rule, right and not too wide, and the installed helper.

The functions `look_at_…` gather, and may wait for a disk; those named after a check judge, and are pure.
"""

from __future__ import annotations

import ast
import contextlib
import os
import pwd
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..session import as_person
from ..site import Site
from .report import Check, fail, ok, warn

#: What the hub runs as a person; the first two always, the others where Slurm hides jobs and projects from it.
NEEDED, FOR_PRIVATE = ("sbatch", "scancel"), ("squeue", "sacct", "sacctmgr")
#: Seconds that sudo has to answer.
_SUDO = 10
#: A variable that sudo hands on only where the rule has SETENV.
_VARIABLE = "SNOWYSPAWNER_SECRET"

_INSTALL_SUDOERS = (
    "Put your names into share/deploy/sudoers, and install it: install -m 0440 sudoers /etc/sudoers.d/snowyspawner"
    " && visudo -c"
)
_TAGS = "Put {} before the commands in the sudoers file, as share/deploy/sudoers has it"


@dataclass(frozen=True)
class SudoRule:
    """One entry of ``sudo -ll``."""

    run_as: tuple[str, ...]
    commands: tuple[str, ...]
    options: tuple[str, ...] = ("setenv", "!authenticate")


@dataclass(frozen=True)
class SudoFacts:
    """What sudo lets the hub's account do."""

    account: str
    sudo: str = "/usr/bin/sudo"  # empty: there is none
    rules: tuple[SudoRule, ...] = ()
    said: str = ""  # what it said where it shows no rules
    paths: Mapping[str, str] = field(default_factory=dict)  # by command, as the hub finds them
    person: str = ""
    refused: Mapping[str, str] = field(default_factory=dict)  # by command, tried as the person: what sudo said


def parse_rules(output: str) -> tuple[SudoRule, ...]:
    """Read ``sudo -ll`` under LC_ALL=C: sudo 1.8 to 1.9 (display_privs_long in sudo's source)."""
    rules = []
    for entry in re.split(r"^Sudoers entry:.*$", output, flags=re.MULTILINE)[1:]:
        users = re.search(r"^\s*RunAsUsers: (.*)$", entry, re.MULTILINE)
        options = re.search(r"^\s*Options: (.*)$", entry, re.MULTILINE)
        after = entry.partition("Commands:\n")[2]
        commands = [line.strip() for line in after.splitlines() if line.startswith(("\t", "    ")) and line.strip()]
        run_as = tuple(users[1].split(", ")) if users else ("root",)
        rules.append(SudoRule(run_as, tuple(commands), tuple(options[1].split(", ")) if options else ()))
    return tuple(rules)


def look_at_sudo(site: Site, person: str) -> SudoFacts:
    """Ask sudo what it lets this account do, and try each command as *person*: one that does nothing."""
    account, sudo = pwd.getpwuid(os.geteuid()).pw_name, shutil.which("sudo") or ""
    paths = {name: os.path.abspath(path) for name in (*NEEDED, *FOR_PRIVATE) if (path := shutil.which(name))}
    if not sudo:
        return SudoFacts(account, "", paths=paths, person=person)
    listed = _run([sudo, "-n", "-ll"])
    rules = parse_rules(listed.stdout)
    refused = {}
    # As the hub runs them: with the job's variables, and the helper without.
    tries = {name: ([f"--preserve-env={_VARIABLE}"], [path, "--version"]) for name, path in paths.items()}
    for name, (options, words) in {**tries, "helper": ([], [site.helper])}.items():
        if person and (name != "helper" or os.path.exists(site.helper)):
            tried = _run([sudo, "-n", *options, "-u", person, "--", *words])
            # What comes from sudo, and not from the command.
            if tried.returncode and (told := re.findall(r"^sudo: (.+)$", tried.stderr, re.MULTILINE)):
                refused[name] = told[-1]
    said = (listed.stderr or listed.stdout).strip().splitlines()[-1:] if not rules else []
    return SudoFacts(account, sudo, rules, "".join(said), paths, person, refused)


def _run(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", _VARIABLE: "x"}
    with contextlib.suppress(subprocess.TimeoutExpired):
        return subprocess.run(
            argv, env=env, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            check=False, timeout=_SUDO,
        )  # fmt: skip
    return subprocess.CompletedProcess(argv, -1, "", f"sudo: no answer in {_SUDO} seconds")


def sudo(site: Site, facts: SudoFacts) -> Iterator[Check]:
    """Judge what sudo lets the hub's account do."""
    name = "sudo"
    if not facts.sudo:
        yield fail(name, "there is no sudo, and the hub is not root", "apt install sudo, or let the hub run as root")
        return
    if not facts.rules:
        said = f"{facts.account} may run nothing by sudo without a password: {facts.said or 'no rule'}"
        yield fail(name, said, _INSTALL_SUDOERS)
        return
    found = [*_too_wide(site, facts), *(_refused(facts) if facts.person else _unlisted(site, facts))]
    yield from found
    if not any(check.state == "fail" for check in found):
        whom = facts.person or ", ".join(dict.fromkeys(each for rule in facts.rules for each in rule.run_as))
        yield ok(name, f"{facts.account} may run {', '.join(facts.paths)} and the helper as {whom}")


def _too_wide(site: Site, facts: SudoFacts) -> Iterator[Check]:
    expected = {*facts.paths.values(), site.helper}
    for rule in facts.rules:
        anybody = [each for each in rule.run_as if each in ("ALL", "root", "#0")]
        if anybody:
            said = f"{facts.account} may run {', '.join(rule.commands)} as {anybody[0]}, which is too much"
            yield fail("sudo", said, "Name the group of your users in place of it in the sudoers file: (%hpcusers)")
        elif "ALL" in rule.commands:
            said = f"{facts.account} may run every command as {', '.join(rule.run_as)}"
            yield fail("sudo", said, f"Name the commands in the sudoers file: {', '.join(sorted(expected))}")
        elif more := [each for each in rule.commands if each.split()[0].lstrip("!") not in expected]:
            said = f"{facts.account} may also run {', '.join(more)}"
            yield warn(
                "sudo", said, "If the hub is what it is for, take it out of the sudoers file: the hub needs none"
            )


def _refused(facts: SudoFacts) -> Iterator[Check]:
    for command, said in facts.refused.items():
        what = f"as {facts.person}, {facts.paths.get(command, command)}: {said}"
        if "environment variables" in said:
            yield fail("sudo", what, _TAGS.format("SETENV:"))
        elif command in FOR_PRIVATE:
            remedy = "Needed only where Slurm's PrivateData hides jobs from the hub: add it to the sudoers file"
            yield warn("sudo", what, remedy)
        else:
            path = facts.paths.get(command, "the helper")
            remedy = (
                f"Name {path}, and a group that {facts.person} belongs to, in the sudoers file: share/deploy/sudoers"
            )
            yield fail("sudo", what, remedy)


def _unlisted(site: Site, facts: SudoFacts) -> Iterator[Check]:
    """Judge the rules alone: there is nobody to try them as."""
    for command in (*NEEDED, "helper"):
        path = site.helper if command == "helper" else facts.paths.get(command, "")
        rules = [rule for rule in facts.rules if path in rule.commands or "ALL" in rule.commands]
        if not path:
            continue
        if not rules:
            remedy = "Put it into the sudoers file: share/deploy/sudoers"
            yield fail("sudo", f"no rule names {path}, which the hub runs", remedy)
        elif not any("!authenticate" in rule.options for rule in rules):
            yield fail("sudo", f"{path} asks for a password, which the hub has not", _TAGS.format("NOPASSWD:"))
        elif command != "helper" and not any("setenv" in rule.options for rule in rules):
            yield fail("sudo", f"{path} gets none of the hub's environment variables", _TAGS.format("SETENV:"))


# -- the helper -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HelperFacts:
    """The installed helper. *text* is None where there is none, or none that this account may read."""

    path: str
    text: str | None = None
    error: str = ""
    uid: int = 0
    mode: int = 0o755
    loose: tuple[str, ...] = ()  # directories above it that others than root may write to


def look_at_helper(site: Site) -> HelperFacts:
    """Read the installed helper, and who may change it."""
    path = Path(site.helper)
    try:
        found = path.stat()
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return HelperFacts(site.helper, None, error.strerror or type(error).__name__)
    loose = []
    for directory in path.resolve().parents:
        its = directory.stat()
        if its.st_uid != 0 or (its.st_mode & 0o002 and not its.st_mode & stat.S_ISVTX):
            loose.append(str(directory))
    return HelperFacts(site.helper, text, "", found.st_uid, stat.S_IMODE(found.st_mode), tuple(loose))


def helper(site: Site, facts: HelperFacts, config: str) -> Iterator[Check]:
    """Judge the installed helper; *config* is the hub's configuration file, for the remedy."""
    name = "helper"
    install = f"snowyspawner helper -f {config} > helper && install -D -o root -g root -m 0755 helper {facts.path}"
    if facts.text is None:
        yield fail(name, f"{facts.path}: {facts.error}: people are not shown their jobs' logs", install)
        return
    if facts.uid != 0:
        said = f"{facts.path} belongs to user id {facts.uid}, who can change what runs as every person"
        yield fail(name, said, f"chown root:root {facts.path}")
    if facts.mode & 0o022:
        said = f"{facts.path} has mode {facts.mode:04o}: others than root can change it"
        yield fail(name, said, f"chmod 0755 {facts.path}")
    elif facts.mode & 0o005 != 0o005:
        said = f"{facts.path} has mode {facts.mode:04o}: people cannot run it"
        yield fail(name, said, f"chmod 0755 {facts.path}")
    for directory in facts.loose:
        yield fail(
            name,
            f"others than root may write to {directory}, and so replace it",
            f"chown root {directory} && chmod go-w {directory}",
        )
    wanted = as_person.helper_text(site)
    (code, table), (its_code, its_table) = _parts(wanted), _parts(facts.text)
    if code != its_code:
        yield fail(name, f"{facts.path} is not this version's", install)
    elif other := [key for key in table if key != "runtimes" and table[key] != its_table.get(key)]:
        said = f"{facts.path} was made for another site, or for what it was: {', '.join(other)} differ"
        yield fail(name, said, install)
    elif table != its_table:
        said = f"{facts.path} looks for containers' runtimes elsewhere than this PATH has them"
        yield warn(name, said, install)
    elif facts.uid == 0 and not facts.mode & 0o022 and not facts.loose:
        yield ok(name, f"{facts.path} is this version's and this site's")


def _parts(text: str) -> tuple[str, dict[str, Any]]:
    """Return a helper without its table, and the table."""
    found = re.search(r"^TABLE = (\{.*?\})(?=\n\n|  #)", text, re.MULTILINE | re.DOTALL)
    if not found:
        return text, {}
    with contextlib.suppress(ValueError, SyntaxError):
        table = ast.literal_eval(found[1])
        if isinstance(table, dict):
            return text.replace(found[1], ""), table
    return text, {}
