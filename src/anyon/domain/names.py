"""What people call things, checked before anything is done."""

import re
import unicodedata

from anyon.domain.errors import InvalidInputError

NAME_LIMIT = 100
"""Characters in a project's name."""
TITLE_LIMIT = 4_000
"""Characters (code points) in a title: 300 of the longest emoji are about 2,100."""
MADE_TITLE_LIMIT = 100
"""Characters of a title that is made from a description."""
TEXT_LIMIT = 1024 * 1024
"""Bytes in a description or a prompt."""
SCRIPT_LIMIT = 64 * 1024
"""Bytes in a script: it has to fit into one argument of a program."""
TAG_LIMIT = 64 * 1024
"""Bytes in a tag's content: all of a user's are listed at once."""
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}")
_JOINER = "\u200d"


def project_name(raw: str) -> str:
    """Return *raw* without blanks around it, if it can name a project."""
    name = raw.strip()
    _check_line(name, "name", limit=NAME_LIMIT, what="a project's name")
    if "/" in name or "\\" in name or name.strip(".") == "":
        raise InvalidInputError(
            f"{name!r} looks like a path, not like a name",
            code="name_path_like",
            hint="Leave out slashes; the directory is chosen by Anyon.",
        )
    return name


def image(raw: str) -> str:
    """Return *raw* if it can be the reference of an image."""
    if not _IMAGE.fullmatch(raw):
        raise InvalidInputError(
            f"{raw[:100]!r} is not the name of an image",
            code="bad_image_name",
            hint="Such as debian:12 or registry.example/team/image:tag.",
        )
    return raw


def token_name(raw: str) -> str:
    """Return *raw* without blanks around it, if it can name a token."""
    name = raw.strip()
    _check_line(name, "name", limit=NAME_LIMIT, what="a token's name")
    return name


def tag_name(raw: str) -> str:
    """Return *raw* without blanks around it, if it can name a tag."""
    name = raw.strip()
    _check_line(name, "name", limit=NAME_LIMIT, what="a tag's name")
    return name


def task_title(raw: str | None, description: str | None) -> str:
    """Return the title *raw*, or one made from the first line of the *description* when it is blank."""
    title = (raw or "").strip()
    if not title:
        lines = (printable(line) for line in (description or "").splitlines())
        title = next((line for line in lines if line), "")
        if len(title) > MADE_TITLE_LIMIT:
            title = title[: MADE_TITLE_LIMIT - 1].rstrip() + "…"
    _check_line(title, "title", limit=TITLE_LIMIT, what="a task's title")
    return title


def text(raw: str, what: str, *, limit: int = TEXT_LIMIT) -> str:
    """Return *raw*, a text of many lines, if it is proper Unicode without NUL and not too long."""
    if _size(raw, what) > limit:
        raise InvalidInputError(
            f"{what} is longer than {limit:,} bytes",
            code="too_long",
            hint="Put it into a file of the repository and refer to that.",
        )
    if "\0" in raw:
        raise InvalidInputError(f"{what} holds a NUL character", code="has_nul")
    return raw


def script(raw: str | None, what: str) -> str | None:
    """Return a script, None if it is blank."""
    if raw is None or not raw.strip():
        return None
    return text(raw, what, limit=SCRIPT_LIMIT)


def _check_line(line: str, field: str, *, limit: int, what: str) -> None:
    if not line:
        raise InvalidInputError(f"{what} is empty", code=f"{field}_empty", hint="Give it a name.")
    _size(line, what)
    if len(line) > limit:
        raise InvalidInputError(
            f"{what} has {len(line):,} characters; {limit:,} are allowed", code=f"{field}_too_long"
        )
    if any(not _is_printable(c) for c in line):
        raise InvalidInputError(
            f"{what} holds control characters", code=f"{field}_has_control_characters"
        )


def _size(raw: str, what: str) -> int:
    try:
        return len(raw.encode())
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"{what} is not proper Unicode", code="not_unicode") from error


def _is_printable(character: str) -> bool:
    # Cf turns text round (bidi) or hides it; the joiner in emoji is the one that is needed.
    return character == _JOINER or unicodedata.category(character) not in {
        "Cc", "Cf", "Cs", "Zl", "Zp",
    }  # fmt: skip


def printable(line: str) -> str:
    """Return *line* with a blank for each character that a line may not hold, and none around it."""
    return "".join(c if _is_printable(c) else " " for c in line).strip()
