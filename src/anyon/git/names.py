"""Names that come from outside, checked or made safe; pure.

``git check-ref-format`` is no sanitiser: it accepts ``;id``, ``$(id)`` and quotes. So the rules
here are our own, and every name is still given to git after ``--end-of-options`` or ``--``.
"""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from anyon.domain.errors import InvalidInputError
from anyon.domain.ids import AttemptId, is_id
from anyon.domain.layout import WORKSPACE, WORKTREES

SLUG_LENGTH = 16
MAX_COPY_PATTERNS = 100

_BRANCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_WORKTREE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
# Branches that others made may have more in their names: `로그인`, `fix#12`, `dependabot/@types+x`.
_REF_MARKS = frozenset("._/-+#@=,")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SAVED_REF = re.compile(r"refs/anyon/saved/([0-9a-f-]{36})/([0-9]{4,9})")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\]")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_SCP = re.compile(r"(?P<user>[^@:/]+)@(?P<host>[^:/@]+):(?P<path>[^-:].*)")
_CREDENTIALS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^/\s'\"@]*@")

_INITIALS = "g kk n d tt r m b pp s ss - j jj ch k t p h".split()  # noqa: SIM905 - a table reads best as words
_MEDIALS = "a ae ya yae eo e yeo ye o wa wae oe yo u wo we wi yu eu ui i".split()  # noqa: SIM905 - a table reads best as words
_FINALS = "- k k k n n n t l k m l l l p l m p p t t ng t t k t p t".split()  # noqa: SIM905 - a table reads best as words


def branch_for(prefix: str, attempt: AttemptId, title: str, *, width: int = 4) -> str:
    """Return the branch of an attempt: ``<prefix>/<first hex of its id>-<slug of the title>``.

    *width* is how much of the id stands in it; a caller whose branch is taken asks for more. A
    title that leaves no slug (emoji, say) gives twice the id instead. An empty prefix gives no
    ``/``.
    """
    check_attempt(attempt)
    digits = attempt.replace("-", "")
    text = slug(title)
    name = f"{digits[:width]}-{text}" if text else digits[: max(2 * width, 8)]
    return check_branch(f"{prefix}/{name}" if prefix else name)


def slug(title: str, length: int = SLUG_LENGTH) -> str:
    """Return *title* in lower-case ASCII words joined by ``-``: Hangul romanised, accents dropped."""
    composed = unicodedata.normalize("NFC", title)
    spelt = "".join(_romanised(character) for character in composed)
    folded = unicodedata.normalize("NFKD", spelt).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", folded).strip("-")[:length].strip("-")


