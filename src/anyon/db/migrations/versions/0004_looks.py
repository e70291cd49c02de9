"""What was seen of a project's repository is kept, so that a project that sleeps can be looked at."""

from alembic import op
from sqlalchemy import Column, ForeignKey, Integer, LargeBinary, Text

from anyon.db.types import UtcTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "looks",
        Column("project_id", Text, ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),
        Column("key", Text, primary_key=True),
        Column("body", LargeBinary, nullable=False),
        Column("is_lasting", Integer, nullable=False),
        Column("seen_at", UtcTime, nullable=False),
        sqlite_strict=True,
    )
