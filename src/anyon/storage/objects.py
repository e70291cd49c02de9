"""The interface to a store of objects, and its errors.

Everything that must outlive a machine goes through these six calls, so a driver is
small and its promises are exact. The calls block: they are made from worker threads,
never from the event loop. One suite (``anyon.testing.store_contract``) says what every
driver and every wrapper does.

    AnyonError
    ├── NotFoundError      └── ObjectNotFoundError     no such object
    ├── ConflictError      └── PreconditionFailedError the object is not as the caller believed
    ├── UnavailableError   └── StoreUnavailableError   may succeed later; the effect is unknown
    ├── NotAllowedError    └── StoreRefusedError       credentials or rights; retrying is no use
    ├── InvalidInputError  └── InvalidKeyError         the key breaks the grammar
    └── AnyonError         └── DamagedError            what was read is not what was written
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from anyon.domain.errors import (
    AnyonError,
    ConflictError,
    InvalidInputError,
    NotAllowedError,
    NotFoundError,
    UnavailableError,
)

ABSENT = ""
"""The generation of an object that does not exist: ``put(..., if_generation=ABSENT)`` creates."""

KEY_BYTES = 800
COMPONENT_BYTES = 200


class ObjectNotFoundError(NotFoundError):
    """There is no object of this key."""

    default_code = "object_not_found"


class PreconditionFailedError(ConflictError):
    """The object's generation is not the one asked for; nothing was changed."""

    default_code = "precondition_failed"


class StoreUnavailableError(UnavailableError):
    """The store did not answer as it should; a write may or may not have happened."""

    default_code = "store_unavailable"


class StoreRefusedError(NotAllowedError):
    """The store knows the caller and refuses, or does not know the caller; nothing was changed."""

    default_code = "store_refused"


class InvalidKeyError(InvalidInputError):
    """The key is not one that every store can hold."""

    default_code = "invalid_key"


class DamagedError(AnyonError):
    """Bytes that were read are not those that were written."""

    default_code = "damaged"
    status = 500


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What is known of an object without reading it."""

    key: str
    size_bytes: int
    generation: str
    updated_at: datetime
    """When this generation was written, by the store's clock, aware, in UTC."""


@dataclass(frozen=True, slots=True)
class Blob:
    """An object's bytes, or a range of them, and the generation they belong to."""

    data: bytes
    generation: str


class ObjectStore(Protocol):
    """A flat map from keys to immutable values, each with a generation.

    Keys: components joined by ``/``; each 1 to 200 bytes of UTF-8, none ``.`` or ``..``,
    no control characters; 800 bytes in all. Anything else is InvalidKeyError, on every call.

    A generation is an opaque text that is never the same for two writes of one key (in S3, for
    two writes of different values: so what is written under a condition must be unique). After
    ``put`` returns, the value survives the loss of the process and of the machine's power
    (as far as the store's place does), and every later ``get``, ``head`` and ``list``, from
    anywhere, sees it. A ``put`` that fails leaves the former value or the new one whole,
    never a part.

    Every call raises StoreUnavailableError when the store does not answer in its deadline
    or answers nonsense, and StoreRefusedError when it refuses the caller. A driver does not
    retry; ``wrappers.RetryingStore`` does.
    """

    def put(self, key: str, data: bytes, *, if_generation: str | None = None) -> str:
        """Write *data* under *key* and return its generation.

        With ``if_generation=ABSENT`` only if there is no object; with a generation only if
        that is the current one; else PreconditionFailedError. Of any number of racing
        conditional writers exactly one succeeds. Without a condition the last writer wins.
        """
        ...

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> Blob:
        """Return the object's bytes from *start*, at most *length* of them.

        A negative *start* counts from the end (and may exceed the size). A range beyond the
        end is cut; one that starts there is empty. ObjectNotFoundError if there is none;
        DamagedError if the store's own checksum of a whole object does not match.
        """
        ...

    def head(self, key: str) -> ObjectInfo:
        """Return what is known of the object, or raise ObjectNotFoundError."""
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield every object whose key starts with *prefix* (any text, also empty), by key.

        Order is that of the keys' UTF-8 bytes. Objects written or deleted meanwhile may or
        may not be seen; all others are seen exactly once.
        """
        ...

    def delete(self, key: str, *, if_generation: str | None = None) -> None:
        """Remove the object; no object is no error (so a repeat is none).

        With *if_generation* an object of any other generation is left alone, and
        PreconditionFailedError raised.
        """
        ...


def check_key(key: str) -> str:
    """Return *key* if it keeps the grammar of ``ObjectStore``; else raise InvalidKeyError."""
    try:
        raw = key.encode()
    except UnicodeEncodeError:
        raise InvalidKeyError(f"the key {key!r} is not text") from None
    parts = raw.split(b"/")
    if (
        len(raw) > KEY_BYTES
        or any(not part or part in {b".", b".."} or len(part) > COMPONENT_BYTES for part in parts)
        or any(character < " " or character == "\x7f" for character in key)
    ):
        raise InvalidKeyError(f"the key {key[:100]!r} is not one that every store can hold")
    return key


def cut(data: bytes, start: int, length: int | None) -> bytes:
    """Return the range of *data* that ``ObjectStore.get`` promises."""
    begin = max(0, len(data) + start) if start < 0 else start
    return data[begin:] if length is None else data[begin : begin + length]
