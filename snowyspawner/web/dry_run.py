"""What would come of a choice, without starting it: the script, the command, when Slurm expects it to start."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from ..choice import summary
from ..choice.request import RequestError, SessionRequest
from ..session import admission, estimate, messages, script
from ..session.errors import SessionError
from ..session.lifecycle import Life
from ..site import Site
from ..slurm.client import SlurmError, prefix_for
from ..slurm.facts import JOBS_FOR
from ..slurm.times import NOW, say_wait

_ALTERNATIVES = 3


def job_script(life: Life, choice: SessionRequest, target: script.Target) -> tuple[list[str], str]:
    """Return the command that would be run and the script it would read."""
    return life.watcher.client.submit_command(), script.build(life.site, choice, target)


def command(site: Site, choice: SessionRequest, target: script.Target) -> list[str]:
    """Return the choice as one sbatch command, for people to read; the hub sends the same as a script."""
    cluster = ["-M", site.cluster] if site.cluster else []
    return ["sbatch", *cluster, *script.sbatch_options(site, choice, target)]


async def when(life: Life, choice: SessionRequest, target: script.Target) -> dict[str, Any]:
    """Say when Slurm expects this very choice to start, and what would start sooner.

    Raises `estimate.TooOftenError`, `SessionError`.
    """
    answer, now = await _ask(life, choice, target), time.time()
    if not answer.answered:
        sentence = f"There is no estimate: {str(answer.refused).replace('; nothing was started', '')}"
        return {"sentence": sentence, "start": None, "errors": {}, "sooner": None}
    if answer.refused:
        at_fault = {answer.refused.field: str(answer.refused)} if answer.refused.field else {}
        sentence = f"{answer.refused} (Slurm says: {answer.detail})"
        return {"sentence": sentence, "start": None, "errors": at_fault, "sooner": None}
    if answer.start is None:
        sentence = "Slurm would take this, but does not say when it would start."
        return {"sentence": sentence, "start": None, "errors": {}, "sooner": None}
    wait = say_wait(answer.start - now)
    sentence = "Slurm expects this to start now."
    if wait != "now":
        sentence = f"Slurm expects this to start {wait}, {summary.say_moment(answer.start, life.site)}."
        sentence += " That is a guess: jobs that end early or come before yours change it."
    late = answer.start - max(now, choice.begin or 0) > NOW
    sooner = await _sooner(life, choice, target, answer.start) if late else None
    return {"sentence": sentence, "start": answer.start, "errors": {}, "sooner": sooner}


async def _ask(life: Life, choice: SessionRequest, target: script.Target) -> estimate.Answer:
    _, text = job_script(life, choice, target)
    account = await life.account()
    env = script.variables(account, "")
    # Nothing starts, so there is no secret; and the rest is what the job would inherit.
    del env["SNOWYSPAWNER_SECRET"]
    try:
        prefix = prefix_for(account, env)
    except SlurmError as error:
        raise SessionError(messages.refusal(error.stderr, ()), reason="slurm", detail=error.stderr) from None
    sent = messages.fields_sent(choice.model_dump())
    estimator = estimate.shared_estimator(life.facts.client)
    return await estimator.ask(await life.slurm_name(), text, prefix, env, sent)


async def _sooner(life: Life, choice: SessionRequest, target: script.Target, start: int) -> dict[str, Any] | None:
    """Try a few other ways to have nearly the same; return the one that starts first, if any does sooner."""
    best: tuple[int, SessionRequest] | None = None
    for tried, other in enumerate(alternatives(life, choice)):
        if tried == _ALTERNATIVES:
            break
        try:
            await admission.check_room(life, other, JOBS_FOR)
            answer = await _ask(life, other, target)
        except RequestError:
            continue
        except estimate.TooOftenError:
            break
        if answer.good and answer.start and answer.start < (best[0] if best else start) - NOW:
            best = answer.start, other
    if best is None:
        return None
    before, after = choice.options(life.site), best[1].options(life.site)
    what = summary.difference(choice, best[1], life.site)
    sentence = f"{what[:1].upper()}{what[1:]} it would start {say_wait(best[0] - time.time())}."
    values = {field: text for field, text in after.items() if text != before[field]}
    return {"sentence": sentence, "start": best[0], "values": values}


def alternatives(life: Life, choice: SessionRequest) -> Iterator[SessionRequest]:
    """Yield what is nearly the same and possible: in another partition, then as the presets have it."""
    site, options = life.site, choice.options(life.site)
    ways = [{"partition": key} for key in site.partitions]
    for preset in site.presets.values():
        given = preset.choices.model_dump(exclude_none=True)
        ways.append({name: str(given[name]) for name in ("environment", "partition", "gpu") if name in given})
    seen = [choice]
    whole = site.partitions[choice.partition].whole_node
    for way in ways:
        other = admission.review(life, {**options, **way}).request
        # A whole node is sooner only for who is ready to pay for it.
        if other and other not in seen and (whole or not site.partitions[other.partition].whole_node):
            seen.append(other)
            yield other