def _romanised(character: str) -> str:
    index = ord(character) - 0xAC00
    if not 0 <= index < 11172:
        return character
    parts = (_INITIALS[index // 588], _MEDIALS[index % 588 // 28], _FINALS[index % 28])
    return "".join(part for part in parts if part != "-")


def check_branch(name: str) -> str:
    """Return *name* if Anyon may make a branch of it, else raise InvalidInputError."""
    if not _BRANCH.fullmatch(name) or not _is_well_formed(name):
        raise _bad_ref(name)
    return name


def check_ref(name: str) -> str:
    """Return *name* if it can be the name of a branch or commit that is there already.

    Letters and digits of any script and a few marks more than ``check_branch`` allows.
    """
    is_spelt = all(c in _REF_MARKS or unicodedata.category(c)[0] in "LMN" for c in name)
    if not 0 < len(name.encode("utf-8", "replace")) <= 240 or not is_spelt:
        raise _bad_ref(name)
    if name[0] in "._/-+#@=," or not _is_well_formed(name):
        raise _bad_ref(name)
    return name


def _is_well_formed(name: str) -> bool:
    parts = name.split("/")
    has_bad_part = any(
        not part or part.startswith((".", "-")) or part.endswith((".lock", ".")) for part in parts
    )
    return not has_bad_part and ".." not in name and "@{" not in name and name != "HEAD"


def _bad_ref(name: str) -> InvalidInputError:
    return InvalidInputError(
        f"{_shown(name)} cannot be a branch name",
        code="bad_ref_name",
        hint="Use letters, digits, '.', '_', '-' and '/', beginning with a letter or digit.",
    )


def check_commit(commit: str) -> str:
    """Return *commit* if it is a whole object id, else raise InvalidInputError."""
    if not _COMMIT.fullmatch(commit):
        raise InvalidInputError(f"{_shown(commit)} is not a commit id", code="bad_ref_name")
    return commit


def check_attempt(attempt: AttemptId) -> AttemptId:
    """Return *attempt* if it is an id, else raise InvalidInputError."""
    if not is_id(attempt):
        raise InvalidInputError(f"{_shown(attempt)} is not an attempt's id", code="bad_ref_name")
    return attempt


def check_saved_ref(ref: str) -> str:
    """Return *ref* if it is one that a cleanup writes, else raise InvalidInputError."""
    if not _SAVED_REF.fullmatch(ref):
        raise InvalidInputError(f"{_shown(ref)} is not saved work", code="bad_ref_name")
    return ref


def check_worktree(path: PurePosixPath, attempt: AttemptId | None = None) -> PurePosixPath:
    """Return *path* if it is the workspace or a worktree below it (of *attempt*, if given)."""
    is_workspace = path == WORKSPACE and attempt is None
    prefix = f"{attempt}-" if attempt else ""
    is_worktree = path.parent == WORKTREES and path.name.startswith(prefix)
    if is_workspace or (is_worktree and _WORKTREE.fullmatch(path.name)):
        return path
    raise InvalidInputError(f"{_shown(str(path))} is not a worktree", code="bad_worktree")


def check_clone_url(url: str) -> str:
    """Return *url* if it is ``https://``, ``ssh://`` or ``user@host:path``, else raise InvalidInputError.

    Everything else that git understands is refused: other transports (``ext::`` runs commands),
    local paths, options, hosts that ssh would take for options, control characters.
    """
    if not 0 < len(url) <= 2048 or not url.isprintable() or " " in url or not _is_remote(url):
        raise InvalidInputError(
            f"{_shown(redacted(url))} cannot be cloned",
            code="bad_clone_url",
            hint="Give an address such as https://host/path, ssh://git@host/path or git@host:path.",
        )
    return url


def _is_remote(url: str) -> bool:
    if scp := _SCP.fullmatch(url):
        return bool(_USER.fullmatch(scp["user"]) and _HOST.fullmatch(scp["host"]))
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    _, at, place = parts.netloc.rpartition("@")
    host = place.rpartition(":")[0] if port is not None else place
    user_is_fine = not at or parts.scheme == "https" or bool(_USER.fullmatch(parts.username or ""))
    is_known = url.startswith(("https://", "ssh://")) and bool(_HOST.fullmatch(host))
    return is_known and user_is_fine and len(parts.path) > 1 and "\\" not in url


def redacted(text: str) -> str:
    """Return *text* without the credentials of any URL in it."""
    return _CREDENTIALS.sub(r"\g<scheme>***@", text)


def copy_patterns(text: str | None) -> tuple[str, ...]:
    """Return the patterns of a project's ``copy_files``: separated by commas or lines, checked."""
    given = re.split(r"[,\n]", (text or "").replace("\r", ""))
    return check_copy_patterns([pattern.strip() for pattern in given if pattern.strip()])


def check_copy_patterns(patterns: Sequence[str]) -> tuple[str, ...]:
    """Return *patterns* if all are relative globs that stay in the workspace, else raise."""
    bad = [pattern for pattern in patterns if not _stays_inside(pattern)]
    if bad or len(patterns) > MAX_COPY_PATTERNS:
        named = _shown(bad[0]) if bad else f"a list of {len(patterns)} patterns"
        raise InvalidInputError(
            f"{named} cannot be copied into a worktree",
            code="bad_copy_pattern",
            hint="Give relative paths or globs such as .env or config/*.json, at most 100.",
        )
    return tuple(patterns)


def _stays_inside(pattern: str) -> bool:
    parts = pattern.split("/")
    if not 0 < len(pattern.encode("utf-8", "replace")) <= 1024 or not pattern.isprintable():
        return False
    if pattern[0] in "-~/" or "\\" in pattern or parts[0] in {".git", ".worktrees"}:
        return False
    return not any(part in {"", ".", ".."} for part in parts)


def _shown(text: str) -> str:
    short = text if len(text) <= 60 else f"{text[:57]}..."
    return repr(short.encode("utf-8", "replace").decode())
