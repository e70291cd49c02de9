"""Routes of attempts ("task attempts" on the wire)."""

from typing import Literal
from uuid import UUID

from fastapi import APIRouter, Depends

from anyon.api import shapes
from anyon.api.contexts import ActorOf, Context, ContextOf, actor_of, picture_ids
from anyon.domain.actors import Actor
from anyon.domain.entities import Attempt
from anyon.domain.errors import InvalidInputError
from anyon.domain.ids import AttemptId, TaskId
from anyon.sdk import models, requests
from anyon.sdk.models import Envelope
from anyon.services.feed import Change, Kind

router = APIRouter(prefix="/api/task-attempts", tags=["attempts"], dependencies=[Depends(actor_of)])

DraftKind = Literal["follow_up", "retry"]


@router.get("")
async def list_attempts(
    context: ContextOf, actor: ActorOf, task_id: UUID
) -> Envelope[list[models.TaskAttempt]]:
    """Return a task's attempts, newest first."""
    found = await context.services.attempts.list(actor, TaskId(str(task_id)))
    return Envelope.of([shapes.attempt(attempt) for attempt in found])


@router.post("")
async def start_attempt(
    context: ContextOf, actor: ActorOf, asked: requests.CreateAttempt
) -> Envelope[models.TaskAttempt]:
    """Start a new attempt at a task; what is not given is the project's default."""
    profile = asked.executor_profile_id
    attempt = await context.services.attempts.start(
        actor,
        TaskId(str(asked.task_id)),
        agent=profile.executor if profile else None,
        variant=profile.variant if profile else None,
        base_branch=asked.base_branch,
    )
    return Envelope.of(shapes.attempt(attempt))


@router.get("/{attempt_id}")
async def get_attempt(
    context: ContextOf, actor: ActorOf, attempt_id: UUID
) -> Envelope[models.TaskAttempt]:
    """Return one attempt."""
    return Envelope.of(shapes.attempt(await _attempt(context, actor, attempt_id)))


@router.get("/{attempt_id}/children")
async def get_relationships(
    context: ContextOf, actor: ActorOf, attempt_id: UUID
) -> Envelope[models.TaskRelationships]:
    """Return the task that this attempt's task came from, and those that came from this attempt."""
    services = context.services
    attempt = await _attempt(context, actor, attempt_id)
    task = (await services.tasks.get(actor, attempt.task_id)).task
    parent = None
    if task.parent_attempt_id is not None:
        owner = await services.attempts.get(actor, task.parent_attempt_id)
        parent = shapes.plain_task((await services.tasks.get(actor, owner.task_id)).task)
    tasks = await services.tasks.list(actor, attempt.project_id)
    children = [view.task for view in tasks if view.task.parent_attempt_id == attempt.id]
    return Envelope.of(
        models.TaskRelationships(
            parent_task=parent,
            current_attempt=shapes.attempt(attempt),
            children=[shapes.plain_task(child) for child in children],
        )
    )


@router.post("/{attempt_id}/follow-up")
async def follow_up(
    context: ContextOf, actor: ActorOf, attempt_id: UUID, asked: requests.FollowUp
) -> Envelope[models.ExecutionProcess]:
    """Give the attempt's agent a further prompt, in its session."""
    if asked.retry_process_id is not None:
        raise InvalidInputError(
            "an earlier prompt cannot be sent again",
            code="retry_unsupported",
            hint="Send a further prompt, or start a new attempt.",
        )
    key = AttemptId(str(attempt_id))
    process = await context.services.attempts.follow_up(
        actor, key, asked.prompt, asked.variant, picture_ids(asked.image_ids)
    )
    context.drafts.drop(key, "follow_up")
    return Envelope.of(shapes.process(process))


@router.post("/{attempt_id}/stop")
async def stop_attempt(context: ContextOf, actor: ActorOf, attempt_id: UUID) -> Envelope[None]:
    """End every running process of the attempt; what it changed is kept."""
    await context.services.attempts.stop(actor, AttemptId(str(attempt_id)))
    return Envelope.of(None)


