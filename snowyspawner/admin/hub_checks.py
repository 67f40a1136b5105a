"""Checks of a hub's configuration: what is set, where jobs reach the hub, who can sign in, where the hub writes.

`look` gathers what the configuration and this host say; the other functions judge it, and are pure.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import ipaddress
import json
import os
import pwd
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .._share import share_dir
from ..config import trait_of
from ..site import Site
from ..spawner import SnowySpawner, ineffective_traits
from .report import Check, fail, ok, skip, warn

#: Seconds that the hub has to answer.
ANSWERS_IN = 5.0

_SET_CONFIG = "End the configuration in: import snowyspawner; snowyspawner.set_config(c)"


@dataclass(frozen=True)
class HubFacts:
    """What a hub's configuration and this host say."""

    spawner: str = "SnowySpawner"
    ours: bool = True  # it is SnowySpawner, or made of it
    without_effect: tuple[str, ...] = ()  # traits of batchspawner's that are set
    settings: Mapping[str, Any] = field(default_factory=dict)  # of what set_config sets
    internal_ssl: bool = False
    templates: Mapping[str, str] = field(default_factory=dict)  # the directory that each page comes from; empty: none
    versions: Mapping[str, str] = field(default_factory=dict)
    url: str = ""  # of the hub's API, as jobs are given it
    listens: str = ""  # the address that the hub listens on; empty: every one
    addresses: tuple[str, ...] = ()  # what the host in *url* stands for, here; none: nothing
    answer: str = ""  # the version of the hub that answers there; empty: none
    no_answer: str = ""  # why: refused, timeout, or what answers instead
    euid: int = 0
    account: str = "root"
    authenticator: str = "PAMAuthenticator"
    broken: str = ""  # why there is no authenticator
    pam: bool = True
    pam_service: str = "login"
    pam_file: bool = True
    pam_others: bool = False  # the service asks more than /etc/shadow: sssd, LDAP, Kerberos
    reads_shadow: bool = True
    anybody: bool = True  # somebody may sign in
    people: frozenset[str] = frozenset()  # allowed_users
    database: str = ""  # path of the SQLite file; empty: another database
    database_writable: bool = True
    secret_file: str = ""
    secret_mode: int | None = None  # None: there is no such file yet
    secret_readable: bool = True
    secret_writable: bool = True  # its directory

    @property
    def alone(self) -> bool:
        """Whether this account can only be a hub for itself."""
        return self.euid != 0 and self.people == {self.account}


def look(config: Any, app: Any) -> HubFacts:
    """Gather what is to be known of the hub *app*, made of *config*. May wait for the network and for disks."""
    spawner = app.spawner_class
    ours = issubclass(spawner, SnowySpawner)
    app.init_hub()
    said = trait_of(config, spawner, "hub_connect_url") if hasattr(spawner, "hub_connect_url") else None
    url = f"{said.rstrip('/')}{urlsplit(app.hub.api_url).path}" if said else app.hub.api_url
    addresses = _addresses(urlsplit(url).hostname or "")
    answer, no_answer = asks_hub(url) if addresses else ("", "")
    database = str(app.db_url).removeprefix("sqlite:///") if str(app.db_url).startswith("sqlite:///") else ""
    path = os.path.abspath(os.path.expanduser(app.cookie_secret_file))
    secret_file = "" if app.cookie_secret or os.environ.get("JPY_COOKIE_SECRET") else path
    return HubFacts(
        spawner=spawner.__name__,
        ours=ours,
        without_effect=_without_effect(config) if ours else (),
        settings={
            "cleanup_servers": app.cleanup_servers,
            "concurrent_spawn_limit": app.concurrent_spawn_limit,
            "init_spawners_timeout": app.init_spawners_timeout,
            "consecutive_failure_limit": trait_of(config, spawner, "consecutive_failure_limit"),
        },
        internal_ssl=app.internal_ssl,
        templates=_templates(app.template_paths),
        versions={name: importlib.metadata.version(name) for name in ("jupyterhub", "batchspawner", "snowyspawner")},
        url=url,
        listens=_listens(app),
        addresses=addresses,
        answer=answer,
        no_answer=no_answer,
        euid=os.geteuid(),
        account=account_name(),
        database=os.path.abspath(database) if database and database != ":memory:" else "",
        database_writable=not database or _writable(database),
        secret_file=secret_file,
        secret_mode=_mode(secret_file),
        secret_readable=not os.path.exists(secret_file) or os.access(secret_file, os.R_OK),
        secret_writable=os.access(os.path.dirname(path), os.W_OK),
        **_people(app),
    )


