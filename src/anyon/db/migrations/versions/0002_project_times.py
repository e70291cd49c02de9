"""Projects may have idle times of their own, in seconds; NULL is the server's."""

from alembic import op
from sqlalchemy import Column, Integer

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_COLUMNS = ("freeze_after", "stop_after", "archive_after")


def upgrade() -> None:
    """Add the columns."""
    for name in _COLUMNS:
        op.add_column("projects", Column(name, Integer))
