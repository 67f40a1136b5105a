"""The form's server side on real Slurm: facts, estimates, scripts and links say what is so, and start nothing."""

from __future__ import annotations

import asyncio
import json
import re
import time
from html import unescape
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from ..hubs import Hub, until
from ..people import Form, Person, forgets_reservations
from .test_session import MKL, queued

pytestmark = pytest.mark.cluster

CPU = {"environment": "tf-mkl", "partition": "core", "cores": "2", "gpu": "none", "time": "0:31:00"}
HOSTILE = "</script><script>alert(1)</script>'\"{{7*7}}\u2028é😀"


class Visitor(Person):
    """Somebody signed in who presses the form's buttons, with JavaScript (JSON) or without."""

    async def token(self) -> str:
        async with self.session.get(f"{self.hub.url}/hub/home") as answer:
            assert answer.status == 200
        # JupyterHub's token is what stands in the cookie of the page.
        return self.session.cookie_jar.filter_cookies(URL(f"{self.hub.url}/hub/"))["_xsrf"].value

    async def ask(self, what: str, body: Any, **query: str) -> tuple[int, Any]:
        headers = {"X-XSRFToken": await self.token(), "Content-Type": "application/json"}
        url = f"{self.hub.url}/hub/snowy/{what}"
        async with self.session.post(url, data=json.dumps(body), headers=headers, params=query) as answer:
            return answer.status, await answer.json()

    async def press(self, what: str, fields: dict[str, str], **query: str) -> tuple[int, str]:
        data = {"_xsrf": await self.token(), **fields}
        url = f"{self.hub.url}/hub/snowy/{what}"
        async with self.session.post(url, data=data, params=query, allow_redirects=False) as answer:
            return answer.status, await answer.text()

    async def get(self, path: str, **headers: str) -> tuple[int, str, str]:
        async with self.session.get(self.hub.url + path, headers=headers) as answer:
            return answer.status, await answer.text(), str(answer.url)


async def known(visitor: Visitor) -> dict[str, Any]:
    """Wait until the hub has heard from Slurm; return the answer of check."""

    async def heard() -> Any:
        _, answer = await visitor.ask("check", CPU)
        return answer if answer["facts"] and answer["accounts"] else None

    found: dict[str, Any] = await until(heard, 20, "facts of the partitions")
    return found


async def test_check_says_what_a_choice_costs_and_how_it_is_read(hub: Hub, users: list[str]) -> None:
    async with Visitor(hub, users[1]) as visitor:
        status, answer = await visitor.ask("check", {**CPU, "cores": "4", "time": "59", "gpu": "t4:1"})
        assert status == 200
        assert answer["errors"] == {}
        assert answer["remarks"]["gpu"].startswith("tf-mkl makes no use of a GPU")
        assert answer["said"] == {"time": "59 minutes", "begin": "now"}
        assert answer["cost"] == "4 cores \N{MULTIPLICATION SIGN} 59 minutes = 3.9 core-hours, 32 GB, 1 NVIDIA T4"
        assert answer["line"] == "-n 4 -p core --gres=gpu:t4:1 -t 0:59:00 -- tf-mkl"
        assert answer["argv"][:3] == ["sbatch", "-M", "snowy"]
        assert {"--ntasks=4", "--gres=gpu:t4:1", "--time=0:59:00"} <= set(answer["argv"])
        assert answer["link"].startswith("/hub/snowy?opt-environment=tf-mkl&")
        _, answer = await visitor.ask(
            "check", {**CPU, "partition": "devcore", "time": "2:00:00", "account": "g2019001"}
        )
        assert answer["errors"]["time"].startswith("2 hours is too long for devcore: at most 1 hour, or choose core")
        assert answer["errors"]["account"] == "'g2019001' is not one of your projects: choose g2021027 or g2020014"
        assert answer["cost"] == ""
        assert answer["said"]["time"] == "2 hours"


@pytest.mark.parametrize("body", ["", "[1]", "x", "3", "null", '{"a": "' + "x" * 70_000 + '"}', "[" * 5000])
async def test_what_is_no_choice_is_a_400(hub: Hub, users: list[str], body: str) -> None:
    async with Visitor(hub, users[1]) as visitor:
        headers = {"X-XSRFToken": await visitor.token(), "Content-Type": "application/json"}
        for what in ("check", "estimate", "script", "line", "preset"):
            async with visitor.session.post(f"{hub.url}/hub/snowy/{what}", data=body, headers=headers) as answer:
                assert answer.status == 400, (what, await answer.text())


