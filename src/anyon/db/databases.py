"""The database behind two verbs: read and write, each one short transaction in a thread."""

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from prometheus_client import CollectorRegistry
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from anyon.db import postgres, sqlite
from anyon.db.upgrades import upgrade
from anyon.domain.errors import AnyonError, UnavailableError
from anyon.telemetry.parts import DatabaseMetrics
from anyon.telemetry.traces import span

P = ParamSpec("P")
R = TypeVar("R")
READERS = 4


class Database:
    """SQLite (a path) or Postgres (a ``postgresql://`` URL).

    A function that is handed to ``read`` or ``write`` gets the connection first, does nothing but
    queries, and may be run anew by its caller after UnavailableError. All writes of one database
    are serial, also those of several servers, so what a write has read stays true until its end.
    """

    def __init__(self, url_or_path: str | Path, metrics: DatabaseMetrics | None = None) -> None:
        address = str(url_or_path)
        self._metrics = metrics or DatabaseMetrics(CollectorRegistry())
        self._metrics.has_pool("read", READERS)
        self._metrics.has_pool("write", 1)
        self._is_postgres = address.startswith(("postgresql:", "postgres:", "postgresql+psycopg:"))
        self._url = address
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
        return await self._timed(
            "read",
            self._read_threads,
            lambda: _opened(self._reader),
            lambda it: fn(it, *args, **kwargs),
        )

    async def write(
        self, fn: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Return ``fn(connection, …)`` run in a transaction that has the database for itself.

        It is durable when this returns, and undone when *fn* raises. A caller that is cancelled
        meanwhile does not learn which of both happened.
        """
        return await self._timed(
            "write",
            self._write_thread,
            lambda: _opened(self._writer),
            lambda it: fn(it, *args, **kwargs),
        )

    async def size_bytes(self) -> int:
        """Return how much disk the database takes up."""
        if self._is_postgres:
            return await self.read(_postgres_size)
        return await self._in(self._read_threads, lambda: _files_size(Path(self._url)))

    async def _timed(
        self,
        kind: str,
        threads: ThreadPoolExecutor,
        engine: Callable[[], Engine],
        fn: Callable[[Connection], R],
    ) -> R:
        """Run one transaction in a thread, with the caller's context, and measure it."""
        leave_line = self._metrics.joined_line(kind)

        def work() -> R:
            leave_line()
            with self._metrics.at_work(kind):
                return _transact(engine(), fn)

        context = contextvars.copy_context()
        try:
            with span(f"database.{kind}"):
                return await self._in(threads, lambda: context.run(work))
        except UnavailableError:
            self._metrics.failed(kind)
            raise
        finally:
            leave_line()  # a caller that was cancelled in the line leaves it too

    @staticmethod
    async def _in(threads: ThreadPoolExecutor, work: Callable[[], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(threads, work)


def _opened(engine: Engine | None) -> Engine:
    if engine is None:
        raise UnavailableError("the database is not open", code="database_unavailable")
    return engine


def _transact(engine: Engine, fn: Callable[[Connection], R]) -> R:
    try:
        with engine.begin() as connection:
            return fn(connection)
    except DBAPIError as error:
        raise _translated(error) from error


def _postgres_size(connection: Connection) -> int:
    return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())


def _files_size(path: Path) -> int:
    """Return the length of SQLite's files; one that is not there (any more) has none."""
    size = 0
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            size += path.with_name(path.name + suffix).stat().st_size
    return size


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
