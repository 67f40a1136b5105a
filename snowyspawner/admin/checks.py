"""`snowyspawner check -f FILE`: all checks of a hub, side by side, each within a time limit.

A check never raises: what breaks in it is what it says. It runs as the account that the hub runs as.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .. import config as hub_config
from ..choice import request
from ..session.as_person import Reader
from ..site import Site, SiteError, load
from ..slurm.client import SlurmClient, SlurmError, prefix_for
from . import host_checks, hub_checks, slurm_checks, sudo_checks, trial_job
from .report import Check, fail, ok, skip, warn, write

#: Seconds that each check has, and each of Slurm's commands.
LIMIT, COMMAND_LIMIT = 25.0, 15.0

_MEND = "Mend the site file (docs/reference/site.md), and try: snowyspawner check --site FILE"
_REST = skip("everything else", "not looked at before this is mended")

T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """What is checked: a hub's configuration, for a person (empty: nobody in particular), with a job or without."""

    config: str
    user: str = ""
    job: bool = False
    say: Callable[[str], None] = print  # shows how far a job is


def run(asked: Asked) -> list[Check]:
    """Run all checks; keep the result where the hub looks for it. KeyboardInterrupt ends a job first."""
    try:
        config, app = hub_config.loaded(asked.config)
    except SiteError as error:
        return [*(fail("site", line, _MEND) for line in str(error).splitlines()), _REST]
    except hub_config.ConfigError as error:
        mend = f"Mend it, and try: jupyterhub -f {asked.config} --show-config"
        return [*(fail("configuration", line, mend) for line in str(error).splitlines()), _REST]
    found = [ok("configuration", f"{asked.config} can be run; what follows is checked as {hub_checks.account_name()}")]
    site, checks = _site(config, app)
    found += checks
    found += asyncio.run(_all(asked, config, app, site))
    return [*found, *_keep(config, app, found)]


def _site(config: Any, app: Any) -> tuple[Site | None, list[Check]]:
    """Load the Site that *config* names."""
    if not hasattr(app.spawner_class, "site"):
        return None, [skip("site", "not looked at: another spawner has none")]
    source = hub_config.trait_of(config, app.spawner_class, "site")
    name = source if isinstance(source, str) else "c.SnowySpawner.site"
    try:
        site = load(source)
    except SiteError as error:
        return None, [fail("site", line, _MEND) for line in str(error).splitlines()]
    if wrong := request.problems(site):
        return site, [fail("site", line, _MEND) for line in wrong]
    count = f"partitions {', '.join(site.partitions)}; {len(site.presets)} presets"
    return site, [ok("site", f"{name}: {site.display_name}; {count}; times in {site.time_zone}")]