async def test_nobody_else_s_page_can_press_a_button(hub: Hub, users: list[str]) -> None:
    async with Visitor(hub, users[1]) as visitor:
        for what in ("check", "estimate", "script", "line", "preset"):
            for headers in ({}, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}):
                url = f"{hub.url}/hub/snowy/{what}"
                async with visitor.session.post(url, data=CPU, headers=headers) as answer:
                    assert answer.status == 403
    async with aiohttp.ClientSession() as stranger, stranger.post(f"{hub.url}/hub/snowy/check", data=CPU) as answer:
        assert answer.status == 403


async def test_only_who_may_start_somebody_s_server_may_ask_in_their_name(hub: Hub, users: list[str]) -> None:
    async with Visitor(hub, users[1]) as visitor:
        for what in ("check", "estimate", "script", "line", "preset"):
            for other in (users[2], "root", "nobody-at-all", "../x"):
                headers = {"X-XSRFToken": await visitor.token(), "Content-Type": "application/json"}
                url, body = f"{hub.url}/hub/snowy/{what}", json.dumps({"name": "x", **CPU})
                async with visitor.session.post(url, data=body, headers=headers, params={"user": other}) as answer:
                    assert answer.status in (403, 404), (what, other)
        for other in (users[2], "nobody-at-all"):
            status, _, _ = await visitor.get(f"/hub/snowy?user={other}&opt-cores=3")
            assert status in (403, 404)
        status, _ = await visitor.ask("check", CPU, user=users[1])
        assert status == 200
    assert "x" not in (await hub.state(users[2])).get("own", {}).get("presets", {})


async def test_files_of_the_page_are_for_everybody_and_cached(hub: Hub, users: list[str]) -> None:
    async with Visitor(hub, users[1]) as visitor:
        _, page, _ = await visitor.get(f"/hub/spawn/{users[1]}")
    addresses = {unescape(found) for found in re.findall(r'(?:href|src)="([^"]*/snowy/static/[^"]*)"', page)}
    assert any("?v=" in address for address in addresses)
    async with aiohttp.ClientSession() as stranger:
        for address in addresses:
            async with stranger.get(hub.url + address) as answer:
                assert answer.status == 200
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                kept = answer.headers["Cache-Control"]
                assert ("immutable" in kept) == ("?v=" in address)
                etag = answer.headers["Etag"]
            async with stranger.get(hub.url + address, headers={"If-None-Match": etag}) as answer:
                assert answer.status == 304
        for path in ("../templates/spawn.html", "%2e%2e/sites/snowy.yaml", "/etc/passwd", "nothing.css", ""):
            async with stranger.get(URL(f"{hub.url}/hub/snowy/static/{path}", encoded=True)) as answer:
                assert answer.status in (403, 404), path


async def test_an_answer_loaded_again_is_the_form(hub: Hub, users: list[str]) -> None:
    async with Visitor(hub, users[1]) as visitor:
        for what in ("check", "estimate", "script", "line", "preset"):
            status, page, url = await visitor.get(f"/hub/snowy/{what}?{LINK.partition('?')[2]}")
            assert status == 200
            assert "/hub/snowy?opt-cores=7" in url
            assert filled(page) == FILLED


# -- facts -------------------------------------------------------------------------------------------------------


def nodes_of(slurm: Any, cluster: Any) -> list[dict[str, str]]:
    """Return the nodes as scontrol shows them: another command than the one the hub asks."""
    shown = slurm("scontrol", "-M", cluster.site.cluster, "-o", "show", "node")
    return [dict(re.findall(r"(\w+)=(\S*)", line)) for line in shown.splitlines() if line.startswith("NodeName=")]


