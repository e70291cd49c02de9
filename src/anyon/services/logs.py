"""Outputs of processes, kept in the store while they run and at their end, and brought back from it."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import structlog

from anyon.clock import Clock
from anyon.db import processes as process_rows
from anyon.db import projects as project_rows
from anyon.db.databases import Database
from anyon.domain.entities import Process
from anyon.domain.errors import AnyonError
from anyon.domain.ids import ProcessId, ProjectId
from anyon.domain.states import ExitReason, ProcessStatus
from anyon.engines.engine import Channel
from anyon.locks import Locks
from anyon.processes import exits, returns
from anyon.processes.processes import Processes
from anyon.services.archives import is_lost
from anyon.services.archives import place as place_of
from anyon.services.feed import Feed, Kind, LagError
from anyon.services.homes import Homes
from anyon.services.supervisors import Supervisor
from anyon.storage.logs import PIECE_BYTES, Kept, LogEnd, Logs

log = structlog.get_logger(__name__)
EVERY = timedelta(seconds=60)
"""How often the output of what runs is kept."""
LOOKED_BACK = timedelta(hours=24)
"""What ended so long before a start is looked after still: the server may have been away."""


@dataclass(slots=True)
class _Known:
    """What is known of a process whose output is being kept."""

    kept: Kept | None = None
    next_at: float = 0.0


class ProcessLogs:
    """Keeps what processes write, and brings back the logs of those that ran on a lost machine.

    Of a running process no more than *cap_bytes* of a channel are kept; at its end the tail is.
    """

    def __init__(
        self,
        *,
        logs: Logs,
        db: Database,
        processes: Processes,
        homes: Homes,
        feed: Feed,
        clock: Clock,
        supervisor: Supervisor,
        cap_bytes: int,
    ) -> None:
        self._logs = logs
        self._db = db
        self._processes = processes
        self._homes = homes
        self._feed = feed
        self._clock = clock
        self._supervisor = supervisor
        self._cap_bytes = cap_bytes
        self._known: dict[ProcessId, _Known] = {}
        self._is_listening = False
        self._recalls = Locks[ProcessId]()

    async def tick(self) -> None:
        """Keep what is due: of what ended, all at once; of what runs, what is new since a minute."""
        if not self._is_listening:
            self._is_listening = True
            self._supervisor.spawn(self._listen(), name="logs")
            await asyncio.sleep(0)  # it subscribes before the state is read
            since = self._clock.now() - LOOKED_BACK
            for process in await self._db.read(process_rows.recent, since):
                self._known.setdefault(process.id, _Known())
        for process_id in list(self._known):
            try:
                await self._one(process_id)
            except AnyonError as error:
                log.warning("process.log_not_kept", process_id=process_id, code=error.code)
                self._known[process_id].next_at = self._clock.monotonic() + EVERY.total_seconds()

    async def _listen(self) -> None:
        try:
            with self._feed.subscribe() as notices:
                async for change in notices:
                    if change.kind is Kind.PROCESS:
                        known = self._known.setdefault(ProcessId(change.id), _Known())
                        known.next_at = 0.0  # it may have ended: look at once
        except LagError:
            self._is_listening = False  # the next tick reads the state anew

    async def _one(self, process_id: ProcessId) -> None:
        known = self._known[process_id]
        if self._clock.monotonic() < known.next_at:
            return
        process = await self._db.read(process_rows.find, process_id)
        project = None
        if process is not None:
            project = await self._db.read(project_rows.find, process.project_id)
        if process is None or project is None or project.deleted_at is not None or is_lost(project):
            self._known.pop(process_id, None)
            return
        place = place_of(project)
        if known.kept is None:
            known.kept = await asyncio.to_thread(self._logs.kept, place, process_id)
        known.next_at = self._clock.monotonic() + EVERY.total_seconds()
        if known.kept.is_whole or await self._keep(place, process, known):
            self._known.pop(process_id, None)

    async def _keep(self, place: str, process: Process, known: _Known) -> bool:
        """Keep what is new; say whether the process is over and all of it is kept."""
        state = await self._processes.state(process.project_id, process.id)
        if state is None:
            return process.status is not ProcessStatus.RUNNING  # it never began
        is_over = state.exit is not None
        sizes = {Channel.STDOUT: state.stdout_bytes, Channel.STDERR: state.stderr_bytes}
        for channel, size in sizes.items():
            await self._keep_channel(place, process, channel, size, known, is_over=is_over)
        if state.exit is None:
            return False
        end = LogEnd(
            code=state.exit.code,
            reason=state.exit.reason,
            started_at=state.started_at,
            ended_at=state.exit.at,
            sizes={str(channel): size for channel, size in sizes.items()},
        )
        await asyncio.to_thread(self._logs.finish, place, process.id, end)
        return True

    async def _keep_channel(
        self,
        place: str,
        process: Process,
        channel: Channel,
        size: int,
        known: _Known,
        *,
        is_over: bool,
    ) -> None:
        assert known.kept is not None
        offsets, sizes = dict(known.kept.offsets), dict(known.kept.sizes)
        offset = offsets.get(channel, 0)
        if sizes.get(channel, 0) >= self._cap_bytes // 2:
            if not is_over:
                return
            offset = max(offset, size - self._cap_bytes // 2)
        while offset < size:
            chunk = await self._processes.read(
                process.project_id, process.id, channel, offset, PIECE_BYTES
            )
            if not chunk.data:
                break
            await asyncio.to_thread(
                self._logs.put, place, process.id, str(channel), chunk.offset, chunk.data
            )
            offset = chunk.next_offset
            offsets[channel] = offset
            sizes[channel] = sizes.get(channel, 0) + len(chunk.data)
            known.kept = Kept(offsets=offsets, sizes=sizes)

    async def recall(self, process: Process) -> None:
        """Bring the log of a process back that is over and has none here; nothing where none is kept.

        A store that does not answer is UnavailableError: an empty output would be a lie.
        """
        if process.status is ProcessStatus.RUNNING:
            return
        async with self._recalls.of(process.id):
            await self._recall(process)

    async def _recall(self, process: Process) -> None:
        if await self._processes.state(process.project_id, process.id) is not None:
            return  # who waited for the lock finds it here
        project = await self._db.read(project_rows.find, process.project_id)
        if project is not None:
            await asyncio.to_thread(self._bring_back, place_of(project), process)

    def _bring_back(self, place: str, process: Process) -> None:
        found = self._logs.fetch(place, process.id)
        if found is None:
            return
        end = found.end
        reason = exits.parse_reason(end.reason or "") if end else None
        returns.put_back(
            self._run(process.project_id),
            process.id,
            pieces={Channel(name): pieces for name, pieces in found.pieces.items()},
            sizes={Channel(name): size for name, size in end.sizes.items()} if end else {},
            code=end.code if end else None,
            reason=reason or ExitReason.MACHINE_LOST,
            started_at=end.started_at if end else process.started_at,
            ended_at=end.ended_at if end else process.completed_at or found.newest_at,
        )
        log.info("process.log_brought_back", process_id=process.id)

    def _run(self, project: ProjectId) -> Path:
        return self._homes.state(project) / "run"
