"""Several sessions from one choice: by REST, by the form and by a link; what is refused holds up no other."""

from __future__ import annotations

import asyncio
import re
from html import unescape
from typing import Any

import aiohttp
import pytest

from ..hubs import Hub, until
from ..people import Form, Person
from .test_form_server import Visitor
from .test_session import facts, queued
from .test_sessions import later, press

pytestmark = pytest.mark.cluster

PATH = "/hub/snowy/several"
CORE = {"environment": "tf-mkl", "partition": "core", "gpu": "none", "time": "0:31:00"}


async def several(hub: Hub, name: str, body: Any, **headers: str) -> tuple[int, Any]:
    """Ask by REST, as the tests' service unless *headers* say otherwise."""
    await hub.call("POST", f"/hub/api/users/{name}")
    return await hub.call("POST", f"{PATH}?user={name}", body, headers or None)


async def token_of(hub: Hub, name: str, *scopes: str) -> dict[str, str]:
    """Return the header that says that somebody asks, with a token of these scopes; all of their own by default."""
    await hub.call("POST", f"/hub/api/users/{name}")
    status, answer = await hub.call("POST", f"/hub/api/users/{name}/tokens", {"scopes": list(scopes)} if scopes else {})
    assert status == 201, answer
    return {"Authorization": f"token {answer['token']}"}


