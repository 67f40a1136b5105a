"""The page's verdict is the server's; and the course's own table, prelab2, done with the form."""

from __future__ import annotations

import pwd
import random
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from ..hubs import Hub
from ..software import make_environment
from .steps import T4, choice, entry, error_of, messages, read, settled, sign_in, unfold

pytestmark = [pytest.mark.cluster, pytest.mark.browser]

COMBINATIONS = 320
SEED = 20211027
# What each field may hold, and what of it nobody can read: no rule speaks of that, only the server does.
POOL: dict[str, tuple[str, ...]] = {
    "environment": ("tf-gpu", "tf-mkl", "tf-pip", "gone"),
    "image": ("container.sif", "missing.sif"),
    "partition": ("core", "node", "devcore", "devel"),
    "cores": ("1", "4", "8", "15", "16", "17", "4096", " 4 ", "", "1,4,8,16", " 8 , 17,16", "4,04", "17,18"),
    "gpu": ("none", "t4:1"),
    "time": ("0:59:00", "60", "61", "1:30", "2:00:00", "10-0", "10-1", "30-00:00:00", "31-0", "1-0:0:1", " 30 ", ""),
    "begin": ("", "now", "23:59"),
    "account": ("g2021027", ""),
    "reservation": ("",),
    "open": ("", "course/lab1.ipynb"),
    "repository": ("", "https://git.example/labs.git#v1"),
    "email_on_start": ("0", "1"),
    "own_container": ("",),
    "own_environment": ("", "", "~/envs/mine", " ~/envs/mine/ "),
}
UNREADABLE: dict[str, tuple[str, ...]] = {
    "environment": ("tf-none",),
    "partition": ("gpu", "core;rm"),
    "cores": ("0", "4.5", "-1", "four", "99999", "1,,4", ",", "1,x", ",".join(map(str, range(17)))),
    "gpu": ("a100:1", "t4:x"),
    "time": ("0", "soon", "1:2:3:4", "-1", "UNLIMITED"),
    "begin": ("25:00", "2020-01-01T00:00", "yesterday"),
    "account": ("nobody", "a b"),
    "reservation": ("a b", '"><script>'),
    "open": ("/etc/passwd", "../x"),
    "repository": ("http://git.example/labs", "--upload-pack=id"),
    "own_container": ("lab.sif", "docker://lab"),
    "own_environment": ("~/my lab", "~/../lab"),
}


# What is shown by field, and two looks at the page: at once, and when the server has spoken.
SHOWN = """const shown = kind => Object.fromEntries([...document.querySelectorAll(`.snowy-form .snowy-${kind}`)]
    .map(e => [e.id.replace(/^snowy-/, "").replace(new RegExp(`-${kind}$`), ""), e.textContent]));"""
SET = f"""values => {{ {SHOWN}
    snowyForm.write(values); snowyForm.changed();
    return {{ values: snowyForm.read(), verdict: snowyForm.verdict(snowyForm.read()).errors, errors: shown("error") }};
}}"""
# The page's own question and the server's answer to it. Its clock stands still, so turns are taken by a message.
OVERHEAR = """() => {
    const { urls } = JSON.parse(document.getElementById("snowy-data").textContent);
    const real = window.fetch;
    window.fetch = (url, request) => {
        const answer = real(url, request);
        const said = answer.then(response => response.clone().json());
        if (url === urls.check) window.overheard = { sent: JSON.parse(request.body), said };
        return answer;
    };
}"""
SEEN = f"""async () => {{ {SHOWN}
    const form = document.getElementById("spawn_form");
    const turn = () => new Promise(go => {{
        const channel = new MessageChannel();
        channel.port1.onmessage = go;
        channel.port2.postMessage(0);
    }});
    const {{ sent, said }} = window.overheard;
    const theirs = await said;
    for (let turns = 0; form.dataset.state !== "checked" && turns < 1000; turns++) await turn();
    return {{ sent, theirs, values: snowyForm.read(), errors: shown("error"), remarks: shown("remark"),
             invalid: form.querySelectorAll("[aria-invalid]").length,
             cost: document.getElementById("snowy-bar-cost").textContent }};
}}"""


def combinations() -> list[dict[str, str]]:
    chance = random.Random(SEED)  # noqa: S311  no secret
    made = []
    for _ in range(COMBINATIONS):
        values = {field: chance.choice(pool) for field, pool in POOL.items()}
        if chance.random() < 0.3:
            for field in chance.sample(sorted(UNREADABLE), chance.randint(1, 2)):
                values[field] = chance.choice(UNREADABLE[field])
        made.append(values)
    return made


