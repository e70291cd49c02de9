"""Looking into checkpoints as a person does: directories, files, archives, differences.

Nothing is restored for it. The last few checkpoints that were looked into stay open for a
minute, as one look is mostly followed by another.
"""

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from blake3 import blake3

from anyon.domain import paths
from anyon.domain.errors import ConflictError, InvalidInputError, NotFoundError
from anyon.storage import tars, texts
from anyon.storage.histories import History
from anyon.storage.readings import Difference, Reading, differences
from anyon.storage.texts import TextDifference
from anyon.storage.trees import Entry
from anyon.storage.uploads import Stop

T = TypeVar("T")
_KEPT = 2
_KEPT_SECONDS = 60.0
_ONE_ROOT = Entry(b"", "directory")


@dataclass(frozen=True, slots=True)
class Listing:
    """A part of a directory's entries, by name, and how many it has in all."""

    entries: Sequence[Entry]
    total: int


@dataclass(frozen=True, slots=True)
class Changes:
    """A part of what differs between two checkpoints; *has_more* says whether more follows."""

    rows: Sequence[Difference]
    has_more: bool


class RangeError(InvalidInputError):
    """The range asked for begins beyond the end; ``size_bytes`` is where that is."""

    default_code = "range_beyond_end"
    status = 416

    def __init__(self, size_bytes: int) -> None:
        super().__init__(f"the file has {size_bytes} bytes")
        self.size_bytes = size_bytes


@dataclass(frozen=True, slots=True)
class Download:
    """Bytes on their way; *pieces* must be read to the end or closed.

    ``start`` and ``end`` are the part of the file's ``size_bytes`` that comes; of an archive,
    whose size is not known before, all are 0. ``mark`` is the same for the same content only.
    """

    name: bytes
    mark: str
    start: int
    end: int
    size_bytes: int
    pieces: AsyncIterator[bytes]