@pytest.mark.slow
async def test_facts_are_what_scontrol_says(hub: Hub, users: list[str], cluster: Any, slurm: Any) -> None:
    """With a job on a node, one with a GPU, and one that waits."""
    await hub.serve(users[2], {**MKL, "partition": "core", "cores": 3})
    async with Visitor(hub, users[1]) as visitor:
        await known(visitor)
        await until(lambda: fresh(visitor, 3), 60, "facts that know of the job", every=1)
        _, answer = await visitor.ask("check", CPU)
        nodes = nodes_of(slurm, cluster)
        for name, facts in answer["facts"].items():
            mine = [node for node in nodes if name in node["Partitions"].split(",")]
            free = [int(node["CPUTot"]) - int(node["CPUAlloc"]) for node in mine]
            if cluster.site.partitions[name].whole_node:
                free = [cores if cores == 16 else 0 for cores in free]
            assert facts["total_cores"] == sum(int(node["CPUTot"]) for node in mine)
            assert facts["free_cores"] == sum(free)
            assert facts["largest_block"] == max(free)
            assert facts["state"] == "up"
            assert facts["waiting"] == 0
            gpus = sum("gpu:t4" in node["Gres"] for node in mine)
            assert facts["free_gpus"] == ({"t4": gpus} if cluster.site.partitions[name].gpus else {})
        assert set(answer["facts"]) == {"core", "node", "devcore", "devel"}
        assert 0 <= answer["facts_age"] < 60


async def fresh(visitor: Visitor, taken: int) -> bool:
    _, answer = await visitor.ask("check", CPU)
    facts = answer["facts"]["core"]
    return bool(facts["free_cores"] == facts["total_cores"] - taken)


@pytest.mark.slow
async def test_only_an_active_reservation_of_mine_is_offered(
    hub: Hub, users: list[str], cluster: Any, slurm: Any
) -> None:
    name, make = users[1], ["scontrol", "-M", cluster.site.cluster, "create", "reservation"]
    wanted = {
        "mine": [f"Users={name}", "StartTime=now", "Nodes=s1"],
        "ours": ["Accounts=g2021027", "StartTime=now", "Nodes=s2"],
        "theirs": [f"Users={users[2]}", "StartTime=now", "Nodes=s3"],
        "later": [f"Users={name}", "StartTime=now+5hours", "Nodes=s1"],
    }
    try:
        for key, words in wanted.items():
            slurm(*make, f"ReservationName={key}", "Duration=60", *words)
        async with Visitor(hub, name) as visitor:
            await known(visitor)

            async def offered() -> Any:
                _, page, _ = await visitor.get(f"/hub/spawn/{name}")
                return {key for key in wanted if f'value="{key}"' in page} == {"mine", "ours"}

            await until(offered, 60, "the reservations", every=1)
    finally:
        for key in wanted:
            slurm("scontrol", "-M", cluster.site.cluster, "delete", f"ReservationName={key}", check=False)
        await forgets_reservations(hub, name)


# -- estimate and script -----------------------------------------------------------------------------------------


async def test_an_estimate_is_slurm_s_own_and_submits_nothing(
    hub: Hub, users: list[str], cluster: Any, slurm: Any
) -> None:
    name = users[1]
    async with Visitor(hub, name) as visitor:
        started = time.monotonic()
        status, answer = await visitor.ask("estimate", CPU)
        assert (status, answer["sentence"]) == (200, "Slurm expects this to start now.")
        first = time.monotonic() - started
        started = time.monotonic()
        assert (await visitor.ask("estimate", CPU))[1] == answer
        assert time.monotonic() - started < max(first, 0.2)
        # More than there is: only Slurm knows.
        _, answer = await visitor.ask("estimate", {**CPU, "reservation": "nosuch"})
        assert "You cannot use this reservation." in answer["sentence"]
        assert list(answer["errors"]) == ["reservation"]
        # Refused here: Slurm is not even asked.
        _, answer = await visitor.ask("estimate", {**CPU, "cores": "17"})
        assert answer["errors"] == {"cores": "a node of core has 16: ask for 16 or fewer"}
    assert queued(slurm, cluster, name) == []


def running(slurm: Any, cluster: Any, user: str) -> list[str]:
    return list(slurm("squeue", "-M", cluster.site.cluster, "-h", "-u", user, "-t", "RUNNING", "-o", "%i").split())


