"""The streams' contents: a snapshot, then every change, as JSON Patch operations.

Each subscribes to the feed before it reads the snapshot, so that nothing falls between. A
notice says only "look again"; what is sent is what stands at that moment.
"""

import asyncio
import codecs
import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import structlog

from anyon.agents.agent import Patch
from anyon.api import shapes
from anyon.api.boards import Board
from anyon.api.contexts import Context
from anyon.api.sockets import Frame, Op
from anyon.domain.actors import Actor
from anyon.domain.entities import Attempt
from anyon.domain.errors import AnyonError, NotFoundError
from anyon.domain.ids import AttemptId, ProcessId, ProjectId, TaskId
from anyon.engines.engine import Channel
from anyon.git.repository import FileDiff
from anyon.processes.processes import Chunk
from anyon.services.feed import Change, Kind

log = structlog.get_logger(__name__)

DIFF_INTERVAL_SECONDS = 2.0
_QUIET_SECONDS = 600.0


async def tasks(
    context: Context, actor: Actor, project_id: ProjectId, board: Board
) -> AsyncIterator[Frame]:
    """S1: the project's tasks, and each again after any change of it or its attempts."""
    services = context.services
    owners: dict[str, TaskId] = {}
    with services.feed.subscribe(project_id) as changes:
        views = await services.tasks.list(actor, project_id)
        shown = {view.task.id: shapes.task(view).model_dump(mode="json") for view in views}
        yield [{"op": "replace", "path": "/tasks", "value": shown}]
        known = set(shown)
        for task_id in known:
            board.show(task_id)
        async for change in changes:
            if change.kind is Kind.PROJECT:
                await services.projects.get(actor, project_id)  # gone: the stream ends
                continue
            changed = await _task_of(context, actor, change, owners)
            if changed is None:
                continue
            op = await _task_op(context, actor, changed, known)
            if op is not None:
                yield [op]
            board.show(changed)


async def _task_of(
    context: Context, actor: Actor, change: Change, owners: dict[str, TaskId]
) -> TaskId | None:
    if change.kind is Kind.TASK:
        return TaskId(change.id)
    attempt_id = AttemptId(change.id) if change.kind is Kind.ATTEMPT else change.attempt_id
    if attempt_id is None:
        return None  # a command: no task's
    if attempt_id not in owners:
        try:
            attempt = await context.services.attempts.get(actor, attempt_id)
        except NotFoundError:
            return None  # deleted with its task, whose own notice comes
        owners[attempt_id] = attempt.task_id
    return owners[attempt_id]


async def _task_op(
    context: Context, actor: Actor, task_id: TaskId, known: set[TaskId]
) -> Op | None:
    path = f"/tasks/{task_id}"
    try:
        view = await context.services.tasks.get(actor, task_id)
    except NotFoundError:
        if task_id not in known:
            return None
        known.discard(task_id)
        return {"op": "remove", "path": path}
    op = "replace" if task_id in known else "add"
    known.add(task_id)
    return {"op": op, "path": path, "value": shapes.task(view).model_dump(mode="json")}


async def processes(
    context: Context, actor: Actor, attempt: Attempt, *, with_dropped: bool
) -> AsyncIterator[Frame]:
    """S2: the attempt's processes, and each again after any change."""
    services = context.services
    with services.feed.subscribe(attempt.project_id) as changes:
        found = await services.attempts.processes(actor, attempt.id)
        shown = {
            one.id: shapes.process(one).model_dump(mode="json")
            for one in found
            if with_dropped or not one.dropped
        }
        yield [{"op": "replace", "path": "/execution_processes", "value": shown}]
        known: set[str] = set(shown)
        async for change in changes:
            if change.kind is Kind.ATTEMPT and change.id == attempt.id:
                await services.attempts.get(actor, attempt.id)  # gone: the stream ends
            if change.kind is not Kind.PROCESS or change.attempt_id != attempt.id:
                continue
            op = await _process_op(context, actor, change.id, known, with_dropped=with_dropped)
            if op is not None:
                yield [op]


async def _process_op(
    context: Context, actor: Actor, process_id: str, known: set[str], *, with_dropped: bool
) -> Op | None:
    path = f"/execution_processes/{process_id}"
    try:
        process = await context.services.processes.get(actor, ProcessId(process_id))
    except NotFoundError:
        process = None
    if process is None or (process.dropped and not with_dropped):
        if process_id not in known:
            return None
        known.discard(process_id)
        return {"op": "remove", "path": path}
    op = "replace" if process_id in known else "add"
    known.add(process_id)
    return {"op": op, "path": path, "value": shapes.process(process).model_dump(mode="json")}


async def drafts(context: Context, actor: Actor, project_id: ProjectId) -> AsyncIterator[Frame]:
    """S3: what is typed, with an entry for every attempt of the project."""
    services = context.services
    with services.feed.subscribe(project_id) as changes:
        attempts = await services.attempts.list_of_project(actor, project_id)
        shown = {attempt.id: _drafts_of(context, attempt.id) for attempt in attempts}
        yield [{"op": "replace", "path": "/drafts", "value": shown}]
        last: dict[str, bytes] = {key: _digest(value) for key, value in shown.items()}
        async for change in changes:
            if change.kind is Kind.PROJECT:
                await services.projects.get(actor, project_id)  # gone: the stream ends
            if change.kind is not Kind.ATTEMPT:
                continue
            value = _drafts_of(context, AttemptId(change.id))
            is_new = change.id not in last
            if not is_new and last[change.id] == _digest(value):
                continue
            last[change.id] = _digest(value)
            path = f"/drafts/{change.id}"
            if is_new:
                yield [{"op": "add", "path": path, "value": value}]
            else:
                yield [
                    {"op": "replace", "path": f"{path}/{kind}", "value": one}
                    for kind, one in value.items()
                ]


