"""What the bubblewrap engine knows of its containers, in small files that outlive the server.

One JSON file per container, written whole under another name, synced and renamed. One lock file
per container beside it: two servers over the same home make one container.
"""

import asyncio
import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from anyon.domain.errors import EngineFailedError
from anyon.domain.ids import ProjectId, is_id
from anyon.engines.cgroups import Group
from anyon.engines.engine import ContainerSpec, Limits, Mount
from anyon.engines.sandbox_processes import Identity

_FORMAT = 1
_POLL = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One container. ``first`` is its first process since the last start, None after a stop.

    ``suspended`` says that it was frozen by signals, for where there is no freezer.
    """

    id: str
    spec: ContainerSpec
    first: Identity | None = None
    group_version: int | None = None
    groups: Mapping[str, Path] = field(default_factory=dict)
    suspended: bool = False
    started_at: datetime | None = None
    exit_code: int | None = None

    @property
    def group(self) -> Group | None:
        """The control group it was started in."""
        return None if self.group_version is None else Group(self.group_version, self.groups)


def to_json(record: Record) -> str:
    """Write a record as text."""
    spec = record.spec
    data: dict[str, Any] = {
        "format": _FORMAT,
        "id": record.id,
        "project": spec.project,
        "mounts": [[str(m.source), str(m.target), m.read_only] for m in spec.mounts],
        "system": str(spec.system),
        "image": spec.image,
        "limits": dataclasses.asdict(spec.limits),
        "env": dict(spec.env),
        "labels": dict(spec.labels),
        "first": None if record.first is None else dataclasses.asdict(record.first),
        "group_version": record.group_version,
        "groups": {name: str(place) for name, place in record.groups.items()},
        "suspended": record.suspended,
        "started_at": None if record.started_at is None else record.started_at.isoformat(),
        "exit_code": record.exit_code,
    }
    return json.dumps(data, indent=1, sort_keys=True)


def from_json(text: str) -> Record:
    """Read a record; ValueError or KeyError for what is none."""
    data = json.loads(text)
    if data["format"] != _FORMAT:
        raise ValueError(f"unknown format {data['format']}")
    spec = ContainerSpec(
        project=ProjectId(data["project"]),
        mounts=tuple(
            Mount(source=Path(source), target=PurePosixPath(target), read_only=read_only)
            for source, target, read_only in data["mounts"]
        ),
        system=Path(data["system"]),
        image=data["image"],
        limits=Limits(**data["limits"]),
        env=data["env"],
        labels=data["labels"],
    )
    started = data["started_at"]
    return Record(
        id=data["id"],
        spec=spec,
        first=None if data["first"] is None else Identity(**data["first"]),
        group_version=data["group_version"],
        groups={name: Path(place) for name, place in data["groups"].items()},
        suspended=data["suspended"],
        started_at=None if started is None else datetime.fromisoformat(started),
        exit_code=data["exit_code"],
    )


class Records:
    """The records below one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def read(self, project: ProjectId) -> Record | None:
        """Return a container's record, or None when there is none."""
        try:
            text = self._path(project).read_text()
        except FileNotFoundError:
            return None
        try:
            return from_json(text)
        except (ValueError, KeyError, TypeError) as error:
            raise EngineFailedError(
                f"the record of container project-{project} cannot be read: {error}",
                code="record_unreadable",
                hint=f"Look at {self._path(project)}; remove it only if its container is gone.",
            ) from error

    def write(self, record: Record) -> None:
        """Replace a container's record, durably."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        target = self._path(record.spec.project)
        draft = target.with_suffix(".new")
        try:
            with draft.open("w") as file:
                file.write(to_json(record))
                file.flush()
                os.fsync(file.fileno())
            draft.rename(target)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        self._sync()

    def remove(self, project: ProjectId) -> None:
        """Forget a container; unknown is success."""
        self._path(project).unlink(missing_ok=True)
        if self._directory.exists():
            self._sync()

    def projects(self) -> Iterator[ProjectId]:
        """Yield the projects that have a record."""
        if not self._directory.exists():
            return
        for path in sorted(self._directory.glob("*.json")):
            if is_id(path.stem):
                yield ProjectId(path.stem)

    @contextlib.asynccontextmanager
    async def lock(self, project: ProjectId) -> AsyncIterator[None]:
        """Hold the container's lock, against every server on this machine."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        # The lock file stays: removing it would let two hold "the" lock on two files.
        descriptor = os.open(
            self._directory / f"{project}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(_POLL)
            yield
        finally:
            os.close(descriptor)

    def _path(self, project: ProjectId) -> Path:
        return self._directory / f"{project}.json"

    def _sync(self) -> None:
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
