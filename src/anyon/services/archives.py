"""A project's files in the store: saved, and put back in place; whoever calls holds the project's lock."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timedelta
from functools import partial

import structlog
from sqlalchemy import Connection

from anyon.clock import Clock
from anyon.db import copies
from anyon.db import events as event_rows
from anyon.db import projects as project_rows
from anyon.db.databases import Database
from anyon.domain.entities import Project
from anyon.domain.errors import AnyonError, ConflictError, NotFoundError
from anyon.domain.ids import ProjectId, new_id
from anyon.domain.mounts import MountState
from anyon.domain.states import Phase
from anyon.engines.pauses import PauseFailedError
from anyon.failpoints import reached
from anyon.locks import Locks
from anyon.services.homes import Homes
from anyon.services.installations import SYSTEM, Installations, note_left_out
from anyon.services.progresses import Progresses
from anyon.services.standings import class_now
from anyon.services.trees import explained
from anyon.storage.archives import OwnershipLostError
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.folders import remove_tree
from anyon.storage.owners import Claim, OwnedElsewhereError, TakeOver
from anyon.storage.records import Checkpoint, Root
from anyon.storage.restores import Progress as Restoring
from anyon.storage.saves import Progress, Saved
from anyon.storage.stillness import Stillness
from anyon.telemetry import Metrics

log = structlog.get_logger(__name__)

CLAIM_LENGTH = timedelta(minutes=10)
"""How long a server that saves nothing more keeps its projects from being taken over unasked."""
OWNED_ELSEWHERE = "owned_elsewhere"
FORKING = "forking"
"""Why a project that is a fork is CREATING: its beginning is being written in the store."""
Pause = Callable[[ProjectId], AbstractAsyncContextManager[Stillness | None]]


def place(project: Project) -> str:
    """Return a project's name in the store."""
    return f"{project.user_id}/{project.id}"