async def test_the_page_says_what_the_server_says(page: Page, hub: Hub, users: list[str]) -> None:
    """At once by its own rules, which are the server's, and then by the server's word; nothing else is changed."""
    make_environment(Path(pwd.getpwnam(users[0]).pw_dir) / "envs" / "mine", users[0])
    await page.clock.install()  # the page's patience is passed over, not waited for
    await sign_in(page, hub, users[0])
    await page.clock.run_for(1000)
    await settled(page)
    await page.evaluate(OVERHEAR)
    ruled = accepted = refused = 0
    for values in combinations():
        at_once = await page.evaluate(SET, values)
        assert at_once["values"] == values
        await page.clock.run_for(400)
        later = await page.evaluate(SEEN)
        theirs = later["theirs"]
        assert later["sent"].items() >= values.items()
        broken = {field for field, texts in UNREADABLE.items() if values[field] in texts}
        assert {field: text for field, text in theirs["errors"].items() if field not in broken} == at_once["verdict"]
        assert broken <= theirs["errors"].keys(), values
        assert at_once["verdict"].items() <= at_once["errors"].items(), values
        assert (later["errors"], later["remarks"]) == (theirs["errors"], theirs["remarks"]), values
        assert later["values"] == values
        assert later["invalid"] == len(theirs["errors"]), values
        assert later["cost"].startswith("✖ ") if theirs["errors"] else later["cost"] == theirs["cost"], values
        ruled += bool(at_once["verdict"])
        accepted, refused = accepted + (not theirs["errors"]), refused + bool(theirs["errors"])
    assert min(ruled, accepted, refused) > 40, (ruled, accepted, refused)


# -- prelab2 ---------------------------------------------------------------------------------------------------------

MKL = {"environment": "tf-mkl", "partition": "devcore", "gpu": "No GPU"}
PIP = {**MKL, "environment": "tf-pip"}
# What notebook.py was called with, what one does in the form instead, and what Slurm then has.
TABLE: list[tuple[str, str, dict[str, str], dict[str, str]]] = [
    ("", "GPU: TensorFlow on a T4", {}, {"Partition": "core", "NumCPUs": "4", "TimeLimit": "00:59:00", "gpu": "1"}),
    ("-t 2:00:00", "GPU: TensorFlow on a T4", {"time": "2 h"}, {"Partition": "core", "TimeLimit": "02:00:00"}),
    (
        "-t 3:00:00 -b 15:00",
        "GPU: TensorFlow on a T4",
        {"time": "3 h", "begin": "15:00"},
        {"TimeLimit": "03:00:00", "StartTime": "T15:00:00"},
    ),
    (
        "-n 4 -p devcore --gres=gpu:t4:0 -- tf-mkl",
        "CPU, quick queue: tf-mkl",
        {},
        {"Partition": "devcore", "NumCPUs": "4", "gpu": ""},
    ),
    # "Unless they are full, you can try dropping -p devcore."
    ("-n 4 --gres=gpu:t4:0 -- tf-mkl", "CPU, quick queue: tf-mkl", {"partition": "core"}, {"Partition": "core"}),
    ("-n 8 -p devcore --gres=gpu:t4:0 -- tf-mkl", "CPU, quick queue: tf-mkl", {"cores": "8"}, {"NumCPUs": "8"}),
    ("-n 16 -p devcore --gres=gpu:t4:0 -- tf-mkl", "CPU, quick queue: tf-mkl", {"cores": "16"}, {"NumCPUs": "16"}),
    ("-n 1 -p devcore --gres=gpu:t4:0 -- tf-mkl", "CPU, quick queue: tf-mkl", {"cores": "1"}, {"NumCPUs": "1"}),
    ("-n 4 -p devcore --gres=gpu:t4:0 -- tf-pip", "CPU: tf-pip", {}, {"Partition": "devcore", "NumCPUs": "4"}),
    # prelab3: the default environment without a GPU is legal.
    ("--gres=gpu:t4:0 -p devcore", "CPU: tf-pip", {"environment": "tf-gpu"}, {"Partition": "devcore", "gpu": ""}),
]


@pytest.fixture
async def table(page: Page, hub: Hub, users: list[str]) -> Page:
    await sign_in(page, hub, users[0])
    return page


async def fill_in(page: Page, card: str, changes: dict[str, str]) -> None:
    await page.get_by_role("radio", name=card, exact=True).check()
    for field, name in changes.items():
        await unfold(page)
        if field in ("environment", "gpu", "partition", "image"):
            await choice(page, field, name).check()
        elif field == "begin":
            await page.get_by_role("radio", name="At …").check()
            await entry(page, "begin").fill(name)
        else:
            quick = page.get_by_role("group", name=re.compile(f"{field}: quick choice", re.IGNORECASE))
            await quick.get_by_role("button", name=name, exact=True).click()


