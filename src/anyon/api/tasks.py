"""Routes of tasks."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from anyon.api import shapes
from anyon.api.contexts import ActorOf, Context, ContextOf, actor_of, picture_ids
from anyon.api.waiting import looked_until
from anyon.domain.actors import Actor
from anyon.domain.errors import AnyonError
from anyon.domain.ids import AttemptId, ProjectId, TaskId
from anyon.domain.states import TaskStatus
from anyon.sdk import models, requests
from anyon.sdk.models import Envelope
from anyon.services.feed import Change, Kind
from anyon.services.projects import UNSET
from anyon.services.tasks import NewTask, TaskChanges, TaskView

router = APIRouter(prefix="/api/tasks", tags=["tasks"], dependencies=[Depends(actor_of)])


@router.get("")
async def list_tasks(
    context: ContextOf, actor: ActorOf, project_id: UUID
) -> Envelope[list[models.TaskWithAttemptStatus]]:
    """Return a project's tasks, newest first."""
    found = await context.services.tasks.list(actor, ProjectId(str(project_id)))
    return Envelope.of([shapes.task(view) for view in found])


@router.post("")
async def create_task(
    context: ContextOf, actor: ActorOf, asked: requests.CreateTask
) -> Envelope[models.TaskWithAttemptStatus]:
    """Make a task. Without a title one is made of the description, and the task is started."""
    view = await context.services.tasks.create(actor, _new(asked))
    if not (asked.title or "").strip():
        view = await _start(context, actor, view)
    return await _answer(context, view)


@router.post("/create-and-start")
async def create_and_start_task(
    context: ContextOf, actor: ActorOf, asked: requests.CreateAndStartTask
) -> Envelope[models.TaskWithAttemptStatus]:
    """Make a task and start its first attempt; when that cannot start, there is no task either."""
    view = await context.services.tasks.create(actor, _new(asked.task))
    view = await _start(context, actor, view, asked.executor_profile_id, asked.base_branch)
    return await _answer(context, view)


@router.get("/{task_id}")
async def get_task(
    context: ContextOf,
    actor: ActorOf,
    task_id: UUID,
    wait: Annotated[float, Query(ge=0, le=60)] = 0,
) -> Envelope[models.TaskWithAttemptStatus]:
    """Return one task; ``wait`` seconds at most for the end of the attempt that is in progress."""
    services, task = context.services, TaskId(str(task_id))
    view = await services.tasks.get(actor, task)
    if not wait or not view.has_in_progress_attempt:
        return Envelope.of(shapes.task(view))
    with services.feed.subscribe(view.task.project_id) as changes:
        mine = {attempt.id for attempt in await services.attempts.list(actor, task)}

        def concerns(change: Change) -> bool:
            return change.kind is Kind.ATTEMPT or change.id == task or change.attempt_id in mine

        view = await looked_until(
            lambda view: not view.has_in_progress_attempt,
            lambda: services.tasks.get(actor, task),
            changes=changes,
            concerns=concerns,
            closing=context.closing,
            seconds=wait,
        )
    return Envelope.of(shapes.task(view))


@router.put("/{task_id}")
async def update_task(
    context: ContextOf, actor: ActorOf, task_id: UUID, asked: requests.UpdateTask
) -> Envelope[models.TaskWithAttemptStatus]:
    """Change a task: null keeps, a blank description clears it; ``image_ids`` replace what is attached."""
    parent, words = asked.parent_task_attempt, asked.description
    changes = TaskChanges(
        title=UNSET if asked.title is None else asked.title,
        description=UNSET if words is None else (words if words.strip() else None),
        status=UNSET if asked.status is None else TaskStatus(asked.status),
        parent_attempt_id=UNSET if parent is None else AttemptId(str(parent)),
        picture_ids=UNSET if asked.image_ids is None else picture_ids(asked.image_ids),
    )
    view = await context.services.tasks.update(actor, TaskId(str(task_id)), changes)
    return Envelope.of(shapes.task(view))


@router.delete("/{task_id}", status_code=202)
async def delete_task(context: ContextOf, actor: ActorOf, task_id: UUID) -> Envelope[None]:
    """Delete a task that does not run; what its worktrees hold unmerged is saved first."""
    await context.services.tasks.delete(actor, TaskId(str(task_id)))
    return Envelope.of(None)


def _new(asked: requests.CreateTask) -> NewTask:
    parent = asked.parent_task_attempt
    return NewTask(
        project_id=ProjectId(str(asked.project_id)),
        title=asked.title,
        description=asked.description,
        parent_attempt_id=None if parent is None else AttemptId(str(parent)),
        picture_ids=picture_ids(asked.image_ids),
    )


async def _start(
    context: Context,
    actor: Actor,
    view: TaskView,
    profile: models.ExecutorProfileId | None = None,
    base_branch: str | None = None,
) -> TaskView:
    try:
        await context.services.attempts.start(
            actor,
            view.task.id,
            agent=profile.executor if profile else None,
            variant=profile.variant if profile else None,
            base_branch=base_branch,
        )
    except AnyonError:
        # One call, one outcome: a caller who is told of an error repeats it, and would find two.
        await context.services.tasks.delete(actor, view.task.id)
        raise
    return await context.services.tasks.get(actor, view.task.id)


async def _answer(context: Context, view: TaskView) -> Envelope[models.TaskWithAttemptStatus]:
    await context.boards.shown(view.task.project_id, view.task.id)
    return Envelope.of(shapes.task(view))
