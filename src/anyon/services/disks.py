"""How much disk each project takes up, measured now and then where something happened."""

import asyncio
import os
from collections.abc import Mapping
from datetime import datetime

from anyon.clock import Clock
from anyon.db import projects as project_rows
from anyon.db.databases import Database
from anyon.domain.entities import Project
from anyon.domain.ids import ProjectId
from anyon.domain.states import Phase
from anyon.services.homes import Homes
from anyon.storage.sizes import tree_bytes

_HERE = frozenset({Phase.RUNNING, Phase.FROZEN, Phase.STOPPED, Phase.STOPPED_UNSAVED})


class Disks:
    """Measures a project after it was active, and not again while nothing happens in it.

    A measurement reads every directory, so it is never made while somebody waits for it: ``tick``
    is for a loop.
    """

    def __init__(self, *, db: Database, homes: Homes, clock: Clock, server_id: str) -> None:
        self._db = db
        self._homes = homes
        self._clock = clock
        self._server_id = server_id
        self._measured: dict[ProjectId, datetime] = {}
        self._bytes: dict[ProjectId, int] = {}

    @property
    def used(self) -> Mapping[str, int]:
        """Bytes on disk of each project that was measured and has its files here."""
        return {str(project): size for project, size in self._bytes.items()}

    async def tick(self) -> None:
        """Measure what changed; forget what is gone or lies in the store only."""
        found = await self._db.read(project_rows.of_server, self._server_id)
        here = {one.id: one for one in found if one.phase in _HERE and one.deleted_at is None}
        for gone in self._bytes.keys() - here.keys():
            del self._bytes[gone]
            self._measured.pop(gone, None)
        for project in here.values():
            if self._is_due(project):
                now = self._clock.now()
                self._bytes[project.id] = await asyncio.to_thread(self._measure, project)
                self._measured[project.id] = now

    def _is_due(self, project: Project) -> bool:
        measured = self._measured.get(project.id)
        return (
            measured is None or project.phase is Phase.RUNNING or project.last_active_at > measured
        )

    def _measure(self, project: Project) -> int:
        trees = self._homes.trees(project)
        if self._homes.is_mounted(project):  # it takes up no disk, and walking it is slow
            del trees["workspace"]
        return sum(tree_bytes(os.fsencode(path)) for path in trees.values())
