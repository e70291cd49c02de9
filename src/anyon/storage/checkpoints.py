"""Checkpoints of projects: the room's front door, for async callers.

What only reads the past is in ``histories``.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, closing
from datetime import timedelta
from pathlib import Path

from anyon.clock import Clock
from anyon.domain.errors import ConflictError
from anyon.locks import Locks
from anyon.storage import collection, comparisons, forks, owners
from anyon.storage.collection import Collected
from anyon.storage.comparisons import Compared
from anyon.storage.exclusions import DEFAULTS, parse
from anyon.storage.glances import Glance
from anyon.storage.histories import History
from anyon.storage.jobs import Bridged, Jobs, asked
from anyon.storage.journals import Journal
from anyon.storage.keys import Keys, PlainKeys
from anyon.storage.knowledge import Knowledge, KnowledgeDamagedError
from anyon.storage.objects import ObjectStore
from anyon.storage.owners import Claim, TakeOver
from anyon.storage.records import Checkpoint
from anyon.storage.restores import Progress, Restore, Restored
from anyon.storage.retention import Retention
from anyon.storage.saves import Glancing, Save, Saved, Wish
from anyon.storage.saves import Progress as Saving
from anyon.storage.stillness import Stillness
from anyon.storage.uploads import Stop

Freeze = Callable[[], AbstractAsyncContextManager[Stillness | None]]
"""Makes a context in which nothing of the project runs; None where no more is known of that."""
GRACE = timedelta(hours=24)


class Checkpoints(History):
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
        journal: Callable[[], Journal] = Journal,
        glance: Glancing | None = Glance,
    ) -> None:
        super().__init__(store, keys=keys if keys is not None else PlainKeys(), jobs=Jobs(jobs))
        self._cache = cache
        self._clock = clock
        self._rules = parse(exclusions)
        self._retention = retention if retention is not None else Retention()
        self._server = server
        self._workers = workers
        self._journal = journal
        self._glance = glance
        self._locks = Locks[str]()

    async def close(self) -> None:
        """Wait for what is under way and end the threads."""
        await self._jobs.close()

    async def save(
        self,
        project: str,
        trees: Mapping[str, Path],
        *,
        reason: str = "",
        epoch: int = 0,
        records: bytes = b"",
        freeze: Freeze | None = None,
        bases: Mapping[str, Mapping[str, str]] | None = None,
        check: Callable[[], Coroutine[None, None, None]] | None = None,
        progress: Callable[[Saving], None] | None = None,
    ) -> Saved:
        """Capture *trees* (``workspace``, ``home``, ``system``) and return once that is durable.

        *progress* is told how far it is, a few times a second, from a worker thread.
        *bases* says of trees that are layers what they lie over; it is kept with them.
        *check* is asked once everything is read, and raises where that is not to be confirmed.

        When nothing has changed the last checkpoint is returned, once it is seen to be the
        head still. With *freeze* everything is copied first, and again what changed meanwhile
        inside a short freeze, so that the result is as after a power cut. Saves of one
        project take turns. OwnershipLostError if another server has taken the project over
        (a higher epoch, or a head that moved): then nothing was confirmed.
        """
        loop = asyncio.get_running_loop()
        wish = Wish(
            trees=dict(trees),
            bases=bases or {},
            check=(lambda: asked(check(), loop)) if check is not None else None,
            reason=reason,
            at=self._clock.now(),
            epoch=epoch,
            owner=self._server,
            records=records,
            freeze=(lambda: Bridged(freeze(), loop)) if freeze is not None else None,
            rules=self._rules,
            workers=self._workers,
            journal=self._journal,
            glance=self._glance,
            progress=progress,
        )

        def work(stop: Stop) -> Saved:
            archive = self.archive(project)
            try:
                with closing(self._knowledge(project)) as knowledge:
                    return Save(archive, knowledge, wish, stop).run()
            except KnowledgeDamagedError:
                self._forget(project)
            with closing(self._knowledge(project)) as knowledge:
                return Save(archive, knowledge, wish, stop).run()

        async with self._lock(project):
            return await self._jobs.run(work)

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

        with self.reader(project):
            return await self._jobs.run(work)

    async def restore_entry(
        self,
        project: str,
        checkpoint_id: str,
        path: bytes,
        target: Path,
        *,
        progress: Progress | None = None,
    ) -> Restored:
        """Bring one file, link or directory back, as ``<target>/<its name>``; *target* is a new directory.

        *path* begins with a tree, and names something in it. NotFoundError ``path_not_found``.
        """
        above, _, name = path.rpartition(b"/")

        def work(stop: Stop) -> Restored:
            reading = self._reading(project, checkpoint_id, stop)
            reading.find(path)
            return Restore(
                reading,
                {target: reading.find(above)},
                stop,
                workers=self._workers,
                progress=progress,
                only={target: name},
            ).run()

        with self.reader(project):
            return await self._jobs.run(work)

    async def compare(
        self, project: str, checkpoint_id: str, targets: Mapping[str, Path]
    ) -> Compared:
        """Hold trees on this machine against a checkpoint, byte for byte; see ``comparisons``."""

        def work(stop: Stop) -> Compared:
            reading = self._reading(project, checkpoint_id, stop)
            return comparisons.compare(reading, targets, stop)

        with self.reader(project):
            return await self._jobs.run(work)

    async def fork(self, project: str, checkpoint_id: str, into: str, *, rows: bytes) -> Checkpoint:
        """Make *into* a project that begins with a checkpoint of *project*, in constant time.

        Nothing is copied: both need the same packs from now on, and neither's collection or
        deletion takes what the other needs. *rows* are the new project's own records. After a
        failure ``delete`` *into*. NotFoundError ``checkpoint_not_found``.
        """
        now = self._clock.now()

        def work(stop: Stop) -> Checkpoint:
            source, made = self.archive(project), self.archive(into)
            return forks.fork(source, checkpoint_id, made, rows=rows, now=now, stop=stop)

        async with self._lock(into):
            return await self._jobs.run(work)

    async def collect(self, project: str, *, epoch: int = 0, grace: timedelta = GRACE) -> Collected:
        """Drop what the retention lets go; not while this server saves or reads the project."""
        async with self._lock(project):
            if self._readers[project]:
                raise ConflictError(f"{project} is being read", code="project_being_read")
            now = self._clock.now()
            return await self._jobs.run(
                lambda stop: collection.collect(
                    self.archive(project),
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
            archive = self.archive(project)
            return owners.claim(archive, self._server, now=now, length=length, take_over=take_over)

        async with self._lock(project):
            return await self._jobs.run(work)

    async def release(self, project: str, held: Claim) -> None:
        """Give the project up, so that another server may take it at once."""
        now = self._clock.now()
        async with self._lock(project):
            await self._jobs.run(lambda _: owners.release(self.archive(project), held, now=now))

    async def delete(self, project: str) -> int:
        """Remove everything of the project from the store; return how many objects."""
        async with self._lock(project):
            self._forget(project)
            return await self._jobs.run(lambda stop: collection.forget(self.archive(project), stop))

    def _knowledge(self, project: str) -> Knowledge:
        return Knowledge(self._cache / f"{project.replace('/', '--')}.db")

    def _forget(self, project: str) -> None:
        for suffix in ("", "-wal", "-shm", "-glances"):
            name = f"{project.replace('/', '--')}.db{suffix}"
            (self._cache / name).unlink(missing_ok=True)

    def _lock(self, project: str) -> asyncio.Lock:
        return self._locks.of(project)
