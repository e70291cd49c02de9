"""What became of an old installation's projects, or would: counted and told; pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from anyon.db.old_databases import OldRecords
from anyon.domain.ids import ProjectId
from anyon.services.old_layouts import OldWorktree

Row = Mapping[str, Any]


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What became of one project. ``state``: migrated, there, failed, or planned (a dry run)."""

    id: str
    name: str
    state: str = "planned"
    tasks: int = 0
    attempts: int = 0
    worktrees: int = 0
    merges: int = 0
    images: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Report:
    """What became of all; ``left`` counts old rows, by table, that have no place here.

    ``tags`` and ``images`` count what came in now (or would), ``lost`` tells of each image that could not.
    """

    projects: list[Outcome]
    tags: int = 0
    images: int = 0
    lost: list[str] = field(default_factory=list)
    missing: Sequence[str] = ()
    left: Mapping[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def count(
    records: OldRecords, project: ProjectId, outcome: Outcome, worktrees: Mapping[str, OldWorktree]
) -> None:
    """Say in *outcome* what would come of a project."""
    tasks = {row["id"] for row in records.tasks if row["project_id"] == project}
    outcome.images = sum(row["task_id"] in tasks for row in records.task_images)
    attempts = [row for row in records.attempts if row["task_id"] in tasks]
    ids = {row["id"] for row in attempts}
    outcome.tasks, outcome.attempts = len(tasks), len(attempts)
    outcome.worktrees = sum(
        worktree_of(row, worktrees) is not None and not row["worktree_deleted"] for row in attempts
    )
    outcome.merges = sum(row["task_attempt_id"] in ids for row in records.merges)


def worktree_of(row: Row, worktrees: Mapping[str, OldWorktree]) -> OldWorktree | None:
    """Return an attempt's worktree: by its recorded path, else by the branch it has checked out."""
    recorded = PurePosixPath(str(row["container_ref"] or "")).name
    if recorded in worktrees:
        return worktrees[recorded]
    branch = row["branch"]
    return next((one for one in worktrees.values() if branch and one.branch == branch), None)


def tell_of_left(
    new: Sequence[Row], worktrees: Mapping[str, OldWorktree], due: Sequence[Row], outcome: Outcome
) -> None:
    """Note worktrees that no attempt claims, and attempts whose worktree is not there."""
    claimed = set()
    for row in due:
        worktree = worktree_of(row, worktrees)
        if worktree is not None and not row["worktree_deleted"]:
            claimed.add(worktree.path.name)
        elif row in new and not row["worktree_deleted"]:
            outcome.notes.append(f"the worktree of attempt {row['id']} is not there any more")
    outcome.notes += [
        f"the worktree {name!r} is no attempt's, and stays behind"
        for name in worktrees
        if name not in claimed
    ]
