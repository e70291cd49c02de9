"""The interface of a project's repository, and the shapes it speaks in.

Every command runs inside the project's container, at ``/workspace``, as its user; so what a
repository's own configuration can start, it starts there and nowhere else. Operations that write
take one lock per repository. Names that come from outside pass ``git.names`` first; a bad one is
InvalidInputError (code ``bad_ref_name``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Protocol

from anyon.domain.ids import AttemptId, ProjectId


class ChangeKind(StrEnum):
    """What happened to a file, spelt as on the wire."""

    ADDED = "added"
    DELETED = "deleted"
    MODIFIED = "modified"
    RENAMED = "renamed"
    COPIED = "copied"
    PERMISSION = "permissionChange"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDiff:
    """One file's change. Paths are relative; contents are None when absent, binary or too large.

    ``content_omitted`` says that contents were left out for their size or form;
    ``additions`` and ``deletions`` count lines, None for binary files.
    """

    kind: ChangeKind
    old_path: str | None
    new_path: str | None
    old_content: str | None
    new_content: str | None
    content_omitted: bool
    additions: int | None
    deletions: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A local or remote branch (``origin/x``)."""

    name: str
    is_current: bool
    is_remote: bool
    last_commit_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchStatus:
    """How an attempt's branch stands against its target branch. Counts are commits or files."""

    ahead: int
    behind: int
    head: str
    uncommitted: int
    untracked: int
    is_rebase_in_progress: bool
    conflicted_files: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedWork:
    """Work kept in a hidden ref (``refs/anyon/saved/<attempt>/…``) before a cleanup."""

    ref: str
    commit: str
    attempt: AttemptId
    saved_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """An attempt's worktree: where it is, the commit it is at, and the branch it began from."""

    path: PurePosixPath
    head: str
    base: str


