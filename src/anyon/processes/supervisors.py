"""Looking after running processes: caps, timeouts, and those whose wrapper was killed."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import structlog

from anyon.clock import Clock
from anyon.domain.errors import AnyonError
from anyon.domain.ids import ProjectId
from anyon.domain.states import ExitReason
from anyon.engines.engine import Channel
from anyon.processes import outputs
from anyon.processes.changes import Changes
from anyon.processes.directories import ProcessDirectory, RunDirectory
from anyon.processes.processes import Exit
from anyon.processes.records import Record
from anyon.processes.settlements import Settlements

_EXAMINE_EVERY = timedelta(seconds=15)
_RETRY_AFTER = timedelta(seconds=5)
_HARD_FACTOR = 4
"""How many caps an output may grow to where the file system cannot drop its middle."""

_log = structlog.get_logger(__name__)

End = Callable[[ProjectId, str, ExitReason], Awaitable[object]]


class Supervisors:
    """One task a running process; they end with their processes, or with ``close``."""

    def __init__(
        self,
        *,
        run_directory: Callable[[ProjectId], Path],
        changes: Changes,
        settlements: Settlements,
        end: End,
        clock: Clock,
    ) -> None:
        self._run_directory = run_directory
        self._changes = changes
        self._settlements = settlements
        self._end = end
        self._clock = clock
        self._tasks: dict[tuple[ProjectId, str], asyncio.Task[None]] = {}
        self._examiner: asyncio.Task[None] | None = None

    def take(self, project: ProjectId, name: str, record: Record, elapsed: timedelta) -> None:
        """Look after a process that was started *elapsed* ago; once is enough."""
        key = (project, name)
        if key in self._tasks:
            return
        task = asyncio.create_task(self._supervise(project, name, record, elapsed), name=name)
        self._tasks[key] = task
        task.add_done_callback(lambda _: self._tasks.pop(key, None))
        if self._examiner is None or self._examiner.done():
            self._examiner = asyncio.create_task(self._examine(), name="process examiner")

    async def close(self) -> None:
        """Look after nothing any more."""
        tasks = [*self._tasks.values()]
        if self._examiner is not None:
            tasks.append(self._examiner)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _supervise(
        self, project: ProjectId, name: str, record: Record, elapsed: timedelta
    ) -> None:
        timer = None
        if record.timeout is not None:
            left = max(timedelta(0), record.timeout - elapsed)
            timer = asyncio.create_task(self._end_after(left, project, name))
        try:
            while True:
                try:
                    return await self._look_after(project, name, record)
                except (OSError, AnyonError) as error:
                    # The process goes on; a full disk, say, is tried again until it is not.
                    _log.warning(
                        "process.supervision_failed",
                        process_id=name,
                        error=str(error),
                    )
                    await self._clock.sleep(_RETRY_AFTER)
        finally:
            if timer is not None:
                timer.cancel()

    async def _look_after(self, project: ProjectId, name: str, record: Record) -> None:
        directory = RunDirectory(self._run_directory(project)).open(name)
        if directory is None:
            return
        with directory:
            watch = self._changes.watch((project, name), directory.descriptor)
            try:
                ended = None
                limited = False
                while ended is None:
                    seen = watch.version
                    ended = await self._settlements.exit_of(project, directory)
                    within = await self._trim(directory, record, final=ended is not None)
                    if not within and not limited and ended is None:
                        limited = True
                        await self._end(project, name, ExitReason.OUTPUT_LIMIT)
                    if ended is None:
                        if directory.is_gone:
                            return  # whoever saw its end first has forgotten it
                        await watch.changed(seen)
                if _blames_children(ended):
                    await self._settlements.account(project)
            finally:
                self._changes.release(watch)

    async def _trim(self, directory: ProcessDirectory, record: Record, *, final: bool) -> bool:
        """Hold both outputs within the cap; False once one is far past what could be dropped."""
        within = True
        for channel in Channel:
            cap = record.output_cap_bytes
            if directory.size(channel) <= cap:
                continue
            if not await asyncio.to_thread(outputs.trim, directory, channel, cap, final=final):
                within = within and directory.size(channel) <= _HARD_FACTOR * cap
        return within

    async def _end_after(self, left: timedelta, project: ProjectId, name: str) -> None:
        await self._clock.sleep(left)
        while True:
            try:
                await self._end(project, name, ExitReason.TIMEOUT)
            except AnyonError as error:
                _log.warning("process.timeout_not_kept", process_id=name, code=error.code)
                await self._clock.sleep(_RETRY_AFTER)
            else:
                return

    async def _examine(self) -> None:
        """See from time to time whether a wrapper was killed: then nobody would write the exit."""
        while self._tasks:
            await self._clock.sleep(_EXAMINE_EVERY)
            projects: dict[ProjectId, list[str]] = {}
            for project, name in self._tasks:
                projects.setdefault(project, []).append(name)
            for project, names in projects.items():
                try:
                    await self._settlements.examine(project, names)
                except (OSError, AnyonError) as error:
                    _log.warning(
                        "process.examination_failed",
                        project=project,
                        error=str(error),
                    )


def _blames_children(ended: Exit) -> bool:
    return ended.reason is ExitReason.EXITED and ended.code != 0
