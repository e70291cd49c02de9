"""Reading git's raw list of changes and its objects; pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from anyon.git.repository import ChangeKind, FileDiff

MAX_FILE_BYTES = 2 * 1000 * 1000
MAX_TOTAL_BYTES = 200 * 1000 * 1000

_SUBMODULE = "160000"
_ABSENT = "000000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One entry of ``--raw --numstat -z``: modes, objects, paths as bytes, line counts."""

    status: str
    old_mode: str
    new_mode: str
    old_object: str
    new_object: str
    old_path: bytes
    new_path: bytes
    additions: int | None = None
    deletions: int | None = None

    @property
    def is_binary(self) -> bool:
        """Whether git counts no lines in it."""
        return self.additions is None

    @property
    def objects(self) -> tuple[str, ...]:
        """The blobs on its sides; a submodule's commit is none."""
        sides = ((self.old_mode, self.old_object), (self.new_mode, self.new_object))
        return tuple(name for mode, name in sides if mode not in {_SUBMODULE, _ABSENT})


def parse_changes(output: bytes) -> list[Change]:
    """Return the changes that ``--raw --numstat -z`` lists, in its order."""
    records = iter(output.split(b"\0"))
    raw: list[Change] = []
    counted = []
    for record in records:
        if record.startswith(b":"):
            raw.append(_raw(record, records))
        elif record:
            counted.append(_counts(record, records))
    merged = []
    for change, (additions, deletions) in zip(raw, counted, strict=True):
        merged.append(
            Change(
                status=change.status,
                old_mode=change.old_mode,
                new_mode=change.new_mode,
                old_object=change.old_object,
                new_object=change.new_object,
                old_path=change.old_path,
                new_path=change.new_path,
                additions=additions,
                deletions=deletions,
            )
        )
    return merged


def _raw(record: bytes, rest: Iterator[bytes]) -> Change:
    old_mode, new_mode, old_object, new_object, status = record[1:].decode("ascii").split(" ")
    old_path = next(rest)
    return Change(
        status=status[0],
        old_mode=old_mode,
        new_mode=new_mode,
        old_object=old_object,
        new_object=new_object,
        old_path=old_path,
        new_path=next(rest) if status[0] in "RC" else old_path,
    )


def _counts(record: bytes, rest: Iterator[bytes]) -> tuple[int | None, int | None]:
    additions, deletions, path = record.split(b"\t", 2)
    if not path:  # renamed or copied: the two paths follow
        next(rest)
        next(rest)
    if additions == b"-":
        return None, None
    return int(additions), int(deletions)


def parse_sizes(output: bytes) -> dict[str, int]:
    """Return the sizes that ``cat-file --batch-check`` lists; what is missing has none."""
    rows = (line.split(" ") for line in output.decode("ascii").splitlines())
    return {row[0]: int(row[2]) for row in rows if len(row) == 3}


def parse_objects(output: bytes) -> dict[str, bytes]:
    """Return the objects that ``cat-file --batch`` printed."""
    objects: dict[str, bytes] = {}
    position = 0
    while position < len(output):
        end = output.index(b"\n", position)
        row = output[position:end].decode("ascii").split(" ")
        position = end + 1
        if len(row) == 3:
            size = int(row[2])
            objects[row[0]] = output[position : position + size]
            position += size + 1
    return objects


def wanted(changes: list[Change], sizes: dict[str, int]) -> dict[str, int]:
    """Return the objects whose contents are to be shown, with their sizes.

    A file that is binary or over 2 MB on either side is left out, and so is all that comes
    after 200 MB.
    """
    chosen: dict[str, int] = {}
    total = 0
    for change in changes:
        needed = {name: sizes.get(name, MAX_FILE_BYTES + 1) for name in change.objects}
        added = sum(size for name, size in needed.items() if name not in chosen)
        if change.is_binary or any(size > MAX_FILE_BYTES for size in needed.values()):
            continue
        if total + added <= MAX_TOTAL_BYTES:
            chosen.update(needed)
            total += added
    return chosen


def file_diff(change: Change, objects: dict[str, bytes]) -> FileDiff:
    """Return the change with its contents where *objects* has all of them as text."""
    old, old_is_known = _content(change.old_mode, change.old_object, objects)
    new, new_is_known = _content(change.new_mode, change.new_object, objects)
    is_shown = old_is_known and new_is_known and not change.is_binary
    kind = _kind(change)
    return FileDiff(
        kind=kind,
        old_path=None if kind is ChangeKind.ADDED else _path(change.old_path),
        new_path=None if kind is ChangeKind.DELETED else _path(change.new_path),
        old_content=old if is_shown else None,
        new_content=new if is_shown else None,
        content_omitted=not is_shown,
        additions=change.additions,
        deletions=change.deletions,
    )


def _content(mode: str, name: str, objects: dict[str, bytes]) -> tuple[str | None, bool]:
    """Return a side's text and whether it is known; an absent side is known to be None."""
    if mode == _ABSENT:
        return None, True
    if mode == _SUBMODULE:
        return f"Subproject commit {name}\n", True
    if name not in objects:
        return None, False
    try:
        return objects[name].decode("utf-8"), True
    except UnicodeDecodeError:
        return None, False  # text in another encoding: better not shown than shown wrong


def _kind(change: Change) -> ChangeKind:
    kinds = {
        "A": ChangeKind.ADDED,
        "D": ChangeKind.DELETED,
        "R": ChangeKind.RENAMED,
        "C": ChangeKind.COPIED,
    }
    only_mode = change.old_object == change.new_object and change.old_mode != change.new_mode
    if change.status == "M" and only_mode:
        return ChangeKind.PERMISSION
    return kinds.get(change.status, ChangeKind.MODIFIED)


def _path(path: bytes) -> str:
    # A name that is not UTF-8 is shown with \xNN: the wire carries text only.
    return path.decode("utf-8", "backslashreplace")