@router.get("/{attempt_id}/diff")
async def get_diff(
    context: ContextOf, actor: ActorOf, attempt_id: UUID, stats_only: bool = False
) -> Envelope[list[models.Diff]]:
    """Return what the attempt changed, untracked files too."""
    key = AttemptId(str(attempt_id))
    found = await context.services.attempts.diff(actor, key, with_contents=not stats_only)
    return Envelope.of([shapes.diff(one, stats_only=stats_only) for one in found])


@router.get("/{attempt_id}/branch-status")
async def get_branch_status(
    context: ContextOf, actor: ActorOf, attempt_id: UUID
) -> Envelope[models.BranchStatus]:
    """Return how the attempt's branch stands against its target branch."""
    status = await context.services.attempts.status(actor, AttemptId(str(attempt_id)))
    return Envelope.of(shapes.branch_status(status))


@router.post("/{attempt_id}/merge")
async def merge_attempt(context: ContextOf, actor: ActorOf, attempt_id: UUID) -> Envelope[None]:
    """Put the attempt's change on its target branch as one commit; the task is done."""
    await context.services.attempts.merge(actor, AttemptId(str(attempt_id)))
    return Envelope.of(None)


@router.post("/{attempt_id}/rebase")
async def rebase_attempt(
    context: ContextOf, actor: ActorOf, attempt_id: UUID, asked: requests.Rebase | None = None
) -> Envelope[None]:
    """Rebase the attempt's branch onto another branch, which becomes its target."""
    target = asked.new_base_branch if asked else None
    await context.services.attempts.rebase(actor, AttemptId(str(attempt_id)), target)
    return Envelope.of(None)


@router.delete("/{attempt_id}/worktree")
async def delete_worktree(context: ContextOf, actor: ActorOf, attempt_id: UUID) -> Envelope[None]:
    """Remove the attempt's worktree and branch; unmerged work is saved first."""
    await context.services.attempts.delete_worktree(actor, AttemptId(str(attempt_id)))
    return Envelope.of(None)


@router.get("/{attempt_id}/draft")
async def get_draft(
    context: ContextOf,
    actor: ActorOf,
    attempt_id: UUID,
    type: DraftKind = "follow_up",  # noqa: A002 - the wire's name
) -> Envelope[models.Draft]:
    """Return what is typed and not yet sent."""
    attempt = await _attempt(context, actor, attempt_id)
    return Envelope.of(shapes.draft(context.drafts.get(attempt.id, type)))


@router.put("/{attempt_id}/draft")
async def put_draft(
    context: ContextOf,
    actor: ActorOf,
    attempt_id: UUID,
    asked: requests.UpdateDraft,
    type: DraftKind = "follow_up",  # noqa: A002 - the wire's name
) -> Envelope[models.Draft]:
    """Keep what is typed; only the keys given change, and a null variant clears it."""
    attempt = await _attempt(context, actor, attempt_id)
    await context.services.pictures.check(actor, picture_ids(asked.image_ids))
    changes: dict[str, object] = {}
    if asked.prompt is not None:
        changes["prompt"] = asked.prompt
    if "variant" in asked.model_fields_set:
        changes["variant"] = asked.variant
    if asked.image_ids is not None:
        changes["image_ids"] = tuple(str(one) for one in asked.image_ids)
    if asked.retry_process_id is not None:
        changes["retry_process_id"] = str(asked.retry_process_id)
    draft = context.drafts.put(attempt.id, type, asked.version, **changes)
    _tell(context, attempt)
    return Envelope.of(shapes.draft(draft))


@router.delete("/{attempt_id}/draft")
async def delete_draft(
    context: ContextOf,
    actor: ActorOf,
    attempt_id: UUID,
    type: DraftKind = "retry",  # noqa: A002 - the wire's name
) -> Envelope[None]:
    """Forget what is typed."""
    attempt = await _attempt(context, actor, attempt_id)
    context.drafts.drop(attempt.id, type)
    _tell(context, attempt)
    return Envelope.of(None)


async def _attempt(context: Context, actor: Actor, attempt_id: UUID) -> Attempt:
    return await context.services.attempts.get(actor, AttemptId(str(attempt_id)))


def _tell(context: Context, attempt: Attempt) -> None:
    """Let the draft streams look again."""
    context.services.feed.publish(
        Change(
            kind=Kind.ATTEMPT, id=attempt.id, project_id=attempt.project_id, attempt_id=attempt.id
        )
    )
