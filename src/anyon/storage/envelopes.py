"""Values that are no part of a checkpoint: compressed, sealed and signed under their own names.

An envelope is the mark, the key's id (8 bytes), a signature (32) over the name and the rest, and
the rest: a zstd frame, sealed if the store is encrypted.
"""

import hmac

import zstandard

from anyon.storage.keys import KEY_ID_BYTES, Keys, ProjectKey
from anyon.storage.objects import DamagedError

MARK = b"anyon-e1"
_SIGNATURE_BYTES = 32
_HEAD_BYTES = len(MARK) + KEY_ID_BYTES + _SIGNATURE_BYTES
_MOST_BYTES = 4 << 30


def wrap(key: ProjectKey, name: str, data: bytes) -> bytes:
    """Return the envelope of *data*; it opens under the same *name* only."""
    body = key.sealed(zstandard.compress(data, 3))
    return MARK + key.id + _signature(key, name, body) + body


def unwrap(keys: Keys, place: str, name: str, envelope: bytes) -> bytes:
    """Return what is in an envelope of *place*; DamagedError, MissingError ``key_missing``."""
    if len(envelope) < _HEAD_BYTES or not envelope.startswith(MARK):
        raise DamagedError(f"{name} is not of its form")
    key_id = envelope[len(MARK) : len(MARK) + KEY_ID_BYTES]
    signature = envelope[len(MARK) + KEY_ID_BYTES : _HEAD_BYTES]
    body = envelope[_HEAD_BYTES:]
    key = keys.named(place, key_id)
    if not hmac.compare_digest(signature, _signature(key, name, body)):
        raise DamagedError(f"{name} is not what was written under that name")
    try:
        # The size stands in the frame: no more than that is made of it.
        return zstandard.decompress(key.opened(body), max_output_size=_MOST_BYTES)
    except zstandard.ZstdError as error:
        raise DamagedError(f"{name} cannot be unpacked: {error}") from error


def _signature(key: ProjectKey, name: str, body: bytes) -> bytes:
    return bytes.fromhex(key.signature(name.encode() + b"\0" + body))
