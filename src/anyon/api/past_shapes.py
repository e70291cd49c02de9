"""From what is kept of projects' pasts to what the wire shows; pure."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from anyon.domain import entities, paths
from anyon.sdk import checkpoints as wire
from anyon.sdk import lives
from anyon.services.activities import Activity
from anyon.services.upkeep import Audit, Drill, Standing
from anyon.storage.collection import Collected
from anyon.storage.readings import Difference
from anyon.storage.records import Checkpoint
from anyon.storage.saves import Progress
from anyon.storage.trees import Entry
from anyon.storage.verifying import Damage, Verified

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def checkpoint(it: Checkpoint) -> lives.Checkpoint:
    """Show a checkpoint in a list."""
    return lives.Checkpoint(
        id=it.id,
        at=it.at,
        reason=it.reason,
        files=it.files,
        size_bytes=it.size_bytes,
        new_bytes=it.new_bytes,
        unreadable=it.unreadable,
        unstable=it.unstable,
        look=it.look,
        trees=sorted(it.roots),
    )


def checkpoint_detail(it: Checkpoint) -> wire.CheckpointDetail:
    """Show all of a checkpoint's record."""
    return wire.CheckpointDetail(
        **checkpoint(it).model_dump(),
        parent=it.parent,
        epoch=it.epoch,
        packs=len(it.packs),
        stored_bytes=sum(it.packs.values()),
        borrowed_packs=len(it.borrowed),
        tool=it.tool,
    )


def entry(path: bytes, it: Entry) -> wire.Entry:
    """Show what is at a path; a time that no calendar has is left out."""
    try:
        modified_at = _EPOCH + timedelta(microseconds=it.mtime_ns // 1000)
    except OverflowError:
        modified_at = None
    return wire.Entry(
        name=paths.shown(path.rpartition(b"/")[2]),
        path=paths.shown(path),
        kind=it.kind,
        size_bytes=it.size,
        mode=it.mode,
        modified_at=modified_at,
        target=paths.shown(it.target),
        what=it.what,
    )


def change(it: Difference) -> wire.Change:
    """Show a path that differs."""
    what = "added" if it.before is None else "removed" if it.after is None else "changed"
    return wire.Change(
        path=paths.shown(it.path),
        change=what,
        before=None if it.before is None else entry(it.path, it.before),
        after=None if it.after is None else entry(it.path, it.after),
    )


def verified(it: Verified) -> lives.Verified:
    """Show what a verification of one checkpoint saw."""
    offers = [
        f"{paths.shown(one.path)} is whole in {one.intact_id} of {one.intact_at:%Y-%m-%d %H:%M:%S}"
        for one in it.damaged
        if one.intact_id is not None and one.intact_at is not None
    ]
    return lives.Verified(files=it.files, packs=it.packs, problems=list(it.problems), offers=offers)


def audited(project: entities.Project, it: Audit) -> wire.Audited:
    """Show what a verification of all checkpoints saw."""
    return wire.Audited(
        project_id=UUID(project.id),
        project=project.name,
        checkpoints=it.checkpoints,
        files=it.files,
        packs=it.packs,
        problems=list(it.problems),
        damaged=[
            _damage(checkpoint_id, one)
            for checkpoint_id, some in it.damaged.items()
            for one in some
        ],
    )


def _damage(checkpoint_id: str, it: Damage) -> wire.Damage:
    return wire.Damage(
        checkpoint=checkpoint_id,
        path=paths.shown(it.path),
        intact=it.intact_id,
        intact_at=it.intact_at,
    )


def standing(it: Standing) -> wire.Standing:
    """Show how a project stands in the store."""
    usage = it.usage
    return wire.Standing(
        project_id=UUID(it.project.id),
        project=it.project.name,
        checkpoints=usage.checkpoints,
        oldest_at=usage.oldest_at,
        latest_at=usage.latest_at,
        packs=usage.packs,
        stored_bytes=usage.stored_bytes,
        lent_bytes=usage.lent_bytes,
        borrowed_bytes=usage.borrowed_bytes,
        size_bytes=usage.size_bytes,
        proven_at=it.proven_at,
        collected_at=it.collected_at,
    )


def collected(project: entities.Project, it: Collected) -> wire.Collected:
    """Show what a collection removed."""
    return wire.Collected(
        project_id=UUID(project.id),
        project=project.name,
        checkpoints=it.checkpoints,
        packs=it.packs,
        bytes=it.bytes,
    )


def drilled(it: Drill) -> wire.Drilled:
    """Show how a restore drill ended."""
    return wire.Drilled(
        project_id=UUID(it.project.id),
        project=it.project.name,
        checkpoint=None if it.checkpoint is None else it.checkpoint.id,
        at=it.at,
        proven=it.is_proven,
        files=it.files,
        bytes=it.size_bytes,
        seconds=round(it.seconds, 3),
        problems=list(it.problems),
        skipped=it.skipped,
    )


def activity(it: Activity, saving: Progress | None = None) -> wire.Activity:
    """Show what goes on; a save tells of itself how far it is."""
    if it.what != "save":
        saving = None
    return wire.Activity(
        what=it.what,
        started_at=it.started_at,
        done_bytes=it.done_bytes if saving is None else saving.read_bytes,
        total_bytes=it.total_bytes if saving is None else saving.total_bytes,
    )
