"""All sessions of all people, for administrators: what each waits for or does, its log, and stopping it.

JupyterHub's scopes say who sees what. Slurm is never asked: what is shown is in memory, but for sessions that have
ended lately, whose states are in the hub's database.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any, NamedTuple

from jupyterhub import orm
from jupyterhub.handlers import default_handlers
from jupyterhub.scopes import Scope, needs_scope
from jupyterhub.utils import url_escape_path, url_path_join
from sqlalchemy.orm import joinedload
from tornado import web

from ..session.lifecycle import Life
from .card import Card, card_of
from .check_result import read_result
from .listing import COLUMNS, MOST, PHASES, Row, View, row_of
from .session_pages import READS_LOGS, SERVER, EndingHandler, SessionHandler

#: Seconds for which a session that has ended is shown.
ENDED_FOR = 86400.0
_SEES, _STOPS = "read:servers", "delete:servers"


class SessionsHandler(SessionHandler):
    """The page of all sessions that the scope ``read:servers`` reaches, if it reaches beyond one's own."""

    @web.authenticated
    @needs_scope(_SEES, post_filter=True)  # type: ignore[untyped-decorator]
    async def get(self) -> None:
        """Show it. 403 for whoever may see their own sessions only."""
        if not sees_others(self.parsed_scopes, self.current_user.name):
            raise web.HTTPError(403, f"Action is not authorized with current scopes; requires any of [{_SEES}]")
        own = self.current_user.spawner
        if not hasattr(own, "life"):
            raise web.HTTPError(404, "Not a hub of Slurm's sessions")
        rows, site = list(self.rows(own.life)), own.life.site
        view = View.read(lambda name: str(self.get_query_argument(name, "")))
        chosen = view.choose(rows)
        administers = "admin-ui" in self.parsed_scopes
        # It may have paths, and what is open to whom, in it.
        check = read_result(own.check_result) if administers else None
        page = self.render_template(
            "snowy_all.html",
            sync=True,  # of many rows in a third of the time
            view=view,
            rows=chosen[:MOST],
            chosen=len(chosen),
            total=len(rows),
            columns=COLUMNS,
            phases={kind: (word, sum(row.card.kind == kind for row in rows)) for kind, word in PHASES.items()},
            administers=administers,
            check=check,
            checked_at=f"{datetime.fromtimestamp(check.when, site.zone):%Y-%m-%d %H:%M}" if check else "",
            time_zone=site.time_zone,
        )
        self.set_header("Cache-Control", "no-store")
        self.finish(page)

    def rows(self, own: Life) -> Iterator[Row]:
        """Give the row of each session that the person who asks may see. *own* is the life of their own server."""
        sees, stops, *reads = (self.reach(scope) for scope in (_SEES, _STOPS, *READS_LOGS))
        since = time.time() - ENDED_FOR
        for server, life, card in self._sessions(own, since, sees):
            if (card.ended_at or since) >= since:
                may_read = any(reach.has(server) for reach in reads)
                row = row_of(life, card, server.user.name, _shown(server), stops.has(server), may_read)
                if row:
                    yield row

    def reach(self, scope: str) -> Reach:
        """Return whose servers *scope* reaches for the person who asks, as JupyterHub's `has_scope` says it of each."""
        held = self.parsed_scopes.get(scope, {})
        if held is Scope.ALL:
            return Reach(True)
        members = self.db.query(orm.User.name).join(orm.User.groups).filter(orm.Group.name.in_(held.get("group", ())))
        people = {name for (name,) in members} if "group" in held else set()
        return Reach(False, people | held.get("user", set()), held.get("server", set()))

    def _sessions(self, own: Life, since: float, sees: Reach) -> Iterator[tuple[orm.Spawner, Life, Card]]:
        """Give each server that may have a session: its row in the hub's database, its life and its card."""
        known = set()
        for user in list(self.users.values()):
            for spawner in list(user.spawners.values()):
                known.add(spawner.orm_spawner.id)
                if hasattr(spawner, "life") and sees.has(spawner.orm_spawner):
                    yield spawner.orm_spawner, spawner.life, spawner.card()
        # JupyterHub drops the spawners of servers that have ended.
        moment = datetime.fromtimestamp(since, timezone.utc).replace(tzinfo=None) - timedelta(minutes=5)
        lately = self.db.query(orm.Spawner).options(joinedload(orm.Spawner.user))
        for server in lately.filter(orm.Spawner.last_activity > moment, orm.Spawner.server_id.is_(None)):
            if server.id not in known and isinstance(server.state, dict) and server.user and sees.has(server):
                who = partial(str, server.user.name)
                life = Life(own.site, _nothing, self.log, who, who)
                life.load(server.state)
                yield server, life, card_of(life, url_path_join(url_escape_path(who()), url_escape_path(server.name)))


class Reach(NamedTuple):
    """Whose servers a scope reaches: everybody's, those of some people, or single ones (``user/server``)."""

    all: bool
    people: Collection[str] = ()
    servers: Collection[str] = ()

    def has(self, server: orm.Spawner) -> bool:
        """Tell whether it reaches *server*."""
        person = server.user.name
        return self.all or person in self.people or f"{person}/{server.name}" in self.servers


def _shown(server: orm.Spawner) -> str:
    return str(server.display_name or server.name)


def _nothing() -> None:
    """Store nothing: it is only looked at."""


def sees_others(scopes: Any, name: str) -> bool:
    """Tell whether parsed *scopes* let the person *name* see sessions other than their own."""
    held = scopes.get(_SEES, {})
    if held is Scope.ALL:
        return True
    people = {*held.get("user", ()), *(server.partition("/")[0] for server in held.get("server", ()))}
    return bool(held.get("group")) or bool(people - {name})


class StopOneHandler(EndingHandler):
    """Stop somebody's session from that page. A GET asks whether it is meant."""

    @web.authenticated
    async def get(self, user_name: str, server_name: str | None = None) -> None:
        """Ask."""
        await self._get(user_name=user_name, server_name=server_name or "")

    @needs_scope(_STOPS)  # type: ignore[untyped-decorator]
    async def _get(self, user_name: str, server_name: str) -> None:
        spawner = self.session(user_name, server_name)
        page = await self.render_template(
            "snowy_stop.html",
            for_user=spawner.user,
            server_name=spawner.display_name or server_name,
            card=spawner.card(),
            query=self.query,
        )
        self.set_header("Cache-Control", "no-store")
        self.finish(page)

    @web.authenticated
    async def post(self, user_name: str, server_name: str | None = None) -> None:
        """End it, and show the page again as it was."""
        await self._post(user_name=user_name, server_name=server_name or "")

    @needs_scope(_STOPS)  # type: ignore[untyped-decorator]
    async def _post(self, user_name: str, server_name: str) -> None:
        await self.begin(self.end(self.session(user_name, server_name)))
        self.redirect(f"{self.hub.base_url}snowy/sessions{self.query}", status=303)

    @property
    def query(self) -> str:
        """What the page showed."""
        return View.read(lambda name: str(self.get_query_argument(name, ""))).query()


default_handlers += [
    (r"/snowy/sessions", SessionsHandler),
    (rf"/snowy/sessions/stop{SERVER}", StopOneHandler),
]
