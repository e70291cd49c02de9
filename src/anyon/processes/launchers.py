"""The launcher: one shell inside a container, fed over one stream, that starts processes.

Requests are lines, answered by lines that carry the request's number, so that many are under way
at once. Whatever is under way when the stream breaks is unknown: LauncherLostError, and each
request may be repeated over another launcher.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine, Sequence
from datetime import timedelta
from importlib import resources

import structlog

from anyon.domain.errors import (
    AnyonError,
    DeadlineExceededError,
    EngineFailedError,
    MissingError,
    UnavailableError,
)
from anyon.domain.ids import ProjectId
from anyon.domain.layout import SECRETS
from anyon.engines.engine import Channel, Command, ContainerState, Engine, Stream
from anyon.locks import Locks

_TEXTS = resources.files("anyon.processes")
PROGRAM = _TEXTS.joinpath("launcher.sh").read_text("utf-8")
WRAPPER = _TEXTS.joinpath("wrapper.sh").read_text("utf-8")
"""What the shells inside run."""

_log = structlog.get_logger(__name__)

_LEAVING_SECONDS = 3.0
_FROZEN_SECONDS = 0.2
READY_WITHIN = timedelta(seconds=60)


class LauncherLostError(UnavailableError):
    """The launcher went before it answered; what was asked may or may not have been done."""

    default_code = "launcher_lost"


class Launcher:
    """One launcher that answered that it is ready."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._answers: dict[int, asyncio.Future[str]] = {}
        self._number = 0
        self._writing = asyncio.Lock()
        self._is_broken = False
        self._ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._complaints: deque[bytes] = deque(maxlen=8)
        self._reader = asyncio.create_task(self._read(), name="launcher")

    @classmethod
    async def open(cls, engine: Engine, project: ProjectId) -> "Launcher":
        """Start a launcher in the project's container.

        Raises what ``engine.open`` raises, MissingError (``container_tool_missing``) when the
        image lacks a tool, EngineFailedError (``launcher_failed``) when the shell does not come up.
        """
        argv = ["sh", "-c", 'eval "$1"', "anyon-launcher", PROGRAM, "launch", WRAPPER]
        launcher = cls(await engine.open(project, Command(argv=argv, is_lasting=True)))
        try:
            await launcher._greet()
        except BaseException:
            await launcher.close()
            raise
        return launcher

    @property
    def lost(self) -> bool:
        """Whether it is gone; one that is gone stays so."""
        return self._is_broken or self._reader.done()

    async def request(
        self, verb: str, *words: str, body: Sequence[bytes] = (), within: timedelta
    ) -> str:
        """Ask, and return the answer's words.

        Raises LauncherLostError, or DeadlineExceededError when no answer comes *within* that time
        (the container may be frozen).
        """
        self._number += 1
        number = self._number
        lines = [" ".join((verb, str(number), *words)).encode(), *body]
        answer = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            async with asyncio.timeout(within.total_seconds()):
                await self._send(b"\n".join(lines) + b"\n")
                return str(await answer)
        except TimeoutError:
            raise DeadlineExceededError(
                f"the container's launcher did not answer to {verb} within {within}",
                code="launcher_silent",
                hint="see whether the container is frozen or out of memory",
            ) from None
        finally:
            del self._answers[number]

    async def gone(self) -> None:
        """Return once nothing more comes from it."""
        await asyncio.wait({self._reader})

    async def close(self, *, is_frozen: bool = False) -> None:
        """Let go of the stream; what was started goes on.

        A shell that gets no CPU (*is_frozen*) is not waited for: it ends when it is thawed.
        """
        try:
            # The end of stdin is enough where it reaches the shell; the word always does.
            if not self.lost:
                await self._stream.write(b"leave\n")
            await self._stream.close_stdin()
        except AnyonError as error:
            _log.warning("launcher.stdin_not_closed", code=error.code)
        # Closing may end all in the launcher's session, and a process may just be leaving it.
        if not is_frozen:
            await asyncio.wait({self._reader}, timeout=_LEAVING_SECONDS)
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        try:
            async with asyncio.timeout(_FROZEN_SECONDS if is_frozen else None):
                await self._stream.close()
        except TimeoutError:
            _log.info("launcher.left_frozen")

    async def _send(self, data: bytes) -> None:
        async with self._writing:
            if self.lost:
                raise _lost()
            try:
                await self._stream.write(data)
            except AnyonError as error:
                # Its end may not have been read yet: whoever asks next must not get it again.
                self._is_broken = True
                raise _lost() from error

    async def _greet(self) -> None:
        try:
            async with asyncio.timeout(READY_WITHIN.total_seconds()):
                word, _, rest = (await self._ready).partition(" ")
        except TimeoutError:
            raise DeadlineExceededError(
                "the shell in the container did not come up", code="launcher_silent"
            ) from None
        except LauncherLostError as error:
            said = b"".join(self._complaints).decode("utf-8", "replace").strip()[-500:]
            raise EngineFailedError(
                f"the shell in the container did not come up: {said or 'it said nothing'}",
                code="launcher_failed",
                hint="an image needs `sh`; a container out of processes can start nothing",
            ) from error
        if word == "missing":
            raise MissingError(
                f"the container's image lacks the tool {rest}",
                code="container_tool_missing",
                hint="use an image with util-linux (or busybox), grep and coreutils",
            )

    async def _read(self) -> None:
        rest = b""
        try:
            while (piece := await self._stream.read()) is not None:
                channel, data = piece
                if channel is Channel.STDERR:
                    self._complaints.append(data[:500])
                    continue
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._take(line.decode("utf-8", "replace"))
        except AnyonError as error:
            self._complaints.append(error.message.encode())
        finally:
            for waiting in (self._ready, *self._answers.values()):
                if not waiting.done():
                    waiting.set_exception(_lost())
            if self._ready.done() and not self._ready.cancelled():
                self._ready.exception()  # nobody may be there to hear it

    def _take(self, line: str) -> None:
        head, _, rest = line.partition(" ")
        if head in {"ready", "missing"} and not self._ready.done():
            self._ready.set_result(line)
        elif head.isdecimal() and (answer := self._answers.get(int(head))) and not answer.done():
            answer.set_result(rest)