async def test_what_would_start_sooner_is_said(hub: Hub, users: list[str], cluster: Any, slurm: Any) -> None:
    """Both T4s are taken: without one it would start now, as a preset has it."""
    name = users[1]
    gpus = [node["NodeName"] for node in nodes_of(slurm, cluster) if "gpu" in node["Gres"]]
    flags = ["-M", cluster.site.cluster, "-A", "g2021027", "-t", "120", "-p", "core", "--gres=gpu:t4:1"]
    for _ in gpus:
        # Somebody's jobs, as sbatch alone would make them.
        slurm(
            "setpriv",
            "--reuid",
            users[2],
            "--regid",
            users[2],
            "--init-groups",
            "sbatch",
            *flags,
            "-D",
            "/tmp",
            "-o",
            "/dev/null",
            "--wrap",
            "sleep 600",
        )
    try:
        await until(lambda: len(running(slurm, cluster, users[2])) == len(gpus), 30, "the jobs")
        async with Visitor(hub, name) as visitor:
            _, answer = await visitor.ask("estimate", {**CPU, "environment": "tf-gpu", "gpu": "t4:1", "cores": "3"})
            assert re.match(
                r"Slurm expects this to start in about (2 hours|1\d\d minutes), \w{3} \d", answer["sentence"]
            )
            assert answer["start"] > time.time() + 3600
            assert "it would start now." in answer["sooner"]["sentence"]
            values = answer["sooner"]["values"]
            assert values["gpu"] == "none"
            # And that is so.
            _, again = await visitor.ask("estimate", {**CPU, "cores": "3", **values})
            assert again["sentence"] == "Slurm expects this to start now."
            # Without JavaScript the same stands on the page.
            _, page = await visitor.press("estimate", {**CPU, "environment": "tf-gpu", "gpu": "t4:1", "cores": "3"})
            assert answer["sooner"]["sentence"] in unescape(page)
    finally:
        slurm("scancel", "-M", cluster.site.cluster, "-u", users[2])


async def test_nobody_can_keep_slurm_busy(hub: Hub, users: list[str]) -> None:
    async with Visitor(hub, users[2]) as visitor:
        answers = [await visitor.ask("estimate", {**CPU, "time": str(minutes)}) for minutes in range(10, 30)]
    statuses = [status for status, _ in answers]
    assert statuses.count(200) == 12
    assert statuses[-1] == 429
    assert "try again in a while" in answers[-1][1]["sentence"]


@pytest.mark.parametrize("server", ["", "second"])
async def test_the_script_shown_is_the_script_submitted(
    hub: Hub, users: list[str], cluster: Any, slurm: Any, tmp_path: Path, server: str
) -> None:
    name = users[1]
    choice = {**CPU, "begin": "", "open": "course/lab1.ipynb", "email_on_start": "1"}
    async with Visitor(hub, name) as visitor:
        # The hub has no such server before one is started: its number is made up, too.
        await visitor.form(server=server)
        status, shown = await visitor.ask("script", choice, **({"server": server} if server else {}))
        assert status == 200
        assert shown["argv"] == ["sbatch", "--parsable", "-M", "snowy"]
        status, back = await visitor.send(await visitor.form(server=server), **choice)
        assert status == 302, back.errors
        job = await hub.job(name, server)
        _, page = await visitor.press("script", choice)
    file = tmp_path / "script"
    slurm("scontrol", "-M", cluster.site.cluster, "write", "batch_script", job["job_id"], str(file))
    written = file.read_text().rstrip("\0\n")
    made_up = shown["script"].rstrip("\n").replace(f"jupyter-{server or 'lab'}-00000000", job["name"])
    if server:
        number = re.search(r'"server": \d+', written)
        assert number
        made_up = made_up.replace('"server": 0', number[0])
    assert made_up == written
    # No secret of any kind, nor a token.
    assert not re.search(r"(?i)[0-9a-f]{32}|TOKEN=|secret=", shown["script"])
    assert "#SBATCH --ntasks=2" in unescape(page)


