"""What the form shows of the cluster: what is free, for whom, and how old that is. Reads memory only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ..choice import summary
from ..session.as_person import ReadError, shared_reader
from ..session.errors import SessionError
from ..session.lifecycle import Life
from ..site import Site
from ..slurm.nodes import free_of
from ..slurm.times import say_running


def look_soon(life: Life) -> None:
    """Somebody looks at the form: have Slurm asked for what has grown old, without waiting."""
    life.facts.look_soon()
    if life.knows_name:
        _look_at(life, life.known_slurm_name)
    else:
        life.facts.soon(f"person {life.who()}", _look_at_person(life))


async def _look_at_person(life: Life) -> None:
    _look_at(life, await life.slurm_name())


def _look_at(life: Life, user: str) -> None:
    images = [key for key, image in life.site.images.items() if image.runtime != "none"]
    life.facts.look_soon_at(user, partial(_may_read, life), images, life.site.accounts.discover, life.prefix)


async def _may_read(life: Life, image: str) -> bool | None:
    """Ask whether the person may read the *image* of the Site; None where the hub's host cannot tell."""
    try:
        found = await shared_reader(life.site).image(image, life.known_account or await life.account())
    except (ReadError, SessionError):
        return None
    return {"readable": True, "forbidden": False}.get(found)


def readable(life: Life) -> dict[str, bool]:
    """Return which images this person may read; one of which that is not known is missing."""
    return {
        key: known for key in life.site.images if (known := life.facts.readable(life.known_slurm_name, key)) is not None
    }


def live(life: Life) -> dict[str, Any]:
    """Return what is known of the cluster now: facts by partition, their age, what to say when Slurm is away."""
    return {"facts": partition_facts(life), "facts_age": life.facts.age, "slurm_note": slurm_note(life)}


def partition_facts(life: Life) -> dict[str, dict[str, Any]]:
    """Return what is free where, by the Site's names; a partition of which nothing is known is missing."""
    known, site = life.facts.live, life.site
    if known is None:
        return {}
    found = {}
    for key, partition in site.partitions.items():
        name = site.slurm_partition(key)
        facts = known.partitions.get(name)
        # Several entries may be parts of one partition, told apart by a constraint: sinfo sums up the whole.
        if facts is None or partition.constraint:
            continue
        found[key] = {
            "free_cores": facts.free_cores,
            "total_cores": facts.total_cores,
            "free_gpus": _free_gpus(site, partition.gpus, facts.free_gpus),
            "largest_block": facts.largest_block,
            "state": facts.state,
        }
        if known.waiting is not None:
            found[key]["waiting"] = known.waiting.get(name, 0)
    return found


def _free_gpus(site: Site, keys: Sequence[str], free: Mapping[str, int]) -> dict[str, int]:
    """Return how many are free, by the Site's names; those of which nothing is known are missing."""
    kinds = {key: kind for key in keys if (kind := site.slurm_gpu(key)) is not None}
    counts = {key: free_of(kind, free) for key, kind in kinds.items()}
    return {key: count for key, count in counts.items() if count is not None}


def slurm_note(life: Life) -> str:
    """Say that Slurm is away, if it is, and how old that makes what is shown."""
    since, age = life.facts.failing_since, life.facts.age
    if since is None:
        return ""
    shown = "Free cores are not known" if age is None else f"What is shown as free is {say_running(age)} old"
    return f"Slurm has not answered since {summary.say_moment(since, life.site)}. {shown}."


def reservations(life: Life, accounts: Sequence[str]) -> list[dict[str, str]]:
    """Return the active reservations that this person, with these *accounts*, may use."""
    known = life.facts.live
    mine = [item for item in (known.reservations if known else ()) if item.usable_by(life.known_slurm_name, accounts)]
    return [
        {"name": item.name, "sentence": f"until {summary.say_moment(item.end, life.site)}" if item.end else ""}
        for item in mine
    ]
