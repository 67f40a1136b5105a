"""SnowySpawner: glue between JupyterHub, a Site and Slurm. It decides; the packages below do."""

from __future__ import annotations

import asyncio
import pwd
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from batchspawner import SlurmSpawner
from batchspawner.batchspawner import BatchSpawnerBase
from jupyterhub import orm
from jupyterhub.utils import url_escape_path, url_path_join
from sqlalchemy import inspect
from tornado import web
from tornado.httpclient import AsyncHTTPClient, HTTPClientError
from traitlets import Dict, Float, Integer, Unicode, Union, default

from .choice import request, several
from .session import admission, own_environment, repository, script, status, support, usage
from .session.errors import SessionError
from .session.lifecycle import Life, same_node
from .session.messages import Words
from .session.record import Job, Phase, new_job
from .session.stopping import stop_if_forgotten
from .site import load_or_keep
from .slurm.client import prefix_for
from .web import admin_page, card, form, hub_private, job_api
from .web import form_pages as form_pages  # its routes are added by importing it
from .web import session_pages as session_pages  # and so are these
from .web import several_pages as several_pages  # and these
from .web import support_page as support_page  # and these
from .web.card import Section, sections
from .web.form_state import FormState, PrefillError, Typed, is_same, joined, mark, submitted, typed
from .web.turns import in_turn

_REACH_FOR = 5.0
_YEAR = 366 * 86400


