"""What of the form's pages can be tried without a hub; all else is in tests/cluster and tests/browser."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from jupyterhub.user import User

from snowyspawner.web.form_pages import find_user, free_name

RUNS = SimpleNamespace(active=True, job=SimpleNamespace(alive=True))
LOST = SimpleNamespace(active=False, job=SimpleNamespace(alive=True))  # a job that no start follows
OVER = SimpleNamespace(active=False, job=None)


@pytest.mark.parametrize(
    ("servers", "limit", "beside", "fresh"),
    [
        ({}, 0, "lab-2", "lab-2"),
        ({"lab-2": RUNS}, 0, "lab-3", "lab-3"),
        # Whose session is over may be used again, but not for a session of which one asked for a row of its own.
        ({"lab-2": OVER}, 0, "lab-2", "lab-3"),
        ({"lab-2": LOST}, 0, "lab-3", "lab-3"),
        ({"mine": RUNS, "lab-3": RUNS}, 3, "lab-2", "lab-2"),
        # No more than the hub allows.
        ({"mine": OVER, "lab-2": RUNS}, 2, "mine", "mine"),
        ({"mine": LOST, "lab-2": RUNS}, 2, "", ""),
    ],
)
async def test_a_free_name_is_within_the_hub_s_limit(
    servers: dict[str, Any], limit: int, beside: str, fresh: str
) -> None:
    async def get_limit() -> int:
        return limit

    handler = SimpleNamespace(allow_named_servers=True, get_current_user_named_server_limit=get_limit)
    user = SimpleNamespace(orm_spawners={"": None, **servers}, spawners=servers)
    for wanted, name in ((False, beside), (True, fresh)):
        found, note = await free_name(handler, user, wanted)
        assert found == name
        assert note == ("" if name else "You have 2 sessions beside this one already: stop one first.")


async def test_a_hub_without_named_servers_has_no_free_name() -> None:
    found, note = await free_name(SimpleNamespace(allow_named_servers=False), SimpleNamespace())
    assert (found, note[:8]) == ("", "This hub")


@pytest.mark.parametrize(
    ("asking", "found"),
    [
        ("user", "who asks"),
        ("another user", "looked up"),
        # A service may have the name of a person.
        ("service", "looked up"),
    ],
)
def test_the_person_who_asks_is_not_looked_up_again(asking: str, found: str) -> None:
    who: Any = SimpleNamespace(name="ann")
    if asking != "service":
        who = User.__new__(User)
        who.orm_user = SimpleNamespace(name="ann" if asking == "user" else "bo")
    handler: Any = SimpleNamespace(current_user=who, find_user=lambda name: f"looked up {name}")
    assert find_user(handler, "ann") == (who if found == "who asks" else "looked up ann")