async def test_prelab2_row_by_row(table: Page, hub: Hub, users: list[str], cluster: Any, slurm: Any) -> None:
    """Each call of notebook.py, with a card and a press or two; Slurm has the job that it would have had."""
    for line, card, changes, expected in TABLE:
        await table.goto(f"{hub.url}/hub/spawn")
        await fill_in(table, card, changes)
        await settled(table)
        assert await messages(table) == {}, line
        chosen = await read(table)
        await table.get_by_role("button", name="Start", exact=True).click()
        await table.wait_for_url(re.compile("/hub/spawn-pending/|/user/"))
        job = await hub.job(users[0])
        text = slurm(
            "env", f"TZ={cluster.site.time_zone}", "scontrol", "-M", cluster.site.cluster, "show", "job", job["job_id"]
        )
        await hub.end(users[0])
        for key, value in expected.items():
            if key == "gpu":
                assert ("gpu:t4:1" in text) == bool(value), line
            else:
                assert re.search(rf"\b{key}=\S*{value}\b", text), (line, key, value, text)
        # The line that the course's text has fills in the very same.
        await table.goto(f"{hub.url}/hub/spawn")
        await table.get_by_text("Save as a card, or paste").click()
        await table.get_by_label("A line as notebook.py took it").fill(f"./notebook.py {line}")
        await table.get_by_role("button", name="Fill in").click()
        await expect(table.locator("#snowy-live")).to_contain_text("Filled in")
        assert await table.evaluate("wanted => snowyForm.same(snowyForm.read(), wanted)", chosen), (line, chosen)


async def test_prelab2_s_remarks(table: Page) -> None:
    """What the course does on purpose is legal: it is remarked on, not refused."""
    await fill_in(table, "CPU: tf-pip", {"environment": "tf-gpu"})
    await settled(table)
    assert (await messages(table, "remark")).keys() == {"gpu"}
    await fill_in(table, "GPU: TensorFlow on a T4", {"environment": "tf-mkl"})
    await settled(table)
    await expect(table.locator("#snowy-gpu-remark")).to_contain_text("tf-mkl makes no use of a GPU")
    assert await messages(table) == {}


async def test_prelab2_s_several_windows(table: Page, hub: Hub, users: list[str]) -> None:
    """Sessions side by side, each on its own server; devcore takes one at a time, and says so."""
    name = users[0]
    for server, card, changes in (
        ("one", "CPU, quick queue: tf-mkl", {}),
        ("eight", "CPU, quick queue: tf-mkl", {"partition": "core", "cores": "8"}),
    ):
        await table.goto(f"{hub.url}/hub/spawn/{name}/{server}")
        await fill_in(table, card, changes)
        await table.get_by_role("button", name="Start", exact=True).click()
        await table.wait_for_url(re.compile("/hub/spawn-pending/|/user/"))
        await hub.job(name, server)
    await table.goto(f"{hub.url}/hub/spawn/{name}/third")
    await fill_in(table, "CPU: tf-pip", {})
    await table.get_by_role("button", name="Start", exact=True).click()
    await expect(table.locator("#snowy-errors")).to_be_focused()
    await expect(error_of(table, "partition")).to_contain_text("this partition takes only 1 at a time")
    await expect(choice(table, "environment", "tf-pip")).to_be_checked()
    # It stays until something is changed: no rule of the page's knows of it.
    await settled(table)
    await expect(error_of(table, "partition")).to_be_visible()
    await choice(table, "partition", "core").check()
    await settled(table)
    await expect(error_of(table, "partition")).to_have_count(0)
    for server in ("one", "eight"):
        await hub.end(name, server)


async def test_prelab2_s_container_folder_and_reservation(table: Page, hub: Hub, users: list[str]) -> None:
    """The container after the environment, the course's folder, and a reservation for the lab's hours."""
    await fill_in(table, "GPU: TensorFlow on a T4", {"image": "closed.sif"})
    await expect(choice(table, "gpu", T4)).to_be_checked()
    await entry(table, "open").fill("sesegpu/beginner.ipynb")
    await table.get_by_text("I was given a reservation").click()
    await entry(table, "reservation").fill("lab1")
    await settled(table)
    await table.get_by_role("button", name="Show the job script").click()
    script = table.get_by_role("dialog").get_by_label("Script")
    await expect(script).to_contain_text("#SBATCH --reservation=lab1")
    await expect(script).to_contain_text("/root/closed.sif")
    assert (await read(table))["open"] == "sesegpu/beginner.ipynb"
