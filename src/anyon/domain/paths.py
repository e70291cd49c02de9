"""Names of files as text: names are bytes, texts on the wire are not.

A path in a checkpoint is written as text in which every byte that is no part of a printable
UTF-8 character, and every ``%``, is ``%XX``. So any name has exactly one text, text that people
see is harmless on a terminal, and what a list shows can be given back as it is. Names in
Korean, with spaces or quotes, stay as they are.
"""

import re

from anyon.domain.errors import InvalidInputError

_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})?")
MAX_PATH_BYTES = 64 * 1024
"""Deeper paths than a kernel takes in one call can be in a checkpoint, but not without end."""


def shown(path: bytes) -> str:
    """Return the text of a path or name."""
    text = path.decode("utf-8", "surrogateescape")
    return "".join(
        character if character.isprintable() and character != "%" else _escaped(character)
        for character in text
    )


def parsed(text: str) -> bytes:
    """Return the path that *text* names: ``<tree>/<path>``, empty for all trees.

    InvalidInputError (``bad_path``): a leading or trailing ``/``, an empty part, ``.`` or ``..``,
    NUL, a ``%`` that begins no escape, or too long a path.
    """

    def unescaped(match: re.Match[str]) -> str:
        if match[1] is None:
            raise _bad("a % must be followed by two hexadecimal digits", "Write % itself as %25.")
        return bytes([int(match[1], 16)]).decode("latin-1")

    # Escapes stand for bytes, all else for its UTF-8: both as latin-1 text, which is bytes.
    try:
        raw = text.encode("utf-8").decode("latin-1")
    except UnicodeEncodeError:
        raise _bad("a path must be text", "Write bytes that are no text as %XX.") from None
    path = _ESCAPE.sub(unescaped, raw).encode("latin-1")
    if not path:
        return b""
    if len(path) > MAX_PATH_BYTES:
        raise _bad("the path is too long", "")
    parts = path.split(b"/")
    if b"\0" in path or any(part in {b"", b".", b".."} for part in parts):
        raise _bad(
            "a path has parts that are joined by /, none of them empty, . or ..",
            "Begin with a tree: workspace/src/main.py",
        )
    return path


def _escaped(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogateescape"))


def _bad(message: str, hint: str) -> InvalidInputError:
    return InvalidInputError(message, code="bad_path", hint=hint)
