"""Queries on pictures. Their bytes are in a table of their own, which only ``content`` reads."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, delete, func, insert, or_, select, update

from anyon.db.rows import all_of, columns, one_of, values, visible
from anyon.db.schema import picture_contents, pictures, task_pictures, tasks
from anyon.domain.entities import Picture
from anyon.domain.ids import PictureId, TaskId, UserId

_ALL = select(*columns(Picture, pictures))


def add(
    connection: Connection,
    picture: Picture,
    content: bytes,
    *,
    brought_in_at: datetime | None = None,
) -> None:
    """Record a picture, which a migration brought in, if it did; and its bytes."""
    row = values(picture, pictures) | {"brought_in_at": brought_in_at}
    connection.execute(insert(pictures).values(row))
    row = {"picture_id": picture.id, "content": content}
    connection.execute(insert(picture_contents).values(row))


def get(connection: Connection, user: UserId, picture: PictureId) -> Picture | None:
    """Return one picture that a user may see: their own, or one of a task that they may see."""
    return one_of(connection, Picture, _ALL.where(pictures.c.id == picture, _seen_by(user)))


def find(connection: Connection, picture: PictureId) -> Picture | None:
    """Return one picture, whoever's it is: for a migration only."""
    return one_of(connection, Picture, _ALL.where(pictures.c.id == picture))


def owned(
    connection: Connection, user: UserId, chosen: Sequence[PictureId]
) -> frozenset[PictureId]:
    """Return which of *chosen* are a user's own."""
    query = select(pictures.c.id).where(pictures.c.user_id == user, pictures.c.id.in_(chosen))
    return frozenset(connection.execute(query).scalars())


def of_content(connection: Connection, user: UserId, sha256: str) -> Picture | None:
    """Return a user's picture with that content."""
    query = _ALL.where(pictures.c.user_id == user, pictures.c.sha256 == sha256)
    return one_of(connection, Picture, query)


def has_file(connection: Connection, user: UserId, file: str) -> bool:
    """Say whether a user has a picture whose file is named so."""
    query = select(pictures.c.id).where(pictures.c.user_id == user, pictures.c.file == file)
    return connection.execute(query).first() is not None


def use(connection: Connection, user: UserId) -> tuple[int, int]:
    """Return how many pictures a user has, and how many bytes these are."""
    query = select(func.count(), func.coalesce(func.sum(pictures.c.size_bytes), 0))
    count, size = connection.execute(query.where(pictures.c.user_id == user)).one()
    return int(count), int(size)


def content(connection: Connection, picture: PictureId) -> bytes | None:
    """Return a picture's bytes."""
    query = select(picture_contents.c.content).where(picture_contents.c.picture_id == picture)
    found = connection.execute(query).scalar()
    return None if found is None else bytes(found)


def of_task(connection: Connection, task: TaskId) -> Sequence[Picture]:
    """Return what is attached to a task, in the order in which it was; the caller may see the task."""
    query = _ALL.join(task_pictures, task_pictures.c.picture_id == pictures.c.id)
    query = query.where(task_pictures.c.task_id == task)
    return all_of(
        connection, Picture, query.order_by(task_pictures.c.position, task_pictures.c.picture_id)
    )


def attach(connection: Connection, task: TaskId, picture: PictureId) -> bool:
    """Attach a picture to a task, after the others; False, and nothing done, where it is."""
    link = (task_pictures.c.task_id == task, task_pictures.c.picture_id == picture)
    if connection.execute(select(task_pictures.c.position).where(*link)).first() is not None:
        return False
    last = select(func.coalesce(func.max(task_pictures.c.position), 0))
    position = int(connection.execute(last.where(task_pictures.c.task_id == task)).scalar_one()) + 1
    row = {"task_id": task, "picture_id": picture, "position": position}
    connection.execute(insert(task_pictures).values(row))
    return True


def detach_all(connection: Connection, task: TaskId) -> None:
    """Take all pictures from a task; they stay their owner's."""
    connection.execute(delete(task_pictures).where(task_pictures.c.task_id == task))


def remove(connection: Connection, user: UserId, picture: PictureId) -> bool:
    """Delete a user's own picture, its bytes, and it from all tasks; False where there is none."""
    query = delete(pictures).where(pictures.c.id == picture, pictures.c.user_id == user)
    return connection.execute(query).rowcount > 0


def has_brought_in(connection: Connection) -> bool:
    """Say whether migrations brought anything in."""
    query = select(pictures.c.id).where(pictures.c.brought_in_at.is_not(None))
    return connection.execute(query.limit(1)).first() is not None


def take_back(connection: Connection) -> None:
    """Delete what migrations brought in, but what is attached to a task: that is its owner's own now."""
    brought = pictures.c.brought_in_at.is_not(None)
    used = select(task_pictures.c.picture_id)
    connection.execute(delete(pictures).where(brought, pictures.c.id.not_in(used)))
    connection.execute(update(pictures).where(brought).values(brought_in_at=None))


def _seen_by(user: UserId) -> ColumnElement[bool]:
    shared = (
        select(task_pictures.c.picture_id)
        .join(tasks, tasks.c.id == task_pictures.c.task_id)
        .where(visible(user, tasks.c.project_id))
    )
    return or_(pictures.c.user_id == user, pictures.c.id.in_(shared))
