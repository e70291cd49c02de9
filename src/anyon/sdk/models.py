"""The wire's shapes: what the server answers. Keys are always present; times are RFC 3339 in UTC."""

import base64
from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    WithJsonSchema,
    model_serializer,
)
from pydantic.alias_generators import to_camel

T = TypeVar("T")

TaskStatus = Literal["todo", "inprogress", "inreview", "done", "cancelled"]
ProcessStatus = Literal["running", "completed", "failed", "killed"]
RunReason = Literal["setupscript", "cleanupscript", "codingagent", "devserver", "command"]
ExitReason = Literal[
    "exited",
    "signalled",
    "timeout",
    "oom",
    "killed_by_user",
    "output_limit",
    "container_stopped",
    "machine_lost",
    "interrupted",
]
Goal = Literal["running", "stopped", "archived", "deleted"]
Phase = Literal[
    "absent",
    "creating",
    "running",
    "frozen",
    "stopping",
    "stopped",
    "stopped_unsaved",
    "archiving",
    "archived",
    "restoring",
    "deleting",
    "error",
]
DiffChangeKind = Literal["added", "deleted", "modified", "renamed", "copied", "permissionChange"]
ConflictOp = Literal["rebase", "merge", "cherry_pick", "revert"]
Channel = Literal["stdout", "stderr"]


def _bytes_of(value: bytes | str) -> bytes:
    return base64.b64decode(value, validate=True) if isinstance(value, str) else value


Base64 = Annotated[
    bytes,
    BeforeValidator(_bytes_of),
    PlainSerializer(lambda data: base64.b64encode(data).decode(), when_used="json"),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
]
"""Raw bytes; on the wire standard base64."""


class Model(BaseModel):
    """A shape; what it does not know of a newer server's answer, it leaves alone."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class ErrorData(BaseModel):
    """What an error carries beside its message; some errors add keys of their own."""

    model_config = ConfigDict(extra="allow", frozen=True)

    code: str = Field(description="A stable constant, for programs.")
    hint: str = Field(description="What to do about it, for people; may be empty.")


class Envelope(Model, Generic[T]):
    """The form of every JSON answer: all four keys, always."""

    success: bool
    data: T | None
    error_data: Any
    message: str | None

    @classmethod
    def of(cls, data: T) -> "Envelope[T]":
        """Wrap a success."""
        return cls(success=True, data=data, error_data=None, message=None)


class ErrorEnvelope(Model):
    """The form of every error."""

    success: Literal[False]
    data: None
    error_data: ErrorData
    message: str


class Project(Model):
    """One software project: one repository, one container.

    ``goal`` is what is wanted of the container, ``phase`` what was last observed, and
    ``state_reason`` the stable code of why. ``freeze_after``, ``stop_after`` and ``archive_after``
    are its own idle times in seconds; null is the server's, 0 never.
    """

    id: UUID
    name: str
    git_repo_path: str
    setup_script: str | None
    dev_script: str | None
    cleanup_script: str | None
    copy_files: str | None
    created_at: datetime
    updated_at: datetime
    image: str | None = None
    default_agent: str | None = None
    goal: Goal = "running"
    phase: Phase = "absent"
    state_reason: str = ""
    state_detail: str = ""
    last_active_at: datetime | None = None
    freeze_after: int | None = None
    stop_after: int | None = None
    archive_after: int | None = None


class Task(Model):
    """A piece of work on a project."""

    id: UUID
    project_id: UUID
    title: str
    description: str | None
    status: TaskStatus
    parent_task_attempt: UUID | None
    created_at: datetime
    updated_at: datetime


class TaskWithAttemptStatus(Task):
    """A task and how its attempts stand; ``executor`` is the newest attempt's, or empty."""

    has_in_progress_attempt: bool
    has_merged_attempt: bool
    last_attempt_failed: bool
    executor: str


class Image(Model):
    """An image that is attached to tasks; ``file_path`` is how a description shows it to an agent."""

    id: UUID
    file_path: str
    original_name: str
    mime_type: str | None
    size_bytes: int
    hash: str
    created_at: datetime
    updated_at: datetime


class Tag(Model):
    """A text that is kept under a name, to put it into prompts."""

    id: UUID
    tag_name: str
    content: str
    created_at: datetime
    updated_at: datetime


