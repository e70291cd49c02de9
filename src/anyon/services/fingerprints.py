"""What a tree of files is, without its modes and times: a bucket keeps neither."""

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from anyon.services import trees

Fingerprint = Mapping[bytes, str]
# Git refreshes an index when it looks, a diff has a place of its own (``git/diffs.py``), and the
# worktree made ahead (``git/spares.py``) comes and goes: that is nobody's work.
_NOBODYS = re.compile(
    rb"\.git/(worktrees/[^/]+/)?index|(\.git/worktrees|\.worktrees)/anyon-spare(/.*)?"
    rb"|\.git/anyon-spare\.lock|\.git/anyon-tmp(/.*)?",
    re.DOTALL,
)


def fingerprint(root: Path) -> Fingerprint:
    """Return what every file, link and directory below *root* is, by its name.

    UnavailableError ``file_system_failed``; InvalidInputError ``path_unreadable``.
    """
    try:
        return dict(_entries(os.fsencode(root)))
    except OSError as error:
        raise trees.explained(error, f"reading {root}") from error


def _entries(root: bytes) -> Iterator[tuple[bytes, str]]:
    waiting = [b""]
    while waiting:
        directory = waiting.pop()
        with os.scandir(os.path.join(root, directory)) as entries:  # noqa: PTH118 - names are bytes
            for entry in entries:
                name = os.path.join(directory, entry.name)  # noqa: PTH118 - as above
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(found.st_mode):
                    waiting.append(name)
                yield name, _content(entry, found)


def _content(entry: os.DirEntry[bytes], found: os.stat_result) -> str:
    if stat.S_ISDIR(found.st_mode):
        return "directory"
    if stat.S_ISLNK(found.st_mode):
        return f"link {os.readlink(entry.path)!r}"  # noqa: PTH115 - names are bytes
    if not stat.S_ISREG(found.st_mode):
        return "special"
    with open(os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123 - as above
        return f"{found.st_size} {hashlib.file_digest(file, 'sha256').hexdigest()}"


def differing(left: Fingerprint, right: Fingerprint) -> list[bytes]:
    """Return the names at which two trees differ, in order."""
    return [name for name in sorted({*left, *right}) if left.get(name) != right.get(name)]


def work(found: Fingerprint) -> Fingerprint:
    """Return what of a tree is somebody's work: without what comes and goes by itself."""
    return {name: words for name, words in found.items() if not _NOBODYS.fullmatch(name)}


def modes(root: Path) -> Mapping[str, int]:
    """Return the permissions of every regular file that has others than 0644."""
    found = {}
    for directory, _, names in os.walk(root):
        for name in names:
            path = os.path.join(directory, name)  # noqa: PTH118 - millions of them
            state = os.lstat(path)
            mode = stat.S_IMODE(state.st_mode) & 0o777
            if stat.S_ISREG(state.st_mode) and mode != 0o644:
                found[os.path.relpath(path, root)] = mode
    return found


def set_modes(root: Path, known: Mapping[str, int]) -> None:
    """Give every regular file 0644, or the permissions that are *known* of it."""
    for directory, _, names in os.walk(root):
        for name in names:
            path = os.path.join(directory, name)  # noqa: PTH118 - as above
            if stat.S_ISREG(os.lstat(path).st_mode):
                mode = known.get(os.path.relpath(path, root), 0o644)
                os.chmod(path, mode & 0o777, follow_symlinks=True)  # noqa: PTH101 - as above


def dumped(found: Fingerprint) -> str:
    """Return a fingerprint as one line of text."""
    return json.dumps({os.fsdecode(name): words for name, words in found.items()})


def loaded(text: str) -> Fingerprint:
    """Read what ``dumped`` wrote."""
    return {os.fsencode(name): words for name, words in json.loads(text).items()}