def account_name() -> str:
    """Return the name of the account that this process runs as, or its number."""
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(os.geteuid()).pw_name
    return str(os.geteuid())


def _without_effect(config: Any) -> tuple[str, ...]:
    sections = ("SnowySpawner", "SlurmSpawner", "BatchSpawnerRegexStates", "BatchSpawnerBase")
    return tuple(
        f"{each}.{n}" for each in sections if each in config for n in config[each] if n in ineffective_traits()
    )


def _templates(paths: list[str]) -> dict[str, str]:
    """Return the directory in which JupyterHub finds each page of ours."""
    pages = sorted(path.name for path in (share_dir() / "templates").glob("*.html"))
    return {page: next((path for path in paths if Path(path, page).is_file()), "") for page in pages}


def _listens(app: Any) -> str:
    host = (urlsplit(app.hub_bind_url).hostname or "") if app.hub_bind_url else app.hub_ip
    return "" if host in ("", "0.0.0.0", "::", "*") else host  # noqa: S104


def _addresses(host: str) -> tuple[str, ...]:
    with contextlib.suppress(OSError, UnicodeError):
        return tuple(sorted({str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}))
    return ()


def asks_hub(url: str) -> tuple[str, str]:
    """Return the version of the hub that answers at *url*, or an empty one and why there is none."""
    # A proxy of the site's is for the world outside.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url.rstrip('/')}/", timeout=ANSWERS_IN) as answer:
            return str(json.loads(answer.read(4096))["version"])[:40], ""
    except urllib.error.HTTPError as error:
        return "", f"what answers there is no JupyterHub (status {error.code})"
    except urllib.error.URLError as error:
        refused = isinstance(error.reason, ConnectionRefusedError)
        return "", "refused" if refused else "timeout" if isinstance(error.reason, TimeoutError) else str(error.reason)
    except TimeoutError:
        return "", "timeout"
    except Exception:  # whatever answers may say anything
        return "", "what answers there is no JupyterHub"


def _people(app: Any) -> dict[str, Any]:
    """Return what is to be known of the authenticator."""
    kind = app.authenticator_class
    pam = any(each.__name__ == "PAMAuthenticator" for each in kind.__mro__)
    found: dict[str, Any] = {
        "authenticator": kind.__name__,
        "pam": pam,
        "reads_shadow": os.access("/etc/shadow", os.R_OK),
    }
    try:
        made = kind(parent=app)
    except Exception as error:  # somebody else's code
        return {**found, "broken": f"{type(error).__name__}: {error}"}
    # Every authenticator has its own; JupyterHub's check is a warning in its log.
    allowed = [name for name in made.trait_names(config=True) if name.startswith("allow") and getattr(made, name)]
    found |= {"anybody": bool(allowed or made.admin_users), "people": frozenset(made.allowed_users)}
    if pam:
        texts = _pam_texts(made.service)
        others = re.search(r"^[^#\n]*\bpam_(sss|ldap|krb5|winbind)\.so", "\n".join(texts), re.MULTILINE)
        found |= {"pam_service": made.service, "pam_file": bool(texts), "pam_others": others is not None}
    return found


def _pam_texts(service: str, depth: int = 0) -> list[str]:
    """Return the text of a service's file and of those that it includes (pam.d(5))."""
    try:
        text = Path("/etc/pam.d", service).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    names = re.findall(r"^(?:@include|\S+\s+(?:include|substack))\s+([\w.-]+)", text, re.MULTILINE) if depth < 4 else []
    return [text, *(each for name in names for each in _pam_texts(name, depth + 1))]


def _writable(database: str) -> bool:
    """Tell whether SQLite can write: the file, and beside it."""
    path = os.path.abspath(database)
    directory = os.access(os.path.dirname(path), os.W_OK | os.X_OK)
    return directory and (not os.path.exists(path) or os.access(path, os.W_OK))


def _mode(path: str) -> int | None:
    with contextlib.suppress(OSError):
        return os.stat(path).st_mode & 0o777
    return None


