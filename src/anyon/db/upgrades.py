"""Bring a database to the form that this program knows, or refuse one that is newer."""

import re
from functools import cache
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from anyon.domain.errors import UnavailableError

MIGRATIONS = Path(__file__).parent / "migrations"
_VERSION_TABLE = "alembic_version"


def upgrade(connection: Connection) -> None:
    """Run the migrations that are missing, inside the connection's transaction.

    Nothing happens to a database that is up to date. Raises UnavailableError
    (``schema_too_new``) for one that a newer Anyon has written.
    """
    known, current = revisions(), _current(connection)
    if current is not None and current not in known:
        raise UnavailableError(
            f"the database was written by a newer Anyon (schema {current})",
            code="schema_too_new",
            hint="Install that version or a newer one, or restore the backup from before its upgrade.",
        )
    if current != known[-1]:
        _run(connection)


@cache
def revisions() -> tuple[str, ...]:
    """Return the migrations' revisions, oldest first: their files' names are in order."""
    found = []
    for path in sorted((MIGRATIONS / "versions").glob("[0-9]*.py")):
        match = re.search(r"^revision(?:: str)? = [\"'](.+)[\"']", path.read_text(), re.MULTILINE)
        if match is None:
            raise RuntimeError(f"{path.name} names no revision")
        found.append(match[1])
    return tuple(found)


def _current(connection: Connection) -> str | None:
    if not inspect(connection).has_table(_VERSION_TABLE):
        return None
    return connection.execute(text(f"SELECT version_num FROM {_VERSION_TABLE}")).scalar()  # noqa: S608 - a constant


def _run(connection: Connection) -> None:
    # Imported where it is used: a server whose database is up to date spares 15 MB.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
