"""What changes in a tree while it is read: a journal of directories, kept by the kernel (inotify).

It needs no privilege, works as root and as the user alike, and hears of nobody else's files.
What it does not hear of: writes through a shared mapping and through asynchronous I/O, and what
goes through another link of the same file. ``holders`` and ``scans`` know of those.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path

from anyon.storage.folders import Folder

_EVENT = struct.Struct("iIII")
_MODIFY, _ATTRIB, _CLOSE_WRITE = 0x2, 0x4, 0x8
_MOVED, _CREATE, _DELETE = 0xC0, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF, _UNMOUNT, _OVERFLOW, _IGNORED = 0x400, 0x800, 0x2000, 0x4000, 0x8000
_MASK = _MODIFY | _ATTRIB | _CLOSE_WRITE | _MOVED | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF
_READ_BYTES = 1 << 18
_LIMIT = Path("/proc/sys/fs/inotify/max_user_watches")
SHARE = 0.5
"""The part of the user's watches that one journal takes at most: programs of theirs need some."""


class Journal:
    """The directories in which something happened since each was first watched.

    Watch a directory before it is listed: then a change is in the list or in the journal, or in
    both. Used by one thread.
    """

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._add: Callable[[int, bytes, int], int] = libc.inotify_add_watch
        self._fd = int(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self._watched: dict[int, Folder] = {}
        self._changed: set[Folder] = set()
        self._gone: set[Folder] = set()
        self._has_overflowed = False
        self._allowed = int(_allowed_watches() * SHARE)
        self.lost = "" if self._fd >= 0 else os.strerror(ctypes.get_errno())
        """Why it cannot be relied on, if so; then the whole tree must be read."""

    def watch(self, fd: int, folder: Folder) -> None:
        """Begin to note what happens in the directory that is open as *fd*."""
        if self.lost:
            return
        if len(self._watched) >= self._allowed:
            self._lose("too many directories for the watches that the kernel allows")
            return
        number = self._add(self._fd, b"/proc/self/fd/%d" % fd, _MASK)
        if number < 0:
            code = ctypes.get_errno()
            if code != errno.ENOENT:  # removed meanwhile: its parent has heard of that
                self._lose(os.strerror(code))
            return
        self._watched[number] = folder

    def collect(self) -> None:
        """Take what the kernel has noted, before its queue overflows."""
        while not self.lost:
            try:
                data = os.read(self._fd, _READ_BYTES)
            except BlockingIOError:
                return
            offset = 0
            while offset < len(data):
                number, mask, _, length = _EVENT.unpack_from(data, offset)
                offset += _EVENT.size + length
                self._note(number, mask)

    def changes(self) -> tuple[set[Folder] | None, set[Folder]]:
        """Return the directories that changed since the last call (None: any may have), and those that ended.

        A directory of the second kind may have been made again under its name and number.
        """
        self.collect()
        changed, self._changed = self._changed, set()
        gone, self._gone = self._gone, set()
        overflowed, self._has_overflowed = self._has_overflowed, False
        return (None if overflowed or self.lost else changed), gone

    def close(self) -> None:
        """Let the kernel forget all watches."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self.lost = self.lost or "closed"

    def _note(self, number: int, mask: int) -> None:
        if mask & _OVERFLOW:
            self._has_overflowed = True
            return
        if mask & _UNMOUNT:
            self._lose("a file system was unmounted")
            return
        folder = self._watched.get(number)
        if folder is None:
            return
        self._changed.add(folder)
        if mask & (_DELETE_SELF | _IGNORED):
            self._gone.add(folder)
        if mask & _IGNORED:
            del self._watched[number]

    def _lose(self, why: str) -> None:
        self.lost = why
        os.close(self._fd)
        self._fd = -1
        self._watched.clear()


def _allowed_watches() -> int:
    try:
        return int(_LIMIT.read_text())
    except (OSError, ValueError):
        return 8192  # the kernel's former default
