"""Load a Site: read its YAML, extend what it extends, check it as a whole, explain what is wrong in it."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from .._share import share_dir
from .model import Site


class SiteError(ValueError):
    """A Site cannot be used. The text has a line per mistake: the key, the value, what is allowed."""


_NAME = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)  # of a shipped site; anything else is a path

# What was loaded, by what was asked for and where; with the files it came from, as they were then.
_loaded: dict[tuple[str | Path, Path], tuple[Site, dict[Path, tuple[int, ...]]]] = {}


def load(source: str | Path | Mapping[str, Any]) -> Site:
    """Load a Site: the name of a shipped one, a path to a YAML file, or a dict.

    A file or dict may say ``extends: NAME`` (or a path): it then holds only what differs; tables are merged key
    by key, anything else is replaced, and a key set to null is removed.

    Raises `SiteError` with a line per mistake.
    """
    key = None if isinstance(source, Mapping) else (source, Path.cwd())
    # Whatever shows a server asks for its Site, and reading one takes longer than all else in that.
    known = _loaded.get(key) if key else None
    if known and all(_stamp(path) == stamp for path, stamp in known[1].items()):
        return known[0]
    files: dict[Path, tuple[int, ...]] = {}
    raw, label = _read(source, files)
    try:
        site = Site.model_validate(raw)
    except ValidationError as error:
        raise SiteError("\n".join(_explain(label, error))) from None
    if key:
        _loaded[key] = site, files
    return site


def load_or_keep(source: str | Path | Mapping[str, Any], log: logging.Logger | logging.LoggerAdapter[Any]) -> Site:
    """Load a Site as `load` does; if its file has been changed into one that cannot be used, keep what it was.

    The mistakes are logged, once for each change. Raises `SiteError` when nothing was loaded before.
    """
    try:
        return load(source)
    except SiteError as error:
        key = (source, Path.cwd())
        if isinstance(source, Mapping) or key not in _loaded:
            raise
        log.error("The site was changed and cannot be used; the hub goes on with the one before:\n%s", error)
        kept, files = _loaded[key]
        _loaded[key] = kept, {path: _stamp(path) for path in files}
        return kept


def _stamp(path: Path) -> tuple[int, ...]:
    """Return what changes with a file; empty: it cannot be read."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns


def shipped() -> list[str]:
    """Return the names of the Sites that come with snowyspawner."""
    return sorted(path.stem for path in (share_dir() / "sites").glob("*.yaml"))


def _read(
    source: str | Path | Mapping[str, Any], files: dict[Path, tuple[int, ...]], depth: int = 0
) -> tuple[dict[str, Any], str]:
    """Return what the Site says, extended, and its name in messages; note in *files* what was read."""
    if isinstance(source, Mapping):
        raw, label = dict(source), "site"
    else:
        label = str(source)
        path = Path(source)
        if isinstance(source, str) and _NAME.fullmatch(source):
            path = share_dir() / "sites" / f"{source}.yaml"
            if not path.is_file():
                raise SiteError(
                    f"{label}: no such site; there is {', '.join(shipped())}, or give a path with a / or .yaml in it"
                )
        files[path] = _stamp(path)
        try:
            raw = _parse(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise SiteError(f"{label}: cannot be read: {error}") from None
        except yaml.YAMLError as error:
            raise SiteError(f"{label}: is not YAML: {error}") from None
        except RecursionError:
            raise SiteError(f"{label}: there are too many levels of tables and lists") from None
        except ValueError as error:
            raise SiteError(f"{label}: {error}") from None
        if not isinstance(raw, dict):
            raise SiteError(f"{label}: must hold keys and values, not {type(raw).__name__}")
    base = raw.pop("extends", None)
    if base is not None:
        if depth > 8:
            raise SiteError(f"{label}: extends: {base!r}: goes round in a circle")
        if not isinstance(base, str):
            raise SiteError(f"{label}: extends: {base!r}: must be the name or path of another site")
        # A path is looked for beside the file that says it.
        beside = Path(label).parent / base if label != "site" and not _NAME.fullmatch(base) else base
        raw = _merge(_read(beside, files, depth + 1)[0], raw)
    return raw, label


# libyaml reads a Site in a tenth of the time; PyYAML comes without it where it was built without it.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _parse(text: str) -> Any:
    """Read YAML. Raises `yaml.YAMLError`, and ValueError for a key that is there twice, with its line."""
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        _refuse_twice(loader, root)
        return loader.construct_document(root)
    finally:
        loader.dispose()


def _refuse_twice(loader: Any, root: yaml.Node) -> None:
    """Refuse a key that is there twice, of which YAML itself would lose the first value. Raises ValueError.

    https://yaml.org/spec/1.2.2/#3221-mapping-nodes: keys are unique. A key that stands beside a merge (``<<``) goes
    before what is merged, which loses nothing that somebody wrote for this table.
    """
    found, seen = [root], set()
    while found:
        node = found.pop()
        if id(node) in seen or not isinstance(node, yaml.CollectionNode):
            continue
        seen.add(id(node))  # an alias is the node itself, and may stand in its own table
        if isinstance(node, yaml.MappingNode):
            _refuse_twice_in(loader, node)
            found += [value for _, value in node.value]
        else:
            found += node.value


def _refuse_twice_in(loader: Any, table: yaml.MappingNode) -> None:
    lines: dict[Any, int] = {}
    for key, _ in table.value:
        # As it is read: "core" and core are one key, 1 and "1" are two. A table or list is no key at all.
        if key.tag == "tag:yaml.org,2002:merge":
            name: Any = "<<"
        else:
            name = loader.construct_object(key) if isinstance(key, yaml.ScalarNode) else id(key)
        line = key.start_mark.line + 1
        if name in lines:
            raise ValueError(f"line {line}: the key {name!r} is in line {lines[name]} already")
        lines[name] = line


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def _explain(label: str, error: ValidationError) -> list[str]:
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        value = item["input"]
        if item["type"] == "extra_forbidden":
            message = "no such key"
        elif item["type"] == "string_type" and isinstance(value, (int, float)):
            message = "must be text: put it in quotes"
        shown = "" if isinstance(value, (Mapping, BaseModel)) else f"{value!r}: "
        start = f"{label}: {where}: {shown}" if where else f"{label}: "
        lines += [start + line for line in message.splitlines()]
    return lines
