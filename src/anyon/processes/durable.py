"""Durable processes over any engine: the one implementation of ``Processes``.

What a process is stands in its directory; what is kept here in memory only makes things quick
(the launcher's stream, watches, timers) and can be lost at any moment.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from datetime import timedelta
from pathlib import Path, PurePosixPath

import structlog

from anyon.clock import Clock
from anyon.domain.errors import (
    AnyonError,
    ConflictError,
    DeadlineExceededError,
    EngineFailedError,
    MissingError,
    UnavailableError,
)
from anyon.domain.ids import ProcessId, ProjectId
from anyon.domain.layout import WORKSPACE
from anyon.domain.states import ExitReason
from anyon.engines.engine import Channel, Engine
from anyon.processes import commands, kernel, outputs
from anyon.processes.changes import Changes
from anyon.processes.directories import ProcessDirectory, RunDirectory, disk_error
from anyon.processes.launchers import Launchers
from anyon.processes.processes import Chunk, Completed, Exit, ProcessSpec, ProcessState
from anyon.processes.records import Record, record_of
from anyon.processes.settlements import Settlements
from anyon.processes.supervisors import Supervisors

_PIECE_BYTES = 256 * 1024
_UNNAMED = "."
"""Begins the name of a directory that ``run`` made, and of none that a caller can name."""
_GRACE = timedelta(seconds=10)
_GONE_WITHIN = timedelta(seconds=30)
_QUICK_GRACE = timedelta(seconds=2)
_KILL_SLACK = timedelta(seconds=60)

_log = structlog.get_logger(__name__)


class DurableProcesses:
    """Starts, follows and ends processes; see ``Processes`` for what each call promises.

    *run_directory* says where on the host a project's process directories are (``run/``, bound
    to ``/run/anyon`` inside). One object belongs to one event loop.
    """

    def __init__(
        self, engine: Engine, run_directory: Callable[[ProjectId], Path], clock: Clock
    ) -> None:
        self._engine = engine
        self._run_directory = run_directory
        self._clock = clock
        self._changes = Changes()
        self._launchers = Launchers(engine)
        self._settlements = Settlements(engine, self._launchers, run_directory)
        self._supervisors = Supervisors(
            run_directory=run_directory,
            changes=self._changes,
            settlements=self._settlements,
            end=self._end,
            clock=clock,
        )
        self._loose: set[asyncio.Task[None]] = set()
        self._closed = False

    async def start(self, project: ProjectId, spec: ProcessSpec) -> ProcessState:
        """Start a process, or return it as it stands if it was started before."""
        commands.check_spec(spec)
        await self._launch(project, spec.id, spec)
        state = await self.state(project, spec.id)
        if state is None:
            raise ConflictError(
                f"the directory of process {spec.id} was taken away while it started",
                code="process_directory_taken",
            )
        return state

    def prepare(self, project: ProjectId) -> None:
        """Open the launcher ahead of the first start."""
        self._settlements.container_started(project)
        self._loosely(self._launchers.prepare(project))

    async def state(self, project: ProjectId, process: ProcessId) -> ProcessState | None:
        """Return how a process stands, or None for one that was never started."""
        commands.check_id(process)
        directory = self._open(project, process)
        if directory is None:
            return None
        with directory:
            return await self._state(project, directory)

    async def list(self, project: ProjectId) -> Sequence[ProcessState]:
        """Return every process that was started and not forgotten."""
        states = []
        for name in self._names(project):
            directory = self._open(project, name)
            if directory is not None:
                with directory:
                    states.append(await self._state(project, directory))
        return [state for state in states if state is not None]

    async def read(
        self, project: ProjectId, process: ProcessId, channel: Channel, offset: int, limit: int
    ) -> Chunk:
        """Return up to *limit* bytes of a channel from *offset* on, at once."""
        with self._known(project, process) as directory:
            outputs.check_offset(directory, channel, offset)
            return outputs.chunk(directory, channel, offset, max(0, limit))

    async def follow(
        self,
        project: ProjectId,
        process: ProcessId,
        offsets: Mapping[Channel, int] | None = None,
    ) -> AsyncIterator[Chunk]:
        """Yield pieces of both channels as they come, and end after the exit."""
        at = {channel: (offsets or {}).get(channel, 0) for channel in Channel}
        with self._known(project, process) as directory:
            for channel, offset in at.items():
                outputs.check_offset(directory, channel, offset)
            watch = self._changes.watch((project, process), directory.descriptor)
        try:
            while True:
                seen = watch.version
                self._check_open()
                known = self._open(project, process)
                if known is None:
                    return  # it was over and is forgotten
                with known as directory:
                    ended = await self._settlements.exit_of(project, directory)
                    pieces = [
                        outputs.chunk(directory, c, offset, _PIECE_BYTES)
                        for c, offset in at.items()
                    ]
                found = [piece for piece in pieces if piece.data or piece.dropped_bytes]
                for piece in found:
                    at[piece.channel] = piece.next_offset
                    yield piece
                if found:
                    continue
                if ended is not None:
                    return
                await watch.changed(seen)
        finally:
            self._changes.release(watch)

    async def wait(self, project: ProjectId, process: ProcessId) -> Exit:
        """Return a process's exit once it is over."""
        with self._known(project, process) as directory:
            return await self._exit(project, directory)

    async def run(
        self,
        project: ProjectId,
        argv: Sequence[str],
        *,
        cwd: PurePosixPath = WORKSPACE,
        env: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        timeout: timedelta = timedelta(seconds=60),
    ) -> Completed:
        """Run a short command to its end and return all it wrote."""
        name = ProcessId(str(uuid.uuid4()))
        spec = ProcessSpec(id=name, argv=argv, cwd=cwd, env=env or {}, stdin=stdin, timeout=timeout)
        commands.check_spec(spec)
        name = ProcessId(_UNNAMED + name)
        try:
            await self._launch(project, name, spec)
            with self._known(project, name) as directory:
                ended = await self._exit(project, directory)
                completed = Completed(
                    exit=ended,
                    stdout=outputs.whole(directory, Channel.STDOUT),
                    stderr=outputs.whole(directory, Channel.STDERR),
                )
        except (asyncio.CancelledError, UnavailableError):
            self._loosely(self._remove_when_over(project, name, end=True))  # it may well run
            raise
        await self._remove(project, name)
        return completed

    async def kill(
        self,
        project: ProjectId,
        process: ProcessId,
        *,
        reason: ExitReason = ExitReason.KILLED_BY_USER,
        grace: timedelta = timedelta(seconds=10),
    ) -> Exit:
        """End a process with all that belongs to it, and return its first exit."""
        with self._known(project, process) as directory:
            return await self._kill(project, directory, reason, grace)

    async def adopt(self, project: ProjectId) -> Sequence[ProcessState]:
        """Take over what there is after a restart of the server."""
        names = [*self._names(project), *self._names(project, unnamed=True)]
        running = []
        for name in names:
            directory = self._open(project, name)
            if directory is not None:
                with directory:
                    if directory.has("pid") and not directory.has("exit"):
                        running.append(name)
        if running:
            await self._settlements.examine(project, running)
        for name in names:
            await self._take_over(project, name)
        return await self.list(project)

    async def container_stopped(self, project: ProjectId, reason: ExitReason) -> None:
        """Give every process without an exit one with *reason*."""
        self._settlements.forget(project)
        for name in [*self._names(project), *self._names(project, unnamed=True)]:
            if (directory := self._open(project, name)) is not None:
                with directory:
                    if directory.has("pid"):
                        self._settlements.give(directory, reason)

    async def forget(self, project: ProjectId, process: ProcessId) -> None:
        """Remove the directory of a process that is over."""
        commands.check_id(process)
        if (directory := self._open(project, process)) is None:
            return
        with directory:
            if directory.has("pid") and not directory.has("exit"):
                raise ConflictError(
                    f"process {process} still runs",
                    code="process_running",
                    hint="stop it first",
                )
        await self._remove(project, process)

    async def close(self) -> None:
        """Let go of launchers, watches and timers; processes go on."""
        self._closed = True
        await self._supervisors.close()
        for task in self._loose:
            task.cancel()
        await asyncio.gather(*self._loose, return_exceptions=True)
        self._changes.close()
        await self._launchers.close()

    async def _launch(self, project: ProjectId, name: str, spec: ProcessSpec) -> None:
        self._check_open()
        record = Record(
            output_cap_bytes=spec.output_cap_bytes,
            timeout=spec.timeout,
            boot=kernel.boot_id(),
            oom_kills=await self._settlements.oom_kills(project),
        )
        try:
            with RunDirectory(self._run_directory(project)).create(name) as directory:
                if directory.has("pid"):
                    await self._take_over(project, name)
                    return
                if spec.stdin:
                    directory.write("stdin", spec.stdin)
                directory.write("command", record.to_bytes() + commands.command_text(spec))
        except OSError as error:
            raise disk_error(error, "the process's directory cannot be written") from error
        try:
            await self._ask_to_start(project, name, spec)
        except (ConflictError, MissingError, EngineFailedError):
            await self._remove(project, name)  # it did not start; a later try begins afresh
            raise
        self._supervisors.take(project, name, record, timedelta(0))

    async def _ask_to_start(self, project: ProjectId, name: str, spec: ProcessSpec) -> None:
        lines = commands.secret_lines(spec.secrets)
        timeout = None if name.startswith(_UNNAMED) else spec.timeout
        await self._launchers.start(project, name, commands.watch_word(timeout), lines)

    async def _take_over(self, project: ProjectId, name: str) -> None:
        """Look after a process that this server may not know, if it was started."""
        directory = self._open(project, name)
        if directory is None:
            return
        with directory:
            started_at = directory.written_at("pid")
            if started_at is None:
                return
            if not directory.has("exit"):
                elapsed = self._clock.now() - started_at
                self._supervisors.take(project, name, record_of(directory), elapsed)
        if name.startswith(_UNNAMED):
            self._loosely(self._remove_when_over(project, name, end=False))

    async def _state(self, project: ProjectId, directory: ProcessDirectory) -> ProcessState | None:
        started_at = directory.written_at("pid")
        if started_at is None:
            return None
        ended = await self._settlements.exit_of(project, directory)
        return ProcessState(
            id=ProcessId(directory.name),
            started_at=started_at,
            stdout_bytes=directory.size(Channel.STDOUT),
            stderr_bytes=directory.size(Channel.STDERR),
            exit=ended,
        )

    async def _exit(self, project: ProjectId, directory: ProcessDirectory) -> Exit:
        watch = self._changes.watch((project, directory.name), directory.descriptor)
        try:
            while True:
                self._check_open()
                seen = watch.version
                ended = await self._settlements.exit_of(project, directory)
                if ended is not None:
                    return ended
                directory.check_there()
                await watch.changed(seen)
        finally:
            self._changes.release(watch)

    def _open(self, project: ProjectId, name: str) -> ProcessDirectory | None:
        return RunDirectory(self._run_directory(project)).open(name)

    def _known(self, project: ProjectId, name: str) -> ProcessDirectory:
        if not name.startswith(_UNNAMED):
            commands.check_id(name)
        return RunDirectory(self._run_directory(project)).started(name)

    def _names(self, project: ProjectId, *, unnamed: bool = False) -> Sequence[str]:
        names = RunDirectory(self._run_directory(project)).names()
        if unnamed:
            return [name for name in names if name.startswith(_UNNAMED)]
        return [name for name in names if commands.is_name(name)]

    def _check_open(self) -> None:
        if self._closed:
            raise UnavailableError("the server is stopping", code="stopping")

    async def _kill(
        self, project: ProjectId, directory: ProcessDirectory, reason: ExitReason, grace: timedelta
    ) -> Exit:
        name = directory.name
        tenths = max(0, round(grace.total_seconds() * 10))
        try:
            await self._launchers.request(
                project, "kill", name, str(tenths), reason, within=2 * grace + _KILL_SLACK
            )
        except AnyonError:
            # What is over is over, whether or not its leftovers could be swept.
            if not directory.has("exit"):
                await self._settlements.examine(project, [name])
            if not directory.has("exit"):
                raise
        try:
            async with asyncio.timeout(_GONE_WITHIN.total_seconds()):
                return await self._exit(project, directory)
        except TimeoutError:
            await self._settlements.examine(project, [name])
        ended = await self._settlements.exit_of(project, directory)
        if ended is None:
            raise DeadlineExceededError(
                f"process {name} does not end", code="process_unkillable", hint="stop the container"
            )
        return ended

    async def _end(self, project: ProjectId, name: str, reason: ExitReason) -> None:
        grace = _QUICK_GRACE if name.startswith(_UNNAMED) else _GRACE
        with self._known(project, name) as directory:
            if not directory.has("exit"):
                await self._kill(project, directory, reason, grace)

    async def _remove_when_over(self, project: ProjectId, name: str, *, end: bool) -> None:
        """Remove what nobody waits for any more; at the next adoption if not now."""
        try:
            if end:
                await self._end(project, name, ExitReason.INTERRUPTED)
            with self._known(project, name) as directory:
                await self._exit(project, directory)
            await self._remove(project, name)
        except (OSError, AnyonError) as error:
            _log.warning("process.not_removed", process_id=name, error=str(error))

    async def _remove(self, project: ProjectId, name: str) -> None:
        directory = RunDirectory(self._run_directory(project))
        try:
            try:
                directory.remove(name)
            except PermissionError:  # its user made what only he can remove
                await self._launchers.request(project, "remove", name)
                directory.remove(name)
        except OSError as error:
            raise disk_error(error, "the process's directory cannot be removed") from error
        self._changes.touch((project, name))

    def _loosely(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._loose.add(task)
        task.add_done_callback(self._loose.discard)
