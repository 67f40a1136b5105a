"""Which course files are read, for whom and when, and what is kept: the real helper, on real files."""

from __future__ import annotations

import asyncio
import logging
import os
import pwd
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from snowyspawner.session.as_person import shared_reader
from snowyspawner.session.errors import SessionError
from snowyspawner.session.messages import Words
from snowyspawner.site import Site
from snowyspawner.slurm.facts import Facts
from snowyspawner.web import courses

ME = pwd.getpwuid(os.getuid())


@pytest.fixture
def site(tmp_path: Path, variant: Callable[..., Site]) -> Site:
    """A Site with a course for everybody, and places for those of projects."""
    return variant(
        courses={
            "course": None,
            "all": f"{tmp_path}/all.yaml",
            "project": f"{tmp_path}/proj/{{account}}/jupyter-course.yaml",
        }
    )


@pytest.fixture
def life(site: Site) -> Any:
    """A person with two projects, as far as courses ask."""
    client: Any = SimpleNamespace()
    facts = Facts(client, logging.getLogger("tests"))
    facts._accounts["me"] = (time.monotonic(), ["g2021027", "g2020014"])

    async def slurm_name() -> str:
        return "me"

    return SimpleNamespace(
        site=site,
        facts=facts,
        log=logging.getLogger("tests"),
        who=lambda: "me",
        known_slurm_name="me",
        slurm_name=slurm_name,
        prefix=None,
        known_account=ME,
    )


def put(site: Site, text: str, project: str = "g2021027") -> Path:
    path = Path(site.courses["project"].replace("{account}", project))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


async def looked(life: Any) -> dict[str, str]:
    """Look now, however long ago it was; return the titles."""
    courses.known(life).looked.clear()
    courses.look_soon(life)
    asking = life.facts.asking("courses me")
    assert asking is not None
    await asking
    return {key: card.title for key, card in courses.cards(life).items()}


async def test_files_of_one_s_projects_and_of_everybody_are_read(life: Any, site: Site, tmp_path: Path) -> None:
    put(site, "title: mine\n")
    put(site, "title: not mine\n", "g2019001")
    (tmp_path / "all.yaml").write_text("title: all\n")
    assert courses.cards(life) == {}
    assert await looked(life) == {"all//1": "all", "project/g2021027/1": "mine"}
    assert courses.cards(life)["project/g2021027/1"].values["account"] == "g2021027"


async def test_nobody_waits_and_nothing_is_asked_twice(life: Any, site: Site) -> None:
    put(site, "title: x\n")
    began = time.monotonic()
    courses.look_soon(life)
    asking = life.facts.asking("courses me")
    courses.look_soon(life)
    assert life.facts.asking("courses me") is asking
    assert time.monotonic() - began < 0.05
    await asking
    # It is fresh now.
    courses.look_soon(life)
    assert life.facts.asking("courses me") is None
    courses.known(life).fresh_for = 0.0
    courses.look_soon(life)
    assert life.facts.asking("courses me") is not None
    await life.facts.asking("courses me")


async def test_who_has_patience_may_wait_a_moment(life: Any, site: Site) -> None:
    put(site, "title: x\n")
    await courses.look(life, 5.0)
    assert list(courses.cards(life)) == ["project/g2021027/1"]
    courses.known(life).looked.clear()
    shared_reader(site).text, good = "import time; time.sleep(1)", shared_reader(site).text
    began = time.monotonic()
    await courses.look(life, 0.2)
    assert 0.1 < time.monotonic() - began < 0.6
    shared_reader(site).text = good
    await life.facts.asking("courses me")
    # What is fresh is not waited for.
    began = time.monotonic()
    await courses.look(life, 5.0)
    assert time.monotonic() - began < 0.1