async def in_thread(work: Callable[..., T], *args: Any) -> T:
    """Return what *work* returns, from a thread that nobody waits for at the end: a disk may hang."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if not done.done():
            done.set_exception(error) if error else done.set_result(result)

    def call() -> None:
        result, error = None, None
        try:
            result = work(*args)
        except Exception as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=call, daemon=True).start()
    return await done


async def guarded(name: str, work: Awaitable[Iterable[Check]], limit: float | None = None) -> list[Check]:
    """Return what the check *name* finds; what breaks in it, or takes longer than *limit* seconds, is what it finds."""
    limit = LIMIT if limit is None else limit
    try:
        return list(await asyncio.wait_for(work, limit))
    except (TimeoutError, asyncio.TimeoutError):
        return [fail(name, f"no answer in {limit:g} s", "Does a disk, a directory service or Slurm hang? Try again")]
    except Exception as error:
        said = f"the check broke: {type(error).__name__}: {error}"
        return [fail(name, said, "Report it with this line: it is snowyspawner's fault, or the configuration's")]


async def _all(asked: Asked, config: Any, app: Any, site: Site | None) -> list[Check]:
    hub: list[hub_checks.HubFacts] = []

    async def configuration() -> list[Check]:
        hub.append(await in_thread(hub_checks.look, config, app))
        return hub_checks.judge(hub[0], site)

    if site is None:
        return await guarded("configuration", configuration())
    host = _Host(asked, site)
    parts = await asyncio.gather(
        guarded("configuration", configuration()),
        guarded("Slurm", host.slurm()),
        guarded("account", host.person()),
        guarded("images", host.images()),
        guarded("environments", host.environments()),
        guarded("logs", host.logs()),
    )
    found = [check for part in parts for check in part]
    alone = bool(hub) and (hub[0].alone or asked.user == hub[0].account)
    found += await host.rights(alone)
    if asked.job:
        found += await _job(asked, host, hub[0] if hub else None)
    return found


class _Host:
    """The checks of what is around the hub, for one Site and perhaps one person."""

    def __init__(self, asked: Asked, site: Site) -> None:
        self.asked, self.site = asked, site
        self.client = SlurmClient(site.cluster, site.slurm_conf, timeout=COMMAND_LIMIT)
        self.reader = Reader(site)

    async def account(self) -> pwd.struct_passwd | None:
        """Look up the person's account, or that of this process. None: there is none."""
        with contextlib.suppress(KeyError):
            if self.asked.user:
                return await in_thread(pwd.getpwnam, self.asked.user)
            return await in_thread(pwd.getpwuid, os.geteuid())
        return None

    async def slurm(self) -> list[Check]:
        prefix: list[str] = []
        account = await self.account()
        if account and self.asked.user and os.geteuid() != 0:
            with contextlib.suppress(SlurmError):
                prefix = prefix_for(account)
        user = account.pw_name if account and self.asked.user else self.asked.user
        facts = await slurm_checks.ask(self.site, self.client, user, prefix)
        return slurm_checks.judge(self.site, facts)

    async def person(self) -> Iterable[Check]:
        if not self.asked.user:
            return [skip("account", "not looked at: name a person with --user")]
        return host_checks.person(self.asked.user, await self.account())

    async def images(self) -> Iterable[Check]:
        account = await self.account()
        if account is None:
            return []
        keys = [key for key, image in self.site.images.items() if image.runtime != "none"]
        answers = {key: await self.reader.image(key, account) for key in keys}
        return host_checks.images(self.site, account.pw_name, answers) if keys else []

    async def environments(self) -> Iterable[Check]:
        return host_checks.environments(self.site, await in_thread(host_checks.look_at_environments, self.site))

    async def logs(self) -> Iterable[Check]:
        account = await self.account()
        if account is None or not self.asked.user:
            return [skip("logs", "not looked at: name a person with --user")]
        return host_checks.logs(self.site, *await in_thread(host_checks.look_at_logs, self.site, account.pw_dir))

    async def rights(self, alone: bool) -> list[Check]:
        """Check sudo and the helper, for a hub that needs them."""
        if os.geteuid() == 0 or alone:
            why = "not needed: the hub " + ("is root" if os.geteuid() == 0 else "is for this very account")
            return [skip("sudo", why), skip("helper", why)]
        parts = await asyncio.gather(guarded("sudo", self._sudo()), guarded("helper", self._helper()))
        return [check for part in parts for check in part]

    async def _sudo(self) -> Iterable[Check]:
        person = self.asked.user if await self.account() else ""
        return sudo_checks.sudo(self.site, await in_thread(sudo_checks.look_at_sudo, self.site, person))

    async def _helper(self) -> Iterable[Check]:
        facts = await in_thread(sudo_checks.look_at_helper, self.site)
        return sudo_checks.helper(self.site, facts, self.asked.config)


async def _job(asked: Asked, host: _Host, hub: hub_checks.HubFacts | None) -> list[Check]:
    account = await host.account()
    if account is None or account.pw_uid == 0 or hub is None:
        return [skip("job", "not submitted: see the other lines")]
    version = hub.versions.get("jupyterhub", "")
    trial = trial_job.Trial(host.site, hub.url, version, account, host.client, host.reader, asked.say)
    return await guarded("job", trial_job.run(trial), trial_job.QUEUE_LIMIT + 2 * trial_job.TIME_LIMIT)


def _keep(config: Any, app: Any, found: list[Check]) -> list[Check]:
    """Write the result where the hub looks for it; say so only where it cannot be."""
    if not hasattr(app.spawner_class, "check_result"):
        return []
    path = Path(hub_config.trait_of(config, app.spawner_class, "check_result")).absolute()
    try:
        write(path, found, time.time())
    except OSError as error:
        said = f"{path}: {error.strerror}: the administrators' page will not show it"
        remedy = "Run the check in the hub's directory and as its account, or set c.SnowySpawner.check_result"
        return [warn("result", said, remedy)]
    return []
