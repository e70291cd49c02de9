"""Use cases on tags: texts that a user keeps under a name, to put them into prompts."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from anyon.clock import Clock
from anyon.db import tags as tag_rows
from anyon.db import users as user_rows
from anyon.db.databases import Database
from anyon.domain import names
from anyon.domain.actors import Actor
from anyon.domain.entities import Tag
from anyon.domain.errors import NotFoundError, OverLimitError
from anyon.domain.ids import LOCAL_USER, TagId, UserId, new_id

MOST = 1_000
"""Tags of one user: a client lists all of them whenever ``@`` is typed."""


class Tags:
    """What users do with their tags. A foreign or unknown id is NotFoundError (``tag_unknown``)."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def list(self, actor: Actor, search: str = "") -> Sequence[Tag]:
        """Return the user's tags by name: those whose name holds *search*, in whatever case."""
        wanted = search.strip().casefold()
        found = await self._db.read(tag_rows.of_user, actor.user_id)
        return [tag for tag in found if wanted in tag.name.casefold()]

    async def create(self, actor: Actor, name: str, content: str) -> Tag:
        """Record a tag.

        InvalidInputError: ``name_empty`` and its like, ``too_long`` (64 KiB of content), ``has_nul``;
        OverLimitError ``tags_full``.
        """
        now = self._clock.now()
        tag = Tag(
            id=TagId(new_id()),
            user_id=actor.user_id,
            name=names.tag_name(name),
            content=_content(content),
            created_at=now,
            updated_at=now,
        )
        await self._db.write(add, tag)
        return tag

    async def update(
        self, actor: Actor, tag_id: TagId, *, name: str | None = None, content: str | None = None
    ) -> Tag:
        """Change a tag and return it; None stays."""
        changes: dict[str, Any] = {"updated_at": self._clock.now()}
        if name is not None:
            changes["name"] = names.tag_name(name)
        if content is not None:
            changes["content"] = _content(content)
        return await self._db.write(_change, actor.user_id, tag_id, changes)

    async def delete(self, actor: Actor, tag_id: TagId) -> None:
        """Delete a tag."""
        if not await self._db.write(tag_rows.remove, actor.user_id, tag_id):
            raise _unknown()


def add(connection: Connection, tag: Tag, *, brought_in_at: datetime | None = None) -> None:
    """Record a tag; OverLimitError (``tags_full``) where its user has too many."""
    if tag_rows.count(connection, tag.user_id) >= MOST:
        raise OverLimitError(
            f"you have {MOST:,} tags already", code="tags_full", hint="Delete some you do not need."
        )
    name = "local" if tag.user_id == LOCAL_USER else tag.user_id
    user_rows.ensure(connection, tag.user_id, name, tag.created_at)
    tag_rows.add(connection, tag, brought_in_at=brought_in_at)


def _change(connection: Connection, user: UserId, tag_id: TagId, changes: dict[str, Any]) -> Tag:
    if tag_rows.get(connection, user, tag_id) is None:
        raise _unknown()
    tag_rows.change(connection, tag_id, changes)
    found = tag_rows.get(connection, user, tag_id)
    assert found is not None  # all writes are serial
    return found


def _content(raw: str) -> str:
    return names.text(raw, "a tag's content", limit=names.TAG_LIMIT)


def _unknown() -> NotFoundError:
    return NotFoundError("there is no such tag", code="tag_unknown")
