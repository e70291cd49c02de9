"""Google Cloud Storage, through Google's own client (imported when the driver is made).

Its writes carry ``ifGenerationMatch``, which is the fence of everything above. An
emulator is used when STORAGE_EMULATOR_HOST is set, as that client does by itself.
"""

import base64
import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from anyon.domain.errors import MissingError
from anyon.storage.objects import (
    ABSENT,
    Blob,
    ObjectInfo,
    ObjectNotFoundError,
    PreconditionFailedError,
    StoreRefusedError,
    StoreUnavailableError,
    check_key,
)

TIMEOUT = (10.0, 60.0)
"""Seconds to connect, and seconds without a byte."""
PAGE = 1000
_CONNECTIONS = 32
_NONSENSE = (AttributeError, KeyError, OSError, TypeError, ValueError)
"""What Google's client raises when an answer is not of the form it expects."""


class GcsStore:
    """Keeps the promises of ``ObjectStore`` in a bucket, below a prefix.

    Credentials are found as Google's client finds them (the machine's service account, or
    GOOGLE_APPLICATION_CREDENTIALS). Google takes about one write a second to one key.
    """

    def __init__(self, bucket: str, prefix: str = "", *, client: Any = None) -> None:
        self._client = client if client is not None else connect()
        self._bucket = self._client.bucket(bucket)
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        try:
            with _translated(f"the bucket {bucket}"):
                # A bucket that is not there must never look like one that is empty.
                next(iter(self._list("", 1)), None)
        except ObjectNotFoundError:
            raise StoreRefusedError(
                f"there is no bucket {bucket}",
                code="bucket_not_found",
                hint="Make it first, or correct the setting `store`.",
            ) from None

    def put(self, key: str, data: bytes, *, if_generation: str | None = None) -> str:
        """See ``ObjectStore.put``."""
        blob = self._uploaded(key, data, if_generation)
        if _is_spoilt(blob, data):
            # The service refuses what was spoilt on its way; an emulator keeps it. It is ours to
            # replace: left there, it would be in the way of every condition.
            blob = self._uploaded(key, data, str(blob.generation))
            if _is_spoilt(blob, data):
                raise StoreUnavailableError(f"{key} was spoilt on its way to the store")
        return str(blob.generation)

    def _uploaded(self, key: str, data: bytes, if_generation: str | None) -> Any:
        blob = self._bucket.blob(self._prefix + check_key(key))
        with _translated(key):
            try:
                blob.upload_from_string(
                    data,
                    content_type="application/octet-stream",
                    if_generation_match=_number(if_generation),
                    timeout=TIMEOUT,
                    checksum="crc32c",
                    retry=None,
                )
            except _errors().NotFound:
                # An object is never "not found" by a write unless it was deleted meanwhile.
                if if_generation is None or if_generation == ABSENT:
                    raise StoreRefusedError("the bucket is gone", code="bucket_not_found") from None
                raise PreconditionFailedError(f"{key} is not there any more") from None
        return blob

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> Blob:
        """See ``ObjectStore.get``."""
        if start < 0 or length == 0:
            info = self.head(key)
            if length == 0:
                return Blob(b"", info.generation)
            start = max(0, info.size_bytes + start)
        blob = self._bucket.blob(self._prefix + check_key(key))
        end = None if length is None else start + length - 1
        whole = start == 0 and length is None
        with _translated(key):
            try:
                data = blob.download_as_bytes(
                    start=None if whole else start,
                    end=end,
                    raw_download=True,
                    timeout=TIMEOUT,
                    checksum="crc32c" if whole else None,
                    retry=None,
                    single_shot_download=True,
                )
            except _errors().RequestRangeNotSatisfiable:
                return Blob(b"", self.head(key).generation)
        return Blob(data, str(blob.generation))

    def head(self, key: str) -> ObjectInfo:
        """See ``ObjectStore.head``."""
        blob = self._bucket.blob(self._prefix + check_key(key))
        with _translated(key):
            blob.reload(timeout=TIMEOUT, retry=None)
            return self._info(blob)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ``ObjectStore.list``."""
        found = iter(self._list(prefix, None))
        while True:
            with _translated(prefix):
                blob = next(found, None)
                info = self._info(blob) if blob is not None else None
            if info is None:
                return
            yield info

    def delete(self, key: str, *, if_generation: str | None = None) -> None:
        """See ``ObjectStore.delete``."""
        blob = self._bucket.blob(self._prefix + check_key(key))
        with contextlib.suppress(ObjectNotFoundError), _translated(key):
            blob.delete(if_generation_match=_number(if_generation), timeout=TIMEOUT, retry=None)

    def _list(self, prefix: str, most: int | None) -> Any:
        return self._client.list_blobs(
            self._bucket,
            prefix=self._prefix + prefix,
            max_results=most,
            page_size=PAGE,
            timeout=TIMEOUT,
            retry=None,
        )

    def _info(self, blob: Any) -> ObjectInfo:
        updated: datetime = blob.updated
        return ObjectInfo(
            blob.name.removeprefix(self._prefix),
            int(blob.size),
            str(blob.generation),
            updated.astimezone(UTC),
        )


def connect() -> Any:
    """Return Google's client, with room for the connections of all workers."""
    try:
        from google.auth.exceptions import DefaultCredentialsError  # noqa: PLC0415 - 1 s to import
        from google.cloud import storage  # noqa: PLC0415 - 1 s to import, for this driver only
        from requests.adapters import HTTPAdapter  # noqa: PLC0415 - comes with it
    except ImportError as error:
        raise MissingError(
            "the client of Google Cloud Storage is not installed",
            hint="Install the package google-cloud-storage.",
        ) from error
    try:
        client = storage.Client()
    except DefaultCredentialsError as error:
        raise StoreRefusedError(
            "no credentials for Google Cloud Storage were found",
            code="credentials_missing",
            hint="Set GOOGLE_APPLICATION_CREDENTIALS, or give the machine a service account.",
        ) from error
    for scheme in ("http://", "https://"):
        adapter = HTTPAdapter(pool_connections=_CONNECTIONS, pool_maxsize=_CONNECTIONS)
        client._http.mount(scheme, adapter)  # noqa: SLF001 - Google's own advice for threads
    return client