async def test_a_line_fills_in_the_form(hub: Hub, users: list[str]) -> None:
    line = "./notebook.py -n 8 -p devcore --gres=gpu:t4:0 -t 0:45:00 -- tf-mkl"
    async with Visitor(hub, users[1]) as visitor:
        status, answer = await visitor.ask("line", {"line": line})
        assert status == 200
        filled = {"cores": "8", "partition": "devcore", "gpu": "none", "time": "0:45:00", "environment": "tf-mkl"}
        # It names the software, so that nothing of one's own is in its place.
        assert answer["values"] == {**filled, "own_container": "", "own_environment": ""}
        assert answer["errors"] == {}
        status, answer = await visitor.ask("line", {"line": "--wrap=id"})
        assert status == 400
        assert "unrecognized arguments: --wrap=id" in answer["errors"]["line"]
        # Without JavaScript, from among the other fields.
        status, page = await visitor.press("line", {**CPU, "time": "3:00:00", "line": line})
        form = Form(page)
        assert status == 200
        assert {field: form.values[field] for field in filled} == filled
        status, page = await visitor.press("line", {**CPU, "line": HOSTILE})
        assert status == 400
        assert "<script>alert" not in page


async def test_presets_of_one_s_own_are_kept(hub: Hub, users: list[str]) -> None:
    name, mine = users[1], f"Mine {HOSTILE}".replace("\u2028", "")[:64]
    async with Visitor(hub, name) as visitor, Visitor(hub, users[2]) as other:
        status, answer = await visitor.ask("preset", {"name": mine, **CPU})
        assert (status, list(answer["own_presets"])) == (200, [mine])
        assert answer["own_presets"][mine]["cores"] == "2"
        status, answer = await visitor.ask("preset", {"name": "bad", **CPU, "cores": "99"})
        assert status == 400
        assert list(answer["errors"]) == ["cores"]
        for wrong in ("", "x" * 65, "a\nb", 3, None):
            assert (await visitor.ask("preset", {"name": wrong, **CPU}))[0] == 400
        for number in range(19):
            assert (await visitor.ask("preset", {"name": f"p{number}", **CPU}))[0] == 200
        status, answer = await visitor.ask("preset", {"name": "one too many", **CPU})
        assert status == 400
        assert "you have 20 presets already" in answer["errors"]["preset_name"]
        _, page, _ = await visitor.get(f"/hub/spawn/{name}")
        assert mine in unescape(page)
        assert "<script>alert" not in page
        _, page, _ = await other.get(f"/hub/spawn/{users[2]}")
        assert "alert(1)" not in page
        # They are in the database, beside whatever else the server has stored.
        state = await hub.state(name)
        assert len(state["own"]["presets"]) == 20
        for number in range(19):
            await visitor.ask("preset", {"name": f"p{number}", "delete": True})
        status, page = await visitor.press("preset", {**CPU, "preset_name": mine, "preset_action": "delete"})
        assert status == 200
        assert (await hub.state(name))["own"]["presets"] == {}


async def test_the_last_choice_is_the_person_s(hub: Hub, users: list[str], cluster: Any, slurm: Any) -> None:
    """Whichever server it was for; a refused one does not count, and what has vanished falls back with a remark."""
    name = users[1]
    await hub.submit(name, {**CPU, "cores": 7, "environment": "gone", "begin": "23:59"}, "second")
    await hub.job(name, "second")
    await hub.submit(name, {**CPU, "cores": 99})
    async with Visitor(hub, name) as visitor:
        form = await visitor.form()
        assert {field: form.values[field] for field in ("cores", "environment", "begin")} == {
            "cores": "7",
            "environment": "gone",
            "begin": "",
        }


# -- links -------------------------------------------------------------------------------------------------------

LINK = "/hub/snowy?opt-cores=7&opt-environment=tf-mkl&opt-gpu=t4:0&opt-time=0:20:00&opt-partition=devcore"
FILLED = {"cores": "7", "environment": "tf-mkl", "gpu": "none", "time": "0:20:00", "partition": "devcore"}


def filled(page: str) -> dict[str, str]:
    form = Form(page)
    return {field: form.values.get(field, "") for field in FILLED}


async def test_a_link_survives_signing_in(hub: Hub, users: list[str], cluster: Any, slurm: Any) -> None:
    name = users[1]
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        async with session.get(hub.url + LINK) as answer:
            assert "/hub/login" in str(answer.url)
            form = Form(await answer.text())
            action = form.action
        data = {**form.values, "username": name, "password": cluster.users[name]}
        async with session.post(hub.url + action, data=data) as answer:
            assert answer.status == 200
            assert filled(await answer.text()) == FILLED
    assert queued(slurm, cluster, name) == []
    model = await hub.model(name)
    assert model is None or model["pending"] is None


