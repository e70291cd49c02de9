"""``anyon migrate``: its use case over this home, without a server."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from anyon.agents import registry
from anyon.clock import SystemClock
from anyon.config import Settings
from anyon.db import old_databases
from anyon.db.databases import Database
from anyon.domain.errors import InvalidInputError
from anyon.engines.engine import Limits
from anyon.engines.memory import MemoryEngine
from anyon.git.repositories import GitRepositories
from anyon.processes.durable import DurableProcesses
from anyon.services import Parts, build
from anyon.services.migrations import Migrations
from anyon.services.old_layouts import OldLayout
from anyon.services.outcomes import Outcome, Report
from anyon.wiring import engines
from anyon.wiring.pidfile import only_server

__all__ = ["Outcome", "Report", "from_layout"]


async def from_layout(
    settings: Settings,
    source: Path,
    *,
    is_dry: bool,
    tell: Callable[[str, int, int, str], None],
) -> Report:
    """Bring the old installation at *source* into this home; no server may use it meanwhile.

    ConflictError ``home_in_use``; NotFoundError ``old_layout_missing``, ``old_database_missing``;
    InvalidInputError ``old_database_unreadable``, ``path_inside_home``.
    """
    old = await asyncio.to_thread(_found, settings, source)
    records = await asyncio.to_thread(old_databases.read, old.database)
    with tempfile.TemporaryDirectory(prefix="anyon-dry-") as scratch:
        if is_dry and not (settings.home / "anyon.db").exists() and not settings.database_url:
            settings = replace(settings, home=Path(scratch))
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with only_server(settings.home, address="migration"):
            async with _opened(settings, is_dry=is_dry) as migrations:
                return await migrations.run(old, records, is_dry=is_dry, tell=tell)


def _found(settings: Settings, source: Path) -> OldLayout:
    source, home = source.resolve(), settings.home.resolve()
    if source.is_relative_to(home) or home.is_relative_to(source):
        raise InvalidInputError(
            f"the old installation {source} and Anyon's home {home} lie in each other",
            code="path_inside_home",
            hint="Set ANYON_HOME to another directory.",
        )
    return OldLayout(source)


@asynccontextmanager
async def _opened(settings: Settings, *, is_dry: bool) -> AsyncIterator[Migrations]:
    clock = SystemClock()
    engine = MemoryEngine(hidden=[]) if is_dry else await engines.choose(settings)
    database = Database(settings.database_url or settings.home / "anyon.db")
    processes = DurableProcesses(
        engine, lambda project: settings.home / "state" / project / "run", clock
    )
    repositories = GitRepositories(processes)
    uid = settings.container_uid
    in_docker = engine.name == "docker"
    try:
        await database.open()
        services = build(
            Parts(
                db=database,
                engine=engine,
                processes=processes,
                repositories=repositories,
                find_agent=registry.find,
                clock=clock,
                home=settings.home,
                default_agent=settings.default_agent,
                image=settings.image if in_docker else None,
                limits=Limits(
                    cpus=settings.container_cpus or None,
                    memory_bytes=settings.container_memory or None,
                    pids=settings.container_pids or None,
                ),
                files_owner=(uid, uid) if in_docker and os.geteuid() == 0 else None,
                stop_grace=settings.stop_grace,
                picture_quota=settings.picture_quota,
            )
        )
        try:
            yield Migrations(
                db=database,
                projects=services.projects,
                containers=services.containers,
                repositories=repositories,
                leases=services.leases,
                homes=services.homes,
                find_agent=registry.find,
                default_agent=settings.default_agent,
                views=services.views,
                clock=clock,
                picture_quota=settings.picture_quota,
            )
        finally:
            await services.close()
    finally:
        await processes.close()
        await database.close()
        await engine.close()
