"""The layers in setup.cfg hold the code to them, and docs/architecture.md says the same."""

from __future__ import annotations

import ast
import configparser
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import grimp
import pytest

import snowyspawner

PACKAGE = Path(snowyspawner.__file__).parent
CHECKOUT = PACKAGE.parent
MODULES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))
STANDALONE = [module for module in MODULES if module.startswith("standalone/")]
HUB = {"batchspawner", "jupyterhub", "sqlalchemy", "tornado", "traitlets"}

PAGE = (CHECKOUT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("\n## The way through it")[0]
ROWS = re.findall(r"^\| (\w*) ?\| `([\w/]+\.py)` \| (.+) \|$", PAGE, re.M)
(PICTURE,) = re.findall(r"^```text\n(.*?)^```$", PAGE, re.M | re.S)
(KNOW_THE_HUB,) = re.findall(r"^JupyterHub and its libraries (.*?)\n\n", PAGE, re.M | re.S)

CONFIG = configparser.ConfigParser()
CONFIG.read(CHECKOUT / "setup.cfg")


def contract(name: str, key: str) -> list[str]:
    return [line for line in CONFIG[f"importlinter:contract:{name}"][key].splitlines() if line]


def dotted(module: str) -> str:
    return ".".join(["snowyspawner", *module.removesuffix(".py").split("/")]).removesuffix(".__init__")


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("snowyspawner", include_external_packages=True, cache_dir=None)


# -- the page ----------------------------------------------------------------------------------------------------


def test_the_picture_shows_the_contracts() -> None:
    lines = []
    for layer in contract("snowyspawner", "layers"):
        inner = CONFIG.has_section(f"importlinter:contract:{layer}") and contract(layer, "layers")
        lines.append(f"{layer:<10} {' → '.join(inner)}" if inner else layer)
    assert PICTURE.splitlines() == lines


def test_every_package_has_a_contract_that_names_all_of_its_modules() -> None:
    packages = {module.partition("/")[0] for module in MODULES if "/" in module}
    assert packages <= set(contract("snowyspawner", "layers"))
    for package in packages:
        assert contract(package, "containers") == [f"snowyspawner.{package}"]
        named = re.findall(r"\w+", " ".join(contract(package, "layers")))
        assert sorted(f"{package}/{name}.py" for name in [*named, "__init__"]) == [
            module for module in MODULES if module.startswith(f"{package}/")
        ]


def test_the_table_goes_from_layer_to_layer() -> None:
    wanted = []
    for layer in contract("snowyspawner", "layers"):
        inner = CONFIG.has_section(f"importlinter:contract:{layer}") and contract(layer, "layers")
        names = re.findall(r"\w+", " ".join(inner or [layer]))
        wanted += [(layer, f"{layer}/{name}.py") if inner else ("", f"{name}.py") for name in names]
    assert [(package, module) for package, module, _ in ROWS] == wanted


@pytest.mark.parametrize("module", [module for module in MODULES if not module.endswith("__init__.py")])
def test_a_module_has_one_row(module: str) -> None:
    assert Counter(name for _, name, _ in ROWS)[module] == 1


@pytest.mark.parametrize("module", [name for _, name, _ in ROWS])
def test_a_row_is_of_a_module(module: str) -> None:
    assert module in MODULES


# -- JupyterHub --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", MODULES)
def test_the_page_says_which_modules_know_jupyterhub(module: str, graph: grimp.ImportGraph) -> None:
    imported = graph.find_modules_directly_imported_by(dotted(module))
    assert bool(HUB & imported) == (f"`{module}`" in KNOW_THE_HUB)


@pytest.mark.parametrize("module", MODULES)
def test_every_other_module_is_forbidden_to_know_it(module: str) -> None:
    assert set(contract("jupyterhub", "forbidden_modules")) == HUB
    name = dotted(module)
    sources = contract("jupyterhub", "source_modules")
    forbidden = any(f"{name}.".startswith(f"{source}.") for source in sources)
    excepted = any(line.startswith(f"{name} -> ") for line in contract("jupyterhub", "ignore_imports"))
    # An __init__ only re-exports, and cli.py is above the modules that may.
    if module not in ("__init__.py", "admin/__init__.py", "cli.py", "web/__init__.py"):
        assert (forbidden and not excepted) == (f"`{module}`" not in KNOW_THE_HUB)


# -- what is sent as text ----------------------------------------------------------------------------------------


def imported_names(module: str) -> set[str]:
    """Return what *module* imports, wherever in it, by the first part of its name; "." for what is beside it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((PACKAGE / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("." if node.level else str(node.module).partition(".")[0])
    return names


@pytest.mark.parametrize("module", STANDALONE)
def test_what_is_sent_as_text_needs_the_standard_library_only(module: str) -> None:
    assert imported_names(module) <= sys.stdlib_module_names


@pytest.mark.parametrize("module", STANDALONE)
def test_nothing_imports_what_is_sent_as_text(module: str, graph: grimp.ImportGraph) -> None:
    assert graph.find_modules_that_directly_import(dotted(module)) == set()


def test_imports_are_found_at_all(graph: grimp.ImportGraph) -> None:
    # The tests above could not fail if the reading of imports did not work.
    assert {"json", "os"} <= imported_names("standalone/launcher.py")
    assert "." in imported_names("session/script.py")
    assert {"batchspawner", "jupyterhub", "tornado", "snowyspawner.session.lifecycle"} <= (
        graph.find_modules_directly_imported_by("snowyspawner.spawner")
    )


# -- the contracts can be broken ---------------------------------------------------------------------------------


def lint_imports(directory: Path) -> tuple[int, str]:
    """Check the package that lies in *directory* by our contracts; return the exit code and what was printed."""
    shutil.copy(CHECKOUT / "setup.cfg", directory)
    argv = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    done = subprocess.run(argv, cwd=directory, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(PACKAGE, tmp_path / "snowyspawner", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def broken(said: str) -> list[str]:
    return re.findall(r"^(.+?) BROKEN", said, re.M)


def test_the_code_keeps_the_contracts(copy: Path) -> None:
    code, said = lint_imports(copy)
    assert (code, broken(said)) == (0, []), said


SENT = "Nothing imports what is sent as text"
KNOWN = "JupyterHub and its libraries are known above session, and to few in web"


@pytest.mark.parametrize(
    ("module", "line", "contract_name"),
    [
        # From a layer below to one above, for each pair that touches.
        ("config.py", "from . import cli", "The layers of snowyspawner"),
        ("spawner.py", "from .config import ConfigError", "The layers of snowyspawner"),
        ("restart.py", "from . import spawner", "The layers of snowyspawner"),
        ("web/turns.py", "from ..spawner import SnowySpawner", "The layers of snowyspawner"),
        ("session/record.py", "from ..web import turns", "The layers of snowyspawner"),
        ("choice/rules.py", "from ..session.messages import Words", "The layers of snowyspawner"),
        ("site/model.py", "from ..choice import rules", "The layers of snowyspawner"),
        ("slurm/times.py", "from ..site import Site", "The layers of snowyspawner"),
        ("stored.py", "from .slurm import names", "The layers of snowyspawner"),
        ("stored.py", "from . import metrics", "The layers of snowyspawner"),
        # The package itself has all in it.
        ("slurm/names.py", "from .. import __version__", "The layers of snowyspawner"),
        # Wherever it stands.
        ("session/tasks.py", "def late():\n    from snowyspawner.web.card import Card", "The layers of snowyspawner"),
        # Within a package, up and aside.
        ("web/form_pages.py", "from . import session_pages", "The layers of web"),
        ("web/card.py", "from .form_state import FormState", "The layers of web"),
        ("web/dry_run.py", "from .form_state import mark", "The layers of web"),
        ("session/lifecycle.py", "from . import admission", "The layers of session"),
        ("session/messages.py", "from . import status", "The layers of session"),
        ("session/script.py", "from .errors import SessionError", "The layers of session"),
        ("choice/request.py", "from .presets import Own", "The layers of choice"),
        ("site/model.py", "from .loading import SiteError", "The layers of site"),
        ("slurm/nodes.py", "from .client import SlurmClient", "The layers of slurm"),
        ("slurm/times.py", "from . import names", "The layers of slurm"),
        # A module that has no place yet.
        ("newcomer.py", "", "The layers of snowyspawner"),
        ("choice/newcomer.py", "", "The layers of choice"),
        # What is sent as text imports nothing, and nothing imports it.
        ("standalone/launcher.py", "from snowyspawner import metrics", "The layers of snowyspawner"),
        ("standalone/launcher.py", "from . import helper", "The layers of standalone"),
        ("spawner.py", "from .standalone import launcher", SENT),
        ("metrics.py", "from .standalone import helper", SENT),
        # JupyterHub.
        ("choice/summary.py", "from jupyterhub.utils import url_path_join", KNOWN),
        ("session/lifecycle.py", "from tornado import web", KNOWN),
        ("session/errors.py", "import tornado.web", KNOWN),
        ("web/form.py", "import jupyterhub", KNOWN),
        ("web/dry_run.py", "from tornado import web", KNOWN),
        ("standalone/helper.py", "import traitlets", KNOWN),
    ],
)
def test_a_contract_is_broken_by(module: str, line: str, contract_name: str, copy: Path) -> None:
    with (copy / "snowyspawner" / module).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    code, said = lint_imports(copy)
    assert code == 1, said
    # An import that points up closes a circle, so that others may be broken, too.
    assert contract_name in broken(said), said
