"""What every database does for pictures and tags; part of the database contract."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Connection, func, select

from anyon.db import pictures, projects, tags, tasks
from anyon.db.databases import Database
from anyon.db.schema import picture_contents, task_pictures
from anyon.domain.entities import Picture, Tag
from anyon.domain.errors import UnavailableError
from anyon.domain.ids import PictureId, TagId, TaskId, UserId, new_id
from anyon.testing.database_contract import NOW, add_all, add_user


def picture_of(user: UserId, sha256: str = "aa") -> Picture:
    """Return a picture as it is recorded."""
    picture_id = PictureId(new_id())
    return Picture(
        id=picture_id,
        user_id=user,
        file=f"{picture_id}_사진.png",
        name="사진.png",
        mime_type="image/png",
        size_bytes=7,
        sha256=sha256,
        created_at=NOW,
        updated_at=NOW,
    )


def _counts(connection: Connection) -> tuple[int, int]:
    """Return how many contents and how many attachments there are."""
    tables = (picture_contents, task_pictures)
    found = [
        connection.execute(select(func.count()).select_from(one)).scalar_one() for one in tables
    ]
    return found[0], found[1]


class PicturesContract:
    """The suite; the fixture ``db`` is an open database."""

    async def test_a_picture_comes_back_as_it_was(self, db: Database) -> None:
        """Its record and its bytes, whatever they are; and it counts towards its owner's sum."""
        user = await db.write(add_user)
        picture, content = picture_of(user), bytes(range(256)) * 4096
        await db.write(pictures.add, picture, content)
        assert await db.read(pictures.get, user, picture.id) == picture
        assert await db.read(pictures.of_content, user, "aa") == picture
        assert await db.read(pictures.content, picture.id) == content
        assert await db.read(pictures.has_file, user, picture.file)
        assert await db.read(pictures.use, user) == (1, 7)
        assert await db.read(pictures.use, await db.write(add_user, "b")) == (0, 0)

    async def test_one_picture_of_a_content_and_of_a_file(self, db: Database) -> None:
        """A user has one of each, by the database's own rule; another user's is no matter."""
        user, other = await db.write(add_user), await db.write(add_user, "b")
        first = picture_of(user)
        await db.write(pictures.add, first, b"")
        for second in (picture_of(user), replace(picture_of(user, "bb"), file=first.file)):
            with pytest.raises(UnavailableError):
                await db.write(pictures.add, second, b"")
        await db.write(pictures.add, replace(picture_of(other), file=first.file), b"")
        assert await db.read(_counts) == (2, 0)

    async def test_attachments_keep_their_order(self, db: Database) -> None:
        """Pictures of a task are in the order in which they were attached; once is enough."""
        user, _, task, *_ = await db.write(add_all)
        three = [picture_of(user, sha256) for sha256 in ("cc", "aa", "bb")]
        for one in three:
            await db.write(pictures.add, one, b"")
            assert await db.write(pictures.attach, task.id, one.id)
        assert not await db.write(pictures.attach, task.id, three[0].id)
        assert await db.read(pictures.of_task, task.id) == three
        await db.write(pictures.detach_all, task.id)
        assert await db.read(pictures.of_task, task.id) == []
        assert await db.read(_counts) == (3, 0)

    async def test_a_picture_goes_from_its_tasks_and_stays_without_them(self, db: Database) -> None:
        """Deleting a picture takes its bytes and attachments; deleting a task only the attachments."""
        user, _, task, *_ = await db.write(add_all)
        other = replace(task, id=TaskId(new_id()))
        await db.write(tasks.add, other)
        one, two = picture_of(user), picture_of(user, "bb")
        for picture in (one, two):
            await db.write(pictures.add, picture, b"x")
            await db.write(pictures.attach, task.id, picture.id)
            await db.write(pictures.attach, other.id, picture.id)
        await db.write(tasks.remove, task.id)
        assert await db.read(_counts) == (2, 2)
        assert await db.write(pictures.remove, user, one.id)
        assert not await db.write(pictures.remove, user, one.id)
        assert await db.read(_counts) == (1, 1)
        assert await db.read(pictures.content, one.id) is None

    async def test_others_pictures_and_tags_are_not_there(self, db: Database) -> None:
        """No query for a user finds or deletes another's, also where their ids are known."""
        user, project, task, *_ = await db.write(add_all)
        other = await db.write(add_user, "b")
        picture, tag = picture_of(user), _tag(user)
        await db.write(pictures.add, picture, b"x")
        await db.write(pictures.attach, task.id, picture.id)
        await db.write(tags.add, tag)
        assert await db.read(pictures.get, other, picture.id) is None
        assert await db.read(pictures.of_content, other, "aa") is None
        assert await db.read(pictures.owned, other, [picture.id]) == frozenset()
        assert await db.read(pictures.owned, user, [picture.id]) == {picture.id}
        assert not await db.write(pictures.remove, other, picture.id)
        assert await db.read(tags.get, other, tag.id) is None
        assert await db.read(tags.of_user, other) == []
        assert not await db.write(tags.remove, other, tag.id)
        await db.write(projects.bury, user, project.id, NOW)
        assert await db.read(pictures.get, user, picture.id) == picture

    async def test_tags_come_by_name(self, db: Database) -> None:
        """A user's tags are listed by name, changed field by field, counted and deleted."""
        user = await db.write(add_user)
        later, first = _tag(user, "나"), _tag(user, "가")
        for tag in (later, first):
            await db.write(tags.add, tag)
        assert await db.read(tags.of_user, user) == [first, later]
        at = NOW + timedelta(seconds=1)
        await db.write(tags.change, first.id, {"content": "other", "updated_at": at})
        changed = replace(first, content="other", updated_at=at)
        assert await db.read(tags.get, user, first.id) == changed
        assert await db.read(tags.find, first.id) == changed
        assert await db.write(tags.remove, user, later.id)
        assert await db.read(tags.count, user) == 1

    async def test_what_a_migration_brought_in_is_taken_back(self, db: Database) -> None:
        """A rollback deletes that, and nothing else; what is attached to a task by then stays, as the owner's own."""
        user, _, task, *_ = await db.write(add_all)
        own, brought, used = (picture_of(user, sha256) for sha256 in ("aa", "bb", "cc"))
        await db.write(pictures.add, own, b"x")
        for one in (brought, used):
            await db.write(pictures.add, one, b"x", brought_in_at=NOW)
        await db.write(pictures.attach, task.id, used.id)
        mine, theirs, changed = (_tag(user, name) for name in "abc")
        await db.write(tags.add, mine)
        for tag in (theirs, changed):
            await db.write(tags.add, tag, brought_in_at=NOW)
        later = NOW + timedelta(seconds=1)
        await db.write(tags.change, changed.id, {"updated_at": later})
        changed = replace(changed, updated_at=later)
        assert await db.read(tags.brought_in, only_changed=True) == [changed]
        assert await db.read(pictures.has_brought_in)
        await db.write(tags.take_back)
        await db.write(pictures.take_back)
        assert await db.read(tags.of_user, user) == [mine]
        assert await db.read(pictures.find, brought.id) is None
        for one in (own, used):
            assert await db.read(pictures.find, one.id) == one
        assert not await db.read(pictures.has_brought_in)


def _tag(user: UserId, name: str = "태그") -> Tag:
    tag_id = TagId(new_id())
    return Tag(id=tag_id, user_id=user, name=name, content="글\nx", created_at=NOW, updated_at=NOW)
