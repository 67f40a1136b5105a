"""The page of all sessions and the details for support: who may see and do what, on a real hub and real Slurm."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import closing
from html import unescape
from typing import Any

import pytest

from snowyspawner.session import messages

from ..administrators import AdminHub, admin_hub
from ..hubs import until
from ..people import Person
from .test_session import queued
from .test_sessions import get, press

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture(scope="module")
async def hub(cluster: Any, slurm: Any) -> AsyncIterator[AdminHub]:
    """A hub with sessions of two people: they wait, run, and one has failed."""
    async with admin_hub(cluster, slurm) as hub:
        await asyncio.gather(
            hub.wait(hub.student),
            hub.wait(hub.student, "second"),
            hub.wait(hub.admin),
            hub.fail(hub.student),
            hub.serve(hub.student, {"environment": "tf-mkl", "cores": "1", "gpu": "none", "time": "30"}, "runs"),
        )
        yield hub


async def rows(person: Person, query: str = "") -> list[dict[str, str]]:
    """Return the rows of the page: the texts of their cells by column, what can be done, and the reason."""
    status, html = await get(person, f"sessions{query}")
    assert status == 200, html
    found = []
    for row in re.findall(r'<tr role="row" data-job.*?</tr>', html, re.S):
        cells = dict(re.findall(r'data-label="(\w+)">(.*?)</td>', row, re.S))
        cells["Person"] = re.findall(r"<th[^>]*>(.*?)</th>", row, re.S)[0]
        cells["Phase"] = re.findall(r'snowy-badge [\w-]+">(.*?)</span>', row)[0]
        cells["Reason"] = re.findall(r'snowy-reason">(.*?)</p>', row, re.S)[0]
        cells["Can"] = " ".join(re.findall(r'href="/hub/snowy/([a-z]+(?:/stop)?)/[^"]*"', row))
        found.append({name: unescape(re.sub(r"<[^>]*>", "", text)).strip() for name, text in cells.items()})
    return found


async def test_an_administrator_sees_all_and_may_do_all(hub: AdminHub, cluster: Any) -> None:
    job = await hub.job(hub.student)
    runs = (await hub.state(hub.student, "runs"))["job"]
    async with Person(hub, hub.admin) as person:
        status, html = await get(person, "sessions")
        assert status == 200
        assert "JupyterHub's page" in unescape(html)
        shown = {(row["Person"], row["Server"]): row for row in await rows(person)}
        assert {(hub.student, server) for server in ("", "second", "fails", "runs")} | {(hub.admin, "")} <= set(shown)
        waits, serves, failed = (shown[hub.student, server] for server in ("", "runs", "fails"))
        assert waits["Job"] == f"{job['job_id']} {cluster.site.cluster}"
        assert (waits["Phase"], waits["Reason"]) == ("In the queue", messages.pending("BeginTime").sentence)
        assert (waits["Partition"], waits["Cores"], waits["GPU"]) == ("core", "1", "none")
        assert waits["Project"] == cluster.site.accounts.default
        assert waits["Time"].startswith("waits ")
        assert waits["Can"] == "log sessions/stop"
        assert (serves["Phase"], serves["Node"]) == ("Running", runs["node"])
        # Of 30 minutes, whichever tests came before this one.
        left = (runs["begun_at"] + 1800 - time.time()) / 60
        assert serves["Time"] in {f"{int(left) + more} min left" for more in (0, 1)}
        assert re.fullmatch(r"\d\d:\d\d", serves["Started"])
        assert failed["Phase"] in ("Not started", "Ended")
        assert failed["Reason"] == "The job ended before its launcher could begin (exit code 3)."
        assert failed["Can"] == "log support"
        assert failed["Time"].endswith(" ago")


async def test_one_group_s_sessions_are_all_that_its_teacher_sees(hub: AdminHub, cluster: Any, slurm: Any) -> None:
    """Its scope is ``read:servers!group=course``: no log, no details, no stop, nobody else, no result of a check."""
    hub.check.write_text(json.dumps({"when": 1, "ok": False, "checks": []}))
    before = queued(slurm, cluster, hub.student)
    async with Person(hub, hub.teacher) as person:
        shown = await rows(person)
        assert {row["Person"] for row in shown} == {hub.student}
        assert {row["Can"] for row in shown} == {""}
        _, html = await get(person, "sessions")
        assert hub.admin not in html
        assert "The last check" not in html
        assert "/hub/admin" not in html
        assert 'href="/hub/snowy/sessions">Sessions</a>' in html
        for path in ("log", "support", "sessions/stop"):
            assert (await get(person, f"{path}/{hub.student}"))[0] in (403, 404)
        assert await press(person, f"sessions/stop/{hub.student}/second") in (403, 404)
    hub.check.unlink()
    assert queued(slurm, cluster, hub.student) == before


async def test_who_may_see_only_their_own_is_refused(hub: AdminHub) -> None:
    async with Person(hub, hub.student) as person:
        status, html = await get(person, "sessions")
        assert status == 403
        assert "read:servers" in html
        # Their own role has the scope for themselves, so has everybody's.
        async with person.session.get(f"{hub.url}/hub/home") as answer:
            assert "snowy/sessions" not in await answer.text()
        assert (await get(person, f"sessions/stop/{hub.admin}"))[0] in (403, 404)
        assert (await get(person, f"support/{hub.admin}"))[0] in (403, 404)


async def test_what_is_looked_for_and_in_what_order(hub: AdminHub) -> None:
    async with Person(hub, hub.admin) as person:
        job = await hub.job(hub.student, "second")
        assert [row["Server"] for row in await rows(person, f"?text={job['job_id']}")] == ["second"]
        assert {row["Person"] for row in await rows(person, f"?text={hub.admin}&phase=waiting")} == {hub.admin}
        assert await rows(person, "?text=no+such+thing") == []
        assert [row["Phase"] for row in await rows(person, "?phase=running")] == ["Running"]
        jobs = [int(row["Job"].split()[0]) for row in await rows(person, "?sort=-job")]
        assert jobs == sorted(jobs, reverse=True)
        # What means nothing is passed over; what is typed is text.
        assert len(await rows(person, "?sort=x&phase=y")) >= 5
        status, html = await get(person, "sessions?text=%3Cscript%3Ealert(1)%3C/script%3E")
        assert (status, "<script>alert" in html) == (200, False)


async def test_an_administrator_stops_the_real_job(hub: AdminHub, cluster: Any, slurm: Any) -> None:
    """After a question; a GET has no effect, nor has a POST without the hub's token."""
    await hub.wait(hub.student, "third")
    job = (await hub.job(hub.student, "third"))["job_id"]
    where = f"sessions/stop/{hub.student}/third"
    async with Person(hub, hub.admin) as person:
        status, html = await get(person, f"{where}?text=x&sort=-job&next=//evil.example")
        assert status == 200
        assert f"Stop the session of {hub.student}: third?" in html
        assert f'action="/hub/snowy/{where}?text=x&amp;sort=-job"' in html
        assert await press(person, where, token=False) == 403
        assert job in queued(slurm, cluster, hub.student)
        assert await press(person, f"{where}?text=x") == 303
        assert job not in queued(slurm, cluster, hub.student)
        # It is the person's to see what became of it.
        shown = {row["Server"]: row for row in await rows(person)}
        assert shown["third"]["Phase"] == "Stopped"
        assert await press(person, where) == 303
    assert (await hub.state(hub.student, "third"))["last"]["stopped"] is True


