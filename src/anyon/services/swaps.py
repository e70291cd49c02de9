"""Putting one thing that was restored into a live tree, whatever programs do there meanwhile.

Directories are opened one by one, each from the one before it, and no symbolic link is
followed: what a program in the container made of the path cannot lead out of the tree.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from anyon.domain import paths
from anyon.domain.errors import ConflictError
from anyon.domain.ids import new_id
from anyon.failpoints import reached
from anyon.storage.folders import OPEN_FOLDER, exchange


@dataclass(frozen=True, slots=True)
class Above:
    """A directory on the way to what is put in, as it is made where it is missing."""

    name: bytes
    mode: int
    uid: int
    gid: int


def put_in(root: Path, above: Sequence[Above], name: bytes, *, staged: Path, trash: Path) -> None:
    """Move ``<staged>/<name>`` to *name* in the directory *above* below *root*.

    What is there goes to *trash*, which must be on the same file system, as *staged* must. It is
    one step where the file system can change two names at once: then no moment has neither.
    ConflictError (``path_in_the_way``) if something on the way is no directory.
    """
    trash.mkdir(exist_ok=True, mode=0o700)
    folder = _reached(root, above)
    try:
        with _opened(staged) as source, _opened(trash) as bin_fd:
            try:
                is_in = exchange(name, one=source, other=folder)
            except FileNotFoundError:  # it may be what was lost
                is_in = False
            former = source if is_in else folder
            reached("path_restore.exchanged")
            with suppress(FileNotFoundError):
                os.rename(name, f"entry-{new_id()}", src_dir_fd=former, dst_dir_fd=bin_fd)
            if not is_in:
                os.rename(name, name, src_dir_fd=source, dst_dir_fd=folder)
        os.fsync(folder)
        reached("path_restore.put_in")
    finally:
        os.close(folder)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, OPEN_FOLDER)
    try:
        yield fd
    finally:
        os.close(fd)


def _reached(root: Path, above: Sequence[Above]) -> int:
    fd = os.open(root, OPEN_FOLDER)
    for number, step in enumerate(above):
        try:
            try:
                following = os.open(step.name, OPEN_FOLDER, dir_fd=fd)
            except FileNotFoundError:
                following = _made(fd, step)
        except OSError as error:
            if error.errno not in {errno.ELOOP, errno.ENOTDIR}:
                raise
            shown = paths.shown(b"/".join(one.name for one in above[: number + 1]))
            raise ConflictError(
                f"{shown} is no directory now",
                code="path_in_the_way",
                hint="Move it away, or restore it instead.",
            ) from error
        finally:
            os.close(fd)
        fd = following
    return fd


def _made(parent: int, step: Above) -> int:
    os.mkdir(step.name, 0o700, dir_fd=parent)
    fd = os.open(step.name, OPEN_FOLDER, dir_fd=parent)
    if os.geteuid() == 0:
        os.fchown(fd, step.uid, step.gid)
    os.fchmod(fd, step.mode)
    return fd
