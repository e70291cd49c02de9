"""What a user of an old installation has beside projects, brought in: tags, and pictures of tasks."""

import asyncio
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

import structlog
from sqlalchemy import Connection

from anyon.clock import Clock
from anyon.db import pictures as picture_rows
from anyon.db import tags as tag_rows
from anyon.db.databases import Database
from anyon.db.old_databases import OldRecords
from anyon.domain import names, pictures
from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.entities import Picture, Tag
from anyon.domain.errors import AnyonError, ConflictError, NotFoundError, UnfitFileError
from anyon.domain.ids import PictureId, TagId
from anyon.services import old_pictures, tags
from anyon.services import pictures as own_pictures
from anyon.services.old_layouts import OldLayout
from anyon.services.outcomes import Report

log = structlog.get_logger(__name__)
Row = Mapping[str, Any]
_USER = LOCAL_ACTOR.user_id
_SHOWN = re.compile(r"(\(" + re.escape(pictures.FOLDER) + r"/)([^)\n]+)\)")


@dataclass(slots=True, kw_only=True)
class Belongings:
    """Which picture each old one is here, and how its file is named where that could not stay.

    ``links`` are the old images of each task.
    """

    ids: dict[str, PictureId] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    links: dict[str, list[str]] = field(default_factory=dict)

    def of_task(self, task_id: str, notes: list[str]) -> list[PictureId]:
        """Return a task's pictures, as far as they are here and a task may have so many."""
        found = [self.ids[one] for one in self.links.get(task_id, ()) if one in self.ids]
        if len(found) > pictures.MOST_OF_TASK:
            notes.append(
                f"of the {len(found)} images of task {task_id} {pictures.MOST_OF_TASK} are attached to it"
            )
        return found[: pictures.MOST_OF_TASK]

    def renamed(self, text: str | None) -> str | None:
        """Return a description in which pictures have the names that their files have here."""
        return text and _SHOWN.sub(lambda it: f"{it[1]}{self.files.get(it[2], it[2])})", text)


class OldBelongings:
    """Brings in what is not here yet, each in a transaction of its own, so that a repeat goes on."""

    def __init__(self, *, db: Database, clock: Clock, quota: int) -> None:
        self._db = db
        self._clock = clock
        self._quota = quota

    async def run(
        self,
        old: OldLayout,
        records: OldRecords,
        report: Report,
        *,
        is_dry: bool,
        tell: Callable[[str, int, int, str], None],
    ) -> Belongings:
        """Bring in tags and pictures, and tell in *report* of what could not; a dry run only looks."""
        if drafts := records.left.get("drafts"):
            report.notes.append(
                f"{drafts} unsent drafts stay in the old database: here a draft is kept in memory only, "
                "while the server runs. Send or copy them there first."
            )
        for number, row in enumerate(records.tags, 1):
            tell("tags", number, len(records.tags), str(row["tag_name"] or ""))
            await self._tag(row, report, is_dry=is_dry)
        found = Belongings()
        for row in records.task_images:
            found.links.setdefault(row["task_id"], []).append(row["image_id"])
        for number, row in enumerate(records.images, 1):
            name = str(row["original_name"] or row["file_path"] or row["id"])
            tell("images", number, len(records.images), name)
            try:
                await self._picture(old, row, report, found, is_dry=is_dry)
            except AnyonError as error:
                log.warning("migration.image_lost", image=row["id"], error=repr(error))
                report.lost.append(
                    f"image {name!r} ({row['file_path']}): {error.message} [{error.code}]"
                )
        return found

    async def _tag(self, row: Row, report: Report, *, is_dry: bool) -> None:
        now = self._clock.now()
        if await self._db.read(tag_rows.find, TagId(row["id"])) is not None:
            return
        tag = _fitted_tag(row, now, report.notes)
        if not is_dry:
            try:
                await self._db.write(tags.add, tag, brought_in_at=now)
            except AnyonError as error:
                report.notes.append(
                    f"tag {tag.name!r} stays behind: {error.message} [{error.code}]"
                )
                return
        report.tags += 1

    async def _picture(
        self, old: OldLayout, row: Row, report: Report, found: Belongings, *, is_dry: bool
    ) -> None:
        """Bring one in, unless it is here: by its id, or by its content."""
        now, old_file = self._clock.now(), PurePosixPath(str(row["file_path"] or "")).name
        here = await self._db.read(_here, row)
        if here is None:
            content = await asyncio.to_thread(_content, old.root, row)
            picture = _fitted_picture(row, content, now)
            if not is_dry:
                here = await self._db.write(_add, picture, content, old_file, self._quota, now)
            report.images += here is None or here.id == picture.id
        if here is not None:
            found.ids[row["id"]] = here.id
            if here.file != old_file:
                found.files[old_file] = here.file


