"""A person without a browser: signs in, reads forms, sends them. What the browser tests do by hand, at speed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from typing import Any

import aiohttp
import yaml
from yarl import URL

from .hubs import Hub, until


class Form(HTMLParser):
    """The fields of the page's form as a browser would send them, the errors shown at them, and the help."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.values: dict[str, str] = {}
        self.errors: dict[str, str] = {}
        self.helps: dict[str, str] = {}
        self.action = ""
        self.buttons: dict[str, dict[str, str]] = {}  # by their words
        self._button: dict[str, str] | None = None
        self._select = ""
        self._beneath: tuple[dict[str, str], str] | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        name = given.get("name", "")
        if tag == "button":
            self._button = given
        if tag == "form" and "action" in given:
            self.action = given["action"]
        elif tag == "select":
            self._select = name
        elif tag == "option" and self._select:
            if "selected" in given or self._select not in self.values:
                self.values[self._select] = given.get("value", "")
        elif tag == "input" and name and given.get("type") not in ("submit", "button"):
            if given.get("type") not in ("checkbox", "radio") or "checked" in given:
                self.values[name] = given.get("value", "")
        else:
            for end, texts in (("-error", self.errors), ("-help", self.helps)):
                if given.get("id", "").endswith(end):
                    self._beneath = texts, given["id"].removeprefix("snowy-").removesuffix(end)

    def handle_endtag(self, tag: str) -> None:
        if tag == "select":
            self._select = ""
        elif tag == "div":
            self._beneath = None

    def handle_data(self, data: str) -> None:
        if self._button is not None and data.strip():
            self.buttons[data.strip()], self._button = self._button, None
        if self._beneath:
            texts, field = self._beneath
            texts[field] = texts.get(field, "") + data.strip()


async def forgets_reservations(hub: Hub, name: str) -> None:
    """Wait until the hub offers this person none of those that were there a moment ago."""
    async with Person(hub, name) as person:

        async def forgotten() -> bool:
            async with person.session.get(f"{hub.url}/hub/spawn/{name}") as answer:
                return not re.search(r'<select [^>]*id="snowy-reservation"', await answer.text())

        await until(forgotten, 60, f"no reservation is offered to {name}", every=1)


class Project:
    """The directory of a project that everybody in the tests belongs to, with its course file."""

    def __init__(self, cluster: Any, account: str = "") -> None:
        self.account = account or cluster.site.accounts.default
        self.place = cluster.state / "proj"
        self.path = self.place / self.account
        self.path.mkdir(parents=True, exist_ok=True)
        for path in (self.place, self.path):
            path.chmod(0o755)
        self.file = self.path / "jupyter-course.yaml"

    def put(self, course: Any, reader: str = "") -> None:
        """Write the course file, for *reader* alone if one is named."""
        self.file.write_text(course if isinstance(course, str) else yaml.safe_dump(course, sort_keys=False))
        if reader:
            shutil.chown(self.file, "root", reader)
        self.file.chmod(0o640 if reader else 0o644)

    async def remove(self, hub: Hub, *names: str) -> None:
        """Remove it, and wait until the hub shows these people, whose sessions end, no card of it any more."""
        shutil.rmtree(self.path)
        for name in names:
            _, model = await hub.call("GET", f"/hub/api/users/{name}?include_stopped_servers")
            running = [(name, key) for key, its in model.get("servers", {}).items() if not its["stopped"]]
            await hub.end_each(running)
            async with Person(hub, name) as person:

                async def forgotten(person: Person = person) -> bool:
                    return not course_cards(await person.page())

                await until(forgotten, 60, f"no card of a course is shown to {name}", every=1)


def course_cards(html: str) -> dict[str, str]:
    """Return the texts of courses' cards on a form's page: by their keys, or titles where nothing can be started."""
    found = {}
    for card in re.findall(r'<div class="snowy-card[ "].*?(?=<div class="snowy-card[ "]|</fieldset>)', html, re.S):
        key = re.search(r'name="_course" value="([^"]*)"', card)
        if key or "snowy-closed" in card:
            text = " ".join(unescape(re.sub(r"<[^>]*>", " ", card)).split())
            title = re.search(r'<span class="snowy-name">(.*?)</span>', card)
            found[unescape(key[1]) if key else unescape(title[1] if title else "")] = text
    return found


class Person:
    """Somebody who is signed in. Use ``async with``."""

    def __init__(self, hub: Hub, name: str) -> None:
        self.hub, self.name = hub, name

    async def __aenter__(self) -> Person:
        self.session = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))
        async with self.session.get(f"{self.hub.url}/hub/login") as answer:
            form = Form(await answer.text())
        data = {**form.values, "username": self.name, "password": self.hub.cluster.users[self.name]}
        async with self.session.post(f"{self.hub.url}/hub/login", data=data) as answer:
            assert answer.status == 200, await answer.text()
            assert "/hub/login" not in str(answer.url), "the password was not accepted"
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.session.close()

    async def page(self) -> str:
        """Open the spawn form; return its HTML."""
        async with self.session.get(f"{self.hub.url}/hub/spawn/{self.name}") as answer:
            assert answer.status == 200, await answer.text()
            return await answer.text()

    async def form(self, query: dict[str, str] | None = None, server: str = "") -> Form:
        """Open the spawn form, by a link with *query* if given."""
        path = f"/hub/spawn/{self.name}" + (f"/{server}" if server else "")
        async with self.session.get(self.hub.url + path, params=query or {}) as answer:
            assert answer.status == 200, await answer.text()
            form = Form(await answer.text())
            form.action = form.action or str(answer.url)
            return form

    async def send(self, form: Form, **changes: str) -> tuple[int, Form]:
        """Press Start; return the status and the form that came back, if one did."""
        url = str(URL(self.hub.url).join(URL(form.action, encoded=True)))
        data = {**form.values, **changes}
        async with self.session.post(URL(url, encoded=True), data=data, allow_redirects=False) as answer:
            return answer.status, Form(await answer.text())


async def start_by(
    way: str, hub: Hub, name: str, options: dict[str, str], line: str, nothing_started: Callable[[], bool]
) -> None:
    """Start a session of *name*'s with *options*: by the "form", a "link" to it, "rest", or the notebook.py "line"."""
    if way in ("rest", "line"):
        status, answer = await hub.submit(name, {"line": line} if way == "line" else options)
        assert status in (201, 202), answer
        return
    async with Person(hub, name) as person:
        if way == "link":
            form = await person.form({f"opt-{field}": value for field, value in options.items()})
            assert {field: form.values[field] for field in options} == options
            assert nothing_started()
            status, back = await person.send(form)
        else:
            status, back = await person.send(await person.form(), **options)
        assert status == 302, back.errors
