"""The page's examples of signing in, as they stand there, with real PAM, a real code, and a real slapd.

The one for OpenID Connect is in tests/browser/test_form_links.py.
"""

from __future__ import annotations

import base64
import grp
import hmac
import json
import os
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from jupyterhub.auth import Authenticator, PAMAuthenticator
from traitlets.config import Config

from demo import packages
from demo.commands import SYSTEM_PATH, wait_until
from demo.progress import Progress

from ..hubs import ROOT
from ..runs import account_prefix

pytestmark = [pytest.mark.cluster]

PAGE = (ROOT / "docs" / "sign-in.md").read_text()
PASSWORD = "a word that is no secret"


def examples(heading: str) -> list[str]:
    """Return the blocks below *heading*."""
    part = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```\w+\n(.*?)^```$", part, re.M | re.S)


def configured(texts: list[str], other: Mapping[str, str]) -> Config:
    """Return what the examples *texts* set, with what is *other* here."""
    text = "\n".join(texts)
    for there, here in other.items():
        assert there in text
        text = text.replace(there, here)
    config = Config()
    exec(compile(text, "docs/sign-in.md", "exec"), {"c": config})  # noqa: S102  the page's
    return config


async def signs_in(authenticator: Authenticator, name: str, password: str, **more: str) -> str | None:
    """Return the hub's name for whoever signs in; None if nobody does."""
    found = await authenticator.get_authenticated_user(None, {"username": name, "password": password, **more})
    return found["name"] if found else None


async def test_pam(cluster: Any) -> None:
    """Who is in the group; who is not, a wrong password, and a name in other letters, which PAM does not know."""
    (first, password), (second, its), *_ = cluster.users.items()
    example, *_ = examples("Passwords of this host (PAM)")
    group = grp.getgrgid(os.stat(cluster.state / "home" / first).st_gid).gr_name
    pam = PAMAuthenticator(config=configured([example], {"hpcusers": group}))
    assert await signs_in(pam, first, password) == first
    assert await signs_in(pam, first.upper(), password) is None
    assert await signs_in(pam, first, its) is None
    assert await signs_in(pam, second, its) is None


def code(key: bytes, count: int) -> str:
    """Return a one-time code of six digits: RFC 4226, 5.3."""
    digest = hmac.digest(key, struct.pack(">Q", count), "sha1")
    at = digest[-1] & 15
    return f"{(int.from_bytes(digest[at : at + 4], 'big') & 0x7FFFFFFF) % 1_000_000:06}"


@pytest.fixture
def service(cluster: Any, tmp_path: Path) -> Iterator[tuple[str, bytes]]:
    """A PAM service that asks for a code, as the page has it; and the key that the codes of the first person are of."""
    packages.install(packages.SIGN_IN, Progress(quiet=True))
    name, key = account_prefix("sns"), os.urandom(20)
    users = tmp_path / "users.oath"
    users.write_text(f"HOTP {next(iter(cluster.users))} - {key.hex()}\n")
    users.chmod(0o600)
    (text,) = (block for block in examples("Passwords of this host (PAM)") if "pam_oath" in block)
    path = Path("/etc/pam.d", name)
    path.write_text(text.replace("/etc/users.oath", str(users)))
    yield name, key
    path.unlink()


async def test_pam_with_a_code(cluster: Any, service: tuple[str, bytes]) -> None:
    """Password and code, each by itself, and a code that was used."""
    name, password = next(iter(cluster.users.items()))
    one, two, _ = examples("Passwords of this host (PAM)")
    group = grp.getgrgid(os.stat(cluster.state / "home" / name).st_gid).gr_name
    pam = PAMAuthenticator(config=configured([one, two], {"hpcusers": group, '"jupyterhub"': f'"{service[0]}"'}))
    assert pam.request_otp
    assert await signs_in(pam, name, password, otp=code(service[1], 0)) == name
    assert await signs_in(pam, name, password, otp=code(service[1], 0)) is None
    assert await signs_in(pam, name, "wrong", otp=code(service[1], 1)) is None
    assert await signs_in(pam, name, password, otp="000000") is None
    assert await signs_in(pam, name, password) is None


