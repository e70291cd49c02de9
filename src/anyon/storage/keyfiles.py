"""Key files: made, rotated; and the mark in a store that says which of them it needs.

The mark is the object ``encryption``: ``{"format": 1, "key": "<the newest key's id>"}``. With it a
server that has another key file, or none, learns so at its start, before it writes what the
others could not read.
"""

import json
import os
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path

from anyon.domain.errors import MissingError
from anyon.domain.ids import new_id
from anyon.storage.keys import FileKeys
from anyon.storage.objects import (
    ABSENT,
    DamagedError,
    ObjectNotFoundError,
    ObjectStore,
    PreconditionFailedError,
)

MARK = "encryption"
_FORMAT = 1
_SECRET_BYTES = 32


def make(file: Path) -> bool:
    """Make a key file with one new secret, mode 0600, durable; False if there is one already."""
    return _write(file, [secrets.token_hex(_SECRET_BYTES)], is_new=True)


def rotate(file: Path) -> Sequence[bytes]:
    """Append a new secret to a key file and return all keys' ids, newest last.

    The file is replaced whole, and keeps all older secrets: what they sealed stays readable.
    MissingError ``key_missing``; InvalidInputError ``key_file_malformed``.
    """
    FileKeys(file)  # refuses what is not a key file
    old = json.loads(file.read_text())["keys"]
    _write(file, [*old, secrets.token_hex(_SECRET_BYTES)], is_new=False)
    return FileKeys(file).ids


def is_private(file: Path) -> bool:
    """Say whether only its owner can read a key file."""
    return not stat.S_IMODE(file.stat().st_mode) & 0o077


def needed(store: ObjectStore) -> bytes | None:
    """Return the id of the key that the store's newest objects need; None where none is marked."""
    found = _mark(store)
    return found[0] if found is not None else None


def agree(store: ObjectStore, keys: FileKeys) -> None:
    """See that *keys* open what the store holds, and mark the store with the newest of them.

    MissingError ``key_missing`` where the store needs a key that is not among them.
    """
    newest = keys.ids[-1]
    data = json.dumps({"format": _FORMAT, "key": newest.hex()}).encode()
    while True:
        found = _mark(store)
        if found is not None:
            if found[0] not in keys.ids:
                raise key_of_store_missing(found[0])
            if found[0] == newest:
                return
        try:
            store.put(MARK, data, if_generation=found[1] if found is not None else ABSENT)
        except PreconditionFailedError:
            continue  # another server marked it meanwhile: look again
        return


def key_of_store_missing(key: bytes) -> MissingError:
    """Return the error for a store whose newest key is not here."""
    return MissingError(
        f"the store is encrypted with the key {key.hex()}, which is not in the key file",
        code="key_missing",
        hint="Put the key file of the server that wrote it in place (ANYON_KEY_FILE, or --key-file).",
    )


def _mark(store: ObjectStore) -> tuple[bytes, str] | None:
    try:
        blob = store.get(MARK)
    except ObjectNotFoundError:
        return None
    try:
        body = json.loads(blob.data)
        if body["format"] != _FORMAT:
            raise DamagedError(
                "the store's encryption is of a format this version does not know",
                hint="Update Anyon.",
            )
        return bytes.fromhex(body["key"]), blob.generation
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"the store's mark of encryption cannot be read: {error}") from error


def _write(file: Path, texts: Sequence[str], *, is_new: bool) -> bool:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = file.with_name(f".{file.name}.{new_id()}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as opened:
            opened.write(json.dumps({"keys": list(texts)}, indent=2) + "\n")
            opened.flush()
            os.fsync(opened.fileno())
        if is_new:
            os.link(temporary, file)  # never over one that is there: it may open everything
        else:
            temporary.replace(file)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return True
