"""A project's files in the store: saved, and put back in place; whoever calls holds the project's lock."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime

import structlog

from anyon.clock import Clock
from anyon.db import events as event_rows
from anyon.db import projects as project_rows
from anyon.db.databases import Database
from anyon.domain.entities import Project
from anyon.domain.errors import AnyonError, ConflictError, NotFoundError
from anyon.domain.ids import ProjectId, new_id
from anyon.domain.states import Phase
from anyon.services.homes import Homes
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.folders import remove_tree
from anyon.storage.records import Checkpoint
from anyon.telemetry import Metrics

log = structlog.get_logger(__name__)


def place(project: Project) -> str:
    """Return a project's name in the store."""
    return f"{project.user_id}/{project.id}"


class Archives:
    """Saves *trees* (of ``workspace``, ``home``, ``system``) of projects, and brings them back.

    A save that has returned can be restored anywhere.
    """

    def __init__(
        self,
        *,
        checkpoints: Checkpoints,
        trees: Sequence[str],
        db: Database,
        homes: Homes,
        clock: Clock,
        metrics: Metrics | None = None,
    ) -> None:
        self._metrics = metrics or Metrics()
        self._saved_at: dict[ProjectId, datetime] = {}
        self._checkpoints = checkpoints
        self._trees = frozenset(trees)
        self._db = db
        self._homes = homes
        self._clock = clock
        self._locks: dict[ProjectId, asyncio.Lock] = {}

    def _lock(self, project: Project) -> asyncio.Lock:
        """Return the lock of a project's files: a save never sees them while they are replaced or let go."""
        return self._locks.setdefault(project.id, asyncio.Lock())

    @property
    def saved_at(self) -> Mapping[ProjectId, datetime]:
        """Of which moment the last state is that this server saved or brought back, by project."""
        return self._saved_at

    @property
    def has_everything(self) -> bool:
        """Whether a project's local files may be let go: all that makes it up is saved."""
        return self._trees >= {"workspace", "home", "system"}

    async def save(self, project: Project, *, reason: str) -> Checkpoint:
        """Return once the project's state as of now is confirmed in the store.

        ConflictError (``project_archived``) where its files are in the store only.
        """
        async with self._lock(project):
            found = await self._db.read(project_rows.find, project.id)
            if found is None or self.must_restore(found):
                raise ConflictError(
                    "the project's files are in the store only", code="project_archived"
                )
            return await self._save(found, reason)

    async def _save(self, project: Project, reason: str) -> Checkpoint:
        trees = {
            name: path
            for name, path in self._homes.trees(project).items()
            # What was installed goes with a container that somebody removed; the rest must be there.
            if name in self._trees and (name != "system" or path.is_dir())
        }
        now, began = self._clock.now(), self._clock.monotonic()
        try:
            saved = await self._checkpoints.save(place(project), trees, reason=reason)
        except AnyonError:
            self._metrics.save_failed(reason)
            raise
        self._saved_at[project.id] = now
        new_bytes = saved.checkpoint.new_bytes if saved.is_new else 0
        self._metrics.saved(reason, self._clock.monotonic() - began, new_bytes)
        if saved.is_new:
            await self._db.write(
                event_rows.add,
                project.id,
                "checkpoint.saved",
                self._clock.now(),
                reason=reason,
                detail=saved.checkpoint.id,
            )
        return saved.checkpoint

    async def list(self, project: Project) -> Sequence[Checkpoint]:
        """Return the project's checkpoints, newest first."""
        return await self._checkpoints.list(place(project))

    async def chosen(self, project: Project, checkpoint_id: str | None) -> Checkpoint:
        """Return a checkpoint (None: the last), or raise NotFoundError ``checkpoint_not_found``."""
        if checkpoint_id is not None:
            return await self._checkpoints.get(place(project), checkpoint_id)
        latest = await self._checkpoints.latest(place(project))
        if latest is None:
            raise NotFoundError("the project has no checkpoint yet", code="checkpoint_not_found")
        return latest

    def must_restore(self, project: Project) -> bool:
        """Say whether a project's files are not (all) on this machine, or were being replaced."""
        if project.phase is Phase.ARCHIVING:
            return not self._homes.are_whole(project)
        return project.phase in {Phase.ARCHIVED, Phase.RESTORING}

    @staticmethod
    def wanted(project: Project) -> str | None:
        """Return which checkpoint a restore that was cut off was bringing back; None is the last."""
        return (project.state_detail or None) if project.phase is Phase.RESTORING else None

    async def bring_back(self, project: Project, checkpoint_id: str | None) -> Checkpoint:
        """Put a checkpoint's files in the place of the project's own, whole; repeat it after a crash."""
        chosen = await self.chosen(project, checkpoint_id)
        staging = self._homes.staging(project.id, new_id())
        began = self._clock.monotonic()
        try:
            targets = {name: staging / name for name in chosen.roots}
            await self._checkpoints.restore(place(project), chosen.id, targets)
            async with self._lock(project):
                await self._homes.replace(project, targets)
                self._saved_at[project.id] = self._clock.now()
        finally:
            # A restore's own copies: none after a success, parts after a failure.
            await asyncio.to_thread(remove_tree, bytes(staging))
        self._metrics.restored(self._clock.monotonic() - began)
        log.info("project.restored", project=project.id, checkpoint=chosen.id)
        return chosen

    async def confirm(self, project: Project, *, reason: str = "archive") -> None:
        """Return once the store has all that is here; of a release that was begun, it has.

        ConflictError (``files_unreadable``) where some of it could not be read: it must stay.
        """
        if not self._homes.trees(project)["workspace"].is_dir():
            return  # it goes first, and only after this has once returned
        saved = await self.save(project, reason=reason)
        if saved.unreadable:
            raise ConflictError(
                f"{saved.unreadable} files of the project cannot be read, so they are in no checkpoint",
                code="files_unreadable",
                hint="Run the server as a user who can read them, or remove them.",
            )

    async def release(self, project: Project) -> None:
        """Let the local files go, after ``confirm``; what is left of a release is finished."""
        async with self._lock(project):
            await self._homes.release(project)
        await self._homes.empty_trash()

    async def forget(self, project: Project) -> None:
        """Remove everything of the project from the store, for good."""
        await self._checkpoints.delete(place(project))