class TaskAttempt(Model):
    """One try at a task: a branch, a worktree (``container_ref``), an agent (``executor``)."""

    id: UUID
    task_id: UUID
    container_ref: str | None
    branch: str
    target_branch: str
    executor: str
    worktree_deleted: bool
    setup_completed_at: datetime | None
    created_at: datetime
    updated_at: datetime


class TaskRelationships(Model):
    """A task's neighbours, seen from one of its attempts."""

    parent_task: Task | None
    current_attempt: TaskAttempt
    children: list[Task]


class ExecutionProcess(Model):
    """One program run in a project's container. A command's ``task_attempt_id`` is null."""

    id: UUID
    task_attempt_id: UUID | None
    run_reason: RunReason
    executor_action: dict[str, Any]
    before_head_commit: str | None
    after_head_commit: str | None
    status: ProcessStatus
    exit_code: int | None
    dropped: bool
    started_at: datetime
    completed_at: datetime | None
    created_at: datetime
    updated_at: datetime
    project_id: UUID | None = None
    exit_reason: ExitReason | None = None
    request_id: str | None = None


class GitBranch(Model):
    """A local or remote branch (``origin/x``)."""

    name: str
    is_current: bool
    is_remote: bool
    last_commit_date: datetime


class Diff(Model):
    """One file's change (camelCase on the wire)."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)

    change: DiffChangeKind
    old_path: str | None
    new_path: str | None
    old_content: str | None
    new_content: str | None
    content_omitted: bool
    additions: int | None
    deletions: int | None


class DirectMerge(Model):
    """A merge that Anyon made itself."""

    type: Literal["direct"] = "direct"
    id: UUID
    task_attempt_id: UUID
    merge_commit: str
    target_branch_name: str
    created_at: datetime


class BranchStatus(Model):
    """How an attempt's branch stands against its target branch; null where nobody can know."""

    commits_behind: int | None
    commits_ahead: int | None
    has_uncommitted_changes: bool | None
    head_oid: str | None
    uncommitted_count: int | None
    untracked_count: int | None
    target_branch_name: str
    remote_commits_behind: int | None
    remote_commits_ahead: int | None
    merges: list[DirectMerge]
    is_rebase_in_progress: bool
    conflict_op: ConflictOp | None
    conflicted_files: list[str]


class ExecutorProfileId(Model):
    """An agent and its variant; ``variant`` is left out when there is none (= DEFAULT)."""

    executor: str = Field(max_length=64)
    variant: str | None = Field(default=None, max_length=64)

    @model_serializer
    def _without_null(self) -> dict[str, str]:
        pair = {"executor": self.executor, "variant": self.variant}
        return {key: value for key, value in pair.items() if value is not None}


class OutputChunk(Model):
    """A piece of a process's output: raw bytes, as base64 on the wire.

    ``data`` began at ``offset`` and the next piece begins at ``next_offset``; ``dropped_bytes``
    lie before it (the middle of an output past its cap). ``finished`` says that the process is
    over and this was the last of what it wrote.
    """

    channel: Channel
    offset: int
    next_offset: int
    dropped_bytes: int
    data: Base64
    finished: bool


class Token(Model):
    """A key to the API, as it may be shown: ``prefix`` is how its secret begins."""

    id: UUID
    name: str
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


class NewToken(Model):
    """A token that was just made; ``secret`` is shown this once."""

    token: Token
    secret: str


class Draft(Model):
    """What was typed and not yet sent, for one attempt."""

    task_attempt_id: UUID
    draft_type: Literal["follow_up", "retry"]
    retry_process_id: UUID | None
    prompt: str
    queued: bool
    variant: str | None
    image_ids: list[UUID] | None
    version: int


class SystemInfo(Model):
    """What a client needs to know of the server (``GET /api/info``)."""

    config: dict[str, JsonValue]
    analytics_user_id: str
    executors: dict[str, dict[str, dict[str, Any]]]
    environment: dict[str, str]
    github_secret_state: dict[str, bool]
    claude_secret_state: dict[str, bool]
    is_cloud: bool
    capabilities: dict[str, list[str]]
    version: str = ""
