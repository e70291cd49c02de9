"""The keys of projects: one to name chunks, one to seal them, one to sign records."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from blake3 import blake3

from anyon.domain.errors import InvalidInputError, MissingError, NotAllowedError
from anyon.storage.objects import DamagedError

KEY_ID_BYTES = 8
NONCE_BYTES = 12
PLAIN = bytes(KEY_ID_BYTES)
"""The id of the key of projects that are not encrypted."""


@dataclass(frozen=True, slots=True)
class ProjectKey:
    """What one project's objects are named, signed and, if *seal* is set, encrypted with."""

    id: bytes
    hashing: bytes
    signing: bytes
    seal: bytes | None

    def chunk_id(self, data: bytes) -> bytes:
        """Return the name of a chunk: only who has the key can tell a content by its name."""
        return blake3(data, key=self.hashing).digest()

    def signature(self, data: bytes) -> str:
        """Return the mark by which a record of this project is known."""
        return blake3(data, key=self.signing).hexdigest()

    def sealed(self, data: bytes) -> bytes:
        """Return *data* encrypted, or as it is if the project is not encrypted."""
        if self.seal is None:
            return data
        # Imported where it is used: a server whose projects are not encrypted spares 6 MB.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

        nonce = os.urandom(NONCE_BYTES)
        return nonce + AESGCM(self.seal).encrypt(nonce, data, self.id)

    def opened(self, data: bytes) -> bytes:
        """Return what ``sealed`` was given, or raise DamagedError."""
        if self.seal is None:
            return data
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - as above
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

        try:
            return AESGCM(self.seal).decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], self.id)
        except (InvalidTag, ValueError):
            raise DamagedError("an encrypted part of a checkpoint does not open") from None


class Keys(Protocol):
    """Where the keys of projects come from."""

    def current(self, project: str) -> ProjectKey:
        """Return the key that new objects of *project* are written with."""
        ...

    def named(self, project: str, key_id: bytes) -> ProjectKey:
        """Return the key of that id, or raise MissingError."""
        ...


class PlainKeys:
    """No encryption: keys that anyone can derive from the project's name.

    They still keep one project's records from being taken for another's.
    """

    def current(self, project: str) -> ProjectKey:
        """See ``Keys.current``."""
        return _derived(project, PLAIN, b"anyon", seal=False)

    def named(self, project: str, key_id: bytes) -> ProjectKey:
        """See ``Keys.named``."""
        if key_id != PLAIN:
            raise MissingError(
                f"the checkpoint is encrypted with the key {key_id.hex()}, and no keys are set",
                code="key_missing",
                hint="Set the key file that the server which wrote it had.",
            )
        return self.current(project)


class FileKeys:
    """Keys derived from a file of secrets, newest last: ``{"keys": ["<64 hex digits>", …]}``.

    To rotate, append a secret: the next checkpoint of each project is a full one under the
    new key; earlier ones stay readable for as long as their secret stays in the file.
    Checkpoints of the time before encryption stay readable too.
    """

    def __init__(self, file: Path, *, seals: bool = True) -> None:
        """Read the secrets of *file*; with *seals* False they open what is old, and seal nothing."""
        self._seals = seals
        try:
            secrets = [bytes.fromhex(text) for text in json.loads(file.read_text())["keys"]]
        except FileNotFoundError:
            raise key_file_missing(file) from None
        except OSError as error:
            raise NotAllowedError(
                f"the key file {file} cannot be read: {error.strerror}",
                code="key_unreadable",
                hint="It must belong to the user who runs the server.",
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise _malformed(file, str(error)) from error
        if not secrets or any(len(secret) != 32 for secret in secrets):
            raise _malformed(file, "it must hold keys of 64 hex digits")
        self._secrets = {blake3(secret).digest()[:KEY_ID_BYTES]: secret for secret in secrets}
        self._newest = list(self._secrets)[-1]

    @property
    def ids(self) -> Sequence[bytes]:
        """The ids of all keys, newest last."""
        return tuple(self._secrets)

    def current(self, project: str) -> ProjectKey:
        """See ``Keys.current``."""
        return self.named(project, self._newest if self._seals else PLAIN)

    def named(self, project: str, key_id: bytes) -> ProjectKey:
        """See ``Keys.named``."""
        if key_id == PLAIN:
            return PlainKeys().current(project)
        if key_id not in self._secrets:
            raise MissingError(
                f"the key {key_id.hex()} is not in the key file",
                code="key_missing",
                hint="Put the secret that was used at the time back into the file.",
            )
        return _derived(project, key_id, self._secrets[key_id], seal=True)


def key_file_missing(file: Path) -> MissingError:
    """Return the error for a key file that should be there."""
    return MissingError(
        f"the key file {file} is not there",
        code="key_missing",
        hint="Put your copy of it there, or say where it is: ANYON_KEY_FILE, or recover's --key-file.",
    )


def _malformed(file: Path, why: str) -> InvalidInputError:
    return InvalidInputError(
        f"the key file {file} is not of its form: {why}",
        code="key_file_malformed",
        hint='It is {"keys": ["<64 hex digits>", …]}, newest last; put your copy of it there.',
    )


def _derived(project: str, key_id: bytes, secret: bytes, *, seal: bool) -> ProjectKey:
    def one(purpose: str) -> bytes:
        material = secret + b"\0" + project.encode()
        return blake3(material, derive_key_context=f"anyon checkpoint 1 {purpose}").digest()

    return ProjectKey(key_id, one("chunk"), one("record"), one("seal") if seal else None)