def rows(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {session["name"]: session for session in answer["sessions"]}


async def servers(hub: Hub, name: str) -> set[str]:
    """Return the names of all servers that the hub has a row of."""
    _, model = await hub.call("GET", f"/hub/api/users/{name}?include_stopped_servers")
    return set(model["servers"]) - {""}


async def test_rest_starts_a_session_for_each_value(hub: Hub, users: list[str], cluster: Any, slurm: Any) -> None:
    """Four sessions side by side, each with its own cores and environment; then one press ends them all."""
    name = users[0]
    options = {**CORE, "environment": "tf-mkl,tf-pip", "cores": [1, "2"]}
    names = ["tf-mkl-1", "tf-mkl-2", "tf-pip-1", "tf-pip-2"]
    for body in ({**options, "dry_run": True}, {"user_options": options, "confirm": False}):
        status, answer = await several(hub, name, body)
        assert (status, answer["group"]) == (200, None)
        assert list(rows(answer)) == names
        assert answer["title"] == "tf-mkl and tf-pip on 1 and 2 cores"
        assert answer["cost"] == "6 cores \N{MULTIPLICATION SIGN} 31 minutes = 3.1 core-hours, 48 GB"
        assert not any(session["started"] or session["errors"] for session in answer["sessions"])
    assert (await servers(hub, name), queued(slurm, cluster, name)) == (set(), [])

    # curl says that it sends a form.
    mine = {**await token_of(hub, name), "Content-Type": "application/x-www-form-urlencoded"}
    status, answer = await hub.call("POST", PATH, {"user_options": options}, mine)
    assert status == 201, answer
    assert {key: value for key, value in rows(answer)["tf-pip-2"].items() if key != "cost"} == {
        "name": "tf-pip-2",
        "environment": "tf-pip",
        "cores": "2",
        "started": True,
        "errors": {},
        "remarks": {},
        "url": f"/user/{name}/tf-pip-2/",
    }
    jobs = queued(slurm, cluster, name)
    assert len(jobs) == 4
    # Again: nothing is started twice.
    status, answer = await several(hub, name, options)
    assert status == 409
    assert [session["errors"] for session in answer["sessions"]] == [
        {"name": f"a session {server} runs or waits already: stop it first"} for server in names
    ]
    assert sorted(queued(slurm, cluster, name)) == sorted(jobs)
    for server in names:
        await until(lambda server=server: hub._ready(name, server), 90, server)
    for server in names:
        seen = await facts(hub, name, server)
        assert f"{seen['CONDA_DEFAULT_ENV']}-{seen['CPU_LIMIT']}" == server
    groups = [(await hub.state(name, server))["group"] for server in names]
    assert all(group == groups[0] for group in groups)
    assert groups[0]["title"] == "tf-mkl and tf-pip on 1 and 2 cores"

    # One that is by itself goes on.
    await hub.submit(name, later(cluster), "alone")
    alone = (await hub.job(name, "alone"))["job_id"]
    async with Person(hub, name) as person:
        where = f"{name}/{groups[0]['id']}"
        async with person.session.get(f"{hub.url}/hub/home") as page:
            text = await page.text()
        heading = text.index("tf-mkl and tf-pip on 1 and 2 cores")
        assert text.count("tf-mkl and tf-pip on 1 and 2 cores</h2>") == 1
        assert sorted(names, key=text.index) == names
        assert heading < text.index(names[0])
        assert f'action="/hub/snowy/stop-all/{where}"' in text
        assert await press(person, f"remove-all/{where}") == 409
        assert await press(person, f"stop-all/{name}/{'0' * 16}") == 404
        assert await press(person, f"stop-all/{where}") == 303

        async def ended() -> bool:
            return queued(slurm, cluster, name) == [alone]

        await until(ended, 20, "the end of all four")

        async def removed() -> bool:
            return await press(person, f"remove-all/{where}") == 303

        await until(removed, 20, "they have ended, so they may be removed")
    assert await servers(hub, name) == {"alone"}


async def test_what_is_refused_holds_up_no_other(hub: Hub, users: list[str], cluster: Any, slurm: Any) -> None:
    """By the Site, by a queue that takes one job at a time, by Slurm: said per session, and no server stays behind."""
    name = users[0]
    quick = {**later(cluster), "partition": "devcore", "time": "0:31:00", "cores": "1,2,17"}
    for how in ({"dry_run": True}, {}):
        status, answer = await several(hub, name, {**quick, **how})
        found = rows(answer)
        assert status == (200 if how else 201), answer
        assert found["tf-mkl-1"]["errors"] == {}
        full = {"partition": "tf-mkl-1 comes first, and this partition takes only 1 at a time: choose core or node"}
        assert found["tf-mkl-2"]["errors"] == full
        assert found["tf-mkl-17"]["errors"] == {"cores": "a node of devcore has 16: ask for 16 or fewer"}
        assert answer["cost"].startswith("1 core ")
    assert await servers(hub, name) == {"tf-mkl-1"}
    job = (await hub.job(name, "tf-mkl-1"))["job_id"]
    assert queued(slurm, cluster, name) == [job]
    assert (await hub.state(name, "tf-mkl-1"))["group"] == {"id": answer["group"], "title": "tf-mkl on 1 core"}
    # Now that job is there.
    status, answer = await several(hub, name, {**quick, "environment": "tf-pip", "cores": [1, 2]})
    assert status == 409
    rule = "this partition takes only 1 at a time"
    there = {"partition": f"job {job} is already waiting or running, and {rule}: stop it first, or choose core or node"}
    assert [session["errors"] for session in answer["sessions"]] == [there, there]
    # What only Slurm knows.
    status, answer = await several(
        hub, name, {**CORE, "cores": [1, 2], "environment": "tf-pip", "reservation": "nosuch"}
    )
    assert (status, answer["group"]) == (409, None)
    for session in answer["sessions"]:
        assert "You cannot use this reservation." in session["errors"]["reservation"]
    assert await servers(hub, name) == {"tf-mkl-1"}
    assert queued(slurm, cluster, name) == [job]
    # One that was there before stays, whatever comes of it.
    await hub.end(name, "tf-mkl-1")
    await several(hub, name, {**CORE, "cores": [1], "reservation": "nosuch"})
    assert await servers(hub, name) == {"tf-mkl-1"}


async def test_no_more_than_the_hub_s_limit_of_named_servers(
    hub: Hub, users: list[str], cluster: Any, slurm: Any
) -> None:
    name = users[0]
    status, answer = await several(hub, name, {**later(cluster), "cores": list(range(1, 11))})
    assert status == 201
    assert [session["started"] for session in answer["sessions"]] == [True] * 8 + [False] * 2
    limit = "you have 8 sessions with a name, as many as this hub allows: remove one that has ended, or start fewer"
    assert answer["sessions"][9]["errors"] == {"name": limit}
    assert len(queued(slurm, cluster, name)) == len(await servers(hub, name)) == 8
    await hub.end_each([(name, f"tf-mkl-{cores}") for cores in range(1, 9)])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"cores": "1,,4"}, "has a place without a value"),
        ({"cores": [1, [4]]}, "a list may have whole numbers and texts"),
        ({"cores": list(range(17))}, "has 17 values: at most 16 sessions"),
        ({"user_options": {"line": "--nonsense"}}, "unrecognized arguments: --nonsense"),
        ({"user_options": [1]}, "user_options: must be an object"),
        ({"user_options": {}, "cores": 4}, "cores: beside user_options stand confirm or dry_run"),
        ({"confirm": "yes", "cores": 4}, "confirm: must be true or false"),
        ([1], "must be an object"),
        ("1,4", "must be an object"),
    ],
)
async def test_what_cannot_be_read_is_a_400(hub: Hub, users: list[str], body: Any, said: str) -> None:
    status, answer = await several(hub, users[0], body)
    assert status == 400
    assert said in (answer.get("message") or " ".join(answer["errors"].values()))
    assert await servers(hub, users[0]) == set()