class SnowySpawner(SlurmSpawner):  # type: ignore[misc]  # batchspawner has no types
    """Starts JupyterLab as a Slurm job, in a container, on the cluster that a Site describes.

    Guarantees: nothing that a person typed is text of a shell, a script or a template; no secret waits in the
    queue; a job that may be alive is never forgotten; `poll` changes nothing at Slurm.
    """

    site = Union(
        [Unicode(), Dict()],
        default_value="snowy",
        help="""
        The cluster: the name of a shipped site (``snowy``), the path of a YAML file, or a dict of the same shape.

        A file or dict may say ``extends: NAME`` and hold only what differs. The keys are explained in the
        reference of sites. It is checked when the hub starts, provided that the configuration ends in
        ``snowyspawner.set_config(c)``.
        """,
    ).tag(config=True)

    queue_timeout = Integer(
        12 * 3600,
        min=0,
        help="""
        Seconds that a job may wait in the queue, counted from the time it should begin. 0: no limit.

        A job that has not started by then is cancelled.
        """,
    ).tag(config=True)

    launch_timeout = Integer(
        180,
        min=1,
        help="""
        Seconds from the job's start until its server answers. Then the job is cancelled.
        """,
    ).tag(config=True)

    stop_grace = Float(
        10.0,
        min=0.0,
        help="""
        Seconds that a server has to leave after SIGTERM, before everything in the job gets SIGKILL.
        """,
    ).tag(config=True)

    command_timeout = Float(
        30.0,
        min=1.0,
        help="""
        Seconds that each of Slurm's commands has to answer.

        A command that takes longer is ended. A job that sbatch was handing over then is looked for by its name.
        """,
    ).tag(config=True)

    usage_interval = Integer(
        120,
        min=0,
        help="""
        Seconds between two times that a job says what it uses of its cores, memory and GPUs. 0: that is not measured.

        The last of it is kept with how the session ended, until its next start.
        """,
    ).tag(config=True)

    check_result = Unicode(
        "snowyspawner-check.json",
        help="""
        The file in which ``snowyspawner check -f`` keeps its last result, which the page of all sessions shows to
        administrators.

        A relative path is below the hub's working directory, as that of JupyterHub's own default database is; run the
        check there, as the hub's account. Without the file nothing is shown.
        """,
    ).tag(config=True)

    choice: request.SessionRequest | None  # of the start under way, checked
    options: Mapping[str, Any]  # what it was made of
    attaches: bool  # the next start goes on with the job that is there, whatever options JupyterHub has kept
    replaces: Job | None  # a job that waits and is ended by the start under way
    group: several.Group | None  # of the sessions that were started together
    form_state: FormState
    life: Life

    # -- choices -----------------------------------------------------------------------------------------------

    @default("options_form")
    def _default_options_form(self) -> Callable[[Any], str]:
        return lambda spawner: spawner.form_state.form()

    @default("options_from_form")
    def _default_options_from_form(self) -> Callable[[dict[str, list[str]]], dict[str, str]]:
        # Not a coroutine: it must set the variable in the context of the request that renders the form again.
        def options_from_form(form_data: dict[str, list[str]]) -> dict[str, str]:
            options = request.from_form(form_data)
            if key := next(iter(form_data.get(form.COURSE, [])), ""):
                # Its card has a Start of its own: what it asks for counts, not what stands in the fields.
                options = dict(self.form_state.of_course(key) or {**options, form.COURSE: key})
            typed.set(Typed(options, server_name=self.name))
            return options

        return options_from_form

    def options_from_query(self, query_data: dict[str, list[str]]) -> dict[str, Any]:
        """Show the form with these values: a GET never starts anything."""
        self.form_state.prefill(request.from_form(query_data), self.name)
        raise PrefillError

    @default("server_token_scopes")
    def _default_server_token_scopes(self) -> Callable[[Any], Awaitable[list[str]]]:
        # Not what the trait is for. JupyterHub's own work in a start is mostly its tokens; they come next, and nothing
        # else of a spawner is awaited before: group_overrides, apply_user_options and pre_spawn_hook come after.
        def scopes(spawner: Any) -> Awaitable[list[str]]:
            # It has begun to write, and any other request that ends before we go on would undo that.
            inspect(spawner.orm_spawner).session.commit()
            spawner.look_after_start()
            return in_turn([])  # none of our own: those of the role "server"

        return scopes

    @default("apply_user_options")
    def _default_apply_user_options(self) -> Callable[[Any, dict[str, Any]], Awaitable[None]]:
        return lambda spawner, options: spawner._apply(options)

    async def _apply(self, options: Mapping[str, Any]) -> None:
        """Take the choices of this start, whichever way they came. Raises `SessionError`, a sentence per field."""
        waiting = self.life.job if self.life.resumable else None
        options, replaces = {k: v for k, v in options.items() if k != "replace"}, options.get("replace")
        self.replaces, self.options = None, options
        if form.COURSE in options:
            gone = "this card is not there any more, or not yet to be started: look at the cards again"
            raise _refusal(request.RequestError({"course": gone}))
        attaches, self.attaches = self.attaches, False
        if waiting:
            # JupyterHub has kept the new ones, and would start with them when nothing is chosen, also if refused here.
            self.user_options = self.orm_spawner.user_options = waiting.options
        if waiting and (attaches or not options or options == waiting.options):
            # The waiting job has this choice, which was checked when it was submitted.
            self.choice = request.load(waiting.request)
            await self.life.slurm_name()  # whose home it is, for what JupyterLab opens
        else:
            try:
                self.choice = await self._admitted(options, waiting, replaces)
            except request.RequestError as error:
                raise _refusal(error) from error
        wait = max(0.0, (self.choice.begin or 0) - time.time())
        # Our own timers come first; JupyterHub's only has to be later.
        self.start_timeout = int(wait + (self.queue_timeout or _YEAR) + self.launch_timeout + 120)

    async def _admitted(self, options: dict[str, Any], waiting: Job | None, replaces: Any) -> request.SessionRequest:
        """Return the choice with which a start goes on. Raises `request.RequestError`, `SessionError`."""
        if waiting is None:
            return await admission.admit(self.life, options)
        choice = await admission.read(self.life, options)
        if is_same(choice, waiting):
            return request.load(waiting.request)
        if replaces not in (waiting.job_id, waiting.name):
            raise self.form_state.already_waits(waiting, choice)
        await admission.may_submit(self.life)
        self.replaces = waiting
        self.user_options = self.orm_spawner.user_options = options
        return choice

    # -- what is stored ----------------------------------------------------------------------------------------

    def __init__(self, **kwargs: Any) -> None:
        """Load the Site. Raises `SiteError` if it cannot be used."""
        super().__init__(**kwargs)
        self.choice = None
        self.attaches = False
        self.replaces = None
        self.group = None
        self.options = {}
        self.form_state = FormState(self)
        self.life = self._find_life()

    def _find_life(self) -> Life:
        """Return the life of this server: JupyterHub drops Spawner objects, whose jobs may still be ending.

        Two lives would write over each other's state.
        """
        hooks = (self.store, self.log, lambda: hub_private.log_name(self), lambda: str(self.user.name))
        session = inspect(self.orm_spawner).session if self.orm_spawner else None
        lives = session.info.setdefault("snowyspawner", WeakValueDictionary()) if session else {}
        # A database gives the number of a row that was removed to the next one, which may be somebody else's.
        key = (self.orm_spawner.id, self.orm_spawner.user.cookie_id, self.name) if session else None
        life: Life | None = lives.get(key) if session else None
        if life is None or not life.tasks.busy:
            life = Life(load_or_keep(self.site, self.log), *hooks, timeout=self.command_timeout)
            if session and self.orm_spawner.id is not None:
                lives[key] = life
        else:
            life.store, life.log, life.label, life.who = hooks
            life.tasks.log, life.tasks.label = hooks[1:3]
        return life

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up what an earlier hub stored."""
        if not self.life.tasks.busy:
            self.life.load(state)
        self.form_state.load(state.get("own"))
        self.group = several.load_group(state.get("group"))
        self._show_job_id()

    def get_state(self) -> dict[str, Any]:
        """Return what survives the hub: the job, how the last one ended, the last accepted choice, the group."""
        # What is kept of a person stands in the state of the default server, which everybody has.
        own = {} if self.name else {"own": self.form_state.stored.model_dump()}
        return {**self.life.state(), "group": self.group and self.group.model_dump(), **own}

    def clear_state(self) -> None:
        """Forget the job unless it may still be alive: then the next start attaches to it."""
        super(BatchSpawnerBase, self).clear_state()
        self.life.forget_if_over()
        self._show_job_id()

    def store(self) -> None:
        """Write the state at once: a hub that dies in the next moment must not lose a job."""
        self._show_job_id()
        session = inspect(self.orm_spawner).session
        if session is None:
            return  # the server was removed while something of it was still under way
        self.orm_spawner.state = self.get_state()
        session.commit()

    def _show_job_id(self) -> None:
        self.job_id = self.life.job.job_id if self.life.job else ""

    @property
    def job(self) -> Job | None:
        """The job of this server, if there is one."""
        return self.life.job

    # -- start, stop, poll -------------------------------------------------------------------------------------

    async def start(self) -> str:
        """Attach to the stored job if it is alive, else submit one; return the server's URL.

        A cancelled start touches nothing: a hub that shuts down cancels every start, and waiting jobs live on.
        Only `stop` ends a job. Raises `SessionError`.
        """
        if self.internal_ssl:
            raise SessionError(Words("internal_ssl is not supported by snowyspawner yet."), reason="unsupported")
        life, error = self.life, None
        life.failure, life.claimed_here = None, False
        try:
            if life.job and (life.job.phase in ("serving", "stopping") or life.job is self.replaces):
                # JupyterHub has given that server up, and its token; a hub died while it stopped it. Or the person has
                # chosen something else.
                await self.stop()
                life.failure = None
            return await self._serve()
        except BaseException as raised:
            error = raised
            raise
        finally:
            life.started(error)

    def look_after_start(self) -> None:
        """Stop this server if JupyterHub cancels the start under way, and does no more."""
        if start := hub_private.start_of(self):
            name, log = hub_private.log_name(self), self.log

            def forgotten() -> bool:
                return self.user.spawners.get(self.name) is self and self.ready

            work = stop_if_forgotten(start, forgotten, lambda: self.user.stop(self.name), name, log)
            self.life.tasks.replace("forgotten", work)

    async def _serve(self) -> str:
        job = self.life.job
        if job is None or not self.life.resumable or not await self.life.found(job):
            job = await self._submit()
        self.life.attached = True
        if event := submitted.get():
            event.set()
        self._keep_token(job)
        await self.life.until_serving(job, self.queue_timeout, self.launch_timeout)
        await self._reach(job)
        self._guard(job)
        return self._address(job)

    async def _submit(self) -> Job:
        account, choice = await self.life.account(), self.choice
        if choice is None:
            raise RuntimeError("JupyterHub calls apply_user_options before start")
        job, secret = new_job(self.name, choice.model_dump(), self.options)
        self.group = joined.get()
        try:
            text = script.build(self.life.site, choice, self.target(job.name, account))
        except ValueError as error:
            message = Words("The job script cannot be written.", "Tell support.")
            raise SessionError(message, reason="unsupported", detail=str(error)) from None
        # A time and a reservation pass; offered again, they would be refused.
        self.life.last_request = {**choice.options(self.life.site), "begin": "", "reservation": ""}
        env = script.variables(account, secret)
        try:
            await self.life.submit(job, text, prefix_for(account, env), env)
        except SessionError as error:
            if error.words.field:
                mark({error.words.field: error.jupyterhub_message})
            raise
        self.form_state.remember(choice)
        return job

    def target(self, job_name: str, account: pwd.struct_passwd) -> script.Target:
        """Return what the script of a job of this server needs beside the choice."""
        return script.Target(
            name=job_name,
            home=account.pw_dir,
            hub_url=self.get_env()["JUPYTERHUB_API_URL"].rstrip("/") + "/" + job_api.PREFIX,
            server=self.orm_spawner.id,
        )

    async def get_url(self) -> str:
        """Return where the server is, as this job said it: JupyterHub's own row may not have been written."""
        job = self.life.job
        if job is None or not job.port:
            return str(self.server.url)
        return self._address(job) + str(self.server.base_url)

    def _address(self, job: Job) -> str:
        return f"http://{self.life.site.address(job.node)}:{job.port}"

    async def _reach(self, job: Job) -> None:
        """Fetch the server's /api as JupyterHub will, so that an address out of reach fails in words."""
        deadline = time.monotonic() + _REACH_FOR
        while problem := await self._problem(job):
            if time.monotonic() > deadline:
                raise SessionError.given_up("unreachable", f"{self._address(job)}: {problem}", job.node)
            await asyncio.sleep(0.2)

    async def _problem(self, job: Job) -> str:
        """Return why the server does not answer the hub; empty if it does."""
        url = f"{self._address(job)}{self.server.base_url}api" if self.server else self._address(job)
        try:
            await AsyncHTTPClient().fetch(
                url,
                request_timeout=2,
                connect_timeout=2,
                follow_redirects=False,
                streaming_callback=lambda chunk: None,  # however much it sends
            )
        except HTTPClientError as error:
            # What answers is the person's: none of its words are passed on.
            return f"it answers {error.code}" if error.code >= 500 else ""
        except OSError as error:
            return error.strerror or type(error).__name__
        except Exception as error:  # a name that is none (UnicodeError), an answer that is no HTTP (ValueError) …
            return type(error).__name__
        return ""

    async def poll(self) -> int | None:
        """Return None while the session lives, else an exit code.

        A job that only waits counts while a start() of this hub follows it: after a restart JupyterHub then sees
        "not running", touches nothing, and the next start attaches.
        """
        job = self.life.job
        if job is not None and job.phase == "serving":
            self._guard(job)
            # After a restart, Slurm may know that it ended meanwhile.
            await self.life.looked_at(job)
        if job is None or not job.alive:
            return self.life.last.exit_code if self.life.last else 0
        if job.phase == "serving":
            return None
        if job.phase == "stopping" and not self.life.attached:
            self.finish_stop()
        return None if self.life.attached else 1

    def finish_stop(self) -> None:
        """Carry out the stop that a hub before this one began, in the background."""
        self.life.tasks.keep("stop", self.stop)

    def _guard(self, job: Job) -> None:
        async def answers() -> bool:
            return not await self._problem(job)

        self.life.tasks.keep("guard", lambda: self.life.guard(job, answers, self._noticed_end))

    async def _noticed_end(self) -> None:
        self._drop_token(self.job)
        await self.poll_and_notify()

    async def stop(self, now: bool = False) -> None:
        """End the job. Returns only once Slurm has accepted that, or the job is known to be over."""
        self._drop_token(await self.life.stop(0.0 if now else self.stop_grace))

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """Yield an event when there is something new to say, and heartbeats. Reads memory only."""
        async for event in status.events(lambda: self.life.status):
            yield event

    def card(self, failure: BaseException | None = None) -> card.Card:
        """Return what pages show of this server; *failure* is what its last start ended with, if they are about that.

        Reads memory only.
        """
        path = url_path_join(self.user.escaped_name, url_escape_path(self.name))
        return card.card_of(self.life, path, ready=self.ready, pending=self.pending, failure=failure)

    def whose(self) -> support.Whose:
        """Return whose session it is, for a text that goes to others. Reads memory only."""
        home = self.life.known_account.pw_dir if self.life.known_account else ""
        return support.Whose(self.user.name, self.display_name or self.name, [self.life.known_slurm_name], home)

    def support_mail(self) -> str:
        """Return the address of a link that writes to support of how the last session ended; empty if there is none."""
        last, site = self.life.last, self.life.site
        return support.mail(last, card.why(last, site), site, self.whose()) if last else ""

    def sees_others(self, scopes: Any) -> bool:
        """Tell whether this person may see other people's sessions: JupyterHub's parsed *scopes* of a page say it."""
        return admin_page.sees_others(scopes, self.user.name)

    def sections(self, names: Iterable[str]) -> list[Section]:
        """Return what the home page shows of this person's servers *names*. Reads memory only."""
        spawners = [self.user.spawners[name] for name in names]
        shown = [(spawner.name, spawner.card(), spawner.group) for spawner in spawners]
        # One's own server is only worth a place when something runs there, has run there, or there is no other.
        return sections(each for each in shown if each[0] or each[1].kind != "idle" or len(shown) == 1)

    # -- what the job says (called by web/job_api.py) ----------------------------------------------------------

    def claimed(self, job_id: str, node: str) -> dict[str, Any] | None:
        """Hand the job its server's environment; None while no start() of this hub follows it, or its number is open.

        Raises HTTPError 410 when the session is over for the hub.
        """
        job = self._expect("submitting", "pending", "launching")
        # Which number it has is Slurm's word (sbatch's, or squeue's of the job's name): it could say somebody else's.
        if not self.life.attached or job.job_id != job_id:
            return None
        self.life.claimed(job, node)
        # Not in the script, which has little room, and is sent to Slurm for everybody.
        shell = own_environment.ACTIVATE if self.choice and self.choice.own_environment else ""
        shell += repository.FETCH if self.choice and self.choice.repository else ""
        # One that took up a job of a hub before it knows the job's choice as well.
        sampler = usage.sampler(request.load(job.request), self.life.site, self.usage_interval)
        warns = self.life.site.warning(request.load(job.request).time_limit)
        return {
            "env": self.get_env(),
            "cmd": [*self.cmd, *self.get_args()],
            "shell": shell,
            "extension": script.extension() if warns or sampler else "",
            "sampler": {**sampler, "text": script.carried("sampler.py")} if sampler else None,
        }

    async def serving(self, port: int, node: str) -> dict[str, Any] | None:
        """Note where the server answers; None as in `claimed`, and while Slurm has not said where the job runs.

        The answer says ``again`` when the environment came from a hub before this one: its token is gone.
        Raises HTTPError 410; 403 for a node that is not the job's, or a port that no server may have.
        """
        job = self._expect("launching")
        if not self.life.attached:
            return None
        if not self.life.claimed_here:
            return {"again": True}
        if not self.life.site.may_listen(port):
            raise web.HTTPError(403, "port: not one that a server may have here")
        # The job is its owner's: it must not lead the hub to a host of their choice.
        where = await self.life.node_of(job, node)
        if not where:
            return None
        if self.life.job is not job or job.phase != "launching":  # meanwhile
            raise web.HTTPError(410, "nobody waits for this")
        if not same_node(node, where):
            self.log.warning(
                "Job %s of %s says that it runs on %r; Slurm says %s",
                job.job_id,
                hub_private.log_name(self),
                node,
                where,
            )
            raise web.HTTPError(403, "node: not where this job runs")
        self.life.serving(job, port, where)
        return {}

    def gave_up(self, code: int, detail: str, log: list[str]) -> dict[str, Any]:
        """Note why the job cannot serve, or no longer does. Raises HTTPError 410."""
        self.life.gave_up(self._expect("launching", "serving", "stopping"), code, detail, log)
        return {}

    def used(self, said: usage.Usage) -> dict[str, Any]:
        """Note what the job has used so far; end it if nobody has used it for too long. Raises HTTPError 410.

        The answer says how many seconds are left if nobody uses it, when it is time to warn of that.
        """
        job = self._expect("serving", "stopping")
        self.life.used(job, said)
        idle, now = self.life.idle, time.time()
        if idle is None or not idle.is_near(now):
            return {}
        if now >= idle.ends_at:
            end = partial(self.life.end_unused, job, idle.limit, self.stop_grace, self._noticed_end)
            self.life.tasks.keep("idle", end)
        return {"unused_left": max(0.0, idle.ends_at - now)}

    def _expect(self, *phases: Phase) -> Job:
        job = self.life.expects(*phases)
        if job is None:
            raise web.HTTPError(410, "nobody waits for this")
        return job

    # -- environment and token ---------------------------------------------------------------------------------

    def get_env(self) -> dict[str, str]:
        """Return the server's environment, its token included: only ever sent in answer to a claim."""
        env: dict[str, str] = super().get_env()
        if self.choice and (self.choice.open or self.choice.repository):
            env["JUPYTERHUB_DEFAULT_URL"] = self.choice.lab_path(self._root())
        else:
            env.setdefault("JUPYTERHUB_DEFAULT_URL", "/lab")
        if self.choice and self.choice.repository:
            env.update(repository.variables(self.choice, self._root()))
        # c.Spawner.environment may hold numbers; a process's environment is text.
        return {name: str(value) for name, value in env.items() if value is not None}

    def _root(self) -> str:
        """Return what JupyterLab shows, `notebook_dir`, below the person's home; empty: that itself."""
        root = self.format_string(self.notebook_dir) if self.notebook_dir else ""
        account = self.life.known_account
        home = account.pw_dir.rstrip("/") if account else ""
        return "" if root in ("~", home) else str(root).removeprefix("~/").removeprefix(f"{home}/").strip("/")

    def user_env(self, env: dict[str, str]) -> dict[str, str]:
        """Leave HOME, USER and SHELL to the job, which knows them."""
        return env

    def _keep_token(self, job: Job) -> None:
        """Remember the row of this start's token, never the token; drop the row of an earlier hub's."""
        session = inspect(self.orm_spawner).session
        row = orm.APIToken.find(session, self.api_token) if self.api_token else None
        if row is not None and row.id != job.token_id:
            self._drop_token(job)
            job.token_id = row.id
            self.store()

    def _drop_token(self, job: Job | None) -> None:
        if job is None or job.token_id is None:
            return
        session = inspect(self.orm_spawner).session
        row = session.get(orm.APIToken, job.token_id)
        if row is not None and row.user is self.orm_spawner.user:
            session.delete(row)
        job.token_id = None
        self.store()


def _refusal(error: request.RequestError) -> SessionError:
    """Return what JupyterHub shows; a form has the sentences at its fields."""
    if mark(error.errors):
        message = Words("Nothing was started.")
    else:
        listed = "; ".join(f"{field}: {text}" for field, text in error.errors.items())
        message = Words(f"Nothing was started. {listed}.")
    return SessionError(message, reason="request", status_code=400)


def ineffective_traits() -> list[str]:
    """Return the names of batchspawner's traits that have no effect here."""
    own = SnowySpawner.class_own_traits(config=True)
    return sorted(
        {
            name
            for base in SlurmSpawner.__mro__
            if base.__module__.startswith("batchspawner") and hasattr(base, "class_own_traits")
            for name in base.class_own_traits(config=True)
        }
        - own.keys()
        - {"start_timeout", "ip"}
    )
