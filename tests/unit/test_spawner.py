"""What of a spawner can be tried without a hub; all else is in tests/cluster."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from jupyterhub import orm

from snowyspawner.spawner import SnowySpawner


@pytest.fixture
def session() -> Any:
    session = orm.new_session_factory("sqlite:///:memory:")()
    yield session
    session.close()


def life_of(row: orm.Spawner) -> Any:
    spawner: Any = SimpleNamespace(
        **{"orm_spawner": row, "user": row.user, "name": row.name, "site": "snowy", "store": lambda: None},
        **{"log": logging.getLogger("test"), "_log_name": row.name, "command_timeout": 30.0},
    )
    return SnowySpawner._find_life(spawner)


async def test_a_job_that_still_ends_is_not_the_next_one_s_who_gets_its_row(session: Any) -> None:
    """SQLite gives the number of a removed row to the next one."""
    ann, bob = orm.User(name="ann"), orm.User(name="bob")
    row = orm.Spawner(name="lab", user=ann)
    session.add_all([ann, bob, row])
    session.commit()
    number, life = row.id, life_of(row)
    ending = asyncio.Event()
    life.tasks.begin("stop", ending.wait())
    assert life_of(row) is life  # JupyterHub has made another Spawner object of the same row
    for user, name in ((bob, "lab"), (ann, "other")):
        session.delete(row)
        session.commit()
        row = orm.Spawner(name=name, user=user)
        session.add(row)
        session.commit()
        assert row.id == number
        assert life_of(row) is not life
    ending.set()
    await asyncio.sleep(0)