class Archives:
    """Saves *trees* (of ``workspace``, ``home``, ``system``) of projects, and brings them back.

    A save that has returned can be restored anywhere. *pause* makes a context in which nothing of
    a project runs, so that a save is of one instant. Without *installations* ``system`` is neither
    saved nor brought back.
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
        pause: Pause | None = None,
        installations: Installations | None = None,
    ) -> None:
        self._installations = installations
        self._metrics = metrics or Metrics()
        self._saved_at: dict[ProjectId, datetime] = {}
        self._saved_steady: dict[ProjectId, float] = {}
        self._checkpoints = checkpoints
        self._trees = frozenset(trees)
        self._db = db
        self._homes = homes
        self._clock = clock
        self.progresses = Progresses(db, clock)
        self._pause = pause
        self._claims: dict[ProjectId, Claim] = {}
        self._locks = Locks[ProjectId]()

    def files(self, project: Project) -> asyncio.Lock:
        """Return the lock of a project's files: a save never sees them while they are replaced or let go."""
        return self._locks.of(project.id)

    @property
    def saved_at(self) -> Mapping[ProjectId, datetime]:
        """Of which moment the last state is that this server saved or brought back, by project."""
        return self._saved_at

    @property
    def saved_steady(self) -> Mapping[ProjectId, float]:
        """When this server's last save that succeeded began, by the steady clock, by project."""
        return self._saved_steady

    @property
    def has_everything(self) -> bool:
        """Whether a project's local files may be let go: all that makes it up is saved."""
        return self._trees >= {"workspace", "home", "system"}

    async def save(self, project: Project, *, reason: str) -> Checkpoint:
        """Return once the project's state as of now is confirmed in the store.

        ConflictError (``project_archived``) where its files are in the store only.
        """
        await self._homes.require(project)
        async with self.files(project):
            found = await self._db.read(project_rows.find, project.id)
            if found is None or self.must_restore(found) or _is_going(found, reason):
                raise ConflictError(
                    "the project's files are in the store only", code="project_archived"
                )
            return await self._save(found, reason)

    async def _save(self, project: Project, reason: str) -> Checkpoint:
        now, began = self._clock.now(), self._clock.monotonic()
        kind = await self._db.read(class_now, project, now)
        try:
            epoch = await self.claimed(project)
            async with self.progresses.telling(project.id, reason) as progress:
                saved = await self._written(project, reason, epoch, progress)
        except AnyonError as error:
            self._metrics.checkpoints.save_failed(reason, kind)
            if error.code == OwnershipLostError.default_code:
                raise await self._lost(project, error) from error
            raise
        self._saved_at[project.id] = now
        self._metrics.checkpoints.paused(reason, saved.pause_seconds, saved.look)
        self._saved_steady[project.id] = began
        new_bytes = saved.checkpoint.new_bytes if saved.is_new else 0
        self._metrics.checkpoints.saved(reason, kind, self._clock.monotonic() - began, new_bytes)
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

    async def _written(
        self, project: Project, reason: str, epoch: int, progress: Callable[[Progress], None]
    ) -> Saved:
        # Before the files: what is recorded while they are read has its files in the next one.
        records = await self._db.read(copies.of_project, project.id)
        trees = self._homes.trees(project)
        trees = {name: trees[name] for name in self._trees - {SYSTEM}}
        bases, check = {}, None
        if self._installations is not None:
            installed = await self._installations.tree(project)
            if installed is not None:
                trees[SYSTEM], bases[SYSTEM] = installed.path, installed.base
                check = partial(self._installations.check, project, installed)
        save = partial(
            self._checkpoints.save,
            place(project),
            trees,
            bases=bases,
            check=check,
            reason=reason,
            epoch=epoch,
            records=records,
            progress=progress,
        )
        freeze = None if self._pause is None else partial(self._pause, project.id)
        try:
            return await save(freeze=freeze)
        except PauseFailedError as error:
            # Each file is whole then, but not all of one instant: better than no checkpoint.
            log.warning("project.saved_unfrozen", project=project.id, code=error.code)
            return await save()

    async def keep(self, project: Project) -> None:
        """Find out whether the project is this server's still; if not, that is recorded.

        A store that does not answer is no reason to stop: the next save asks again.
        """
        try:
            await self.claimed(project)
        except AnyonError as error:
            log.warning("project.claim_failed", project=project.id, code=error.code)

    async def claimed(self, project: Project, take_over: TakeOver = TakeOver.NEVER) -> int:
        """Return this server's epoch for the project; ConflictError (``owned_elsewhere``).

        Where there are files of it here, what another server was the last to have is never taken,
        however long that is silent: its state is the newer one.
        """
        held = self._claims.get(project.id)
        if held is None or held.until - self._clock.now() < CLAIM_LENGTH / 2:
            try:
                held = await self._checkpoints.claim(
                    place(project), length=CLAIM_LENGTH, take_over=take_over
                )
            except (OwnedElsewhereError, OwnershipLostError) as error:
                raise await self._lost(project, error) from error
            self._claims[project.id] = held
        return held.epoch

    async def _lost(self, project: Project, error: AnyonError) -> ConflictError:
        """Record that the project is another server's now; nothing is done with it here any more."""
        self._claims.pop(project.id, None)
        log.error("project.lost", project=project.id, error=error.message)
        await self._db.write(_note_loss, project.id, self._clock.now(), error.message)
        return owned_elsewhere()

    @property
    def checkpoints(self) -> Checkpoints:
        """The store's side of it; a project's name there is its ``place``."""
        return self._checkpoints

    async def chosen(self, project: Project, checkpoint_id: str | None) -> Checkpoint:
        """Return a checkpoint (None: the last), or raise NotFoundError ``checkpoint_not_found``."""
        if checkpoint_id is not None:
            return await self._checkpoints.get(place(project), checkpoint_id)
        latest = await self._checkpoints.latest(place(project))
        if latest is None:
            raise NotFoundError("the project has no checkpoint yet", code="checkpoint_not_found")
        return latest

    def must_restore(self, project: Project) -> bool:
        """Say whether a project's files are not (all) on this machine, or were being replaced.

        Also where its workspace is gone, or never was on this machine: an empty one in its place
        would be saved as the project's state.
        """
        if (
            self._homes.is_mounted(project)
            and self._homes.bucket.last.state is not MountState.ALIVE
        ):
            return False  # what is not seen now is not gone
        if project.phase is Phase.ARCHIVING:
            return not self._homes.are_whole(project)
        if project.phase is Phase.CREATING:
            return False
        is_away = project.phase in {Phase.ARCHIVED, Phase.RESTORING}
        return is_away or not self._homes.trees(project)["workspace"].is_dir()

    @staticmethod
    def wanted(project: Project) -> str | None:
        """Return which checkpoint a restore that was cut off was bringing back; None is the last."""
        return (project.state_detail or None) if project.phase is Phase.RESTORING else None

    async def bring_back(
        self,
        project: Project,
        checkpoint_id: str | None,
        *,
        reason: str = "wake",
        progress: Restoring | None = None,
    ) -> Checkpoint:
        """Put a checkpoint's files in the place of the project's own, whole; repeat it after a crash."""
        await self._homes.require(project)
        # With nothing of it here there is nothing to write over a newer state with.
        here = [name for name, path in self._homes.trees(project).items() if path.exists()]
        take_over = TakeOver.NEVER if "workspace" in here else TakeOver.EXPIRED
        with self._metrics.checkpoints.choosing(reason):
            await self.claimed(project, take_over)
            chosen = await self.chosen(project, checkpoint_id)
        staging = self._homes.staging(project.id, new_id())
        began = self._clock.monotonic()
        installed = chosen.roots.get(SYSTEM)
        if installed is not None and not self._accepts(installed):
            installed = None
            await self._db.write(note_left_out, project.id, self._clock.now(), chosen)
        try:
            names = [n for n in chosen.roots if n != SYSTEM or installed is not None]
            targets = {name: staging / name for name in names}
            try:
                restored = await self._checkpoints.restore(
                    place(project), chosen.id, targets, progress=progress
                )
            except OSError as error:
                raise explained(error, "bringing the files back") from error
            reached("restore.staged")
            for note in restored.notes:
                log.warning("project.restored_in_part", project=project.id, note=note)
            async with self.files(project):
                await self._homes.replace(project, targets)
                if self._installations is not None:
                    await self._installations.put(project, chosen.id, installed)
                self._saved_at[project.id] = self._clock.now()
        except BaseException:
            self._metrics.checkpoints.restore_failed(reason)
            raise
        finally:
            # A restore's own copies: none after a success, parts after a failure.
            await asyncio.to_thread(remove_tree, bytes(staging))
        self._metrics.checkpoints.restored(reason, self._clock.monotonic() - began)
        if here:  # they are in the trash now, which nobody else may come to empty for long
            await self._homes.empty_trash()
        log.info("project.restored", project=project.id, checkpoint=chosen.id)
        return chosen

    @property
    def has_own_system(self) -> bool:
        """Whether what is installed lies in a directory of the project's own state."""
        return self._installations is not None and not self._installations.are_in_containers

    def _accepts(self, root: Root) -> bool:
        return self._installations is not None and self._installations.accepts(root)

    async def settle(
        self, project: Project, *, is_there: bool, ensure: Callable[[], Awaitable[object]]
    ) -> None:
        """See to it that the container, made by *ensure* if need be, has what was installed in it.

        *is_there* says whether there is one now. UnavailableError where that is in a store that
        does not answer: a container without it would be saved as the project's state.
        """
        installations = self._installations
        if installations is None or not installations.must_settle(project, is_there=is_there):
            return
        # What the store has may be another server's by now: that is no part of this one's state.
        await self.claimed(project)
        async with self.files(project):
            await installations.settle(project, ensure)

    @asynccontextmanager
    async def still(self, project: Project) -> AsyncIterator[None]:
        """Keep saves out of the block, in which what they read may be removed."""
        async with self.files(project):
            yield

    async def confirm(self, project: Project, *, reason: str = "archive") -> None:
        """Return once the store has all that is here; of a release that was begun, it has.

        ConflictError (``files_unreadable``) where some of it could not be read: it must stay.
        """
        await self._homes.require(project)
        if not self._homes.trees(project)["workspace"].is_dir():
            return  # it goes first, and only after this has once returned
        if project.phase is Phase.ARCHIVING and self.must_restore(project):
            return  # so is that recorded; the container went, and what was installed in it
        saved = await self.save(project, reason=reason)
        if saved.unreadable:
            raise ConflictError(
                f"{saved.unreadable} files of the project cannot be read, so they are in no checkpoint",
                code="files_unreadable",
                hint="Run the server as a user who can read them, or remove them.",
            )

    async def release(self, project: Project) -> None:
        """Let the local files go, after ``confirm``; what is left of a release is finished."""
        await self._homes.require(project)
        async with self.files(project):
            await self._homes.release(project)
        await self._homes.empty_trash()

    async def forget(self, project: Project) -> None:
        """Remove everything of the project from the store, for good; not if another server has it."""
        await self.claimed(project)
        await self._checkpoints.delete(place(project))
        for known in (self._claims, self._saved_at, self._saved_steady):
            known.pop(project.id, None)


def _is_going(project: Project, reason: str) -> bool:
    """Say whether the project's files are on their way out: only who takes them away still saves."""
    is_deleted = project.deleted_at is not None
    return (is_deleted and reason != "delete") or (
        project.phase is Phase.ARCHIVING and reason != "archive"
    )


def owned_elsewhere() -> ConflictError:
    """Return the error for work on a project that another server has taken over."""
    return ConflictError(
        "another server has taken this project over",
        code=OWNED_ELSEWHERE,
        hint="Work with that server. This one's files of it are left as they are.",
    )


def is_lost(project: Project) -> bool:
    """Say whether another server has taken the project over: then nothing is done with it here."""
    return project.phase is Phase.ERROR and project.state_reason == OWNED_ELSEWHERE


def _note_loss(connection: Connection, project_id: ProjectId, now: datetime, detail: str) -> None:
    found = project_rows.find(connection, project_id)
    if found is None or found.deleted_at is not None or is_lost(found):
        return
    reason = OWNED_ELSEWHERE
    project_rows.set_phase(connection, project_id, Phase.ERROR, now, reason=reason, detail=detail)
    event_rows.add(connection, project_id, "project.lost", now, reason=reason, detail=detail)