async def test_only_who_may_start_somebody_s_servers(hub: Hub, users: list[str], cluster: Any, slurm: Any) -> None:
    """By token or by cookie; a page of somebody else's can press nothing."""
    name, other = users[0], users[1]
    body = {**later(cluster), "cores": [1, 2]}
    for owner, headers in (
        (other, await token_of(hub, other)),
        (name, await token_of(hub, name, "read:servers!user")),
        (name, {"Authorization": "token " + "0" * 32}),
    ):
        status, answer = await several(hub, name, body, **headers)
        assert status in (403, 404), (owner, answer)
    async with aiohttp.ClientSession() as stranger:
        async with stranger.post(f"{hub.url}{PATH}", json=body) as answer:
            assert answer.status == 403
            assert (await answer.json())["status"] == 403
        async with stranger.get(f"{hub.url}{PATH}?opt-cores=1,2") as answer:
            assert "/hub/login" in str(answer.url)
    async with Visitor(hub, name) as visitor:
        for headers in ({}, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}):
            for data in ({"data": {"cores": "1,2", "_confirm": "1"}}, {"json": body}):
                async with visitor.session.post(f"{hub.url}{PATH}", headers=headers, **data) as answer:
                    assert answer.status == 403
        # With the page's own token JSON is taken from a browser, too.
        status, answer = await visitor.ask("several", {**body, "dry_run": True})
        assert (status, len(answer["sessions"])) == (200, 2)
        assert await press(visitor, f"stop-all/{other}/{'0' * 16}") in (403, 404)
    for method in ("PUT", "DELETE", "PATCH"):
        assert (await hub.call(method, f"{PATH}?user={name}", body))[0] == 405
    assert (await servers(hub, name), queued(slurm, cluster, name)) == (set(), [])
    for token, status in ((await token_of(hub, name, "servers!user"), 201), (await token_of(hub, other), 404)):
        assert (await several(hub, name, body, **token))[0] == status
    assert len(queued(slurm, cluster, name)) == 2


async def read(visitor: Visitor, answer: aiohttp.ClientResponse) -> tuple[Form, str]:
    assert answer.status == 200, await answer.text()
    text = await answer.text()
    return Form(text), " ".join(unescape(re.sub("<[^>]*>", " ", text)).split())


async def test_a_list_in_the_form_is_confirmed_first(hub: Hub, users: list[str], cluster: Any, slurm: Any) -> None:
    """Typed into its own field or into its section; pressed twice, each starts once."""
    name = users[0]
    async with Visitor(hub, name) as visitor:
        form = await visitor.form()
        for changes in ({"cores": "1,2,17"}, {"_cores": "1, 2, 17"}):
            data = {**form.values, **later(cluster), "time": "0:31:00", **changes}
            async with visitor.session.post(hub.url + form.action, data=data) as answer:
                page, text = await read(visitor, answer)
            assert answer.url.path == PATH
            assert "tf-mkl on 1, 2 and 17 cores" in text
            assert "2 of 3 can be started now" in text
            assert "Cores: a node of core has 16: ask for 16 or fewer" in text
            assert (await servers(hub, name), queued(slurm, cluster, name)) == (set(), [])
        assert page.values["cores"] == "1,2,17"
        assert "Start 2 sessions" in page.buttons
        # At the same time, as a double click has it; and once more.
        posts = [visitor.session.post(hub.url + page.action, data=page.values) for _ in range(2)]
        for answer in [
            *await asyncio.gather(*posts),
            await visitor.session.post(hub.url + page.action, data=page.values),
        ]:
            _, text = await read(visitor, answer)
            assert "2 of 3 have been started" in text
            assert "runs or waits already" not in text
        assert len(queued(slurm, cluster, name)) == 2
        # Another confirmation of the same is about other sessions.
        async with visitor.session.post(hub.url + page.action, data={**page.values, "_group": "x"}) as answer:
            _, text = await read(visitor, answer)
            assert "None of them was started" in text
            assert "a session tf-mkl-1 runs or waits already" in text
        # What cannot be read comes back in the form, at its field.
        async with visitor.session.post(hub.url + form.action, data={**form.values, "cores": "1,,2"}) as answer:
            assert answer.status == 400
            assert "has a place without a value" in Form(await answer.text()).errors["cores"]
        assert len(queued(slurm, cluster, name)) == 2
        # Started again, it stays with the other; started with other choices, it is by itself.
        group = (await hub.state(name, "tf-mkl-1"))["group"]
        for action in ("stop", "again"):
            assert await press(visitor, f"{action}/{name}/tf-mkl-1") == 303
        await hub.job(name, "tf-mkl-1")
        assert (await hub.state(name, "tf-mkl-1"))["group"] == group
        assert await press(visitor, f"stop/{name}/tf-mkl-1") == 303
        status, answer = await hub.submit(name, {**later(cluster), "cores": 3}, "tf-mkl-1")
        assert status in (201, 202), answer
        await hub.job(name, "tf-mkl-1")
        assert (await hub.state(name, "tf-mkl-1"))["group"] is None
        assert (await hub.state(name, "tf-mkl-2"))["group"] == group


