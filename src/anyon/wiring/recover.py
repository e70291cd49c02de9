"""Taking up the projects of a lost machine: the parts for it, opened and closed."""

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from anyon import failpoints
from anyon.clock import SystemClock
from anyon.config import Settings
from anyon.db.databases import Database
from anyon.domain.errors import InvalidInputError, NotFoundError
from anyon.services.homes import Homes, server_id
from anyon.services.recoveries import Recovered, Recoveries
from anyon.storage.checkpoints import Checkpoints
from anyon.wiring import keys, stores
from anyon.wiring.pidfile import only_server

__all__ = ["Recovered", "recover"]


async def recover(
    settings: Settings,
    *,
    source: str | None,
    key_file: str | None = None,
    is_dry: bool,
    is_forced: bool,
) -> Sequence[Recovered]:
    """Take up what the store *source* (None: as set) has into the home that is set.

    No server may run on it (``home_in_use``). A dry run makes nothing, not even the home.
    """
    failpoints.arm(settings.failpoint)
    settings = settings if source is None else replace(settings, store=source)
    settings = settings if key_file is None else replace(settings, key_file=key_file)
    await asyncio.to_thread(_check_place, settings)
    objects = stores.store(settings)
    if objects is None:
        raise InvalidInputError("no store is set", code="bad_store", hint="Give --from STORE.")
    if not is_dry:
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    found_keys = await asyncio.to_thread(keys.opening_keys, settings, objects)
    clock = SystemClock()
    path = settings.home / "anyon.db"
    database = None
    if settings.database_url or path.exists() or not is_dry:
        database = Database(settings.database_url or path)
    checkpoints = Checkpoints(
        objects,
        cache=settings.home / "checkpoints",
        clock=clock,
        keys=found_keys,
        server="" if is_dry else await asyncio.to_thread(server_id, settings.home),
    )
    recoveries = Recoveries(
        checkpoints=checkpoints, db=database, homes=Homes(settings.home), clock=clock
    )
    alone = nullcontext() if is_dry else only_server(settings.home, address="anyon recover")
    try:
        with alone:
            if database is not None:
                await database.open()
            return await recoveries.recover(is_dry=is_dry, is_forced=is_forced)
    finally:
        await checkpoints.close()
        if database is not None:
            await database.close()


def _check_place(settings: Settings) -> None:
    """Refuse a directory that is not there: the driver would make it, and find nothing in it."""
    place = Path(settings.store).expanduser() if settings.store else settings.home / "store"
    if settings.store != "none" and "://" not in settings.store and not place.is_dir():
        raise NotFoundError(f"there is no store in {place}", code="store_unknown")
