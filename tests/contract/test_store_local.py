"""The stores of this machine, and the wrappers, keep the contract."""

from datetime import timedelta
from pathlib import Path

import pytest

from anyon.storage.drivers.files import FilesStore
from anyon.storage.drivers.memory import MemoryStore
from anyon.storage.objects import ObjectStore
from anyon.storage.wrappers import LimitedStore, RetryingStore
from anyon.testing.store_contract import StoreContract
from anyon.testing.store_faults import UnsteadyStore


class TestMemory(StoreContract):
    @pytest.fixture
    def store(self) -> ObjectStore:
        """Return the store under test, empty."""
        return MemoryStore()


class TestFiles(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> ObjectStore:
        """Return the store under test, empty."""
        return FilesStore(tmp_path)


class TestLimited(StoreContract):
    @pytest.fixture
    def store(self) -> ObjectStore:
        """Return the store under test, empty."""
        return LimitedStore(MemoryStore(), calls=3)


class TestRetrying(StoreContract):
    """Around a store that fails one call of three, before or after its effect."""

    @pytest.fixture
    def store(self) -> ObjectStore:
        """Return the store under test, empty."""
        return RetryingStore(
            UnsteadyStore(MemoryStore(), seed=7),
            patience=timedelta(seconds=1000),
            sleep=lambda _: None,
        )
