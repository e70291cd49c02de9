"""Differences of text files, in bounded time: what is too different is told as a whole."""

import difflib
from dataclasses import dataclass

MAX_BYTES = 1 << 20
"""A file above it is not compared as text."""
_MAX_LINES = 2500
"""Between what both have at the beginning and at the end: beyond it lines are not matched up."""
_CONTEXT = 3


@dataclass(frozen=True, slots=True)
class TextDifference:
    """A unified diff; empty with *is_binary* or *is_too_large* set where there is none to show."""

    text: str = ""
    is_binary: bool = False
    is_too_large: bool = False


def difference(before: bytes, after: bytes, path: str) -> TextDifference:
    """Return how *after* differs from *before*; what is no UTF-8 text is binary."""
    if max(len(before), len(after)) > MAX_BYTES:
        return TextDifference(is_too_large=True)
    if b"\0" in before or b"\0" in after:
        return TextDifference(is_binary=True)
    try:
        old, new = before.decode(), after.decode()
    except UnicodeDecodeError:
        return TextDifference(is_binary=True)
    lines = [f"--- a/{path}\n", f"+++ b/{path}\n"]
    hunks = _hunks(old.splitlines(keepends=True), new.splitlines(keepends=True))
    return TextDifference("".join(lines + hunks) if hunks else "")


def _hunks(old: list[str], new: list[str]) -> list[str]:
    start = _alike(old, new)
    end = _alike(old[start:][::-1], new[start:][::-1])
    middle = old[start : len(old) - end], new[start : len(new) - end]
    if max(map(len, middle)) <= _MAX_LINES:
        rows = list(difflib.unified_diff(old, new, n=_CONTEXT))[2:]
        return [_ended(row) for row in rows]
    first = max(0, start - _CONTEXT)
    lasts = min(end, _CONTEXT)
    head = [f" {line}" for line in old[first:start]]
    tail = [f" {line}" for line in old[len(old) - end :][:lasts]]
    extra = len(head) + len(tail)
    sizes = len(middle[0]) + extra, len(middle[1]) + extra
    hunk = [f"@@ -{first + 1},{sizes[0]} +{first + 1},{sizes[1]} @@\n", *head]
    hunk += [f"-{line}" for line in middle[0]] + [f"+{line}" for line in middle[1]] + tail
    return [_ended(row) for row in hunk]


def _alike(one: list[str], other: list[str]) -> int:
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return count


def _ended(row: str) -> str:
    return row if row.endswith("\n") else f"{row}\n\\ No newline at end of file\n"
