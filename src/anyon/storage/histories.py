"""The past of projects as the store holds it: listed, read and compared, never changed."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from anyon.domain.errors import ConflictError, NotFoundError
from anyon.storage import verifying
from anyon.storage.archives import Archive
from anyon.storage.jobs import Jobs
from anyon.storage.keys import Keys
from anyon.storage.objects import ObjectStore
from anyon.storage.readings import Difference, Reading, differences
from anyon.storage.records import Checkpoint
from anyon.storage.trees import Entry
from anyon.storage.uploads import Stop
from anyon.storage.verifying import Verified


class History:
    """Reads the checkpoints of one object store; ``checkpoints.Checkpoints`` is one that also writes.

    A project is named by its place, ``<user id>/<project id>``. Nothing here needs the project
    awake, or its files on this machine.
    """

    def __init__(self, store: ObjectStore, *, keys: Keys, jobs: Jobs) -> None:
        self._store = store
        self._keys = keys
        self._jobs = jobs
        self._run = jobs.run
        self._readers: Counter[str] = Counter()

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

    @contextmanager
    def _reader(self, project: str) -> Iterator[None]:
        self._readers[project] += 1
        try:
            yield
        finally:
            self._readers[project] -= 1
