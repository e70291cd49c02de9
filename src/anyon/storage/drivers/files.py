"""A store in a directory: the embedded default.

``<root>/objects/<key>`` holds the value followed by a trailer of 32 bytes: a mark, a
checksum of value and generation, and the generation. So a person can read an object, and
a cut or flipped file is noticed. A write goes to ``<root>/uploads``, is made durable, and
is then linked or renamed into place under a lock that excludes other processes too.
"""

import contextlib
import fcntl
import os
import secrets
import struct
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from anyon.storage.objects import (
    ABSENT,
    Blob,
    DamagedError,
    ObjectInfo,
    ObjectNotFoundError,
    PreconditionFailedError,
    StoreRefusedError,
    StoreUnavailableError,
    check_key,
)

TRAILER = struct.Struct("<12sI16s")
MARK = b"anyon object"
STALE_UPLOAD_SECONDS = 24 * 3600
LOCKS = 64
_DURABLE_KEPT = 8
"""Each costs a descriptor; those of a save and of the log beside it are about so many."""


class FilesStore:
    """Keeps the promises of ``ObjectStore`` in a directory of a local file system.

    Several processes may use one directory. It must be a file system with locks, links and
    an honest fsync (ext4, XFS, btrfs; not a network mount).
    """

    def __init__(self, root: Path, *, deadline: timedelta = timedelta(seconds=30)) -> None:
        self._root = root
        self._deadline = deadline.total_seconds()
        self._objects = root / "objects"
        self._uploads = root / "uploads"
        self._locks = root / "locks"
        self._durable = _Durable()
        for directory in (root, self._objects, self._uploads, self._locks):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._drop_stale_uploads()

    def put(self, key: str, data: bytes, *, if_generation: str | None = None) -> str:
        """See ``ObjectStore.put``."""
        path = self._path(key)
        generation = secrets.token_bytes(16)
        upload = self._uploads / generation.hex()
        try:
            with self._translated(key):
                _write(upload, data, generation)
                with self._locked(key):
                    self._check(key, if_generation)
                    self._place(upload, path)
        finally:
            # What cannot be removed now is a stale upload in a day: it must not hide what went wrong.
            with contextlib.suppress(OSError):
                upload.unlink(missing_ok=True)
        return generation.hex()

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> Blob:
        """See ``ObjectStore.get``."""
        path = self._path(key)
        with self._translated(key), path.open("rb", buffering=0) as file:
            size, checksum, generation = _trailer(file.fileno(), key)
            begin = max(0, size + start) if start < 0 else min(start, size)
            count = size - begin if length is None else min(length, size - begin)
            data = _read(file.fileno(), begin, count)
        if count == size and zlib.crc32(data, zlib.crc32(generation)) != checksum:
            raise DamagedError(f"the object {key} is damaged: its checksum does not match")
        return Blob(data, generation.hex())

    def head(self, key: str) -> ObjectInfo:
        """See ``ObjectStore.head``."""
        with self._translated(key):
            return _info(self._path(key), key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ``ObjectStore.list``."""
        with self._translated(prefix):
            keys = sorted(self._keys(prefix), key=str.encode)
            self._check_there()
        for key in keys:
            with contextlib.suppress(ObjectNotFoundError):  # deleted meanwhile
                yield self.head(key)

    def delete(self, key: str, *, if_generation: str | None = None) -> None:
        """See ``ObjectStore.delete``."""
        path = self._path(key)
        with contextlib.suppress(ObjectNotFoundError), self._translated(key), self._locked(key):
            if path.exists():
                self._check(key, if_generation)
            path.unlink()
            _sync_directory(path.parent)
            self._drop_empty(path.parent)

    @contextlib.contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            try:
                yield
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                self._check_there()
                raise ObjectNotFoundError(f"there is no object {key}") from None
        except PermissionError as error:
            raise StoreRefusedError(f"the store's directory refuses: {error}") from error
        except OSError as error:
            raise StoreUnavailableError(f"the store's directory failed: {error}") from error

    def _check_there(self) -> None:
        """Raise where the store itself is gone, as with its disk: that must not look like an empty one."""
        for directory in (self._objects, self._uploads, self._locks):
            if not directory.is_dir():
                raise StoreUnavailableError(
                    f"{directory} of the store is not there",
                    hint="Is its disk mounted? What is in the store is where that directory is now.",
                )

    def _path(self, key: str) -> Path:
        # An object may be called as a directory of another ("a" and "a/b"): so directories
        # carry a mark that no object's file has.
        *directories, name = check_key(key).split("/")
        return self._objects.joinpath(*(f"{part}+" for part in directories), f"{name}=")

    def _keys(self, prefix: str) -> Iterator[str]:
        above = prefix.split("/")[:-1]
        if any(part in {"", ".", ".."} for part in above):
            return
        first = self._objects.joinpath(*(f"{part}+" for part in above))
        waiting = [(first, "".join(f"{part}/" for part in above))]
        while waiting:
            directory, start = waiting.pop()
            try:
                entries = [(e.name, e.is_dir(follow_symlinks=False)) for e in os.scandir(directory)]
            except FileNotFoundError:  # emptied and dropped meanwhile
                continue
            for name, is_directory in entries:
                key = start + name[:-1] + ("/" if is_directory else "")
                if not (key.startswith(prefix) or (is_directory and prefix.startswith(key))):
                    continue
                if is_directory:
                    waiting.append((directory / name, key))
                else:
                    yield key

    def _check(self, key: str, wanted: str | None) -> None:
        if wanted is None:
            return
        try:
            current = _info(self._path(key), key).generation
        except FileNotFoundError:
            current = ABSENT
        if wanted != current:
            raise PreconditionFailedError(f"{key} is not at the generation asked for")

    def _place(self, upload: Path, path: Path) -> None:
        # Another may drop the emptied directory between mkdir and rename, or while mkdir looks
        # at what it found there (then it says that something exists that is no directory).
        for _ in range(1000):
            try:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                upload.rename(path)
            except (FileNotFoundError, FileExistsError):
                if not upload.exists():
                    raise
            else:
                break
        else:
            raise StoreUnavailableError(f"the directory of {path.name} vanishes again and again")
        directory = path.parent
        _sync_directory(directory)
        while directory != self._objects and not self._durable.has(directory):
            with self._durable.adding(directory):
                _sync_directory(directory.parent)
            directory = directory.parent

    def _drop_empty(self, directory: Path) -> None:
        while directory != self._objects:
            try:
                directory.rmdir()
            except OSError:  # not empty, or another was quicker
                return
            self._durable.forget(directory)
            directory = directory.parent

    @contextlib.contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        number = zlib.crc32(key.encode()) % LOCKS
        fd = os.open(self._locks / str(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._wait_for(fd)
            yield
        finally:
            os.close(fd)

    def _wait_for(self, fd: int) -> None:
        # Not a blocking lock: its holder may be a process that was stopped, for ever.
        end = time.monotonic() + self._deadline
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise StoreUnavailableError(
                        "another process holds a lock of the store's directory",
                        hint="Look for a server that was stopped (SIGSTOP) and end it.",
                    ) from None
                time.sleep(0.002)
            else:
                return

    def _drop_stale_uploads(self) -> None:
        limit = time.time() - STALE_UPLOAD_SECONDS
        for upload in self._uploads.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if upload.stat().st_mtime < limit:
                    upload.unlink()


def _write(path: Path, data: bytes, generation: bytes) -> None:
    checksum = zlib.crc32(data, zlib.crc32(generation))
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        for part in (memoryview(data), memoryview(TRAILER.pack(MARK, checksum, generation))):
            done = 0
            while done < len(part):
                done += os.write(fd, part[done:])
        os.fsync(fd)
    finally:
        os.close(fd)


def _read(fd: int, start: int, count: int) -> bytes:
    parts = []
    while count > 0:
        part = os.pread(fd, count, start)
        if not part:
            raise StoreUnavailableError("an object's file became shorter while it was read")
        parts.append(part)
        start += len(part)
        count -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _trailer(fd: int, key: str) -> tuple[int, int, bytes]:
    size = os.fstat(fd).st_size - TRAILER.size
    if size < 0:
        raise DamagedError(f"the object {key} is damaged: its file is too short")
    mark, checksum, generation = TRAILER.unpack(_read(fd, size, TRAILER.size))
    if mark != MARK:
        raise DamagedError(f"the object {key} is damaged: its end is missing")
    return size, checksum, generation


class _Held:
    """A directory kept open: while it is, no other gets its number."""

    def __init__(self, directory: Path) -> None:
        self.fd = -1
        self.fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


class _Durable:
    """Directories whose way from the store's top is on the disk, so that it need not be synced again."""

    def __init__(self) -> None:
        self._held: OrderedDict[Path, _Held] = OrderedDict()
        self._lock = threading.Lock()

    def has(self, directory: Path) -> bool:
        """Say whether this very directory was added: another may be there by its name now."""
        with self._lock:
            held = self._held.get(directory)
            if held is None:
                return False
            self._held.move_to_end(directory)
            try:
                return os.path.samestat(directory.stat(), os.fstat(held.fd))
            except FileNotFoundError:
                return False

    def forget(self, directory: Path) -> None:
        """Let go of a directory that was removed."""
        with self._lock:
            self._held.pop(directory, None)

    @contextlib.contextmanager
    def adding(self, directory: Path) -> Iterator[None]:
        """Note, once the block is done, that the directory's own name is on the disk."""
        try:
            held = _Held(directory)  # before that is so: it must not be another's by then
        except FileNotFoundError:  # our object was deleted, and its directory with it
            yield
            return
        yield
        with self._lock:
            self._held[directory] = held
            self._held.move_to_end(directory)
            while len(self._held) > _DURABLE_KEPT:
                self._held.popitem(last=False)


def _info(path: Path, key: str) -> ObjectInfo:
    with path.open("rb", buffering=0) as file:
        size, _, generation = _trailer(file.fileno(), key)
        updated = datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC)
    return ObjectInfo(key, size, generation.hex(), updated)


def _sync_directory(directory: Path) -> None:
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:  # our object was deleted, and its directory with it
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
