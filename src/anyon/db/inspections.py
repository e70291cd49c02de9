"""A look at a database that changes nothing in it, not even its schema: for doctor and support."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, func, inspect, make_url, select, text
from sqlalchemy.exc import SQLAlchemyError

from anyon.db.schema import events, metadata, projects
from anyon.db.sqlite import library
from anyon.db.upgrades import revisions
from anyon.domain.errors import UnavailableError

Row = Mapping[str, Any]
_EVENTS = ("sequence", "project_id", "kind", "reason", "at", "request_id")
_PROJECTS = (
    "id",
    "user_id",
    "goal",
    "phase",
    "state_reason",
    "phase_since",
    "last_active_at",
    "created_at",
    "deleted_at",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What is in a database: no texts that users wrote.

    ``columns`` names each table's columns with their types, ``counts`` its rows; ``revision`` is
    the schema's, ``newest`` the one that this program knows. ``events`` are the last ones, and
    they and ``projects`` have only those columns that hold ids, codes and times.
    """

    kind: str
    version: str
    revision: str | None
    newest: str
    columns: Mapping[str, Mapping[str, str]]
    counts: Mapping[str, int]
    projects: Sequence[Row]
    events: Sequence[Row]


def look(url_or_path: str | Path, *, event_limit: int = 1000) -> Inspection | None:
    """Return what is in a database, None where there is none yet; UnavailableError if it cannot be read."""
    address = str(url_or_path)
    is_postgres = address.startswith(("postgresql:", "postgres:", "postgresql+psycopg:"))
    if not is_postgres and not Path(address).exists():
        return None
    try:
        engine = _postgres(address) if is_postgres else _sqlite(Path(address))
        try:
            with engine.connect() as connection:
                return _seen(connection, engine.dialect.name, event_limit)
        finally:
            engine.dispose()
    except SQLAlchemyError as error:
        words = str(getattr(error, "orig", None) or type(error).__name__)
        raise UnavailableError(
            f"the database cannot be read: {words}", code="database_unavailable"
        ) from error


def _postgres(url: str) -> Engine:
    target = make_url(url.replace("postgres:", "postgresql:", 1)).set(
        drivername="postgresql+psycopg"
    )
    options = {"postgresql_readonly": True}
    return create_engine(target, isolation_level="REPEATABLE READ", execution_options=options)


def _sqlite(path: Path) -> Engine:
    module = library()
    address = f"{path.absolute().as_uri()}?mode=ro"
    return create_engine(
        "sqlite+pysqlite://",
        module=module,
        creator=lambda: module.connect(address, uri=True, check_same_thread=False),
    )


def _seen(connection: Connection, kind: str, event_limit: int) -> Inspection:
    inspector = inspect(connection)
    names = sorted(inspector.get_table_names())
    shapes = {
        name: {column["name"]: str(column["type"]) for column in inspector.get_columns(name)}
        for name in names
    }
    known = [table for table in metadata.sorted_tables if table.name in names]
    counts = {
        table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
        for table in known
    }
    revision = None
    if "alembic_version" in names:
        revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    query = "SELECT sqlite_version()" if kind == "sqlite" else "SHOW server_version"
    return Inspection(
        kind=kind,
        version=str(connection.execute(text(query)).scalar()),
        revision=revision,
        newest=revisions()[-1],
        columns=shapes,
        counts=counts,
        projects=_rows(connection, shapes, "projects", _PROJECTS),
        events=_rows(connection, shapes, "events", _EVENTS, limit=event_limit),
    )


def _rows(
    connection: Connection,
    shapes: Mapping[str, Mapping[str, str]],
    name: str,
    columns: Sequence[str],
    *,
    limit: int | None = None,
) -> Sequence[Row]:
    """Return rows of a table as far as it has these columns (it may be of an older version), newest first."""
    table = {"projects": projects, "events": events}[name]
    chosen = [table.c[column] for column in columns if column in shapes.get(name, {})]
    if not chosen:
        return ()
    query = select(*chosen).order_by(chosen[0].desc()).limit(limit)
    return [dict(row) for row in connection.execute(query).mappings()]