class Repository(Protocol):
    """One project's repository; needs its container RUNNING."""

    async def check_git(self) -> tuple[int, int]:
        """Return git's (major, minor) inside, or raise MissingError (``git_missing``, ``git_too_old``)."""
        ...

    async def init(self) -> None:
        """Make a new repository: branch main, ``.gitignore`` with ``.worktrees/``, a first commit.

        A repository that is there already is left as it is (but see ``prepare_imported``).
        """
        ...

    async def clone(self, url: str) -> None:
        """Clone *url* into the empty workspace: https, ssh or git@ forms only.

        InvalidInputError (``bad_clone_url``) for ``ext::``, ``file://``, options and control characters.
        A failed clone leaves the workspace empty.
        """
        ...

    async def prepare_imported(self) -> None:
        """Make an existing repository ready: ``.worktrees/`` into ``.git/info/exclude`` only.

        InvalidInputError (``not_a_repository``) when there is none; one without commits gets a first.
        """
        ...

    async def branches(self) -> Sequence[Branch]:
        """Return all branches: the current one first, then the newest."""
        ...

    async def current_branch(self) -> str:
        """Return the branch that the workspace has checked out, or its commit when detached."""
        ...

    async def head(self, worktree: PurePosixPath | None = None) -> str:
        """Return the commit at HEAD of *worktree*, or of the workspace."""
        ...

    async def add_worktree(
        self, attempt: AttemptId, *, branch: str, base: str, copy_files: Sequence[str] = ()
    ) -> PurePosixPath:
        """Make branch *branch* from *base* and its worktree, locked; return its path inside.

        Repeating it returns the same path, and makes a half-made one whole. NotFoundError
        (``branch_unknown``) for an unknown base; ConflictError (``branch_exists``) if the branch is
        another's.
        ``copy_files`` are relative globs copied from the workspace where they exist.
        """
        ...

    async def begin_worktree(
        self,
        attempt: AttemptId,
        *,
        branch: str,
        base: str,
        is_current: bool = False,
        copy_files: Sequence[str] = (),
    ) -> Begun:
        """Do what ``add_worktree`` does, in the same single step, and tell more of it.

        ``is_current`` says that *base* is only the caller's belief of what the workspace has
        checked out: where that is another by now, the worktree begins there, and ``base`` says so.
        """
        ...

    async def prepare_spare(self, base: str) -> None:
        """Make a worktree at *base* ahead of need, which the next attempt takes in no time.

        One a project, on no branch; nobody waits for its making. It holds nobody's work: one that
        is no longer as it was made is never given to an attempt, but made anew here. Harmless to
        repeat, to cut off and to leave out. NotFoundError (``branch_unknown``).
        """
        ...

    async def remove_worktree(
        self, attempt: AttemptId, worktree: PurePosixPath, *, branch: str, target: str
    ) -> SavedWork | None:
        """Remove a worktree and its branch; what is uncommitted or unmerged goes to a hidden ref first.

        Files that git ignores are not kept. A repeat is harmless and returns the same. ConflictError
        (``save_incomplete``) when something cannot be read to be saved: then all stays.
        """
        ...

    async def missing_attachments(
        self, worktree: PurePosixPath, folder: str, files: Mapping[str, int | None]
    ) -> Sequence[str]:
        """Return which of *files* (sizes by names; None: of any size) do not lie in *folder* of the worktree.

        The folder is made if it is not there, and git does not see it. No link is followed.
        ConflictError (``attachment_not_laid``) where something else has its name.
        """
        ...

    async def lay_attachment(
        self, worktree: PurePosixPath, folder: str, name: str, content: bytes
    ) -> None:
        """Write a file into *folder* of the worktree, whole or not at all, in place of a file or link of its name.

        ConflictError (``attachment_not_laid``), and nothing changed, where that cannot be.
        """
        ...

    async def commit_all(self, worktree: PurePosixPath, message: str) -> str | None:
        """Commit everything, untracked files too; return the commit, None if clean.

        Anyon signs where the repository names nobody. ConflictError (``conflicts_unresolved``) amid
        a rebase or with unmerged files; the worktree is as it was.
        """
        ...

    async def diff(
        self, worktree: PurePosixPath, *, base: str, with_contents: bool = True
    ) -> Sequence[FileDiff]:
        """Return the change from the merge base with *base* to the worktree, untracked files too."""
        ...

    async def diff_of_commit(self, commit: str) -> Sequence[FileDiff]:
        """Return one commit's own change against its first parent."""
        ...

    async def status(self, worktree: PurePosixPath, *, target: str) -> BranchStatus:
        """Return how the worktree's branch stands against *target*."""
        ...

    async def squash_merge(
        self, worktree: PurePosixPath, *, branch: str, target: str, message: str
    ) -> str:
        """Put the branch's whole change as one commit on *target* and return it.

        Never half: on a conflict nothing has changed and ConflictError (``merge_conflict``) lists the
        files. If the workspace has *target* checked out its files follow; local changes there that
        the merge would overwrite are ConflictError (``target_dirty``), again with nothing changed.
        Repeating a merge that was done returns the same commit (nothing new to merge). The branch
        then goes on from that commit where its worktree allows it, so that further work on it merges.
        """
        ...

    async def rebase(self, worktree: PurePosixPath, *, target: str) -> str:
        """Rebase the branch onto *target*; on a conflict abort, and raise ConflictError (``merge_conflict``).

        ConflictError ``worktree_dirty`` with uncommitted changes, ``rebase_in_progress`` amid another.
        """
        ...

    async def saved_work(self) -> Sequence[SavedWork]:
        """Return what cleanups have saved, newest first."""
        ...

    async def restore_saved(self, ref: str, branch: str) -> None:
        """Make *branch* at a saved ref; ConflictError (``branch_exists``) if there is one."""
        ...

    async def adopt_branch(
        self, attempt: AttemptId, *, branch: str, base: str, head: str | None = None
    ) -> str | None:
        """Make an existing *branch* the attempt's own, so that ``add_worktree`` goes on with it.

        Where *head* (a commit) is not in it, that is kept as saved work, whose ref is returned.
        NotFoundError: ``branch_unknown``, ``commit_unknown``.
        """
        ...

    async def refs(self) -> Mapping[str, str]:
        """Return every reference and the object it names."""
        ...

    async def check_objects(self) -> None:
        """Read every object (``git fsck``); an AnyonError says what is damaged."""
        ...

    async def fit_to_mount(self) -> None:
        """Make git's settings those that a mounted bucket needs; a repeat is harmless."""
        ...

    async def fit_to_disk(self) -> None:
        """Undo ``fit_to_mount``; files that the index says are executable are made so again."""
        ...


class Repositories(Protocol):
    """Gives the repository of a project."""

    def of(self, project: ProjectId) -> Repository:
        """Return the project's repository; nothing is touched before a method is called."""
        ...
