"""Copies of a SQLite database that is in use, and whether a copy is sound."""

from pathlib import Path

from anyon.db.sqlite import library
from anyon.domain.errors import UnavailableError


def take(database: Path, target: Path) -> None:
    """Write a copy of *database* as of one moment to *target*, which must not exist; blocks.

    It is compact, and no writer waits for it. UnavailableError ``snapshot_failed``.
    """
    module = library()
    try:
        connection = module.connect(f"file:{_quoted(database)}?mode=ro", uri=True, timeout=30)
        try:
            connection.execute("VACUUM INTO ?", (str(target),))
        finally:
            connection.close()
    except module.Error as error:
        target.unlink(missing_ok=True)
        raise UnavailableError(
            f"the database could not be copied: {error}", code="snapshot_failed"
        ) from error


def check(database: Path) -> None:
    """Read a whole database; UnavailableError ``database_corrupt`` where it is not sound."""
    module = library()
    try:
        connection = module.connect(f"file:{_quoted(database)}?mode=ro", uri=True)
        try:
            found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        finally:
            connection.close()
    except module.Error as error:
        found = str(error)
    if found != "ok":
        raise UnavailableError(f"the copy is damaged: {found}", code="database_corrupt")


def _quoted(path: Path) -> str:
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
