"""What is seen of a project's repository: its branches and saved work, its attempts' status and diff."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import structlog
from pydantic import TypeAdapter

from anyon.db import attempts as attempt_rows
from anyon.db.databases import Database
from anyon.domain.entities import Attempt, Project
from anyon.domain.errors import AnyonError
from anyon.domain.ids import ProjectId
from anyon.git.repository import Branch, BranchStatus, FileDiff, Repositories, SavedWork
from anyon.services.containers import Containers
from anyon.services.leases import Leases
from anyon.services.looks import Looks, Question
from anyon.services.parts import Parts
from anyon.telemetry import Metrics

MOST_ATTEMPTS = 100
"""Of how many attempts, the newest, status and diff are asked before a project falls asleep."""
PATIENCE = timedelta(seconds=10)
"""How long a project is kept from its sleep for that at most."""
_MOST_FILES, _MOST_TEXT = 2000, 2 * 1024 * 1024
_BRANCHES: TypeAdapter[Sequence[Branch]] = TypeAdapter(Sequence[Branch])
_SAVED: TypeAdapter[Sequence[SavedWork]] = TypeAdapter(Sequence[SavedWork])
_STATUS: TypeAdapter[BranchStatus] = TypeAdapter(BranchStatus)
_DIFFS: TypeAdapter[Sequence[FileDiff]] = TypeAdapter(Sequence[FileDiff])

log = structlog.get_logger(__name__)


class Views:
    """Answers what pages ask of a repository, awake or asleep (see ``Looks``); wakes nothing.

    Answers raise what git does inside, and ConflictError ``project_asleep``.
    """

    def __init__(
        self, *, db: Database, looks: Looks, repositories: Repositories, metrics: Metrics
    ) -> None:
        self._db = db
        self._looks = looks
        self._repositories = repositories
        self._metrics = metrics

    async def branches(self, project: Project) -> Sequence[Branch]:
        """Return the branches: the current one first, then the newest."""
        return await self._looks.look(project, self._branches(project.id))

    async def saved_work(self, project: Project) -> Sequence[SavedWork]:
        """Return what cleanups have saved, newest first."""
        return await self._looks.look(project, self._saved_work(project.id))

    async def status(self, project: Project, attempt: Attempt) -> BranchStatus | None:
        """Return how the attempt's branch stands; None without a worktree."""
        if attempt.worktree is None or attempt.worktree_deleted:
            return None
        return await self._looks.look(project, self._status(attempt, attempt.worktree))

    async def diff(
        self, project: Project, attempt: Attempt, *, with_contents: bool
    ) -> Sequence[FileDiff]:
        """Return the attempt's change, untracked files too; after a merge, the merge's.

        Of a project that sleeps, the contents of a very large one are omitted.
        """
        question = self._diff(attempt)
        if question is None:
            return []
        if with_contents:
            return await self._looks.look(project, question)
        see = partial(self._see_diff, attempt, with_contents=False)
        found = await self._looks.look(project, replace(question, see=see, is_kept=False))
        # A merge's diff has them all the same, as it always had: clients count on it.
        return found if _is_merged(attempt) else without_contents(found)

    async def foresee(self, project: Project, *, anew: bool, is_stopping: bool = False) -> None:
        """Ask what may be asked while the project sleeps, with its container RUNNING still.

        *anew*: what was seen before may not hold any more. *is_stopping*: no work can come
        meanwhile. What fails, or is not done in 10 s, is told to the log and counted, and keeps
        nobody awake: it is refused later (``project_asleep``).
        """
        if anew:
            await self._looks.forget(project.id)
        since = None if is_stopping else project.last_active_at
        kept = await self._looks.keys(project.id)
        attempts = await self._db.read(
            attempt_rows.newest_of_project, project.id, limit=MOST_ATTEMPTS
        )
        due = [one for one in self._questions(project.id, attempts) if one.key not in kept]
        done = 0
        try:
            async with asyncio.timeout(PATIENCE.total_seconds()):
                for question in due:
                    if not await self._foreseen(project, question, since):
                        return  # work came: it does not fall asleep
                    done += 1
        except TimeoutError:
            self._metrics.foresaw("late", len(due) - done)
            log.warning("project.foreseen_late", project=project.id, left=len(due) - done)

    async def forget(self, project_id: ProjectId) -> None:
        """Forget what was seen: it may not hold any more."""
        await self._looks.forget(project_id)

    async def _foreseen(
        self, project: Project, question: Question[Any], since: datetime | None
    ) -> bool:
        try:
            is_idle = await self._looks.foresee(project, question, since=since)
        except AnyonError as error:
            self._metrics.foresaw("failed")
            log.warning(
                "project.not_foreseen",
                project=project.id,
                key=question.key,
                code=error.code,
                error=error.message,
            )
            return True
        self._metrics.foresaw("asked")
        return is_idle

    def _questions(
        self, project_id: ProjectId, attempts: Sequence[Attempt]
    ) -> Iterator[Question[Any]]:
        """Give all that may be asked, what pages ask most often first, and each only once."""
        yield self._branches(project_id)
        yield self._saved_work(project_id)
        for one in attempts:
            if one.worktree is not None and not one.worktree_deleted:
                yield self._status(one, one.worktree)
        diffs = {found.key: found for one in attempts if (found := self._diff(one)) is not None}
        yield from diffs.values()

    def _branches(self, project_id: ProjectId) -> Question[Sequence[Branch]]:
        see = self._repositories.of(project_id).branches
        return Question(key="branches", kind=_BRANCHES, see=see)

    def _saved_work(self, project_id: ProjectId) -> Question[Sequence[SavedWork]]:
        see = self._repositories.of(project_id).saved_work
        return Question(key="saved", kind=_SAVED, see=see)

    def _status(self, attempt: Attempt, worktree: str) -> Question[BranchStatus]:
        repository = self._repositories.of(attempt.project_id)
        see = partial(repository.status, PurePosixPath(worktree), target=attempt.target_branch)
        return Question(key=f"status {attempt.id} {attempt.target_branch}", kind=_STATUS, see=see)

    def _diff(self, attempt: Attempt) -> Question[Sequence[FileDiff]] | None:
        """Return what asks for the attempt's diff; None if there can be none."""
        key, is_lasting = f"diff {attempt.id} {attempt.target_branch}", False
        if attempt.worktree is None or attempt.worktree_deleted:
            if attempt.merge_commit is None:
                return None
            key, is_lasting = f"commit {attempt.merge_commit}", True  # a commit never changes
        return Question(
            key=key,
            kind=_DIFFS,
            see=partial(self._see_diff, attempt, with_contents=True),
            reduced=without_contents,
            is_large=_is_large,
            is_lasting=is_lasting,
        )

    async def _see_diff(self, attempt: Attempt, *, with_contents: bool) -> Sequence[FileDiff]:
        repository = self._repositories.of(attempt.project_id)
        commit, target = attempt.merge_commit, attempt.target_branch
        if commit is not None and (attempt.worktree is None or attempt.worktree_deleted):
            return await repository.diff_of_commit(commit)
        worktree = PurePosixPath(attempt.worktree or "")
        if commit is not None:
            status = await repository.status(worktree, target=target)
            if not (status.ahead or status.uncommitted or status.untracked):
                return await repository.diff_of_commit(commit)
        return await repository.diff(worktree, base=target, with_contents=with_contents)


def viewed(parts: Parts, containers: Containers, leases: Leases) -> Views:
    """Return the views over *parts*."""
    looks = Looks(
        db=parts.db,
        containers=containers,
        leases=leases,
        clock=parts.clock,
        metrics=parts.metrics,
    )
    return Views(db=parts.db, looks=looks, repositories=parts.repositories, metrics=parts.metrics)


def without_contents(diffs: Sequence[FileDiff]) -> Sequence[FileDiff]:
    """Return what changed in which file only."""
    return [replace(one, old_content=None, new_content=None, content_omitted=True) for one in diffs]


def _is_merged(attempt: Attempt) -> bool:
    return attempt.merge_commit is not None


def _is_large(diffs: Sequence[FileDiff]) -> bool:
    """Say whether a diff is too large to be written only to see how large it is."""
    held = sum(len(one.old_content or "") + len(one.new_content or "") for one in diffs)
    return len(diffs) > _MOST_FILES or held > _MOST_TEXT
