"""Where checkpoints go: the setting ``store``, made into an object store."""

from datetime import timedelta
from pathlib import Path

from anyon.config import Settings
from anyon.domain.errors import InvalidInputError
from anyon.storage.drivers.files import FilesStore
from anyon.storage.objects import ObjectStore
from anyon.storage.observing import ObservedStore
from anyon.storage.wrappers import RetryingStore, ThrottledStore
from anyon.telemetry.parts import StoreMetrics


def store(
    settings: Settings,
    metrics: StoreMetrics | None = None,
    *,
    patience: timedelta = timedelta(seconds=60),
) -> ObjectStore | None:
    """Return the object store that is set, retrying by itself for *patience*, or None for ``none``.

    Each call to its driver is told to *metrics*.

    Raises InvalidInputError (``bad_store``) for an address that no driver takes.
    """
    if settings.store == "none":
        return None
    bare = driver(settings)
    observed: ObjectStore = bare if metrics is None else ObservedStore(bare, metrics)
    if settings.checkpoint_bandwidth:
        observed = ThrottledStore(observed, bytes_per_second=settings.checkpoint_bandwidth)
    return RetryingStore(observed, patience=patience)


def driver(settings: Settings) -> ObjectStore:
    """Return the bare driver of the store that is set (not ``none``): it fails at once.

    Raises InvalidInputError (``bad_store``) for an address that no driver takes.
    """
    address = settings.store
    if address.startswith("gs://"):
        from anyon.storage.drivers.gcs import GcsStore  # noqa: PLC0415 - a large library, for buckets only

        bucket, _, prefix = address.removeprefix("gs://").partition("/")
        return GcsStore(bucket, prefix=prefix)
    if address.startswith("s3://"):
        from anyon.storage.drivers.s3 import S3Store  # noqa: PLC0415 - as above

        bucket, _, prefix = address.removeprefix("s3://").partition("/")
        return S3Store(bucket, prefix=prefix)
    if "://" in address:
        raise InvalidInputError(
            f"no driver takes the store {address!r}",
            code="bad_store",
            hint="Set ANYON_STORE to a directory, to gs://bucket/prefix or s3://bucket/prefix, or to none.",
        )
    return FilesStore(Path(address).expanduser() if address else settings.home / "store")
