"""Outputs of processes in the store: pieces under ``<user>/<project>/logs/<process>/``, and their end.

A piece is ``<channel>-<offset>``; ``end`` is written when the process is over and all of its
pieces are there. They go with the project.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from anyon.storage import envelopes
from anyon.storage.keys import Keys
from anyon.storage.objects import DamagedError, ObjectStore

PIECE_BYTES = 4 << 20
_PIECE = re.compile(r"([a-z]+)-([0-9]{16})-([0-9]{8})")
_END = "end"
_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEnd:
    """How a process stood at its end: its code and reason, when, and how much it wrote by channel."""

    code: int | None
    reason: str | None
    started_at: datetime
    ended_at: datetime
    sizes: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What the store has of a process: where each channel goes on, how much it has, and if all."""

    offsets: Mapping[str, int] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    is_whole: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """The pieces of each channel, by offset, and the end where there was one."""

    pieces: Mapping[str, Sequence[tuple[int, bytes]]]
    end: LogEnd | None
    newest_at: datetime
    """When the last of it was put."""


class Logs:
    """Keeps and brings back outputs; *place* is a project's, ``<user id>/<project id>``; calls block."""

    def __init__(self, store: ObjectStore, keys: Keys) -> None:
        self._store = store
        self._keys = keys

    def put(self, place: str, process: str, channel: str, offset: int, data: bytes) -> None:
        """Keep *data*, what *channel* has from *offset* on; repeats are harmless."""
        self._put(place, f"{_prefix(place, process)}{channel}-{offset:016}-{len(data):08}", data)

    def finish(self, place: str, process: str, end: LogEnd) -> None:
        """Say that all pieces are there."""
        body = {
            "format": _FORMAT,
            "code": end.code,
            "reason": end.reason,
            "started_at": end.started_at.isoformat(),
            "ended_at": end.ended_at.isoformat(),
            "sizes": dict(end.sizes),
        }
        self._put(place, _prefix(place, process) + _END, json.dumps(body).encode())

    def kept(self, place: str, process: str) -> Kept:
        """Return what is there of a process, without reading it."""
        prefix = _prefix(place, process)
        offsets: dict[str, int] = {}
        sizes: dict[str, int] = {}
        is_whole = False
        for info in self._store.list(prefix):
            name = info.key.removeprefix(prefix)
            is_whole = is_whole or name == _END
            if match := _PIECE.fullmatch(name):
                channel, length = match[1], int(match[3])
                offsets[channel] = max(offsets.get(channel, 0), int(match[2]) + length)
                sizes[channel] = sizes.get(channel, 0) + length
        return Kept(offsets=offsets, sizes=sizes, is_whole=is_whole)

    def fetch(self, place: str, process: str) -> Log | None:
        """Return all that is there of a process, None if nothing is; DamagedError."""
        prefix = _prefix(place, process)
        pieces: dict[str, list[tuple[int, bytes]]] = {}
        end, newest_at = None, None
        for info in list(self._store.list(prefix)):
            name = info.key.removeprefix(prefix)
            match = _PIECE.fullmatch(name)
            if match is None and name != _END:
                continue
            newest_at = max(newest_at or info.updated_at, info.updated_at)
            data = envelopes.unwrap(self._keys, place, info.key, self._store.get(info.key).data)
            if match is not None:
                pieces.setdefault(match[1], []).append((int(match[2]), data))
            else:
                end = _parsed(data, info.key)
        if newest_at is None:
            return None
        return Log(pieces=pieces, end=end, newest_at=newest_at)

    def _put(self, place: str, key: str, data: bytes) -> None:
        self._store.put(key, envelopes.wrap(self._keys.current(place), key, data))


def _prefix(place: str, process: str) -> str:
    return f"{place}/logs/{process}/"


def _parsed(data: bytes, key: str) -> LogEnd:
    try:
        body = json.loads(data)
        if body["format"] != _FORMAT:
            raise DamagedError(
                f"{key} is of a format this version does not know", hint="Update Anyon."
            )
        return LogEnd(
            code=None if body["code"] is None else int(body["code"]),
            reason=body["reason"],
            started_at=datetime.fromisoformat(body["started_at"]),
            ended_at=datetime.fromisoformat(body["ended_at"]),
            sizes={str(name): int(size) for name, size in body["sizes"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{key} is not of its form: {error}") from error
