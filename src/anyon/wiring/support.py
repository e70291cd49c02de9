"""``anyon support bundle``: what a maintainer needs to help, in one archive, and nothing private."""

import dataclasses
import gzip
import importlib.metadata
import io
import json
import os
import platform
import sys
import tarfile
import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any

from anyon import __version__
from anyon.config import Settings
from anyon.db import inspections
from anyon.domain.errors import AnyonError, ConflictError, InvalidInputError
from anyon.telemetry import KEPT_LOG
from anyon.wiring.doctor import examine
from anyon.wiring.redactions import Redactor, log_line, secrets_of, shown_setting

_LINES = 20_000
_README = """\
A support bundle of Anyon. What is inside:

versions.json   of Anyon, Python, the system and the packages
settings.json   all settings; of those that may be secret only whether they are set
doctor.json     what `anyon doctor` found
database.json   the schema, and how many rows each table has
projects.json   ids, phases and times of projects
events.jsonl    the last events of projects: kinds, codes and times
log.jsonl       the last lines of the server's log: events, ids, codes, numbers and times
metrics.txt     what /metrics says, if the server answers

What is not: names, prompts, tasks, scripts, files, output of programs, messages of errors, paths that were asked
for, tokens, keys. A line of the log names the keys that were left out of it.
"""


async def gather(
    settings: Settings, *, metrics: str | None, environment: Mapping[str, str] | None = None
) -> Mapping[str, bytes]:
    """Return a bundle's files by name; *metrics* is what the server told, None if it did not answer."""
    env = os.environ if environment is None else environment
    redactor = Redactor(_secrets(settings, env))
    findings = [dataclasses.asdict(one) for one in await examine(settings)]
    seen = _database(settings)
    documents: dict[str, Any] = {
        "versions.json": _versions(),
        "settings.json": _settings(settings, env),
        "doctor.json": findings,
        **{f"{name}.json": seen[name] for name in ("database", "projects")},
    }
    texts = {
        "README.txt": _README,
        "events.jsonl": _lines(seen["events"]),
        "log.jsonl": _lines(_log(settings)),
        "metrics.txt": metrics if metrics is not None else "the server did not answer\n",
    }
    for name, document in documents.items():
        texts[name] = json.dumps(redactor.value(_plain(document)), indent=2) + "\n"
    return {name: redactor.text(text).encode() for name, text in sorted(texts.items())}


def write(path: Path, files: Mapping[str, bytes]) -> int:
    """Write a bundle to *path*, readable for its owner only, and return its size in bytes.

    ConflictError (``file_exists``) where there is something, InvalidInputError (``not_writable``).
    """
    name = path.name.removesuffix(".tar.gz")
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb") as zipped,
        tarfile.open(fileobj=zipped, mode="w") as archive,
    ):
        for member, data in files.items():
            info = tarfile.TarInfo(f"{name}/{member}")
            info.size, info.mode, info.mtime = len(data), 0o600, int(time.time())
            archive.addfile(info, io.BytesIO(data))
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            return file.write(packed.getvalue())
    except FileExistsError as error:
        raise ConflictError(
            f"{path} is there already", code="file_exists", hint="Name another with --out."
        ) from error
    except OSError as error:
        raise InvalidInputError(
            f"{path} cannot be written: {error.strerror}",
            code="not_writable",
            hint="Name another place with --out.",
        ) from error


def _secrets(settings: Settings, environment: Mapping[str, str]) -> Iterable[str]:
    """Return every secret that this machine is known to hold."""
    yield from secrets_of(environment)
    for name in ("token", "monitoring/grafana-password"):
        try:
            yield (settings.home / name).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):  # there is none, or it is not ours to read
            continue
    for one in dataclasses.fields(Settings):
        value = getattr(settings, one.name)
        if isinstance(value, str) and "@" in value and "://" in value:
            yield value.partition("://")[2].rpartition("@")[0].partition(":")[2]


def _versions() -> dict[str, Any]:
    packages = {it.metadata["Name"]: it.version for it in importlib.metadata.distributions()}
    return {
        "anyon": __version__,
        "python": sys.version,
        "system": platform.platform(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "is_root": os.geteuid() == 0,
        "packages": dict(sorted(packages.items())),
    }


def _settings(settings: Settings, environment: Mapping[str, str]) -> dict[str, Any]:
    values = {
        one.name: shown_setting(one.name, getattr(settings, one.name))
        for one in dataclasses.fields(Settings)
    }
    given = sorted(name for name in environment if name.startswith("ANYON_"))
    return {"values": values, "given_by_environment": given}


def _database(settings: Settings) -> dict[str, Any]:
    try:
        found = inspections.look(settings.database_url or settings.home / "anyon.db")
    except AnyonError as error:
        return {"database": {"error": error.code}, "projects": [], "events": []}
    if found is None:
        return {"database": None, "projects": [], "events": []}
    facts = {
        "kind": found.kind,
        "version": found.version,
        "revision": found.revision,
        "newest_revision": found.newest,
        "rows": found.counts,
        "columns": found.columns,
    }
    return {"database": facts, "projects": found.projects, "events": found.events}


def _log(settings: Settings) -> list[dict[str, Any]]:
    lines: list[str] = []
    for name in (f"{KEPT_LOG.name}.1", KEPT_LOG.name):
        try:
            text = (settings.home / KEPT_LOG.parent / name).read_text(
                encoding="utf-8", errors="replace"
            )
        except OSError:
            continue  # not begun yet, or not ours to read
        lines += text.splitlines()
    return [found for line in lines[-_LINES:] if (found := log_line(line)) is not None]


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(_plain(row)) + "\n" for row in rows)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Enum):
        return value.value
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
