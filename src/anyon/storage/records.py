"""The small objects of a project in the bucket: head and checkpoints, and where all lie.

Each is two lines of JSON: ``{"key": …, "signature": …}`` and the body that is signed. A
record of another project, or a changed one, is refused.
"""

import json
import os
import re
import time
import uuid
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any

from anyon.domain.errors import InvalidInputError
from anyon.storage.keys import Keys, ProjectKey
from anyon.storage.objects import DamagedError

FORMAT = 1
EXTENDED = 2
"""The format of checkpoints with packs of another project, or layers with a base; others are still
written as 1."""
_EXTENSIONS = frozenset({"family", "borrowed", "base"})
_PROJECT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}){0,3}")


@dataclass(frozen=True, slots=True)
class Places:
    """The keys of one project's objects; all begin with ``<project>/``."""

    project: str

    def __post_init__(self) -> None:
        if not _PROJECT.fullmatch(self.project):
            raise InvalidInputError(f"{self.project!r} is not a project's place in a store")

    @property
    def head(self) -> str:
        """The key of the one object that is overwritten by checkpoints."""
        return f"{self.project}/head"

    @property
    def owner(self) -> str:
        """The key of the object that says which server the project belongs to."""
        return f"{self.project}/owner"

    @property
    def collection(self) -> str:
        """The key of the lease under which garbage is collected."""
        return f"{self.project}/collection"

    @property
    def loans(self) -> str:
        """The key of the object that says which packs forks of this project need."""
        return f"{self.project}/loans"

    @property
    def borrows(self) -> str:
        """The key of the object that says which projects this one, a fork, has packs of."""
        return f"{self.project}/borrows"

    @property
    def checkpoints(self) -> str:
        """The prefix of all checkpoints."""
        return f"{self.project}/checkpoints/"

    @property
    def packs(self) -> str:
        """The prefix of all packs."""
        return f"{self.project}/packs/"

    def checkpoint(self, checkpoint_id: str) -> str:
        """Return the key of a checkpoint."""
        return f"{self.checkpoints}{checkpoint_id}"

    def pack(self, pack_id: str) -> str:
        """Return the key of a pack; spread by the first digits, as stores like it."""
        return f"{self.packs}{pack_id[:2]}/{pack_id}"


@dataclass(frozen=True, slots=True)
class Root:
    """One captured tree: its top node, and its own attributes as in a node's entry."""

    node: str
    attributes: dict[str, Any] = field(default_factory=dict)
    base: dict[str, str] = field(default_factory=dict)
    """What the tree lies over, where it is a layer: ``engine``, ``image`` and the like."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A saved state of a project."""

    id: str
    """Time-ordered: sorting ids sorts checkpoints by age."""
    project: str
    parent: str | None
    at: datetime
    reason: str
    epoch: int
    roots: dict[str, Root]
    files: int
    size_bytes: int
    """The sum of all files' sizes."""
    new_bytes: int
    """What this checkpoint added to the store."""
    packs: dict[str, int]
    """Every pack that holds a part of it, and the pack's size."""
    records: str | None = None
    """The chunk of the project's own records, as the server gave them."""
    tool: str = ""
    unreadable: int = 0
    """Files and directories that could not be read: with any, the state is not whole."""
    family: str = ""
    """Of a fork: the project whose key names and seals its chunks; empty is its own."""
    borrowed: dict[str, str] = field(default_factory=dict)
    """Of a fork: the packs that lie with another project, and with which."""
    unstable: int = 0
    """Files that were written while they were read; 0 wherever everything stood still for it."""
    look: str = ""
    """How it was found what changed, while everything stood still: by a ``journal`` of the kernel
    or by a ``scan`` of everything; empty if nothing was held still."""


@dataclass(frozen=True, slots=True)
class Head:
    """Which checkpoint is the last, and the epoch of the server that wrote it."""

    checkpoint: str | None
    epoch: int
    at: datetime
    owner: str = ""


def new_checkpoint_id(at: datetime) -> str:
    """Return an id (UUID version 7) that sorts by *at*."""
    milliseconds = int(at.timestamp() * 1000)
    fraction = time.perf_counter_ns() & 0xFFF
    low = int.from_bytes(os.urandom(8), "big") & ((1 << 62) - 1)
    value = (milliseconds << 80) | (7 << 76) | (fraction << 64) | (2 << 62) | low
    return str(uuid.UUID(int=value))


def encode(key: ProjectKey, kind: str, record: Any) -> bytes:
    """Return the object that holds *record*, one of this room's record classes."""
    body = {"format": FORMAT, "kind": kind, **asdict(record)}
    for optional in (body, *body.get("roots", {}).values()):
        for member in _EXTENSIONS & optional.keys():
            if optional[member]:
                body["format"] = EXTENDED
            else:
                del optional[member]
    text = json.dumps(body, separators=(",", ":"), sort_keys=True, default=_plain).encode()
    first = json.dumps({"key": key.id.hex(), "signature": key.signature(text)}).encode()
    return first + b"\n" + text + b"\n"


def decode_checkpoint(data: bytes, keys: Keys, project: str) -> Checkpoint:
    """Return the checkpoint in *data*, or raise DamagedError."""
    body = decoded(data, keys, project, "checkpoint")
    try:
        roots = {name: Root(**_known(Root, root)) for name, root in body["roots"].items()}
        at = datetime.fromisoformat(body["at"])
        found = Checkpoint(**{**_known(Checkpoint, body), "at": at, "roots": roots})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedError(f"a checkpoint of {project} is not of its form: {error}") from error
    tenant = project.rpartition("/")[0]
    for place in {found.family or project, *found.borrowed.values()}:
        if Places(place).project.rpartition("/")[0] != tenant:
            raise DamagedError(f"a checkpoint of {project} names packs of another tenant")
    return found


def decode_head(data: bytes, keys: Keys, project: str) -> Head:
    """Return the head in *data*, or raise DamagedError."""
    body = decoded(data, keys, project, "head")
    try:
        return Head(**{**_known(Head, body), "at": datetime.fromisoformat(body["at"])})
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError(f"the head of {project} is not of its form: {error}") from error


def decoded(data: bytes, keys: Keys, project: str, kind: str) -> dict[str, Any]:
    """Return the signed body of a record of *kind* of *project*, or raise DamagedError."""
    try:
        first, text, rest = data.split(b"\n")
        envelope = json.loads(first)
        key = keys.named(project, bytes.fromhex(envelope["key"]))
        signed = rest == b"" and key.signature(text) == envelope["signature"]
        body: dict[str, Any] = json.loads(text)
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"the {kind} of {project} cannot be read: {error}") from error
    if not signed or body.pop("kind", None) != kind:
        raise DamagedError(f"the {kind} of {project} is not what was written for it")
    if body.pop("format", None) not in {FORMAT, EXTENDED}:
        raise DamagedError(
            f"the {kind} of {project} is of a format this version does not know",
            hint="Update Anyon.",
        )
    return body


def _known(kind: type[Any], body: dict[str, Any]) -> dict[str, Any]:
    """Return the members that *kind* has: a writer of the same format may have added others."""
    names = {each.name for each in fields(kind)}
    return {name: value for name, value in body.items() if name in names}


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(type(value).__name__)
