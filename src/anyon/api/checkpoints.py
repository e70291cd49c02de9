"""Routes of a project's checkpoints: taken, looked into, downloaded, brought back, forked."""

import re
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Path, Query
from fastapi.responses import Response, StreamingResponse

from anyon.api import past_shapes, shapes
from anyon.api.contexts import ActorOf, Context, ContextOf, actor_of
from anyon.api.envelopes import ERRORS, error_of
from anyon.domain import paths
from anyon.domain.errors import InvalidInputError, MissingError
from anyon.domain.ids import AttemptId, ProjectId
from anyon.sdk import checkpoints as wire
from anyon.sdk import lives, models, requests
from anyon.sdk.models import Envelope
from anyon.services.checkpoints import ProjectCheckpoints
from anyon.storage.browsing import Download, RangeError

router = APIRouter(
    prefix="/api/projects/{project_id}/checkpoints",
    tags=["checkpoints"],
    dependencies=[Depends(actor_of)],
)

CheckpointId = Annotated[str, Path(pattern=r"^[0-9A-Za-z_.-]{1,80}$")]
Since = Annotated[
    str | None,
    Query(pattern=r"^[0-9A-Za-z_.-]{1,80}$", description="None is the checkpoint before."),
]
PathText = Annotated[
    str,
    Query(
        max_length=5_000,  # of which each may take 12 bytes: a request's head holds 64 KiB
        description="`<tree>/<path>`; bytes that are no printable text, and %, are %XX in it.",
    ),
]
Offset = Annotated[int, Query(ge=0, le=2**53)]
Limit = Annotated[int, Query(ge=1, le=10_000)]
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


