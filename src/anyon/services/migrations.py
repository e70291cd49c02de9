"""An old installation brought into this one: by copying, verified, one project after the other.

Ids stay as they were, so a repeat goes on where the last run was broken off. The source is only
read.
"""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection

from anyon.agents.agent import Agent
from anyon.clock import Clock
from anyon.db import attempts as attempt_rows
from anyon.db import events as event_rows
from anyon.db import merges as merge_rows
from anyon.db import pictures as picture_rows
from anyon.db import projects as project_rows
from anyon.db import tasks as task_rows
from anyon.db import users as user_rows
from anyon.db.databases import Database
from anyon.db.old_databases import OldRecords
from anyon.domain import layout
from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.entities import Attempt, Project, Task
from anyon.domain.errors import AnyonError, ConflictError
from anyon.domain.ids import AttemptId, PictureId, ProjectId
from anyon.domain.states import Phase
from anyon.git.names import branch_for, check_branch
from anyon.git.repository import Repositories, Repository
from anyon.services import old_layouts, outcomes, takeovers, trees
from anyon.services.attempts import PREFIX
from anyon.services.containers import Containers
from anyon.services.homes import Homes
from anyon.services.journals import note_brought_in
from anyon.services.leases import Leases
from anyon.services.old_belongings import Belongings, OldBelongings
from anyon.services.old_layouts import OldLayout, OldWorktree
from anyon.services.old_records import Fitting
from anyon.services.outcomes import Outcome, Report
from anyon.services.pictures import QUOTA
from anyon.services.projects import Projects
from anyon.services.views import Views

log = structlog.get_logger(__name__)
Row = Mapping[str, Any]


