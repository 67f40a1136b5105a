"""Read what the hub has stored, whichever version wrote it: what is understood is kept, the rest is left out. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound=BaseModel)


def read(model: type[M], stored: Any, otherwise: Mapping[str, Any] | None = None) -> M | None:
    """Make a *model* of *stored*; None when nothing of it can be used.

    Fields that it does not have are passed over. A field whose value it does not take has its default, or that of
    *otherwise* where it has none.
    """
    if not isinstance(stored, Mapping):
        return None
    otherwise, fields = otherwise or {}, model.model_fields
    values = {**otherwise, **{name: value for name, value in stored.items() if name in fields}}
    for _ in fields:
        try:
            return model.model_validate(values)
        except ValidationError as error:
            wrong = {str(item["loc"][0]) for item in error.errors() if item["loc"]} & values.keys()
        if not wrong:
            return None  # what is missing has no default
        for name in wrong:
            del values[name]
            if name in otherwise:
                values[name] = otherwise[name]
    return None


def texts(stored: Any) -> dict[str, str]:
    """Return what of *stored* is text by name."""
    if not isinstance(stored, Mapping):
        return {}
    return {name: text for name, text in stored.items() if isinstance(name, str) and isinstance(text, str)}
