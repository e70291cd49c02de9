"""The things Anyon keeps records of. Times are aware and in UTC; sizes are bytes."""

from dataclasses import dataclass
from datetime import datetime

from anyon.domain.ids import (
    AttemptId,
    LeaseId,
    PictureId,
    ProcessId,
    ProjectId,
    TagId,
    TaskId,
    TokenId,
    UserId,
)
from anyon.domain.states import ExitReason, Goal, Phase, ProcessStatus, RunReason, TaskStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A tenant."""

    id: UserId
    name: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A key to the API. Only the SHA-256 of its secret is kept; ``prefix`` names it to people."""

    id: TokenId
    user_id: UserId
    name: str
    prefix: str
    sha256: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = None
    scopes: frozenset[str] = frozenset({"*"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """One software project: one repository, one container.

    ``path`` is the absolute host directory seen inside as ``/workspace``. ``default_agent`` is
    the agent of a task that names none. ``state_reason`` is the stable code of why ``phase`` is
    what it is, ``state_detail`` the same for people. ``deleted_at`` is set on a tombstone.
    ``freeze_after``, ``stop_after``, ``archive_after`` are its own idle times in seconds; None is the server's.
    """

    id: ProjectId
    user_id: UserId
    name: str
    path: str
    image: str | None = None
    default_agent: str | None = None
    setup_script: str | None = None
    dev_script: str | None = None
    cleanup_script: str | None = None
    copy_files: str | None = None
    goal: Goal = Goal.RUNNING
    phase: Phase = Phase.ABSENT
    state_reason: str = ""
    state_detail: str = ""
    phase_since: datetime
    last_active_at: datetime
    setup_completed_at: datetime | None = None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None = None
    freeze_after: int | None = None
    stop_after: int | None = None
    archive_after: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A piece of work on a project."""

    id: TaskId
    project_id: ProjectId
    title: str
    description: str | None
    status: TaskStatus
    parent_attempt_id: AttemptId | None = None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """A text that a user keeps under a name, to put it into prompts."""

    id: TagId
    user_id: UserId
    name: str
    content: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """An image file that is attached to tasks ("image" on the wire; never what a container is made from).

    ``file`` is its name in an attempt's worktree, below ``.vibe-images/``; ``name`` is what it was
    called by whoever gave it. A user has one of a content (``sha256``) and one of a ``file``.
    """

    id: PictureId
    user_id: UserId
    file: str
    name: str
    mime_type: str
    size_bytes: int
    sha256: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try at a task: a branch, a worktree, an agent.

    ``worktree`` is the path inside the container (``/workspace/.worktrees/…``), None until made.
    ``agent`` and ``variant`` name the coding agent's profile.
    """

    id: AttemptId
    task_id: TaskId
    project_id: ProjectId
    branch: str
    target_branch: str
    agent: str
    variant: str | None = None
    worktree: str | None = None
    worktree_deleted: bool = False
    setup_completed_at: datetime | None = None
    merge_commit: str | None = None
    saved_ref: str | None = None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One program run in a project's container ("execution process" on the wire).

    ``action`` is the wire's executor action (what was asked), as JSON text. ``session_id`` is the
    agent's own session, read from its output, with which a follow-up resumes it. ``request_id`` is
    that of the request which began its chain.
    """

    id: ProcessId
    project_id: ProjectId
    attempt_id: AttemptId | None
    run_reason: RunReason
    action: str
    status: ProcessStatus
    exit_code: int | None = None
    exit_reason: ExitReason | None = None
    session_id: str | None = None
    before_head_commit: str | None = None
    after_head_commit: str | None = None
    dropped: bool = False
    request_id: str | None = None
    started_at: datetime
    completed_at: datetime | None = None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """An attempt's branch was put onto a target branch as one commit."""

    id: str
    attempt_id: AttemptId
    commit: str
    target_branch: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to have a project awake until ``expires_at``; ``holder`` says who, ``reason`` why."""

    id: LeaseId
    project_id: ProjectId
    holder: str
    reason: str
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a project; ``reason`` is a stable code, ``sequence`` grows.

    ``request_id`` is that of the request it came of, None for the server's own doing.
    """

    sequence: int
    project_id: ProjectId
    kind: str
    reason: str
    detail: str
    at: datetime
    request_id: str | None = None
