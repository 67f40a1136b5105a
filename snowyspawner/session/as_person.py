"""Read as a person what is theirs to see: a job's log, a course file, whether an image or their own software is there.

The hub itself opens nothing of a person's. helper.py does, as that person: given to Python on standard input where
the hub is root or the person, installed by the administrator where the hub has to ask sudo.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pprint
import pwd
import re
import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Literal, cast, get_args
from weakref import WeakValueDictionary

from ..choice.own import Answer, Found
from ..site import Site
from ..slurm import names
from ..slurm.client import SlurmError, prefix_for
from ..slurm.processes import starting

#: Seconds that anybody waits for an answer: a home directory on a disk that hangs must not hang the hub.
TIMEOUT = 5.0
#: The same where the helper looks into a container.
CONTAINER_TIMEOUT = 9.0
#: How many helpers run at a time, of all people.
AT_ONCE = 8

#: Whether a person may read something.
Readable = Literal["readable", "missing", "forbidden", "unknown"]

# Bytes of standard output and standard error. The helper prints 64 KiB at most, but it is a process of the person's,
# who may make it print anything.
_LIMITS = {1: 80 * 1024, 2: 8 * 1024}

_TABLE = 'TABLE = {"log": "", "courses": {}, "images": {}, "own": {}, "runtimes": []}  # see `snowyspawner helper`\n'
# ECMA-48: colors and what else steers a terminal.
_ESCAPES = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[ -/]*[0-~])")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class ReadError(Exception):
    """Something of a person's could not be read. The text is a sentence."""


class HelperError(ReadError):
    """The helper could not be run, or does not know what it was asked for: a matter for the administrator."""


class NotThereError(ReadError):
    """There is no such file."""


class ForbiddenError(ReadError):
    """This person may not read it."""


class RefusedError(ReadError):
    """It is no file, somebody else's, or too large."""


class NoAnswerError(ReadError):
    """There was no answer in time."""


# helper.py's exit codes.
_USAGE = 10
_ERRORS: dict[int, type[ReadError]] = {
    _USAGE: HelperError,
    11: NotThereError,
    12: ForbiddenError,
    13: RefusedError,
    14: ReadError,
}


def helper_text(site: Site) -> str:
    """Return helper.py with the log's name and the paths of *site* in it: complete in itself."""
    images = {key: image.path for key, image in site.images.items() if image.runtime != "none"}
    own = {"own_container": list(site.own.containers), "own_environment": list(site.own.environments)}
    filled = {"log": site.log, "courses": site.courses, "images": images, "own": own, "runtimes": _runtimes()}
    table = pprint.pformat(filled, width=110)
    before, mark, after = _source().partition(_TABLE)
    if not mark:
        raise RuntimeError("helper.py has no table to fill in")
    return f"{before}TABLE = {table}\n{after}"


@cache
def _runtimes() -> list[str]:
    """Return where container runtimes are, or are likely to be, on this host."""
    found = [shutil.which("apptainer"), shutil.which("singularity"), "/usr/bin/apptainer", "/usr/bin/singularity"]
    return list(dict.fromkeys(filter(None, found)))


@cache
def _source() -> str:
    return (Path(__file__).parent.parent / "standalone" / "helper.py").read_text(encoding="utf-8")


def showable(line: str) -> str:
    """Return a line of a log as a page can show it: of a progress bar its last state, no colors, no controls."""
    line = line.rstrip("\r").rpartition("\r")[2]
    return _CONTROLS.sub("\ufffd", _ESCAPES.sub("", line))


