"""Why a script inside the container refuses: exit codes of ours, and the errors they become.

Git itself ends with 0, 1, 128 and 129, a shell with 2, 126 and 127; ours are 70 and above. A
refusing script may print the files it is about, each ended by a NUL.
"""

import re
from enum import IntEnum

from anyon.domain.errors import (
    AnyonError,
    ConflictError,
    InvalidInputError,
    MissingError,
    NotFoundError,
    OverLimitError,
)
from anyon.git.names import redacted

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]|\x1b\[[0-9;]*[A-Za-z]")
_NAMED_FILE = re.compile(r"^error: (?:Entry|Untracked working tree file) '(.+?)' ", re.MULTILINE)
_SHOWN_FILES = 20


class Refusal(IntEnum):
    """The exit code of a script that refuses; scripts know them by these names."""

    WORKTREE_UNKNOWN = 70
    BRANCH_UNKNOWN = 71
    BUSY = 72
    NOT_A_REPOSITORY = 73
    MERGE_CONFLICT = 74
    TARGET_DIRTY = 75
    TARGET_MOVED = 76
    BRANCH_EXISTS = 77
    MERGE_UNFINISHED = 78
    WORKTREE_DIRTY = 79
    REBASE_IN_PROGRESS = 80
    CONFLICTS_UNRESOLVED = 81
    WORKSPACE_NOT_EMPTY = 82
    SAVE_INCOMPLETE = 83
    UNRELATED = 84
    COMMIT_UNKNOWN = 85
    REBASE_STUCK = 86
    HEAD_MOVED = 87
    NOT_LAID = 88


_ERRORS: dict[Refusal, tuple[type[AnyonError], str, str, str]] = {
    Refusal.WORKTREE_UNKNOWN: (NotFoundError, "worktree_unknown", "the worktree is not there", ""),
    Refusal.BRANCH_UNKNOWN: (NotFoundError, "branch_unknown", "there is no such branch", ""),
    Refusal.COMMIT_UNKNOWN: (NotFoundError, "commit_unknown", "there is no such commit", ""),
    Refusal.BUSY: (
        ConflictError,
        "repository_busy",
        "another git command holds the repository",
        "Try again when it is done.",
    ),
    Refusal.NOT_A_REPOSITORY: (
        InvalidInputError,
        "not_a_repository",
        "there is no git repository here",
        "A .git directory is needed; a link or a gitfile leads out of the container.",
    ),
    Refusal.MERGE_CONFLICT: (
        ConflictError,
        "merge_conflict",
        "the changes conflict; nothing was changed",
        "Rebase the attempt onto its target and resolve the conflicts there.",
    ),
    Refusal.TARGET_DIRTY: (
        ConflictError,
        "target_dirty",
        "local changes in the target's checkout would be overwritten; nothing was changed",
        "Commit or discard them, then merge again.",
    ),
    Refusal.TARGET_MOVED: (
        ConflictError,
        "target_moved",
        "the branches moved while they were merged; nothing was changed",
        "Merge again.",
    ),
    Refusal.BRANCH_EXISTS: (ConflictError, "branch_exists", "there is such a branch already", ""),
    Refusal.MERGE_UNFINISHED: (
        ConflictError,
        "merge_unfinished",
        "an interrupted merge is not put right yet",
        "Try again.",
    ),
    Refusal.WORKTREE_DIRTY: (
        ConflictError,
        "worktree_dirty",
        "the worktree has uncommitted changes",
        "Commit them first.",
    ),
    Refusal.REBASE_IN_PROGRESS: (
        ConflictError,
        "rebase_in_progress",
        "a rebase is already in progress",
        "Resolve its conflicts or abort it in the worktree, then try again.",
    ),
    Refusal.CONFLICTS_UNRESOLVED: (
        ConflictError,
        "conflicts_unresolved",
        "the worktree has unresolved conflicts or an unfinished rebase",
        "Resolve them in the worktree first.",
    ),
    Refusal.NOT_LAID: (
        ConflictError,
        "attachment_not_laid",
        "the file cannot be written there: something else is in its place, or the disk is full",
        "Remove what is in its place, a link above all.",
    ),
    Refusal.WORKSPACE_NOT_EMPTY: (
        ConflictError,
        "workspace_not_empty",
        "the workspace has files already",
        "Clone into a new project.",
    ),
    Refusal.SAVE_INCOMPLETE: (
        ConflictError,
        "save_incomplete",
        "some files of the worktree cannot be saved, so it stays",
        "Make them readable or delete them, then clean up again.",
    ),
    Refusal.UNRELATED: (
        ConflictError,
        "unrelated_histories",
        "the branches have no common history",
        "",
    ),
    Refusal.HEAD_MOVED: (
        ConflictError,
        "head_moved",
        "the workspace has another branch checked out by now",
        "Try again.",
    ),
    Refusal.REBASE_STUCK: (
        ConflictError,
        "rebase_stuck",
        "the rebase failed and could not be undone",
        "Look at the worktree with `git status`.",
    ),
}


def prelude() -> str:
    """Return the shell assignments by which scripts know the codes."""
    return "\n".join(f"{refusal.name}={refusal.value}" for refusal in Refusal) + "\n"


def error_of(code: int, stdout: bytes, stderr: bytes) -> AnyonError:
    """Return the error for a script that ended with *code*, having said *stdout* and *stderr*."""
    said = readable(stderr)
    try:
        refusal = Refusal(code)
    except ValueError:
        return _foreign(code, said)
    kind, name, message, hint = _ERRORS[refusal]
    listed = [path.decode("utf-8", "backslashreplace") for path in stdout.split(b"\0") if path]
    files = listed or sorted(set(_NAMED_FILE.findall(said)))
    if files:
        more = f" and {len(files) - _SHOWN_FILES} more" if len(files) > _SHOWN_FILES else ""
        message = f"{message}: {', '.join(files[:_SHOWN_FILES])}{more}"
    return kind(message, code=name, hint=hint)


def _foreign(code: int, said: str) -> AnyonError:
    if code == 127 and "git" in said and "not found" in said:
        return MissingError(
            "git is not installed in the project's container",
            code="git_missing",
            hint="Use an image with git 2.39 or later, or install it there.",
        )
    if "No space left on device" in said or "Disk quota exceeded" in said:
        return OverLimitError(f"the disk is full: {said[-500:]}", code="disk_full")
    return AnyonError(f"git failed ({code}): {said[-2000:]}", code="git_failed")


def readable(output: bytes) -> str:
    """Return a program's words for people: no control characters, no credentials."""
    return redacted(_CONTROL.sub("", output.decode("utf-8", "replace"))).strip()
