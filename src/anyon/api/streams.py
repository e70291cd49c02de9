"""Routes of the streams: WebSockets that carry JSON Patch frames."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from starlette.websockets import WebSocket

from anyon.api import frames
from anyon.api.contexts import ActorOf, ContextOf
from anyon.api.sockets import carry
from anyon.domain.errors import ConflictError
from anyon.domain.ids import AttemptId, ProcessId, ProjectId
from anyon.domain.states import RunReason

router = APIRouter(prefix="/api")

Flag = Annotated[bool, Query()]


@router.websocket("/tasks/stream/ws")
async def stream_tasks(
    websocket: WebSocket, context: ContextOf, actor: ActorOf, project_id: UUID
) -> None:
    """S1: a project's tasks."""
    project = await context.services.projects.get(actor, ProjectId(str(project_id)))
    with context.boards.open(project.id) as board:
        source = frames.tasks(context, actor, project.id, board)
        await carry(websocket, context, "tasks", source)


@router.websocket("/execution-processes/stream/ws")
async def stream_processes(
    websocket: WebSocket,
    context: ContextOf,
    actor: ActorOf,
    task_attempt_id: UUID,
    show_soft_deleted: Flag = False,
) -> None:
    """S2: an attempt's processes."""
    attempt = await context.services.attempts.get(actor, AttemptId(str(task_attempt_id)))
    source = frames.processes(context, actor, attempt, with_dropped=show_soft_deleted)
    await carry(websocket, context, "processes", source)


@router.websocket("/drafts/stream/ws")
async def stream_drafts(
    websocket: WebSocket, context: ContextOf, actor: ActorOf, project_id: UUID
) -> None:
    """S3: what is typed for a project's attempts."""
    project = await context.services.projects.get(actor, ProjectId(str(project_id)))
    await carry(websocket, context, "drafts", frames.drafts(context, actor, project.id))


@router.websocket("/execution-processes/{process_id}/normalized-logs/ws")
async def stream_conversation(
    websocket: WebSocket, context: ContextOf, actor: ActorOf, process_id: UUID
) -> None:
    """S4: an agent's conversation."""
    process = await context.services.processes.get(actor, ProcessId(str(process_id)))
    if process.run_reason is not RunReason.CODINGAGENT:
        raise ConflictError(
            "this process is no agent", code="not_an_agent", hint="Read its raw log instead."
        )
    await carry(websocket, context, "conversation", frames.conversation(context, actor, process.id))


@router.websocket("/execution-processes/{process_id}/raw-logs/ws")
async def stream_raw_output(
    websocket: WebSocket, context: ContextOf, actor: ActorOf, process_id: UUID
) -> None:
    """S5: a process's output as text."""
    process = await context.services.processes.get(actor, ProcessId(str(process_id)))
    await carry(websocket, context, "output", frames.raw_output(context, actor, process.id))


@router.websocket("/task-attempts/{attempt_id}/diff/ws")
async def stream_diff(
    websocket: WebSocket,
    context: ContextOf,
    actor: ActorOf,
    attempt_id: UUID,
    stats_only: Flag = False,
) -> None:
    """S6: what an attempt changes."""
    attempt = await context.services.attempts.get(actor, AttemptId(str(attempt_id)))
    source = frames.diffs(context, actor, attempt.id, stats_only=stats_only)
    await carry(websocket, context, "diff", source)
