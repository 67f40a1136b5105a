"""Which tests run on one worker, in which order, and which run alone.

A test that uses a fixture of its module or class stays with the others that use it: they share a hub, or a change of
the cluster. Every other test may run on any worker, as each has a cluster of its own. What measures, or changes what
the whole machine has, runs on one worker when the others have ended.
"""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadGroupScheduling
from xdist.workermanage import WorkerController

ALONE = "alone"


def arrange(items: list[pytest.Item]) -> None:
    """Group and sort *items* in place.

    The order that they have (a random one) is kept within each part: first what takes long, so that the workers end at
    about the same time; what runs alone comes last.
    """
    parts = {}
    for item in items:
        group = _group(item)
        if group:
            item.add_marker(pytest.mark.xdist_group(group))
        parts[item] = _part(item, group)
    items.sort(key=parts.__getitem__)


def _part(item: pytest.Item, group: str) -> int:
    if group == ALONE:
        return 4
    if not item.get_closest_marker("cluster") and not item.get_closest_marker("browser"):
        return 1 if item.get_closest_marker("slow") else 3
    if group:
        return 0
    # Slow tests mostly wait, and the browser's mostly compute: both together make the best of the machine.
    return 1 if item.get_closest_marker("slow") or item.get_closest_marker("browser") else 2


def _group(item: pytest.Item) -> str:
    """Return the name of the tests that *item* stays with; empty when it may run anywhere."""
    if item.get_closest_marker(ALONE):
        return ALONE
    if not isinstance(item, pytest.Function):
        return ""
    scopes = {definition.scope for definition in _own_fixtures(item)}
    if "module" in scopes:
        return item.module.__name__.rpartition(".")[2]
    if "class" in scopes and item.cls:
        return str(item.cls.__name__)
    return ""


def _own_fixtures(item: pytest.Function) -> list[pytest.FixtureDef[Any]]:
    """Return the fixtures that *item* uses and that its own module defines, or its class."""
    definitions = [found[-1] for found in item._fixtureinfo.name2fixturedefs.values()]
    return [each for each in definitions if each.baseid.startswith(item.nodeid.partition("::")[0])]


class Scheduling(LoadGroupScheduling):
    """xdist's own, but the tests marked ``alone`` are given to one worker when the others have ended."""

    def _reschedule(self, node: WorkerController) -> None:
        if list(self.workqueue) == [ALONE] and len(self.nodes) > 1:
            if node is not self._last():
                node.shutdown()
            return
        super()._reschedule(node)

    def _last(self) -> WorkerController | None:
        return next((node for node in self.nodes if not node.shutting_down), None)

    def remove_node(self, node: WorkerController) -> str | None:
        """Forget a worker that has ended; the last one may now go on."""
        crashed: str | None = super().remove_node(node)
        for other in self.nodes:
            self._reschedule(other)
        return crashed
