"""The kernel's table of mounts, read as text: no question is put to a file system that may hang."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One mount. ``device`` is the file system's number (``0:57``), ``root`` what of it is shown."""

    device: str
    root: str
    place: str
    kind: str


def parse(text: str) -> Sequence[Entry]:
    """Read a ``mountinfo`` file's text; a line that is none is left out."""
    found = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(" "), right.split(" ")[0]
        if len(fields) >= 6 and kind:
            found.append(
                Entry(device=fields[2], root=_plain(fields[3]), place=_plain(fields[4]), kind=kind)
            )
    return found


def at(entries: Sequence[Entry], place: str) -> Entry | None:
    """Return what is mounted at *place*: the last one there hides the others."""
    return next((one for one in reversed(entries) if one.place == place), None)


def mounted(place: Path) -> Entry | None:
    """Return what is mounted at *place* on this machine now."""
    text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    # Links are resolved above the place only: resolving itself would ask the mount.
    return at(parse(text), str(place.parent.resolve() / place.name))


def shown_to(pid: int, place: str) -> Entry | None:
    """Return what process *pid* sees mounted at *place*; None where that cannot be known."""
    try:
        text = Path(f"/proc/{pid}/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    return at(parse(text), place)


def _plain(text: str) -> str:
    """Undo the kernel's octal escapes, which are of ASCII only."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)
