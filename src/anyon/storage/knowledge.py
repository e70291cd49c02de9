"""What this machine knows of a project's last checkpoint, so that the next one is quick.

A cache: losing it costs one full reading of the files and nothing else. It says for each
directory how it looked when it was last captured, and for each chunk which pack has it.
"""

import contextlib
import sqlite3
import struct
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anyon.domain.errors import AnyonError, UnavailableError
from anyon.storage.packs import Pack

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS folders (
    key BLOB PRIMARY KEY, looks BLOB NOT NULL, own BLOB NOT NULL, attributes TEXT NOT NULL,
    node BLOB NOT NULL, packs BLOB NOT NULL, files INTEGER NOT NULL, bytes INTEGER NOT NULL,
    unreadable INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS contents (key BLOB PRIMARY KEY, entries BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS packs (number INTEGER PRIMARY KEY, id TEXT UNIQUE, bytes INTEGER);
CREATE TABLE IF NOT EXISTS chunks (id BLOB PRIMARY KEY, pack INTEGER NOT NULL) WITHOUT ROWID;
"""
_VERSION = 2


class KnowledgeDamagedError(AnyonError):
    """The cache cannot be used; begin another."""

    default_code = "checkpoint_cache_damaged"


@dataclass(frozen=True, slots=True)
class FolderFacts:
    """How a directory looked when it was captured, and what it became."""

    looks: bytes
    """A hash over the names and times of its entries; empty if they were too young to trust."""
    own: bytes
    """Its own times, packed; empty likewise."""
    attributes: str
    """Its own attributes, encoded for its parent's node."""
    node: bytes
    packs: frozenset[int]
    """The packs that hold its node and its files' chunks."""
    files: int
    bytes: int
    unreadable: int
    """Files in it that could not be read, and so are not kept."""


@dataclass(frozen=True, slots=True)
class Whole:
    """What the directories of all trees have together."""

    files: int
    bytes: int
    unreadable: int
    packs: frozenset[int]


class Folders(Mapping[bytes, FolderFacts]):
    """What is known of each directory, read one by one until ``load`` or until all are asked for."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._found: dict[bytes, FolderFacts | None] = {}
        self._all: dict[bytes, FolderFacts] | None = None

    def load(self) -> dict[bytes, FolderFacts]:
        """Read all, and return them."""
        if self._all is None:
            packs: dict[bytes, frozenset[int]] = {}
            with _translated():
                self._all = {
                    row[0]: _facts(row, packs) for row in self._db.execute("SELECT * FROM folders")
                }
        return self._all

    def get(self, key: bytes, default: Any = None) -> Any:
        """Return what is known of one directory."""
        if self._all is not None:
            return self._all.get(key, default)
        if key not in self._found:
            with _translated():
                row = self._db.execute("SELECT * FROM folders WHERE key=?", (key,)).fetchone()
                self._found[key] = None if row is None else _facts(row, {})
        found = self._found[key]
        return default if found is None else found

    def __getitem__(self, key: bytes) -> FolderFacts:
        found: FolderFacts | None = self.get(key)
        if found is None:
            raise KeyError(key)
        return found

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.load())

    def __len__(self) -> int:
        return len(self.load())


class Knowledge:
    """One project's cache file. Used by one save at a time."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = file
        with _translated():
            self._open()
        self.glances = file.with_name(f"{file.name}-glances")
        """Where a save keeps what it saw of the trees as a whole; see ``glances``."""
        self._load()

    def _open(self) -> None:
        self._db = sqlite3.connect(self._file, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version not in {0, _VERSION}:
            raise sqlite3.DatabaseError("of another version")
        self._db.executescript(_SCHEMA)
        self._db.execute(f"PRAGMA user_version={_VERSION}")

    def _load(self) -> None:
        with _translated():
            self._read()

    def _read(self) -> None:
        facts = dict(self._db.execute("SELECT name, value FROM facts"))
        self.basis: str = facts.get("basis", "")
        self.folders = Folders(self._db)
        rows = self._db.execute("SELECT number, id, bytes FROM packs").fetchall()
        self._packs = {number: (pack, size) for number, pack, size in rows}
        self.has_chunks: bool = bool(self._packs)

    def close(self) -> None:
        """Release the file."""
        self._db.close()

    def forget(self, packs: Iterable[Pack] = ()) -> None:
        """Begin anew, knowing only that these *packs* are in the store."""
        with self._transaction():
            for table in ("facts", "folders", "contents", "packs", "chunks"):
                self._db.execute(f"DELETE FROM {table}")  # noqa: S608 - names from this line
            self._packs = {}
            self._add_packs(packs)
        self._load()

    def pack_of(self, chunk: bytes) -> int | None:
        """Return the number of the pack that holds *chunk*, if any does."""
        with _translated():
            row = self._db.execute("SELECT pack FROM chunks WHERE id=?", (chunk,)).fetchone()
        return None if row is None else int(row[0])

    def contents(self, key: bytes) -> bytes | None:
        """Return what was kept of a directory's entries."""
        with _translated():
            row = self._db.execute("SELECT entries FROM contents WHERE key=?", (key,)).fetchone()
        return None if row is None else bytes(row[0])

    def pack(self, number: int) -> tuple[str, int]:
        """Return a pack's id and size."""
        return self._packs[number]

    def small_packs(self, below_bytes: int) -> frozenset[int]:
        """Return the numbers of the packs that are smaller than that."""
        return frozenset(n for n, (_, size) in self._packs.items() if size < below_bytes)

    def next_number(self) -> int:
        """Return the number that the next new pack gets."""
        return max(self._packs, default=0) + 1

    def whole(self, changed: Mapping[bytes, FolderFacts], gone: Collection[bytes]) -> Whole:
        """Return what all directories have together once *changed* are so and *gone* are not there."""
        counts: Counter[frozenset[int]] = Counter()
        files = size = unreadable = 0
        with _translated():
            rows = self._db.execute(
                "SELECT packs, count(*), sum(files), sum(bytes), sum(unreadable)"
                " FROM folders GROUP BY packs"
            ).fetchall()
        for packs, count, *sums in rows:
            counts[_unpacked(packs)] += count
            files, size, unreadable = files + sums[0], size + sums[1], unreadable + sums[2]
        before = (self.folders.get(key) for key in {*changed, *gone})
        for sign, each in ((-1, filter(None, before)), (1, changed.values())):
            for facts in each:
                counts[facts.packs] += sign
                files += sign * facts.files
                size += sign * facts.bytes
                unreadable += sign * facts.unreadable
        live = frozenset().union(*(packs for packs, count in counts.items() if count > 0))
        return Whole(files, size, unreadable, live)

    def replace(
        self,
        basis: str,
        changed: Mapping[bytes, FolderFacts],
        gone: Collection[bytes],
        contents: Mapping[bytes, bytes],
        *,
        new_packs: dict[int, Pack],
        live: Collection[int],
    ) -> None:
        """Keep what a save has learnt: which directories changed, what is in them, which packs are needed."""
        dead = (self._packs.keys() | new_packs.keys()) - set(live)
        if basis == self.basis and not (changed or gone or contents or new_packs or dead):
            return
        with self._transaction():
            self._add_packs(new_packs.values(), new_packs)
            self._db.executemany(
                "INSERT OR REPLACE INTO folders VALUES (?,?,?,?,?,?,?,?,?)",
                (
                    (
                        k,
                        f.looks,
                        f.own,
                        f.attributes,
                        f.node,
                        _packed(f.packs),
                        f.files,
                        f.bytes,
                        f.unreadable,
                    )
                    for k, f in changed.items()
                ),
            )
            self._db.executemany("INSERT OR REPLACE INTO contents VALUES (?,?)", contents.items())
            for table in ("folders", "contents"):
                self._db.executemany(
                    f"DELETE FROM {table} WHERE key=?",  # noqa: S608 - names from the line above
                    ((key,) for key in gone),
                )
            # The objects of the others may be collected as garbage: nothing may be built on them.
            if dead:
                self._db.executemany("DELETE FROM packs WHERE number=?", [(n,) for n in dead])
                self._db.execute("DELETE FROM chunks WHERE pack NOT IN (SELECT number FROM packs)")
            self._db.execute("INSERT OR REPLACE INTO facts VALUES ('basis', ?)", (basis,))
        self.basis = basis

    def _add_packs(self, packs: Iterable[Pack], numbers: Iterable[int] | None = None) -> None:
        chosen = iter(numbers) if numbers is not None else iter(range(1, 1 << 31))
        for number, pack in zip(chosen, packs, strict=False):
            self._db.execute(
                "INSERT OR REPLACE INTO packs VALUES (?,?,?)", (number, pack.id, pack.size_bytes)
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO chunks VALUES (?,?)",
                ((chunk, number) for chunk in pack.chunk_ids()),
            )
            self._packs[number] = (pack.id, pack.size_bytes)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with _translated():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (sqlite3.OperationalError, OSError) as error:
        raise UnavailableError(
            f"the cache of checkpoints failed: {error}",
            code="checkpoint_cache_failed",
            hint="Look whether the disk is full.",
        ) from error
    except (sqlite3.DatabaseError, struct.error) as error:
        raise KnowledgeDamagedError(f"the cache of checkpoints is damaged: {error}") from error


def _facts(row: tuple[Any, ...], packs: dict[bytes, frozenset[int]]) -> FolderFacts:
    found = packs.get(row[5])
    if found is None:  # few differ: not a set for each directory
        found = packs[row[5]] = _unpacked(row[5])
    return FolderFacts(row[1], row[2], row[3], row[4], found, *row[6:])


def _packed(numbers: frozenset[int]) -> bytes:
    return struct.pack(f"<{len(numbers)}I", *sorted(numbers))


def _unpacked(data: bytes) -> frozenset[int]:
    return frozenset(struct.unpack(f"<{len(data) // 4}I", data))
