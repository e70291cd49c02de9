"""What was moved or brought in, by project, in files of the home: from them a way back is found."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from anyon.domain.entities import Project
from anyon.domain.ids import ProjectId
from anyon.services import fingerprints
from anyon.services.fingerprints import Fingerprint


class Kind(StrEnum):
    """What was done with a project."""

    TO_MOUNT = "to_mount"
    TO_DISK = "to_disk"
    FROM_LAYOUT = "from_layout"


class Step(StrEnum):
    """How far it has come. COPYING: the target is worth nothing yet. DONE: it is the project."""

    COPYING = "copying"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One project's move. ``backup`` is where its former files are, untouched.

    ``files`` is what the target was when it was done, ``modes`` what a bucket cannot keep.
    """

    project: ProjectId
    name: str
    kind: Kind
    step: Step
    source: str
    target: str
    at: datetime
    backup: str = ""
    files: Fingerprint = field(default_factory=dict)
    modes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Undoing:
    """A way back that is begun and not proven yet: of which kind, and of which projects (their names by id)."""

    kind: Kind
    at: datetime
    projects: Mapping[ProjectId, str]


class Journal:
    """The records of a home, one file each, written whole or not at all."""

    def __init__(self, home: Path) -> None:
        self._place = home / "moves"
        self._undoing = self._place / "undoing"

    def write(self, record: Record) -> None:
        """Keep a record, in place of the project's former one."""
        plain = asdict(record)
        plain |= {"at": record.at.isoformat(), "files": fingerprints.dumped(record.files)}
        self._keep(self._path(record.project), plain)

    def _keep(self, path: Path, plain: Mapping[str, Any]) -> None:
        self._place.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = path.with_suffix(".new")
        with fresh.open("w", encoding="utf-8", errors="surrogateescape") as file:
            json.dump(plain, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)

    def read(self, project: ProjectId) -> Record | None:
        """Return a project's last record."""
        try:
            return _record(self._path(project))
        except FileNotFoundError:
            return None

    def all(self) -> Sequence[Record]:
        """Return all records, the newest first."""
        found = [_record(path) for path in self._place.glob("*.json")]
        return sorted(found, key=lambda one: one.at, reverse=True)

    def forget(self, project: ProjectId) -> None:
        """Drop a project's record."""
        self._path(project).unlink(missing_ok=True)

    def begin_undoing(self, undoing: Undoing) -> None:
        """Note that a way back is begun: it goes with ``end_undoing``, after all records of projects."""
        self._keep(self._undoing, {**asdict(undoing), "at": undoing.at.isoformat()})

    def undoing(self) -> Undoing | None:
        """Return the way back that is not at its end; None where none is, or something was moved since."""
        try:
            plain = json.loads(self._undoing.read_text(encoding="utf-8", errors="surrogateescape"))
        except FileNotFoundError:
            return None
        found = Undoing(
            kind=Kind(plain["kind"]),
            at=datetime.fromisoformat(plain["at"]),
            projects={ProjectId(key): name for key, name in plain["projects"].items()},
        )
        is_last = all(one.at <= found.at for one in self.all() if one.kind is not Kind.TO_DISK)
        return found if is_last else None

    def end_undoing(self) -> None:
        """Note that it is at its end."""
        self._undoing.unlink(missing_ok=True)

    def _path(self, project: ProjectId) -> Path:
        return self._place / f"{project}.json"


def _record(path: Path) -> Record:
    plain = json.loads(path.read_text(encoding="utf-8", errors="surrogateescape"))
    plain |= {
        "project": ProjectId(plain["project"]),
        "kind": Kind(plain["kind"]),
        "step": Step(plain["step"]),
        "at": datetime.fromisoformat(plain["at"]),
        "files": fingerprints.loaded(plain["files"]),
    }
    return Record(**plain)


def note_brought_in(home: Path, project: Project, source: Path, now: datetime) -> None:
    """Record that a project was brought in from *source*, and what its files are."""
    found = fingerprints.work(fingerprints.fingerprint(Path(project.path)))
    Journal(home).write(
        Record(
            project=project.id,
            name=project.name,
            kind=Kind.FROM_LAYOUT,
            step=Step.DONE,
            source=str(source),
            target=project.path,
            at=now,
            files=found,
        )
    )
