"""A replica of the server's database in the store: what Litestream writes to a directory, carried on.

Litestream's files (``ltx/<level>/<first>-<last>.ltx``) are immutable, and the local ones are at
every moment enough for a restore. They are put in the order of their last transaction, so what
is in the store is at every moment enough for one too, only a little older.
"""

import re
import struct
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from anyon.domain.ids import new_id
from anyon.failpoints import reached
from anyon.storage import envelopes
from anyon.storage.keys import Keys
from anyon.storage.objects import DamagedError, ObjectStore
from anyon.storage.servers import ServerPlaces

_FILE = re.compile(r"[0-9]/[0-9a-f]{16}-([0-9a-f]{16})\.ltx")
_HEAD = struct.Struct(">4sIIIQQq")
"""How a file begins: mark, flags, page size, pages, first and last transaction, milliseconds."""
_SNAPSHOT_LEVEL = "9/"


class Replica:
    """Carries *directory* (Litestream's replica of one database) into the store; calls block.

    Each new directory begins a *generation* of its own, named in the file ``generation`` beside
    it: numbers of transactions begin anew there. Once it can be restored alone, older ones go.
    """

    def __init__(self, store: ObjectStore, keys: Keys, server: str, directory: Path) -> None:
        self._store = store
        self._keys = keys
        self._places = ServerPlaces(server)
        self._directory = directory
        self._remote: set[str] | None = None
        self._seen: frozenset[str] = frozenset()
        self._is_alone = False

    def mirror(self, now: datetime, check: Callable[[], None] = lambda: None) -> int:
        """Bring the store to what the directory holds now; return how many files were put."""
        prefix = f"{self._places.replica}{self._generation(now)}/"
        present = self._present()
        if self._remote is None:
            self._remote = {i.key.removeprefix(prefix) for i in self._store.list(prefix)}
        put = 0
        for name in sorted(present - self._remote, key=_last_transaction):
            check()
            try:
                data = (self._directory / "ltx" / name).read_bytes()
            except FileNotFoundError:
                continue  # compacted into another file meanwhile, which the next round finds
            key = prefix + name
            sealed = envelopes.wrap(self._keys.current(self._places.name), key, data)
            self._store.put(key, sealed)
            reached("replica.file_put")
            self._remote.add(name)
            put += 1
        # A file that went while the directory was listed has its successor in the next listing.
        for name in sorted(self._remote - present - self._seen):
            check()
            self._store.delete(prefix + name)
            reached("replica.file_dropped")
            self._remote.discard(name)
        self._seen = present
        self._drop_former(prefix, check)
        return put

    def _drop_former(self, prefix: str, check: Callable[[], None]) -> None:
        if self._is_alone or not any(n.startswith(_SNAPSHOT_LEVEL) for n in self._remote or ()):
            return
        for info in list(self._store.list(self._places.replica)):
            check()
            if not info.key.startswith(prefix):
                self._store.delete(info.key)
                reached("replica.former_dropped")
        self._is_alone = True

    def _present(self) -> frozenset[str]:
        root = self._directory / "ltx"
        found = (f"{path.parent.name}/{path.name}" for path in root.glob("*/*.ltx"))
        return frozenset(name for name in found if _FILE.fullmatch(name))

    def _generation(self, now: datetime) -> str:
        path = self._directory / "generation"
        try:
            return path.read_text(encoding="ascii")
        except FileNotFoundError:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            name = f"{now:%Y%m%dT%H%M%S}-{new_id()[:8]}"
            temporary = path.with_suffix(".new")
            temporary.write_text(name, encoding="ascii")
            temporary.replace(path)
            self._remote, self._is_alone = None, False
            return name


def fetch(
    store: ObjectStore, keys: Keys, server: str, generation: str, target: Path
) -> tuple[datetime, Sequence[Path]]:
    """Write a generation's files into *target* as Litestream wants them; return as of when they are.

    DamagedError where one is not what was put, or none is there.
    """
    places = ServerPlaces(server)
    prefix = f"{places.replica}{generation}/"
    newest: dict[int, datetime] = {}
    files = []
    for info in list(store.list(prefix)):
        name = info.key.removeprefix(prefix)
        if not _FILE.fullmatch(name):
            continue
        data = envelopes.unwrap(keys, places.name, info.key, store.get(info.key).data)
        path = target / "ltx" / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_bytes(data)
        files.append(path)
        last, at = _facts(data, info.key)
        newest[last] = min(at, newest.get(last, at))
    if not newest:
        raise DamagedError(f"the replica {generation} of {server} is empty")
    return newest[max(newest)], files


def _facts(data: bytes, name: str) -> tuple[int, datetime]:
    try:
        mark, *_, last, milliseconds = _HEAD.unpack_from(data)
        at = datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (struct.error, ValueError, OverflowError, OSError) as error:
        raise DamagedError(f"{name} is not a file of Litestream's") from error
    if mark != b"LTX1":
        raise DamagedError(f"{name} is not a file of Litestream's")
    return last, at


def _last_transaction(name: str) -> tuple[str, str]:
    match = _FILE.fullmatch(name)
    return (match[1] if match else "", name)
