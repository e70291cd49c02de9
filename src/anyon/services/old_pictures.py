"""The image files of an old installation, found below its root and never outside of it."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from anyon.domain.pictures import MOST_BYTES

PLACES = ("data/images", "images", "data/.vibe-images", ".vibe-images")
"""Where versions of the old server kept them."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def contents(root: Path, recorded: str) -> Iterator[bytes]:
    """Yield the content of each file that a row's ``file_path`` may mean; at most one byte too many of it.

    First the path itself, below *root* (which may have been moved since it was recorded), then its
    name in ``PLACES``. Links are not followed, and what is no plain file, or cannot be read, is none.
    """
    path = PurePosixPath(recorded)
    try:
        whole = path.relative_to(root) if path.is_absolute() else path
    except ValueError:
        whole = PurePosixPath(path.name)
    seen = set()
    for candidate in (whole, *(PurePosixPath(place, path.name) for place in PLACES)):
        parts = candidate.parts
        if (
            parts in seen
            or not parts
            or any(part in {"..", ".", "/"} or "\0" in part for part in parts)
        ):
            continue
        seen.add(parts)
        content = _read(root, parts)
        if content is not None:
            yield content


def _read(root: Path, parts: tuple[str, ...]) -> bytes | None:
    """Return a file's content, going down from *root* one open directory after the other."""
    here = os.open(root, _DIRECTORY)
    try:
        for part in parts[:-1]:
            below = os.open(part, _DIRECTORY, dir_fd=here)
            os.close(here)
            here = below
        with open(os.open(parts[-1], _FILE, dir_fd=here), "rb") as file:  # noqa: PTH123 - a descriptor
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            return file.read(MOST_BYTES + 1)
    except OSError:
        return None
    finally:
        os.close(here)
