"""What accounting says of people: asked once, remembered, kept while it does not answer."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from snowyspawner.choice.request import RequestError, default_options, from_options
from snowyspawner.metrics import BACKGROUND_FAILURES
from snowyspawner.session.estimate import TooOftenError
from snowyspawner.site import Site
from snowyspawner.slurm.accounting import parse_accounts
from snowyspawner.slurm.client import SlurmError, parse_hides_jobs
from snowyspawner.slurm.facts import Facts
from snowyspawner.slurm.nodes import PartitionFacts
from snowyspawner.slurm.reservations import Reservation

LOG = logging.getLogger("test")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class StandInClient:
    """A stand-in for SlurmClient: answers what the test has put in, when the test lets it."""

    def __init__(self) -> None:
        self.answers: dict[str, list[str]] = {}
        self.error: SlurmError | None = None
        self.asked: list[str] = []
        self.looks = self.counted = 0
        self.jobs: dict[tuple[str, str], list[str]] = {}
        self.hides = False
        self.was_asked, self.may_answer = asyncio.Event(), asyncio.Event()
        self.may_answer.set()

    async def accounts(self, user: str, prefix: Sequence[str] = ()) -> list[str]:
        self.asked.append(" ".join([*prefix, user]))
        self.was_asked.set()
        await self.may_answer.wait()
        if self.error:
            raise self.error
        return self.answers.get(self.asked[-1], [])

    async def partitions(self) -> dict[str, PartitionFacts]:
        self.looks += 1
        self.was_asked.set()
        await self.may_answer.wait()
        if self.error:
            raise self.error
        return {"core": PartitionFacts(free_cores=self.looks)}

    async def waiting(self) -> dict[str, int]:
        return {"core": 3}

    async def hides_jobs(self) -> bool:
        return self.hides

    async def reservations(self) -> list[Reservation]:
        return []

    async def jobs_in(self, partition: str, user: str, prefix: Sequence[str] = ()) -> list[str]:
        self.counted += 1
        if self.error:
            raise self.error
        return self.jobs.get((partition, " ".join([*prefix, user])), [])

    async def may_read(self, image: str) -> bool | None:
        self.asked.append(image)
        return {"yes.sif": True, "no.sif": False}.get(image)


@pytest.mark.parametrize(
    ("output", "accounts"),
    [
        # sacctmgr 22.05: an association with a partition of its own is a second line of the same account.
        ("g2021027|g2021027\n", ["g2021027"]),
        ("staff|staff\ng2020014|staff\nstaff|staff\n", ["staff", "g2020014"]),
        # The same, of the miniature cluster: what was made last comes first, the person's default after it.
        ("aa|g2021027\nzz|g2021027\ng2021027|g2021027\n", ["g2021027", "aa", "zz"]),
        # A default that is of another cluster, or none.
        ("g2020014|staff\n", ["g2020014"]),
        ("g2020014|\n", ["g2020014"]),
        ("", []),
        ("\n", []),
    ],
)
def test_accounts_are_read_once_each(output: str, accounts: list[str]) -> None:
    assert parse_accounts(output) == accounts


async def test_one_question_serves_everybody_who_asks_meanwhile() -> None:
    client = StandInClient()
    client.answers["ann"] = ["g1"]
    client.may_answer.clear()
    facts = Facts(client, LOG)
    asking = [asyncio.create_task(facts.accounts("ann")) for _ in range(5)]
    await client.was_asked.wait()
    client.may_answer.set()
    assert await asyncio.gather(*asking) == [["g1"]] * 5
    assert await facts.accounts("ann") == ["g1"]
    assert client.asked == ["ann"]
    assert facts.known_accounts("ann") == ["g1"]
    assert facts.known_accounts("bob") is None


async def test_the_last_answer_stays_while_accounting_is_away() -> None:
    client = StandInClient()
    client.answers["ann"] = ["g1"]
    facts = Facts(client, LOG, fresh_for=0)
    assert await facts.accounts("ann") == ["g1"]
    client.error = SlurmError("sacctmgr", 1, "Unable to connect to the database")
    assert await facts.accounts("ann") == ["g1"]
    assert await facts.accounts("bob") is None
    client.error = None
    client.answers["ann"] = ["g2"]
    facts._ask_accounting_at = 0.0
    assert await facts.accounts("ann") == ["g2"]


async def test_accounting_that_fails_is_asked_less_and_less_whoever_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred open forms must not keep commands waiting for a database that hangs."""
    client, clock = StandInClient(), Clock()
    monkeypatch.setattr("snowyspawner.slurm.facts.time.monotonic", clock)
    facts = Facts(client, LOG)
    client.error = SlurmError("sacctmgr", -1, "sacctmgr gave no answer in 30 seconds")
    tries = []
    for second in range(1200):
        clock.now = 1000.0 + second
        before = len(client.asked)
        for person in range(3):
            assert await facts.accounts(f"person{second}-{person}") is None
            facts.look_soon_at(f"person{second}-{person}", client.may_read, [])
        tries += [second] * (len(client.asked) - before)
    # 5 s after the first failure, then 10, 20, …, at most five minutes.
    assert tries == [0, 5, 15, 35, 75, 155, 315, 615, 915]
    client.error = None
    clock.now += 300
    client.answers["ann"] = ["g1"]
    assert await facts.accounts("ann") == ["g1"]
    client.error = SlurmError("sacctmgr", 1, "x")
    await facts.accounts("bob")
    assert facts._ask_accounting_at == clock.now + 5


