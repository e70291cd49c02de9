"""The tables as the program knows them; migrations bring a database to this form.

Who may see a row is decided by ``members``: every user's query on a project, or on anything that
belongs to one, goes through it (see ``rows.visible``). A project's owner is its first member. Tags
and pictures are a user's own, whatever the project; a picture is seen with the tasks it is attached to.
"""

from sqlalchemy import (
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    literal_column,
    text,
    type_coerce,
)

from anyon.db.types import Flag, UtcTime, Word, Words
from anyon.domain.states import ExitReason, Goal, Phase, ProcessStatus, RunReason, TaskStatus

metadata = MetaData()


def _table(name: str, *columns: Column[object] | Index) -> Table:
    return Table(name, metadata, *columns, sqlite_strict=True)


def _belongs(name: str, *, optional: bool = False) -> Column[object]:
    column = f"{name.removesuffix('s')}_id"
    target = ForeignKey(f"{name}.id", ondelete="CASCADE")
    return Column(column, Text, target, nullable=optional, index=True)


users = _table(
    "users",
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
)
tokens = _table(
    "tokens",
    Column("id", Text, primary_key=True),
    _belongs("users"),
    Column("name", Text, nullable=False),
    Column("prefix", Text, nullable=False),
    Column("sha256", Text, nullable=False, unique=True),
    Column("scopes", Words, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime),
    Column("last_used_at", UtcTime),
)
projects = _table(
    "projects",
    Column("id", Text, primary_key=True),
    _belongs("users"),
    Column("name", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("image", Text),
    Column("default_agent", Text),
    Column("setup_script", Text),
    Column("dev_script", Text),
    Column("cleanup_script", Text),
    Column("copy_files", Text),
    Column("goal", Word(Goal), nullable=False),
    Column("phase", Word(Phase), nullable=False),
    Column("state_reason", Text, nullable=False),
    Column("state_detail", Text, nullable=False),
    Column("phase_since", UtcTime, nullable=False),
    Column("last_active_at", UtcTime, nullable=False),
    Column("setup_completed_at", UtcTime),
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    Column("deleted_at", UtcTime),
    Column("server_id", Text),
    Column("server_until", UtcTime),
    Column("freeze_after", Integer),
    Column("stop_after", Integer),
    Column("archive_after", Integer),
)
Index(
    "ux_projects_name",
    projects.c.user_id,
    projects.c.name,
    unique=True,
    sqlite_where=text("deleted_at IS NULL"),
    postgresql_where=text("deleted_at IS NULL"),
)
members = _table(
    "members",
    Column("project_id", Text, ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),
    Column("user_id", Text, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("role", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Index("ix_members_user_id", "user_id"),
)
tasks = _table(
    "tasks",
    Column("id", Text, primary_key=True),
    _belongs("projects"),
    Column("title", Text, nullable=False),
    Column("description", Text),
    Column("status", Word(TaskStatus), nullable=False),
    Column("parent_attempt_id", Text),
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
)
tags = _table(
    "tags",
    Column("id", Text, primary_key=True),
    _belongs("users"),
    Column("name", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    # When a migration brought it in; a rollback takes it away again.
    Column("brought_in_at", UtcTime),
)
pictures = _table(
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
    # As a tag's.
    Column("brought_in_at", UtcTime),
    Index("ux_pictures_sha256", "user_id", "sha256", unique=True),
    Index("ux_pictures_file", "user_id", "file", unique=True),
)
# Apart, so that no list of pictures ever reads their bytes.
picture_contents = _table(
    "picture_contents",
    Column("picture_id", Text, ForeignKey("pictures.id", ondelete="CASCADE"), primary_key=True),
    Column("content", LargeBinary, nullable=False),
)
task_pictures = _table(
    "task_pictures",
    Column("task_id", Text, ForeignKey("tasks.id", ondelete="CASCADE"), primary_key=True),
    Column("picture_id", Text, ForeignKey("pictures.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, nullable=False),
    Index("ix_task_pictures_picture_id", "picture_id"),
)
attempts = _table(
    "attempts",
    Column("id", Text, primary_key=True),
    _belongs("tasks"),
    _belongs("projects"),
    Column("branch", Text, nullable=False),
    Column("target_branch", Text, nullable=False),
    Column("agent", Text, nullable=False),
    Column("variant", Text),
    Column("worktree", Text),
    Column("worktree_deleted", Flag, nullable=False),
    Column("setup_completed_at", UtcTime),
    Column("merge_commit", Text),
    Column("saved_ref", Text),
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    Index("ux_attempts_branch", "project_id", "branch", unique=True),
)
processes = _table(
    "processes",
    Column("id", Text, primary_key=True),
    _belongs("projects"),
    _belongs("attempts", optional=True),
    Column("run_reason", Word(RunReason), nullable=False),
    Column("action", Text, nullable=False),
    Column("status", Word(ProcessStatus), nullable=False),
    Column("exit_code", Integer),
    Column("exit_reason", Word(ExitReason)),
    Column("session_id", Text),
    Column("before_head_commit", Text),
    Column("after_head_commit", Text),
    Column("dropped", Flag, nullable=False),
    Column("request_id", Text),
    Column("started_at", UtcTime, nullable=False),
    Column("completed_at", UtcTime),
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
    # The server still owes it something: to start it, to follow it, or to do what comes after it.
    Column("is_open", Flag, nullable=False),
    # Its end was asked for: it must not be started, and nothing of its chain comes after it.
    Column("is_stopping", Flag, nullable=False),
)
IS_OPEN = type_coerce(processes.c.is_open, Integer) == literal_column("1")
"""The condition that a process is open, in the words of its index, so that this is used."""
Index(
    "ix_processes_open",
    processes.c.project_id,
    processes.c.is_open,
    sqlite_where=text("is_open = 1"),
    postgresql_where=text("is_open = 1"),
)
leases = _table(
    "leases",
    Column("id", Text, primary_key=True),
    _belongs("projects"),
    Column("holder", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
)
events = _table(
    "events",
    Column("sequence", Integer, primary_key=True, autoincrement=True),
    _belongs("projects"),
    Column("kind", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("request_id", Text),
)
merges = _table(
    "merges",
    Column("id", Text, primary_key=True),
    _belongs("attempts"),
    Column("commit", Text, nullable=False),
    Column("target_branch", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
)
looks = _table(
    "looks",
    Column("project_id", Text, ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True),
    Column("key", Text, primary_key=True),
    # What was seen, as compressed JSON.
    Column("body", LargeBinary, nullable=False),
    Column("is_lasting", Flag, nullable=False),
    Column("seen_at", UtcTime, nullable=False),
)
