"""The directories of an old installation: ``workspace/<project>/`` and ``worktrees/<task>/``.

They are only read, as files: no git is run in them, so nothing that they configure is started,
and not even an index is refreshed.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from anyon.domain.errors import InvalidInputError, NotFoundError, UnavailableError

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_BUSY = ("rebase-merge", "rebase-apply", "MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD")


@dataclass(frozen=True, slots=True, kw_only=True)
class OldWorktree:
    """A linked worktree: its files, where its repository keeps its state, what it has checked out."""

    path: Path
    admin: Path
    branch: str | None
    commit: str | None

    @property
    def is_busy(self) -> bool:
        """Whether a rebase or merge was left in the middle."""
        return any((self.admin / name).exists() for name in _BUSY)


class OldLayout:
    """Finds the repositories and worktrees that the old database speaks of, below *root*."""

    def __init__(self, root: Path) -> None:
        self.root = root
        if not (root / "workspace").is_dir() and not (root / "data").is_dir():
            raise NotFoundError(
                f"{root} is no old installation",
                code="old_layout_missing",
                hint="Give the directory that holds workspace/, worktrees/ and data/anyon.db.",
            )

    @property
    def database(self) -> Path:
        """The old database."""
        return self.root / "data" / "anyon.db"

    def repository(self, recorded: str | None, name: str) -> Path:
        """Return a project's directory; the whole may have been moved since its path was recorded.

        NotFoundError ``old_repository_missing``.
        """
        workspace = self.root / "workspace"
        last = PurePosixPath(recorded or "").name
        candidates = [workspace / part for part in (last, name) if part not in {"", ".", ".."}]
        if recorded and recorded.startswith("/"):
            candidates.append(Path(recorded))
        for candidate in candidates:
            if "\0" not in str(candidate) and (candidate / ".git").is_dir():
                return candidate
        raise NotFoundError(
            f"its repository is not there (recorded at {recorded!r})", code="old_repository_missing"
        )

    def worktrees(self, repository: Path) -> Mapping[str, OldWorktree]:
        """Return the worktrees of a repository, by the names of their directories."""
        place = self.root / "worktrees"
        found = {}
        for path in sorted(place.iterdir()) if place.is_dir() else []:
            worktree = self._worktree(path, repository)
            if worktree is not None:
                found[path.name] = worktree
        return found

    @staticmethod
    def _worktree(path: Path, repository: Path) -> OldWorktree | None:
        pointer = _text(path / ".git")
        if path.is_symlink() or not pointer.startswith("gitdir: "):
            return None
        recorded = PurePosixPath(pointer.removeprefix("gitdir: ").strip())
        # /…/<project>/.git/worktrees/<name>
        if recorded.parent.parent.parent.name != repository.name:
            return None
        admin = repository / ".git" / "worktrees" / recorded.name
        head = _text(admin / "HEAD").strip()
        if not head:
            return None
        if head.startswith("ref: refs/heads/"):
            return OldWorktree(
                path=path, admin=admin, branch=head.removeprefix("ref: refs/heads/"), commit=None
            )
        return OldWorktree(
            path=path, admin=admin, branch=None, commit=head if _COMMIT.fullmatch(head) else None
        )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def refs(repository: Path) -> Mapping[str, str]:
    """Return a repository's references as its files say; symbolic ones are left out.

    InvalidInputError ``old_refs_unreadable`` for a form of storage that is not files.
    """
    git = repository / ".git"
    if (git / "reftable").exists():
        raise InvalidInputError("its references are kept in a reftable", code="old_refs_unreadable")
    found = {}
    for line in _text(git / "packed-refs").splitlines():
        commit, _, name = line.partition(" ")
        if _COMMIT.fullmatch(commit) and name:
            found[name] = commit
    for path in sorted((git / "refs").rglob("*")):
        value = _text(path).strip() if path.is_file() and not path.is_symlink() else ""
        if _COMMIT.fullmatch(value):
            found[str(path.relative_to(git))] = value
    return found


def fingerprint(root: Path) -> Mapping[bytes, str]:
    """Return what every file, link and directory of a tree is: mode, and a hash of its content.

    Git's records of other worktrees are left out, as they are when a repository is copied.
    UnavailableError ``file_system_failed``.
    """
    try:
        return dict(_entries(os.fsencode(root)))
    except OSError as error:
        raise UnavailableError(
            f"reading {root} failed: {error}", code="file_system_failed"
        ) from error


def _entries(root: bytes) -> Iterator[tuple[bytes, str]]:
    waiting = [b""]
    while waiting:
        directory = waiting.pop()
        for entry in os.scandir(os.path.join(root, directory)):  # noqa: PTH118 - names are bytes
            name = os.path.join(directory, entry.name)  # noqa: PTH118 - as above
            if name == b".git/worktrees":
                continue
            found = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                waiting.append(name)
                yield name, "directory"
            elif stat.S_ISLNK(found.st_mode):
                yield name, f"link {os.readlink(entry.path)!r}"  # noqa: PTH115 - as above
            elif stat.S_ISREG(found.st_mode):
                with open(entry.path, "rb") as file:  # noqa: PTH123 - as above
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                yield name, f"{stat.S_IMODE(found.st_mode) & 0o777:o} {digest}"
            else:
                yield name, "special"


def differing(source: Path, copy: Path, *, but: bytes = b"") -> bytes | None:
    """Return the first name at which two trees differ (*but* left out), None if they are the same."""
    left, right = dict(fingerprint(source)), dict(fingerprint(copy))
    left.pop(but, None)
    right.pop(but, None)
    return next(
        (name for name in sorted({*left, *right}) if left.get(name) != right.get(name)), None
    )