async def test_a_start_waits_for_accounting_only_so_long() -> None:
    client = StandInClient()
    client.answers["ann"] = ["g1"]
    client.may_answer.clear()
    facts = Facts(client, LOG)
    assert await asyncio.wait_for(facts.accounts("ann", 0.05), 2) is None
    client.may_answer.set()
    # The answer was not thrown away.
    assert await facts.accounts("ann", 1) == ["g1"]
    assert client.asked == ["ann"]


async def test_an_error_that_nobody_foresaw_is_logged_and_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    client = StandInClient()
    facts = Facts(client, LOG, live_for=0)
    before = BACKGROUND_FAILURES.labels("facts")._value.get()
    client.error = ValueError("a row that nobody has seen before")  # type: ignore[assignment]
    assert await facts.accounts("ann") is None
    facts.look_soon()
    await asyncio.gather(*facts._asking.values())
    assert caplog.text.count("it is tried again when somebody looks") == 2
    assert BACKGROUND_FAILURES.labels("facts")._value.get() == before + 2
    client.error = None
    client.answers["ann"] = ["g1"]
    assert await facts.accounts("ann") == ["g1"]
    facts.look_soon()
    await asyncio.gather(*facts._asking.values())
    assert facts.live is not None


async def test_jobs_are_counted_once_however_often_it_is_asked() -> None:
    client = StandInClient()
    facts = Facts(client, LOG)
    asked: list[int] = []
    may_ask = lambda: asked.append(1)  # noqa: E731
    client.jobs["devcore", "ann"] = ["17"]
    answers = await asyncio.gather(*(facts.jobs_in("devcore", "ann", may_ask) for _ in range(200)))
    assert answers == [["17"]] * 200
    client.jobs["devcore", "ann"] = []
    assert await facts.jobs_in("devcore", "ann", may_ask) == ["17"]
    assert (len(asked), client.counted) == (1, 1)
    # Who is about to start has just stopped it, perhaps.
    assert await facts.jobs_in("devcore", "ann", may_ask, 0.0) == []
    assert (len(asked), client.counted) == (2, 2)

    def no() -> None:
        raise TooOftenError

    with pytest.raises(TooOftenError):
        await facts.jobs_in("devcore", "bob", no)
    assert client.counted == 2
    client.error = SlurmError("squeue", 1, "away")
    with pytest.raises(SlurmError):
        await facts.jobs_in("devcore", "bob", may_ask)


async def test_nobody_named_is_nothing_known() -> None:
    assert await Facts(StandInClient(), LOG).accounts("ann") is None


def test_a_project_of_somebody_else_is_refused(snowy: Site) -> None:
    with pytest.raises(RequestError) as caught:
        from_options({"account": "g2020014"}, snowy, accounts=["g2021027", "staff"])
    assert caught.value.errors == {
        "account": "'g2020014' is not one of your projects: choose g2021027 or staff",
    }
    assert from_options({"account": "staff"}, snowy, accounts=["g2021027", "staff"]).account == "staff"
    # Not known is not forbidden: Slurm decides.
    assert from_options({"account": "g2020014"}, snowy, accounts=None).account == "g2020014"


def test_who_cannot_use_the_default_project_has_their_own(snowy: Site) -> None:
    assert default_options(snowy, ["staff"])["account"] == "staff"
    assert default_options(snowy, ["staff", "g2021027"])["account"] == "g2021027"
    assert from_options({}, snowy, accounts=["staff"]).account == "staff"


# -- the cluster -------------------------------------------------------------------------------------------------


async def test_nobody_waits_for_the_cluster_and_many_looks_are_one_question(
    aeventually: Callable[..., Awaitable[Any]],
) -> None:
    client = StandInClient()
    client.may_answer.clear()
    facts = Facts(client, LOG)
    for _ in range(5):
        facts.look_soon()
        assert facts.live is None
        assert facts.age is None
        await asyncio.sleep(0)
    client.may_answer.set()
    await aeventually(lambda: facts.live, "an answer")
    assert facts.live is not None
    assert facts.live.partitions["core"].free_cores == 1
    assert facts.live.waiting == {"core": 3}
    assert facts.age is not None
    assert facts.age < 5
    # It is good for a while, and nothing is asked when nobody looks.
    facts.look_soon()
    await asyncio.sleep(0.05)
    assert client.looks == 1


