"""Going back: a whole project, one of its trees, or one path; what is there now is saved first."""

import asyncio
from datetime import timedelta
from pathlib import Path

import structlog

from anyon.clock import Clock
from anyon.db import attempts as attempt_rows
from anyon.db import looks as look_rows
from anyon.db import processes as process_rows
from anyon.db import projects as project_rows
from anyon.db.databases import Database
from anyon.domain import paths
from anyon.domain.actors import Actor
from anyon.domain.entities import Project
from anyon.domain.errors import (
    AnyonError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)
from anyon.domain.ids import AttemptId, ProjectId, new_id
from anyon.domain.states import ExitReason, Phase
from anyon.engines.engine import Engine
from anyon.failpoints import reached
from anyon.processes.processes import Processes
from anyon.services import swaps
from anyon.services.activities import Activities
from anyon.services.archives import Archives, place
from anyon.services.containers import Containers
from anyon.services.homes import Homes
from anyon.services.installations import SYSTEM
from anyon.services.leases import Leases
from anyon.services.runs import Runs
from anyon.services.swaps import Above
from anyon.services.trees import explained
from anyon.storage.browsing import Browser
from anyon.storage.folders import remove_tree
from anyon.storage.objects import DamagedError
from anyon.storage.records import Checkpoint
from anyon.storage.restores import Progress
from anyon.telemetry import Metrics

log = structlog.get_logger(__name__)
_LIVE_TREES = frozenset({b"workspace", b"home"})
"""In which a path may be replaced under running programs; a layer's files may not."""


