"""Showing changes as a unified diff."""

import difflib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from anyon.cli.printing import say

if TYPE_CHECKING:
    from anyon.sdk.models import Diff

_MARKS = {
    "added": "A",
    "deleted": "D",
    "modified": "M",
    "renamed": "R",
    "copied": "C",
    "permissionChange": "P",
}


def show_diff(changes: "Sequence[Diff]", *, stat: bool) -> None:
    """Print the changes, or with *stat* one line a file."""
    for change in changes:
        if stat:
            say(_stat_line(change))
        else:
            for line in unified(change):
                say(line)
    if stat:
        added = sum(change.additions or 0 for change in changes)
        deleted = sum(change.deletions or 0 for change in changes)
        say(f"{len(changes)} files changed, +{added} -{deleted}")


def _stat_line(change: "Diff") -> str:
    counts = "binary" if change.additions is None else f"+{change.additions} -{change.deletions}"
    return f"{_MARKS[change.change]} {_name(change)}  {counts}"


def _name(change: "Diff") -> str:
    old, new = change.old_path, change.new_path
    return f"{old} -> {new}" if old and new and old != new else new or old or ""


def unified(change: "Diff") -> Iterator[str]:
    """Yield one file's unified diff, or a line that says why there is none."""
    old = f"a/{change.old_path}" if change.old_path else "/dev/null"
    new = f"b/{change.new_path}" if change.new_path else "/dev/null"
    if change.content_omitted:
        yield f"{change.change}: {_name(change)} (contents left out)"
        return
    lines = list(
        difflib.unified_diff(
            (change.old_content or "").splitlines(),
            (change.new_content or "").splitlines(),
            old,
            new,
            lineterm="",
        )
    )
    if lines:
        yield from lines
    else:
        yield f"{change.change}: {_name(change)}"
