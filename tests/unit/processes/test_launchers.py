"""A launcher that is gone is never asked again, even before its end was read."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from anyon.domain.errors import ConflictError
from anyon.domain.ids import ProjectId
from anyon.engines.engine import Channel, Command, ContainerSpec, Stream, TerminalSize
from anyon.engines.memory import MemoryEngine
from anyon.processes import launchers
from anyon.processes.launchers import Launcher, LauncherLostError, Launchers
from anyon.testing.engine_trials import spec_maker


class DyingStream:
    """A stream whose program has ended, which its reader has not been told yet."""

    def __init__(self) -> None:
        self._pieces: list[tuple[Channel, bytes]] = [(Channel.STDOUT, b"ready boot/1\n")]
        self._end = asyncio.Event()

    async def read(self) -> tuple[Channel, bytes] | None:
        """Say that it is ready, then nothing until it is closed."""
        if self._pieces:
            return self._pieces.pop()
        await self._end.wait()
        return None

    async def write(self, data: bytes) -> None:
        """Refuse: the program has ended."""
        raise ConflictError("the program's stdin is closed", code="stdin_closed")

    async def close_stdin(self) -> None:
        """Do nothing."""

    async def resize(self, size: TerminalSize) -> None:
        """Do nothing."""

    async def wait(self) -> int:
        """Return what a killed program has."""
        return 137

    async def close(self) -> None:
        """Let the reader see the end."""
        self._end.set()


async def test_a_launcher_that_cannot_be_written_to_is_lost() -> None:
    """Once a write has failed it counts as lost, though its reader still waits: another is opened."""
    stream = DyingStream()
    launcher = Launcher(stream)
    assert not launcher.lost
    with pytest.raises(LauncherLostError):
        await launcher.request("check", "x", within=timedelta(seconds=30))
    assert launcher.lost
    await stream.close()
    await launcher.close()


class StillStream(DyingStream):
    """A stream of a program that gets no CPU: whoever waits for its end waits for ever."""

    async def close(self) -> None:
        """Wait for what does not come."""
        await asyncio.Event().wait()


@pytest.mark.parametrize("is_frozen", [True, False])
async def test_a_frozen_launcher_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_frozen: bool
) -> None:
    """A server that ends lets go of a frozen project's launcher at once, and waits for one that runs."""
    monkeypatch.setattr(launchers, "_LEAVING_SECONDS", 1000.0)
    engine, project = MemoryEngine(), ProjectId("p")
    await engine.ensure(ContainerSpec(project=project, mounts=(), system=tmp_path / "system"))
    await engine.start(project)
    if is_frozen:
        await engine.freeze(project)
    known = Launchers(engine)
    launcher = known._open[project] = Launcher(StillStream())
    closing = asyncio.create_task(known.close())
    done, _ = await asyncio.wait({closing}, timeout=60 if is_frozen else 1)
    assert bool(done) is is_frozen
    closing.cancel()
    launcher._reader.cancel()
    await asyncio.gather(closing, launcher._reader, return_exceptions=True)


class WatchedEngine(MemoryEngine):
    """The engine in memory, which remembers whether the streams that it opened were closed."""

    def __init__(self, hidden: list[Path]) -> None:
        super().__init__(hidden)
        self.not_closed: set[int] = set()

    async def open(self, project: ProjectId, command: Command) -> Stream:
        """Open, and watch the close."""
        stream = await super().open(project, command)
        close, number = stream.close, id(stream)
        self.not_closed.add(number)

        async def closed() -> None:
            self.not_closed.discard(number)
            await close()

        stream.close = closed  # type: ignore[method-assign] # watched, not replaced
        return stream


async def test_a_launcher_goes_with_its_container(tmp_path: Path) -> None:
    """Of a project that is gone nothing is held: its stream is closed though nobody asks it again."""
    engine, project = WatchedEngine([tmp_path]), ProjectId("p")
    for mount in (run := spec_maker(tmp_path)()).mounts:
        mount.source.mkdir(parents=True, exist_ok=True)
    await engine.ensure(replace(run, project=project))
    await engine.start(project)
    known = Launchers(engine)
    await known.prepare(project)
    assert engine.not_closed
    await engine.stop(project, grace=timedelta(0))
    await engine.remove(project)
    async with asyncio.timeout(60):
        while engine.not_closed or known._open or known._locks or known._leaving:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.01)
    await known.close()
    await engine.close()