def _number(generation: str | None) -> int | None:
    return None if generation is None else int(generation or 0)


def _is_spoilt(blob: Any, data: bytes) -> bool:
    return blob.crc32c is not None and blob.crc32c != _checksum(data)


def _checksum(data: bytes) -> str:
    import google_crc32c  # noqa: PLC0415 - comes with Google's client

    return base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()


def _errors() -> Any:
    from google.api_core import exceptions  # noqa: PLC0415 - 1 s to import

    return exceptions


@contextlib.contextmanager
def _translated(key: str) -> Iterator[None]:
    from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415 - 1 s to import
    from google.cloud.storage.exceptions import DataCorruption  # noqa: PLC0415 - as above
    from requests.exceptions import RequestException  # noqa: PLC0415 - as above
    from urllib3.exceptions import HTTPError  # noqa: PLC0415 - as above

    errors = _errors()
    try:
        yield
    except errors.NotFound:
        raise ObjectNotFoundError(f"there is no object {key}") from None
    except errors.PreconditionFailed:
        raise PreconditionFailedError(f"{key} is not at the generation asked for") from None
    except (errors.Forbidden, errors.Unauthorized) as error:
        raise StoreRefusedError(
            f"Google Cloud Storage refuses {key}: {error.message}",
            hint="The service account needs the role Storage Object User on the bucket.",
        ) from error
    except (errors.GoogleAPIError, GoogleAuthError) as error:
        raise StoreUnavailableError(f"Google Cloud Storage failed for {key}: {error}") from error
    except (DataCorruption, RequestException, HTTPError, *_NONSENSE) as error:
        # Cut, garbled or unreadable answers: none is the object, and the next may be.
        raise StoreUnavailableError(
            f"Google Cloud Storage answered {key} badly: {error}"
        ) from error
