"""Writing rendered files into a directory that may hold other people's, and changed ones of ours.

A manifest in the directory keeps the hash of each file that was written. A file that is there
and is not as it was written is somebody else's work: it stays, unless its loss is asked for.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path, PurePosixPath

from anyon.domain.errors import ConflictError, InvalidInputError

MANIFEST = ".anyon-monitoring.json"


class Outcome(StrEnum):
    """What was done with a file."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    REMOVED = "removed"


def write(
    directory: Path, files: Mapping[PurePosixPath, str], *, force: bool = False
) -> Mapping[PurePosixPath, Outcome]:
    """Bring *directory* to hold *files*, each written whole or not at all; repeats change nothing.

    What an earlier call wrote and *files* do not name is removed. ConflictError
    (``file_not_ours``), with nothing changed, where a file is in the way that no call made or
    somebody changed since, unless *force*. InvalidInputError (``not_writable``) where the
    directory cannot be written.
    """
    try:
        return _write(directory, files, force=force)
    except OSError as error:
        raise InvalidInputError(
            f"{directory} cannot be written: {error}",
            code="not_writable",
            hint="Choose another directory with --out.",
        ) from error


def _write(
    directory: Path, files: Mapping[PurePosixPath, str], *, force: bool
) -> Mapping[PurePosixPath, Outcome]:
    wanted = {path: text.encode() for path, text in files.items()}
    made = _read_manifest(directory / MANIFEST)
    found = {path: _digest_at(directory / path) for path in {*wanted, *made}}
    outcomes = {path: _outcome(_digest(data), found[path]) for path, data in wanted.items()}
    foreign = [
        path
        for path, outcome in outcomes.items()
        if outcome is Outcome.UPDATED and found[path] != made.get(path)
    ]
    if foreign and not force:
        names = ", ".join(sorted(str(path) for path in foreign))
        raise ConflictError(
            f"not made by this command, or changed since: {names}",
            code="file_not_ours",
            hint="Choose another directory, move them away, or overwrite them with --force.",
        )
    for path, outcome in outcomes.items():
        if outcome is not Outcome.UNCHANGED:
            _replace(directory / path, wanted[path])
    for path in made.keys() - wanted.keys():
        if found[path] is not None and found[path] == made[path]:
            (directory / path).unlink()
            outcomes[path] = Outcome.REMOVED
    manifest = {str(path): _digest(data) for path, data in sorted(wanted.items())}
    text = json.dumps({"version": 1, "sha256": manifest}, indent=2) + "\n"
    if _digest_at(directory / MANIFEST) != _digest(text.encode()):
        _replace(directory / MANIFEST, text.encode())
    return outcomes


def _outcome(wanted: str, found: str | None) -> Outcome:
    if found is None:
        return Outcome.CREATED
    return Outcome.UNCHANGED if found == wanted else Outcome.UPDATED


def _read_manifest(path: Path) -> Mapping[PurePosixPath, str]:
    """Return what an earlier call wrote; a manifest that is not ours counts as none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))["sha256"]
        named = {PurePosixPath(name): str(digest) for name, digest in content.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    # A manifest that somebody wrote must not lead out of the directory.
    return {p: d for p, d in named.items() if not p.is_absolute() and ".." not in p.parts}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _digest_at(path: Path) -> str | None:
    """Return the hash of what is at *path*, None if nothing is; a link or a directory has none of ours."""
    if path.is_symlink() or path.is_dir():
        return "not a file"
    try:
        return _digest(path.read_bytes())
    except FileNotFoundError:
        return None


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # Prometheus and Grafana run as other users
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
