"""Process directories as the host sees them: written by strangers, opened like a stranger's.

Whoever runs inside the container owns ``run/<id>/`` and may put there what he likes, at any
moment. So nothing below it is named by a path: each step is opened beneath the descriptor of the
one before, without following links and without waiting, and only regular files are read. A name
is a single component always, so that this is all that is needed to stay beneath.
"""

import errno
import os
import stat
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from anyon.domain.errors import AnyonError, ConflictError, NotFoundError
from anyon.processes import kernel

SMALL_BYTES = 4096
"""No small file of ours (pid, exit, reason, record, dropped ranges) is longer."""

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)


@dataclass(frozen=True, slots=True)
class SmallFile:
    """A small file's content, None if it is no plain small file, and when it was last written."""

    content: bytes | None
    written_at: datetime


class ProcessDirectory:
    """One process's directory, held open; a context manager."""

    def __init__(self, descriptor: int, name: str) -> None:
        self.descriptor = descriptor
        self.name = name

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of it."""
        os.close(self.descriptor)

    @property
    def is_gone(self) -> bool:
        """Whether it was removed while it was held open: nothing will come in it any more."""
        return os.fstat(self.descriptor).st_nlink == 0

    def check_there(self) -> None:
        """Raise NotFoundError (``process_unknown``) if it was removed while it was held open."""
        if self.is_gone:
            raise NotFoundError(f"process {self.name} was forgotten", code="process_unknown")

    def has(self, name: str) -> bool:
        """Say whether there is anything of that name."""
        return self._stat(name) is not None

    def written_at(self, name: str) -> datetime | None:
        """Return when *name* was last written, or None if there is nothing of that name."""
        facts = self._stat(name)
        return None if facts is None else _time(facts.st_mtime_ns)

    def small(self, name: str) -> SmallFile | None:
        """Return a small file, or None if there is nothing of that name."""
        facts = self._stat(name)
        if facts is None:
            return None
        with self._opened(name) as file:
            if file is None:
                return SmallFile(None, _time(facts.st_mtime_ns))
            written_at = _time(os.fstat(file).st_mtime_ns)
            content = os.pread(file, SMALL_BYTES + 1, 0)
            return SmallFile(content if len(content) <= SMALL_BYTES else None, written_at)

    def size(self, name: str) -> int:
        """Return a file's length; 0 for what is no plain file."""
        facts = self._stat(name)
        return facts.st_size if facts is not None and stat.S_ISREG(facts.st_mode) else 0

    def read(self, name: str, offset: int, limit: int) -> bytes:
        """Return up to *limit* bytes of a file from *offset* on; nothing of what is no plain file."""
        with self._opened(name) as file:
            return b"" if file is None else os.pread(file, limit, offset)

    def punch(self, name: str, start: int, end: int) -> bool:
        """Give the disk back what lies from *start* to *end*; False where the file system cannot."""
        with self._opened(name, os.O_RDWR) as file:
            return file is None or kernel.punch_hole(file, start, end - start)

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole, in the place of whatever has that name."""
        with self._new(content) as new:
            os.rename(new, name, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)

    def write_first(self, name: str, content: bytes) -> bool:
        """Write a file whole unless there is something of that name; say whether it was written."""
        with self._new(content) as new:
            try:
                os.link(
                    new,
                    name,
                    src_dir_fd=self.descriptor,
                    dst_dir_fd=self.descriptor,
                    follow_symlinks=False,
                )
            except FileExistsError:
                return False
            return True

    def _stat(self, name: str) -> os.stat_result | None:
        try:
            return os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None

    @contextmanager
    def _opened(self, name: str, how: int = os.O_RDONLY) -> Iterator[int | None]:
        """Open a plain file; None for what is none (a link, a pipe, a device, nothing)."""
        try:
            file = os.open(name, _READ | how, dir_fd=self.descriptor)
        except OSError as error:
            if error.errno in {*_ABSENT, errno.EISDIR}:
                yield None
                return
            raise
        try:
            yield file if stat.S_ISREG(os.fstat(file).st_mode) else None
        finally:
            os.close(file)

    @contextmanager
    def _new(self, content: bytes) -> Iterator[str]:
        """Write *content* to a file of a name that nobody else has, which is gone afterwards."""
        name = f".{uuid.uuid4()}"
        how = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(name, how, 0o666, dir_fd=self.descriptor)
        try:
            try:
                # Whoever runs inside may have another uid; nobody outside reaches this far.
                os.fchmod(file, 0o666)
                view = memoryview(content)
                while view:
                    view = view[os.write(file, view) :]
            finally:
                os.close(file)
            yield name
        finally:
            with suppress(FileNotFoundError):  # it may have its true name by now
                os.unlink(name, dir_fd=self.descriptor)


class RunDirectory:
    """All process directories of one project, at a path that only we can change."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, name: str) -> ProcessDirectory | None:
        """Open a process's directory, or return None if there is none."""
        try:
            root = os.open(self.path, _DIRECTORY)
        except FileNotFoundError:
            return None
        try:
            return ProcessDirectory(os.open(name, _DIRECTORY, dir_fd=root), name)
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise
        finally:
            os.close(root)

    def started(self, name: str) -> ProcessDirectory:
        """Open the directory of a process that was started, or raise NotFoundError."""
        directory = self.open(name)
        if directory is not None:
            if directory.has("pid"):
                return directory
            directory.close()
        raise NotFoundError(
            f"no process {name} was started in this project", code="process_unknown"
        )

    def create(self, name: str) -> ProcessDirectory:
        """Open a process's directory, making it if it is not there.

        ConflictError (``process_directory_taken``) if something else has that name.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        root = os.open(self.path, _DIRECTORY)
        try:
            os.mkdir(name, dir_fd=root)
        except FileExistsError:
            pass
        finally:
            os.close(root)
        directory = self.open(name)
        if directory is None:
            raise ConflictError(
                f"what is at the place of process {name} is no directory",
                code="process_directory_taken",
                hint="start it under another id",
            )
        if os.fstat(directory.descriptor).st_uid == os.geteuid():
            # The container's user may be another; beneath the state directory nobody else comes.
            os.fchmod(directory.descriptor, 0o777)
        return directory

    def names(self) -> Sequence[str]:
        """Return the names of all process directories."""
        try:
            with os.scandir(self.path) as entries:
                return sorted(e.name for e in entries if e.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            return []

    def remove(self, name: str) -> None:
        """Remove a process's directory and all in it, however deep; absent is success.

        Raises PermissionError where only the container's user can.
        """
        directory = self.open(name)
        if directory is None:
            return
        with directory:
            _empty(directory.descriptor)
        root = os.open(self.path, _DIRECTORY)
        try:
            os.rmdir(name, dir_fd=root)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            raise ConflictError(
                f"something still writes to the directory of process {name}",
                code="process_directory_busy",
                hint="end what it left running and try again",
            ) from error
        finally:
            os.close(root)


def _empty(directory: int) -> None:
    """Remove all in an open directory. What lies deeper is lifted up, so that no depth is too deep."""
    while True:
        with os.scandir(directory) as entries:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for name, is_directory in found:
            if is_directory:
                _lift(directory, name)
            else:
                _tolerant_unlink(directory, name)
        if not any(is_directory for _, is_directory in found):
            return


def _lift(directory: int, name: str) -> None:
    try:
        inner = os.open(name, _DIRECTORY, dir_fd=directory)
    except OSError as error:
        if error.errno in _ABSENT:
            return
        raise
    try:
        with os.scandir(inner) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    os.rename(
                        entry.name, f".{uuid.uuid4()}", src_dir_fd=inner, dst_dir_fd=directory
                    )
                else:
                    _tolerant_unlink(inner, entry.name)
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=directory)


def _tolerant_unlink(directory: int, name: str) -> None:
    with suppress(FileNotFoundError):  # its owner may be quicker
        os.unlink(name, dir_fd=directory)


def _time(nanoseconds: int) -> datetime:
    try:
        return datetime.fromtimestamp(nanoseconds / 1e9, UTC)
    except (OverflowError, ValueError):
        return datetime.fromtimestamp(0, UTC)  # an owner may set any time, also one that is none


def disk_error(error: OSError, what: str) -> AnyonError:
    """Translate an operating system's refusal on the way to *what*."""
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    return AnyonError(
        f"{what}: {os.strerror(error.errno or 0)}",
        code="disk_full" if full else "process_directory_failed",
        hint="free some space" if full else "see that the server may write to its state directory",
    )
