"""What the hub accepts, Slurm accepts; what Slurm refuses for a limit that the Site knows, the hub refuses."""

from __future__ import annotations

import asyncio
import pwd
import random
from typing import Any

import pytest

from snowyspawner.choice import request
from snowyspawner.session import script
from snowyspawner.session.script import Target
from snowyspawner.site import Site
from snowyspawner.slurm.client import SlurmClient, SlurmError, prefix_for
from snowyspawner.slurm.times import format_duration, parse_duration

from ..hubs import Hub
from .test_form_server import Visitor

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

COUNT = 320
TIMES = [60, 59 * 60, 3600, 3601, 2 * 3600, 10 * 86400, 10 * 86400 + 1, 30 * 86400, 30 * 86400 + 60]
CORES = [1, 2, 4, 8, 15, 16, 17, 32, 64, 65]


def drawn(site: Site, count: int) -> list[dict[str, str]]:
    """Draw choices in which each limit is met, missed by one and missed by far; the same ones in every run."""
    dice = random.Random(5)  # noqa: S311
    return [
        {
            "environment": dice.choice(["tf-gpu", "tf-mkl", "tf-pip"]),
            "image": "container.sif",
            "partition": dice.choice(list(site.partitions)),
            "cores": str(dice.choice(CORES)),
            "gpu": dice.choice(["none", "t4:1", "t4:1", "t4:2"]),
            "time": format_duration(dice.choice(TIMES)),
            "account": dice.choice(["g2021027", "g2021027", "g2020014", "g2019001"]),
        }
        for _ in range(count)
    ]


def unchecked(choice: dict[str, str]) -> request.SessionRequest:
    """Make a request of a choice whatever the limits are."""
    gpu, _, count = choice["gpu"].partition(":")
    return request.SessionRequest(
        environment=choice["environment"],
        image=choice["image"],
        partition=choice["partition"],
        cores=int(choice["cores"]),
        gpu="" if gpu == "none" else gpu,
        gpu_count=int(count or 0),
        time=parse_duration(choice["time"]),
        account=choice["account"],
    )


async def test_the_hub_accepts_what_slurm_accepts(
    hub: Hub, users: list[str], cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = pwd.getpwnam(users[1])
    # As the hub asks on this cluster: with -M, from the login node.
    client = SlurmClient(cluster.site.cluster, timeout=120)  # hundreds of questions, on a machine that has other work
    monkeypatch.setenv("SLURM_CONF", cluster.env["SLURM_CONF"])
    target = Target("jupyter-test", account.pw_dir, "http://127.0.0.1:1/", 1)
    env = script.variables(account, "")

    async def slurm_says(choice: dict[str, str]) -> str:
        text = script.build(cluster.site, unchecked(choice), target)
        try:
            assert await client.would_start(text, prefix_for(account, env), env)
        except SlurmError as error:
            return error.stderr
        return ""

    choices = drawn(cluster.site, COUNT)
    async with Visitor(hub, users[1]) as visitor:
        hubs = [(await visitor.ask("check", choice))[1]["errors"] for choice in choices]
    slurms = await asyncio.gather(*(slurm_says(choice) for choice in choices))
    accepted = [(c, said) for c, errors, said in zip(choices, hubs, slurms, strict=True) if not errors]
    refused = [(c, errors) for c, errors, said in zip(choices, hubs, slurms, strict=True) if said]
    assert [(c, said) for c, said in accepted if said] == []
    assert [c for c, errors in refused if not errors] == []
    # The draw has plenty of both, and Slurm's own reasons to refuse are among them.
    assert len(accepted) > 30
    assert len(refused) > 100
    # The verdict of the page is that of the gate behind it.
    for choice, errors in zip(choices, hubs, strict=True):
        assert request.review(choice, cluster.site, accounts=["g2021027", "g2020014"]).errors == errors
