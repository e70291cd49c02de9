"""The key file, as ``anyon keys`` asks for it."""

from collections.abc import Sequence
from pathlib import Path

from anyon.storage.keyfiles import rotate
from anyon.storage.keys import FileKeys

__all__ = ["ids", "rotate"]


def ids(file: Path) -> Sequence[bytes]:
    """Return the ids of a key file's keys, newest last; MissingError ``key_missing``."""
    return FileKeys(file).ids
