"""From what Anyon keeps to what the wire shows; pure."""

import json
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from anyon.agents.agent import Patch
from anyon.api.drafts import Typed
from anyon.domain import entities
from anyon.domain.pictures import FOLDER
from anyon.git.repository import Branch, FileDiff
from anyon.processes.processes import Chunk
from anyon.sdk import models
from anyon.services.attempts import AttemptStatus
from anyon.services.tasks import TaskView


def project(it: entities.Project) -> models.Project:
    """Show a project."""
    return models.Project(
        id=UUID(it.id),
        name=it.name,
        git_repo_path=it.path,
        setup_script=it.setup_script,
        dev_script=it.dev_script,
        cleanup_script=it.cleanup_script,
        copy_files=it.copy_files,
        created_at=it.created_at,
        updated_at=it.updated_at,
        image=it.image,
        default_agent=it.default_agent,
        goal=it.goal.value,
        phase=it.phase.value,
        state_reason=it.state_reason,
        state_detail=it.state_detail,
        last_active_at=it.last_active_at,
        freeze_after=it.freeze_after,
        stop_after=it.stop_after,
        archive_after=it.archive_after,
    )


def plain_task(it: entities.Task) -> models.Task:
    """Show a task without its attempts."""
    return models.Task(
        id=UUID(it.id),
        project_id=UUID(it.project_id),
        title=it.title,
        description=it.description,
        status=it.status.value,
        parent_task_attempt=_id(it.parent_attempt_id),
        created_at=it.created_at,
        updated_at=it.updated_at,
    )


def task(view: TaskView) -> models.TaskWithAttemptStatus:
    """Show a task."""
    return models.TaskWithAttemptStatus(
        **dict(plain_task(view.task)),
        has_in_progress_attempt=view.has_in_progress_attempt,
        has_merged_attempt=view.has_merged_attempt,
        last_attempt_failed=view.last_attempt_failed,
        executor=view.executor,
    )


def image(it: entities.Picture) -> models.Image:
    """Show a picture that is attached to tasks."""
    return models.Image(
        id=UUID(it.id),
        file_path=f"{FOLDER}/{it.file}",
        original_name=it.name,
        mime_type=it.mime_type,
        size_bytes=it.size_bytes,
        hash=it.sha256,
        created_at=it.created_at,
        updated_at=it.updated_at,
    )


def tag(it: entities.Tag) -> models.Tag:
    """Show a tag."""
    return models.Tag(
        id=UUID(it.id),
        tag_name=it.name,
        content=it.content,
        created_at=it.created_at,
        updated_at=it.updated_at,
    )


def attempt(it: entities.Attempt) -> models.TaskAttempt:
    """Show an attempt."""
    return models.TaskAttempt(
        id=UUID(it.id),
        task_id=UUID(it.task_id),
        container_ref=it.worktree,
        branch=it.branch,
        target_branch=it.target_branch,
        executor=it.agent,
        worktree_deleted=it.worktree_deleted,
        setup_completed_at=it.setup_completed_at,
        created_at=it.created_at,
        updated_at=it.updated_at,
    )


def process(it: entities.Process) -> models.ExecutionProcess:
    """Show a process."""
    return models.ExecutionProcess(
        id=UUID(it.id),
        task_attempt_id=_id(it.attempt_id),
        run_reason=it.run_reason.value,
        executor_action=json.loads(it.action),
        before_head_commit=it.before_head_commit,
        after_head_commit=it.after_head_commit,
        status=it.status.value,
        exit_code=it.exit_code,
        dropped=it.dropped,
        request_id=it.request_id,
        started_at=it.started_at,
        completed_at=it.completed_at,
        created_at=it.created_at,
        updated_at=it.updated_at,
        project_id=UUID(it.project_id),
        exit_reason=it.exit_reason.value if it.exit_reason else None,
    )


def branch(it: Branch) -> models.GitBranch:
    """Show a branch."""
    return models.GitBranch(
        name=it.name,
        is_current=it.is_current,
        is_remote=it.is_remote,
        last_commit_date=it.last_commit_at,
    )


