"""A person without a browser: signs in, reads forms, sends them. What the browser tests do by hand, at speed."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import aiohttp
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