@pytest.fixture
def ldap(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A slapd with TLS that knows two people, one of them in the group; its port and its certificate."""
    packages.install(packages.SIGN_IN, Progress(quiet=True))
    certificate, key, data = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "data"
    data.mkdir()
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    words = [*command.split(), "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(words, check=True, capture_output=True)
    (tmp_path / "slapd.conf").write_text(
        f"""include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
TLSCertificateFile {certificate}
TLSCertificateKeyFile {key}
pidfile {tmp_path}/pid
database mdb
suffix dc=example,dc=org
directory {data}
"""
    )
    entries = ["dn: dc=example,dc=org\nobjectClass: domain\ndc: example\n"]
    entries += [f"dn: ou={ou},dc=example,dc=org\nobjectClass: organizationalUnit\n" for ou in ("people", "groups")]
    for name in ("ann", "bob"):
        word = base64.b64encode(PASSWORD.encode()).decode()
        entry = f"dn: uid={name},ou=people,dc=example,dc=org\nobjectClass: inetOrgPerson\ncn: {name}\nsn: {name}\n"
        entries.append(f"{entry}userPassword:: {word}\n")
    member = "member: uid=ann,ou=people,dc=example,dc=org\n"
    entries.append(f"dn: cn=hpcusers,ou=groups,dc=example,dc=org\nobjectClass: groupOfNames\n{member}")
    env = {**os.environ, "PATH": f"{os.environ['PATH']}:{SYSTEM_PATH}"}
    conf = ["-f", str(tmp_path / "slapd.conf")]
    subprocess.run(["slapadd", *conf], input="\n".join(entries), text=True, check=True, env=env, capture_output=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with open(tmp_path / "log", "wb") as log:
        slapd = subprocess.Popen(
            ["slapd", *conf, "-d", "0", "-h", f"ldaps://localhost:{port}/"], env=env, stdout=log, stderr=log
        )

    def listens() -> bool:
        assert slapd.poll() is None, (tmp_path / "log").read_text()
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(listens, "slapd", 20)
        yield port, certificate
    finally:
        slapd.terminate()
        slapd.wait(20)


def by_ldap(port: int, other: Mapping[str, str], tries: list[tuple[str, str]]) -> subprocess.CompletedProcess[str]:
    """Sign in with names and passwords, in a process of its own: ldap3 leaves connections open, and warns."""
    (example,) = examples("LDAP")
    for there, here in other.items():
        assert there in example
        example = example.replace(there, here)
    words = [sys.executable, "-W", "ignore", "-c", TRY, example, str(port), json.dumps(tries)]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)


TRY = """
import asyncio, json, sys
from ldapauthenticator import LDAPAuthenticator
from traitlets.config import Config
c = Config()
exec(sys.argv[1])
c.LDAPAuthenticator.server_port = int(sys.argv[2])
authenticator = LDAPAuthenticator(config=c)
async def sign_in(name, password):
    found = await authenticator.get_authenticated_user(None, {"username": name, "password": password})
    return found and found["name"]
print(json.dumps([asyncio.run(sign_in(*each)) for each in json.loads(sys.argv[3])]))
"""


def test_ldap(ldap: tuple[int, Path]) -> None:
    """Who is in the group, whatever the letters; who is not; a wrong or no password; names that are none."""
    port, certificate = ldap
    here = {"ldap.example.org": "localhost", "/etc/ssl/certs/ca-certificates.crt": str(certificate)}
    good = [("ann", PASSWORD), ("Ann", PASSWORD)]
    bad = [("bob", PASSWORD), ("ann", "wrong"), ("ann", "")]
    bad += [(name, PASSWORD) for name in ("*", "ann,ou=people", "ann)(uid=*", "nobody")]
    done = by_ldap(port, here, [*good, *bad])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["ann", "ann", *[None] * len(bad)]


def test_ldap_with_somebody_else_s_certificate(ldap: tuple[int, Path]) -> None:
    """The password is not sent."""
    done = by_ldap(ldap[0], {"ldap.example.org": "localhost"}, [("ann", PASSWORD)])
    assert done.returncode == 1
    assert "certificate verify failed" in done.stderr
