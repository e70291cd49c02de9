"""Bring a database to the form that this program knows, or refuse one that is newer."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from anyon.domain.errors import UnavailableError

MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(connection: Connection) -> None:
    """Run the migrations that are missing, inside the connection's transaction.

    Nothing happens to a database that is up to date. Raises UnavailableError
    (``schema_too_new``) for one that a newer Anyon has written.
    """
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    script = ScriptDirectory.from_config(config)
    known = {revision.revision for revision in script.walk_revisions()}
    current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and current not in known:
        raise UnavailableError(
            f"the database was written by a newer Anyon (schema {current})",
            code="schema_too_new",
            hint="Install that version or a newer one, or restore the backup from before its upgrade.",
        )
    if current != script.get_current_head():
        command.upgrade(config, "head")