def judge(facts: HubFacts, site: Site | None) -> list[Check]:
    """Say what is right and wrong in a hub's configuration."""
    found = [*_spawner(facts), *_set_config(facts), *_pages(facts), *_versions(facts)]
    found += [*_address(facts, site), *_ports(facts, site), *_sign_in(facts)]
    return [*found, *_database(facts), *_secret(facts)]


def _spawner(facts: HubFacts) -> Iterator[Check]:
    if not facts.ours:
        said = f"c.JupyterHub.spawner_class is {facts.spawner}: must be snowy"
        yield fail("spawner", said, 'Set c.JupyterHub.spawner_class = "snowy"')
    elif facts.without_effect:
        names = ", ".join(f"c.{name}" for name in facts.without_effect)
        yield fail("spawner", f"{names} has no effect here", "Remove it, and use the site file: docs/reference/site.md")
    elif facts.internal_ssl:
        said = "c.JupyterHub.internal_ssl is not supported: no session would start"
        yield fail("spawner", said, "Remove c.JupyterHub.internal_ssl")
    else:
        yield ok("spawner", facts.spawner)


def _set_config(facts: HubFacts) -> Iterator[Check]:
    wanted: dict[str, tuple[Any, str]] = {
        "cleanup_servers": (False, "jobs that wait end with the hub"),
        "concurrent_spawn_limit": (0, "jobs in the queue count as spawning, and the next is refused"),
        "consecutive_failure_limit": (0, "jobs that fail end the hub"),
        "init_spawners_timeout": (1, "the hub starts later while any server is looked for"),
    }
    other = {
        name: facts.settings[name] for name in wanted if facts.settings.get(name, wanted[name][0]) != wanted[name][0]
    }
    for name, value in other.items():
        said = f"{name} is {value}: {wanted[name][1]}"
        if name == "cleanup_servers":
            yield fail("set_config", said, _SET_CONFIG)
        else:
            yield warn("set_config", said, f"Set it to {wanted[name][0]}. {_SET_CONFIG}")
    if not other:
        yield ok("set_config", "what waiting jobs need is set")


def _pages(facts: HubFacts) -> Iterator[Check]:
    ours = str(share_dir() / "templates")
    gone = [page for page, path in facts.templates.items() if not path]
    other = {page: path for page, path in facts.templates.items() if path not in ("", ours)}
    if gone:
        yield fail("templates", f"not in c.JupyterHub.template_paths: {', '.join(gone)}", _SET_CONFIG)
    for page, path in () if gone else other.items():
        said = f"{page} is taken from {path}, not from snowyspawner"
        yield warn("templates", said, f'Let yours begin with {{% extends "…" %}}, or remove {path}/{page}')
    if not gone and not other:
        yield ok("templates", f"the pages are taken from {ours}")


def _versions(facts: HubFacts) -> Iterator[Check]:
    names = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    if facts.answer and facts.answer != facts.versions.get("jupyterhub"):
        said = f"{names}; the hub that runs is {facts.answer}"
        yield warn("versions", said, "Restart the hub; sessions live on: systemctl restart jupyterhub")
    else:
        yield ok("versions", names)


def _address(facts: HubFacts, site: Site | None) -> Iterator[Check]:
    name, host = "hub's address", urlsplit(facts.url).hostname or ""
    set_it = "Set c.JupyterHub.hub_connect_ip to this host's name in the cluster's network"
    here = site is not None and is_loopback(site.address("n1"))
    if not facts.addresses:
        yield fail(name, f"jobs are given {facts.url}; {host} stands for no address", set_it)
        return
    if any(is_loopback(address) for address in facts.addresses) and not here:
        said = f"jobs are given {facts.url}: {host} is {facts.addresses[0]} here, which on a node is the node itself"
        if is_loopback(host) or host == "localhost":
            yield fail(name, said, f'Set c.JupyterHub.hub_ip = "0.0.0.0". {set_it}')
        else:
            yield warn(name, said, f"See what the nodes make of it: check --job USER. {set_it}, or mend /etc/hosts")
    elif facts.listens and is_loopback(facts.listens) and not here:
        said = f"jobs are given {facts.url}; the hub listens on {facts.listens} only"
        yield fail(name, said, 'Set c.JupyterHub.hub_ip = "0.0.0.0"')
    elif facts.answer:
        yield ok(name, f"jobs are given {facts.url}, where JupyterHub {facts.answer} answers this host")
    elif facts.no_answer == "refused":
        said = f"jobs are given {facts.url}; no hub runs there now"
        yield warn(name, said, "Start the hub, then check again: systemctl start jupyterhub")
    elif facts.no_answer == "timeout":
        said = f"jobs are given {facts.url}; nobody answers within {ANSWERS_IN:g} s"
        yield fail(name, said, f"Let the firewall pass TCP port {_port(facts)}. {set_it}")
    else:
        port = f"Find what listens there: ss -ltnp 'sport = :{_port(facts)}'. Or set c.JupyterHub.hub_port"
        yield fail(name, f"jobs are given {facts.url}: {facts.no_answer}", port)


