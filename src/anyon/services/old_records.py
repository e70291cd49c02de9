"""Rows of an old database made into records of ours; pure. What does not fit is made to fit, and told."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from anyon.domain import names
from anyon.domain.entities import Attempt, Merge, Project, Task
from anyon.domain.errors import AnyonError
from anyon.domain.ids import AttemptId, ProjectId, TaskId, UserId
from anyon.domain.states import Phase, TaskStatus
from anyon.git.names import copy_patterns

Row = Mapping[str, Any]
_SCRIPTS = ("setup_script", "dev_script", "cleanup_script")


@dataclass(slots=True)
class Fitting:
    """Makes values fit, noting each that it had to change."""

    now: datetime
    notes: list[str] = field(default_factory=list)

    def project(
        self, row: Row, *, user: UserId, path: Callable[[ProjectId], Path], taken: Collection[str]
    ) -> Project:
        """Return the project of a row, not made yet; its name is one that is not *taken*."""
        project_id = ProjectId(row["id"])
        scripts = {key: self._kept(names.script, row[key], key) for key in _SCRIPTS}
        patterns = self._kept(
            lambda raw, _: copy_patterns(raw) and raw, row["copy_files"], "copy_files"
        )
        created = row["created_at"] or self.now
        return Project(
            id=project_id,
            user_id=user,
            name=self._name(row["name"], taken),
            path=str(path(project_id)),
            copy_files=patterns or None,
            phase=Phase.CREATING,
            state_reason="created",
            phase_since=self.now,
            last_active_at=self.now,
            created_at=created,
            updated_at=row["updated_at"] or created,
            **scripts,
        )

    def _kept(self, check: Callable[[Any, str], Any], raw: Any, what: str) -> Any:
        try:
            return check(None if raw is None else str(raw), what.replace("_", " "))
        except AnyonError as error:
            self.notes.append(f"{what} was left out: {error.message}")
            return None

    def _name(self, raw: Any, taken: Collection[str]) -> str:
        wanted = str(raw or "").strip()
        name = _printable(wanted.replace("/", "-").replace("\\", "-"))[: names.NAME_LIMIT].strip()
        if not name.strip("."):
            name = "project"
        name = names.project_name(name)
        base, number = name, 2
        while name in taken:
            ending = f" ({number})"
            name, number = base[: names.NAME_LIMIT - len(ending)] + ending, number + 1
        if name != wanted:
            self.notes.append(f"it is named {name!r} here, was {wanted!r}")
        return name

    def task(self, row: Row, *, has_attempts: bool) -> Task:
        """Return the task of a row; nothing of it runs any more."""
        description = None if row["description"] is None else str(row["description"])
        if description is not None:
            description = description.replace("\0", "")
            data = description.encode("utf-8", "replace")
            if len(data) > names.TEXT_LIMIT:
                self.notes.append(f"the description of task {row['id']} was cut to 1 MiB")
            description = data[: names.TEXT_LIMIT].decode("utf-8", "ignore")
        title = _printable(str(row["title"] or ""))[: names.TITLE_LIMIT].strip()
        created = row["created_at"] or self.now
        parent = row["parent_task_attempt"]
        return Task(
            id=TaskId(row["id"]),
            project_id=ProjectId(row["project_id"]),
            title=title or f"Task {row['id'][:8]}",
            description=description,
            status=self._status(row, has_attempts=has_attempts),
            parent_attempt_id=None if parent is None else AttemptId(parent),
            created_at=created,
            updated_at=row["updated_at"] or created,
        )

    def _status(self, row: Row, *, has_attempts: bool) -> TaskStatus:
        raw = str(row["status"] or "todo").lower()
        if raw == TaskStatus.INPROGRESS:
            status = TaskStatus.INREVIEW if has_attempts else TaskStatus.TODO
            self.notes.append(f"task {row['id']} was in progress; nothing runs now: {status}")
            return status
        try:
            return TaskStatus(raw)
        except ValueError:
            self.notes.append(f"task {row['id']} had the status {raw!r}: todo")
            return TaskStatus.TODO

    def attempt(
        self, row: Row, *, project: ProjectId, agent: str, branch: str, target: str
    ) -> Attempt:
        """Return the attempt of a row, without a worktree."""
        created = row["created_at"] or self.now
        return Attempt(
            id=AttemptId(row["id"]),
            task_id=TaskId(row["task_id"]),
            project_id=project,
            branch=branch,
            target_branch=target,
            agent=agent,
            worktree=None,
            worktree_deleted=True,
            setup_completed_at=row["setup_completed_at"],
            created_at=created,
            updated_at=row["updated_at"] or created,
        )

    def merge(self, row: Row, attempt: Attempt) -> Merge | None:
        """Return the merge of a row; None, with a note, for one that is no commit (a pull request)."""
        if str(row["merge_type"] or "direct") != "direct" or not row["merge_commit"]:
            self.notes.append(f"merge {row['id']} ({row['merge_type']}) was not taken over")
            return None
        return Merge(
            id=row["id"],
            attempt_id=attempt.id,
            commit=str(row["merge_commit"]),
            target_branch=str(row["target_branch_name"] or attempt.target_branch),
            created_at=row["created_at"] or self.now,
        )


def _printable(text: str) -> str:
    """Return *text* without what a line may not hold; a name of our own checks it again."""
    proper = text.encode("utf-8", "replace").decode()
    return "".join(c if c.isprintable() or c == "\u200d" else " " for c in proper)
