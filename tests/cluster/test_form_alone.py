"""The form while Slurm is away, answers nonsense, or many people ask at once: a hub of its own, on real Slurm."""

from __future__ import annotations

import asyncio
import os
import re
import statistics
import time
from collections.abc import AsyncIterator
from html import unescape
from typing import Any

import aiohttp
import pytest

from ..faults import preferred, ready, switched_hub
from ..hubs import Hub, until
from ..people import Form
from .test_form_server import CPU, Visitor
from .test_session import queued

pytestmark = pytest.mark.cluster

HOSTILE = "</script><script>alert(1)</script>'\"{{7*7}}😀"


@pytest.fixture
async def alone(request: pytest.FixtureRequest, cluster: Any) -> AsyncIterator[Hub]:
    site = {"environments": {"tf-mkl": {"description": HOSTILE}}, "partitions": {"core": {"display_name": HOSTILE}}}
    measured = request.node.get_closest_marker("alone") is not None
    async with switched_hub(cluster, site, measured) as hub:
        assert hub.process is not None
        with preferred(hub.process.pid, os.getpid()):
            yield hub


class Guest(Visitor):
    """Somebody without an account on this machine."""

    async def __aenter__(self) -> Guest:
        self.session = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))
        async with self.session.get(f"{self.hub.url}/hub/login") as answer:
            values = Form(await answer.text()).values
        data = {**values, "username": self.name, "password": self.hub.token}
        async with self.session.post(f"{self.hub.url}/hub/login", data=data) as answer:
            assert answer.status == 200, await answer.text()
        return self

    async def timed(self, path: str) -> tuple[float, str]:
        started = time.perf_counter()
        async with self.session.get(self.hub.url + path) as answer:
            text = await answer.text()
            assert answer.status == 200
            assert str(answer.url).endswith(path)
        return time.perf_counter() - started, text


@pytest.mark.slow
@pytest.mark.alone
async def test_while_slurm_is_away_the_form_comes_at_once_and_says_so(alone: Hub) -> None:
    """At the very first visit there is nothing to show but the Site's own; later, what was known last."""
    away = alone.directory / "away"
    away.write_text("25")  # as long as a controller that does not answer takes
    async with Guest(alone, "ann") as ann:
        for _ in range(3):
            seconds, page = await ann.timed("/hub/spawn/ann")
            assert seconds < 0.3
            assert "tf-mkl" in Form(page).values.get("environment", "") + page

        async def said() -> Any:
            seconds, page = await ann.timed("/hub/spawn/ann")
            assert seconds < 0.3
            return re.search(r"Slurm has not answered since \w+ \d+ \w+ \d\d:\d\d \(Europe/Stockholm\)", page)

        await until(said, 40, "the note", every=2)
        _, page = await ann.timed("/hub/spawn/ann")
        assert "Free cores are not known" in page
        # A button is answered, too: with what is known.
        started = time.perf_counter()
        status, answer = await ann.ask("check", CPU)
        assert (status, answer["errors"], answer["accounts"]) == (200, {}, None)
        assert time.perf_counter() - started < 3
        away.unlink()

        async def well() -> Any:
            _, page = await ann.timed("/hub/spawn/ann")
            return "Slurm has not answered" not in page

        await until(well, 90, "the form without the note", every=2)
        _, answer = await ann.ask("check", CPU)
        assert answer["facts"]["core"]["total_cores"] > 0
        away.write_text("3")
        await until(said, 90, "the note again", every=2)
        _, answer = await ann.ask("check", CPU)
        assert answer["facts"]["core"]["total_cores"] > 0
        assert "What is shown as free is" in answer["slurm_note"]


