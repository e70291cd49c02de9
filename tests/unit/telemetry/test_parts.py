"""The database and the store tell how long they take, what fails, and what waits."""

import asyncio
import threading
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from anyon.db.databases import Database
from anyon.domain.errors import ConflictError, UnavailableError
from anyon.storage.drivers.memory import MemoryStore
from anyon.storage.objects import ObjectNotFoundError, StoreUnavailableError
from anyon.storage.observing import ObservedStore
from anyon.telemetry import Metrics
from anyon.testing.worlds import until


def value(metrics: Metrics, series: str) -> float:
    """Return one series' value as Prometheus reads it."""
    lines = [line for line in metrics.text().splitlines() if line.startswith(f"{series} ")]
    assert len(lines) == 1, series
    return float(lines[0].rsplit(" ", 1)[1])


class Broken(MemoryStore):
    """A store that does not answer."""

    def get(self, key: str, *, start: int = 0, length: int | None = None):
        """Fail."""
        raise StoreUnavailableError("no answer")


def test_each_try_of_a_store_is_counted() -> None:
    """Calls and bytes are counted by operation; that there is no object is an answer, not an error."""
    metrics = Metrics()
    store = ObservedStore(MemoryStore(), metrics.store)
    store.put("key", b"12345")
    assert store.get("key").data == b"12345"
    assert [info.key for info in store.list("")] == ["key"]
    with pytest.raises(ObjectNotFoundError):
        store.get("other")
    assert value(metrics, 'anyon_store_duration_seconds_count{operation="get"}') == 2
    assert value(metrics, 'anyon_store_duration_seconds_count{operation="list"}') == 1
    assert value(metrics, 'anyon_store_bytes_total{direction="out"}') == 5
    assert value(metrics, 'anyon_store_bytes_total{direction="in"}') == 5
    errors = [line for line in metrics.text().splitlines() if "store_errors_total{" in line]
    assert errors
    assert all(line.endswith(" 0.0") for line in errors)


def test_a_stores_failures_are_counted_by_code() -> None:
    """The code is one of a few known ones, so that their number stays bounded."""
    metrics = Metrics()
    store = ObservedStore(Broken(), metrics.store)
    with pytest.raises(StoreUnavailableError):
        store.get("key")
    series = 'anyon_store_errors_total{code="store_unavailable",operation="get"}'
    assert value(metrics, series) == 1
    metrics.store.failed("get", "a code that nobody knows")
    assert value(metrics, 'anyon_store_errors_total{code="other",operation="get"}') == 1


async def test_transactions_are_measured(tmp_path: Path) -> None:
    """Reads and writes are counted; what their function refuses is no failure of the database."""
    metrics = Metrics()
    db = Database(tmp_path / "db", metrics.database)
    await db.open()

    def refuse(connection: Connection) -> None:
        raise ConflictError("not so")

    def fail(connection: Connection) -> None:
        connection.execute(text("SELECT 1 FROM nowhere"))

    await db.read(lambda connection: connection.execute(text("SELECT 1")).scalar())
    with pytest.raises(ConflictError):
        await db.write(refuse)
    with pytest.raises(UnavailableError):
        await db.read(fail)
    assert value(metrics, 'anyon_database_duration_seconds_count{kind="read"}') == 2
    assert value(metrics, 'anyon_database_wait_seconds_count{kind="write"}') == 1
    assert value(metrics, 'anyon_database_errors_total{kind="write"}') == 0
    assert value(metrics, 'anyon_database_errors_total{kind="read"}') == 1
    assert value(metrics, 'anyon_database_connections_max{kind="write"}') == 1
    assert await db.size_bytes() > 4096
    await db.close()


async def test_who_waits_for_the_database_is_seen(tmp_path: Path) -> None:
    """While one write is at work the next ones wait; who gives up leaves the line."""
    metrics, go = Metrics(), threading.Event()
    db = Database(tmp_path / "db", metrics.database)
    await db.open()

    def hold(connection: Connection) -> None:
        go.wait(60)

    first = asyncio.create_task(db.write(hold))
    others = [asyncio.create_task(db.write(lambda _: None)) for _ in range(2)]

    async def they_wait() -> bool:
        busy = value(metrics, 'anyon_database_connections_busy{kind="write"}')
        return busy == 1 and value(metrics, 'anyon_database_waiting{kind="write"}') == 2

    await until(they_wait)
    others[1].cancel()
    await asyncio.gather(others[1], return_exceptions=True)
    assert value(metrics, 'anyon_database_waiting{kind="write"}') == 1
    go.set()
    await asyncio.gather(first, others[0])
    assert value(metrics, 'anyon_database_waiting{kind="write"}') == 0
    assert value(metrics, 'anyon_database_connections_busy{kind="write"}') == 0
    await db.close()