def diff(it: FileDiff, *, stats_only: bool = False) -> models.Diff:
    """Show one file's change; with *stats_only* its numbers alone."""
    return models.Diff(
        change=it.kind.value,
        old_path=it.old_path,
        new_path=it.new_path,
        old_content=None if stats_only else it.old_content,
        new_content=None if stats_only else it.new_content,
        content_omitted=stats_only or it.content_omitted,
        additions=it.additions,
        deletions=it.deletions,
    )


def branch_status(it: AttemptStatus) -> models.BranchStatus:
    """Show how an attempt's branch stands."""
    has, found = it.branch is not None, it.branch
    return models.BranchStatus(
        commits_behind=found.behind if found else None,
        commits_ahead=found.ahead if found else None,
        has_uncommitted_changes=bool(found.uncommitted) if found else None,
        head_oid=found.head if found else None,
        uncommitted_count=found.uncommitted if found else None,
        untracked_count=found.untracked if found else None,
        target_branch_name=it.target_branch,
        remote_commits_behind=None,
        remote_commits_ahead=None,
        merges=[merge(one) for one in it.merges],
        is_rebase_in_progress=has and bool(found and found.is_rebase_in_progress),
        conflict_op="rebase" if found and found.is_rebase_in_progress else None,
        conflicted_files=list(found.conflicted_files) if found else [],
    )


def merge(it: entities.Merge) -> models.DirectMerge:
    """Show a merge."""
    return models.DirectMerge(
        id=UUID(it.id),
        task_attempt_id=UUID(it.attempt_id),
        merge_commit=it.commit,
        target_branch_name=it.target_branch,
        created_at=it.created_at,
    )


def token(it: entities.Token) -> models.Token:
    """Show a token, never its hash."""
    return models.Token(
        id=UUID(it.id),
        name=it.name,
        prefix=it.prefix,
        created_at=it.created_at,
        expires_at=it.expires_at,
        last_used_at=it.last_used_at,
    )


def chunk(it: Chunk, *, finished: bool) -> models.OutputChunk:
    """Show a piece of output."""
    return models.OutputChunk(
        channel=it.channel.value,
        offset=it.offset,
        next_offset=it.next_offset,
        dropped_bytes=it.dropped_bytes,
        data=it.data,
        finished=finished,
    )


def draft(it: Typed) -> models.Draft:
    """Show a draft."""
    return models.Draft(
        task_attempt_id=UUID(it.attempt_id),
        draft_type="retry" if it.kind == "retry" else "follow_up",
        retry_process_id=_id(it.retry_process_id),
        prompt=it.prompt,
        queued=False,
        variant=it.variant,
        image_ids=None if it.image_ids is None else [UUID(one) for one in it.image_ids],
        version=it.version,
    )


def streamed_draft(it: Typed) -> dict[str, Any]:
    """Show a draft as the draft stream does: keys without a value are left out."""
    shown = {
        "id": it.attempt_id,
        **draft(it).model_dump(mode="json"),
        "sending": False,
        "created_at": it.created_at.isoformat().replace("+00:00", "Z"),
        "updated_at": it.updated_at.isoformat().replace("+00:00", "Z"),
    }
    optional = ("retry_process_id", "image_ids")
    return {key: value for key, value in shown.items() if value is not None or key not in optional}


def patch(it: Patch) -> dict[str, Any]:
    """Show a change of a conversation as a JSON Patch operation."""
    return {
        "op": "add" if it.is_new else "replace",
        "path": f"/entries/{it.index}",
        "value": {"type": "NORMALIZED_ENTRY", "content": dict(it.entry)},
    }


def frames_of(patches: Iterable[Patch]) -> Sequence[list[dict[str, Any]]]:
    """Put patches into frames: clients keep only the last operation per path of one frame."""
    frames: list[list[dict[str, Any]]] = []
    paths: set[int] = set()
    for one in patches:
        if not frames or one.index in paths or len(frames[-1]) >= 100:
            frames.append([])
            paths = set()
        frames[-1].append(patch(one))
        paths.add(one.index)
    return frames


def pointer(path: str) -> str:
    """Return *path* as one part of a JSON Pointer."""
    return path.replace("~", "~0").replace("/", "~1")


def _id(text: str | None) -> UUID | None:
    return UUID(text) if text else None
