"""A fresh worktree replaced by the files of an old one, in a directory that is a stranger's."""

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from anyon.services import trees


def swap(
    project: Path, worktree: PurePosixPath, staging: Path, pointer: str, old_admin: Path
) -> None:
    """Put *staging* in the place of a fresh worktree, following no link that the project may hold.

    *pointer* is the text of its ``.git`` file; the index of *old_admin* comes along, so that what
    was staged stays so. Whatever is wrong is an AnyonError (see ``trees.explained``).
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        owner = project.stat()
        _write(staging / ".git", pointer.encode(), owner)
        with Opened(project, (".worktrees",), flags) as place:
            gone = staging.with_name(f"{staging.name}-fresh")
            trees.delete(gone)
            os.rename(worktree.name, gone, src_dir_fd=place)
            os.rename(staging, worktree.name, dst_dir_fd=place)
            trees.delete(gone)
        # An index that is split over several files is made anew by git instead.
        if (old_admin / "index").is_file() and not list(old_admin.glob("sharedindex.*")):
            with Opened(project, (".git", "worktrees", worktree.name), flags) as place:
                index = staging.with_name(f"{staging.name}-index")
                _write(index, (old_admin / "index").read_bytes(), owner)
                os.rename(index, "index", dst_dir_fd=place)
    except OSError as error:
        raise trees.explained(error, f"taking over {staging.name}") from error


class Opened:
    """A directory opened name by name, for the length of a block."""

    def __init__(self, root: Path, names: Sequence[str], flags: int) -> None:
        self._handle = os.open(root, flags)
        for name in names:
            try:
                below = os.open(name, flags, dir_fd=self._handle)
            finally:
                os.close(self._handle)
            self._handle = below

    def __enter__(self) -> int:
        return self._handle

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)


def _write(path: Path, data: bytes, owner: os.stat_result) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    os.chown(path, owner.st_uid, owner.st_gid)