class Restores:
    """What users restore in place. A foreign or unknown project is NotFoundError (``project_unknown``)."""

    def __init__(
        self,
        *,
        archives: Archives,
        browser: Browser,
        db: Database,
        engine: Engine,
        processes: Processes,
        containers: Containers,
        leases: Leases,
        runs: Runs,
        homes: Homes,
        activities: Activities,
        clock: Clock,
        metrics: Metrics,
        grace: timedelta,
    ) -> None:
        self._archives = archives
        self._db = db
        self._engine = engine
        self._processes = processes
        self._containers = containers
        self._leases = leases
        self._runs = runs
        self._homes = homes
        self._activities = activities
        self._clock = clock
        self._metrics = metrics
        self._grace = grace
        self._browser = browser

    async def all_of(
        self, actor: Actor, project_id: ProjectId, checkpoint_id: str | None, *, is_forced: bool
    ) -> Checkpoint:
        """Put the project's files back to a checkpoint (None: the last); return the one brought back.

        What is there now is saved first, so this can be undone. The project is stopped after it.
        ConflictError (``project_busy``) while something holds it awake, unless *is_forced*: then
        what runs is stopped. NotFoundError (``checkpoint_not_found``).
        """
        project = await self._found(actor, project_id)
        chosen = await self._archives.chosen(project, checkpoint_id)
        if is_forced:
            await self._stop_work(project)
        with self._activities.begun(project.id, "restore") as activity:
            async with self._containers.lock(project.id):
                await self._check_idle(project, is_forced=is_forced)
                await self._halt(project)
                reached("restore.halted")
                is_away = self._archives.must_restore(project)
                if not is_away:
                    await self._archives.save(project, reason="before_restore")
                    reached("restore.saved")
                await self._containers.record(
                    project.id, Phase.RESTORING, reason="asked", detail=chosen.id
                )
                reached("restore.recorded")
                try:
                    await self._archives.bring_back(
                        project, chosen.id, reason="asked", progress=activity.progress
                    )
                except (DamagedError, UnavailableError) as error:
                    # Nothing was replaced yet: the project is not to wait for what cannot come.
                    former = Phase.ARCHIVED if is_away else Phase.STOPPED
                    await self._containers.record(project.id, former, reason="restore_failed")
                    if isinstance(error, DamagedError):
                        raise await self._offered(project, chosen, error) from error
                    raise
                reached("restore.files_back")
                await self._confirm(project)
                reached("restore.confirmed")
        return chosen

    async def _confirm(self, project: Project) -> None:
        """Make what was brought back the last state in the store too; only then it is called stopped."""
        await self._containers.record(project.id, Phase.STOPPED_UNSAVED, reason="restored")
        try:
            await self._archives.save(project, reason="restored")
        except AnyonError as error:  # the phase tells it, and the next look tries again
            log.warning("project.save_failed", project=project.id, code=error.code)
            return
        await self._containers.record(project.id, Phase.STOPPED, reason="restored")

    async def path(
        self,
        actor: Actor,
        project_id: ProjectId,
        checkpoint_id: str,
        path: bytes,
        *,
        is_forced: bool,
    ) -> Checkpoint:
        """Put one file, link or directory (``<tree>/<path>``) back; what is in its place is saved first.

        ConflictError ``project_busy`` while something holds the project awake, unless *is_forced*:
        in the workspace and the home it is then replaced under what runs. ``path_in_the_way`` if a
        directory on its way is none now. NotFoundError ``path_not_found``, ``checkpoint_not_found``.
        """
        project = await self._found(actor, project_id)
        tree, _, within = path.partition(b"/")
        if not within:
            raise InvalidInputError(
                "one tree cannot be restored without the others",
                code="bad_path",
                hint="Name something in it, or restore the whole project.",
            )
        if tree == SYSTEM.encode() and not self._archives.has_own_system:
            raise InvalidInputError(
                "with this engine what is installed is restored with the whole project only",
                code="bad_path",
                hint="Download the file from the checkpoint, or restore the whole project.",
            )
        chosen = await self._archives.chosen(project, checkpoint_id)
        await self._browser.entry(place(project), chosen.id, path)
        self._check_place(project, tree)
        is_live = tree in _LIVE_TREES
        if is_forced and not is_live:
            await self._stop_work(project)
        with self._activities.begun(project.id, "restore") as activity:
            async with self._containers.lock(project.id):
                await self._check_idle(project, is_forced=is_forced)
                if not is_live:
                    await self._halt(project)
                if self._archives.must_restore(project):
                    await self._archives.bring_back(project, self._archives.wanted(project))
                    await self._containers.record(project.id, Phase.STOPPED, reason="restored")
                await self._archives.save(project, reason="before_restore")
                reached("path_restore.saved")
                now = await self._db.read(project_rows.find, project.id)
                is_down = now is not None and now.phase is Phase.STOPPED
                if is_down:  # until what is put back is in the store too
                    await self._containers.record(
                        project.id, Phase.STOPPED_UNSAVED, reason="restored"
                    )
                    reached("path_restore.recorded")
                try:
                    await self._put_back(project, chosen, path, activity.progress)
                finally:
                    if is_down:
                        await self._confirm(project)
                if (await self._found(actor, project_id)).phase is Phase.STOPPED:
                    await self._confirm(project)
                reached("path_restore.confirmed")
        log.info("project.path_restored", project=project.id, checkpoint=chosen.id)
        return chosen

    async def worktree(
        self,
        actor: Actor,
        project_id: ProjectId,
        checkpoint_id: str,
        attempt_id: AttemptId,
        *,
        is_forced: bool,
    ) -> Checkpoint:
        """Put an attempt's worktree back, with what git knows of it; it may have been cleaned since.

        NotFoundError ``attempt_unknown``, ``path_not_found`` where the checkpoint has none of it.
        """
        project = await self._found(actor, project_id)
        attempt = await self._db.read(attempt_rows.get, actor.user_id, attempt_id)
        if attempt is None or attempt.project_id != project.id:
            raise NotFoundError("there is no such attempt", code="attempt_unknown")
        if attempt.worktree is None:
            raise NotFoundError("the attempt never had a worktree", code="path_not_found")
        path = attempt.worktree.lstrip("/").encode()
        record = b"workspace/.git/worktrees/" + path.rpartition(b"/")[2]
        chosen = await self.path(actor, project_id, checkpoint_id, path, is_forced=is_forced)
        reached("worktree_restore.tree_back")
        if not await self._has(project, record):
            await self.path(actor, project_id, checkpoint_id, record, is_forced=is_forced)
        reached("worktree_restore.files_back")
        changes = {"worktree_deleted": False, "updated_at": self._clock.now()}
        await self._db.write(attempt_rows.change, attempt.id, changes)
        reached("worktree_restore.recorded")
        return chosen

    async def _has(self, project: Project, path: bytes) -> bool:
        root = self._homes.trees(project)["workspace"]
        at = root / path.partition(b"/")[2].decode()
        return await asyncio.to_thread(at.is_dir)

    async def _put_back(
        self, project: Project, chosen: Checkpoint, path: bytes, progress: Progress
    ) -> None:
        names = path.split(b"/")
        above = []
        for depth in range(2, len(names)):
            found = await self._browser.entry(place(project), chosen.id, b"/".join(names[:depth]))
            above.append(Above(found.name, found.mode, found.uid, found.gid))
        root = self._homes.trees(project)[names[0].decode()]
        staging = self._homes.staging(project.id, new_id())
        began = self._clock.monotonic()
        try:
            await self._archives.checkpoints.restore_entry(
                place(project), chosen.id, path, staging, progress=progress
            )
            reached("path_restore.staged")
            await self._db.write(look_rows.forget, project.id)
            async with self._archives.files(project):
                await asyncio.to_thread(
                    swaps.put_in,
                    root,
                    above,
                    names[-1],
                    staged=staging,
                    trash=self._homes.home / "trash",
                )
        except DamagedError as error:
            self._metrics.checkpoints.restore_failed("entry")
            raise await self._offered_path(project, chosen, path, error) from error
        except OSError as error:
            self._metrics.checkpoints.restore_failed("entry")
            raise explained(error, "bringing the path back") from error
        except BaseException:
            self._metrics.checkpoints.restore_failed("entry")
            raise
        finally:
            await asyncio.to_thread(_gone, staging)
        reached("path_restore.put_back")
        await self._db.write(look_rows.forget, project.id)  # one may have looked meanwhile
        self._metrics.checkpoints.restored("entry", self._clock.monotonic() - began)
        await self._homes.empty_trash()

    async def _offered(
        self, project: Project, chosen: Checkpoint, error: DamagedError
    ) -> DamagedError:
        """Return *error* with the newest earlier checkpoint that is whole."""
        whole = await self._archives.checkpoints.whole_before(place(project), chosen.id)
        hint = "No earlier checkpoint is whole; single paths may still be: see `anyon checkpoint verify`."
        if whole is not None:
            hint = f"The newest earlier checkpoint that is whole is {whole.id}, of {whole.at:%Y-%m-%d %H:%M:%S} UTC."
        return DamagedError(error.message, hint=hint)

    async def _offered_path(
        self, project: Project, chosen: Checkpoint, path: bytes, error: DamagedError
    ) -> DamagedError:
        seen = await self._archives.checkpoints.verify(place(project), chosen.id, read_data=True)
        mine = [
            one
            for one in seen.damaged
            if one.path == path
            or one.path.startswith(path + b"/")
            or path.startswith(one.path + b"/")
        ]
        intact = [one for one in mine if one.intact_id is not None]
        hint = "No earlier checkpoint has it whole."
        if intact:
            one = intact[0]
            hint = f"{paths.shown(one.path)} is whole in the checkpoint {one.intact_id}."
        return DamagedError(error.message, hint=hint)

    def _check_place(self, project: Project, tree: bytes) -> None:
        """Refuse trees into which nothing can be moved; ConflictError ``only_as_a_whole``."""
        is_layer = tree == b"system" and not self._archives.has_own_system
        if is_layer or self._homes.is_mounted(project):
            raise ConflictError(
                "here this can only be restored with the rest of the project",
                code="only_as_a_whole",
                hint="Restore all of it, or download the path and put it in by hand.",
            )

    async def _stop_work(self, project: Project) -> None:
        for process in await self._db.read(process_rows.open_ones, project=project.id):
            await self._runs.stop(process)

    async def _check_idle(self, project: Project, *, is_forced: bool) -> None:
        if not is_forced and await self._leases.of_work(project.id):
            raise ConflictError(
                "something is running in the project",
                code="project_busy",
                hint="Stop it first, or ask for it with force: files are replaced under what runs.",
            )

    async def _halt(self, project: Project) -> None:
        if await self._engine.inspect(project.id) is not None:
            await self._engine.stop(project.id, grace=self._grace)
            await self._processes.container_stopped(project.id, ExitReason.CONTAINER_STOPPED)

    async def _found(self, actor: Actor, project_id: ProjectId) -> Project:
        project = await self._db.read(project_rows.get, actor.user_id, project_id)
        if project is None:
            raise NotFoundError("there is no such project", code="project_unknown")
        return project


def _gone(staging: Path) -> None:
    remove_tree(bytes(staging))