async def test_a_link_with_a_list_shows_the_sessions_and_starts_none(
    hub: Hub, users: list[str], cluster: Any, slurm: Any
) -> None:
    name = users[0]
    link = "/hub/snowy?opt-environment=tf-mkl,tf-pip&opt-cores=1,4&opt-gpu=none&opt-partition=core&cores=3"
    async with Visitor(hub, name) as visitor:
        for _ in range(2):
            status, page, url = await visitor.get(link)
            assert (status, url.partition("?")[0]) == (200, hub.url + PATH)
            text = unescape(page)
            assert "tf-mkl and tf-pip on 1 and 4 cores" in text
            assert "cores: is not read: a choice is written opt-cores" in text
            assert "Start 4 sessions" in text
        assert "-n 1,4 -p core --gres=none" in text
        shared, change = (
            unescape(re.search(rf'href="([^"]*)"[^>]*>{words}', page)[1])  # type: ignore[index]
            for words in ("Link to this page", "Change the choices")
        )
        assert (await visitor.get(shared))[2].partition("?")[0] == hub.url + PATH
        # The form again, with the first of each, and the lists in their section.
        _, page, url = await visitor.get(change)
        form = Form(page)
        assert url.partition("?")[0] == f"{hub.url}/hub/snowy"
        assert (form.values["cores"], form.values["environment"], form.values["_cores"]) == ("1", "tf-mkl", "1,4")
        assert re.findall(r'name="_environment" value="([^"]*)" id="[^"]*" checked', page) == ["tf-mkl", "tf-pip"]
        # What somebody wrote into the link is text.
        _, page, _ = await visitor.get("/hub/snowy?opt-environment=%3Ci%3Ex,tf-mkl&opt-%3Cb%3Ex=1&%3Cu%3Ex=2")
        assert "&lt;i&gt;x" in page
        assert not re.search("<[ibu]>x", page)
        # By itself the address leads to the form.
        assert (await visitor.get(PATH))[2] == f"{hub.url}/hub/snowy"
    assert (await servers(hub, name), queued(slurm, cluster, name)) == (set(), [])


async def test_what_starts_one_session_says_where_several_are_started(
    hub: Hub, users: list[str], cluster: Any, slurm: Any
) -> None:
    status, answer = await hub.submit(users[0], {**CORE, "cores": [1, 4]})
    assert status == 400
    assert "cores: a list means several sessions" in answer["message"]
    assert "POST …/hub/snowy/several" in answer["message"]
    async with Visitor(hub, users[0]) as visitor:
        _, answer = await visitor.ask("check", {**CORE, "cores": "1,4,16"})
        assert answer["errors"] == {}
        assert answer["remarks"]["cores"].startswith("Starts 3 sessions side by side")
        assert answer["cost"].startswith("21 cores ")
        assert "opt-cores=1,4,16" in answer["link"]
        assert answer["line"].startswith("-n 1,4,16 ")
        _, answer = await visitor.ask("check", {**CORE, "cores": "1,17"})
        assert answer["errors"] == {"cores": "for 17: a node of core has 16: ask for 16 or fewer"}
        for what in ("estimate", "script"):
            _, answer = await visitor.ask(what, {**CORE, "cores": "1,4"})
            assert answer["sentence"] == "This is said of one session at a time: choose one value for cores."
        _, answer = await visitor.ask("line", {"line": "-n 1,4 -- tf-mkl,tf-pip"})
        assert answer["errors"] == {}
        assert (answer["values"]["cores"], answer["values"]["environment"]) == ("1", "tf-mkl")
        assert answer["lists"] == {"environment": ["tf-mkl", "tf-pip"], "cores": ["1,4"]}
        # JupyterHub's own address of the form, with a list.
        _, page, _ = await visitor.get(f"/hub/spawn/{users[0]}?opt-environment=tf-mkl,tf-pip&opt-cores=1,4")
        form = Form(page)
        assert (form.values["cores"], form.values["environment"], form.values["_cores"]) == ("1", "tf-mkl", "1,4")
    assert queued(slurm, cluster, users[0]) == []