class Migrations:
    """Brings old projects in."""

    def __init__(
        self,
        *,
        db: Database,
        projects: Projects,
        containers: Containers,
        repositories: Repositories,
        leases: Leases,
        homes: Homes,
        find_agent: Callable[[str], Agent],
        default_agent: str,
        views: Views,
        clock: Clock,
        picture_quota: int = QUOTA,
    ) -> None:
        self._db = db
        self._projects = projects
        self._containers = containers
        self._repositories = repositories
        self._leases = leases
        self._homes = homes
        self._find_agent = find_agent
        self._default_agent = default_agent
        self._views = views
        self._clock = clock
        self._belongings = OldBelongings(db=db, clock=clock, quota=picture_quota)

    async def run(
        self,
        old: OldLayout,
        records: OldRecords,
        *,
        is_dry: bool = False,
        tell: Callable[[str, int, int, str], None] = lambda *_: None,
    ) -> Report:
        """Bring in what is not here yet; *tell* hears (of what, number, of how many, name) before each.

        What fails for one project leaves nothing of it behind, is in the report, and does not keep
        the others. A dry run only looks.
        """
        report = Report(
            projects=[],
            missing=records.missing,
            left=records.left,
            notes=[f"left out: {words}" for words in records.unreadable],
        )
        belongings = await self._belongings.run(old, records, report, is_dry=is_dry, tell=tell)
        for number, row in enumerate(records.projects, 1):
            outcome = Outcome(id=row["id"], name=str(row["name"]))
            report.projects.append(outcome)
            tell("projects", number, len(records.projects), outcome.name)
            try:
                await self._project(old, records, row, outcome, belongings, is_dry=is_dry)
            except AnyonError as error:
                log.warning("migration.failed", project=row["id"], error=repr(error))
                outcome.state = "failed"
                outcome.notes.append(f"{error.message} [{error.code}]")
        return report

    async def _project(
        self,
        old: OldLayout,
        records: OldRecords,
        row: Row,
        outcome: Outcome,
        belongings: Belongings,
        *,
        is_dry: bool,
    ) -> None:
        project_id = ProjectId(row["id"])
        found = await self._db.read(project_rows.find, project_id)
        if found is not None and found.deleted_at is not None:
            raise ConflictError("it was migrated, and deleted since", code="project_deleted")
        source = await asyncio.to_thread(old.repository, row["git_repo_path"], outcome.name)
        worktrees = await asyncio.to_thread(old.worktrees, source)
        if is_dry:
            outcomes.count(records, project_id, outcome, worktrees)
            return
        if found is not None and found.phase is Phase.CREATING:  # an earlier run was cut off
            await self._projects.undo(found)
            found = None
        outcome.state = "migrated" if found is None else "there"
        if found is None:
            found = await self._make(row, source, outcome)
        outcome.name = found.name
        if await self._fill(records, found, worktrees, outcome, belongings):
            now = self._clock.now()
            await asyncio.to_thread(note_brought_in, self._homes.home, found, source, now)

    async def _make(self, row: Row, source: Path, outcome: Outcome) -> Project:
        """Copy the repository, prove the copy, and make the project of it."""
        fitting = Fitting(self._clock.now(), outcome.notes)
        taken = {project.name for project in await self._projects.list(LOCAL_ACTOR)}
        user = LOCAL_ACTOR.user_id
        project = fitting.project(
            row, user=user, path=lambda one: self._homes.project(user, one), taken=taken
        )
        if not await self._db.write(self._add, project):
            raise ConflictError("its name was taken meanwhile", code="name_taken")
        try:
            await self._homes.make(project)
            await self._homes.fill(project, source)
            await _prove(source, Path(project.path))
            refs = await asyncio.to_thread(old_layouts.refs, source)
            async with self._containers.creating(project):
                repository = self._repositories.of(project.id)
                await repository.check_git()
                await repository.prepare_imported()
                await repository.check_objects()
                await _prove_refs(repository, refs)
            await self._containers.record(project.id, Phase.RUNNING, reason="created")
        except Exception:
            await self._projects.undo(project)
            raise
        return replace(project, phase=Phase.RUNNING)

    def _add(self, connection: Connection, project: Project) -> bool:
        user_rows.ensure(connection, project.user_id, "local", project.created_at)
        if not project_rows.add(connection, project):
            return False
        self._leases.take(connection, project.id)
        now = self._clock.now()
        event_rows.add(connection, project.id, "project.created", now, reason="migrated")
        return True

    async def _fill(
        self,
        records: OldRecords,
        project: Project,
        worktrees: Mapping[str, OldWorktree],
        outcome: Outcome,
        belongings: Belongings,
    ) -> bool:
        """Bring in what is not here yet, then let the container rest, to be saved by the server; say whether there was anything."""
        attempts = [row for row in records.attempts if row["task_id"]]
        with_attempts = {row["task_id"] for row in attempts}
        fitting = Fitting(self._clock.now(), outcome.notes)
        mine = [row for row in records.tasks if row["project_id"] == project.id]
        for row in mine:
            task = fitting.task(row, has_attempts=row["id"] in with_attempts)
            attached = belongings.of_task(task.id, outcome.notes)
            task = replace(task, description=belongings.renamed(task.description))
            is_new, count = await self._db.write(_add_task, task, attached)
            outcome.tasks, outcome.images = outcome.tasks + is_new, outcome.images + count
        ids = {row["id"]: row for row in mine}
        due = [row for row in attempts if row["task_id"] in ids]
        there = {one.id for one in await self._db.read(_attempts_of, project.id)}
        new = [row for row in due if row["id"] not in there]
        outcomes.tell_of_left(new, worktrees, due, outcome)
        if new:
            async with self._containers.awake(project, holder=project.id, reason="migration"):
                for row in new:
                    title = str(ids[row["task_id"]]["title"] or "")
                    await self._attempt(project, row, title, worktrees, fitting, outcome)
        await self._merges(records, {row["id"] for row in due}, fitting, outcome)
        is_changed = bool(new) or outcome.state == "migrated"
        if is_changed:
            await self._views.foresee(project, anew=True, is_stopping=True)
            await self._containers.halt(project.id)
            await self._containers.record(project.id, Phase.STOPPED_UNSAVED, reason="migrated")
        return is_changed

    async def _attempt(  # noqa: PLR0917 - the body of a loop of _fill
        self,
        project: Project,
        row: Row,
        title: str,
        worktrees: Mapping[str, OldWorktree],
        fitting: Fitting,
        outcome: Outcome,
    ) -> None:
        repository = self._repositories.of(project.id)
        target = str(row["target_branch"] or await repository.current_branch())
        branch = str(row["branch"] or "")
        attempt_id = AttemptId(row["id"])
        attempt = fitting.attempt(
            row, project=project.id, agent=self._agent(row, outcome), branch=branch, target=target
        )
        worktree = outcomes.worktree_of(row, worktrees)
        if worktree is not None and not row["worktree_deleted"]:
            try:
                attempt = await self._take_over(project, attempt, title, worktree, outcome)
                outcome.worktrees += 1
            except AnyonError as error:
                outcome.notes.append(
                    f"the worktree of attempt {attempt_id} stays behind: {error.message} [{error.code}]"
                )
        outcome.attempts += await self._db.write(_add_attempt, attempt, outcome.notes)

    def _agent(self, row: Row, outcome: Outcome) -> str:
        try:
            return self._find_agent(str(row["executor"] or self._default_agent)).name
        except AnyonError:
            outcome.notes.append(
                f"attempt {row['id']} was {row['executor']!r}'s, who is not known here:"
                f" {self._default_agent}"
            )
            return self._find_agent(self._default_agent).name

    async def _take_over(
        self, project: Project, attempt: Attempt, title: str, old: OldWorktree, outcome: Outcome
    ) -> Attempt:
        """Give the attempt its worktree, with every file and the index as they were."""
        repository = self._repositories.of(project.id)
        branch, base = attempt.branch, attempt.target_branch
        try:
            saved = await repository.adopt_branch(
                attempt.id, branch=check_branch(branch), base=base, head=old.commit
            )
            path = await repository.add_worktree(attempt.id, branch=branch, base=base)
        except AnyonError as error:
            # Its branch is gone, or checked out elsewhere, or cannot be one of ours.
            base = old.commit or old.branch or branch
            branch = branch_for(PREFIX, attempt.id, title, width=8)
            outcome.notes.append(f"attempt {attempt.id} is on {branch} here: {error.message}")
            saved = None
            path = await repository.add_worktree(attempt.id, branch=branch, base=base)
        if saved is not None:
            outcome.notes.append(f"attempt {attempt.id} was off its branch: kept as {saved}")
        if old.branch not in {None, attempt.branch}:
            outcome.notes.append(
                f"the files of attempt {attempt.id} are those of the branch {old.branch!r}"
            )
        if old.is_busy:
            outcome.notes.append(f"attempt {attempt.id} was amid a rebase or merge: files only")
        staging = self._homes.staging(project.id, attempt.id)
        pointer = f"gitdir: {layout.WORKSPACE}/.git/worktrees/{path.name}\n"
        place = Path(project.path)
        try:
            await self._homes.stage(old.path, staging)
            await _prove(old.path, staging)
            await asyncio.to_thread(takeovers.swap, place, path, staging, pointer, old.admin)
        finally:
            await asyncio.to_thread(trees.delete, staging)
        await repository.status(path, target=attempt.target_branch)
        return replace(attempt, branch=branch, worktree=str(path), worktree_deleted=False)

    async def _merges(
        self, records: OldRecords, due: set[str], fitting: Fitting, outcome: Outcome
    ) -> None:
        for row in records.merges:
            attempt_id = row["task_attempt_id"]
            attempt = (
                await self._db.read(attempt_rows.find, attempt_id) if attempt_id in due else None
            )
            merge = None if attempt is None else fitting.merge(row, attempt)
            if merge is not None:
                outcome.merges += await self._db.write(_add_merge, merge)


