"""A file that comes as one field of a form, read piece by piece and bounded while it comes.

The guards let such a body through unread: only the route that it is for knows how large it may be,
and who sends it is asked first.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from anyon.domain.errors import DeadlineExceededError, UnfitFileError
from anyon.domain.pictures import MOST_BYTES, check_size

FIELD = "image"
FORM_BYTES = 64 * 1024
"""How much a form may have beside the file: its boundaries and headers, other fields."""
DEADLINE_SECONDS = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """What came: the name that the client gives it, and its bytes."""

    name: str
    content: bytes


@asynccontextmanager
async def received(request: Request, turns: asyncio.Semaphore) -> AsyncIterator[Upload]:
    """Give the file in the form's field ``image`` for the length of a block.

    Until one of *turns* is free it lies in a temporary file: so many are in memory as a whole.

    TooLargeError (``image_too_large``) as soon as more came than may; UnfitFileError
    (``image_unreadable``) where the body is no such form; DeadlineExceededError.
    """
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and len(declared) < 20:
        check_size(int(declared) - FORM_BYTES)
    parser = MultiPartParser(
        request.headers, _bounded(request), max_files=1, max_fields=16, max_part_size=FORM_BYTES
    )
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise _unreadable("the body is not multipart/form-data")
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            form = await parser.parse()
    except TimeoutError:
        raise DeadlineExceededError("the image did not come in time") from None
    except MultiPartException as error:
        raise _unreadable(error.message) from error
    except ClientDisconnect as error:
        raise _unreadable("the client went away") from error
    try:
        found = form.get(FIELD)
        if not isinstance(found, UploadFile):
            raise _unreadable(f"the form has no file in its field {FIELD!r}")
        check_size(found.size or 0)
        async with turns:
            yield Upload(name=found.filename or "", content=await found.read())
    finally:
        await form.close()


async def _bounded(request: Request) -> AsyncGenerator[bytes, None]:
    count = 0
    async for chunk in request.stream():
        count += len(chunk)
        if count > MOST_BYTES + FORM_BYTES:
            check_size(count - FORM_BYTES, is_whole=False)
        yield chunk


def _unreadable(why: str) -> UnfitFileError:
    return UnfitFileError(
        "Failed to upload file. Please ensure the file is valid and try again.",
        code="image_unreadable",
        hint=f"{why[:200]}.",
    )
