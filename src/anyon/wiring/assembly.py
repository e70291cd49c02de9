"""Settings to drivers to services to loops to app: one server's parts, opened and closed in order."""

import asyncio
import os
import platform
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import structlog
from fastapi import FastAPI

from anyon.agents import registry
from anyon.api.apps import create_app
from anyon.api.tokens import keep_local_token
from anyon.clock import Clock, SystemClock
from anyon.config import Settings
from anyon.db.databases import Database
from anyon.domain.capacity import Thresholds
from anyon.domain.errors import AnyonError
from anyon.domain.life import Tiers
from anyon.engines.engine import Engine, Limits
from anyon.engines.layers import KeepsLayers
from anyon.engines.pauses import PausingEngine
from anyon.engines.ports import ContainerPorts
from anyon.engines.tracing import TracedEngine
from anyon.git.repositories import GitRepositories
from anyon.lifecycle.checkpointer import LANES, Checkpointer
from anyon.lifecycle.lags import LoopLag
from anyon.lifecycle.loops import Loop
from anyon.lifecycle.mounts import MountWatch
from anyon.lifecycle.pressures import MemoryPressure, read_memory
from anyon.lifecycle.reconciler import Reconciler
from anyon.processes.durable import DurableProcesses
from anyon.services import Parts, Services, build
from anyon.services.disks import Disks
from anyon.services.events import EventRetention
from anyon.services.homes import server_id
from anyon.services.observations import Observations
from anyon.services.steps import Steps
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.keys import Keys, PlainKeys
from anyon.storage.logs import Logs
from anyon.storage.objects import ObjectStore
from anyon.storage.retention import Retention
from anyon.telemetry import Metrics
from anyon.telemetry.traces import Tracer
from anyon.wiring import care, engines, keys, mounts, states, stores, traces

_MEMORY_INTERVAL = timedelta(seconds=10)
log = structlog.get_logger(__name__)
_PURGE_INTERVAL = timedelta(hours=1)
_LOGS_INTERVAL = timedelta(seconds=5)
_SAVES_LOOKED_FOR = timedelta(seconds=5)
"""How soon a save follows the end of work."""
_LAG_INTERVAL = timedelta(seconds=1)
_SHARING = frozenset({"bubblewrap", "memory"})
"""Engines whose containers use the host's own network."""
_OWN_TREES = ("workspace", "home")
_ALL_TREES = (*_OWN_TREES, "system")
log = structlog.get_logger(__name__)


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
    chosen = await engines.choose(settings)
    layers = engines.layers(chosen)
    hidden = await layers.why_hidden() if layers is not None else ""
    if hidden:
        log.warning("storage.system_not_kept", engine=chosen.name, reason=hidden)
    metrics = Metrics(per_project=settings.metrics_per_project)
    tracer = traces.tracer(settings)
    engine = PausingEngine(TracedEngine(chosen))
    database = Database(settings.database_url or settings.home / "anyon.db", metrics.database)
    objects = await asyncio.to_thread(stores.store, settings, metrics.store)
    opening = await asyncio.to_thread(keys.keys, settings, objects) if objects else PlainKeys()
    checkpoints = _checkpoints(settings, clock, objects, opening)
    processes = DurableProcesses(engine, lambda project: _run_directory(settings, project), clock)
    copies = await asyncio.to_thread(states.copies, settings, opening, clock, metrics)
    try:
        await database.open()
        services = build(
            _parts(
                settings,
                database=database,
                engine=engine,
                processes=processes,
                checkpoints=checkpoints,
                logs=Logs(objects, opening) if objects is not None else None,
                clock=clock,
                metrics=metrics,
                layers=layers,
                trees=_ALL_TREES if not hidden else _OWN_TREES,
            )
        )
        try:
            await _mount(services)
            await services.recover()
            if settings.tokens_required:
                await keep_local_token(services, settings.home)
            found = _gathered(settings, engine, services, clock, metrics, tracer)
            yield replace(found, loops=(*found.loops, *copies.loops))
        finally:
            await services.close()
    finally:
        await processes.close()
        if checkpoints is not None:
            await checkpoints.close()
        await database.close()
        await copies.close()
        await engine.close()
        if tracer is not None:
            await asyncio.to_thread(tracer.close)


def _checkpoints(
    settings: Settings, clock: Clock, objects: ObjectStore | None, opening: Keys
) -> Checkpoints | None:
    if objects is None:
        return None
    return Checkpoints(
        objects,
        cache=settings.home / "checkpoints",
        clock=clock,
        keys=opening,
        retention=Retention(
            everything=settings.keep_all,
            hourly=settings.keep_hourly,
            daily=settings.keep_daily,
            monthly=settings.keep_monthly,
        ),
        server=server_id(settings.home),
    )


def _system_name() -> str:
    try:
        release = platform.freedesktop_os_release()
    except OSError:  # a system that does not say its name
        return platform.system()
    return " ".join((release["ID"], release.get("VERSION_ID", ""))).strip()


def _run_directory(settings: Settings, project: str) -> Path:
    return settings.home / "state" / project / "run"


