"""Where the state of servers lies in a store: ``server/<server id>/…``; and whose is there."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from anyon.storage.objects import ObjectStore

PREFIX = "server/"
MANIFEST = "manifest"
_SUCCESSOR = "successor"


@dataclass(frozen=True, slots=True)
class ServerPlaces:
    """The keys of one server's own state."""

    server: str

    @property
    def name(self) -> str:
        """What the server's keys are derived for."""
        return f"{PREFIX}{self.server}"

    @property
    def replica(self) -> str:
        """The prefix of the replicas of its database."""
        return f"{self.name}/replica/"

    @property
    def snapshots(self) -> str:
        """The prefix of the snapshots of its database."""
        return f"{self.name}/snapshots/"


@dataclass(slots=True)
class ServerState:
    """What a store has of one server: replicas and whole snapshots by name, oldest first."""

    server: str
    newest_at: datetime
    replicas: list[str] = field(default_factory=list)
    snapshots: list[str] = field(default_factory=list)
    successor: str = ""
    """The server that was recovered from it."""


def succeed(store: ObjectStore, lost: str, successor: str) -> None:
    """Note that the lost server's state was taken up: from now on its successor's is the newer one."""
    store.put(f"{PREFIX}{lost}/{_SUCCESSOR}", successor.encode("ascii"))


def states(store: ObjectStore) -> Sequence[ServerState]:
    """Return what the store has of every server, the one that wrote last first."""
    found: dict[str, ServerState] = {}
    succeeded = []
    for info in store.list(PREFIX):
        parts = info.key.split("/")
        if parts[2:] == [_SUCCESSOR]:
            succeeded.append(parts[1])
        if len(parts) < 5 or parts[2] not in {"replica", "snapshots"}:
            continue
        state = found.setdefault(parts[1], ServerState(parts[1], info.updated_at))
        state.newest_at = max(state.newest_at, info.updated_at)
        if parts[2] == "replica" and parts[3] not in state.replicas:
            state.replicas.append(parts[3])
        if parts[2] == "snapshots" and parts[4] == MANIFEST:
            state.snapshots.append(parts[3])
    for server in succeeded:
        if server in found:
            key = f"{PREFIX}{server}/{_SUCCESSOR}"
            found[server].successor = store.get(key).data.decode("ascii", "replace")
    return sorted(found.values(), key=lambda state: state.newest_at, reverse=True)
