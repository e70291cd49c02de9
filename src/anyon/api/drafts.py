"""What is typed and not yet sent, per attempt; kept while the server runs."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from anyon.domain.errors import ConflictError

MAX_DRAFTS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Typed:
    """One draft; version 0 is one that nobody has typed in."""

    attempt_id: str
    kind: str
    prompt: str = ""
    variant: str | None = None
    image_ids: tuple[str, ...] | None = None
    retry_process_id: str | None = None
    version: int = 0
    created_at: datetime
    updated_at: datetime


class Drafts:
    """The drafts of all attempts."""

    def __init__(self) -> None:
        self._typed: dict[tuple[str, str], Typed] = {}

    def get(self, attempt_id: str, kind: str) -> Typed:
        """Return a draft, an empty one when there is none."""
        now = datetime.now(UTC)
        empty = Typed(attempt_id=attempt_id, kind=kind, created_at=now, updated_at=now)
        return self._typed.get((attempt_id, kind), empty)

    def has(self, attempt_id: str, kind: str) -> bool:
        """Say whether something was typed."""
        return (attempt_id, kind) in self._typed

    def put(self, attempt_id: str, kind: str, version: int | None, **changes: Any) -> Typed:
        """Change a draft; ConflictError (``draft_changed``) when *version* is not its own."""
        draft = self.get(attempt_id, kind)
        if version is not None and version != draft.version:
            raise ConflictError("Draft changed, please retry with latest", code="draft_changed")
        now = datetime.now(UTC)
        kept = replace(draft, version=draft.version + 1, updated_at=now, **changes)
        self._typed.pop((attempt_id, kind), None)
        self._typed[attempt_id, kind] = kept
        if len(self._typed) > MAX_DRAFTS:  # the one that was typed in longest ago makes room
            self._typed.pop(next(iter(self._typed)))
        return kept

    def drop(self, attempt_id: str, kind: str) -> None:
        """Forget a draft; repeats are harmless."""
        self._typed.pop((attempt_id, kind), None)
