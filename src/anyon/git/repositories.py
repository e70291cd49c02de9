"""The repositories of all projects: each method is one operation of its noun's module."""

import weakref
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from anyon.domain.ids import AttemptId, ProjectId
from anyon.domain.layout import WORKSPACE
from anyon.git import (
    adoptions,
    attachments,
    branches,
    commits,
    diffs,
    merges,
    mounts,
    origins,
    rebases,
    saves,
    spares,
    worktrees,
)
from anyon.git.commands import Commands, Runs
from anyon.git.repository import Begun, Branch, BranchStatus, FileDiff, SavedWork


class GitRepositories:
    """Repositories whose git runs inside each project's container, by way of ``Processes``."""

    def __init__(self, processes: Runs) -> None:
        self._processes = processes
        # Kept as long as somebody holds one, so that all share the lock of its writers.
        self._known: weakref.WeakValueDictionary[ProjectId, GitRepository] = (
            weakref.WeakValueDictionary()
        )

    def of(self, project: ProjectId) -> "GitRepository":
        """Return the project's repository; nothing is touched yet."""
        found = self._known.get(project)
        if found is None:
            found = self._known[project] = GitRepository(Commands(self._processes, project))
        return found


class GitRepository:
    """One project's repository; the promises are those of ``Repository``."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    async def check_git(self) -> tuple[int, int]:
        """Return git's (major, minor) inside."""
        return await origins.check_git(self._commands)

    async def init(self) -> None:
        """Make a new repository."""
        await origins.init(self._commands)

    async def clone(self, url: str) -> None:
        """Clone *url* into the empty workspace."""
        await origins.clone(self._commands, url)

    async def prepare_imported(self) -> None:
        """Make an existing repository ready."""
        await origins.prepare_imported(self._commands)

    async def branches(self) -> Sequence[Branch]:
        """Return all branches."""
        return await branches.branches(self._commands)

    async def current_branch(self) -> str:
        """Return the branch that the workspace has checked out."""
        return await branches.current_branch(self._commands)

    async def head(self, worktree: PurePosixPath | None = None) -> str:
        """Return the commit at HEAD."""
        return await branches.head(self._commands, worktree or WORKSPACE)

    async def add_worktree(
        self, attempt: AttemptId, *, branch: str, base: str, copy_files: Sequence[str] = ()
    ) -> PurePosixPath:
        """Make a branch and its worktree."""
        return await worktrees.add_worktree(
            self._commands, attempt, branch=branch, base=base, copy_files=copy_files
        )

    async def begin_worktree(
        self,
        attempt: AttemptId,
        *,
        branch: str,
        base: str,
        is_current: bool = False,
        copy_files: Sequence[str] = (),
    ) -> Begun:
        """Make a branch and its worktree, and tell what it began with."""
        return await worktrees.begin_worktree(
            self._commands,
            attempt,
            branch=branch,
            base=base,
            is_current=is_current,
            copy_files=copy_files,
        )

    async def prepare_spare(self, base: str) -> None:
        """Make a worktree ahead of need."""
        await spares.prepare_spare(self._commands, base)

    async def remove_worktree(
        self, attempt: AttemptId, worktree: PurePosixPath, *, branch: str, target: str
    ) -> SavedWork | None:
        """Remove a worktree and its branch, saving what would be lost."""
        return await saves.remove_worktree(
            self._commands, attempt, worktree, branch=branch, target=target
        )

    async def missing_attachments(
        self, worktree: PurePosixPath, folder: str, files: Mapping[str, int | None]
    ) -> Sequence[str]:
        """Return which files do not lie in a folder of the worktree."""
        return await attachments.missing_attachments(self._commands, worktree, folder, files)

    async def lay_attachment(
        self, worktree: PurePosixPath, folder: str, name: str, content: bytes
    ) -> None:
        """Write a file into a folder of the worktree."""
        await attachments.lay_attachment(self._commands, worktree, folder, name, content)

    async def commit_all(self, worktree: PurePosixPath, message: str) -> str | None:
        """Commit everything."""
        return await commits.commit_all(self._commands, worktree, message)

    async def diff(
        self, worktree: PurePosixPath, *, base: str, with_contents: bool = True
    ) -> Sequence[FileDiff]:
        """Return the change from the merge base to the worktree."""
        return await diffs.diff(self._commands, worktree, base=base, with_contents=with_contents)

    async def diff_of_commit(self, commit: str) -> Sequence[FileDiff]:
        """Return one commit's own change."""
        return await diffs.diff_of_commit(self._commands, commit)

    async def status(self, worktree: PurePosixPath, *, target: str) -> BranchStatus:
        """Return how the worktree's branch stands."""
        return await branches.status(self._commands, worktree, target=target)

    async def squash_merge(
        self, worktree: PurePosixPath, *, branch: str, target: str, message: str
    ) -> str:
        """Put the branch's change as one commit on the target."""
        return await merges.squash_merge(
            self._commands, worktree, branch=branch, target=target, message=message
        )

    async def rebase(self, worktree: PurePosixPath, *, target: str) -> str:
        """Rebase the branch onto the target."""
        return await rebases.rebase(self._commands, worktree, target=target)

    async def saved_work(self) -> Sequence[SavedWork]:
        """Return what cleanups have saved."""
        return await saves.saved_work(self._commands)

    async def restore_saved(self, ref: str, branch: str) -> None:
        """Make a branch at saved work."""
        await saves.restore_saved(self._commands, ref, branch)

    async def adopt_branch(
        self, attempt: AttemptId, *, branch: str, base: str, head: str | None = None
    ) -> str | None:
        """Make an existing branch the attempt's own."""
        return await adoptions.adopt_branch(
            self._commands, attempt, branch=branch, base=base, head=head
        )

    async def refs(self) -> Mapping[str, str]:
        """Return every reference and its object."""
        return await adoptions.refs(self._commands)

    async def check_objects(self) -> None:
        """Read every object."""
        await adoptions.check_objects(self._commands)

    async def fit_to_mount(self) -> None:
        """Set what git needs on a mounted bucket."""
        await mounts.fit_to_mount(self._commands)

    async def fit_to_disk(self) -> None:
        """Undo that, and restore the modes that the index knows."""
        await mounts.fit_to_disk(self._commands)