class Reader:
    """Reads as a person, on the hub's host.

    Guarantees: it gets keys, job numbers and names of projects, and a path only of one's own software; an answer within
    *timeout* seconds (of a container `CONTAINER_TIMEOUT`), or `NoAnswerError`; one helper at a time for each person,
    and *at_once* of all: one that hangs keeps its place until it has ended.
    """

    def __init__(self, site: Site, timeout: float = TIMEOUT, at_once: int = AT_ONCE) -> None:
        self.site, self.timeout, self.text = site, timeout, helper_text(site)
        self._places = asyncio.Semaphore(at_once)
        self._persons: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        self._running: set[asyncio.Task[bytes]] = set()

    async def log(self, job_id: str, account: pwd.struct_passwd) -> list[str] | None:
        """Return the last lines of a job's log (64 KiB), made `showable`; None when there is none. Raises `ReadError`.

        A job that waits, or whose log could not be opened, has none.
        """
        try:
            text = await self._ask(account, "log", job_id)
        except NotThereError:
            return None
        return [showable(line) for line in text.rstrip().split("\n")] if text.strip() else []

    async def course(self, key: str, account: pwd.struct_passwd, project: str = "") -> str:
        """Return the course file that the Site calls *key* (at most 64 KiB), *project*'s where there is one for each.

        Raises `ReadError`, `KeyError`; `ValueError` for a project whose name cannot be part of a path.
        """
        if "{account}" not in self.site.courses[key]:
            return await self._ask(account, "course", key)
        if not re.fullmatch(names.ACCOUNT_IN_PATH, project, re.ASCII):
            raise ValueError(f"{project!r} cannot be part of a path")
        return await self._ask(account, "course", key, project)

    async def image(self, key: str, account: pwd.struct_passwd) -> Readable:
        """Tell whether this person may read the image *key*, as seen from the hub's host. Raises `KeyError`.

        Unknown: nobody could tell in time. The nodes may see other disks than this host.
        """
        if self.site.images[key].runtime == "none":
            return "readable"
        try:
            answer = (await self._ask(account, "image", key)).strip()
        except ReadError:
            return "unknown"
        return cast(Readable, answer) if answer in get_args(Readable) else "unknown"

    async def own(self, name: str, path: str, account: pwd.struct_passwd) -> Found:
        """Tell what there is of this person's own at *path*; *name* is the field that names it.

        Unknown: nobody could tell in time, or from here. Raises `HelperError`.
        """
        timeout = max(self.timeout, CONTAINER_TIMEOUT) if name == "own_container" else self.timeout
        try:
            word, _, rest = (await self._ask(account, "own", name, path, timeout=timeout)).partition("\n")
        except HelperError:
            raise
        except ReadError as error:
            return Found("unknown", str(error))
        # It is the person's process, which may say anything.
        detail = " ".join(showable(rest.strip()[:300]).split())
        return Found(cast(Answer, word), detail) if word in get_args(Answer) else Found("unknown")

    async def _ask(self, account: pwd.struct_passwd, *words: str, timeout: float | None = None) -> str:
        timeout = self.timeout if timeout is None else timeout
        try:
            data = await asyncio.wait_for(self._in_turn(account, words), timeout)
        except (TimeoutError, asyncio.TimeoutError):
            name = account.pw_name
            raise NoAnswerError(f"Reading as {name} took longer than {timeout:g} seconds: does a disk hang?") from None
        return data.decode(errors="replace")

    async def _in_turn(self, account: pwd.struct_passwd, words: tuple[str, ...]) -> bytes:
        person = self._persons.setdefault(account.pw_uid, asyncio.Lock())
        await person.acquire()
        try:
            await self._places.acquire()
        except BaseException:
            person.release()
            raise

        def ended(task: asyncio.Task[bytes]) -> None:
            self._running.discard(task)
            self._places.release()
            person.release()
            if not task.cancelled():
                task.exception()  # whoever asked may be gone

        # In a task of its own: the place is given back when the process has ended, not when nobody waits any more.
        task = asyncio.create_task(self._run(account, words))
        self._running.add(task)
        task.add_done_callback(ended)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.cancel()
            raise

    async def _run(self, account: pwd.struct_passwd, words: tuple[str, ...]) -> bytes:
        argv, data = self._command(account)
        try:
            start = asyncio.get_running_loop().subprocess_exec(
                lambda: _Helper(data),
                *argv,
                *words,
                # None of the hub's environment for sudo to pass on: the helper needs none.
                env={"PATH": "/usr/bin:/bin"},
                cwd="/",
            )
            transport, helper = await starting(start)
        except OSError as error:
            raise HelperError(f"{argv[0]} could not be started: {error.strerror}.") from None
        try:
            await asyncio.shield(helper.over)
        except asyncio.CancelledError:
            helper.close()
            with contextlib.suppress(ProcessLookupError, PermissionError):
                transport.kill()
            # What sudo started cannot be killed from here: it ends by its own alarm. What hangs in the kernel ends with
            # that. Nobody waits for it but its place.
            await asyncio.shield(helper.over)
            raise
        finally:
            with contextlib.suppress(PermissionError):  # a hub that shuts down does not wait for sudo's
                transport.close()
        return self._answer(account, transport.get_returncode(), helper)

    def _answer(self, account: pwd.struct_passwd, code: int | None, helper: _Helper) -> bytes:
        said = showable(helper.said[2].decode(errors="replace").strip().replace("\n", " "))[:500]
        if helper.too_long:
            raise RefusedError("The answer was longer than any that can be right.")
        if code == 0:
            return bytes(helper.said[1])
        if code not in _ERRORS:
            raise HelperError(f"The helper could not be run as {account.pw_name}: {said or f'it ended with {code}'}")
        if code == _USAGE and not helper.text:
            raise HelperError(f"{self.site.helper}: {said} Was it made for another site, or for what this one was?")
        raise _ERRORS[code](said)

    def _command(self, account: pwd.struct_passwd) -> tuple[list[str], bytes]:
        """Return what runs the helper as *account*, and its standard input. Raises `HelperError`."""
        try:
            prefix = prefix_for(account)
        except SlurmError as error:
            raise HelperError(error.stderr) from None
        if os.geteuid() in (0, account.pw_uid):
            # The system's Python: the hub's own may stand where the person may not go.
            python = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable
            return [*prefix, python, "-IS", "-"], self.text.encode()
        return [*prefix, self.site.helper], b""


class _Helper(asyncio.SubprocessProtocol):
    """What a helper says, within `_LIMITS`. asyncio's streams cannot be let go of while somebody still writes."""

    def __init__(self, text: bytes) -> None:
        self.text, self.said, self.too_long = text, {1: bytearray(), 2: bytearray()}, False
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)
        stdin = cast(asyncio.WriteTransport, self._transport.get_pipe_transport(0))
        stdin.write(self.text)
        stdin.close()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.said[fd] += data
        if len(self.said[fd]) > _LIMITS[fd]:
            self.too_long = True
            self.close()

    def close(self) -> None:
        """Listen no more: who still writes gets SIGPIPE."""
        for fd in self.said:
            if pipe := self._transport.get_pipe_transport(fd):
                pipe.close()

    def connection_lost(self, exc: Exception | None) -> None:
        # The process has ended and its pipes are closed.
        self.over.set_result(None)


_readers: dict[tuple[int, str, str], tuple[asyncio.AbstractEventLoop, Reader]] = {}


def shared_reader(site: Site) -> Reader:
    """Return the running loop's reader for *site*; the first caller makes it."""
    loop = asyncio.get_running_loop()
    key = (id(loop), site.helper, helper_text(site))
    held = _readers.get(key)
    # The id of a closed loop may be given out again.
    if held is None or held[0] is not loop:
        held = _readers[key] = (loop, Reader(site))
    return held[1]