async def test_the_details_of_a_job_that_failed(hub: AdminHub, cluster: Any, slurm: Any) -> None:
    """sacct's line, the choices, the script, the log's end, and no secret: the job has printed its own into the log."""
    last = (await hub.state(hub.student, "fails"))["last"]
    log = (cluster.state / "home" / hub.student / f".snowyspawner-{last['job_id']}.log").read_text()
    (secret,) = re.findall(r"^SNOWYSPAWNER_SECRET=(\S+)$", log, re.M)
    texts = []
    for name in (hub.student, hub.admin):
        async with Person(hub, name) as person:
            url = f"{hub.url}/hub/snowy/support/{hub.student}/fails"
            async with person.session.get(url) as answer:
                texts.append(await answer.text())
                assert answer.status == 200
                assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
                assert answer.headers["Content-Disposition"].startswith("attachment; ")
            async with person.session.get(f"{hub.url}/hub/snowy/support/{hub.student}/none") as answer:
                assert answer.status == 404
    one, other = (text.partition("What happened")[2] for text in texts)
    assert one == other
    text = texts[0]
    asked = ("-M", cluster.site.cluster, "-X", "-n", "-P", "-j", last["job_id"], "-o", "State,ExitCode")
    state, code = slurm("sacct", *asked).strip().split("|")
    assert (state, code) == ("FAILED", "3:0")
    (row,) = re.findall(rf"^JobID={last['job_id']}, .*$", text, re.M)
    assert f"State={state}, ExitCode={code}" in row
    assert re.search(r"Submit=\d{4}-\d\d-\d\d \d\d:\d\d:\d\d, ", row)
    assert "The job ended before its launcher could begin" in text
    assert re.search(r"^Submitted: .*\n(Started: .*\n)?Ended: .*$", text, re.M)
    assert "Environment: tf-mkl" in text
    assert f"Project: {cluster.site.accounts.default}" in text
    assert f"#SBATCH --job-name={last['name']}" in text
    assert "# launcher.py of this version" in text
    assert "def main" not in text
    for name, version in (("jupyterhub", r"\d+\.\d+"), ("batchspawner", r"\d"), ("Slurm", r"\d\d\.\d\d")):
        assert re.search(rf"^{name} {version}", text, re.M), text
    # What has to go is there, and has gone; what is the person's own stays.
    assert secret not in text
    assert "SNOWYSPAWNER_SECRET=[removed]" in text
    assert "/home/[removed]/setup.sh: Permission denied" in text
    assert "17 [removed] R" in text
    assert f"USER={hub.student}" in text
    assert secret not in hub.log()