async def test_a_link_names_what_is_unknown_or_forbidden(hub: Hub, users: list[str]) -> None:
    async with Visitor(hub, users[1]) as visitor:
        await known(visitor)
        link = "/hub/snowy?opt-cores=17&opt-colour=red&cores=3&opt-account=g2019001&opt-environment=%3Ci%3E"
        status, page, _ = await visitor.get(link)
        assert status == 200
        text = unescape(page)
        for sentence in (
            "a node of core has 16: ask for 16 or fewer",
            "there is no such field",
            "is not read: a choice is written opt-cores",
            "'g2019001' is not one of your projects",
            "'<i>' is not offered here",
        ):
            assert sentence in text
        assert "<i>" not in page


async def test_a_link_for_a_named_server_opens_its_form_and_makes_nothing(hub: Hub, users: list[str]) -> None:
    name = users[1]
    async with Visitor(hub, name) as visitor:
        status, page, _ = await visitor.get(LINK + "&server=by-link")
        assert status == 200
        assert filled(page) == FILLED
        assert f"/hub/spawn/{name}/by-link" in Form(page).action
        assert await hub.model(name, "by-link") is None


async def test_beside_a_running_session_a_link_offers_both(
    hub: Hub, users: list[str], cluster: Any, slurm: Any
) -> None:
    name = users[1]
    await hub.serve(name, MKL)
    before = queued(slurm, cluster, name)
    async with Visitor(hub, name) as visitor:
        status, page, _ = await visitor.get(LINK)
        assert status == 200
        links = [unescape(link) for link in re.findall(r'href="([^"]*)"', page)]
        assert f"/user/{name}/" in links
        (beside,) = [link for link in links if "server=" in link]
        status, page, _ = await visitor.get(beside)
        assert filled(page) == FILLED
        assert f"/hub/spawn/{name}/lab-2" in Form(page).action
    assert queued(slurm, cluster, name) == before


HEADERS = [
    {},
    {
        "Purpose": "prefetch",
        "Sec-Purpose": "prefetch;prerender",
        "Sec-Fetch-Site": "none",
        "Sec-Fetch-Mode": "navigate",
    },
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"},
    {"X-Requested-With": "XMLHttpRequest"},
]


async def test_no_link_ever_starts_anything(hub: Hub, users: list[str], cluster: Any, slurm: Any) -> None:
    name = users[1]
    query = LINK.partition("?")[2]
    paths = [LINK, f"/hub/spawn?{query}", f"/hub/spawn/{name}?{query}", f"/hub/spawn/{name}/second?{query}"]
    async with Visitor(hub, name) as visitor:
        for path in paths:
            for headers in HEADERS:
                for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"):
                    async with visitor.session.request(method, hub.url + path, headers=headers) as answer:
                        assert answer.status < 500, (method, path)
            # A form of another site's.
            headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Origin": "https://evil.example"}
            async with visitor.session.post(hub.url + path, data=CPU, headers=headers) as answer:
                assert answer.status in (403, 405)
    await asyncio.sleep(1)
    assert queued(slurm, cluster, name) == []
    for server in ("", "second"):
        model = await hub.model(name, server)
        assert model is None or (not model["ready"] and model["pending"] is None)


async def test_the_hub_s_log_has_one_line_for_a_refusal_and_none_for_a_link(hub: Hub, users: list[str]) -> None:
    async with Visitor(hub, users[1]) as visitor:
        form = await visitor.form()
        before = len(hub.log())
        await visitor.form({"opt-cores": "8"})
        assert "Traceback" not in hub.log()[before:]
        status, _ = await visitor.send(form, cores="99")
        assert status == 400
        await hub.submit(users[1], {"cores": 98})
    log = hub.log()[before:]
    assert "Traceback" not in log
    assert "[E " not in log
    assert len(re.findall(rf"\[I .*Refused a choice of {users[1]}: cores: a node of \w+ has 16", log)) == 2
