"""The database behind two verbs: read and write, each one short transaction in a thread."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from anyon.db import postgres, sqlite
from anyon.db.upgrades import upgrade
from anyon.domain.errors import AnyonError, UnavailableError

P = ParamSpec("P")
R = TypeVar("R")
READERS = 4


class Database:
    """SQLite (a path) or Postgres (a ``postgresql://`` URL).

    A function that is handed to ``read`` or ``write`` gets the connection first, does nothing but
    queries, and may be run anew by its caller after UnavailableError. All writes of one database
    are serial, also those of several servers, so what a write has read stays true until its end.
    """

    def __init__(self, url_or_path: str | Path) -> None:
        text = str(url_or_path)
        self._is_postgres = text.startswith(("postgresql:", "postgres:", "postgresql+psycopg:"))
        self._url = text
        self._writer: Engine | None = None
        self._reader: Engine | None = None
        self._is_closed = False
        # A thread each: one writer, so that writes queue here and never fight for the lock.
        self._write_thread = ThreadPoolExecutor(1, thread_name_prefix="db-write")
        self._read_threads = ThreadPoolExecutor(READERS, thread_name_prefix="db-read")

    async def open(self) -> None:
        """Connect, check what the library and the file promise, and bring the schema up to date.

        UnavailableError: ``schema_too_new``, ``database_corrupt``, ``database_unavailable``,
        ``wal_refused``; MissingError: ``sqlite_too_old``.
        """
        await self._in(self._write_thread, self._open)

    def _open(self) -> None:
        try:
            if self._is_postgres:
                self._writer, self._reader = postgres.engines(self._url, readers=READERS)
            else:
                self._writer, self._reader = sqlite.engines(Path(self._url), readers=READERS)
        except DBAPIError as error:
            raise _translated(error) from error
        _transact(self._writer, upgrade)

    async def close(self) -> None:
        """Wait for what runs and disconnect. Repeats are harmless."""
        if self._is_closed:
            return
        self._is_closed = True
        await self._in(self._write_thread, self._close)
        self._write_thread.shutdown(wait=False)
        self._read_threads.shutdown(wait=False)

    def _close(self) -> None:
        for engine in (self._reader, self._writer):
            if engine is not None:
                engine.dispose()
        self._reader = self._writer = None

    async def read(
        self, fn: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Return ``fn(connection, …)`` run in a transaction that sees one moment and cannot write."""
        return await self._in(
            self._read_threads, lambda: _transact(_opened(self._reader), fn, *args, **kwargs)
        )

    async def write(
        self, fn: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Return ``fn(connection, …)`` run in a transaction that has the database for itself.

        It is durable when this returns, and undone when *fn* raises. A caller that is cancelled
        meanwhile does not learn which of both happened.
        """
        return await self._in(
            self._write_thread, lambda: _transact(_opened(self._writer), fn, *args, **kwargs)
        )

    @staticmethod
    async def _in(threads: ThreadPoolExecutor, work: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(threads, work)


def _opened(engine: Engine | None) -> Engine:
    if engine is None:
        raise UnavailableError("the database is not open", code="database_unavailable")
    return engine


def _transact(
    engine: Engine,
    fn: Callable[Concatenate[Connection, P], R],
    *args: P.args,
    **kwargs: P.kwargs,
) -> R:
    try:
        with engine.begin() as connection:
            return fn(connection, *args, **kwargs)
    except DBAPIError as error:
        raise _translated(error) from error


def _translated(error: DBAPIError) -> AnyonError:
    """Say a driver's error in our words; its text holds no values, only what went wrong."""
    words = str(error.orig)
    for sign, code, hint in _SIGNS:
        if sign in words.lower():
            return UnavailableError(f"the database failed: {words}", code=code, hint=hint)
    return UnavailableError(f"the database failed: {words}", code="database_failed")


_SIGNS = (
    ("disk is full", "disk_full", "Free some space on the disk that holds Anyon's home."),
    ("no space left", "disk_full", "Free some space on the disk that holds the database."),
    ("database is locked", "database_busy", "Another program holds the database; try again."),
    ("lock timeout", "database_busy", "Another server holds the database; try again."),
    ("malformed", "database_corrupt", "Restore the database from a backup."),
    ("not a database", "database_corrupt", "Restore the database from a backup."),
    ("connection", "database_unavailable", "Check that the database server runs; try again."),
)