def is_loopback(host: str) -> bool:
    """Tell whether *host* is an address of the machine itself."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _port(facts: HubFacts) -> int:
    url = urlsplit(facts.url)
    return url.port or (443 if url.scheme == "https" else 80)


def _ports(facts: HubFacts, site: Site | None) -> Iterator[Check]:
    nodes = f"TCP {site.ports}" if site and site.ports else "any TCP port from 1024 on (`ports` in the site file)"
    yield ok("firewall", f"must let through: nodes to the hub TCP {_port(facts)}; hub to the nodes {nodes}")


def _sign_in(facts: HubFacts) -> Iterator[Check]:
    name = "sign-in"
    if facts.broken:
        said = f"{facts.authenticator} cannot be made: {facts.broken}"
        yield fail(name, said, f"Mend the settings of c.{facts.authenticator}")
        return
    if not facts.anybody:
        said = f"{facts.authenticator} lets nobody in"
        yield fail(name, said, "Set c.Authenticator.allow_all = True, or allowed_users, or allowed groups")
    if not facts.pam:
        yield ok(name, f"{facts.authenticator}")
    elif not facts.pam_file:
        said = f"PAM's service {facts.pam_service!r} has no file in /etc/pam.d: every password is refused"
        yield fail(name, said, 'Name one that is there, such as c.PAMAuthenticator.service = "login"')
    elif facts.euid == 0 or facts.reads_shadow or facts.alone:
        yield ok(name, f"PAM, service {facts.pam_service}")
    elif facts.pam_others:
        said = f"PAM as {facts.account}: people whose passwords are in /etc/shadow cannot sign in"
        yield warn(name, said, "Others can, by what the service asks beside it. Try it with one of each kind.")
    else:
        said = f"{facts.account} cannot check other people's passwords with PAM: it may not read /etc/shadow"
        let = f"On Debian: usermod --append --groups shadow {facts.account}, and restart the hub"
        yield fail(name, said, f"{let}. Or choose another authenticator (OAuth, LDAP), or let the hub run as root")


def _database(facts: HubFacts) -> Iterator[Check]:
    if not facts.database:
        yield skip("database", "not looked at: it is not SQLite in a file")
    elif facts.database_writable:
        yield ok("database", f"{facts.database} can be written")
    else:
        said = f"{facts.account} cannot write {facts.database} and its directory"
        make = f"install -d -o {facts.account} -m 0700 {os.path.dirname(facts.database)}"
        yield fail("database", said, f"{make} && chown -f {facts.account} {facts.database}")


def _secret(facts: HubFacts) -> Iterator[Check]:
    name, path, mode = "cookie secret", facts.secret_file, facts.secret_mode
    if not path:
        yield skip(name, "not looked at: it is set without a file")
    elif mode is None:
        if facts.secret_writable:
            yield ok(name, f"{path} will be made when the hub starts")
        else:
            said = f"{facts.account} cannot make {path}"
            yield fail(name, said, "Set c.JupyterHub.cookie_secret_file to a file in a directory of its own")
    elif not facts.secret_readable:
        yield fail(name, f"{facts.account} cannot read {path}", f"chown {facts.account} {path}")
    elif mode & 0o007:
        said = f"{path} has mode {mode:04o}: the hub refuses to start"
        yield fail(name, said, f"rm {path}: the hub makes a new one, and people sign in again")
    elif mode & 0o070:
        yield warn(name, f"{path} has mode {mode:04o}: its group can be anybody here", f"chmod 600 {path}")
    else:
        yield ok(name, f"{path}, mode {mode:04o}")
