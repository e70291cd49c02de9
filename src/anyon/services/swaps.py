"""Putting one thing that was restored into a live tree, whatever programs do there meanwhile.

Directories are opened one by one, each from the one before it, and no symbolic link is
followed: what a program in the container made of the path cannot lead out of the tree.
"""

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from anyon.domain import paths
from anyon.domain.errors import ConflictError
from anyon.domain.ids import new_id
from anyon.storage.folders import OPEN_FOLDER


@dataclass(frozen=True, slots=True)
class Above:
    """A directory on the way to what is put in, as it is made where it is missing."""

    name: bytes
    mode: int
    uid: int
    gid: int


def put_in(root: Path, above: Sequence[Above], name: bytes, *, staged: Path, trash: Path) -> None:
    """Move ``<staged>/<name>`` to *name* in the directory *above* below *root*.

    What is there goes to *trash*, which must be on the same file system, as *staged* must.
    ConflictError (``path_in_the_way``) if something on the way is no directory.
    """
    trash.mkdir(exist_ok=True, mode=0o700)
    folder = _reached(root, above)
    try:
        bin_fd = os.open(trash, OPEN_FOLDER)
        try:
            with suppress(FileNotFoundError):  # it may be what was lost
                os.rename(name, f"entry-{new_id()}", src_dir_fd=folder, dst_dir_fd=bin_fd)
        finally:
            os.close(bin_fd)
        source = os.open(staged, OPEN_FOLDER)
        try:
            os.rename(name, name, src_dir_fd=source, dst_dir_fd=folder)
        finally:
            os.close(source)
        os.fsync(folder)
    finally:
        os.close(folder)


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
