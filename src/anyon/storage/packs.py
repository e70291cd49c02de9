"""Packs: objects of about 16 MiB that hold many chunks, compressed together in frames.

The bytes are told in ``docs/reference/checkpoint-format.md``.
"""

import json
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import zstandard
from blake3 import blake3

from anyon.storage.keys import KEY_ID_BYTES, Keys, ProjectKey
from anyon.storage.objects import DamagedError, ObjectStore

MAGIC = b"ANYONPK1"
MARK_BYTES = 8
HEADER = struct.Struct(f"<8s{MARK_BYTES}s{KEY_ID_BYTES}s")
TRAILER = struct.Struct("<I8s")
CHUNK_BYTES = 1 << 20
"""A file up to this size is one chunk; a larger one is cut into blocks of it."""
FRAME_BYTES = 1 << 20
PACK_BYTES = 16 << 20
TAIL_BYTES = 128 << 10
MAX_FRAME_BYTES = 64 << 20
_LEVEL = 3

_local = threading.local()


@dataclass(frozen=True, slots=True)
class Frame:
    """A run of chunks that were compressed together, and where it lies in its pack."""

    offset: int
    stored_bytes: int
    raw_bytes: int
    chunks: tuple[tuple[bytes, int], ...]
    """Each chunk's id and length, in the order in which they follow each other."""


@dataclass(frozen=True, slots=True)
class Pack:
    """One pack's index: what it holds."""

    id: str
    size_bytes: int
    key_id: bytes
    frames: tuple[Frame, ...]

    def chunk_ids(self) -> Iterator[bytes]:
        """Yield the id of every chunk in the pack."""
        for frame in self.frames:
            for chunk, _ in frame.chunks:
                yield chunk


@dataclass(slots=True)
class SealedFrame:
    """A frame ready to be put into a pack."""

    data: bytes
    raw_bytes: int
    chunks: list[tuple[bytes, int]] = field(default_factory=list)


def seal_frame(key: ProjectKey, chunks: list[tuple[bytes, bytes]]) -> SealedFrame:
    """Compress and seal *chunks* (id, data) together."""
    if not hasattr(_local, "compressor"):
        _local.compressor = zstandard.ZstdCompressor(level=_LEVEL)
    raw = b"".join(data for _, data in chunks)
    packed = key.sealed(_local.compressor.compress(raw))
    return SealedFrame(packed, len(raw), [(chunk, len(data)) for chunk, data in chunks])


def build(
    key: ProjectKey, frames: list[SealedFrame], mark: bytes = bytes(MARK_BYTES)
) -> tuple[Pack, bytes]:
    """Return a pack of *frames* and its bytes; the pack's id is the hash of the bytes.

    Of equal frames under different *mark*s there are different packs.
    """
    parts = [HEADER.pack(MAGIC, mark, key.id)]
    placed = []
    offset = HEADER.size
    for frame in frames:
        placed.append(Frame(offset, len(frame.data), frame.raw_bytes, tuple(frame.chunks)))
        parts.append(frame.data)
        offset += len(frame.data)
    rows = [
        [f.offset, f.stored_bytes, f.raw_bytes, [[c.hex(), n] for c, n in f.chunks]] for f in placed
    ]
    text = json.dumps({"frames": rows}, separators=(",", ":")).encode()
    index = key.sealed(zstandard.ZstdCompressor(_LEVEL, write_checksum=True).compress(text))
    parts += [index, TRAILER.pack(len(index), MAGIC)]
    data = b"".join(parts)
    return Pack(blake3(data).hexdigest(), len(data), key.id, tuple(placed)), data


def read_index(store: ObjectStore, object_key: str, pack_id: str, keys: Keys, project: str) -> Pack:
    """Read a pack's index from the end of its object."""
    size = store.head(object_key).size_bytes
    tail = store.get(object_key, start=max(0, size - TAIL_BYTES)).data
    if len(tail) < TRAILER.size:
        raise DamagedError(f"the pack {pack_id} is cut")
    length, magic = TRAILER.unpack(tail[-TRAILER.size :])
    need = length + TRAILER.size
    if magic != MAGIC or need > size:
        raise DamagedError(f"the pack {pack_id} has no end")
    if need > len(tail):
        tail = store.get(object_key, start=size - need).data
    header = tail if len(tail) == size else store.get(object_key, length=HEADER.size).data
    key_id = _key_id(header, pack_id)
    return parse_index(tail[-need : -TRAILER.size], pack_id, size, keys.named(project, key_id))


def parse_index(index: bytes, pack_id: str, size_bytes: int, key: ProjectKey) -> Pack:
    """Return the pack that *index* (as stored) describes."""
    text = decompress(key.opened(index), MAX_FRAME_BYTES)
    try:
        frames = tuple(
            Frame(offset, stored, raw, tuple((bytes.fromhex(c), n) for c, n in chunks))
            for offset, stored, raw, chunks in json.loads(text)["frames"]
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"the index of the pack {pack_id} is damaged: {error}") from error
    return Pack(pack_id, size_bytes, key.id, frames)


def parse(data: bytes, pack_id: str, keys: Keys, project: str) -> Pack:
    """Return the index of a whole pack's bytes, once their hash is found right."""
    if blake3(data).hexdigest() != pack_id:
        raise DamagedError(f"the pack {pack_id} is damaged: its hash does not match")
    length, _ = TRAILER.unpack(data[-TRAILER.size :])
    key = keys.named(project, _key_id(data, pack_id))
    index = data[-length - TRAILER.size : -TRAILER.size]
    return parse_index(index, pack_id, len(data), key)


def open_frame(key: ProjectKey, frame: Frame, stored: bytes) -> dict[bytes, bytes]:
    """Return the frame's chunks by id, each verified by its hash."""
    raw = decompress(key.opened(stored), MAX_FRAME_BYTES)
    chunks = {}
    offset = 0
    for chunk, length in frame.chunks:
        data = raw[offset : offset + length]
        offset += length
        if key.chunk_id(data) != chunk:
            raise DamagedError(f"the chunk {chunk.hex()} is damaged")
        chunks[chunk] = data
    return chunks


def decompress(data: bytes, limit: int) -> bytes:
    """Return the content of one zstd frame of at most *limit* bytes, or raise DamagedError."""
    if not hasattr(_local, "decompressor"):
        _local.decompressor = zstandard.ZstdDecompressor()
    try:
        size = zstandard.frame_content_size(data)
        if not 0 <= size <= limit:
            raise DamagedError("a compressed part states an impossible size")
        return bytes(_local.decompressor.decompress(data, max_output_size=limit))
    except zstandard.ZstdError as error:
        raise DamagedError(f"a compressed part does not open: {error}") from error


def _key_id(header: bytes, pack_id: str) -> bytes:
    if len(header) < HEADER.size:
        raise DamagedError(f"the pack {pack_id} is cut")
    magic, _, key_id = HEADER.unpack(header[: HEADER.size])
    if magic != MAGIC:
        raise DamagedError(f"the pack {pack_id} does not begin as one")
    return bytes(key_id)
