"""What comes after a process: its exit is recorded, its work committed, the next one recorded."""

from datetime import datetime
from pathlib import PurePosixPath

import structlog
from sqlalchemy import Connection

from anyon.clock import Clock
from anyon.db import attempts as attempt_rows
from anyon.db import events as event_rows
from anyon.db import processes as process_rows
from anyon.db import projects as project_rows
from anyon.db import tasks as task_rows
from anyon.db.databases import Database
from anyon.domain import actions, prompts
from anyon.domain.entities import Attempt, Process, Project
from anyon.domain.errors import AnyonError
from anyon.domain.ids import AttemptId, ProcessId, ProjectId, new_id
from anyon.domain.states import ExitReason, ProcessStatus, RunReason, TaskStatus
from anyon.git.repository import Repositories
from anyon.processes.processes import Exit
from anyon.telemetry import Metrics
from anyon.telemetry.requests import current_request_id

log = structlog.get_logger(__name__)


def status_of(end: Exit) -> ProcessStatus:
    """Return how a process that ended so stands."""
    if end.reason is ExitReason.KILLED_BY_USER:
        return ProcessStatus.KILLED
    if end.reason is ExitReason.EXITED and end.code == 0:
        return ProcessStatus.COMPLETED
    return ProcessStatus.FAILED


def new_process(
    project: ProjectId,
    attempt: AttemptId | None,
    action: actions.Action,
    now: datetime,
    *,
    request_id: str | None = None,
) -> Process:
    """Return the record of a process that is about to be started.

    It is of the request *request_id*, else of the one that is being worked on.
    """
    return Process(
        id=ProcessId(new_id()),
        project_id=project,
        attempt_id=attempt,
        run_reason=actions.reason_of(action),
        action=actions.to_json(action),
        status=ProcessStatus.RUNNING,
        request_id=request_id or current_request_id(),
        started_at=now,
        created_at=now,
        updated_at=now,
    )


class Chains:
    """Concludes processes. Each step may be repeated after a crash: it is done and recorded once."""

    def __init__(
        self,
        *,
        db: Database,
        repositories: Repositories,
        clock: Clock,
        metrics: Metrics | None = None,
    ) -> None:
        self._metrics = metrics or Metrics()
        self._db = db
        self._repositories = repositories
        self._clock = clock

    async def record_exit(
        self,
        process: Process,
        end: Exit,
        why: AnyonError | None = None,
        *,
        started_at: datetime | None = None,
    ) -> None:
        """Record the exit, and *why* it was not started if so; a first one stays."""
        if why is not None:
            await self._db.write(
                event_rows.add,
                process.project_id,
                "process.refused",
                self._clock.now(),
                reason=why.code,
                detail=f"{process.run_reason} {process.id}: {why.message}",
            )
        is_news = await self._db.write(
            process_rows.ended,
            process.id,
            status=status_of(end),
            code=end.code,
            reason=end.reason,
            at=end.at,
            now=self._clock.now(),
        )
        if is_news and started_at is not None:  # else it was never started
            self._metrics.exec_ended(process.project_id, status_of(end), end.at - started_at)

    async def head(self, project: ProjectId, worktree: PurePosixPath) -> str:
        """Return the commit that a worktree is at."""
        return await self._repositories.of(project).head(worktree)

    async def advance(
        self, process: Process, project: Project, end: Exit, *, can_commit: bool
    ) -> Process | None:
        """Commit what the process changed, close its record, and return the next one's record."""
        head = None
        if process.attempt_id is not None and can_commit:
            head = await self._commit(process.attempt_id, process, project)
        done = status_of(end) is ProcessStatus.COMPLETED
        return await self._db.write(_advance, process, done, head, self._clock.now())

    async def _commit(
        self, attempt_id: AttemptId, process: Process, project: Project
    ) -> str | None:
        if process.run_reason not in {RunReason.CODINGAGENT, RunReason.CLEANUPSCRIPT}:
            return None
        attempt = await self._db.read(attempt_rows.find, attempt_id)
        if attempt is None or attempt.worktree is None or attempt.worktree_deleted:
            return None
        try:
            return await self._commit_in(attempt, PurePosixPath(attempt.worktree), process, project)
        except AnyonError as error:
            # The work stays in the worktree, uncommitted; the chain must not hang on that.
            log.warning("worktree.commit_failed", attempt=attempt_id, error=str(error))
            now, detail = self._clock.now(), error.message
            await self._db.write(
                event_rows.add, project.id, "commit.failed", now, reason=error.code, detail=detail
            )
            return None

    async def _commit_in(
        self, attempt: Attempt, worktree: PurePosixPath, process: Process, project: Project
    ) -> str:
        title = await self._db.read(_title, attempt)
        if process.run_reason is RunReason.CLEANUPSCRIPT:
            title = f"Clean up after: {title}"
        repository = self._repositories.of(project.id)
        commit = await repository.commit_all(worktree, prompts.commit_message(title))
        return commit or await repository.head(worktree)


def _title(connection: Connection, attempt: Attempt) -> str:
    task = task_rows.find(connection, attempt.task_id)
    return attempt.branch if task is None else task.title


def _advance(
    connection: Connection, process: Process, done: bool, head: str | None, now: datetime
) -> Process | None:
    is_stopping = process_rows.is_stopping(connection, process.id)
    if not process_rows.close(connection, process.id, now) or process.attempt_id is None:
        return None
    attempt = attempt_rows.find(connection, process.attempt_id)
    if attempt is None:
        return None
    if head is not None:
        process_rows.change(connection, process.id, {"after_head_commit": head})
    action = actions.from_json(process.action)
    if done and process.run_reason is RunReason.SETUPSCRIPT:
        script = action["typ"]["script"]
        project_rows.was_set_up(connection, process.project_id, script, now)
        attempt_rows.change(connection, attempt.id, {"setup_completed_at": now})
    if process.run_reason not in task_rows.CHAIN:
        return None
    if done and not is_stopping and action["next_action"] is not None:
        following = new_process(
            process.project_id,
            attempt.id,
            action["next_action"],
            now,
            request_id=process.request_id,  # also where another life of the server goes on
        )
        process_rows.add(connection, following)
        return following
    task_rows.set_status(
        connection,
        attempt.task_id,
        TaskStatus.INREVIEW,
        now,
        only_from=TaskStatus.INPROGRESS,
    )
    return None
