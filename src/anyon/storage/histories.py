"""The past of projects as the store holds it: listed, read and compared, never changed."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from anyon.domain.errors import ConflictError, NotFoundError
from anyon.storage import forks, verifying
from anyon.storage.archives import Archive
from anyon.storage.jobs import Jobs
from anyon.storage.keys import Keys
from anyon.storage.objects import ObjectStore
from anyon.storage.readings import Difference, Reading, differences
from anyon.storage.records import Checkpoint
from anyon.storage.restores import Progress
from anyon.storage.trees import Entry
from anyon.storage.uploads import Stop
from anyon.storage.verifying import Checks, Verified

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a project takes in the store.

    ``lent_bytes`` of ``stored_bytes`` are needed by forks, ``borrowed_bytes`` lie with other
    projects; ``size_bytes`` is the size of the files of the latest checkpoint.
    """

    checkpoints: int
    oldest_at: datetime | None
    latest_at: datetime | None
    packs: int
    stored_bytes: int
    lent_bytes: int
    borrowed_bytes: int
    size_bytes: int


class History:
    """Reads the checkpoints of one object store; ``checkpoints.Checkpoints`` is one that also writes.

    A project is named by its place, ``<user id>/<project id>``. Nothing here needs the project
    awake, or its files on this machine.
    """

    def __init__(self, store: ObjectStore, *, keys: Keys, jobs: Jobs) -> None:
        self._store = store
        self._keys = keys
        self._jobs = jobs
        self._readers: Counter[str] = Counter()

    async def latest(self, project: str) -> Checkpoint | None:
        """Return the last confirmed checkpoint, or None if there is none."""

        def work(_: Stop) -> Checkpoint | None:
            archive = self.archive(project)
            head, _generation = archive.head()
            if head is None or head.checkpoint is None:
                return None
            return archive.checkpoint(head.checkpoint)

        return await self._jobs.run(work)

    async def get(self, project: str, checkpoint_id: str) -> Checkpoint:
        """Return one checkpoint, or raise NotFoundError."""
        return await self._jobs.run(lambda _: self.archive(project).checkpoint(checkpoint_id))

    async def ids(self, project: str) -> Sequence[str]:
        """Return the ids of all confirmed checkpoints, newest first."""
        return await self._jobs.run(lambda _: _confirmed(self.archive(project)))

    async def list(self, project: str, *, limit: int = 100) -> list[Checkpoint]:
        """Return the newest confirmed checkpoints, newest first."""

        def work(stop: Stop) -> list[Checkpoint]:
            archive = self.archive(project)
            return archive.checkpoints(_confirmed(archive)[:limit], stop.check)

        return await self._jobs.run(work)

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

        return await self._jobs.run(work)

    async def records(self, project: str, checkpoint_id: str | None = None) -> bytes:
        """Return what ``save`` was given as *records* with a checkpoint (None: the latest)."""

        def work(stop: Stop) -> bytes:
            reading = self._reading(project, checkpoint_id, stop)
            chunk = reading.checkpoint.records
            return b"" if chunk is None else reading.chunk(bytes.fromhex(chunk))

        with self.reader(project):
            return await self._jobs.run(work)

    async def entries(self, project: str, checkpoint_id: str | None, path: str) -> Sequence[Entry]:
        """Return what the directory *path* (``workspace/src``) holds in a checkpoint."""

        def work(stop: Stop) -> Sequence[Entry]:
            reading = self._reading(project, checkpoint_id, stop)
            entry = reading.find(path.encode("utf-8", "surrogateescape"))
            if entry.kind != "directory":
                raise ConflictError(f"{path} is not a directory", code="not_a_directory")
            return reading.entries(entry)

        with self.reader(project):
            return await self._jobs.run(work)

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

        with self.reader(project):
            return await self._jobs.run(work)

    async def diff(self, project: str, before_id: str, after_id: str) -> Sequence[Difference]:
        """Return the paths that differ between two checkpoints, in order."""

        def work(stop: Stop) -> Sequence[Difference]:
            before = self._reading(project, before_id, stop)
            return list(differences(before, self._reading(project, after_id, stop)))

        with self.reader(project):
            return await self._jobs.run(work)

    async def verify(
        self,
        project: str,
        checkpoint_id: str | None = None,
        *,
        read_data: bool = False,
        checks: Checks | None = None,
        progress: Progress | None = None,
    ) -> Verified:
        """Check one checkpoint (None: the latest), its structure or every byte of it.

        What is damaged is named, with the newest earlier checkpoint that has it whole. *checks*
        spares packs that were read for another checkpoint.
        """

        def work(stop: Stop) -> Verified:
            archive = self.archive(project)
            return verifying.verify(
                archive,
                self._chosen(archive, checkpoint_id),
                read_data=read_data,
                stop=stop,
                checks=checks,
                progress=progress,
            )

        with self.reader(project):
            return await self._jobs.run(work)

    async def whole_before(self, project: str, checkpoint_id: str) -> Checkpoint | None:
        """Return the newest earlier checkpoint of which every byte is right, or None."""

        def work(stop: Stop) -> Checkpoint | None:
            archive = self.archive(project)
            return verifying.whole_before(archive, archive.checkpoint(checkpoint_id), stop)

        with self.reader(project):
            return await self._jobs.run(work)

    async def usage(self, project: str) -> Usage:
        """Return what the project takes in the store; its packs are listed for it."""

        def work(stop: Stop) -> Usage:
            archive = self.archive(project)
            head, _ = archive.head()
            ids = archive.checkpoint_ids()
            lent = forks.loans_of(archive).packs
            sizes = {}
            for info in self._store.list(archive.places.packs):
                stop.check()
                sizes[info.key.rpartition("/")[2]] = info.size_bytes
            latest = None if head is None else head.checkpoint
            record = None if latest is None else archive.checkpoint(latest)
            packs = {} if record is None else record.packs
            borrowed = {} if record is None else record.borrowed
            return Usage(
                checkpoints=len(ids),
                oldest_at=ids[0][1] if ids else None,
                latest_at=None if record is None else record.at,
                packs=len(sizes),
                stored_bytes=sum(sizes.values()),
                lent_bytes=sum(size for pack, size in sizes.items() if pack in lent),
                borrowed_bytes=sum(packs[pack] for pack in borrowed),
                size_bytes=0 if record is None else record.size_bytes,
            )

        with self.reader(project):
            return await self._jobs.run(work)

    async def run(self, work: Callable[[Stop], T]) -> T:
        """Do a piece of blocking work of the caller's in this room's threads."""
        return await self._jobs.run(work)

    def archive(self, project: str) -> Archive:
        """Return a project's objects, for work in this room's threads."""
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
        archive = self.archive(project)
        return Reading(archive, self._chosen(archive, checkpoint_id), stop.check)

    @contextmanager
    def reader(self, project: str) -> Iterator[None]:
        """Keep this server from collecting the project inside the block."""
        self._readers[project] += 1
        try:
            yield
        finally:
            self._readers[project] -= 1


def _confirmed(archive: Archive) -> list[str]:
    """Return the ids of the confirmed checkpoints, newest first."""
    head, _ = archive.head()
    newest = (head.checkpoint or "") if head is not None else ""
    ids = [one for one, _ in archive.checkpoint_ids() if one <= newest]  # later: unconfirmed
    return ids[::-1]
