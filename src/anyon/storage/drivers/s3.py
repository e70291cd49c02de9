"""S3 and what speaks its language, through ``obstore`` (imported when the driver is made).

The fence is the ETag: ``If-None-Match: *`` and ``If-Match``. It is made from an object's bytes,
so two writes of *equal* bytes have one generation here. Everything that is written under a
condition names its writer or its time, so no two such values are equal.
"""

import base64
import contextlib
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, timedelta
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from anyon.domain.errors import InvalidInputError, MissingError
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

CONNECT_TIMEOUT = timedelta(seconds=10)
SILENCE_TIMEOUT = timedelta(seconds=60)
"""How long a request may last without a byte of its answer."""
TIMEOUT = timedelta(minutes=5)
"""How long one request may last in all."""
PAGE = 1000
_CHECKSUM = "anyon-crc32c"
_SIGNED_FOR = timedelta(minutes=5)
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)


class S3Store:
    """Keeps the promises of ``ObjectStore`` in a bucket, below a prefix.

    Endpoint, region and credentials come from the environment: AWS_ENDPOINT_URL, AWS_REGION,
    AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a web identity, or the role of the machine.
    Each object carries a CRC32C of ours, since an ETag is a checksum only sometimes.
    Buckets that list in no order (S3 Express One Zone) are refused by ``list``.
    """

    def __init__(
        self, bucket: str, prefix: str = "", *, environment: Mapping[str, str] | None = None
    ) -> None:
        env = os.environ if environment is None else environment
        self._name = bucket
        self._store = _connected(bucket, prefix.strip("/"), env)
        # A bucket that is not there must never look like one that is empty.
        next(iter(self.list("")), None)

    def put(self, key: str, data: bytes, *, if_generation: str | None = None) -> str:
        """See ``ObjectStore.put``."""
        check_key(key)
        mode: Any = "overwrite"
        if if_generation is not None:
            mode = "create" if if_generation == ABSENT else {"e_tag": if_generation}
        with self._translated(key):
            done = self._store.put(
                key,
                data,
                mode=mode,
                # Never in parts: those leave something hidden behind when they are cut off.
                use_multipart=False,
                attributes={
                    "Content-Type": "application/octet-stream",
                    _CHECKSUM: _checksum(data),
                },
            )
        return _tag(done["e_tag"], key)

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> Blob:
        """See ``ObjectStore.get``."""
        if start < 0 and length is not None:
            start = max(0, self.head(key).size_bytes + start)
        if length == 0:
            return Blob(b"", self.head(key).generation)
        check_key(key)
        with self._translated(key):
            try:
                found = self._store.get(key, options=_ranged(start, length))
                data = bytes(found.bytes())
            except _errors().GenericError as error:
                if "416" not in _status(error):
                    raise
                return Blob(b"", self.head(key).generation)
            meta, attributes = found.meta, found.attributes
        if (
            start == 0
            and length is None
            and attributes.get(_CHECKSUM, _checksum(data)) != (_checksum(data))
        ):
            raise StoreUnavailableError(f"{key} did not come as it was written")
        return Blob(data, _tag(meta["e_tag"], key))

    def head(self, key: str) -> ObjectInfo:
        """See ``ObjectStore.head``."""
        check_key(key)
        with self._translated(key):
            return self._info(self._store.head(key))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ``ObjectStore.list``."""
        # The library lists whole directories: the rest of the prefix is looked at here.
        directory, slash, _ = prefix.rpartition("/")
        if prefix.startswith("/") or "//" in prefix:
            return
        with self._translated(prefix):
            pages = iter(self._store.list(f"{directory}{slash}" or None, chunk_size=PAGE))
        last = b""
        while True:
            with self._translated(prefix):
                page = next(pages, None)
                infos = [self._info(meta) for meta in page or ()]
            if page is None:
                return
            for info in infos:
                if (name := info.key.encode()) <= last:
                    raise StoreUnavailableError(f"{self._name} lists its objects in no order")
                last = name
                if info.key.startswith(prefix):
                    yield info

    def delete(self, key: str, *, if_generation: str | None = None) -> None:
        """See ``ObjectStore.delete``."""
        check_key(key)
        if if_generation is None:
            with contextlib.suppress(ObjectNotFoundError), self._translated(key):
                self._store.delete(key)
            return
        try:
            found = self.head(key)
        except ObjectNotFoundError:
            return
        # Looked at first, for services that take no notice of a condition on a delete.
        if found.generation != if_generation:
            raise PreconditionFailedError(f"{key} is not at the generation asked for")
        self._delete_at(key, if_generation)

    def _delete_at(self, key: str, generation: str) -> None:
        import httpx  # noqa: PLC0415 - as the library above: for this driver only

        with self._translated(key):
            # The library knows no condition on a delete, so the request is made here.
            url = _obstore().sign(self._store, "DELETE", key, _SIGNED_FOR)
        try:
            answer = httpx.delete(
                url, headers={"If-Match": generation}, timeout=SILENCE_TIMEOUT.total_seconds()
            )
        except httpx.HTTPError as error:
            raise StoreUnavailableError(f"S3 failed for {key}: {error}") from error
        if answer.status_code == 412:
            raise PreconditionFailedError(f"{key} is not at the generation asked for")
        if answer.status_code in {401, 403}:
            raise StoreRefusedError(f"S3 refuses to delete {key}", hint=_RIGHTS)
        if answer.status_code not in {200, 204, 404}:
            raise StoreUnavailableError(f"S3 answered {answer.status_code} for {key}")

    @staticmethod
    def _info(meta: Mapping[str, Any]) -> ObjectInfo:
        return ObjectInfo(
            meta["path"],
            int(meta["size"]),
            _tag(meta["e_tag"], meta["path"]),
            meta["last_modified"].astimezone(UTC),
        )

    @contextlib.contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        errors = _errors()
        try:
            yield
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise self._no_bucket() from None
            raise ObjectNotFoundError(f"there is no object {key}") from None
        except (errors.AlreadyExistsError, errors.PreconditionError) as error:
            # 409 is no verdict: something else went on with the object at the same time.
            if "409" in _status(error):
                raise StoreUnavailableError(f"S3 was busy with {key}") from error
            raise PreconditionFailedError(f"{key} is not at the generation asked for") from None
        except (errors.PermissionDeniedError, errors.UnauthenticatedError) as error:
            raise StoreRefusedError(f"S3 refuses {key}: {_said(error)}", hint=_RIGHTS) from error
        except (errors.BaseError, OSError, ValueError) as error:
            if "NoSuchBucket" in str(error):
                raise self._no_bucket() from None
            raise StoreUnavailableError(f"S3 failed for {key}: {_said(error)}") from error

    def _no_bucket(self) -> StoreRefusedError:
        return StoreRefusedError(
            f"there is no bucket {self._name}",
            code="bucket_not_found",
            hint="Make it first, or correct the setting `store`.",
        )


_RIGHTS = "The key needs s3:GetObject, PutObject, DeleteObject and ListBucket on the bucket."


def is_loopback(url: str) -> bool:
    """Say whether *url* is one of this machine: a test's server, or one's own."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def endpoint(environment: Mapping[str, str]) -> str:
    """Return the endpoint that *environment* names, or nothing for Amazon's own."""
    return next((environment[name] for name in _ENDPOINTS if environment.get(name)), "")


