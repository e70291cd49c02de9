"""A cheap look at a whole tree: what GNU ``find`` tells of every entry, against what it told last time.

A directory of which every record is as it was, its own and those of all its entries, is not
visited again: nothing in it was written, made, removed, renamed or given other attributes, for
each of these moves a file's change time, which no program can set. Directories' times are not
relied on for what is in them. What a scan could not capture so that it may be trusted, above all
what was as young as the scan (git's "racy" rule), is kept out of the records: so it is visited
the next time whatever it looks like.

It only says where a scan need not look. With no such program, with errors that it does not know
of, or with a tree that is too large or too deep for it, everything is visited.
"""

import json
import os
import selectors
import shutil
import subprocess
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from pathlib import Path

import zstandard

from anyon.storage.exclusions import Rules
from anyon.storage.uploads import Stop

TOP = b"."
_RECORD = "%y%i %C@ %T@ %s %m %U %G %n %p\\0"
_FIELDS = 8
_DIRECTORY = ord("d")
_FILE = ord("f")
_MAX_BYTES = 256 << 20
_MAX_FILE_BYTES = 1 << 30
_SHARED_RECORDS = 4000
"""A tree from this size on is looked at by several processes at once."""
_MAX_ARGUMENTS_BYTES = 1 << 20
_READ_BYTES = 1 << 20
_WAIT_SECONDS = 0.2
_NICE = 5
_EXPECTED = (b": No such file or directory", b": Permission denied", b": Not a directory")
_SPECIAL = frozenset("*?[]\\")


@dataclass(frozen=True, slots=True)
class Seen:
    """What is kept of one look for the next."""

    of: str
    """The place and the rules that it is of: of others it says nothing."""
    body: bytes
    """The records that can be trusted, each ended by a zero byte."""
    count: int
    tops: list[str] = field(default_factory=list)
    """Directories whose entries are looked at apart, so that several processes share the work."""
    parts: list[list[str]] = field(default_factory=list)
    """Which directories in those each process takes."""


class Glance:
    """One look at one tree. Call ``look`` first; the rest holds if it returned True."""

    def __init__(self, root: bytes, rules: Rules | None, before: Seen | None) -> None:
        st = Path(os.fsdecode(root)).stat()
        self.of = f"{os.fsdecode(root)} {st.st_dev} {st.st_ino} {rules!r}"
        self._root = root
        self._rules = rules
        self._before = before if before is not None and before.of == self.of else None
        self._body = b""
        self._records: list[bytes] = []
        self._fresh: Collection[bytes] = ()
        self._touched: set[bytes] | None = None
        self._folders: dict[bytes, list[tuple[str, int]]] | None = None

    @property
    def has_before(self) -> bool:
        """Whether there is something to compare with."""
        return self._before is not None

    @property
    def is_same(self) -> bool:
        """Whether nothing at all was seen to be another than before."""
        return self._touched is not None and not self._touched

    def look(self, stop: Stop) -> bool:
        """Look at everything; False if it could not be done, or not in time and space."""
        program = _find()
        if program is None:
            return False
        body = self._run(program, stop)
        if body is None:
            return False
        self._body = body
        if self._before is not None and self._before.body == body:
            self._touched = set()
            return True
        self._records = self._fresh = body.split(b"\0")[:-1]
        if self._before is not None:
            old = set(self._before.body.split(b"\0")[:-1])
            different = old.symmetric_difference(self._records)
            self._fresh = different - old
            self._touched = _places_of(different)
        return True

    def new_bytes(self) -> int | None:
        """Return the bytes of all files that are not as they were, about what will be read; None without a look."""
        if not self._body:
            return None
        sizes = {}
        for record in self._fresh:
            if record[0] == _FILE:
                number, _, _, size, _ = record.split(b" ", 4)
                sizes[number] = int(size)  # of several names of one file once
        return sum(sizes.values())

    def is_touched(self, place: bytes) -> bool:
        """Say whether the directory, or anything below it, may be another than it was."""
        return self._touched is None or place in self._touched

    def children(self, place: bytes) -> Sequence[tuple[str, int]]:
        """Return the directories that were in this one before: names and numbers."""
        if self._folders is None:
            self._folders = {}
            for record in self._before.body.split(b"\0")[:-1] if self._before else ():
                if record[0] == _DIRECTORY:
                    parts = record.split(b" ", _FIELDS)
                    above, _, name = parts[_FIELDS].rpartition(b"/")
                    if above:
                        row = (os.fsdecode(name), int(parts[0][1:]))
                        self._folders.setdefault(above, []).append(row)
        return self._folders.get(place, ())

    def numbers(self) -> Mapping[bytes, list[tuple[int, bool]]]:
        """Return by directory the numbers of its entries, and which of them are files with several names."""
        found: dict[bytes, list[tuple[int, bool]]] = {}
        for record in self._records or self._body.split(b"\0")[:-1]:
            parts = record.split(b" ", _FIELDS)
            above = parts[_FIELDS].rpartition(b"/")[0]
            is_link = parts[7] != b"1" and record[0] == _FILE
            found.setdefault(above, []).append((int(parts[0][1:]), is_link))
        return found

    def seen(self, distrusted: Collection[bytes]) -> Seen | None:
        """Return what to keep for the next look, None if that is what there was.

        *distrusted* are the places that must be visited the next time whatever they look like.
        """
        if self.is_same and not distrusted:
            return None
        records = self._records or self._body.split(b"\0")[:-1]
        if distrusted:
            records = [
                record
                for record in records
                if record[0] != _DIRECTORY or record.split(b" ", _FIELDS)[_FIELDS] not in distrusted
            ]
        before = self._before
        if before is not None and abs(before.count - len(records)) * 10 < before.count:
            tops, parts = before.tops, before.parts
        else:
            tops, parts = _shared(records)
        return Seen(self.of, _joined(records), len(records), tops, parts)

    def _run(self, program: str, stop: Stop) -> bytes | None:
        plan = self._before
        if plan is None or not plan.parts:
            told = _told([self._words(program, ["."])], self._root, stop)
            return told[0] if told and told[0] else None
        commands = [self._words(program, [".", *plan.tops], "-maxdepth", "1")]
        commands += [self._words(program, part, "-mindepth", "1") for part in plan.parts if part]
        told = _told(commands, self._root, stop)
        if told is None or not told[0]:
            return None
        # Directories that were not there when the work was shared out.
        known = {TOP, *map(os.fsencode, plan.tops), *map(os.fsencode, chain(*plan.parts))}
        tops = {TOP, *map(os.fsencode, plan.tops)}
        others = []
        for record in told[0].split(b"\0")[:-1]:
            place = record.split(b" ", _FIELDS)[_FIELDS]
            is_new = record[0] == _DIRECTORY and place not in known
            if is_new and place.rpartition(b"/")[0] in tops:
                others.append(os.fsdecode(place))
        if others:
            more = _told([self._words(program, others, "-mindepth", "1")], self._root, stop)
            if more is None:
                return None
            told += more
        return b"".join(told)

    def _words(self, program: str, starts: Iterable[str], *bounds: str) -> list[str]:
        pruned: list[str] = []
        for pattern in _pruned(self._rules, "."):
            pruned += ["-o", "-path", pattern]
        leave = ["(", *pruned[1:], ")", "-prune", "-o"] if pruned else []
        return [program, "-P", *starts, *bounds, *leave, "-printf", _RECORD]


