"""The hub's pages beside the form: what its buttons ask for, and the link that opens it filled in.

Nothing here starts a session. What is asked for by JavaScript is JSON and gets JSON; the same buttons work without
it: then an ordinary form comes in, and the form's page goes out again with the answer above it.
"""

from __future__ import annotations

import json
from typing import Any

from jupyterhub.handlers import default_handlers
from jupyterhub.handlers.base import BaseHandler
from jupyterhub.scopes import needs_scope
from tornado import web

from . import request, summary
from ._share import share_dir

_BODY_LIMIT = 64 * 1024
_YEAR = 366 * 86400


class StaticHandler(web.StaticFileHandler):
    """The files of share/static: the same for everybody, signed in or not."""

    def set_extra_headers(self, path: str) -> None:
        """Let browsers keep what is asked for by its content's hash; anything else they ask for again."""
        keep = f"public, max-age={_YEAR}, immutable" if self.get_argument("v", "") else "no-cache"
        self.set_header("Cache-Control", keep)
        self.set_header("X-Content-Type-Options", "nosniff")


class PageHandler(BaseHandler):  # type: ignore[misc]  # jupyterhub has no types
    """What the form's pages have in common: whose form it is, what was sent, how it is answered."""

    @property
    def wants_json(self) -> bool:
        """Whether JavaScript asks."""
        return str(self.request.headers.get("Content-Type", "")).partition(";")[0].strip() == "application/json"

    def fields(self) -> dict[str, str]:
        """Return what was sent, field by field. Raises HTTPError 400."""
        if len(self.request.body) > _BODY_LIMIT:
            raise web.HTTPError(400, "too long")
        if not self.wants_json:
            form = {key: [self.decode_argument(value) for value in values] for key, values in self.posted()}
            return request.from_form(form)
        try:
            body = json.loads(self.request.body)
        except (ValueError, RecursionError):
            raise web.HTTPError(400, "not JSON") from None
        if not isinstance(body, dict):
            raise web.HTTPError(400, "must be an object: a value for each field")
        return {str(field): value for field, value in body.items() if not str(field).startswith("_")}

    def posted(self) -> Any:
        """Return the form's fields; what the address says beside them is not one."""
        return self.request.body_arguments.items()

    async def whose(self) -> Any:
        """Return the spawner whose form it is: the person's own, or whose servers they may start.

        Its row may not exist yet: looking at a form makes none. Then it is that of the default server.
        """
        self.server_name = self.get_query_argument("server", "")
        user_name = self.get_query_argument("user", "") or self.current_user.name
        return await self._allowed(user_name=user_name, server_name=self.server_name)

    @needs_scope("servers")  # type: ignore[untyped-decorator]
    async def _allowed(self, user_name: str, server_name: str) -> Any:
        user = self.find_user(user_name)
        if user is None:
            raise web.HTTPError(404, "no such user")
        return user.spawners[server_name] if server_name in user.orm_spawners else user.spawner

    def reply(self, answer: dict[str, Any], status: int = 200) -> None:
        """Send *answer* as JSON."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-store")
        self.finish(json.dumps(answer))


class CheckHandler(PageHandler):
    """What the server thinks of a choice, and how it reads it."""

    @web.authenticated
    async def post(self) -> None:
        """Answer with errors, remarks, cost, line, link; see `look`."""
        spawner = await self.whose()
        fields = self.fields()
        self.reply(look(spawner, fields, self.hub.base_url))


def look(spawner: Any, fields: dict[str, Any], base_url: str) -> dict[str, Any]:
    """Return all that can be said of a choice without asking Slurm."""
    choices = spawner.choices
    site, accounts = choices.site, choices.accounts()
    found = request.review(fields, site, accounts=accounts)
    answer: dict[str, Any] = {
        "errors": found.errors,
        "remarks": found.remarks,
        "said": summary.said(found.read, site),
        "cost": "",
        "argv": [],
        "line": "",
        "link": "",
    }
    if found.request:
        shared = summary.shared_options(found.request, site, accounts)
        answer |= {
            "cost": summary.cost(found.request, site),
            "argv": choices.command(found.request),
            "line": summary.line(shared, site),
            "link": summary.link(shared, base_url),
        }
    return answer


default_handlers[:] = [
    *default_handlers,
    (r"/snowy/static/(.*)", StaticHandler, {"path": str(share_dir() / "static")}),
    (r"/snowy/check", CheckHandler),
]
