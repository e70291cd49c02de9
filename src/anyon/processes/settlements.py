"""Reading how a process ended, and giving an end to one that can no longer have its own."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from anyon.domain.errors import AnyonError
from anyon.domain.ids import ProjectId
from anyon.domain.states import ExitReason
from anyon.engines.engine import ContainerState, Engine
from anyon.processes import exits, kernel
from anyon.processes.directories import ProcessDirectory, RunDirectory
from anyon.processes.launchers import Launchers
from anyon.processes.processes import Exit
from anyon.processes.records import record_of

_YOUNG = timedelta(seconds=10)
_log = structlog.get_logger(__name__)


class Settlements:
    """Decides ends; what was once decided stands in the directory and is never decided again."""

    def __init__(
        self, engine: Engine, launchers: Launchers, run_directory: Callable[[ProjectId], Path]
    ) -> None:
        self._engine = engine
        self._launchers = launchers
        self._run_directory = run_directory
        self._oom_accounted: dict[ProjectId, int] = {}

    async def exit_of(self, project: ProjectId, directory: ProcessDirectory) -> Exit | None:
        """Return the exit that stands in *directory*, or None while there is none."""
        file = directory.small("exit")
        if file is None:
            return None
        record = exits.parse_exit(file.content)
        oom = exits.may_be_oom(record) and await self._was_oom(project, directory)
        return exits.exit_of(record, at=file.written_at, oom=oom)

    async def oom_kills(self, project: ProjectId) -> int:
        """Return how many kills for want of memory are accounted for so far."""
        if project not in self._oom_accounted:
            self._oom_accounted[project] = await self._count(project) or 0
        return self._oom_accounted[project]

    async def account(self, project: ProjectId) -> None:
        """Take all kills so far as accounted for: they were of children, whose parents told of it."""
        self._oom_accounted[project] = await self._count(project) or 0

    def container_started(self, project: ProjectId) -> None:
        """Take its count of kills as nothing: to ask right after a start takes docker most of a second."""
        self._oom_accounted[project] = 0

    def forget(self, project: ProjectId) -> None:
        """Count anew from its next start on: with a container its count of kills goes."""
        self._oom_accounted.pop(project, None)

    async def examine(self, project: ProjectId, names: Iterable[str]) -> None:
        """Give an exit to each of *names* that has none and runs no more; leave the others."""
        info = await self._engine.inspect(project)
        if info is not None and info.state is ContainerState.FROZEN:
            return
        running = info is not None and info.state is ContainerState.RUNNING
        for name in names:
            answer = "elsewhere"
            if running:
                answer = await self._launchers.request(
                    project, "check", name, within=timedelta(seconds=30)
                )
            if answer == "alive":
                continue
            with_exit = self._lost_reason if answer == "elsewhere" else self._gone_reason
            directory = RunDirectory(self._run_directory(project)).open(name)
            if directory is not None:
                with directory:
                    reason = with_exit(directory)
                    if reason is not None:
                        self.give(directory, reason)

    @staticmethod
    def give(directory: ProcessDirectory, reason: ExitReason) -> None:
        """Write an exit that nobody else can write any more; one that is there stays."""
        file = directory.small("reason")
        noted = (
            exits.parse_reason((file.content or b"").decode("ascii", "replace").strip())
            if file
            else None
        )
        directory.write_first("exit", exits.ExitRecord(None, noted or reason).to_bytes())

    @staticmethod
    def _lost_reason(directory: ProcessDirectory) -> ExitReason | None:
        if directory.small("pid") is None:
            return None
        same_boot = record_of(directory).boot == kernel.boot_id()
        return ExitReason.CONTAINER_STOPPED if same_boot else ExitReason.MACHINE_LOST

    @staticmethod
    def _gone_reason(directory: ProcessDirectory) -> ExitReason | None:
        pid = directory.small("pid")
        if pid is None:
            return None
        if not pid.content and datetime.now(UTC) - pid.written_at < _YOUNG:
            return None  # claimed a moment ago: its wrapper is about to write who it is
        return ExitReason.INTERRUPTED

    async def _was_oom(self, project: ProjectId, directory: ProcessDirectory) -> bool:
        verdict = directory.small("oom")
        if verdict is None:
            kills = await self._count(project)
            before = max(record_of(directory).oom_kills, self._oom_accounted.get(project, 0))
            if kills is not None and kills < before:
                before = 0  # the container was started anew
            oom = kills is not None and kills > before
            if oom:
                self._oom_accounted[project] = before + 1
            directory.write_first("oom", b"yes\n" if oom else b"no\n")
            verdict = directory.small("oom")
        return verdict is not None and verdict.content == b"yes\n"

    async def _count(self, project: ProjectId) -> int | None:
        try:
            stats = await self._engine.stats(project)
        except AnyonError as error:
            # Only the reason's exactness hangs on it: SIGNALLED is true of a process too.
            _log.warning("process.oom_unknown", project=project, code=error.code)
            return None
        return None if stats is None else stats.oom_kills
