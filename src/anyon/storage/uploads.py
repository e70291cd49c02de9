"""The way of new chunks into the store: hash, leave out what is known, compress, pack, put.

One thread adds; compressing and putting are done by a few others. What waits is bounded:
some frames and some packs, whatever the size of the tree.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import datetime, timedelta
from typing import Any

from blake3 import blake3

from anyon.domain.errors import AnyonError
from anyon.failpoints import reached
from anyon.storage.keys import ProjectKey
from anyon.storage.objects import (
    ABSENT,
    DamagedError,
    ObjectNotFoundError,
    ObjectStore,
    PreconditionFailedError,
)
from anyon.storage.packs import (
    FRAME_BYTES,
    MARK_BYTES,
    PACK_BYTES,
    Pack,
    SealedFrame,
    build,
    seal_frame,
)
from anyon.storage.records import Places
from anyon.urgency import yield_to_others

SMALL_PACK_BYTES = 2 << 20
HELD_BYTES = 64 << 20
_NICE = 5
"""Compressing gives way to what people wait for."""
RESUMABLE = timedelta(hours=6)
"""Within it at most what a save that failed has put is taken again; well below any grace."""


def mark_of(generation: str, epoch: int, owner: str, at: datetime) -> bytes:
    """Return what goes into the packs of a save that began on the head of *generation* at *at*.

    An old pack that nothing needs may be about to be deleted, by a collector that was stopped in
    the middle or a request that is still on its way. So its name must never be taken again: only
    a save on the same head, by the same owner, in the same hours makes packs of the same names.
    """
    hours = int(at.timestamp() // RESUMABLE.total_seconds())
    text = f"{generation}\0{epoch}\0{owner}\0{hours}"
    return blake3(text.encode()).digest(MARK_BYTES)


class StoppedError(AnyonError):
    """The work was called off before it was done; nothing was confirmed."""

    default_code = "stopped"
    status = 503


class Stop:
    """A wish to end, asked for between steps."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        """Call the work off."""
        self._event.set()

    def check(self) -> None:
        """Raise StoppedError if the work was called off."""
        if self._event.is_set():
            raise StoppedError("the work was called off")


class _Stream:
    """Frames of one sort (file contents, or nodes) on their way into packs."""

    def __init__(self) -> None:
        self.chunks: list[tuple[bytes, bytes]] = []
        self.raw_bytes = 0
        self.sealing: deque[Future[SealedFrame]] = deque()
        self.frames: list[SealedFrame] = []
        self.frames_bytes = 0


class Uploads:
    """Takes chunks; after ``finish`` every one of them is durable in the store."""

    def __init__(
        self,
        store: ObjectStore,
        places: Places,
        key: ProjectKey,
        *,
        known: Callable[[bytes], int | None],
        first_number: int,
        workers: int = 3,
        mark: bytes = bytes(MARK_BYTES),
        tell: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._places = places
        self._key = key
        self._known = known
        self._number = first_number
        self._workers = workers
        self._mark = mark
        self._tell = tell
        self._pool = ThreadPoolExecutor(
            workers, "anyon-upload", initializer=yield_to_others, initargs=(_NICE,)
        )
        self._streams = {False: _Stream(), True: _Stream()}
        self._new: dict[bytes, bool] = {}
        self._puts: deque[Future[None]] = deque()
        self.packs: dict[int, Pack] = {}
        self._where: dict[bytes, int] = {}
        self.taken_bytes = 0
        """What ``add`` was given, known or new: what was read."""
        self.is_holding = False
        """While true, ``add`` keeps what it takes in memory (to a bound) and does not wait."""

    def add(self, data: bytes, *, is_node: bool = False) -> bytes:
        """Take a chunk and return its id; it may still be on its way."""
        self.taken_bytes += len(data)
        self._tell()
        chunk = self._key.chunk_id(data)
        if chunk in self._new or self._known(chunk) is not None:
            return chunk
        self._new[chunk] = True
        stream = self._streams[is_node]
        stream.chunks.append((chunk, data))
        stream.raw_bytes += len(data)
        if stream.raw_bytes >= FRAME_BYTES:
            self._seal(stream)
        return chunk

    def pack_of(self, chunk: bytes) -> int:
        """Return the number of the pack that holds *chunk*; after ``finish`` only."""
        number = self._where.get(chunk)
        if number is None:
            number = self._known(chunk)
        if number is None:
            raise KeyError(chunk.hex())
        return number

    @property
    def new_bytes(self) -> int:
        """The size of all packs that were written."""
        return sum(pack.size_bytes for pack in tuple(self.packs.values()))

    def rest(self) -> None:
        """Return when nothing is being compressed or put; what was begun may not be durable yet."""
        under_way: list[Future[Any]] = list(self._puts)
        for stream in self._streams.values():
            under_way += stream.sealing
        wait(under_way)

    def flush(self) -> None:
        """Return when all chunks taken so far are durable; ``add`` may go on after it."""
        for stream in self._streams.values():
            self._seal(stream)
            while stream.sealing:
                self._collect(stream)
        contents, nodes = self._streams[False], self._streams[True]
        if contents.frames_bytes + nodes.frames_bytes <= SMALL_PACK_BYTES:
            # A small checkpoint is one object, not two.
            contents.frames += nodes.frames
            contents.frames_bytes += nodes.frames_bytes
            nodes.frames, nodes.frames_bytes = [], 0
        for stream in self._streams.values():
            self._put(stream)
        while self._puts:
            self._puts.popleft().result()
            self._tell()

    def close(self) -> None:
        """End the threads; what is under way is waited for, its errors were raised or are moot."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _seal(self, stream: _Stream) -> None:
        if not stream.chunks:
            return
        stream.sealing.append(self._pool.submit(seal_frame, self._key, stream.chunks))
        stream.chunks, stream.raw_bytes = [], 0
        allowed = HELD_BYTES // FRAME_BYTES if self.is_holding else self._workers + 1
        while len(stream.sealing) > allowed:
            self._collect(stream)
            if stream.frames_bytes >= PACK_BYTES:
                self._put(stream)

    def _collect(self, stream: _Stream) -> None:
        frame = stream.sealing.popleft().result()
        stream.frames.append(frame)
        stream.frames_bytes += len(frame.data)

    def _put(self, stream: _Stream) -> None:
        if not stream.frames:
            return
        frames, stream.frames, stream.frames_bytes = stream.frames, [], 0
        number, self._number = self._number, self._number + 1
        for frame in frames:
            for chunk, _ in frame.chunks:
                self._where[chunk] = number
        while len(self._puts) >= self._workers:
            self._puts.popleft().result()
        self._puts.append(self._pool.submit(self._put_pack, number, frames))

    def _put_pack(self, number: int, frames: list[SealedFrame]) -> None:
        pack, data = build(self._key, frames, self._mark)
        frames.clear()  # they are in the pack's bytes now: not twice in memory
        object_key = self._places.pack(pack.id)
        try:
            self._store.put(object_key, data, if_generation=ABSENT)
        except PreconditionFailedError:
            # A former try put it there, not long ago (see ``mark_of``). It is about to be relied on: if it was spoilt on the
            # way, the right bytes replace it (its name says which those are).
            if not self._is_there(object_key, data):
                self._store.put(object_key, data)
        reached("checkpoint.pack_put")
        self.packs[number] = pack

    def _is_there(self, object_key: str, data: bytes) -> bool:
        try:
            return self._store.get(object_key).data == data
        except (DamagedError, ObjectNotFoundError):
            return False
