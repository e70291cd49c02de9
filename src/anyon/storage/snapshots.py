"""Snapshots of the server's database in the store: whole copies, with a checksum, kept for a while.

``server/<id>/snapshots/<time>-<random>/{000000, …, manifest}``: the manifest is written last and
removed first, so what has one is whole.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from anyon.domain.ids import new_id
from anyon.failpoints import reached
from anyon.storage import envelopes
from anyon.storage.keys import Keys
from anyon.storage.objects import ABSENT, DamagedError, ObjectNotFoundError, ObjectStore
from anyon.storage.retention import Retention, kept
from anyon.storage.servers import MANIFEST, ServerPlaces

PART_BYTES = 16 << 20
POLICY = Retention(
    everything=timedelta(hours=3),
    hourly=timedelta(hours=24),
    daily=timedelta(days=7),
    monthly=timedelta(days=32),
)
_FORMAT = 1
_FORM = "%Y%m%dT%H%M%S.%fZ"
_UNFINISHED = timedelta(hours=6)
"""After this time parts without a manifest are what a crash left."""


@dataclass(frozen=True, slots=True)
class _Manifest:
    at: datetime
    sha256: str
    parts: int


class Snapshots:
    """One server's snapshots; calls block."""

    def __init__(self, store: ObjectStore, keys: Keys, server: str) -> None:
        self._store = store
        self._keys = keys
        self._places = ServerPlaces(server)

    def put(self, file: Path, at: datetime, check: Callable[[], None] = lambda: None) -> str:
        """Write a copy of *file*, a database as of *at*, and return its name once it is whole."""
        name = f"{at.astimezone(UTC):{_FORM}}-{new_id()[:8]}"
        key = self._keys.current(self._places.name)
        digest, size, parts = hashlib.sha256(), 0, 0
        with file.open("rb") as source:
            while data := source.read(PART_BYTES):
                check()
                place = f"{self._places.snapshots}{name}/{parts:06}"
                self._store.put(place, envelopes.wrap(key, place, data), if_generation=ABSENT)
                reached("snapshot.part_put")
                digest.update(data)
                size, parts = size + len(data), parts + 1
        body = {
            "format": _FORMAT,
            "at": at.isoformat(),
            "sha256": digest.hexdigest(),
            "size": size,
            "parts": parts,
        }
        place = f"{self._places.snapshots}{name}/{MANIFEST}"
        sealed = envelopes.wrap(key, place, json.dumps(body).encode())
        self._store.put(place, sealed, if_generation=ABSENT)
        reached("snapshot.written")
        return name

    def fetch(self, name: str, target: Path) -> datetime:
        """Write a snapshot to *target*, checked, and return as of when it is; DamagedError."""
        body = self._manifest(name)
        digest = hashlib.sha256()
        with target.open("wb") as file:
            for number in range(body.parts):
                place = f"{self._places.snapshots}{name}/{number:06}"
                data = envelopes.unwrap(self._keys, self._places.name, place, self._get(place))
                digest.update(data)
                file.write(data)
        if digest.hexdigest() != body.sha256:
            raise DamagedError(f"the snapshot {name} is not what was written")
        return body.at

    def prune(self, now: datetime, check: Callable[[], None] = lambda: None) -> int:
        """Drop what the policy lets go, and what a crash left; return how many snapshots went."""
        infos = list(self._store.list(self._places.snapshots))
        whole: dict[str, datetime] = {}
        for info in infos:
            name, _, part = info.key.removeprefix(self._places.snapshots).partition("/")
            if part == MANIFEST:
                whole[name] = taken_at(name) or info.updated_at
        wanted = kept(whole.items(), POLICY, now=now)
        # Manifests sort behind the parts: the last comes first here.
        for info in reversed(infos):
            check()
            name = info.key.removeprefix(self._places.snapshots).partition("/")[0]
            is_left = name not in whole and now - info.updated_at > _UNFINISHED
            if is_left or (name in whole and name not in wanted):
                self._store.delete(info.key)
                reached("snapshot.part_dropped")
        return len(whole) - len(wanted)

    def _manifest(self, name: str) -> _Manifest:
        place = f"{self._places.snapshots}{name}/{MANIFEST}"
        data = envelopes.unwrap(self._keys, self._places.name, place, self._get(place))
        try:
            body = json.loads(data)
            if body["format"] != _FORMAT:
                raise DamagedError(
                    f"the snapshot {name} is of a format this version does not know",
                    hint="Update Anyon.",
                )
            at = datetime.fromisoformat(body["at"])
            return _Manifest(at, str(body["sha256"]), int(body["parts"]))
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedError(f"the snapshot {name} is not of its form: {error}") from error

    def _get(self, place: str) -> bytes:
        try:
            return self._store.get(place).data
        except ObjectNotFoundError as error:
            raise DamagedError(f"{place} is missing") from error


def taken_at(name: str) -> datetime | None:
    """Return when a snapshot of that name was taken, None where the name says it not."""
    try:
        return datetime.strptime(name.partition("-")[0], _FORM).replace(tzinfo=UTC)
    except ValueError:
        return None