class Browser:
    """What is looked at in the past of projects; paths are ``<tree>/<path>`` in bytes.

    Every call raises NotFoundError for what is not there (``checkpoint_not_found``,
    ``tree_not_found``, ``path_not_found``).
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self._open: OrderedDict[tuple[str, str], tuple[Reading, float]] = OrderedDict()
        self._lock = threading.Lock()

    async def entry(self, project: str, checkpoint_id: str, path: bytes) -> Entry:
        """Return one entry."""
        return await self._look(project, checkpoint_id, lambda reading, _: _find(reading, path))

    async def listing(
        self, project: str, checkpoint_id: str, path: bytes, *, offset: int, limit: int
    ) -> Listing:
        """Return entries of a directory (empty path: the trees); ConflictError ``not_a_directory``."""

        def work(reading: Reading, _: Stop) -> Listing:
            found = sorted(_children(reading, path), key=lambda entry: entry.name)
            return Listing(found[offset : offset + limit], len(found))

        return await self._look(project, checkpoint_id, work)

    async def changes(
        self, project: str, before_id: str, after_id: str, *, offset: int, limit: int
    ) -> Changes:
        """Return what was added, changed and removed from one checkpoint to another, by path."""

        def work(reading: Reading, stop: Stop) -> Changes:
            before = self._reading(project, before_id, stop)
            rows: Iterator[Difference] = _checked(differences(before, reading), stop)
            found = list(islice(rows, offset, offset + limit + 1))
            return Changes(found[:limit], len(found) > limit)

        return await self._look(project, after_id, work)

    async def text_difference(
        self, project: str, before_id: str, after_id: str, path: bytes
    ) -> TextDifference:
        """Return how a file differs as text; one that is missing on a side is empty there.

        NotFoundError (``path_not_found``) if it is missing on both.
        """

        def work(reading: Reading, stop: Stop) -> TextDifference:
            former = _file(self._reading(project, before_id, stop), path)
            latter = _file(reading, path)
            if former is None and latter is None:
                raise _no_file(path)
            sizes = [found[1].size for found in (former, latter) if found is not None]
            if max(sizes) > texts.MAX_BYTES:
                return TextDifference(is_too_large=True)
            sides = [
                b"" if found is None else b"".join(found[0].content(found[1]))
                for found in (former, latter)
            ]
            return texts.difference(sides[0], sides[1], paths.shown(path))

        return await self._look(project, after_id, work)

    async def file(
        self,
        project: str,
        checkpoint_id: str,
        path: bytes,
        *,
        start: int | None = None,
        end: int | None = None,
    ) -> Download:
        """Open a file, or its part from *start* to before *end*; without *start* the last *end* bytes.

        ConflictError ``not_a_file``; RangeError if it begins beyond the end.
        """

        def work(reading: Reading, _: Stop) -> tuple[Reading, Entry]:
            found = _find(reading, path)
            if found.kind != "file":
                raise ConflictError(
                    f"{paths.shown(path)} is a {found.kind}, not a file",
                    code="not_a_file",
                    hint="A directory can be downloaded as an archive.",
                )
            return reading, found

        reading, entry = await self._look(project, checkpoint_id, work)
        size = entry.size
        if start is None:
            first, last = (0, size) if end is None else (max(0, size - end), size)
        else:
            first, last = start, size if end is None else min(end, size)
        if (first, last) != (0, size) and first >= size:
            raise RangeError(size)
        hashed = blake3(b"".join(b"%d " % at + chunk for at, chunk in entry.chunks))
        hashed.update(b"%d" % size)
        pieces = self._pieces(project, reading.content(entry, first, last))
        name = path.rpartition(b"/")[2]
        return Download(name, hashed.hexdigest()[:32], first, last, size, pieces)

    async def archive(self, project: str, checkpoint_id: str, path: bytes) -> Download:
        """Open a directory or file (empty path: all trees) as a tar archive."""

        def work(reading: Reading, _: Stop) -> tuple[Reading, list[tuple[bytes, Entry]]]:
            if path:
                return reading, [(path.rpartition(b"/")[2], _find(reading, path))]
            return reading, [(entry.name, entry) for entry in _children(reading, path)]

        reading, tops = await self._look(project, checkpoint_id, work)
        name = (path.rpartition(b"/")[2] or b"project") + b".tar"
        return Download(name, "", 0, 0, 0, self._pieces(project, tars.stream(reading, tops)))

    async def _pieces(self, project: str, source: Iterator[bytes]) -> AsyncIterator[bytes]:
        # Step by step: a slow reader holds no thread, and a collection waits for it.
        with self._history.reader(project):
            while (piece := await self._history.run(lambda _: next(source, None))) is not None:
                yield piece

    async def _look(
        self, project: str, checkpoint_id: str, work: Callable[[Reading, Stop], T]
    ) -> T:
        with self._history.reader(project):
            found = await self._history.run(
                lambda stop: work(self._reading(project, checkpoint_id, stop), stop)
            )
        asyncio.get_running_loop().call_later(_KEPT_SECONDS + 1, self._forget_old)
        return found

    def _reading(self, project: str, checkpoint_id: str, stop: Stop) -> Reading:
        """Return an open checkpoint; whether it is there still is asked in any case."""
        checkpoint = self._history.archive(project).checkpoint(checkpoint_id)
        key = (project, checkpoint.id)
        with self._lock:
            kept = self._open.pop(key, None)
        reading = (
            kept[0] if kept else Reading(self._history.archive(project), checkpoint, stop.check)
        )
        with self._lock:
            self._open[key] = (reading, time.monotonic())
            while len(self._open) > _KEPT:
                self._open.popitem(last=False)
        return reading

    def _forget_old(self) -> None:
        before = time.monotonic() - _KEPT_SECONDS
        with self._lock:
            for key in [key for key, (_, used) in self._open.items() if used < before]:
                del self._open[key]


def _find(reading: Reading, path: bytes) -> Entry:
    return reading.find(path) if path else _ONE_ROOT


def _children(reading: Reading, path: bytes) -> list[Entry]:
    if not path:
        return [reading.root(name) for name in sorted(reading.checkpoint.roots)]
    entry = reading.find(path)
    if entry.kind != "directory":
        raise ConflictError(
            f"{paths.shown(path)} is a {entry.kind}, not a directory", code="not_a_directory"
        )
    return reading.entries(entry)


def _file(reading: Reading, path: bytes) -> tuple[Reading, Entry] | None:
    try:
        found = _find(reading, path)
    except NotFoundError:
        return None
    if found.kind == "file":
        return reading, found
    if found.kind == "directory":
        raise ConflictError(f"{paths.shown(path)} is a directory", code="not_a_file")
    return None


def _no_file(path: bytes) -> NotFoundError:
    return NotFoundError(
        f"neither checkpoint has the file {paths.shown(path)}", code="path_not_found"
    )


def _checked(rows: Iterator[Difference], stop: Stop) -> Iterator[Difference]:
    for row in rows:
        stop.check()
        yield row