async def test_a_change_is_seen_and_what_has_gone_goes(life: Any, site: Site) -> None:
    file = put(site, "title: one\n")
    assert list((await looked(life)).values()) == ["one"]
    file.write_text("title: two\n")
    assert list((await looked(life)).values()) == ["two"]
    file.write_text("titel: three\n")
    assert await looked(life) == {"project/g2021027/0": "The course file of g2021027 cannot be used"}
    card = courses.cards(life)["project/g2021027/0"]
    assert card.values is None
    assert card.remarks[0].startswith("Line 1: title: is missing")
    file.unlink()
    assert await looked(life) == {}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda file: file.write_bytes(b"x" * 70_000), "is longer than 65536 bytes"),
        (lambda file: file.symlink_to("/etc/passwd"), "is a symbolic link"),
        (lambda file: os.mkfifo(file), "is not a file"),
        (lambda file: file.mkdir(), "is not a file"),
        (lambda file: file.write_bytes(b"\xff\xfe"), "is not text"),
    ],
    ids=["large", "link", "fifo", "directory", "binary"],
)
async def test_what_is_no_course_file_is_a_remark(life: Any, site: Site, make: Any, said: str) -> None:
    file = put(site, "")
    file.unlink()
    make(file)
    assert list(await looked(life)) == ["project/g2021027/0"]
    assert said in " ".join(courses.cards(life)["project/g2021027/0"].remarks)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to be somebody else")
async def test_what_the_person_may_not_read_is_no_card(life: Any, site: Site) -> None:
    put(site, "title: x\n").chmod(0o600)
    life.known_account = pwd.getpwnam("nobody")
    assert await looked(life) == {}


async def test_what_cannot_be_read_for_the_moment_stays(
    life: Any, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """The helper fails, or a disk hangs: the hub's log says once that the helper cannot be run."""
    put(site, "title: x\n")
    before = await looked(life)
    reader = shared_reader(site)
    good = reader.text
    for text in ("raise SystemExit(3)", "raise SystemExit(14)", "raise SystemExit(3)"):
        reader.text = text
        assert await looked(life) == before
    reader.text = good
    assert [record.levelname for record in caplog.records] == ["WARNING"]


async def test_a_disk_that_hangs_is_waited_for_once(life: Any, site: Site, tmp_path: Path) -> None:
    put(site, "title: x\n")
    put(site, "title: y\n", "g2020014")
    before = await looked(life)
    assert len(before) == 2
    reader = shared_reader(site)
    good, reader.text = reader.text, f"open('{tmp_path}/asked', 'a').write('x'); import time; time.sleep(60)"
    reader.timeout = 0.5
    assert await looked(life) == before
    assert (tmp_path / "asked").read_text() == "x"
    reader.text, reader.timeout = good, 5.0


async def test_a_person_without_an_account_here_has_no_cards(life: Any, site: Site, tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text("title: all\n")

    async def account() -> None:
        raise SessionError(Words("none"), reason="unsupported")

    life.known_account, life.account = None, account
    assert await looked(life) == {}


async def test_what_is_kept_is_bounded(life: Any, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courses, "_PEOPLE", 3)
    monkeypatch.setattr(courses, "_PROJECTS", 1)
    facts = courses.known(life)
    facts.looked |= {f"p{number}": float(number) for number in range(9)}
    facts.found |= {f"p{number}": {} for number in range(9)}
    put(site, "title: x\n", "g2020014")  # the second of two projects
    courses.look_soon(life)
    await life.facts.asking("courses me")
    assert courses.cards(life) == {}
    assert set(facts.looked) == set(facts.found) == {"p7", "p8", "me"}


async def test_the_same_file_is_read_once_for_all(life: Any, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    parse = courses.course.parse
    monkeypatch.setattr(courses.course, "parse", lambda text, *rest: read.append(text) or parse(text, *rest))
    put(site, "title: x\n")
    await looked(life)
    await looked(life)
    assert len(read) == 1
    put(site, "title: [\n")
    await looked(life)
    assert list(await looked(life)) == ["project/g2021027/0"]
    assert len(read) == 2


def test_a_site_without_courses_asks_nothing(life: Any, variant: Callable[..., Site]) -> None:
    life.site = variant(courses={"course": None})
    courses.look_soon(life)
    assert courses.cards(life) == {}
    assert courses.known(life).looked == {}


async def test_cards_of_several_people_are_apart(life: Any, site: Site) -> None:
    put(site, "title: x\n")
    await looked(life)
    life.who = lambda: "somebody"
    life.known_slurm_name = "somebody"
    assert courses.cards(life) == {}
    await asyncio.sleep(0)
