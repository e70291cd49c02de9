"""Calls of the Linux kernel that Python has no name for."""

import ctypes
import errno
import os

_libc = ctypes.CDLL(None, use_errno=True)

_KEEP_SIZE, _PUNCH_HOLE = 0x1, 0x2

IN_MODIFY, IN_MOVED_TO, IN_CREATE = 0x2, 0x80, 0x100
IN_Q_OVERFLOW, IN_IGNORED = 0x4000, 0x8000
IN_ONLYDIR = 0x01000000


def punch_hole(file: int, start: int, length: int) -> bool:
    """Free the disk space of a part of *file*, which then reads as zeros; False if it cannot be."""
    call = _libc.fallocate
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    while call(file, _KEEP_SIZE | _PUNCH_HOLE, start, length) != 0:
        code = ctypes.get_errno()
        if code == errno.EINTR:
            continue
        if code in {errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM}:
            return False
        raise OSError(code, os.strerror(code))
    return True


def inotify_init() -> int:
    """Return a new descriptor that tells what happens to what it watches. Raises OSError."""
    descriptor: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return descriptor


def inotify_add(descriptor: int, directory: int, mask: int) -> int:
    """Watch an open directory and return the number its events carry. Raises OSError."""
    path = f"/proc/self/fd/{directory}".encode()
    number: int = _libc.inotify_add_watch(descriptor, path, ctypes.c_uint32(mask))
    if number < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return number


def inotify_remove(descriptor: int, number: int) -> None:
    """Watch no more; a directory that is gone is watched no more by itself."""
    _libc.inotify_rm_watch(descriptor, number)


def boot_id() -> str:
    """Return the name of this boot of the machine."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123 - not a path of ours
        return file.read().strip()
