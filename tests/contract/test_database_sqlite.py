"""SQLite keeps the contract, and what is asked of it alone."""

import asyncio
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from anyon.db import sqlite
from anyon.db.databases import Database
from anyon.domain.errors import UnavailableError
from anyon.testing.database_contract import DatabaseContract
from anyon.testing.database_pictures import PicturesContract


class TestSqlite(PicturesContract, DatabaseContract):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        """Return the path of a database that is not there yet."""
        return str(tmp_path / "new" / "anyon.db")

    async def test_what_durability_rests_on(self, db: Database) -> None:
        """Every connection that writes has WAL, full synchronisation and foreign keys."""

        def settings(connection: Connection) -> list[object]:
            names = ("journal_mode", "synchronous", "foreign_keys", "trusted_schema")
            return [connection.execute(text(f"PRAGMA {name}")).scalar() for name in names]

        assert await db.write(settings) == ["wal", 2, 1, 0]

    async def test_readers_never_checkpoint(self, db: Database) -> None:
        """Only the writer's connection checkpoints."""

        def pages(connection: Connection) -> object:
            return connection.execute(text("PRAGMA wal_autocheckpoint")).scalar()

        assert set(await asyncio.gather(*(db.read(pages) for _ in range(8)))) == {0}
        assert await db.write(pages) == 1000

    async def test_only_the_owner_may_read_it(self, db: Database, url: str) -> None:
        """The file is nobody else's to read: it holds what users wrote."""
        assert Path(url).stat().st_mode & 0o077 == 0

    async def test_damage_is_refused(self, db: Database, url: str) -> None:
        """A damaged file is refused with a clear code and left as it is."""
        await db.close()
        path = Path(url)
        data = bytearray(path.read_bytes())
        data[4096 : 4096 + 64] = b"\xff" * 64
        path.write_bytes(data)
        with pytest.raises(UnavailableError) as caught:
            await Database(url).open()
        assert caught.value.code == "database_corrupt"
        assert path.read_bytes() == data

    async def test_what_is_no_database_is_refused(self, tmp_path: Path) -> None:
        """A file of something else, and a directory, are refused in our words and left as they are."""
        file = tmp_path / "file"
        file.write_bytes(b"not a database, but long enough to be looked at" * 100)
        for path, code in ((file, "database_corrupt"), (tmp_path, "database_unavailable")):
            with pytest.raises(UnavailableError) as caught:
                await Database(path).open()
            assert caught.value.code == code
        assert file.read_bytes().startswith(b"not a database")

    async def test_a_setting_that_does_not_take_is_refused(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where SQLite answers another value than was set (as for WAL on some file systems), nothing is opened."""
        monkeypatch.setitem(sqlite._SETTINGS, "journal_mode", "memory_of_water")
        with pytest.raises(UnavailableError) as caught:
            await Database(url).open()
        assert caught.value.code == "wal_refused"

    async def test_a_full_disk_is_named(self, db: Database, url: str) -> None:
        """A write for which there is no room fails as such, did nothing, and later ones succeed."""

        def bound(connection: Connection, pages: int) -> None:
            connection.execute(text(f"PRAGMA max_page_count = {pages}"))

        def fill(connection: Connection) -> None:
            connection.execute(text("INSERT INTO users VALUES (:x, :x, 't')"), {"x": "x" * 10**6})

        await db.write(bound, 1)
        with pytest.raises(UnavailableError) as caught:
            await db.write(fill)
        assert caught.value.code == "disk_full"
        await db.write(bound, 10**6)
        await db.write(fill)

    async def test_readers_do_not_wait_for_a_writer(self, db: Database) -> None:
        """A read answers while a write is under way, with the state before it."""
        began = asyncio.Event()
        loop = asyncio.get_running_loop()
        go_on = asyncio.run_coroutine_threadsafe

        def slow(connection: Connection) -> None:
            connection.execute(text("INSERT INTO users VALUES ('x', 'x', 'x')"))
            loop.call_soon_threadsafe(began.set)
            go_on(may_end.wait(), loop).result(30)

        may_end = asyncio.Event()
        writing = asyncio.create_task(db.write(slow))
        await began.wait()
        count = await db.read(lambda c: c.execute(text("SELECT count(*) FROM users")).scalar())
        assert count == 0
        may_end.set()
        await writing


@pytest.mark.parametrize(
    ("version", "is_safe"),
    [
        ((3, 40, 1), False),
        ((3, 44, 5), False),
        ((3, 44, 6), True),
        ((3, 45, 3), False),
        ((3, 50, 7), True),
        ((3, 51, 2), False),
        ((3, 51, 3), True),
        ((3, 53, 4), True),
    ],
)
def test_versions(version: tuple[int, ...], is_safe: bool) -> None:
    """Libraries with the WAL-reset bug are told from those without."""
    assert sqlite.is_safe_version(version) is is_safe


def test_the_library_is_safe() -> None:
    """The library that is used is one that is safe; the control is Python's own, where it is old."""
    assert sqlite.is_safe_version(sqlite.library().sqlite_version_info)
    own_is_safe = sqlite.is_safe_version(sqlite3.sqlite_version_info)
    assert own_is_safe == (sqlite3.sqlite_version_info >= (3, 51, 3))


_WRITER = """
import asyncio, sys
from anyon.db.databases import Database
from anyon.db import users
from datetime import datetime, UTC
async def main():
    db = Database(sys.argv[1])
    await db.open()
    for number in range(100_000):
        await db.write(users.ensure, str(number), "x", datetime.now(UTC))
        print(number, flush=True)
asyncio.run(main())
"""


async def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    """Each write that returned before kill -9 is there afterwards, and the file is whole."""
    path = tmp_path / "anyon.db"
    with subprocess.Popen([sys.executable, "-c", _WRITER, path], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(50)]
        writer.kill()
        rest = writer.stdout.read()
    last = int((lines + [line for line in rest.split(b"\n") if line])[-1])
    db = Database(path)
    await db.open()
    count = await db.read(lambda c: c.execute(text("SELECT count(*) FROM users")).scalar())
    assert count >= last + 1
    await db.close()
