"""A full disk: nothing half made, and what runs can still be stopped and removed."""

import errno
from datetime import timedelta

import pytest

from anyon.domain.errors import EngineFailedError
from anyon.engines.bubblewrap import BubblewrapEngine
from anyon.engines.bubblewrap_records import Record, Records
from anyon.engines.engine import ContainerState
from anyon.engines.sandbox_processes import identify
from anyon.testing.engine_contract import spec_maker
from anyon.testing.engine_trials import sh

GRACE = timedelta(seconds=1)


class FullRecords(Records):
    """Records on a disk that can be filled."""

    full = False

    def write(self, record: Record) -> None:
        """Write, or fail as a full disk does."""
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(record)


@pytest.fixture
def records(tmp_path):
    """The engine's records, not full yet."""
    return FullRecords(tmp_path / "engine")


@pytest.fixture
async def engine(tmp_path, records):
    """An engine on that disk."""
    engine = BubblewrapEngine(tmp_path / "engine", hidden=[tmp_path])
    engine._records = records
    yield engine
    records.full = False
    for info in await engine.list():
        await engine.remove(info.project)
    await engine.close()


async def test_nothing_is_left_of_a_container_that_could_not_be_made(engine, records, tmp_path):
    """An error with a code, no record, no directory; later it can be made."""
    spec = spec_maker(tmp_path)()
    spec.system.rmdir()
    records.full = True
    with pytest.raises(EngineFailedError) as refused:
        await engine.ensure(spec)
    assert refused.value.code == "create_failed"
    assert not spec.system.exists()
    assert await engine.list() == []
    records.full = False
    assert (await engine.ensure(spec)).state is ContainerState.STOPPED


async def test_a_start_that_cannot_be_recorded_leaves_nothing_running(engine, records, tmp_path):
    """What nobody would know of is not started."""
    spec = spec_maker(tmp_path)()
    await engine.ensure(spec)
    records.full = True
    with pytest.raises(EngineFailedError, match="No space left"):
        await engine.start(spec.project)
    info = await engine.inspect(spec.project)
    assert info is not None
    assert info.state is ContainerState.STOPPED
    records.full = False
    await engine.start(spec.project)
    assert await sh(engine, spec.project, "echo here") == b"here\n"


async def test_stop_and_remove_work_on_a_full_disk(engine, records, tmp_path):
    """They free what is used, so they may not need more."""
    spec = spec_maker(tmp_path)()
    await engine.ensure(spec)
    first = (await engine.start(spec.project)).pid
    records.full = True
    assert (await engine.stop(spec.project, grace=GRACE)).state is ContainerState.STOPPED
    info = await engine.inspect(spec.project)
    assert info is not None
    assert info.state is ContainerState.STOPPED
    assert identify(first) is None
    records.full = False
    await engine.start(spec.project)
    records.full = True
    await engine.remove(spec.project)
    assert await engine.inspect(spec.project) is None
    assert not spec.system.exists()