def _parts(
    settings: Settings,
    *,
    database: Database,
    engine: PausingEngine,
    processes: DurableProcesses,
    checkpoints: Checkpoints | None,
    logs: Logs | None,
    clock: Clock,
    metrics: Metrics,
    layers: KeepsLayers | None,
    trees: Sequence[str],
) -> Parts:
    limits = Limits(
        cpus=settings.container_cpus or None,
        memory_bytes=settings.container_memory or None,
        pids=settings.container_pids or None,
    )
    # Local files are let go only where a store holds all of them; else the last tier is off.
    can_archive = checkpoints is not None and trees == _ALL_TREES
    owner = mounts.files_owner(settings, engine.name)
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
        files_owner=owner,
        may_import=not settings.tokens_required,
        stop_grace=settings.stop_grace,
        wakes_per_hour=settings.wakes_per_hour,
        max_running=settings.max_running,
        max_memory=settings.max_memory,
        terminal_awake=settings.terminal_awake,
        preview_awake=settings.preview_awake,
        ports=ContainerPorts(engine, shares_network=engine.name in _SHARING),
        output_cap_bytes=settings.output_cap,
        picture_quota=settings.picture_quota,
        checkpoints=checkpoints,
        logs=logs,
        undo_window=settings.undo_window,
        collect_grace=settings.collect_grace,
        metrics=metrics,
        mounts=mounts.mounts(settings, engine.name, clock=clock, metrics=metrics),
        is_on_mount=settings.storage != "checkpoints",
        saved_trees=trees,
        layers=layers,
        layer_base={"system": _system_name()},
        pause=engine.pause,
        tiers=Tiers(
            freeze_after=settings.freeze_after,
            stop_after=settings.stop_after,
            archive_after=settings.archive_after,
            can_archive=can_archive,
        ),
    )


def _gathered(  # noqa: PLR0917 - the second half of assembled
    settings: Settings,
    engine: Engine,
    services: Services,
    clock: Clock,
    metrics: Metrics,
    tracer: Tracer | None,
) -> Anyon:
    tiers = services.tiers
    steps = services.steps
    services.places.room_made_by(steps.make_room)
    reconciler = Reconciler(
        db=services.db,
        engine=engine,
        steps=steps,
        leases=services.leases,
        clock=clock,
        tiers=tiers,
        metrics=metrics,
    )
    disks = Disks(db=services.db, homes=services.homes, clock=clock, server_id=services.server_id)
    observations = Observations(
        db=services.db,
        engine=engine,
        leases=services.leases,
        places=services.places,
        disks=disks,
        archives=services.archives,
        metrics=metrics,
        clock=clock,
        home=settings.home,
        server_id=services.server_id,
    )
    app = create_app(
        services,
        settings,
        metrics=metrics,
        agents=tuple(registry.registry().values()),
        before_scrape=observations.refresh,
        tracer=tracer,
    )
    return Anyon(
        settings=settings,
        engine=engine,
        services=services,
        app=app,
        loops=(
            *_loops(settings, reconciler, services, clock, metrics),
            Loop(name="disks", interval=settings.disk_interval, tick=disks.tick),
            _memory_loop(settings, steps),
            *_mount_loops(settings, services, engine, clock),
            *care.loops(settings, services, clock),
        ),
        clock=clock,
    )


def _memory_loop(settings: Settings, steps: Steps) -> Loop:
    watch = MemoryPressure(
        relief=steps,
        read=read_memory,
        thresholds=Thresholds(
            stalled_percent=settings.pressure_stalls,
            available_bytes=settings.pressure_available,
        ),
    )
    return Loop(name="memory", interval=_MEMORY_INTERVAL, tick=watch.tick)


def _loops(
    settings: Settings,
    reconciler: Reconciler,
    services: Services,
    clock: Clock,
    metrics: Metrics,
) -> Sequence[Loop]:
    lag = LoopLag(clock=clock, metrics=metrics, interval=_LAG_INTERVAL)
    found = [
        Loop(name="reconciler", interval=settings.reconcile_interval, tick=reconciler.tick),
        Loop(name="lag", interval=_LAG_INTERVAL, tick=lag.tick),
    ]
    # A window of minutes must not become an hour because nobody looks.
    looked = min(_PURGE_INTERVAL, max(settings.undo_window, timedelta(seconds=1)))
    found.append(Loop(name="reaper", interval=looked, tick=services.deletions.purge))
    events = EventRetention(
        db=services.db,
        clock=clock,
        metrics=metrics,
        server_id=services.server_id,
        keep=settings.keep_events,
    )
    found.append(Loop(name="events", interval=_PURGE_INTERVAL, tick=events.tick))
    if services.logs is not None:
        found.append(Loop(name="logs", interval=_LOGS_INTERVAL, tick=services.logs.tick))
    if services.archives is not None and settings.checkpoint_interval:
        checkpointer = Checkpointer(
            db=services.db,
            archives=services.archives,
            leases=services.leases,
            homes=services.homes,
            clock=clock,
            interval=settings.checkpoint_interval,
        )
        found += [
            Loop(
                name=f"checkpointer-{lane}",
                interval=min(settings.checkpoint_interval, _SAVES_LOOKED_FOR),
                tick=partial(checkpointer.tick, lane),
            )
            for lane in range(LANES)
        ]
    return tuple(found)


async def _mount(services: Services) -> None:
    """Mount what is set; a bucket that does not answer keeps only the projects that lie in it from working."""
    try:
        await services.homes.bucket.mend()
    except AnyonError as error:
        log.warning("mount.failed", code=error.code, error=error.message)


def _mount_loops(
    settings: Settings, services: Services, engine: Engine, clock: Clock
) -> Sequence[Loop]:
    if not services.homes.bucket.is_set:
        return ()
    watch = MountWatch(
        db=services.db,
        engine=engine,
        mounts=services.homes.bucket,
        containers=services.containers,
        leases=services.leases,
        clock=clock,
    )
    return (Loop(name="mount", interval=settings.mount_interval, tick=watch.tick),)
