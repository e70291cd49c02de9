"""The database of an old installation (``data/anyon.db``), read as far as it goes.

Its ids are 16-byte blobs and its times are texts; columns differ between its versions. What is
there is read, and what is not, or is more, is told. The file itself is never opened: a database
with a journal is changed by being read.
"""

import re
import shutil
import sqlite3
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from anyon.domain.errors import InvalidInputError, NotFoundError

Row = Mapping[str, Any]
COLUMNS: Mapping[str, Sequence[str]] = {
    "projects": (
        *("id", "name", "git_repo_path", "setup_script", "dev_script", "cleanup_script"),
        *("copy_files", "created_at", "updated_at"),
    ),
    "tasks": (
        *("id", "project_id", "title", "description", "status", "parent_task_attempt"),
        *("created_at", "updated_at"),
    ),
    "task_attempts": (
        *("id", "task_id", "container_ref", "branch", "target_branch", "executor"),
        *("worktree_deleted", "setup_completed_at", "created_at", "updated_at"),
    ),
    "merges": ("id", "task_attempt_id", "merge_type", "merge_commit", "target_branch_name", "created_at"),
    "tags": ("id", "tag_name", "content", "created_at", "updated_at"),
    "images": (
        *("id", "file_path", "original_name", "mime_type", "size_bytes", "hash"),
        *("created_at", "updated_at"),
    ),
    "task_images": ("task_id", "image_id"),
}  # fmt: skip
"""What is taken over, by table."""
_IDS = {"id", "project_id", "task_id", "task_attempt_id", "parent_task_attempt", "image_id"}
_TIMES = {"created_at", "updated_at", "setup_completed_at"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class OldRecords:
    """What was read: rows with the columns of ``COLUMNS`` (None where there was none).

    ``missing`` names columns and tables that this version of the database has not; ``left``
    counts the rows of tables that are not taken over; ``unreadable`` tells of rows left out.
    """

    projects: Sequence[Row]
    tasks: Sequence[Row]
    attempts: Sequence[Row]
    merges: Sequence[Row]
    tags: Sequence[Row]
    images: Sequence[Row]
    task_images: Sequence[Row]
    missing: Sequence[str]
    left: Mapping[str, int]
    unreadable: Sequence[str]


def read(path: Path) -> OldRecords:
    """Return what the old database at *path* holds.

    NotFoundError ``old_database_missing``; InvalidInputError ``old_database_unreadable``.
    """
    if not path.is_file():
        raise NotFoundError(
            f"there is no old database {path}",
            code="old_database_missing",
            hint="Give the directory that holds workspace/, worktrees/ and data/anyon.db.",
        )
    try:
        with tempfile.TemporaryDirectory(prefix="anyon-old-") as place:
            copy = Path(place) / "anyon.db"
            shutil.copyfile(path, copy)
            journal = path.with_name(f"{path.name}-wal")
            if journal.is_file():
                shutil.copyfile(journal, copy.with_name("anyon.db-wal"))
            with closing(sqlite3.connect(copy)) as database:
                database.row_factory = sqlite3.Row
                return _read(database)
    except (OSError, sqlite3.Error) as error:
        raise InvalidInputError(
            f"the old database {path} cannot be read: {error}",
            code="old_database_unreadable",
            hint="Stop the old server first; it writes what is still in its journal.",
        ) from error


def _read(database: sqlite3.Connection) -> OldRecords:
    database.execute("PRAGMA trusted_schema = OFF")
    tables = {
        row["name"]
        for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        if _NAME.fullmatch(row["name"]) and not row["name"].startswith(("sqlite_", "_sqlx"))
    }
    missing: list[str] = []
    unreadable: list[str] = []
    found = {name: list(_rows(database, name, tables, missing, unreadable)) for name in COLUMNS}
    left = {}
    for name in sorted(tables - COLUMNS.keys()):
        # The name was checked above: letters, digits and underscores.
        count = database.execute(f'SELECT COUNT(*) FROM "{name}"').fetchone()[0]  # noqa: S608
        if count:
            left[name] = int(count)
    return OldRecords(
        projects=found["projects"],
        tasks=found["tasks"],
        attempts=found["task_attempts"],
        merges=found["merges"],
        tags=found["tags"],
        images=found["images"],
        task_images=found["task_images"],
        missing=missing,
        left=left,
        unreadable=unreadable,
    )


def _rows(
    database: sqlite3.Connection,
    table: str,
    tables: set[str],
    missing: list[str],
    unreadable: list[str],
) -> Iterator[Row]:
    if table not in tables:
        missing.append(table)
        return
    wanted = COLUMNS[table]
    there = {row["name"] for row in database.execute(f'PRAGMA table_info("{table}")')}
    missing += [f"{table}.{name}" for name in wanted if name not in there]
    names = ", ".join(f'"{name}"' for name in wanted if name in there)
    order = "created_at, id" if {"created_at", "id"} <= there else "rowid"
    # The table and its columns are constants of ours.
    for row in database.execute(f'SELECT {names} FROM "{table}" ORDER BY {order}'):  # noqa: S608
        try:
            yield {name: _value(name, row[name] if name in there else None) for name in wanted}
        except ValueError as error:
            unreadable.append(f"a row of {table}: {error}")


def _value(name: str, raw: Any) -> Any:
    if raw is None:
        if name == "id":
            raise ValueError("it has no id")
        return None
    if name in _IDS:
        return str(uuid.UUID(bytes=raw) if isinstance(raw, bytes) else uuid.UUID(str(raw)))
    if name in _TIMES:
        at = datetime.fromisoformat(str(raw))
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
