"""S3 keeps the contract, as far as moto's server can tell."""

import os
import urllib.request
import uuid
from collections.abc import Iterator

import pytest

from anyon.storage.drivers.s3 import S3Store
from anyon.storage.objects import (
    ABSENT,
    ObjectNotFoundError,
    ObjectStore,
    StoreRefusedError,
    StoreUnavailableError,
)
from anyon.storage.wrappers import RetryingStore
from anyon.testing.fault_proxy import fault_proxy
from anyon.testing.s3_emulator import credentials, is_installed, make_s3_bucket, s3_emulator
from anyon.testing.store_contract import StoreContract


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Run one emulator for this module."""
    if not is_installed():
        if os.environ.get("CI"):
            pytest.fail("the emulator of S3 is not installed")
        pytest.skip("moto[s3,server] is not installed")
    with s3_emulator() as found:
        yield found


@pytest.fixture
def bucket(url: str) -> str:
    """Make an empty bucket."""
    name = f"b-{uuid.uuid4().hex[:12]}"
    make_s3_bucket(url, name)
    return name


class TestS3(StoreContract):
    # Not the emulator, but S3: the generation is the ETag, which equal bytes share.
    weaker = frozenset({"test_equal_values_have_generations_of_their_own"})

    @pytest.fixture
    def store(self, url: str, bucket: str) -> ObjectStore:
        """Return the store under test, empty, below a prefix."""
        return RetryingStore(S3Store(bucket, "some/prefix", environment=credentials(url)))


def test_a_bucket_that_is_not_there(url: str, bucket: str) -> None:
    """A wrong bucket is refused at once, and a lost one by every call: never an empty one."""
    with pytest.raises(StoreRefusedError) as caught:
        S3Store(bucket + "-no", environment=credentials(url))
    assert caught.value.code == "bucket_not_found"


def test_a_service_that_is_not_there() -> None:
    """Without an answer the store is unavailable, within its deadline."""
    with pytest.raises(StoreUnavailableError):
        S3Store("any", environment=credentials("http://127.0.0.1:9"))


def test_no_credentials_on_this_machine(url: str, bucket: str) -> None:
    """For an endpoint on loopback no metadata server is asked: it is said what is missing."""
    with pytest.raises(StoreRefusedError) as caught:
        S3Store(bucket, environment={"AWS_ENDPOINT_URL": url})
    assert caught.value.code == "credentials_missing"


@pytest.mark.parametrize("fault", ["reset_before", "cut_answer", "status_503", "corrupt_answer"])
def test_a_spoilt_request_is_seen(url: str, bucket: str, fault: str) -> None:
    """What did not come whole, or not as it was written, is an error and no value."""
    with fault_proxy(url) as proxy:
        store = S3Store(bucket, environment=credentials(proxy.url))
        store.put("key", b"value" * 1000)
        proxy.choose = lambda _number, _method, _path: fault
        with pytest.raises(StoreUnavailableError):
            store.get("key")
        proxy.choose = lambda _number, _method, _path: None
        assert store.get("key").data == b"value" * 1000


def test_a_cut_upload_leaves_nothing(url: str, bucket: str) -> None:
    """An upload that breaks off on its way is no object, not even a part of one."""
    with fault_proxy(url) as proxy:
        store = S3Store(bucket, environment=credentials(proxy.url))
        proxy.choose = lambda _number, method, _path: "reset_before" if method == "PUT" else None
        with pytest.raises(StoreUnavailableError):
            store.put("key", b"v" * (20 << 20), if_generation=ABSENT)
        proxy.choose = lambda _number, _method, _path: None
        with pytest.raises(ObjectNotFoundError):
            store.head("key")
        assert list(store.list("")) == []
        with_parts = f"{url}/{bucket}?uploads"
        assert b"<Upload>" not in _read(with_parts)


def _read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return bytes(answer.read())
