"""Postgres, made to behave as the contract says: writes are serial, reads see one moment."""

from typing import Any

from sqlalchemy import Engine, create_engine, event, make_url

_WRITES = 0x616E796F6E
"""The advisory lock that makes writes serial, over all servers of this database."""


def engines(url: str, *, readers: int) -> tuple[Engine, Engine]:
    """Return the writing and the reading engine of *url*."""
    target = make_url(url).set(drivername="postgresql+psycopg")
    writer = create_engine(target, pool_size=1, max_overflow=0, pool_pre_ping=True)

    @event.listens_for(writer, "begin")
    def lock(connection: Any) -> None:
        connection.exec_driver_sql("SET LOCAL lock_timeout = '10s'")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITES})")

    reader = create_engine(
        target,
        pool_size=readers,
        max_overflow=0,
        pool_pre_ping=True,
        isolation_level="REPEATABLE READ",
        execution_options={"postgresql_readonly": True},
    )
    return writer, reader
