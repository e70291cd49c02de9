"""The server's own database, brought back from the store: from its replica, else from a snapshot."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path

import structlog

from anyon.db import litestream
from anyon.db import snapshots as database_snapshots
from anyon.domain.errors import AnyonError, ConflictError, NotFoundError
from anyon.failpoints import reached
from anyon.storage import replicas, servers
from anyon.storage.keys import Keys
from anyon.storage.objects import ObjectStore
from anyon.storage.servers import ServerState
from anyon.storage.snapshots import Snapshots, taken_at

log = structlog.get_logger(__name__)


class Source(StrEnum):
    """Where a recovered server's records came from."""

    REPLICA = "replica"
    SNAPSHOT = "snapshot"
    CHECKPOINTS = "checkpoints"
    """Projects' own records only: no tokens, no history of events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A database that was brought back: whose it was, and of which moment it is."""

    source: Source
    server: str = ""
    at: datetime | None = None
    notes: Sequence[str] = field(default_factory=list)
    """What could not be used, newest first, and why."""


def choose(store: ObjectStore, server: str | None) -> ServerState | None:
    """Return the server whose state is to be brought back, None where the store has none; blocks.

    One whose state was taken up by a server that has state of its own is no candidate any more.
    ConflictError ``several_servers`` where it has more than one and *server* names none;
    NotFoundError ``server_unknown``.
    """
    found = servers.states(store)
    if server is not None:
        for state in found:
            if state.server == server:
                return state
        raise NotFoundError(f"the store has no state of a server {server}", code="server_unknown")
    ids = {state.server for state in found}
    found = [state for state in found if state.successor not in ids]
    if len(found) > 1:
        each = ", ".join(f"{s.server} (until {s.newest_at:%Y-%m-%d %H:%M:%S})" for s in found)
        raise ConflictError(
            f"the store has the state of several servers: {each}",
            code="several_servers",
            hint="Say which is lost with --server ID, or take only what checkpoints hold with --state checkpoints.",
        )
    return found[0] if found else None


class States:
    """Brings one server's database back into *scratch*, a directory of its own; calls block."""

    def __init__(self, store: ObjectStore, keys: Keys, found: ServerState, scratch: Path) -> None:
        self._store = store
        self._keys = keys
        self._found = found
        self._scratch = scratch
        self._notes: list[str] = []

    def bring_back(self, target: Path, *, wanted: Source | None) -> State:
        """Write the newest sound database to *target*; Source.CHECKPOINTS where there is none.

        *wanted* restricts it to one source. What is damaged is noted, and the next tried.
        """
        best: State | None = None
        if wanted in {None, Source.REPLICA}:
            best = self._replica(target)
        if wanted in {None, Source.SNAPSHOT}:
            best = self._snapshot(target, best)
        if best is None:
            return State(source=Source.CHECKPOINTS, server=self._found.server, notes=self._notes)
        return best

    def _replica(self, target: Path) -> State | None:
        for generation in reversed(self._found.replicas):
            with self._tried(f"the replica {generation}"), self._emptied() as place:
                at, _ = replicas.fetch(
                    self._store, self._keys, self._found.server, generation, place / "replica"
                )
                reached("recover.fetched")
                litestream.restore(place / "replica", place / "restored.db")
                return self._accepted(Source.REPLICA, place / "restored.db", target, at)
        return None

    def _snapshot(self, target: Path, best: State | None) -> State | None:
        """Return the newest sound snapshot, or *best* where that is of a later moment."""
        snapshots = Snapshots(self._store, self._keys, self._found.server)
        for name in reversed(self._found.snapshots):
            taken = taken_at(name)
            if best is not None and best.at is not None and (taken is None or taken <= best.at):
                break
            with self._tried(f"the snapshot {name}"), self._emptied() as place:
                at = snapshots.fetch(name, place / "snapshot.db")
                return self._accepted(Source.SNAPSHOT, place / "snapshot.db", target, at)
        return best

    def _accepted(self, source: Source, made: Path, target: Path, at: datetime) -> State:
        database_snapshots.check(made)
        made.replace(target)
        reached("recover.staged")
        log.info("state.brought_back", source=source, server=self._found.server, at=at.isoformat())
        return State(source=source, server=self._found.server, at=at, notes=self._notes)

    @contextmanager
    def _emptied(self) -> Iterator[Path]:
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir(parents=True, mode=0o700)
        try:
            yield self._scratch
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)

    @contextmanager
    def _tried(self, what: str) -> Iterator[None]:
        """Note what cannot be used and go on; a missing key or program is for the caller to know."""
        try:
            yield
        except AnyonError as error:
            if error.code in {"key_missing", "litestream_missing"}:
                raise
            self._notes.append(f"{what}: {error.message}")
            log.warning("state.unusable", what=what, code=error.code, error=error.message)
