"""Settings to drivers to services to loops to app: one server's parts, opened and closed in order."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from fastapi import FastAPI

from anyon.agents import registry
from anyon.api.apps import create_app
from anyon.api.tokens import keep_local_token
from anyon.clock import Clock, SystemClock
from anyon.config import Settings
from anyon.db.databases import Database
from anyon.domain.life import Tiers
from anyon.engines.engine import ContainerState, Engine, Limits
from anyon.git.repositories import GitRepositories
from anyon.lifecycle.loops import Loop
from anyon.lifecycle.reconciler import Reconciler
from anyon.processes.durable import DurableProcesses
from anyon.services import Parts, Services, build
from anyon.services.savers import LocalOnly
from anyon.services.steps import Steps
from anyon.telemetry import Metrics
from anyon.wiring import engines


@dataclass(frozen=True, slots=True, kw_only=True)
class Anyon:
    """One server's parts: the use cases, the application over them, and the loops beside it."""

    settings: Settings
    engine: Engine
    services: Services
    app: FastAPI
    loops: Sequence[Loop]
    clock: Clock


@asynccontextmanager
async def assembled(settings: Settings, *, clock: Clock | None = None) -> AsyncIterator[Anyon]:
    """Open everything that *settings* name, take up what an earlier server left, and close it all after.

    The caller holds the home (``pidfile.only_server``).
    """
    clock = clock or SystemClock()
    engine = await engines.choose(settings)
    database = Database(settings.database_url or settings.home / "anyon.db")
    processes = DurableProcesses(engine, lambda project: _run_directory(settings, project), clock)
    try:
        await database.open()
        services = build(_parts(settings, database, engine, processes, clock))
        try:
            await services.recover()
            if settings.tokens_required:
                await keep_local_token(services, settings.home)
            yield _gathered(settings, engine, processes, services, clock)
        finally:
            await services.close()
    finally:
        await processes.close()
        await database.close()
        await engine.close()


def _run_directory(settings: Settings, project: str) -> Path:
    return settings.home / "state" / project / "run"


def _parts(
    settings: Settings,
    database: Database,
    engine: Engine,
    processes: DurableProcesses,
    clock: Clock,
) -> Parts:
    limits = Limits(
        cpus=settings.container_cpus or None,
        memory_bytes=settings.container_memory or None,
        pids=settings.container_pids or None,
    )
    # Programs in Docker run as the image's user; elsewhere they run as the server's own.
    uid = settings.container_uid
    others = engine.name == "docker" and os.geteuid() == 0
    return Parts(
        db=database,
        engine=engine,
        processes=processes,
        repositories=GitRepositories(processes),
        find_agent=registry.find,
        clock=clock,
        home=settings.home,
        environment=dict(os.environ),
        default_agent=settings.default_agent,
        image=settings.image if engine.name == "docker" else None,
        limits=limits,
        files_owner=(uid, uid) if others else None,
        may_import=not settings.tokens_required,
        stop_grace=settings.stop_grace,
        output_cap_bytes=settings.output_cap,
    )


def _gathered(
    settings: Settings,
    engine: Engine,
    processes: DurableProcesses,
    services: Services,
    clock: Clock,
) -> Anyon:
    # Files are released only when a store holds them; without one the last tier is off.
    tiers = Tiers(
        freeze_after=settings.freeze_after,
        stop_after=settings.stop_after,
        archive_after=timedelta(0),
    )
    steps = Steps(
        db=services.db,
        engine=engine,
        processes=processes,
        containers=services.containers,
        leases=services.leases,
        saver=LocalOnly(),
        clock=clock,
        tiers=tiers,
        grace=settings.stop_grace,
    )
    reconciler = Reconciler(
        db=services.db, engine=engine, steps=steps, leases=services.leases, clock=clock, tiers=tiers
    )
    metrics = Metrics()

    async def look_before_scrape() -> None:
        metrics.set_containers(await _count(engine))

    app = create_app(
        services,
        settings,
        metrics=metrics,
        agents=tuple(registry.registry().values()),
        before_scrape=look_before_scrape,
    )
    loop = Loop(name="reconciler", interval=settings.reconcile_interval, tick=reconciler.tick)
    return Anyon(
        settings=settings, engine=engine, services=services, app=app, loops=(loop,), clock=clock
    )


async def _count(engine: Engine) -> dict[str, int]:
    counts = {state.value: 0 for state in ContainerState}
    for info in await engine.list():
        counts[info.state.value] += 1
    return counts
