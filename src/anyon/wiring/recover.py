"""Taking up what a lost machine had: the parts for it, opened and closed."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from anyon.clock import SystemClock
from anyon.config import Settings
from anyon.db.databases import Database
from anyon.domain.errors import InvalidInputError, NotFoundError
from anyon.failpoints import reached
from anyon.services.homes import Homes, server_id
from anyon.services.recoveries import Recovered, Recoveries
from anyon.services.states import Source, State, States, choose
from anyon.storage import servers
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.keys import Keys
from anyon.storage.objects import ObjectStore
from anyon.wiring import keys, stores
from anyon.wiring.pidfile import only_server

__all__ = ["Recovered", "Recovery", "Wish", "recover"]

_FROM_CHECKPOINTS = State(source=Source.CHECKPOINTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be recovered, and from where.

    ``source`` None is the store that is set, ``key_file`` None the keys that are set. ``state`` is
    a name of ``Source`` for the server's own records, ``auto`` the best there is; ``server`` says
    whose, where the store has several. ``is_forced`` shuts out who holds a project still.
    """

    source: str | None = None
    key_file: str | None = None
    state: str = "auto"
    server: str | None = None
    is_dry: bool = False
    is_forced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What was taken up: each project of the store, and where the server's records came from."""

    projects: Sequence[Recovered]
    state: State


async def recover(settings: Settings, wish: Wish) -> Recovery:
    """Take up what a store has into the home that is set.

    No server may run on it (``home_in_use``). Where the home has a database already its rows are
    left as they are, and only projects that it lacks are taken up, from their checkpoints. A dry
    run makes nothing, not even the home.
    """
    settings = settings if wish.source is None else replace(settings, store=wish.source)
    settings = settings if wish.key_file is None else replace(settings, key_file=wish.key_file)
    if wish.state != "auto" and wish.state not in set(Source):
        raise InvalidInputError(
            f"there is no state {wish.state!r}",
            code="bad_state",
            hint=f"It is auto, {', '.join(Source)}.",
        )
    await asyncio.to_thread(_check_place, settings)
    objects = await asyncio.to_thread(stores.store, settings)
    if objects is None:
        raise InvalidInputError("no store is set", code="bad_store", hint="Give --from STORE.")
    opening = await asyncio.to_thread(keys.opening_keys, settings, objects)
    if wish.is_dry:
        return await _look(settings, objects, opening, wish)
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with only_server(settings.home, address="anyon recover"):
        return await _recover(settings, objects, opening, wish)


async def _look(settings: Settings, objects: ObjectStore, opening: Keys, wish: Wish) -> Recovery:
    """Say what would be done; the server's records are not read for it, only found."""
    path = settings.home / "anyon.db"
    database = Database(settings.database_url or path)
    is_there = bool(settings.database_url) or path.exists()
    state = _FROM_CHECKPOINTS
    if not is_there and wish.state != Source.CHECKPOINTS:
        found = await asyncio.to_thread(choose, objects, wish.server)
        if found is not None:
            source = Source.REPLICA if found.replicas else Source.SNAPSHOT
            state = State(source=source, server=found.server, at=found.newest_at)
    done = await _take_up(settings, objects, opening, wish, database=database if is_there else None)
    return Recovery(projects=done, state=state)


async def _recover(settings: Settings, objects: ObjectStore, opening: Keys, wish: Wish) -> Recovery:
    path = settings.home / "anyon.db"
    if settings.database_url or path.exists() or wish.state == Source.CHECKPOINTS:
        database = Database(settings.database_url or path)
        done = await _take_up(settings, objects, opening, wish, database=database)
        return Recovery(projects=done, state=_FROM_CHECKPOINTS)
    # Made whole beside its place: a recovery that is broken off begins anew.
    staged = settings.home / "recovering.db"
    state = await asyncio.to_thread(_bring_back, settings, objects, opening, wish, staged)
    done = await _take_up(settings, objects, opening, wish, database=Database(staged), state=state)
    reached("recover.taken_up")
    if state.server:
        # Before the database is in its place: with one there, a repeat would not come here again.
        # It counts from when this server has state of its own; until then the lost one's does.
        new = await asyncio.to_thread(server_id, settings.home)
        await asyncio.to_thread(servers.succeed, objects, state.server, new)
        reached("recover.succeeded")
    await asyncio.to_thread(_put_in_place, staged, path)
    reached("recover.placed")
    return Recovery(projects=done, state=state)


def _bring_back(
    settings: Settings, objects: ObjectStore, opening: Keys, wish: Wish, staged: Path
) -> State:
    for suffix in ("", "-wal", "-shm"):
        staged.with_name(staged.name + suffix).unlink(missing_ok=True)
    found = choose(objects, wish.server)
    if found is None:
        if wish.state != "auto":
            raise NotFoundError(
                f"the store has no {wish.state} of a server's records", code="state_unknown"
            )
        return _FROM_CHECKPOINTS
    wanted = None if wish.state == "auto" else Source(wish.state)
    states = States(objects, opening, found, settings.home / "recovering")
    state = states.bring_back(staged, wanted=wanted)
    if wanted is not None and state.source is not wanted:
        raise NotFoundError(
            f"the store has no usable {wanted} of {found.server}: {'; '.join(state.notes)}",
            code="state_unknown",
            hint="Recover with --state auto.",
        )
    return state


def _put_in_place(staged: Path, path: Path) -> None:
    path.with_name(f"{path.name}-wal").unlink(missing_ok=True)  # of one that was broken off here
    log = staged.with_name(f"{staged.name}-wal")
    if log.exists():  # usually not: the last connection has emptied it
        log.replace(path.with_name(f"{path.name}-wal"))
    staged.replace(path)
    staged.with_name(f"{staged.name}-shm").unlink(missing_ok=True)


async def _take_up(
    settings: Settings,
    objects: ObjectStore,
    opening: Keys,
    wish: Wish,
    *,
    database: Database | None,
    state: State | None = None,
) -> Sequence[Recovered]:
    clock = SystemClock()
    checkpoints = Checkpoints(
        objects,
        cache=settings.home / "checkpoints",
        clock=clock,
        keys=opening,
        server="" if wish.is_dry else await asyncio.to_thread(server_id, settings.home),
    )
    recoveries = Recoveries(
        checkpoints=checkpoints,
        db=database,
        homes=Homes(settings.home),
        clock=clock,
        state_at=state.at if state is not None else None,
    )
    try:
        if database is not None:
            await database.open()
        return await recoveries.recover(is_dry=wish.is_dry, is_forced=wish.is_forced)
    finally:
        await checkpoints.close()
        if database is not None:
            await database.close()


def _check_place(settings: Settings) -> None:
    """Refuse a directory that is not there: the driver would make it, and find nothing in it."""
    place = Path(settings.store).expanduser() if settings.store else settings.home / "store"
    if settings.store != "none" and "://" not in settings.store and not place.is_dir():
        raise NotFoundError(f"there is no store in {place}", code="store_unknown")