@pytest.mark.slow
async def test_slow_look_ups_hold_up_no_start_and_no_stop(
    alone: Hub, users: list[str], cluster: Any, slurm: Any
) -> None:
    """slurmdbd and what the form shows hang, and 40 people look at forms: a session starts and stops as ever."""
    for command in ("sacctmgr", "sinfo", "scontrol"):
        (alone.directory / f"{command}.sh").write_text("exec sleep 20")
    guests = [Guest(alone, f"guest{number}") for number in range(40)]
    try:
        for guest in guests:
            await guest.__aenter__()

        async def looks(guest: Guest) -> float:
            return (await guest.timed(f"/hub/spawn/{guest.name}"))[0]

        for _ in range(2):
            assert max(await asyncio.gather(*(looks(guest) for guest in guests))) < 5
        name, began = users[0], time.monotonic()
        # Whose projects these are is waited for; then Slurm decides.
        await alone.submit(name, CPU)
        await alone.job(name, seconds=14)
        assert time.monotonic() - began < 13
        await ready(alone, name)
        began = time.monotonic()
        await alone.end(name)
        assert time.monotonic() - began < 10
        assert queued(slurm, cluster, name) == []
    finally:
        for guest in guests:
            await guest.session.close()


async def test_hostile_text_of_slurm_is_text(alone: Hub) -> None:
    quoted = HOSTILE.replace("'", "'\"'\"'")
    flat = quoted.replace(" ", "")
    for name, text in {
        "sacctmgr": f"printf '%s\\n' g2021027 '{quoted}'; exit 0",
        "scontrol": f"printf '%s\\n' 'ReservationName={flat} State=ACTIVE Users=ann EndTime=4000000000'; exit 0",
        "sbatch": f"printf '%s\\n' '{quoted}' >&2; exit 1",
        "squeue": f"printf '%s\\n' '{quoted}|{quoted}'; exit 0",
    }.items():
        (alone.directory / f"{name}.sh").write_text(text)
    async with Guest(alone, "ann") as ann:

        async def shown() -> Any:
            _, page = await ann.timed("/hub/spawn/ann")
            return page if unescape(page).count(HOSTILE) >= 4 else None

        page = await until(shown, 20, "the hostile texts")
        assert "<script>alert" not in page
        assert "49" not in Form(page).values.values()
        _, answer = await ann.ask("check", {**CPU, "account": HOSTILE})
        assert "account" in answer["errors"]


@pytest.mark.slow
@pytest.mark.alone
async def test_the_form_costs_little_more_than_the_home_page(alone: Hub, figure: Any) -> None:
    """For one, at most twice the time; for 20 at once, at least half of the throughput. Each sees their own only."""
    (alone.directory / "sacctmgr.sh").write_text(
        'for word; do case $word in person*) echo "g99999${word#person}|";; esac; done; exit 0'
    )
    names = [f"person{number:02}" for number in range(20)]
    guests = [Guest(alone, name) for name in names]
    for guest in guests:
        await guest.__aenter__()
        await guest.ask("preset", {"name": f"preset of {guest.name}", **CPU, "account": ""})
        await guest.timed(f"/hub/spawn/{guest.name}")
    try:
        times: dict[str, list[float]] = {"home": [], "form": []}
        for _ in range(40):
            for what, path in (("home", "/hub/home"), ("form", f"/hub/spawn/{names[0]}")):
                times[what].append((await guests[0].timed(path))[0])
        home, form = (statistics.median(times[what]) for what in ("home", "form"))
        figure(f"form, one: home {home * 1000:.1f} ms, form {form * 1000:.1f} ms, {form / home:.2f} x")

        async def all_at_once(form: bool) -> float:
            started = time.perf_counter()
            pages = await asyncio.gather(
                *(guest.timed(f"/hub/spawn/{guest.name}" if form else "/hub/home") for guest in guests)
            )
            seconds = time.perf_counter() - started
            for guest, (_, page) in zip(guests, pages, strict=True):
                if form:
                    assert set(re.findall(r"g99999(\d\d)", page)) == {guest.name[-2:]}
                    assert set(re.findall(r"preset of (person\d\d)", page)) == {guest.name}
            return len(guests) / seconds

        rates: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(50):  # a tenth of a second each; the machine's speed changes as often
            for which in (False, True):
                rates[which].append(await all_at_once(which))
        home_rate, form_rate = statistics.median(rates[False]), statistics.median(rates[True])
        figure(f"form, 20 at once: home {home_rate:.0f}/s, form {form_rate:.0f}/s, {form_rate / home_rate:.2f}")
        assert form <= 2 * home
        assert form_rate >= 0.5 * home_rate
    finally:
        for guest in guests:
            await guest.session.close()