def _connected(bucket: str, prefix: str, env: Mapping[str, str]) -> Any:
    url = endpoint(env)
    if url and is_loopback(url) and not any(env.get(name) for name in _CREDENTIALS):
        # Else the library would ask the cloud's metadata server, which a test machine has not.
        raise StoreRefusedError(
            "no credentials for S3 were found",
            code="credentials_missing",
            hint="Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
        )
    obstore = _obstore()
    try:
        return obstore.store.S3Store(
            bucket,
            prefix=prefix or None,
            config=_config(url, env),
            client_options={
                "allow_http": url.startswith("http://"),
                "connect_timeout": CONNECT_TIMEOUT,
                "read_timeout": SILENCE_TIMEOUT,
                "timeout": TIMEOUT,
            },
            retry_config={"max_retries": 0},
        )
    except (obstore.exceptions.BaseError, ValueError) as error:
        raise InvalidInputError(
            f"S3 cannot be set up: {_said(error)}",
            code="bad_store",
            hint="Set ANYON_STORE to s3://bucket/prefix, and see AWS_ENDPOINT_URL and AWS_REGION.",
        ) from error


def _config(url: str, env: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {"region": env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION")}
    found["access_key_id"] = env.get("AWS_ACCESS_KEY_ID")
    found["secret_access_key"] = env.get("AWS_SECRET_ACCESS_KEY")
    found["session_token"] = env.get("AWS_SESSION_TOKEN")
    found["endpoint"] = url
    return {name: value for name, value in found.items() if value}


def _obstore() -> Any:
    try:
        import obstore.exceptions  # noqa: PLC0415 - a large library, for buckets only
        import obstore.store  # noqa: PLC0415 - as above
    except ImportError as error:
        raise MissingError(
            "the client of S3 is not installed", hint="Install the package obstore."
        ) from error
    return obstore


def _errors() -> Any:
    return _obstore().exceptions


def _ranged(start: int, length: int | None) -> Any:
    if start < 0:
        return {"range": {"suffix": -start}}
    if length is not None:
        return {"range": (start, start + length)}
    return {"range": {"offset": start}} if start else None


def _tag(tag: str | None, key: str) -> str:
    if not tag:
        raise StoreUnavailableError(f"S3 answered {key} without an ETag")
    return tag


def _checksum(data: bytes) -> str:
    import google_crc32c  # noqa: PLC0415 - comes with Google's client

    return base64.b64encode(google_crc32c.value(data).to_bytes(4, "big")).decode()


def _status(error: Exception) -> str:
    """Return the status that the service answered, as the library's message tells it."""
    _, found, rest = str(error).partition("status code: ")
    return rest[:3] if found else ""


def _said(error: Exception) -> str:
    """Return the first line of the library's message: the rest is for its makers."""
    return str(error).partition("\n")[0]
