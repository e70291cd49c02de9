"""What may be attached to a task as a picture, and how its file is named: pure."""

import re
from xml.parsers import expat

from anyon.domain.errors import InvalidInputError, TooLargeError, UnfitFileError
from anyon.domain.ids import PictureId
from anyon.domain.names import printable

FOLDER = ".vibe-images"
"""Where pictures lie in an attempt's worktree; the name stands in descriptions, so it is the wire's."""
MOST_BYTES = 20 * 1024 * 1024
"""Bytes in one picture."""
MOST_OF_TASK = 100
"""Pictures of one task: all of them are laid before each run."""
MOST_OF_USER = 10_000
NAME_LIMIT = 200
"""Characters (code points) in a picture's name."""
_STEM_LIMIT = 40  # code points: with an id and an ending these are less than 255 bytes
_TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "webp": "image/webp",
    "bmp": "image/bmp",
    "svg": "image/svg+xml",
}
"""The endings that are taken, and what the content must be then."""
_SIGNS = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
    # BM and four bytes of a size are soon said by chance: the length of the header that follows decides.
    (re.compile(rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\x00\x00\x00", re.DOTALL), "image/bmp"),
)
_SVG_ROOTS = {"svg", "http://www.w3.org/2000/svg svg"}
_FILE = re.compile(r"[\w-][\w.-]*\.(?:png|jpe?g|gif|webp|bmp|svg)", re.IGNORECASE)
_FILE_BYTES = 255


def name_of(raw: str) -> str:
    """Return what a picture is called: *raw* without directories and control characters.

    UnfitFileError (``image_type_unknown``) where its ending is none of a picture's.
    """
    last = re.split(r"[/\\]", raw.encode("utf-8", "replace").decode())[-1]
    stem, dot, ending = printable(last).rpartition(".")
    if not dot or ending.lower() not in _TYPES:
        raise UnfitFileError(
            "This file type is not supported. "
            "Please upload an image file (PNG, JPG, GIF, WebP, or BMP).",
            code="image_type_unknown",
            hint=f"The name must end in one of {', '.join(_TYPES)}.",
        )
    stem = stem.strip().strip(".").strip()[: NAME_LIMIT - len(ending) - 1]
    return f"{stem or 'image'}.{ending}"


def file_of(picture: PictureId, name: str) -> str:
    """Return the file's name in a worktree: no two pictures have the same, and Markdown may hold it."""
    stem, _, ending = name.rpartition(".")
    slug = re.sub(r"[^\w-]+", "_", stem)[:_STEM_LIMIT].strip("_")
    return f"{picture}_{slug or 'image'}.{ending.lower()}"


def is_file(name: str) -> bool:
    """Say whether *name* may be a picture's file in a worktree: one name, which no program misreads."""
    return _FILE.fullmatch(name) is not None and len(name.encode()) <= _FILE_BYTES


def type_of(name: str, content: bytes) -> str:
    """Return the media type of a picture named so, which its *content* must be.

    TooLargeError (``image_too_large``); UnfitFileError (``image_unreadable``) where the content is
    empty, no picture, or another one than its name says.
    """
    check_size(len(content))
    found = recognized(content)
    if found != _TYPES[name.rpartition(".")[2].lower()]:
        what = "it is empty" if not content else f"its content is {found or 'no image'}"
        raise UnfitFileError(
            "Failed to upload file. Please ensure the file is valid and try again.",
            code="image_unreadable",
            hint=f"{name}: {what}.",
        )
    return found


def check_size(size: int, *, is_whole: bool = True) -> None:
    """Raise TooLargeError (``image_too_large``) for *size* bytes, which are all, or all so far."""
    if size > MOST_BYTES:
        words = f"{'' if is_whole else 'over '}{size / 1024 / 1024:.1f} MB"
        raise TooLargeError(
            f"This image is too large ({words}). Maximum file size is 20.0 MB.",
            code="image_too_large",
            hint="Make it smaller, or put it into the repository.",
        )


def recognized(content: bytes) -> str | None:
    """Return the media type that the content itself tells, None if it is of no kind that is taken."""
    for sign, kind in _SIGNS:
        if sign.match(content):
            return kind
    return "image/svg+xml" if _is_svg(content) else None


def _is_svg(content: bytes) -> bool:
    """Say whether it is well-formed XML with an svg root, and without entities of its own."""
    roots: list[str] = []

    def begin(name: str, _attributes: object) -> None:
        if not roots:
            roots.append(name)
            if name not in _SVG_ROOTS:
                raise InvalidInputError("another root")

    def refuse(*_: object) -> None:
        raise InvalidInputError("entities may grow without end, or lead elsewhere")

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = begin
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, InvalidInputError, LookupError, ValueError):
        return False  # LookupError and ValueError: an encoding that it names and nobody knows
    return bool(roots)
