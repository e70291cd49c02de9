"""An old installation as migrations find it: repositories, worktrees with work in them, a database."""

import hashlib
import os
import sqlite3
import subprocess
import uuid
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

SCHEMA = """
CREATE TABLE projects (id BLOB PRIMARY KEY, name TEXT, git_repo_path TEXT, setup_script TEXT,
  dev_script TEXT, cleanup_script TEXT, copy_files TEXT, created_at TEXT, updated_at TEXT, user_id TEXT);
CREATE TABLE tasks (id BLOB PRIMARY KEY, project_id BLOB, title TEXT, description TEXT, status TEXT,
  parent_task_attempt BLOB, created_at TEXT, updated_at TEXT);
CREATE TABLE task_attempts (id BLOB PRIMARY KEY, task_id BLOB, container_ref TEXT, branch TEXT,
  target_branch TEXT, executor TEXT, worktree_deleted INTEGER, created_at TEXT, updated_at TEXT);
CREATE TABLE merges (id BLOB PRIMARY KEY, task_attempt_id BLOB, merge_type TEXT, merge_commit TEXT,
  pr_number INTEGER, target_branch_name TEXT, created_at TEXT);
CREATE TABLE tags (id BLOB PRIMARY KEY, tag_name TEXT, content TEXT, created_at TEXT, updated_at TEXT);
CREATE TABLE images (id BLOB PRIMARY KEY, file_path TEXT, original_name TEXT, mime_type TEXT,
  size_bytes INTEGER, hash TEXT, created_at TEXT, updated_at TEXT);
CREATE TABLE task_images (id BLOB PRIMARY KEY, task_id BLOB, image_id BLOB, created_at TEXT);
CREATE TABLE drafts (id BLOB PRIMARY KEY, prompt TEXT);
"""
"""The old schema, of a version that has no ``setup_completed_at``."""
AT = "2025-03-04 05:06:07.089"
_RECORDED = "/var/opt/anyon"
"""Where the old installation was when it wrote its records: it has been moved since."""


class OldInstallation:
    """Builds one below *root*. Ids are kept by the names that a test gives them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ids: dict[str, uuid.UUID] = {}
        for name in ("workspace", "worktrees", "data"):
            (root / name).mkdir(parents=True)
        with closing(sqlite3.connect(self.database)) as database:
            database.executescript(SCHEMA)

    @property
    def database(self) -> Path:
        """Its database's file."""
        return self.root / "data" / "anyon.db"

    def git(self, place: Path, *arguments: str) -> str:
        """Run git, as the old server did, and return what it says."""
        who = {"GIT_AUTHOR_NAME": "Old", "GIT_AUTHOR_EMAIL": "old@localhost"}
        who |= {"GIT_COMMITTER_NAME": "Old", "GIT_COMMITTER_EMAIL": "old@localhost"}
        done = subprocess.run(
            ["git", "-C", str(place), *arguments],
            env={**os.environ, **who, "GIT_CONFIG_GLOBAL": "/dev/null", "HOME": str(self.root)},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def project(self, name: str, directory: str | None = None, **fields: str) -> Path:
        """Make a project with a repository of two commits, a tag and odd files."""
        place = self.root / "workspace" / (directory or name)
        place.mkdir()
        self.git(place, "init", "-q", "-b", "main")
        (place / ".gitignore").write_text("*.env\n")
        (place / "읽어 봐.txt").write_text("one\n")
        (place / "tool").write_text("#!/bin/sh\n")
        (place / "tool").chmod(0o755)
        (place / "link").symlink_to("tool")
        self.commit(place, "First")
        self.git(place, "tag", "v1")
        (place / "읽어 봐.txt").write_text("two\n")
        self.commit(place, "Second")
        (place / "secret.env").write_text("KEY=1\n")
        self._row(
            "projects", name, name=name, git_repo_path=f"{_RECORDED}/workspace/{place.name}",
            created_at=AT, updated_at=AT, user_id="somebody", **fields,
        )  # fmt: skip
        return place

    def commit(self, place: Path, words: str) -> str:
        """Commit everything and return the commit."""
        self.git(place, "add", "-A")
        self.git(place, "commit", "-q", "-m", words)
        return self.git(place, "rev-parse", "HEAD")

    def task(self, key: str, project: str, status: str = "inreview", **fields: str) -> None:
        """Record a task; its title is its key unless another is given."""
        self._row(
            "tasks", key, project_id=self.ids[project].bytes, status=status, created_at=AT,
            updated_at=AT, **{"title": key, **fields},
        )  # fmt: skip

    def attempt(
        self, key: str, task: str, place: Path, branch: str, *, executor: str = "CLAUDE_CODE"
    ) -> Path:
        """Record an attempt and make its worktree with a commit; return where it is."""
        worktree = self.root / "worktrees" / key
        self.git(place, "worktree", "add", "-q", "-b", branch, str(worktree))
        (worktree / "work.txt").write_text(f"{key}\n")
        self.commit(worktree, "Work")
        self._row(
            "task_attempts", key, task_id=self.ids[task].bytes, branch=branch, executor=executor,
            container_ref=f"{_RECORDED}/worktrees/{key}", target_branch="main", worktree_deleted=0,
            created_at=AT, updated_at=AT,
        )  # fmt: skip
        return worktree

    def merge(self, key: str, attempt: str, commit: str | None, kind: str = "direct") -> None:
        """Record a merge."""
        self._row(
            "merges", key, task_attempt_id=self.ids[attempt].bytes, merge_type=kind,
            merge_commit=commit, target_branch_name="main", created_at=AT,
        )  # fmt: skip

    def tag(self, name: str, content: str = "words") -> None:
        """Record a tag."""
        self._row("tags", name, tag_name=name, content=content, created_at=AT, updated_at=AT)

    def image(
        self, key: str, content: bytes, *tasks: str, place: str = "data/images", recorded: str = ""
    ) -> Path:
        """Record an image named *key*, attached to *tasks*, with its file in *place*; return where it is."""
        file = self.root / place / f"{len(self.ids)}_{key.replace(' ', '_')}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        self._row(
            "images", key, file_path=recorded or file.name, original_name=key,
            mime_type="image/png", size_bytes=len(content),
            hash=hashlib.sha256(content).hexdigest(), created_at=self._later(), updated_at=AT,
        )  # fmt: skip
        for task in tasks:
            self._row(
                "task_images", f"{key} of {task}", task_id=self.ids[task].bytes,
                image_id=self.ids[key].bytes, created_at=self._later(),
            )  # fmt: skip
        return file

    def draft(self, prompt: str) -> None:
        """Record an unsent text, which has no place in the new database."""
        self._row("drafts", prompt, prompt=prompt)

    def _later(self) -> str:
        """Return a time after that of the row before."""
        return f"{AT[:-3]}{len(self.ids):03}"

    def _row(self, table: str, key: str, **fields: object) -> None:
        self.ids[key] = uuid.uuid4()
        names = ", ".join(["id", *fields])
        marks = ", ".join("?" * (len(fields) + 1))
        with closing(sqlite3.connect(self.database)) as database, database:
            # The names are this module's own.
            query = f"INSERT INTO {table} ({names}) VALUES ({marks})"  # noqa: S608
            database.execute(query, [self.ids[key].bytes, *fields.values()])


def snapshot(root: Path) -> Mapping[str, tuple[object, ...]]:
    """Return everything that a visitor could have changed below *root*: kinds, contents and times."""
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        state = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path)] = (state.st_mode, state.st_mtime_ns, state.st_ino, content)
    return found
