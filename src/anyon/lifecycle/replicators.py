"""The loops that keep the server's own database in the store: Litestream, and whole copies."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path

import structlog

from anyon.clock import Clock
from anyon.db import litestream
from anyon.db import snapshots as database_snapshots
from anyon.domain.errors import AnyonError
from anyon.failpoints import reached
from anyon.lifecycle.vitals import StateVitals
from anyon.storage.replicas import Replica
from anyon.storage.snapshots import Snapshots
from anyon.storage.uploads import Stop

log = structlog.get_logger(__name__)
STEADY = timedelta(seconds=60)
"""What lived so long starts anew without a pause when it ends."""
_LONGEST_PAUSE = timedelta(seconds=60)
_END_WITHIN = timedelta(seconds=5)


def pause_after(failures: int) -> timedelta:
    """Return how long to wait before a start after so many short lives."""
    return min(timedelta(seconds=2 ** min(failures, 10) / 2), _LONGEST_PAUSE)


class Follower:
    """Litestream as a child of the server: started, started again when it ends, ended with it."""

    def __init__(
        self,
        *,
        binary: Path,
        database: Path,
        place: Path,
        interval: timedelta,
        clock: Clock,
        vitals: StateVitals,
        server_pid: int,
    ) -> None:
        self._config = place / "litestream.json"
        self._command = litestream.follow_command(binary, self._config, server_pid=server_pid)
        self._text = litestream.config(database, place, interval=interval)
        self._clock = clock
        self._vitals = vitals
        self._child: asyncio.subprocess.Process | None = None
        self._words: asyncio.Task[None] | None = None
        self._began = 0.0
        self._failures = 0
        self._not_before = 0.0

    @property
    def pid(self) -> int | None:
        """Litestream's process id, None while it does not run."""
        return self._child.pid if self._child is not None else None

    async def tick(self) -> None:
        """See that it runs; after an end that nobody asked for, wait longer each time."""
        if self._child is not None:
            if self._child.returncode is None:
                return
            self._note_end(self._child.returncode)
        if self._clock.monotonic() >= self._not_before:
            await self._start()

    def _note_end(self, code: int) -> None:
        now = self._clock.monotonic()
        is_steady = now - self._began >= STEADY.total_seconds()
        self._failures = 0 if is_steady else self._failures + 1
        pause = pause_after(self._failures)
        self._not_before = now + pause.total_seconds()
        self._child = None
        self._vitals.ended()
        log.warning("replicator.ended", code=code, again_in_seconds=pause.total_seconds())

    async def _start(self) -> None:
        await asyncio.to_thread(self._write_config)
        self._began = self._clock.monotonic()
        try:
            self._child = await asyncio.create_subprocess_exec(
                *self._command,
                env=litestream.environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            self._failures += 1
            self._not_before = self._began + pause_after(self._failures).total_seconds()
            log.warning("replicator.not_started", error=str(error))
            return
        self._words = asyncio.create_task(_listen(self._child), name="litestream-words")
        self._vitals.follows(is_following=True)
        log.info("replicator.started", pid=self._child.pid)

    def _write_config(self) -> None:
        self._config.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._config.write_text(self._text, encoding="utf-8")

    async def close(self) -> None:
        """End it; it writes what it has first."""
        child, self._child = self._child, None
        if child is not None and child.returncode is None:
            child.terminate()
            try:
                await asyncio.wait_for(child.wait(), _END_WITHIN.total_seconds())
            except TimeoutError:
                child.kill()
                await child.wait()
        if self._words is not None:
            await asyncio.gather(self._words, return_exceptions=True)
        self._vitals.follows(is_following=False)


async def _listen(child: asyncio.subprocess.Process) -> None:
    """Pass on what Litestream complains of; each line is a JSON object, or words of an end."""
    assert child.stderr is not None
    while True:
        try:
            line = await child.stderr.readline()
        except ValueError:
            continue  # a line longer than the buffer: it was dropped
        if not line:
            return
        text = line.decode(errors="replace").strip()
        try:
            said = json.loads(text)
            words = f"{said['msg']} {said.get('error', '')}".strip()
        except (ValueError, KeyError, TypeError):
            words = text
        log.warning("replicator.complained", words=words[:500])


class Replicator:
    """Carries what Litestream writes into the store."""

    def __init__(self, *, replica: Replica, clock: Clock, vitals: StateVitals) -> None:
        self._replica = replica
        self._clock = clock
        self._vitals = vitals
        self._has_failed = False
        # What a first round that fails is behind of: the store lacks all since the start.
        vitals.replicated(clock.now())

    async def tick(self) -> None:
        """Bring the store up to what is here; what fails is tried again at the next tick."""
        now = self._clock.now()
        stop = Stop()
        work = asyncio.create_task(asyncio.to_thread(self._replica.mirror, now, stop.check))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            stop.set()  # between two files: a tick leaves nothing going on behind it
            await asyncio.gather(work, return_exceptions=True)
            raise
        except AnyonError as error:
            if not self._has_failed:
                log.warning("replica.failed", code=error.code, error=error.message)
            self._has_failed = True
            return
        if self._has_failed:
            log.info("replica.caught_up")
        self._has_failed = False
        self._vitals.replicated(now)


class Snapshotter:
    """Puts a whole copy of the database into the store, checked, and drops old ones."""

    def __init__(
        self,
        *,
        database: Path,
        place: Path,
        snapshots: Snapshots,
        clock: Clock,
        vitals: StateVitals,
    ) -> None:
        self._database = database
        self._copy = place / "snapshot.db"
        self._snapshots = snapshots
        self._clock = clock
        self._vitals = vitals

    async def tick(self) -> None:
        """Take one; a failure is logged and costs this one only."""
        stop = Stop()
        now = self._clock.now()

        def work() -> str:
            self._copy.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._copy.unlink(missing_ok=True)  # what a crash left
            try:
                database_snapshots.take(self._database, self._copy)
                reached("snapshot.copied")
                name = self._snapshots.put(self._copy, now, stop.check)
            finally:
                self._copy.unlink(missing_ok=True)
            self._snapshots.prune(now, stop.check)
            return name

        task = asyncio.create_task(asyncio.to_thread(work))
        try:
            name = await asyncio.shield(task)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.gather(task, return_exceptions=True)
            raise
        except (AnyonError, OSError) as error:
            log.warning("snapshot.failed", error=str(error))
            return
        self._vitals.snapshot_taken(now)
        log.info("snapshot.taken", name=name)