def new_bytes(looks: Iterable[Glance | None]) -> int:
    """Return about how much will be read after these looks at trees; 0 if that is not known of one."""
    sizes = [None if look is None else look.new_bytes() for look in looks]
    return 0 if None in sizes else sum(filter(None, sizes))


def load(file: Path, basis: str) -> dict[str, Seen]:
    """Return what was kept of each tree with the checkpoint *basis*; nothing if it is of another or damaged."""
    try:
        data = zstandard.ZstdDecompressor().decompress(
            file.read_bytes(), max_output_size=_MAX_FILE_BYTES
        )
        head, _, bodies = data.partition(b"\n")
        header = json.loads(head)
        if header["basis"] != basis:
            return {}
        found = {}
        for name, row in header["trees"].items():
            length = row.pop("length")
            found[name] = Seen(body=bodies[:length], **row)
            bodies = bodies[length:]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zstandard.ZstdError):
        return {}  # a cache: without it everything is visited once
    return found


def keep(file: Path, basis: str, trees: Mapping[str, Seen]) -> None:
    """Keep what was seen, in place of what was kept before; a failure costs the next save some time."""
    rows = {
        name: {
            "of": seen.of, "count": seen.count, "tops": seen.tops, "parts": seen.parts,
            "length": len(seen.body),
        }
        for name, seen in trees.items()
    }  # fmt: skip
    head = json.dumps({"basis": basis, "trees": rows}).encode()
    data = head + b"\n" + b"".join(seen.body for seen in trees.values())
    new = file.with_name(f"{file.name}.new")
    packed = zstandard.ZstdCompressor(1, write_checksum=True).compress(data)
    with suppress(OSError):
        # Not synced: what a power cut leaves has a checksum, and is of no use to anybody else.
        new.write_bytes(packed)
        new.replace(file)


@cache
def _find() -> str | None:
    return shutil.which("find")


def _workers() -> int:
    return min(os.cpu_count() or 1, 4)


