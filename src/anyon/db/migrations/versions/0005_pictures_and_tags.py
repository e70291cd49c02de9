"""Pictures that are attached to tasks, their bytes in a table of their own; and users' tags."""

from alembic import op
from sqlalchemy import Column, ForeignKey, Integer, LargeBinary, Text

from anyon.db.types import UtcTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "tags",
        Column("id", Text, primary_key=True),
        Column("user_id", Text, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
        Column("name", Text, nullable=False),
        Column("content", Text, nullable=False),
        Column("created_at", UtcTime, nullable=False),
        Column("updated_at", UtcTime, nullable=False),
        Column("brought_in_at", UtcTime),
        sqlite_strict=True,
    )
    op.create_index("ix_tags_user_id", "tags", ["user_id"])
    op.create_table(
        "pictures",
        Column("id", Text, primary_key=True),
        Column("user_id", Text, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
        Column("file", Text, nullable=False),
        Column("name", Text, nullable=False),
        Column("mime_type", Text, nullable=False),
        Column("size_bytes", Integer, nullable=False),
        Column("sha256", Text, nullable=False),
        Column("created_at", UtcTime, nullable=False),
        Column("updated_at", UtcTime, nullable=False),
        Column("brought_in_at", UtcTime),
        sqlite_strict=True,
    )
    op.create_index("ux_pictures_sha256", "pictures", ["user_id", "sha256"], unique=True)
    op.create_index("ux_pictures_file", "pictures", ["user_id", "file"], unique=True)
    op.create_table(
        "picture_contents",
        Column("picture_id", Text, ForeignKey("pictures.id", ondelete="CASCADE"), primary_key=True),
        Column("content", LargeBinary, nullable=False),
        sqlite_strict=True,
    )
    op.create_table(
        "task_pictures",
        Column("task_id", Text, ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True),
        Column("picture_id", Text, ForeignKey("pictures.id", ondelete="CASCADE"), primary_key=True),
        Column("position", Integer, nullable=False),
        sqlite_strict=True,
    )
    op.create_index("ix_task_pictures_picture_id", "task_pictures", ["picture_id"])
