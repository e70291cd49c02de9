"""How much disk a tree takes up."""

import os
import stat
from collections.abc import Iterator

from anyon.storage.folders import Descriptors, Folder

_BLOCK_BYTES = 512


def tree_bytes(path: bytes) -> int:
    """Return the bytes on disk of all that is below *path*, which may change meanwhile; nothing there is 0.

    What several names share is counted once, links are not followed, and what cannot be looked
    at (any more) is left out. Blocks; call it from a thread.
    """
    try:
        descriptors = Descriptors(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return 0
    try:
        return sum(_blocks(descriptors)) * _BLOCK_BYTES
    finally:
        descriptors.close()


def _blocks(descriptors: Descriptors) -> Iterator[int]:
    seen: set[tuple[int, int]] = set()
    waiting = [Folder(None, b"")]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(descriptors.fd(folder)) as entries:
                for entry in entries:
                    facts = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(facts.st_mode):
                        waiting.append(Folder(folder, os.fsencode(entry.name)))
                    elif facts.st_nlink > 1:
                        if (facts.st_dev, facts.st_ino) in seen:
                            continue
                        seen.add((facts.st_dev, facts.st_ino))
                    yield facts.st_blocks
        except OSError:  # removed, replaced or not ours to read since it was listed
            continue
