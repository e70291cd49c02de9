"""Processes and events remember the request that they came of; NULL where there was none."""

from alembic import op
from sqlalchemy import Column, Text

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    for table in ("processes", "events"):
        op.add_column(table, Column("request_id", Text))
