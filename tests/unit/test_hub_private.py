"""Names of JupyterHub's that are not public: one module uses them, and each is still there."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from pathlib import Path
from types import SimpleNamespace

import jupyterhub
import pytest
from jupyterhub.handlers.base import BaseHandler
from jupyterhub.handlers.pages import SpawnHandler
from jupyterhub.spawner import Spawner
from jupyterhub.user import User

import snowyspawner
from snowyspawner.web import hub_private

PACKAGE = Path(snowyspawner.__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != Path(hub_private.__file__))
# Of namedtuple, pydantic or of our own classes, not JupyterHub's.
OURS = {"_replace", "_asdict", "_apply"}


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Spawner, "_spawn_future"),
        (Spawner, "_log_name"),
        (User, "_delete_spawner"),
        (BaseHandler, "_accept_token_auth"),
    ],
    ids=lambda given: given if isinstance(given, str) else given.__name__,
)
def test_a_private_name_is_there(owner: type, name: str) -> None:
    assert hasattr(owner, name), f"JupyterHub {jupyterhub.__version__} has no {owner.__name__}.{name}"
    assert re.search(rf"[. ]{name}\b", Path(hub_private.__file__).read_text())


def test_jupyterhub_uses_them_as_we_do() -> None:
    """Where it does itself what the functions of hub_private do; another way there would be ours as well."""
    said = f"JupyterHub {jupyterhub.__version__}"
    assert "_spawn_future = None" in inspect.getsource(BaseHandler) + inspect.getsource(User), said
    assert list(inspect.signature(User._delete_spawner).parameters) == ["self", "name_or_spawner"], said
    assert isinstance(inspect.getattr_static(Spawner, "_log_name"), property), said
    # The one that is another's here: what calls it, and with what.
    ours = inspect.signature(hub_private.PatientSpawnHandler._wrap_spawn_single_user).parameters
    assert list(inspect.signature(SpawnHandler._wrap_spawn_single_user).parameters) == list(ours), said
    assert inspect.getsource(SpawnHandler).count("await self._wrap_spawn_single_user(") >= 2, said
    assert isinstance(inspect.getattr_static(BaseHandler, "slow_spawn_timeout"), property), said
    assert "_token_authenticated = True" in inspect.getsource(BaseHandler.get_current_user_token), said
    assert "if self._accept_token_auth:" in inspect.getsource(BaseHandler.get_current_user), said


def private_names(path: Path) -> set[str]:
    """Return the private attributes that a module takes from anything but itself and its own classes."""
    return {
        node.attr
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
        and not (isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Name))  # super()
    }


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_other_module_uses_private_names(path: Path) -> None:
    assert private_names(path) <= OURS


def test_private_names_are_found_at_all() -> None:
    assert private_names(Path(hub_private.__file__)) == {"_spawn_future", "_delete_spawner", "_log_name"}


@pytest.mark.parametrize(("done", "kept"), [(True, False), (False, True)])
async def test_a_start_that_has_failed_is_forgotten_and_one_under_way_is_not(done: bool, kept: bool) -> None:
    task: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    spawner = SimpleNamespace(_spawn_future=task)
    if done:
        task.set_exception(RuntimeError("it failed"))
        assert task.exception()
    assert hub_private.start_of(spawner) is task
    hub_private.forget_failed_start(spawner)
    assert hub_private.start_of(spawner) is (task if kept else None)
    hub_private.forget_failed_start(SimpleNamespace(_spawn_future=None))
