"""The wire's shapes: what a client asks. A key that is not given means "as it is" or "the default"."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

from anyon.sdk.models import ExecutorProfileId, TaskStatus

MAX_TEXT = 1_200_000
"""Characters of a description, prompt or script: a mebibyte of text, with some to spare."""


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not hold a NUL character")
    return text


Text = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(_storable)]
"""Free text that a database can keep."""
Line = Annotated[str, Field(max_length=4096), AfterValidator(_storable)]
"""A short text: a name, a path, a branch."""

IdleTime = Annotated[int, Field(ge=0, le=3650 * 86400)]
"""Seconds without work; 0 is never."""


class Request(BaseModel):
    """A shape; unknown keys are left alone, as older and newer clients send some."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class CreateProject(Request):
    """A new project: a new repository, or a local directory or a clone URL to begin with."""

    name: Line
    git_repo_path: Line = ""
    use_existing_repo: bool | None = None
    clone_url: Line | None = None
    image: Line | None = None
    default_agent: Line | None = None
    setup_script: Text | None = None
    dev_script: Text | None = None
    cleanup_script: Text | None = None
    copy_files: Text | None = None


class UpdateProject(Request):
    """Changes: a null name or path keeps it; null scripts and ``copy_files`` clear them.

    Idle times are seconds: not given stays, null is the server's again, 0 never.
    """

    name: Line | None = None
    git_repo_path: Line | None = None
    image: Line | None = None
    default_agent: Line | None = None
    setup_script: Text | None = None
    dev_script: Text | None = None
    cleanup_script: Text | None = None
    copy_files: Text | None = None
    freeze_after: IdleTime | None = None
    stop_after: IdleTime | None = None
    archive_after: IdleTime | None = None


class Hold(Request):
    """Keep a project awake for *minutes* (7 days at most), whatever happens in it."""

    reason: Line
    minutes: float = Field(gt=0, le=7 * 24 * 60)


class Restore(Request):
    """Go back: to all of a checkpoint, to one *path* (``<tree>/<path>``), or to an attempt's worktree.

    With *force* also while something runs: for all of it what runs is stopped; a path in the
    workspace or the home is replaced under it.
    """

    path: Annotated[str, Field(max_length=200_000), AfterValidator(_storable)] | None = None
    attempt_id: UUID | None = None
    force: bool = False


class Fork(Request):
    """A new project from a checkpoint of another."""

    name: Line


class Stop(Request):
    """Stop a project; with *force* also while something holds it: what runs is ended."""

    force: bool = False


class Move(Request):
    """Move a project's files: ``mount`` is the mounted bucket, ``disk`` the local disk."""

    to: Literal["mount", "disk"]


class RestoreWork(Request):
    """Make *branch* of saved work, named by its *ref*."""

    ref: Line
    branch: Line


class CreateTask(Request):
    """A new task; without a title it is also started, with the project's default agent."""

    project_id: UUID
    title: Text | None = None
    description: Text | None = None
    parent_task_attempt: UUID | None = None
    image_ids: list[UUID] | None = Field(default=None, max_length=100)


class CreateAndStartTask(Request):
    """A new task and its first attempt."""

    task: CreateTask
    executor_profile_id: ExecutorProfileId | None = None
    base_branch: Line | None = None


class UpdateTask(Request):
    """Changes: null keeps; a blank description clears it."""

    title: Text | None = None
    description: Text | None = None
    status: TaskStatus | None = None
    parent_task_attempt: UUID | None = None
    image_ids: list[UUID] | None = Field(default=None, max_length=100)


class CreateTag(Request):
    """A new tag."""

    tag_name: Line
    content: Text


class UpdateTag(Request):
    """Changes of a tag: null keeps."""

    tag_name: Line | None = None
    content: Text | None = None


class CreateAttempt(Request):
    """A new attempt; what is not given is the project's default."""

    task_id: UUID
    executor_profile_id: ExecutorProfileId | None = None
    base_branch: Line | None = None


class FollowUp(Request):
    """A further prompt to an attempt's agent."""

    prompt: Text
    variant: Line | None = None
    image_ids: list[UUID] | None = Field(default=None, max_length=100)
    retry_process_id: UUID | None = None
    force_when_dirty: bool | None = None
    perform_git_reset: bool | None = None


class Rebase(Request):
    """Where to rebase an attempt's branch to; nothing given: its target branch."""

    old_base_branch: Line | None = None
    new_base_branch: Line | None = None


class UpdateDraft(Request):
    """What is typed for an attempt; only the keys that changed."""

    prompt: Text | None = None
    variant: Line | None = None
    image_ids: list[UUID] | None = Field(default=None, max_length=100)
    version: int | None = Field(default=None, ge=0, le=2**53)
    retry_process_id: UUID | None = None


class Exec(Request):
    """A command to run in a project's container as a durable process; ``timeout`` in seconds."""

    argv: list[Text] = Field(min_length=1, max_length=4096)
    cwd: Line | None = None
    env: dict[Line, Text] | None = Field(default=None, max_length=1024)
    stdin: Text | None = None
    timeout: float | None = Field(default=None, gt=0, le=30 * 86400)


class CreateToken(Request):
    """A new key to the API."""

    name: Line
    expires_at: AwareDatetime | None = None
    scopes: list[Line] | None = Field(default=None, max_length=32)


Config = dict[str, Any]
"""The front end's own preferences, kept for it."""