@router.get("")
async def list_checkpoints(
    context: ContextOf,
    actor: ActorOf,
    project_id: UUID,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Envelope[list[lives.Checkpoint]]:
    """Return the project's checkpoints, newest first; wakes nothing."""
    use = checkpoints_of(context)
    found = await use.history.list(actor, ProjectId(str(project_id)), limit=limit)
    return Envelope.of([past_shapes.checkpoint(checkpoint) for checkpoint in found])


@router.post("")
async def save(context: ContextOf, actor: ActorOf, project_id: UUID) -> Envelope[lives.Checkpoint]:
    """Save the project now; the answer comes once that is confirmed in the store."""
    taken = await checkpoints_of(context).take(actor, ProjectId(str(project_id)))
    return Envelope.of(past_shapes.checkpoint(taken))


@router.get("/{checkpoint_id}")
async def get_checkpoint(
    context: ContextOf, actor: ActorOf, project_id: UUID, checkpoint_id: CheckpointId
) -> Envelope[wire.CheckpointDetail]:
    """Return one checkpoint; wakes nothing."""
    use = checkpoints_of(context)
    found = await use.history.get(actor, ProjectId(str(project_id)), checkpoint_id)
    return Envelope.of(past_shapes.checkpoint_detail(found))


@router.get("/{checkpoint_id}/entry")
async def get_entry(
    context: ContextOf,
    actor: ActorOf,
    project_id: UUID,
    checkpoint_id: CheckpointId,
    *,
    path: PathText = "",
) -> Envelope[wire.Entry]:
    """Return what is at a path of a checkpoint; wakes nothing."""
    use, where = checkpoints_of(context), ProjectId(str(project_id))
    await use.upkeep.find(actor, where)  # what is another's is not there, whatever the path
    at = paths.parsed(path)
    found = await use.history.entry(actor, where, checkpoint_id, at)
    return Envelope.of(past_shapes.entry(at, found))


@router.get("/{checkpoint_id}/entries")
async def browse(
    context: ContextOf,
    actor: ActorOf,
    project_id: UUID,
    checkpoint_id: CheckpointId,
    *,
    path: PathText = "",
    offset: Offset = 0,
    limit: Limit = 1000,
) -> Envelope[wire.Listing]:
    """Return what a directory of a checkpoint holds, by name; an empty path is the trees. Wakes nothing."""
    use, where = checkpoints_of(context), ProjectId(str(project_id))
    await use.upkeep.find(actor, where)
    at = paths.parsed(path)
    found = await use.history.listing(actor, where, checkpoint_id, at, offset=offset, limit=limit)
    prefix = at + b"/" if at else b""
    return Envelope.of(
        wire.Listing(
            path=paths.shown(at),
            offset=offset,
            total=found.total,
            entries=[past_shapes.entry(prefix + one.name, one) for one in found.entries],
        )
    )


@router.get("/{checkpoint_id}/changes")
async def list_changes(
    context: ContextOf,
    actor: ActorOf,
    project_id: UUID,
    checkpoint_id: CheckpointId,
    *,
    since: Since = None,
    offset: Offset = 0,
    limit: Limit = 1000,
) -> Envelope[wire.Changes]:
    """Return what was added, changed and removed since another checkpoint, by path; wakes nothing."""
    found = await checkpoints_of(context).history.changes(
        actor, ProjectId(str(project_id)), since, checkpoint_id, offset=offset, limit=limit
    )
    rows = [past_shapes.change(row) for row in found.rows]
    return Envelope.of(wire.Changes(offset=offset, has_more=found.has_more, changes=rows))


@router.get("/{checkpoint_id}/changes/text")
async def get_text_change(
    context: ContextOf,
    actor: ActorOf,
    project_id: UUID,
    checkpoint_id: CheckpointId,
    *,
    path: PathText = "",
    since: Since = None,
) -> Envelope[wire.TextChange]:
    """Return how one file changed since another checkpoint, as a unified diff; wakes nothing."""
    use, where = checkpoints_of(context), ProjectId(str(project_id))
    await use.upkeep.find(actor, where)
    at = paths.parsed(path)
    found = await use.history.text_difference(actor, where, since, checkpoint_id, at)
    return Envelope.of(
        wire.TextChange(
            path=paths.shown(at),
            text=found.text,
            is_binary=found.is_binary,
            is_too_large=found.is_too_large,
        )
    )


def _bytes_of(media: str, *, in_part: bool) -> dict[int | str, dict[str, Any]]:
    found: dict[int | str, dict[str, Any]] = {**ERRORS}
    schema = {"schema": {"type": "string", "format": "binary"}}
    found[200] = {"content": {media: schema}, "description": "The bytes."}
    if in_part:
        found[206] = {"content": {media: schema}, "description": "A part of them."}
    return found


_FILE = "application/octet-stream"
_TAR = "application/x-tar"


@router.get(
    "/{checkpoint_id}/file",
    response_class=StreamingResponse,
    responses=_bytes_of(_FILE, in_part=True),
)
async def read_file(
    context: ContextOf,
    actor: ActorOf,
    project_id: UUID,
    checkpoint_id: CheckpointId,
    *,
    path: PathText = "",
    part: Annotated[str | None, Header(alias="Range", max_length=200)] = None,
    if_range: Annotated[str | None, Header(max_length=200)] = None,
) -> Response:
    """Send a file of a checkpoint, or the one part that ``Range`` names; wakes nothing.

    ``ETag`` names the content: with it in ``If-Range`` a download goes on only where it is the same.
    """
    use, where = checkpoints_of(context), ProjectId(str(project_id))
    await use.upkeep.find(actor, where)
    at = paths.parsed(path)
    start, end = _asked(part)
    try:
        found = await use.history.file(actor, where, checkpoint_id, at, start=start, end=end)
    except RangeError as error:
        refused = error_of(error)
        refused.headers["Content-Range"] = f"bytes */{error.size_bytes}"
        return refused
    is_part = start is not None or end is not None
    if is_part and if_range is not None and if_range != f'"{found.mark}"':
        found = await use.history.file(actor, where, checkpoint_id, at)
        is_part = False
    headers = _headers(found) | {
        "Accept-Ranges": "bytes",
        "Content-Length": str(found.end - found.start),
        "ETag": f'"{found.mark}"',
    }
    if is_part:
        headers["Content-Range"] = f"bytes {found.start}-{found.end - 1}/{found.size_bytes}"
    return StreamingResponse(
        found.pieces, 206 if is_part else 200, media_type=_FILE, headers=headers
    )


@router.get(
    "/{checkpoint_id}/archive",
    response_class=StreamingResponse,
    responses=_bytes_of(_TAR, in_part=False),
)
async def read_archive(
    context: ContextOf,
    actor: ActorOf,
    project_id: UUID,
    checkpoint_id: CheckpointId,
    *,
    path: PathText = "",
) -> StreamingResponse:
    """Send a directory or file of a checkpoint (an empty path: everything) as a tar archive; wakes nothing."""
    use, where = checkpoints_of(context), ProjectId(str(project_id))
    await use.upkeep.find(actor, where)
    found = await use.history.archive(actor, where, checkpoint_id, paths.parsed(path))
    return StreamingResponse(found.pieces, media_type=_TAR, headers=_headers(found))


@router.post("/{checkpoint_id}/restore")
async def restore(
    context: ContextOf,
    actor: ActorOf,
    project_id: UUID,
    checkpoint_id: CheckpointId,
    asked: requests.Restore | None = None,
) -> Envelope[lives.Checkpoint]:
    """Go back to a checkpoint, or to one path or worktree of it; what is there is saved first.

    409 while something runs, unless it is forced.
    """
    asked = asked or requests.Restore()
    use, where = checkpoints_of(context).restores, ProjectId(str(project_id))
    await checkpoints_of(context).upkeep.find(actor, where)
    if asked.path is not None and asked.attempt_id is not None:
        raise InvalidInputError("give a path or an attempt, not both", code="two_targets")
    if asked.attempt_id is not None:
        attempt = AttemptId(str(asked.attempt_id))
        found = await use.worktree(actor, where, checkpoint_id, attempt, is_forced=asked.force)
    elif asked.path is not None:
        path = paths.parsed(asked.path)
        found = await use.path(actor, where, checkpoint_id, path, is_forced=asked.force)
    else:
        found = await use.all_of(actor, where, checkpoint_id, is_forced=asked.force)
    return Envelope.of(past_shapes.checkpoint(found))


@router.post("/{checkpoint_id}/fork")
async def fork(
    context: ContextOf,
    actor: ActorOf,
    project_id: UUID,
    checkpoint_id: CheckpointId,
    asked: requests.Fork,
) -> Envelope[models.Project]:
    """Make a new project that begins with a checkpoint; nothing is copied, its first work brings the files."""
    made = await checkpoints_of(context).forks.make(
        actor, ProjectId(str(project_id)), checkpoint_id, asked.name
    )
    return Envelope.of(shapes.project(made))


@router.post("/{checkpoint_id}/verify")
async def verify(
    context: ContextOf,
    actor: ActorOf,
    project_id: UUID,
    checkpoint_id: CheckpointId,
    read_data: bool = False,
) -> Envelope[lives.Verified]:
    """Check a checkpoint where it lies: its structure, or every byte of it; wakes nothing."""
    seen = await checkpoints_of(context).verify(
        actor, ProjectId(str(project_id)), checkpoint_id, read_data=read_data
    )
    return Envelope.of(past_shapes.verified(seen))


def checkpoints_of(context: Context) -> ProjectCheckpoints:
    """Return the use cases; MissingError (``no_store``) where the server keeps none."""
    found = context.services.checkpoints
    if found is None:
        raise MissingError(
            "this server keeps no checkpoints",
            code="no_store",
            hint="Set ANYON_STORE to a directory or a bucket.",
        )
    return found


def _asked(header: str | None) -> tuple[int | None, int | None]:
    """Return the part that a Range header asks for; what is not understood is as if not said."""
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or match.groups() == ("", ""):
        return None, None
    first, last = match.groups()
    if not first:
        return None, int(last)
    if last and int(last) < int(first):
        return None, None
    return int(first), int(last) + 1 if last else None


def _headers(found: Download) -> dict[str, str]:
    # A file of a project must not act as a page of this server, whatever is in it.
    return {
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(found.name, safe='')}",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, no-store",
    }
