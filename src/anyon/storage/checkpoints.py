"""Checkpoints of projects: the room's front door, for async callers.

The work is done in a few threads; a cancelled call ends its thread's work before it
returns, so nothing goes on behind the caller's back.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, closing, contextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from anyon.clock import Clock
from anyon.domain.errors import ConflictError, NotFoundError
from anyon.storage import collection, owners, verifying
from anyon.storage.archives import Archive
from anyon.storage.collection import Collected
from anyon.storage.exclusions import DEFAULTS, parse
from anyon.storage.keys import Keys, PlainKeys
from anyon.storage.knowledge import Knowledge, KnowledgeDamagedError
from anyon.storage.objects import ObjectStore
from anyon.storage.owners import Claim, TakeOver
from anyon.storage.readings import Difference, Reading, differences
from anyon.storage.records import Checkpoint
from anyon.storage.restores import Progress, Restore, Restored
from anyon.storage.retention import Retention
from anyon.storage.saves import Save, Saved, Wish
from anyon.storage.trees import Entry
from anyon.storage.uploads import Stop
from anyon.storage.verifying import Verified

T = TypeVar("T")
Freeze = Callable[[], AbstractAsyncContextManager[object]]
"""Makes a context in which nothing of the project runs."""
GRACE = timedelta(hours=24)


class Checkpoints:
    """Saves and brings back the states of projects in one object store.

    A project is named by its place, ``<user id>/<project id>``. *store* should retry by
    itself (``wrappers.RetryingStore``). *cache* is a directory of this machine's own; losing
    it costs time only.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        cache: Path,
        clock: Clock,
        keys: Keys | None = None,
        exclusions: Iterable[str] = DEFAULTS,
        retention: Retention | None = None,
        server: str = "",
        workers: int = 3,
        jobs: int = 4,
    ) -> None:
        self._store = store
        self._cache = cache
        self._clock = clock
        self._keys = keys if keys is not None else PlainKeys()
        self._rules = parse(exclusions)
        self._retention = retention if retention is not None else Retention()
        self._server = server
        self._workers = workers
        self._pool = ThreadPoolExecutor(jobs, thread_name_prefix="anyon-checkpoint")
        self._locks: dict[str, asyncio.Lock] = {}
        self._readers: Counter[str] = Counter()

    async def close(self) -> None:
        """Wait for what is under way and end the threads."""
        await asyncio.to_thread(self._pool.shutdown, wait=True)

    async def save(
        self,
        project: str,
        trees: Mapping[str, Path],
        *,
        reason: str = "",
        epoch: int = 0,
        records: bytes = b"",
        freeze: Freeze | None = None,
    ) -> Saved:
        """Capture *trees* (``workspace``, ``home``, ``system``) and return once that is durable.

        When nothing has changed the last checkpoint is returned, once it is seen to be the
        head still. With *freeze* everything is copied first, and again what changed meanwhile
        inside a short freeze, so that the result is as after a power cut. Saves of one
        project take turns. OwnershipLostError if another server has taken the project over
        (a higher epoch, or a head that moved): then nothing was confirmed.
        """
        loop = asyncio.get_running_loop()
        wish = Wish(
            trees=dict(trees),
            reason=reason,
            at=self._clock.now(),
            epoch=epoch,
            owner=self._server,
            records=records,
            freeze=(lambda: _Bridged(freeze(), loop)) if freeze is not None else None,
            rules=self._rules,
            workers=self._workers,
        )

        def work(stop: Stop) -> Saved:
            archive = self._archive(project)
            try:
                with closing(self._knowledge(project)) as knowledge:
                    return Save(archive, knowledge, wish, stop).run()
            except KnowledgeDamagedError:
                self._forget(project)
            with closing(self._knowledge(project)) as knowledge:
                return Save(archive, knowledge, wish, stop).run()

        async with self._lock(project):
            return await self._run(work)

    async def latest(self, project: str) -> Checkpoint | None:
        """Return the last confirmed checkpoint, or None if there is none."""

        def work(_: Stop) -> Checkpoint | None:
            archive = self._archive(project)
            head, _generation = archive.head()
            if head is None or head.checkpoint is None:
                return None
            return archive.checkpoint(head.checkpoint)

        return await self._run(work)

    async def get(self, project: str, checkpoint_id: str) -> Checkpoint:
        """Return one checkpoint, or raise NotFoundError."""
        return await self._run(lambda _: self._archive(project).checkpoint(checkpoint_id))

    async def list(self, project: str, *, limit: int = 100) -> list[Checkpoint]:
        """Return the newest confirmed checkpoints, newest first."""

        def work(stop: Stop) -> list[Checkpoint]:
            archive = self._archive(project)
            head, _ = archive.head()
            newest = (head.checkpoint or "") if head is not None else ""
            ids = [c for c, _ in archive.checkpoint_ids() if c <= newest]  # later: unconfirmed
            return archive.checkpoints(ids[::-1][:limit], stop.check)

        return await self._run(work)

    async def projects(self) -> Sequence[str]:
        """Return the places of all projects in the store, in order.

        Every key of the store is listed for it: minutes for a bucket with millions of objects.
        """

        def work(stop: Stop) -> list[str]:
            found = []
            for info in self._store.list(""):
                stop.check()
                place, _, name = info.key.rpartition("/")
                if name == "head" and place.count("/") == 1:
                    found.append(place)
            return found

        return await self._run(work)

    async def records(self, project: str, checkpoint_id: str | None = None) -> bytes:
        """Return what ``save`` was given as *records* with a checkpoint (None: the latest)."""

        def work(stop: Stop) -> bytes:
            reading = self._reading(project, checkpoint_id, stop)
            chunk = reading.checkpoint.records
            return b"" if chunk is None else reading.chunk(bytes.fromhex(chunk))

        with self._reader(project):
            return await self._run(work)

    async def restore(
        self,
        project: str,
        checkpoint_id: str | None,
        targets: Mapping[str, Path],
        *,
        progress: Progress | None = None,
    ) -> Restored:
        """Bring trees back, each at its target, which must not exist or be empty.

        *targets* maps what to restore to where: a tree's name (``workspace``) or the path of
        a directory in one (``workspace/src``). *checkpoint_id* None is the latest. Each
        target appears by a rename when all of them are verified and durable; after a crash
        in between some may be there, whole, and others not: then remove them and repeat.
        """

        def work(stop: Stop) -> Restored:
            reading = self._reading(project, checkpoint_id, stop)
            places = {}
            for path, target in targets.items():
                entry = reading.find(path.encode("utf-8", "surrogateescape"))
                if entry.kind != "directory":
                    raise ConflictError(f"{path} is not a directory", code="not_a_directory")
                places[target] = entry
            return Restore(reading, places, stop, workers=self._workers, progress=progress).run()

        with self._reader(project):
            return await self._run(work)

    async def entries(self, project: str, checkpoint_id: str | None, path: str) -> Sequence[Entry]:
        """Return what the directory *path* (``workspace/src``) holds in a checkpoint."""

        def work(stop: Stop) -> Sequence[Entry]:
            reading = self._reading(project, checkpoint_id, stop)
            entry = reading.find(path.encode("utf-8", "surrogateescape"))
            if entry.kind != "directory":
                raise ConflictError(f"{path} is not a directory", code="not_a_directory")
            return reading.entries(entry)

        with self._reader(project):
            return await self._run(work)

    async def read(
        self, project: str, checkpoint_id: str | None, path: str, *, limit_bytes: int
    ) -> bytes:
        """Return at most *limit_bytes* of a file in a checkpoint, from its beginning."""

        def work(stop: Stop) -> bytes:
            reading = self._reading(project, checkpoint_id, stop)
            entry = reading.find(path.encode("utf-8", "surrogateescape"))
            if entry.kind != "file":
                raise NotFoundError(f"{path} is not a file", code="not_a_file")
            found = bytearray()
            for part in reading.content(entry):
                stop.check()
                found += part[: limit_bytes - len(found)]
                if len(found) >= limit_bytes:
                    break
            return bytes(found)

        with self._reader(project):
            return await self._run(work)

    async def diff(self, project: str, before_id: str, after_id: str) -> Sequence[Difference]:
        """Return the paths that differ between two checkpoints, in order."""

        def work(stop: Stop) -> Sequence[Difference]:
            before = self._reading(project, before_id, stop)
            return list(differences(before, self._reading(project, after_id, stop)))

        with self._reader(project):
            return await self._run(work)

    async def verify(
        self, project: str, checkpoint_id: str | None = None, *, read_data: bool = False
    ) -> Verified:
        """Check one checkpoint (None: the latest), its structure or every byte of it."""

        def work(stop: Stop) -> Verified:
            archive = self._archive(project)
            checkpoint = self._chosen(archive, checkpoint_id)
            return verifying.verify(archive, checkpoint, read_data=read_data, stop=stop)

        with self._reader(project):
            return await self._run(work)

    async def collect(self, project: str, *, epoch: int = 0, grace: timedelta = GRACE) -> Collected:
        """Drop what the retention lets go; not while this server saves or reads the project."""
        async with self._lock(project):
            if self._readers[project]:
                raise ConflictError(f"{project} is being read", code="project_being_read")
            now = self._clock.now()
            return await self._run(
                lambda stop: collection.collect(
                    self._archive(project),
                    self._retention,
                    now=now,
                    grace=grace,
                    epoch=epoch,
                    stop=stop,
                )
            )

    async def claim(
        self, project: str, *, length: timedelta, take_over: TakeOver = TakeOver.EXPIRED
    ) -> Claim:
        """Take or keep the project for this server; its epoch goes into every save.

        OwnedElsewhereError where another server has it and *take_over* does not allow for it.
        One that it is taken from is refused at its next write.
        """
        now = self._clock.now()

        def work(_: Stop) -> Claim:
            archive = self._archive(project)
            return owners.claim(archive, self._server, now=now, length=length, take_over=take_over)

        async with self._lock(project):
            return await self._run(work)

    async def release(self, project: str, held: Claim) -> None:
        """Give the project up, so that another server may take it at once."""
        now = self._clock.now()
        async with self._lock(project):
            await self._run(lambda _: owners.release(self._archive(project), held, now=now))

    async def delete(self, project: str) -> int:
        """Remove everything of the project from the store; return how many objects."""

        def work(stop: Stop) -> int:
            archive = self._archive(project)
            # The head goes first: what is half deleted must not look restorable.
            archive.store.delete(archive.places.head)
            infos = list(archive.store.list(f"{project}/"))
            for info in infos:
                stop.check()
                archive.store.delete(info.key)
            return len(infos)

        async with self._lock(project):
            self._forget(project)
            return await self._run(work)

    def _knowledge(self, project: str) -> Knowledge:
        return Knowledge(self._cache / f"{project.replace('/', '--')}.db")

    def _forget(self, project: str) -> None:
        for suffix in ("", "-wal", "-shm"):
            name = f"{project.replace('/', '--')}.db{suffix}"
            (self._cache / name).unlink(missing_ok=True)

    def _archive(self, project: str) -> Archive:
        return Archive(self._store, self._keys, project)

    def _chosen(self, archive: Archive, checkpoint_id: str | None) -> Checkpoint:
        if checkpoint_id is None:
            head, _ = archive.head()
            checkpoint_id = head.checkpoint if head is not None else None
        if checkpoint_id is None:
            raise NotFoundError(
                f"{archive.project} has no checkpoint yet", code="checkpoint_not_found"
            )
        return archive.checkpoint(checkpoint_id)

    def _reading(self, project: str, checkpoint_id: str | None, stop: Stop) -> Reading:
        archive = self._archive(project)
        return Reading(archive, self._chosen(archive, checkpoint_id), stop.check)

    def _lock(self, project: str) -> asyncio.Lock:
        return self._locks.setdefault(project, asyncio.Lock())

    @contextmanager
    def _reader(self, project: str) -> Iterator[None]:
        self._readers[project] += 1
        try:
            yield
        finally:
            self._readers[project] -= 1

    async def _run(self, work: Callable[[Stop], T]) -> T:
        stop = Stop()
        future = asyncio.get_running_loop().run_in_executor(self._pool, work, stop)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            stop.set()
            while not future.done():
                try:
                    await asyncio.wait({future})
                except asyncio.CancelledError:
                    continue
            future.cancelled() or future.exception()  # seen, so that it is not reported as lost
            raise


class _Bridged:
    """An async context, entered and left from a worker thread."""

    def __init__(
        self,
        context: AbstractAsyncContextManager[object],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._context = context
        self._loop = loop

    def __enter__(self) -> None:
        self._wait(self._context.__aenter__())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._wait(self._context.__aexit__(kind, error, trace))

    def _wait(self, step: Coroutine[Any, Any, object]) -> None:
        asyncio.run_coroutine_threadsafe(step, self._loop).result()
