"""Looking into a project's past: nothing here wakes it, or needs its files on this machine."""

from collections.abc import Sequence

from anyon.db import projects as project_rows
from anyon.db.databases import Database
from anyon.domain.actors import Actor
from anyon.domain.entities import Project
from anyon.domain.errors import NotFoundError
from anyon.domain.ids import ProjectId
from anyon.services.archives import Archives, place
from anyon.storage.browsing import Browser, Changes, Download, Listing
from anyon.storage.records import Checkpoint
from anyon.storage.texts import TextDifference
from anyon.storage.trees import Entry


class Histories:
    """What users look at. Paths are ``<tree>/<path>`` in bytes; an empty one is all trees.

    A foreign or unknown project is NotFoundError (``project_unknown``); what a checkpoint has
    not is one too (``checkpoint_not_found``, ``path_not_found``, ``tree_not_found``).
    """

    def __init__(self, *, archives: Archives, browser: Browser, db: Database) -> None:
        self._checkpoints = archives.checkpoints
        self._browser = browser
        self._db = db

    async def list(
        self, actor: Actor, project_id: ProjectId, *, limit: int = 100
    ) -> Sequence[Checkpoint]:
        """Return the project's newest checkpoints, newest first."""
        return await self._checkpoints.list(await self._place(actor, project_id), limit=limit)

    async def get(self, actor: Actor, project_id: ProjectId, checkpoint_id: str) -> Checkpoint:
        """Return one checkpoint."""
        return await self._checkpoints.get(await self._place(actor, project_id), checkpoint_id)

    async def entry(
        self, actor: Actor, project_id: ProjectId, checkpoint_id: str, path: bytes
    ) -> Entry:
        """Return one entry."""
        where = await self._place(actor, project_id)
        return await self._browser.entry(where, checkpoint_id, path)

    async def listing(
        self,
        actor: Actor,
        project_id: ProjectId,
        checkpoint_id: str,
        path: bytes,
        *,
        offset: int,
        limit: int,
    ) -> Listing:
        """Return some of a directory's entries, by name; ConflictError ``not_a_directory``."""
        where = await self._place(actor, project_id)
        return await self._browser.listing(where, checkpoint_id, path, offset=offset, limit=limit)

    async def changes(
        self,
        actor: Actor,
        project_id: ProjectId,
        since: str | None,
        checkpoint_id: str,
        *,
        offset: int,
        limit: int,
    ) -> Changes:
        """Return what changed from the checkpoint *since* (None: the one before) to another."""
        where = await self._place(actor, project_id)
        before = await self._before(where, since, checkpoint_id)
        return await self._browser.changes(where, before, checkpoint_id, offset=offset, limit=limit)

    async def text_difference(
        self,
        actor: Actor,
        project_id: ProjectId,
        since: str | None,
        checkpoint_id: str,
        path: bytes,
    ) -> TextDifference:
        """Return how a file changed from the checkpoint *since* (None: the one before) to another."""
        where = await self._place(actor, project_id)
        before = await self._before(where, since, checkpoint_id)
        return await self._browser.text_difference(where, before, checkpoint_id, path)

    async def file(
        self,
        actor: Actor,
        project_id: ProjectId,
        checkpoint_id: str,
        path: bytes,
        *,
        start: int | None = None,
        end: int | None = None,
    ) -> Download:
        """Open a file or a part of it: see ``Browser.file``."""
        where = await self._place(actor, project_id)
        return await self._browser.file(where, checkpoint_id, path, start=start, end=end)

    async def archive(
        self, actor: Actor, project_id: ProjectId, checkpoint_id: str, path: bytes
    ) -> Download:
        """Open a directory, a file or all trees as a tar archive."""
        return await self._browser.archive(
            await self._place(actor, project_id), checkpoint_id, path
        )

    async def _before(self, where: str, since: str | None, checkpoint_id: str) -> str:
        if since is not None:
            return since
        found = await self._checkpoints.get(where, checkpoint_id)
        # Its parent may have been collected: then the newest that is left of before.
        earlier = [one for one in await self._checkpoints.ids(where) if one < found.id]
        if not earlier:
            raise NotFoundError(
                "there is no checkpoint before this one",
                code="checkpoint_not_found",
                hint="Name the one to compare with.",
            )
        return found.parent if found.parent in earlier else earlier[0]

    async def _place(self, actor: Actor, project_id: ProjectId) -> str:
        project: Project | None = await self._db.read(project_rows.get, actor.user_id, project_id)
        if project is None:
            raise NotFoundError("there is no such project", code="project_unknown")
        return place(project)