def _told(commands: Sequence[Sequence[str]], root: bytes, stop: Stop) -> list[bytes] | None:
    """Run the commands at once and return what each prints; None if one failed or said too much."""
    running: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            running.append(_started(command, root))  # noqa: PERF401 - those begun are ended below
        texts = _read_all(running, stop)
        codes = [process.wait() for process in running] if texts is not None else []
    except OSError:  # no such place, no memory, no descriptor: the scan itself will tell
        return None
    finally:
        for process in running:
            process.kill()
            process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
    if texts is None or any(code not in {0, 1} for code in codes):
        return None
    outputs, errors = texts
    if any(not line.endswith(_EXPECTED) for error in errors for line in error.splitlines()):
        return None
    return outputs if all(not out or out.endswith(b"\0") for out in outputs) else None


def _started(command: Sequence[str], root: bytes) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        command,
        cwd=root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"LC_ALL": "C"},
        start_new_session=True,
    )
    with suppress(OSError):  # it has ended, or may not: then it is as important as others
        os.setpriority(os.PRIO_PROCESS, process.pid, os.nice(0) + _NICE)
    return process


def _read_all(
    running: Sequence["subprocess.Popen[bytes]"], stop: Stop
) -> tuple[list[bytes], list[bytes]] | None:
    """Return what each printed and complained of; None if that is too much."""
    taken: dict[int, list[bytes]] = {}
    total = 0
    with selectors.DefaultSelector() as selector:
        for process in running:
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    selector.register(pipe, selectors.EVENT_READ)
                    taken[pipe.fileno()] = []
        while selector.get_map():
            stop.check()
            for key, _ in selector.select(_WAIT_SECONDS):
                data = os.read(key.fd, _READ_BYTES)
                total += len(data)
                if total > _MAX_BYTES:
                    return None
                if data:
                    taken[key.fd].append(data)
                else:
                    selector.unregister(key.fileobj)
    streams = [
        [b"".join(taken[pipe.fileno()]) for pipe in (p.stdout, p.stderr) if pipe] for p in running
    ]
    return [stream[0] for stream in streams], [stream[1] for stream in streams]


def _pruned(rules: Rules | None, place: str) -> list[str]:
    """Return what of the rules ``find`` can say; where it cannot, it looks at too much."""
    if rules is None:
        return []
    found = []
    for name in rules.ends:
        if "*" not in name:
            found.append(_escaped(f"{place}/{name}"))
        elif not _SPECIAL & set(name) - {"*"}:
            found.append(f"{_escaped(place)}/{name}")
    for name, inner in rules.below.items():
        found += _pruned(inner, f"{place}/{name}")
    return sorted(found)


def _escaped(path: str) -> str:
    return "".join(f"\\{c}" if c in _SPECIAL else c for c in path)


def _places_of(records: Iterable[bytes]) -> set[bytes]:
    """Return the directories that the records are of or lie in, and all above those."""
    found: set[bytes] = set()
    for record in records:
        path = record.split(b" ", _FIELDS)[_FIELDS]
        at = path if record[0] == _DIRECTORY else path.rpartition(b"/")[0]
        while at and at not in found:
            found.add(at)
            at = at.rpartition(b"/")[0]
    return found


def _joined(records: Sequence[bytes]) -> bytes:
    return b"\0".join(records) + b"\0" if records else b""


def _shared(records: Sequence[bytes]) -> tuple[list[str], list[list[str]]]:
    """Share a tree out to as many processes as there are processors (few): tops, and a part for each."""
    workers = _workers()
    if len(records) < _SHARED_RECORDS or workers < 2:
        return [], []
    weights: dict[bytes, int] = {}
    inner: dict[bytes, list[bytes]] = {}
    for record in records:
        path = record.split(b" ", _FIELDS)[_FIELDS]
        names = path.split(b"/", 4)
        last = len(names) - (record[0] != _DIRECTORY)
        for depth in range(2, min(last, 4) + 1):
            place = b"/".join(names[:depth])
            if place not in weights:
                weights[place] = 0
                inner.setdefault(b"/".join(names[: depth - 1]), []).append(place)
            weights[place] += 1
    tops: list[bytes] = []
    units: list[bytes] = []
    waiting = [TOP]
    while waiting:
        for place in inner.get(waiting.pop(), ()):
            if weights[place] * 4 * workers > len(records) and place in inner:
                tops.append(place)
                waiting.append(place)
            else:
                units.append(place)
    if sum(map(len, units)) + len(units) > _MAX_ARGUMENTS_BYTES:
        return [], []
    parts: list[list[str]] = [[] for _ in range(workers)]
    loads = [0] * workers
    for place in units:
        least = loads.index(min(loads))
        parts[least].append(os.fsdecode(place))
        loads[least] += weights[place]
    return [os.fsdecode(top) for top in tops], parts
