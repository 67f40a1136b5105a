"""What sinfo, scontrol and sacctmgr print on clusters of other sites' shape.

Recorded from real Slurm, on miniatures of these sites: ``python -m tests.clusters`` brings up one after another
and writes tests/unit/clusters/SITE.txt anew. A file has each command after a ``$``, and what it printed.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from snowyspawner.admin.survey import Survey, look
from snowyspawner.slurm.client import SlurmClient, SlurmError

HERE = Path(__file__).resolve().parent
RECORDED = HERE / "unit" / "clusters"
SITES = {"snowy": "snowy", "pelle": "pelle"} | {
    path.stem: str(path) for path in sorted((HERE / "sites").glob("*.yaml"))
}
USER = "you"  # whoever asked
HEAD = """\
# {name}: what Slurm {version} printed on the miniature of {site}.
# Recorded by `python -m tests.clusters`; not written by hand.
"""
# Of slurm.conf what is read here; the rest is paths and ports.
_CONFIG = re.compile(r"(ClusterName|SLURM_VERSION|DefMemPer\w+|SelectType\w*|AccountingStorageType|PrivateData) *=")


class _Recorder(SlurmClient):
    """Writes down what is asked and answered."""

    def __init__(self, cluster: str) -> None:
        super().__init__(cluster)
        self.said: dict[str, str] = {}

    async def _answer(self, purpose: Any, words: Sequence[str], *rest: Any, **more: Any) -> tuple[str, str]:
        answer = await super()._answer(purpose, words, *rest, **more)
        lines = answer[0].splitlines()
        if list(words[-2:]) == ["show", "config"]:
            lines = [line for line in lines if _CONFIG.match(line)]
        # Of this machine nothing but what a node of the site would say, too.
        kept = (re.sub(r"OS=.*?  ", "OS=Linux 6.1.0-18-amd64 #1 SMP Debian 6.1.76-1  ", line) for line in lines)
        self.said[shlex.join(words)] = "".join(f"{line}\n" for line in kept)
        return answer


class Recorded(SlurmClient):
    """Answers what was recorded of a site; what was not is a command that fails."""

    def __init__(self, site: str, cluster: str = "") -> None:
        super().__init__(cluster)
        self.said = read(site)

    async def _answer(self, purpose: Any, words: Sequence[str], *rest: Any, **more: Any) -> tuple[str, str]:
        try:
            return self.said[shlex.join(words)], ""
        except KeyError:
            raise SlurmError(words[0], 1, f"{words[0]}: nothing recorded") from None


def read(site: str) -> dict[str, str]:
    """Return what was recorded of *site*, by command."""
    text = (RECORDED / f"{site}.txt").read_text(encoding="utf-8")
    parts = (part.partition("\n") for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:])
    return {command: printed for command, _, printed in parts}


def record(name: str, site: str, state: Path, prefix: str) -> Survey:
    """Bring up a miniature of *site*, write down what it says, and take it down."""
    from demo.cluster import Cluster

    cluster = Cluster(state, site=site, users=1, user_prefix=prefix)
    try:
        cluster.up()
        os.environ.update(cluster.env)
        recorder = _Recorder(cluster.site.cluster)
        user = next(iter(cluster.users))
        survey = asyncio.run(look(recorder, user))
    finally:
        cluster.down()
    assert not survey.failures, survey.failures
    head = HEAD.format(name=name, version=survey.config.version, site=Path(site).name)
    RECORDED.mkdir(exist_ok=True)
    body = "".join(f"$ {command}\n{printed}" for command, printed in recorder.said.items())
    (RECORDED / f"{name}.txt").write_text(head + body.replace(user, USER), encoding="utf-8")
    return survey


def main() -> None:
    """Record all of them."""
    from .runs import account_prefix, state_directory

    for name, site in SITES.items():
        survey = record(name, site, state_directory("record"), account_prefix("snw"))
        print(f"{name}: {len(survey.rows)} rows")


if __name__ == "__main__":
    main()