async def test_the_home_page_offers_the_details_of_what_failed(hub: AdminHub) -> None:
    async with Person(hub, hub.student) as person:
        async with person.session.get(f"{hub.url}/hub/home") as answer:
            html = await answer.text()
        assert html.count(f'href="/hub/snowy/support/{hub.student}/fails" download') == 1
        # Neither of what was stopped, nor of what runs.
        assert len(re.findall(r'href="/hub/snowy/support/', html)) == 1
        (mail,) = re.findall(r'href="(mailto:[^"]*[?][^"]*)"', html)
        assert unescape(mail).startswith("mailto:help@example.org?subject=JupyterLab%20on%20")
        assert len(mail) < 2000
        async with person.session.get(f"{hub.url}/hub/user/{hub.student}/fails/") as answer:
            assert f'data-copy="/hub/snowy/support/{hub.student}/fails"' in await answer.text()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (b"", False),
        (b"[]", False),
        (b"[" * 100_000, False),
        (b"x" * 300_000, False),
        (json.dumps({"when": 1.8e9, "ok": True, "checks": [{"name": "a", "state": "ok"}]}).encode(), True),
    ],
    ids=["empty", "a list", "deep", "long", "whole"],
)
async def test_the_last_result_of_a_check(hub: AdminHub, text: bytes, shown: bool) -> None:
    hub.check.write_bytes(text)
    async with Person(hub, hub.admin) as person:
        status, html = await get(person, "sessions")
        assert (status, "The last check" in html) == (200, shown)
    hub.check.unlink()


async def test_a_restarted_hub_shows_what_waits_before_anybody_has_come(hub: AdminHub) -> None:
    await hub.stop()
    with closing(sqlite3.connect(hub.directory / "hub.sqlite")) as database:
        # As it is when the hub was restarted before, and the job waits for days.
        database.execute("UPDATE spawners SET server_id=NULL, last_activity='2020-01-01 00:00:00' WHERE name='second'")
        database.commit()
    await hub.start()
    async with Person(hub, hub.admin) as person:

        async def there() -> bool:
            found = {(row["Person"], row["Server"]): row["Phase"] for row in await rows(person)}
            return found.get((hub.student, "second")) == "In the queue" and (hub.student, "fails") in found

        await until(there, 20, "the sessions of the hub before")
    for user, server in ((hub.student, ""), (hub.student, "second"), (hub.admin, "")):
        await hub.resume(user, server)


async def test_200_sessions_take_less_than_100_ms(hub: AdminHub, figure: Any) -> None:
    """Real jobs that wait, in the miniature's queue. The bound leaves room for what else this machine does."""
    began = time.monotonic()
    servers = [(hub.student if number % 2 else hub.admin, f"n{number}") for number in range(200)]
    at = asyncio.Semaphore(8)

    async def submit(user: str, server: str) -> None:
        async with at:
            await hub.wait(user, server)

    await asyncio.gather(*(submit(*server) for server in servers))
    made = time.monotonic() - began
    async with Person(hub, hub.admin) as person:
        assert len(await rows(person)) >= 200
        took = []
        for query in ("", "?sort=-person", "?text=n1&phase=waiting") * 7:
            began = time.perf_counter()
            status, _ = await get(person, f"sessions{query}")
            took.append(time.perf_counter() - began)
            assert status == 200
    median = statistics.median(took)
    figure(f"page of 200 sessions: {median * 1000:.0f} ms (median of {len(took)}); 200 jobs made in {made:.0f} s")
    assert median < 0.3
