"""Stories of the server's own state in which it dies: replica, whole copies, and its way back."""

import shutil
import signal
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.faults.agreement import rows
from tests.faults.failpoint_stages import Archive, Stage
from tests.faults.mortal_servers import asked, wait_for

from anyon.services.homes import server_id
from anyon.services.states import Source
from anyon.storage import servers
from anyon.storage.drivers.files import FilesStore
from anyon.storage.keys import PlainKeys
from anyon.storage.objects import ObjectStore
from anyon.storage.replicas import Replica, fetch
from anyon.storage.snapshots import POLICY, Snapshots
from anyon.wiring.recover import Recovery, Wish, recover

_FAST = {"ANYON_REPLICA_INTERVAL": "200ms", "ANYON_SNAPSHOT_INTERVAL": "0"}
_COPIES = {"ANYON_REPLICA_INTERVAL": "0", "ANYON_SNAPSHOT_INTERVAL": "300ms"}


def replicate(stage: Stage, point: str) -> None:
    """Die while the replica is carried on; the next life carries it on, and all is in it."""
    _die_while_copying(stage, point, "replicated", _FAST, Source.REPLICA)


def copy(stage: Stage, point: str) -> None:
    """Die while a whole copy is made; the next life makes one, and leaves nothing of the former."""
    other = _die_while_copying(stage, point, "copied", _COPIES, Source.SNAPSHOT)
    made = other.home / "litestream" / "snapshot.db"
    wait_for(lambda: not made.exists(), "a copy here to go")


def _die_while_copying(
    stage: Stage, point: str, name: str, more: dict[str, str], source: Source
) -> Stage:
    other = stage.other(name, **more)
    one = other.running()
    other.save(one)
    other.server.kill()
    other.server.start(point)
    assert other.server.end() == -signal.SIGKILL, f"the server did not die at {point}"
    other.server.start()
    other.server.answer()
    made = other.create()
    assert made is not None
    other.save(made)
    other.agreed()
    wait_for(lambda: made.id in _brought_back(other, source), f"the {source} to have it")
    other.server.kill(signal.SIGTERM)
    other.server.start()
    other.server.answer()
    other.tidy()
    return other


def _brought_back(other: Stage, source: Source) -> set[str]:
    """Return the projects that a recovery from the store as it is now gives."""
    home = other.home.with_name(f"{other.home.name}-looked-at")
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(other.home / "store", home / "store")
    settings = Stage(home, other.engine).server.settings()

    async def look() -> str:
        try:
            done: Recovery = await recover(settings, Wish(state=source, is_forced=True))
        except Exception as error:  # noqa: BLE001 - it is looked at again; the deadline tells
            return f"not yet: {error}"
        return done.state.source

    found = asked(look)
    return set(rows(home)) if found == source else set()


def compact(stage: Stage, point: str) -> None:
    """Die while files go that were compacted, or a former replica's; the next round ends it."""
    top = stage.home.with_name(f"{stage.home.name}-replica{stage.count()}")
    archive = Archive(top)
    if point == "replica.former_dropped":
        _write(top, "0/{0}-{0}.ltx", 1, 2)
        archive.life(lambda: _mirrored(top))
        shutil.rmtree(top / "replica")
        _write(top, "9/{0}-{0}.ltx", 1, 2)
    else:
        _write(top, "0/{0}-{0}.ltx", 1, 2, 3)
        archive.life(lambda: _mirrored(top))
        for path in (top / "replica" / "ltx" / "0").iterdir():
            path.unlink()
        _write(top, "1/{0}-{0}.ltx", 3)
    archive.life(lambda: _mirrored(top), point)
    assert _newest(top) == (2 if point == "replica.former_dropped" else 3)
    archive.life(lambda: _mirrored(top))
    here = {f"{p.parent.name}/{p.name}" for p in (top / "replica" / "ltx").glob("*/*")}
    store = FilesStore(top / "store")
    there = [info.key.rsplit("/", 2)[1:] for info in store.list("server/one/replica/")]
    assert {"/".join(names) for names in there} == here
    assert len({info.key.split("/")[3] for info in store.list("server/one/replica/")}) == 1


async def _mirrored(top: Path) -> None:
    replica = Replica(FilesStore(top / "store"), PlainKeys(), "one", top / "replica")
    # What goes while one round lists is dropped by the next.
    for _ in range(2):
        replica.mirror(datetime.now(UTC))


def _write(top: Path, form: str, *transactions: int) -> None:
    for number in transactions:
        path = top / "replica" / "ltx" / form.format(f"{number:016x}")
        path.parent.mkdir(parents=True, exist_ok=True)
        head = (b"LTX1", 0, 4096, 1, number, number, 1_000)
        path.write_bytes(struct.pack(">4sIIIQQq", *head) + b"pages")


def _newest(top: Path) -> int:
    """Return the last transaction that can be had from the store."""
    store: ObjectStore = FilesStore(top / "store")
    (state,) = servers.states(store)
    target = top / "fetched"
    fetch(store, PlainKeys(), "one", state.replicas[-1], target)
    found = max(int(path.stem.partition("-")[2], 16) for path in target.glob("ltx/*/*"))
    shutil.rmtree(target)
    return found


def prune(stage: Stage, point: str) -> None:
    """Die while old copies go: what still counts is whole, and the next pruning ends it."""
    top = stage.home.with_name(f"{stage.home.name}-snapshots{stage.count()}")
    archive, now = Archive(top), datetime.now(UTC)
    snapshots = Snapshots(FilesStore(top / "store"), PlainKeys(), "one")

    async def fill() -> None:
        for number in range(4):
            (top / "copy").write_bytes(b"database %d" % number)
            snapshots.put(top / "copy", now - POLICY.monthly * 2 + timedelta(minutes=number))
        snapshots.put(top / "copy", now)

    async def drop() -> None:
        snapshots.prune(now + timedelta(days=1))

    archive.life(fill)
    archive.life(drop, point)
    archive.life(drop)
    (state,) = servers.states(FilesStore(top / "store"))
    (left,) = state.snapshots
    snapshots.fetch(left, top / "fetched")
    assert (top / "fetched").read_bytes() == b"database 3"
    assert len(list(FilesStore(top / "store").list("server/one/snapshots/"))) == 2


def bring_back(stage: Stage, point: str) -> None:
    """Die in a recovery of a lost server; repeated it ends, and the lost one is a candidate no more."""
    lost = stage.other("lost", **_FAST)
    one = lost.standing
    if one is None:
        one = lost.running()
        lost.save(one)
        lost.server.kill(signal.SIGTERM)
        lost.server.start(ANYON_REPLICA_INTERVAL="0")  # answers nobody; its end finds it
    new = Stage(stage.home.with_name(f"{stage.home.name}-{stage.count()}"), stage.engine)
    shutil.copytree(lost.home / "store", new.home / "store")

    async def try_it() -> None:
        await recover(new.server.settings(), Wish(is_forced=True))

    archive = Archive(new.home / "unused")
    archive.life(try_it, point)
    archive.life(try_it)
    shutil.rmtree(archive.root)
    assert rows(new.home).keys() == {one.id}
    assert list(new.home.glob("recovering*")) == []
    states = {s.server: s.successor for s in servers.states(FilesStore(new.home / "store"))}
    assert states[server_id(lost.home)] == server_id(new.home)
    new.take_up(one)
