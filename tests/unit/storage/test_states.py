"""Replicas and snapshots of a server's database in a store."""

import contextlib
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from anyon.db import litestream
from anyon.db import snapshots as database_snapshots
from anyon.db.sqlite import library
from anyon.domain.errors import AnyonError
from anyon.services.states import Source, States, choose
from anyon.storage import envelopes, keyfiles, replicas, servers
from anyon.storage.drivers.memory import MemoryStore
from anyon.storage.keys import FileKeys, Keys, PlainKeys
from anyon.storage.objects import DamagedError
from anyon.storage.replicas import Replica
from anyon.storage.snapshots import Snapshots

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture(params=["plain", "sealed"])
def keys(request: pytest.FixtureRequest, tmp_path: Path) -> Keys:
    """Return keys that seal, and those that do not."""
    if request.param == "plain":
        return PlainKeys()
    keyfiles.make(tmp_path / "keys.json")
    return FileKeys(tmp_path / "keys.json")


def test_an_envelope(keys: Keys) -> None:
    """It opens under its own name only, and any changed byte is seen."""
    envelope = envelopes.wrap(keys.current("server/a"), "name", b"value" * 100)
    assert envelopes.unwrap(keys, "server/a", "name", envelope) == b"value" * 100
    for place, name in (("server/a", "other"), ("server/b", "name")):
        with pytest.raises(DamagedError):
            envelopes.unwrap(keys, place, name, envelope)
    for at in (0, 20, len(envelope) // 2, len(envelope) - 1):
        spoilt = envelope[:at] + bytes([envelope[at] ^ 1]) + envelope[at + 1 :]
        with pytest.raises(AnyonError):
            envelopes.unwrap(keys, "server/a", "name", spoilt)
    with pytest.raises(DamagedError):
        envelopes.unwrap(keys, "server/a", "name", envelope[:-1])


class Database:
    """A database in WAL mode, and Litestream over it when it is asked to."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.path = place / "anyon.db"
        self.replica = place / "litestream" / "replica"
        self.connection = library().connect(str(self.path), isolation_level=None)
        self.connection.execute("PRAGMA journal_mode = wal")
        self.connection.execute("CREATE TABLE numbers (number)")

    def write(self, count: int) -> None:
        """Commit so many rows, each alone."""
        for number in range(count):
            self.connection.execute("INSERT INTO numbers VALUES (?)", (number,))

    def replicate(self) -> None:
        """Let Litestream write what is new."""
        binary = litestream.program()
        assert binary is not None
        config = self.place / "config.json"
        config.write_text(
            litestream.config(
                self.path, self.place / "litestream", interval=timedelta(milliseconds=50)
            )
        )
        command = [binary, "replicate", "-once", "-force-snapshot", "-config", config]
        subprocess.run(command, check=True, capture_output=True, timeout=60)


def rows(path: Path) -> int:
    """Return how many rows a copy has."""
    connection = library().connect(str(path))
    found = connection.execute("SELECT count(*) FROM numbers").fetchone()[0]
    connection.close()
    return int(found)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    """Return a database with ten rows."""
    made = Database(tmp_path)
    made.write(10)
    return made


def brought_back(
    store: MemoryStore, keys: Keys, tmp_path: Path, wanted: Source | None = None
) -> tuple[Source, int, int]:
    """Return where the database came from, its rows, and how much was not usable."""
    found = choose(store, None)
    assert found is not None
    target = tmp_path / "back.db"
    target.unlink(missing_ok=True)
    state = States(store, keys, found, tmp_path / "scratch").bring_back(target, wanted=wanted)
    assert not (tmp_path / "scratch").exists()
    count = rows(target) if state.source is not Source.CHECKPOINTS else 0
    return state.source, count, len(state.notes)


def test_a_replica_comes_back(database: Database, keys: Keys, tmp_path: Path) -> None:
    """What Litestream wrote is carried on, file by file, and restored with every row."""
    store = MemoryStore()
    replica = Replica(store, keys, "one", database.replica)
    database.replicate()
    assert replica.mirror(NOW) > 0
    assert replica.mirror(NOW) == 0
    database.write(7)
    database.replicate()
    assert replica.mirror(NOW) > 0
    assert brought_back(store, keys, tmp_path) == (Source.REPLICA, 17, 0)


def test_any_beginning_of_a_mirror_can_be_restored(database: Database, tmp_path: Path) -> None:
    """Wherever a mirror is cut off, the store has enough for a restore, only older."""
    database.replicate()
    for _ in range(3):
        database.write(1)
        database.replicate()
    whole = MemoryStore()
    Replica(whole, PlainKeys(), "one", database.replica).mirror(NOW)
    count = len(list(whole.list("")))
    found = []
    for cut in range(1, count + 1):
        store, left = MemoryStore(), cut

        def check() -> None:
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1

        with contextlib.suppress(KeyboardInterrupt):
            Replica(store, PlainKeys(), "one", database.replica).mirror(NOW, check)
        found.append(brought_back(store, PlainKeys(), tmp_path)[1])
    assert found == sorted(found)
    assert (found[0] >= 10, found[-1]) == (True, 13)


def test_what_litestream_dropped_goes_one_round_later(database: Database, tmp_path: Path) -> None:
    """A file that is gone here leaves the store only after its successor has surely come."""
    store = MemoryStore()
    replica = Replica(store, PlainKeys(), "one", database.replica)
    database.replicate()
    database.write(1)
    database.replicate()
    replica.mirror(NOW)
    gone = min((database.replica / "ltx" / "0").iterdir())
    gone.unlink()
    replica.mirror(NOW)
    assert any(info.key.endswith(gone.name) for info in store.list("server/one/replica"))
    replica.mirror(NOW)
    assert not any(info.key.endswith(f"/0/{gone.name}") for info in store.list(""))


def test_a_directory_that_was_made_anew(database: Database, tmp_path: Path) -> None:
    """Its numbers begin anew, so it is a generation of its own; the former goes once it is whole."""
    store = MemoryStore()
    database.replicate()
    Replica(store, PlainKeys(), "one", database.replica).mirror(NOW)
    subprocess.run(["rm", "-rf", database.place / "litestream"], check=True)
    database.write(5)
    replica = Replica(store, PlainKeys(), "one", database.replica)
    replica.mirror(NOW + timedelta(seconds=1))  # nothing there yet: the former one stays
    assert brought_back(store, PlainKeys(), tmp_path) == (Source.REPLICA, 10, 0)
    database.replicate()
    replica.mirror(NOW + timedelta(seconds=2))
    assert len(servers.states(store)[0].replicas) == 1
    assert brought_back(store, PlainKeys(), tmp_path) == (Source.REPLICA, 15, 0)


def test_a_damaged_replica(database: Database, keys: Keys, tmp_path: Path) -> None:
    """It is seen, told, and the last snapshot is taken; of damaged snapshots the one before."""
    store = MemoryStore()
    snapshots = Snapshots(store, keys, "one")
    for moment in range(3):
        snapshots.put(copied(database, tmp_path), NOW + timedelta(hours=moment))
        database.write(1)
    database.replicate()
    Replica(store, keys, "one", database.replica).mirror(NOW)
    spoil(store, "server/one/replica/")
    assert brought_back(store, keys, tmp_path) == (Source.SNAPSHOT, 12, 1)
    spoil(store, f"server/one/snapshots/{NOW + timedelta(hours=2):%Y%m%dT%H%M%S}")
    assert brought_back(store, keys, tmp_path) == (Source.SNAPSHOT, 11, 2)
    spoil(store, "server/one/snapshots/")
    assert brought_back(store, keys, tmp_path) == (Source.CHECKPOINTS, 0, 4)


def copied(database: Database, tmp_path: Path) -> Path:
    """Return a fresh copy of the database."""
    target = tmp_path / "copy.db"
    target.unlink(missing_ok=True)
    database_snapshots.take(database.path, target)
    return target


def spoil(store: MemoryStore, prefix: str) -> None:
    """Cut a byte off every object."""
    for info in list(store.list(prefix)):
        data = store.get(info.key).data
        store.put(info.key, data[:-1])


def test_a_snapshot_that_is_newer_than_the_replica(database: Database, tmp_path: Path) -> None:
    """Where Litestream stood still, the whole copy of a later moment is taken."""
    store = MemoryStore()
    database.replicate()
    Replica(store, PlainKeys(), "one", database.replica).mirror(NOW)
    assert brought_back(store, PlainKeys(), tmp_path) == (Source.REPLICA, 10, 0)
    database.write(3)
    later = datetime.now(UTC) + timedelta(minutes=5)
    Snapshots(store, PlainKeys(), "one").put(copied(database, tmp_path), later)
    assert brought_back(store, PlainKeys(), tmp_path) == (Source.SNAPSHOT, 13, 0)
    assert brought_back(store, PlainKeys(), tmp_path, Source.REPLICA)[0] is Source.REPLICA


def test_retention_of_snapshots(database: Database, tmp_path: Path) -> None:
    """The last hours', one of each day and the newest stay; what a crash left goes in time."""
    store, now = MemoryStore(), datetime.now(UTC)
    snapshots = Snapshots(store, PlainKeys(), "one")
    file = copied(database, tmp_path)
    for hours in range(0, 24 * 5, 2):
        snapshots.put(file, now - timedelta(hours=hours))
    store.put("server/one/snapshots/20200101T000000.000000Z-dead/000000", b"left")
    snapshots.prune(now)
    assert any("dead" in info.key for info in store.list("")), "it may be being written"
    gone = snapshots.prune(now + timedelta(hours=7))
    left = servers.states(store)[0].snapshots
    assert gone + len(left) <= 60
    assert 10 <= len(left) <= 20
    assert not any("dead" in info.key for info in store.list(""))
    names = {info.key.split("/")[3] for info in store.list("server/one/snapshots/")}
    assert names == set(left), "no part without its manifest"


def test_an_upload_that_is_cut_is_no_snapshot(database: Database, tmp_path: Path) -> None:
    """Without its manifest nothing is taken for a snapshot."""
    store = MemoryStore()

    def check() -> None:
        if list(store.list("")):
            raise KeyboardInterrupt

    file = tmp_path / "big.db"
    file.write_bytes(bytes(20 << 20))
    with pytest.raises(KeyboardInterrupt):
        Snapshots(store, PlainKeys(), "one").put(file, NOW, check)
    assert list(store.list(""))
    assert servers.states(store)[0].snapshots == []


def test_several_servers(database: Database, tmp_path: Path) -> None:
    """Whose state is wanted must be said where the store has those of several."""
    store = MemoryStore()
    file = copied(database, tmp_path)
    for server in ("one", "two"):
        Snapshots(store, PlainKeys(), server).put(file, NOW)
    with pytest.raises(AnyonError) as caught:
        choose(store, None)
    assert (caught.value.code, "--server" in caught.value.hint) == ("several_servers", True)
    found = choose(store, "two")
    assert found is not None
    assert found.server == "two"
    with pytest.raises(AnyonError) as caught:
        choose(store, "three")
    assert caught.value.code == "server_unknown"
    assert choose(MemoryStore(), None) is None
    servers.succeed(store, "one", "two")
    found = choose(store, None)
    assert found is not None
    assert found.server == "two", "the lost one's state was taken up by it"
    servers.succeed(store, "two", "three")
    found = choose(store, None)
    assert found is not None
    assert found.server == "two", "the third has no state of its own yet"


def test_a_replica_of_nonsense(tmp_path: Path) -> None:
    """Files that are none of Litestream's are damage, not a crash."""
    store, keys = MemoryStore(), PlainKeys()
    key = "server/one/replica/g/0/0000000000000001-0000000000000001.ltx"
    for data in (b"", b"x" * 100):
        store.put(key, envelopes.wrap(keys.current("server/one"), key, data))
        with pytest.raises(DamagedError):
            replicas.fetch(store, keys, "one", "g", tmp_path / "t")
    with pytest.raises(DamagedError):
        replicas.fetch(store, keys, "one", "none", tmp_path / "t")


def test_the_settings_hold_no_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Litestream writes to a directory: it gets no credentials, in its file or its environment."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    text = litestream.config(tmp_path / "db", tmp_path, interval=timedelta(seconds=1))
    assert "very-secret" not in text
    assert set(litestream.environment()) == {"PATH", "GOMEMLIMIT"}
