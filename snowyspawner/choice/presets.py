"""What is kept of a person: presets of their own, and their last choice. Pure; stored in the default server's state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from ..site import Site
from ..site.fields import FIELDS
from ..stored import texts
from .request import TEXT_LIMIT, form_values, review

VERSION = 1
PRESETS_LIMIT = 20
NAME_LIMIT = 64
# A time and a reservation pass; offered again, they would be refused.
_PASSING = [name for name, field in FIELDS.items() if field.passes]


class Own(BaseModel):
    """A person's presets, by name, and the options of their last accepted choice."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = VERSION
    presets: dict[str, dict[str, str]] = {}
    last: dict[str, str] = {}

    def with_preset(self, name: Any, options: Mapping[str, str]) -> Own:
        """Return this with *options* under *name*, the newest first. Raises `ValueError` with a sentence."""
        name = checked_name(name)
        others = {key: values for key, values in self.presets.items() if key != name}
        if len(others) >= PRESETS_LIMIT:
            raise ValueError(f"you have {PRESETS_LIMIT} presets already: delete one first")
        return self.model_copy(update={"presets": {name: _kept(options), **others}})

    def without_preset(self, name: Any) -> Own:
        """Return this without the preset *name*, which need not be there. Raises `ValueError`."""
        name = checked_name(name)
        return self.model_copy(update={"presets": {key: val for key, val in self.presets.items() if key != name}})

    def with_last(self, options: Mapping[str, str]) -> Own:
        """Return this with *options* as the last choice."""
        return self.model_copy(update={"last": _kept(options)})


def load_own(stored: Any) -> Own:
    """Read what was stored, by whichever version: what cannot be read of it is left out."""
    if not isinstance(stored, Mapping):
        return Own()
    presets = stored.get("presets")
    named = presets.items() if isinstance(presets, Mapping) else ()
    return Own(
        presets={name: texts(options) for name, options in named if isinstance(name, str) and texts(options)},
        last=texts(stored.get("last")),
    )


def checked_name(name: Any) -> str:
    """Return a preset's name without blanks around it. Raises `ValueError` with a sentence."""
    text = name.strip() if isinstance(name, str) else ""
    if not text:
        raise ValueError("a preset needs a name")
    if len(text) > NAME_LIMIT:
        raise ValueError(f"a preset's name has at most {NAME_LIMIT} characters")
    if not text.isprintable():
        raise ValueError("a preset's name has characters that cannot be shown")
    return text


def offered(
    options: Mapping[str, str], site: Site, accounts: Sequence[str] | None = None
) -> tuple[dict[str, str], list[str]]:
    """Return what of stored *options* is still possible, and a sentence for each field that had to change.

    A field that is refused today gets the Site's default; what that makes impossible in turn, too.
    """
    defaults = form_values(site, accounts)
    values = {**defaults, **{field: text for field, text in options.items() if field in FIELDS}}
    remarks: dict[str, str] = {}
    for _ in FIELDS:
        wrong = [f for f in review(values, site, accounts=accounts).errors if values.get(f) != defaults.get(f)]
        if not wrong:
            break
        for field in wrong:
            old, values[field] = values[field], defaults[field]
            what, now = FIELDS[field].in_words, defaults[field] or "none"
            remarks[field] = f"Your last choice of {what}, {old}, is not possible any more: it is {now} now."
    return values, list(remarks.values())


def _kept(options: Mapping[str, str]) -> dict[str, str]:
    return {
        field: options[field][:TEXT_LIMIT] for field in FIELDS if field in options and field not in _PASSING
    } | dict.fromkeys(_PASSING, "")