def _lost() -> LauncherLostError:
    return LauncherLostError(
        "the container's launcher went away", hint="the same call may succeed when it is repeated"
    )


class Launchers:
    """One launcher a project, opened when it is needed and again when it is gone."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._open: dict[ProjectId, Launcher] = {}
        self._locks = Locks[ProjectId]()
        self._leaving: set[asyncio.Task[None]] = set()

    async def prepare(self, project: ProjectId) -> None:
        """Open the project's launcher ahead of the first request; what fails is told by that one."""
        try:
            await self._launcher(project)
        except AnyonError as error:
            _log.info("launcher.not_prepared", project=project, code=error.code)

    async def request(
        self,
        project: ProjectId,
        verb: str,
        *words: str,
        body: Sequence[bytes] = (),
        within: timedelta = timedelta(seconds=60),
    ) -> str:
        """Ask the project's launcher, another one if it goes meanwhile; every request may be repeated."""
        for _ in range(3):
            launcher = await self._launcher(project)
            try:
                return await launcher.request(verb, *words, body=body, within=within)
            except LauncherLostError as error:
                lost = error
        raise lost

    async def start(
        self, project: ProjectId, name: str, watch: str, secrets: Sequence[bytes]
    ) -> None:
        """Start the process whose directory is *name*, unless it was; *watch* is its watcher's time.

        MissingError (``secrets_directory_missing``) or EngineFailedError (``process_start_failed``).
        """
        answer = await self.request(project, "start", name, watch, str(len(secrets)), body=secrets)
        if answer == "no-vault":
            raise MissingError(
                f"{SECRETS} in the container cannot be written, and secrets go nowhere else",
                code="secrets_directory_missing",
                hint="the container's mounts must include a tmpfs there that its user may write to",
            )
        if answer not in {"started", "known"}:
            raise EngineFailedError(
                "the container could not start the process",
                code="process_start_failed",
                hint="see whether it is out of processes, memory or disk",
            )

    async def close(self) -> None:
        """Let go of all."""
        opened, self._open = self._open, {}
        letting_go = [self._let_go(project, one) for project, one in opened.items()]
        await asyncio.gather(*letting_go, *self._leaving)

    async def _let_go(self, project: ProjectId, launcher: Launcher) -> None:
        try:
            info = await self._engine.inspect(project)
        except AnyonError as error:
            _log.warning("launcher.not_looked_at", project=project, code=error.code)
            info = None
        frozen = info is not None and info.state is ContainerState.FROZEN
        await launcher.close(is_frozen=frozen)

    async def _launcher(self, project: ProjectId) -> Launcher:
        async with self._locks.of(project):
            known = self._open.get(project)
            if known is not None and not known.lost:
                return known
            if known is not None:
                # Nobody waits for its farewell: it is gone, and the next one is wanted now.
                self._loosely(self._open.pop(project).close())
            launcher = self._open[project] = await Launcher.open(self._engine, project)
            self._loosely(self._close_when_gone(project, launcher))
            return launcher

    async def _close_when_gone(self, project: ProjectId, launcher: Launcher) -> None:
        """Let go of a launcher whose container went, also if nobody ever asks for another one."""
        await launcher.gone()
        if self._open.get(project) is not launcher:
            return  # whoever took it out closes it
        del self._open[project]
        await launcher.close()

    def _loosely(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)
