"""One person's choices: what the form shows, what was typed into it, what is kept from one time to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from . import request, script
from .form import Known, render
from .site import Site
from .slurm.facts import Facts


@dataclass
class Typed:
    """What came in with this HTTP request, for the form that goes out with its answer."""

    values: Mapping[str, str]
    errors: dict[str, str] = field(default_factory=dict)
    server_name: str = ""
    answer: Mapping[str, Any] = field(default_factory=dict)


#: JupyterHub renders the form again with the default server's spawner even when a named one was asked for, so what
#: was typed cannot be kept in the spawner.
typed: ContextVar[Typed | None] = ContextVar("snowyspawner_typed", default=None)


def mark(errors: Mapping[str, str]) -> bool:
    """Put *errors* at their fields, if it was a form; tell whether it was, as it then comes back with them."""
    sent = typed.get()
    if sent is not None:
        sent.errors.update(errors)
    return sent is not None


class Choices:
    """The form of one server. *spawner* is JupyterHub's; nothing here asks Slurm while a person waits."""

    def __init__(self, spawner: Any) -> None:
        self.spawner = spawner

    @property
    def site(self) -> Site:
        """The cluster."""
        site: Site = self.spawner.life.site
        return site

    @property
    def facts(self) -> Facts:
        """What Slurm says of people and partitions."""
        facts: Facts = self.spawner.life.facts
        return facts

    def accounts(self) -> list[str] | None:
        """Return the person's projects as far as they are known."""
        return self.facts.known_accounts(self.spawner.user.name) if self.site.accounts.discover else None

    def form(self) -> str:
        """Return the form's HTML, with what this HTTP request brought, or else the last choice."""
        accounts = self.accounts()
        values = request.form_values(self.site, accounts)
        sent = typed.get() or Typed(self.spawner.life.last_request, server_name=self.spawner.name)
        values.update({name: text for name, text in sent.values.items() if name in values})
        return render(self.site, values, sent.errors, known=self.known(sent, accounts or ()))

    def known(self, sent: Typed, accounts: Sequence[str]) -> Known:
        """Return all that the form shows beside the values."""
        return Known(
            accounts=accounts,
            server_name=sent.server_name,
            user_name=self.spawner.user.name,
            base_url=self.spawner.hub.base_url,
            answer=sent.answer,
        )

    def prefill(self, options: Mapping[str, str], server_name: str, answer: Mapping[str, Any] | None = None) -> None:
        """Let the form of this HTTP request show *options*, and say what of them is not possible."""
        errors = request.review(options, self.site, accounts=self.accounts()).errors
        typed.set(Typed(options, errors, server_name, answer or {}))

    def command(self, choice: request.SessionRequest) -> list[str]:
        """Return the choice as one sbatch command, for people to read; the hub sends the same as a script."""
        cluster = ["-M", self.site.cluster] if self.site.cluster else []
        return ["sbatch", *cluster, *script.sbatch_options(self.site, choice, self.target())]

    def target(self) -> script.Target:
        """Return what the preview of a script needs beside the choice."""
        return script.Target(name="jupyter-lab", home="/home/you", hub_url="", server=0)
