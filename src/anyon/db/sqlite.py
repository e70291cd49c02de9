"""SQLite, set up so that what was acknowledged is kept."""

import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.pool import QueuePool

from anyon.domain.errors import MissingError, UnavailableError

_SETTINGS: dict[str, object] = {
    "journal_mode": "wal",
    "synchronous": 2,  # FULL: a commit survives the loss of power
    "foreign_keys": 1,
    "trusted_schema": 0,
    "cell_size_check": 1,
    "busy_timeout": 10_000,
}


def is_safe_version(version: tuple[int, ...]) -> bool:
    """Say whether a SQLite library is free of the WAL-reset bug (docs/adr/0003)."""
    if version >= (3, 51, 3):
        return True
    return (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)


def library() -> ModuleType:
    """Return a DBAPI module over a SQLite that is safe here, or raise MissingError (``sqlite_too_old``)."""
    seen = []
    for name in ("pysqlite3.dbapi2", "sqlite3"):
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        if is_safe_version(module.sqlite_version_info):
            return module
        seen.append(module.sqlite_version)
    raise MissingError(
        f"this Python's SQLite ({', '.join(seen)}) can lose data that was written",
        code="sqlite_too_old",
        hint="Install pysqlite3 0.6.1 or newer (pip install -U pysqlite3), or use Postgres.",
    )


def engines(path: Path, *, readers: int) -> tuple[Engine, Engine]:
    """Return the writing and the reading engine of the file *path*, which is made if need be."""
    module = library()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise UnavailableError(
            f"the database {path} cannot be opened: {error}", code="database_unavailable"
        ) from error
    writer = _engine(module, path, size=1, begin="BEGIN IMMEDIATE", pragmas={})
    with writer.connect() as connection:
        found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if found != "ok":
        raise UnavailableError(
            f"the database {path} is damaged: {found}",
            code="database_corrupt",
            hint="Restore it from a backup; nothing was written.",
        )
    # Only the writer's connection checkpoints: readers have no cause to.
    reader = _engine(
        module,
        path,
        size=readers,
        begin="BEGIN",
        pragmas={"wal_autocheckpoint": 0, "query_only": 1},
    )
    return writer, reader


def _engine(
    module: ModuleType, path: Path, *, size: int, begin: str, pragmas: dict[str, object]
) -> Engine:
    engine = create_engine(
        "sqlite+pysqlite://",
        module=module,
        creator=lambda: module.connect(str(path), check_same_thread=False, isolation_level=None),
        poolclass=QueuePool,
        pool_size=size,
        max_overflow=0,
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        for name, value in {**_SETTINGS, **pragmas}.items():
            cursor.execute(f"PRAGMA {name} = {value}")
            if (took := cursor.execute(f"PRAGMA {name}").fetchone()[0]) != value:
                raise UnavailableError(
                    f"SQLite refused {name} = {value} on {path} (it is {took})",
                    code="wal_refused" if name == "journal_mode" else "database_unavailable",
                    hint="Keep Anyon's home on a local disk, not on a network file system.",
                )
        cursor.close()

    @event.listens_for(engine, "begin")
    def start(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    return engine
