"""What was installed outside a project's files: where it is now, and back into a container."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

import structlog
from sqlalchemy import Connection

from anyon.clock import Clock
from anyon.db import events as event_rows
from anyon.db import projects as project_rows
from anyon.db.databases import Database
from anyon.domain.entities import Project
from anyon.domain.errors import ConflictError, EngineFailedError
from anyon.domain.ids import ProjectId, new_id
from anyon.domain.states import Phase
from anyon.engines.engine import Engine
from anyon.engines.layers import KeepsLayers, Layer
from anyon.failpoints import reached
from anyon.services.homes import Homes
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.folders import OPEN_FOLDER, remove_tree
from anyon.storage.records import Checkpoint, Root
from anyon.storage.replays import Replayed, replay

log = structlog.get_logger(__name__)

SYSTEM = "system"


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A layer that lies ready in the project's state for a container that is still to be made.

    *checkpoint* is whose it is, *base* what it lay over.
    """

    checkpoint: str
    base: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """Where what is installed lies now, over what, and in which container, if it is in one."""

    path: Path
    base: Mapping[str, str]
    container: str = ""


class Installations:
    """Keeps what is installed through the loss of a container and of a machine.

    Most engines keep it in the directory that ``ContainerSpec.system`` names. One with *layers*
    keeps it in each container: then that directory holds what the next container is to begin with.
    *base* is what the layers of the others lie over. Callers hold the project's lock.
    """

    def __init__(
        self,
        *,
        checkpoints: Checkpoints,
        db: Database,
        engine: Engine,
        layers: KeepsLayers | None,
        base: Mapping[str, str],
        homes: Homes,
        clock: Clock,
    ) -> None:
        self._checkpoints = checkpoints
        self._db = db
        self._engine = engine
        self._layers = layers
        self._base = base
        self._homes = homes
        self._clock = clock

    @property
    def are_in_containers(self) -> bool:
        """Whether the engine keeps what is installed in each container."""
        return self._layers is not None

    async def tree(self, project: Project) -> Installed | None:
        """Return where it lies now, None where there is nothing of it.

        Of a container that somebody removed it is fetched from the last checkpoint: the next one
        would be without it.
        """
        place = self._homes.system(project.id)
        if self._layers is None:
            is_there = place.is_dir() or await self._fetched(project)
            return Installed(path=place, base=self._base) if is_there else None
        if self._waiting(project) is None:
            layer = await self._layers.layer(project.id)
            if layer is not None:
                return Installed(path=layer.path, base=layer.base, container=layer.container)
            await self._fetched(project)
        waiting = self._waiting(project)
        return Installed(path=place, base=waiting.base) if waiting is not None else None

    async def check(self, project: Project, installed: Installed) -> None:
        """Raise ConflictError ``layer_lost`` if what was read at *installed* may have been going meanwhile.

        A layer goes file by file when a stranger removes its container: half of it must not be
        confirmed as what is installed.
        """
        if self._layers is None or not installed.container:
            return
        layer = await self._layers.layer(project.id)
        reached("system.looked_at_again")
        if layer is None or layer.container != installed.container:
            raise ConflictError(
                "the project's container was removed while it was saved",
                code="layer_lost",
                hint="Save again: what was installed is taken over from the last checkpoint.",
            )

    def accepts(self, root: Root) -> bool:
        """Say whether a saved tree is a layer of this engine: others have another form."""
        engine = root.base.get("engine", "")
        return engine == self._engine.name if self._layers is not None or engine else True

    async def put(self, project: Project, checkpoint_id: str, root: Root | None) -> None:
        """Record that the state's ``system`` is now *root* of a checkpoint (None: not in it)."""
        if self._layers is None:
            if root is not None:
                await self._compare(project, root.base)
        elif root is not None:
            self._wait(project, Waiting(checkpoint=checkpoint_id, base=root.base))
        else:
            self._wait(project, None)

    async def _compare(self, project: Project, before: Mapping[str, str]) -> None:
        """Tell that a layer lies over another system of a host now; over which is known since format 2."""
        if "system" not in before or before["system"] == self._base.get("system"):
            return
        detail = (
            f"saved over {before['system']}, now over {self._base.get('system')}: "
            "what the project changed hides the new system's"
        )
        await self._event(project, "base_changed", detail)

    def must_settle(self, project: Project, *, is_there: bool) -> bool:
        """Say whether ``settle`` has something to do; *is_there*: there is a container."""
        if project.phase is Phase.CREATING:
            return False
        if self._layers is None:
            return not self._homes.system(project.id).is_dir()
        return not is_there or self._waiting(project) is not None

    async def settle(self, project: Project, ensure: Callable[[], Awaitable[object]]) -> None:
        """See to it that the project's container, made by *ensure* if need be, has what it should.

        Nothing happens where it has. What was begun and cut off is begun again with a new
        container: no half filled one is ever started.
        """
        if self._layers is None:
            if not self._homes.system(project.id).is_dir():
                await self._fetched(project)
            return
        if self._waiting(project) is None and await self._layers.layer(project.id) is None:
            await self._fetched(project)
        waiting = self._waiting(project)
        if waiting is None:
            return
        await self._engine.remove(project.id)
        reached("system.container_removed")
        await ensure()
        reached("system.container_made")
        layer = await self._layers.layer(project.id)
        if layer is None:
            raise EngineFailedError(
                "the container went away while it was filled", code="container_absent"
            )
        place = self._homes.system(project.id)
        try:
            done = await asyncio.to_thread(replay, bytes(place), bytes(layer.path))
        except OSError as error:
            raise EngineFailedError(
                f"what was installed could not be put into the container: {error}",
                code="layer_failed",
                hint="Look at the disk of the engine's files; the next work tries again.",
            ) from error
        reached("system.replayed")
        # Before the start: with the note, the container would be made anew whatever is in it.
        self._wait(project, None)
        reached("system.note_removed")
        await asyncio.to_thread(self._empty, place)
        reached("system.emptied")
        await self._tell(project, waiting, layer, done)

    async def _fetched(self, project: Project) -> bool:
        """Bring ``system`` of the last checkpoint into the project's state; False if it has none."""
        if project.phase is Phase.CREATING:
            return False
        name = f"{project.user_id}/{project.id}"
        latest = await self._checkpoints.latest(name)
        root = latest.roots.get(SYSTEM) if latest is not None else None
        if latest is None or root is None or not self.accepts(root):
            return False
        staging = self._homes.staging(project.id, new_id())
        try:
            await self._checkpoints.restore(name, latest.id, {SYSTEM: staging / SYSTEM})
            reached("system.fetched")
            await self._homes.replace_system(project, staging / SYSTEM)
            reached("system.put")
        finally:
            await asyncio.to_thread(remove_tree, bytes(staging))
        await self.put(project, latest.id, root)
        reached("system.noted")
        await self._homes.empty_trash()  # what it replaced is there; nobody may come by for long
        log.info("project.system_fetched", project=project.id, checkpoint=latest.id)
        return True

    async def _tell(self, project: Project, waiting: Waiting, layer: Layer, done: Replayed) -> None:
        before, now = waiting.base.get("image_id"), layer.base.get("image_id")
        detail = f"{done.files} files, {done.deletions} deletions of the image's"
        is_same = before == now
        if not is_same:
            detail += (
                f"; saved over {waiting.base.get('image')} ({before}), now over "
                f"{layer.base.get('image')} ({now}): what the project changed hides the new image's"
            )
        if done.notes:
            detail += "; " + "; ".join(done.notes)
        await self._event(project, "same_image" if is_same else "image_changed", detail)

    async def _event(self, project: Project, reason: str, detail: str) -> None:
        log.info("project.system_brought_back", project=project.id, reason=reason, detail=detail)
        await self._db.write(
            event_rows.add,
            project.id,
            "system.brought_back",
            self._clock.now(),
            reason=reason,
            detail=detail,
        )

    def _path(self, project: Project) -> Path:
        return self._homes.state(project.id) / "layer.json"

    def _waiting(self, project: Project) -> Waiting | None:
        path = self._path(project)
        try:
            found = json.loads(path.read_bytes())
            return Waiting(checkpoint=found["checkpoint"], base=found["base"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise EngineFailedError(
                f"{path} does not say which layer waits: {error!r}",
                code="layer_failed",
                hint="Restore a checkpoint; or remove it, to go on with the container as it is.",
            ) from error

    def _wait(self, project: Project, waiting: Waiting | None) -> None:
        """Note durably that a layer waits for a container, or that none does any more."""
        path = self._path(project)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if waiting is None:
            path.unlink(missing_ok=True)
        else:
            beside = path.with_suffix(".new")
            with beside.open("w", encoding="utf-8") as file:
                json.dump(asdict(waiting), file)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        directory = os.open(path.parent, OPEN_FOLDER)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    @staticmethod
    def _empty(place: Path) -> None:
        remove_tree(bytes(place))
        place.mkdir(mode=0o755)


def note_left_out(
    connection: Connection, project_id: ProjectId, now: datetime, chosen: Checkpoint
) -> None:
    """Record that what was installed stays in the checkpoint; the setup script may run again."""
    base = chosen.roots[SYSTEM].base
    detail = (
        f"it was installed by the engine {base.get('engine', '(unknown)')}: {chosen.id} keeps it"
    )
    project_rows.must_be_set_up(connection, project_id)
    event_rows.add(
        connection, project_id, "system.left_out", now, reason="other_engine", detail=detail
    )