def _drafts_of(context: Context, attempt_id: AttemptId) -> dict[str, Any]:
    retry = context.drafts.get(attempt_id, "retry")
    return {
        "follow_up": shapes.streamed_draft(context.drafts.get(attempt_id, "follow_up")),
        "retry": shapes.streamed_draft(retry) if retry.version else None,
    }


def _digest(value: dict[str, Any]) -> bytes:
    text = json.dumps(
        {
            key: {k: v for k, v in one.items() if not k.endswith("_at")} if one else None
            for key, one in value.items()
        }
    )
    return hashlib.sha256(text.encode()).digest()


async def conversation(
    context: Context, actor: Actor, process_id: ProcessId
) -> AsyncIterator[Frame]:
    """S4: an agent's conversation from its beginning, and the end after its exit.

    The end is sent after an error too: a client waits for nothing else.
    """
    length = 0
    try:
        async for patches in context.services.processes.conversation(actor, process_id):
            length = max([length, *(one.index + 1 for one in patches)])
            for frame in shapes.frames_of(patches):
                yield frame
    except AnyonError as error:
        log.warning("conversation.failed", process=process_id, code=error.code, detail=str(error))
        entry_type = {"type": "error_message", "error_type": {"type": "other"}}
        entry = {"timestamp": None, "entry_type": entry_type, "content": error.message}
        yield [shapes.patch(Patch(index=length, entry={**entry, "metadata": None}, is_new=True))]
    yield None


async def raw_output(context: Context, actor: Actor, process_id: ProcessId) -> AsyncIterator[Frame]:
    """S5: both outputs as text from the beginning, and the end after the exit.

    UTF-8 is decoded as it comes: a character that is cut between two pieces stays whole.
    """
    decoders = {
        channel: codecs.getincrementaldecoder("utf-8")(errors="replace") for channel in Channel
    }
    index = 0
    try:
        async for chunk in context.services.processes.follow(actor, process_id):
            text = _decoded(decoders[chunk.channel], chunk)
            if text:
                yield [_raw(index, chunk.channel, text)]
                index += 1
    except AnyonError as error:  # as in a conversation, the end is sent nevertheless
        log.warning("output.failed", process=process_id, code=error.code, detail=str(error))
        yield [_raw(index, Channel.STDERR, f"{error.message}\n")]
        index += 1
    for channel, decoder in decoders.items():
        if rest := decoder.decode(b"", final=True):
            yield [_raw(index, channel, rest)]
            index += 1
    yield None


def _decoded(decoder: codecs.IncrementalDecoder, chunk: Chunk) -> str:
    gap = ""
    if chunk.dropped_bytes:
        gap = decoder.decode(b"", final=True) + f"\n… {chunk.dropped_bytes} bytes dropped …\n"
        decoder.reset()
    return gap + decoder.decode(chunk.data)


def _raw(index: int, channel: Channel, text: str) -> Op:
    value = {"type": channel.value.upper(), "content": text}
    return {"op": "add", "path": f"/entries/{index}", "value": value}


async def diffs(
    context: Context, actor: Actor, attempt_id: AttemptId, *, stats_only: bool
) -> AsyncIterator[Frame]:
    """S6: one entry per changed file, again when it changes; the end once the work is merged.

    While something runs the worktree is looked at every two seconds; else only after a notice.
    """
    services = context.services
    attempt = await services.attempts.get(actor, attempt_id)
    seen: dict[str, bytes] = {}
    with services.feed.subscribe(attempt.project_id) as changes:
        while True:
            attempt = await services.attempts.get(actor, attempt_id)
            is_active = await _is_active(context, actor, attempt)
            found = await services.attempts.diff(actor, attempt_id, with_contents=not stats_only)
            for frame in diff_frames(found, seen, stats_only=stats_only):
                yield frame
            if not is_active and attempt.merge_commit is not None:
                yield None
                return
            quiet = DIFF_INTERVAL_SECONDS if is_active else _QUIET_SECONDS
            try:
                async with asyncio.timeout(quiet):
                    while (await anext(changes)).attempt_id != attempt_id:
                        pass
            except TimeoutError:
                continue
            except StopAsyncIteration:
                return  # the server closes


async def _is_active(context: Context, actor: Actor, attempt: Attempt) -> bool:
    view = await context.services.tasks.get(actor, attempt.task_id)
    return view.has_in_progress_attempt


def diff_frames(
    found: Sequence[FileDiff], seen: dict[str, bytes], *, stats_only: bool
) -> Sequence[list[Op]]:
    """Return what brings a client from *seen* (path to digest, changed in place) to *found*."""
    frames: list[list[Op]] = []
    now: set[str] = set()
    for one in found:
        path = one.new_path or one.old_path or ""
        value = shapes.diff(one, stats_only=stats_only).model_dump(mode="json", by_alias=True)
        digest = hashlib.sha256(json.dumps(value).encode()).digest()
        now.add(path)
        if seen.get(path) != digest:
            seen[path] = digest
            entry = {"type": "DIFF", "content": value}
            place = f"/entries/{shapes.pointer(path)}"
            frames.append([{"op": "add", "path": place, "value": entry}])
    for path in sorted(set(seen) - now):
        del seen[path]
        frames.append([{"op": "remove", "path": f"/entries/{shapes.pointer(path)}"}])
    return frames