async def _prove(source: Path, copy: Path) -> None:
    """Compare every file's content, mode and kind."""
    name = await asyncio.to_thread(old_layouts.differing, source, copy)
    if name is not None:
        raise ConflictError(
            f"{os.fsdecode(name)!r} is not the same in the copy",
            code="copy_differs",
            hint="Stop what still writes to the old installation, and repeat.",
        )


async def _prove_refs(repository: Repository, wanted: Mapping[str, str]) -> None:
    found = await repository.refs()
    lost = [name for name, commit in wanted.items() if found.get(name) != commit]
    if lost:
        raise ConflictError(f"references are not the same: {', '.join(lost)}", code="copy_differs")


def _add_task(connection: Connection, task: Task, attached: Sequence[PictureId]) -> tuple[int, int]:
    """Add what is not here of a task and its pictures; return how many of either that was."""
    is_new = task_rows.find(connection, task.id) is None
    if is_new:
        task_rows.add(connection, task)
    return int(is_new), sum(picture_rows.attach(connection, task.id, one) for one in attached)


def _add_attempt(connection: Connection, attempt: Attempt, notes: list[str]) -> int:
    if attempt_rows.find(connection, attempt.id) is not None:
        return 0
    taken = {one.branch for one in _attempts_of(connection, attempt.project_id)}
    if not attempt.branch or attempt.branch in taken:
        branch = branch_for(PREFIX, attempt.id, "", width=8)
        notes.append(f"attempt {attempt.id} shared its branch {attempt.branch!r}: {branch}")
        attempt = replace(attempt, branch=branch)
    attempt_rows.add(connection, attempt)
    return 1


def _attempts_of(connection: Connection, project: ProjectId) -> Sequence[Attempt]:
    return attempt_rows.of_project(connection, LOCAL_ACTOR.user_id, project)


def _add_merge(connection: Connection, merge: Any) -> int:
    there = merge_rows.of_attempt(connection, LOCAL_ACTOR.user_id, merge.attempt_id)
    if any(one.commit == merge.commit for one in there):
        return 0
    merge_rows.add(connection, merge)
    attempt_rows.change(connection, merge.attempt_id, {"merge_commit": merge.commit})
    return 1
