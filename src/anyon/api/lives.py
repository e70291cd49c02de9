"""Routes of a project's life: who holds it awake, what happened, its checkpoints."""

from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from anyon.api import shapes
from anyon.api.contexts import ActorOf, Context, ContextOf, actor_of
from anyon.domain.actors import Actor
from anyon.domain.entities import Lease
from anyon.domain.ids import LeaseId, ProjectId
from anyon.sdk import lives, models, requests
from anyon.sdk.models import Envelope
from anyon.services.holds import is_hold

router = APIRouter(prefix="/api/projects", tags=["lives"], dependencies=[Depends(actor_of)])
deleted = APIRouter(
    prefix="/api/deleted-projects", tags=["lives"], dependencies=[Depends(actor_of)]
)

movable = APIRouter(
    prefix="/api/movable-projects", tags=["lives"], dependencies=[Depends(actor_of)]
)

MAX_SEQUENCE = 2**53


@router.get("/{project_id}/awake")
async def awake(context: ContextOf, actor: ActorOf, project_id: UUID) -> Envelope[lives.Awake]:
    """Return who holds the project awake, and the next step down; wakes nothing."""
    return Envelope.of(await _awake(context, actor, project_id))


@router.post("/{project_id}/stop")
async def stop(
    context: ContextOf, actor: ActorOf, project_id: UUID, asked: requests.Stop | None = None
) -> Envelope[lives.Awake]:
    """Stop the project and return how it stands then: ``stopped``, or ``stopped_unsaved`` for now.

    Refused while something holds it awake; with *force* what runs is ended first (TERM, grace,
    KILL) and holds are released. Its next work wakes it. It goes on if the caller goes.
    """
    is_forced = asked is not None and asked.force
    await context.services.goals.stop(actor, ProjectId(str(project_id)), is_forced=is_forced)
    return Envelope.of(await _awake(context, actor, project_id))


@router.post("/{project_id}/archive")
async def archive(
    context: ContextOf, actor: ActorOf, project_id: UUID, asked: requests.Stop | None = None
) -> Envelope[lives.Awake]:
    """Stop the project and let its local files go: all of it is in the store then, and ``archived``.

    Refused as a stop is, and with ``archive_not_possible`` where no checkpoint holds all of a
    project. Where the store does not answer for now it is ``stopped_unsaved`` and goes on by itself.
    Its next work brings it back. It goes on if the caller goes.
    """
    is_forced = asked is not None and asked.force
    await context.services.goals.archive(actor, ProjectId(str(project_id)), is_forced=is_forced)
    return Envelope.of(await _awake(context, actor, project_id))


@router.post("/{project_id}/start")
async def start(context: ContextOf, actor: ActorOf, project_id: UUID) -> Envelope[lives.Awake]:
    """Wake the project; it sleeps again after its idle time. Work needs no such call: it wakes by itself."""
    await context.services.goals.start(actor, ProjectId(str(project_id)))
    return Envelope.of(await _awake(context, actor, project_id))


@router.post("/{project_id}/holds")
async def hold(
    context: ContextOf, actor: ActorOf, project_id: UUID, asked: requests.Hold
) -> Envelope[lives.Lease]:
    """Wake the project and keep it awake for a time, over restarts of the server too."""
    lease = await context.services.holds.take(
        actor,
        ProjectId(str(project_id)),
        reason=asked.reason,
        length=timedelta(minutes=asked.minutes),
    )
    return Envelope.of(_lease(lease))


@router.delete("/{project_id}/holds/{lease_id}")
async def release(
    context: ContextOf, actor: ActorOf, project_id: UUID, lease_id: UUID
) -> Envelope[None]:
    """Give a hold back before its end."""
    await context.services.holds.release(actor, ProjectId(str(project_id)), LeaseId(str(lease_id)))
    return Envelope.of(None)


@router.post("/{project_id}/move")
async def move(
    context: ContextOf, actor: ActorOf, project_id: UUID, asked: requests.Move
) -> Envelope[lives.Moved]:
    """Move the project's files to the mounted bucket, or to the local disk; it is stopped after it.

    Answered once the copy is proven and is the project. It goes on if the caller goes. A user moves
    their own projects; the server's operator everybody's.
    """
    moved = await context.services.moves.move(
        actor, ProjectId(str(project_id)), to_mount=asked.to == "mount"
    )
    return Envelope.of(
        lives.Moved(project_id=UUID(moved.project.id), state=moved.state, files=moved.files)
    )


@router.get("/{project_id}/events")
async def list_events(
    context: ContextOf,
    actor: ActorOf,
    project_id: UUID,
    after: Annotated[int, Query(ge=0, le=MAX_SEQUENCE)] = 0,
) -> Envelope[list[lives.Event]]:
    """Return what happened to the project after the event numbered *after*, oldest first."""
    found = await context.services.outlooks.events(actor, ProjectId(str(project_id)), after=after)
    return Envelope.of(
        [
            lives.Event(
                sequence=it.sequence,
                kind=it.kind,
                reason=it.reason,
                detail=it.detail,
                at=it.at,
                request_id=it.request_id,
            )
            for it in found
        ]
    )


@movable.get("")
async def list_movable(context: ContextOf, actor: ActorOf) -> Envelope[list[lives.Movable]]:
    """Return the projects that the caller may move, and where each lies: their own, or the operator's everybody's."""
    found = await context.services.moves.movable(actor)
    return Envelope.of(
        [
            lives.Movable(
                id=UUID(it.id),
                name=it.name,
                user_id=UUID(it.user_id),
                place="mount" if is_mounted else "disk",
            )
            for it, is_mounted in found
        ]
    )


@deleted.get("")
async def list_deleted(context: ContextOf, actor: ActorOf) -> Envelope[list[models.Project]]:
    """Return the caller's deleted projects that can be brought back, the last deleted first."""
    found = await context.services.deletions.list(actor)
    return Envelope.of([shapes.project(project) for project in found])


@deleted.post("/{project_id}/restore")
async def undelete(context: ContextOf, actor: ActorOf, project_id: UUID) -> Envelope[None]:
    """Make a deleted project one again; its next work brings its files back."""
    await context.services.deletions.undo(actor, ProjectId(str(project_id)))
    return Envelope.of(None)


async def _awake(context: Context, actor: Actor, project_id: UUID) -> lives.Awake:
    outlook = await context.services.outlooks.of(actor, ProjectId(str(project_id)))
    kept = context.services.checkpoints
    return lives.Awake(
        goal=outlook.project.goal,
        phase=outlook.project.phase,
        phase_since=outlook.project.phase_since,
        reason=outlook.project.state_reason,
        leases=[_lease(lease) for lease in outlook.leases],
        next_step=outlook.next_step,
        next_step_at=outlook.next_step_at,
        position=outlook.position,
        files_percent=kept.activities.wake(outlook.project.id) if kept is not None else None,
    )


def _lease(it: Lease) -> lives.Lease:
    return lives.Lease(
        id=UUID(it.id),
        is_hold=is_hold(it),
        holder=it.holder,
        reason=it.reason,
        created_at=it.created_at,
        expires_at=it.expires_at,
    )