async def test_the_last_good_answer_stays_with_its_age(aeventually: Callable[..., Awaitable[Any]]) -> None:
    client = StandInClient()
    facts = Facts(client, LOG, live_for=0)
    facts.look_soon()
    await aeventually(lambda: facts.live, "an answer")
    client.error = SlurmError("sinfo", 1, "Unable to contact slurm controller")
    facts.look_soon()
    await aeventually(lambda: facts.failing_since, "the failure")
    since = facts.failing_since
    facts.look_soon()
    await aeventually(lambda: client.looks == 3, "another look")
    assert facts.failing_since == since
    assert facts.live is not None
    assert facts.live.partitions["core"].free_cores == 1
    client.error = None
    facts.look_soon()
    await aeventually(lambda: facts.failing_since is None, "Slurm back")
    assert facts.live.partitions["core"].free_cores == 4


async def test_a_person_s_projects_and_images_are_asked_for_in_passing(
    aeventually: Callable[..., Awaitable[Any]],
) -> None:
    client = StandInClient()
    client.answers["ann"] = ["g1"]
    facts = Facts(client, LOG)
    for _ in range(3):
        facts.look_soon_at("ann", client.may_read, ["yes.sif", "no.sif", "elsewhere.sif"])
    await aeventually(lambda: facts.known_accounts("ann"), "the projects")
    await aeventually(lambda: facts.readable("ann", "no.sif") is not None, "the images")
    assert [facts.readable("ann", name) for name in ("yes.sif", "no.sif", "elsewhere.sif")] == [True, False, None]
    assert facts.readable("bob", "yes.sif") is None
    assert client.asked.count("ann") == 1
    facts.look_soon_at("bob", client.may_read, [])
    await aeventually(lambda: "bob" in client.asked, "bob's projects")
    assert client.asked.count("yes.sif") == 1


def test_without_an_event_loop_nothing_is_asked() -> None:
    client = StandInClient()
    facts = Facts(client, LOG)
    facts.look_soon()
    facts.look_soon_at("ann", client.may_read, ["yes.sif"])
    assert client.asked == []


async def sudo() -> list[str]:
    return ["sudo"]


async def sudo_is_broken() -> list[str]:
    raise SlurmError("sudo", 1, "sudo: a password is required")


async def nobody() -> list[str]:
    return []


@pytest.mark.parametrize(
    ("root", "prefix", "shown"),
    [
        (False, sudo, ["g7"]),
        (False, sudo_is_broken, None),
        (False, nobody, None),  # the hub runs as the person
        (False, None, None),
        (True, sudo, None),
    ],
)
async def test_what_slurm_hides_from_the_hub_it_shows_the_person(
    monkeypatch: pytest.MonkeyPatch, root: bool, prefix: Any, shown: list[str] | None
) -> None:
    """PrivateData of slurm.conf(5) and slurmdbd.conf(5). Root is shown all there is, so none is none."""
    monkeypatch.setattr("snowyspawner.slurm.facts.sees_all_jobs", lambda: root)
    client = StandInClient()
    client.answers["sudo ann"] = ["g7"]
    client.jobs["devcore", "sudo ann"] = ["17"]
    facts = Facts(client, LOG)
    assert await facts.accounts("ann", prefix=prefix) == shown
    assert await facts.jobs_in("devcore", "ann", lambda: None, prefix=prefix) == (["17"] if shown else [])
    # What the hub is shown is enough.
    client.answers["bob"], client.jobs["devcore", "bob"] = ["g1"], ["18"]
    assert await facts.accounts("bob", prefix=sudo) == ["g1"]
    assert await facts.jobs_in("devcore", "bob", lambda: None, prefix=sudo) == ["18"]
    assert "sudo bob" not in client.asked


@pytest.mark.parametrize(("hides", "waiting"), [(False, {"core": 3}), (True, None)])
async def test_jobs_that_are_hidden_are_not_counted_as_none(hides: bool, waiting: Any) -> None:
    client = StandInClient()
    client.hides = hides
    facts = Facts(client, LOG)
    facts.look_soon()
    await client.was_asked.wait()
    await asyncio.sleep(0.01)
    assert facts.live is not None
    assert facts.live.waiting == waiting


@pytest.mark.parametrize(
    ("line", "hides"),
    [
        # slurm.conf(5): a list of what is hidden; "none" is what scontrol 20.02 to 25.05 shows for the default.
        ("PrivateData             = none", False),
        ("PrivateData             = jobs", True),
        ("PrivateData             = accounts,jobs,usage", True),
        ("PrivateData             = all", True),
        ("PrivateData             = nodes,partitions,reservations", False),
        ("", False),
    ],
)
def test_whether_jobs_are_hidden_is_read_from_the_configuration(line: str, hides: bool) -> None:
    assert parse_hides_jobs(f"ClusterName = snowy\n{line}\nProctrackType = proctrack/cgroup\n") == hides
