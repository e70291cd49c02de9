"""Use cases on pictures: image files that users attach to tasks ("images" on the wire)."""

import asyncio
import hashlib
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection

from anyon.clock import Clock
from anyon.db import pictures as picture_rows
from anyon.db import tasks as task_rows
from anyon.db import users as user_rows
from anyon.db.databases import Database
from anyon.domain import pictures
from anyon.domain.actors import Actor
from anyon.domain.entities import Picture
from anyon.domain.errors import NotFoundError, OverLimitError
from anyon.domain.ids import LOCAL_USER, PictureId, TaskId, UserId, new_id

QUOTA = 512 * 1024 * 1024
"""Bytes of all pictures of one user, where nothing else is set."""


class Pictures:
    """What users do with their pictures. A foreign or unknown one is NotFoundError (``image_unknown``).

    ``quota`` bounds the bytes of one user's.
    """

    def __init__(self, db: Database, clock: Clock, *, quota: int = QUOTA) -> None:
        self._db = db
        self._clock = clock
        self._quota = quota

    async def upload(
        self, actor: Actor, name: str, content: bytes, *, task_id: TaskId | None = None
    ) -> Picture:
        """Record a picture, attach it to a task if one is named, and return it.

        A content that the user has already gives that picture, as it was named first.
        UnfitFileError ``image_type_unknown``, ``image_unreadable``; TooLargeError
        ``image_too_large``; OverLimitError ``images_full``; NotFoundError ``task_unknown``.
        """
        picture = await asyncio.to_thread(self._made, actor.user_id, name, content)
        return await self._db.write(_upload, picture, content, self._quota, task_id)

    def _made(self, user: UserId, raw: str, content: bytes) -> Picture:
        name = pictures.name_of(raw)
        now, picture_id = self._clock.now(), PictureId(new_id())
        return Picture(
            id=picture_id,
            user_id=user,
            file=pictures.file_of(picture_id, name),
            name=name,
            mime_type=pictures.type_of(name, content),
            size_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            created_at=now,
            updated_at=now,
        )

    async def of_task(self, actor: Actor, task_id: TaskId) -> Sequence[Picture]:
        """Return what is attached to a task, in order; NotFoundError (``task_unknown``)."""
        return await self._db.read(_of_task, actor.user_id, task_id)

    async def content(self, actor: Actor, picture_id: PictureId) -> tuple[Picture, bytes]:
        """Return a picture and its bytes."""
        return await self._db.read(_content, actor.user_id, picture_id)

    async def check(self, actor: Actor, chosen: Sequence[PictureId]) -> None:
        """Raise NotFoundError (``image_unknown``) unless all *chosen* are the user's own."""
        await self._db.read(check, actor.user_id, None, chosen)

    async def delete(self, actor: Actor, picture_id: PictureId) -> None:
        """Delete the user's own picture, and it from all tasks."""
        if not await self._db.write(picture_rows.remove, actor.user_id, picture_id):
            raise _unknown()


def add(
    connection: Connection,
    picture: Picture,
    content: bytes,
    quota: int,
    *,
    brought_in_at: datetime | None = None,
) -> None:
    """Record a picture; OverLimitError (``images_full``) where its user's would be too much."""
    count, used = picture_rows.use(connection, picture.user_id)
    if count >= pictures.MOST_OF_USER:
        raise OverLimitError(
            f"you have {count:,} images already",
            code="images_full",
            hint="Delete some you do not need.",
        )
    if used + picture.size_bytes > quota:
        raise OverLimitError(
            f"your images take up {used:,} of {quota:,} bytes: no room for {picture.size_bytes:,} more",
            code="images_full",
            hint="Delete some you do not need; the operator's setting is picture_quota.",
        )
    name = "local" if picture.user_id == LOCAL_USER else picture.user_id
    user_rows.ensure(connection, picture.user_id, name, picture.created_at)
    picture_rows.add(connection, picture, content, brought_in_at=brought_in_at)


def check(
    connection: Connection, user: UserId, task_id: TaskId | None, chosen: Sequence[PictureId]
) -> None:
    """Raise NotFoundError (``image_unknown``) unless all *chosen* are the user's own, or the task's already."""
    known = set(picture_rows.owned(connection, user, chosen))
    if task_id is not None and not known.issuperset(chosen):
        known |= {one.id for one in picture_rows.of_task(connection, task_id)}
    if not known.issuperset(chosen):
        raise _unknown()


def attach(
    connection: Connection, user: UserId, task_id: TaskId, chosen: Sequence[PictureId]
) -> None:
    """Attach pictures to a task that the user may see.

    NotFoundError (``image_unknown``); OverLimitError (``task_images_full``) for more than 100.
    """
    check(connection, user, task_id, chosen)
    _attach(connection, task_id, chosen)


def replace(
    connection: Connection, user: UserId, task_id: TaskId, chosen: Sequence[PictureId]
) -> None:
    """Attach these pictures to a task instead of those that are; errors as ``attach``."""
    check(connection, user, task_id, chosen)  # first: what is the task's already may stay
    picture_rows.detach_all(connection, task_id)
    _attach(connection, task_id, chosen)


def _attach(connection: Connection, task_id: TaskId, chosen: Sequence[PictureId]) -> None:
    for picture_id in chosen:
        picture_rows.attach(connection, task_id, picture_id)
    if chosen and len(picture_rows.of_task(connection, task_id)) > pictures.MOST_OF_TASK:
        raise OverLimitError(
            f"a task has {pictures.MOST_OF_TASK} images at most",
            code="task_images_full",
            hint="Detach some, or put images into the repository.",
        )


def _upload(
    connection: Connection, picture: Picture, content: bytes, quota: int, task_id: TaskId | None
) -> Picture:
    user = picture.user_id
    if task_id is not None:
        _check_task(connection, user, task_id)
    found = picture_rows.of_content(connection, user, picture.sha256)
    if found is None:
        add(connection, picture, content, quota)
        found = picture
    if task_id is not None:
        attach(connection, user, task_id, [found.id])
    return found


def _of_task(connection: Connection, user: UserId, task_id: TaskId) -> Sequence[Picture]:
    _check_task(connection, user, task_id)
    return picture_rows.of_task(connection, task_id)


def _content(connection: Connection, user: UserId, picture_id: PictureId) -> tuple[Picture, bytes]:
    picture = picture_rows.get(connection, user, picture_id)
    content = None if picture is None else picture_rows.content(connection, picture_id)
    if picture is None or content is None:
        raise _unknown()
    return picture, content


def _check_task(connection: Connection, user: UserId, task_id: TaskId) -> None:
    if task_rows.get(connection, user, task_id) is None:
        raise NotFoundError("there is no such task", code="task_unknown")


def _unknown() -> NotFoundError:
    return NotFoundError("Image not found.", code="image_unknown")
