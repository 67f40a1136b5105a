"""Whether a person may start what they chose; what Slurm makes of it is in tests/cluster."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from snowyspawner.choice.request import RequestError, SessionRequest
from snowyspawner.choice.several import MOST
from snowyspawner.session import admission
from snowyspawner.session.errors import SessionError
from snowyspawner.session.estimate import Limiter, TooOftenError, shared_estimator
from snowyspawner.site import Site
from snowyspawner.slurm.client import SlurmError
from snowyspawner.slurm.facts import Facts

LOG = logging.getLogger("test")
QUICK = {"environment": "tf-mkl", "partition": "devcore", "gpu": "none"}  # one job at a time


class StandInClient:
    """A stand-in for SlurmClient: answers what the test has put in."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.jobs: list[str] = []
        self.error: SlurmError | None = None

    async def accounts(self, user: str, prefix: Sequence[str] = ()) -> list[str]:
        self.asked.append(f"accounts {user}")
        return ["g2020014"]

    async def jobs_in(self, partition: str, user: str, prefix: Sequence[str] = ()) -> list[str]:
        self.asked.append(f"jobs {partition} {user}")
        if self.error:
            raise self.error
        return self.jobs


class StandInLife:
    """A stand-in for Life: whose it is, and where."""

    log = LOG

    def __init__(self, site: Site) -> None:
        self.site, self.client = site, StandInClient()
        self.facts = Facts(self.client, LOG)  # type: ignore[arg-type]
        self.known_slurm_name = "ann@uni.example"

    async def slurm_name(self) -> str:
        self.known_slurm_name = "ann"
        return "ann"

    async def prefix(self) -> list[str]:
        return []

    def allow(self, starts: int = 60, questions: int = 12) -> None:
        """Let the person have so many of each within a minute."""
        estimator = shared_estimator(self.facts.client)
        estimator.starts, estimator.limiter = Limiter(most=starts), Limiter(most=questions)


@pytest.fixture
def life(snowy: Site) -> Any:
    return StandInLife(snowy)


async def test_a_review_is_about_the_accounts_that_are_known(life: Any) -> None:
    assert admission.accounts(life) is None
    assert admission.review(life, {"account": "g2021027"}).errors == {}
    await admission.ask_accounts(life)
    assert admission.accounts(life) == ["g2020014"]
    found = admission.review(life, {"account": "g2021027"})
    assert found.errors == {"account": "'g2021027' is not one of your projects: choose g2020014"}
    own = admission.review(life, {}).request
    assert own is not None
    assert own.account == "g2020014"
    assert life.client.asked == ["accounts ann"]


async def test_accounting_is_not_asked_where_the_site_says_so(variant: Callable[..., Site]) -> None:
    life: Any = StandInLife(variant(accounts={"discover": False}))
    assert (await admission.admit(life, {})).account == "g2021027"
    assert (admission.accounts(life), life.client.asked) == (None, [])


async def test_a_start_is_read_with_the_accounts(life: Any) -> None:
    with pytest.raises(RequestError) as refused:
        await admission.admit(life, {"account": "g2021027", "cores": "many"})
    assert set(refused.value.errors) == {"account", "cores"}
    choice = await admission.admit(life, {"cores": "2"})
    assert isinstance(choice, SessionRequest)
    assert (choice.cores, choice.account) == (2, "g2020014")


@pytest.mark.parametrize(
    ("jobs", "have", "which"),
    [
        (["7"], "job 7 is", "it"),
        (["7", "8"], "jobs 7, 8 are", "them"),
        ([str(number) for number in range(7)], "jobs 0, 1, 2, 3, 4 and 2 more are", "them"),
    ],
)
async def test_what_a_person_has_too_much_of_is_refused(jobs: list[str], have: str, which: str, life: Any) -> None:
    life.client.jobs = jobs
    with pytest.raises(RequestError) as refused:
        await admission.admit(life, QUICK)
    rule = "this partition takes only 1 at a time"
    said = f"{have} already waiting or running, and {rule}: stop {which} first, or choose core or node"
    assert refused.value.errors == {"partition": said}
    assert (await admission.admit(life, {"partition": "core"})).partition == "core"
    assert life.client.asked == ["accounts ann", "jobs devcore ann"]


async def test_those_of_the_same_set_that_come_first_count(life: Any) -> None:
    choice = await admission.read(life, QUICK)
    await admission.check_room(life, choice, 60)
    with pytest.raises(RequestError) as refused:
        await admission.check_room(life, choice, before=["tf-mkl-1"])
    said = "tf-mkl-1 comes first, and this partition takes only 1 at a time: choose core or node"
    assert refused.value.errors == {"partition": said}
    # Nobody has to be asked for that.
    assert life.client.asked == ["accounts ann", "jobs devcore ann"]
    await admission.check_room(life, await admission.read(life, {"partition": "core"}), before=["a"] * 20)


async def test_a_set_of_sixteen_is_within_the_limit_of_starts(life: Any) -> None:
    for _ in range(MOST):
        await admission.admit(life, {})


async def test_what_was_true_lately_is_good_enough_for_who_says_so(life: Any) -> None:
    choice = await admission.read(life, QUICK)
    await admission.check_room(life, choice)
    life.client.jobs = ["7"]
    await admission.check_room(life, choice, 60)
    with pytest.raises(RequestError):
        await admission.check_room(life, choice)


async def test_slurm_decides_while_it_does_not_say(life: Any) -> None:
    life.client.jobs, life.client.error = ["7"], SlurmError("squeue", 1, "Unable to contact slurm controller")
    assert (await admission.admit(life, QUICK)).partition == "devcore"


async def test_slurm_decides_for_who_asks_too_often(life: Any) -> None:
    life.allow(questions=1)
    choice = await admission.admit(life, QUICK)
    with pytest.raises(TooOftenError):
        await admission.check_room(life, choice)
    life.client.jobs = ["7"]
    assert await admission.admit(life, QUICK) == choice


async def test_only_a_start_that_goes_on_counts(life: Any) -> None:
    life.allow(starts=2)
    life.client.jobs = ["7"]
    for options in ({"cores": "many"}, QUICK):
        with pytest.raises(RequestError):
            await admission.admit(life, options)
    await admission.read(life, {})
    await admission.admit(life, {})
    await admission.may_submit(life)
    with pytest.raises(SessionError, match="Many sessions were started in the last minute") as refused:
        await admission.admit(life, {})
    assert (refused.value.status_code, refused.value.reason) == (429, "request")