def _here(connection: Connection, row: Row) -> Picture | None:
    return picture_rows.find(connection, PictureId(row["id"])) or picture_rows.of_content(
        connection, _USER, _hash(row) or ""
    )


def _add(  # noqa: PLR0917 - a transaction
    connection: Connection,
    picture: Picture,
    content: bytes,
    old_file: str,
    quota: int,
    now: datetime,
) -> Picture:
    """Record a picture under its old file's name, where that is free and fit; return it, or who has its content."""
    found = picture_rows.of_content(connection, _USER, picture.sha256)
    if found is not None:
        return found
    if pictures.is_file(old_file) and not picture_rows.has_file(connection, _USER, old_file):
        picture = replace(picture, file=old_file)
    own_pictures.add(connection, picture, content, quota, brought_in_at=now)
    return picture


def _content(root: Path, row: Row) -> bytes:
    """Return the bytes that a row means: of its size, and with its hash.

    NotFoundError ``old_image_missing``; ConflictError ``old_image_differs``.
    """
    is_there, wanted = False, _hash(row)
    for content in old_pictures.contents(root, str(row["file_path"] or "")):
        is_there = True
        is_size = row["size_bytes"] in {None, len(content)}
        is_hash = wanted is None or hashlib.sha256(content).hexdigest() == wanted
        if is_size and is_hash:
            return content
    if is_there:
        raise ConflictError("its file is not the one that was recorded", code="old_image_differs")
    raise NotFoundError("its file is not there", code="old_image_missing")


def _hash(row: Row) -> str | None:
    return None if row["hash"] is None else str(row["hash"]).strip().lower()


def _fitted_picture(row: Row, content: bytes, now: datetime) -> Picture:
    """Return the picture of a row, of the kind that its content is."""
    pictures.check_size(len(content))
    kind = pictures.recognized(content)
    if kind is None:
        raise UnfitFileError(
            "its content is no image of a kind that is taken", code="image_unreadable"
        )
    raw = str(row["original_name"] or row["file_path"] or "")
    try:
        name = pictures.name_of(raw)
    except UnfitFileError:
        name = pictures.name_of(f"{raw}.{kind.removeprefix('image/').removesuffix('+xml')}")
    created = row["created_at"] or now
    picture_id = PictureId(row["id"])
    return Picture(
        id=picture_id,
        user_id=_USER,
        file=pictures.file_of(picture_id, name),
        name=name,
        mime_type=kind,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        created_at=created,
        updated_at=row["updated_at"] or created,
    )


def _fitted_tag(row: Row, now: datetime, notes: list[str]) -> Tag:
    raw = str(row["tag_name"] or "").encode("utf-8", "replace").decode()
    name = names.printable(raw)[: names.NAME_LIMIT].strip() or "tag"
    data = str(row["content"] or "").replace("\0", "").encode("utf-8", "replace")
    if name != raw:
        notes.append(f"a tag is named {name!r} here, was {raw!r}")
    if len(data) > names.TAG_LIMIT:
        notes.append(f"the content of tag {name!r} was cut to {names.TAG_LIMIT // 1024} KiB")
    created = row["created_at"] or now
    return Tag(
        id=TagId(row["id"]),
        user_id=_USER,
        name=name,
        content=data[: names.TAG_LIMIT].decode("utf-8", "ignore"),
        created_at=created,
        updated_at=row["updated_at"] or created,
    )
