"""What the suite of processes is made of: a running container, and short ways to run things in it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from anyon.clock import SystemClock
from anyon.domain.ids import ProcessId, ProjectId, new_id
from anyon.domain.layout import RUN, WORKSPACE
from anyon.engines.engine import Channel, ContainerSpec, Engine
from anyon.processes.durable import DurableProcesses
from anyon.processes.processes import Chunk, Exit, ProcessSpec, ProcessState
from anyon.testing.engine_trials import GRACE, PATIENCE, MakeSpec, until


@dataclass
class Trial:
    """A project whose container runs, and a server over it; ``server`` gives further ones."""

    engine: Engine
    project: ProjectId
    files: Path
    run: Path
    opened: list[DurableProcesses] = field(default_factory=list)

    def server(self) -> DurableProcesses:
        """Return a server that knows nothing of the others."""
        server = DurableProcesses(self.engine, lambda _: self.run, SystemClock())
        self.opened.append(server)
        return server

    async def start(self, server: DurableProcesses, script: str, **more: Any) -> ProcessState:
        """Start a shell script."""
        spec = ProcessSpec(id=ProcessId(new_id()), argv=["sh", "-c", script], **more)
        return await server.start(self.project, spec)

    async def finish(self, server: DurableProcesses, script: str, **more: Any) -> Exit:
        """Start a shell script and wait for its end."""
        state = await self.start(server, script, **more)
        async with asyncio.timeout(PATIENCE):
            return await server.wait(self.project, state.id)

    async def output(
        self,
        server: DurableProcesses,
        process: ProcessId,
        offsets: Mapping[Channel, int] | None = None,
    ) -> bytes:
        """Follow a process to its end and return its stdout, seeing that nothing is out of place."""
        return (await self.outputs(server, process, offsets))[Channel.STDOUT]

    async def outputs(
        self,
        server: DurableProcesses,
        process: ProcessId,
        offsets: Mapping[Channel, int] | None = None,
    ) -> Mapping[Channel, bytes]:
        """Follow a process to its end and return what each channel gave."""
        got = dict.fromkeys(Channel, b"")
        at = {channel: (offsets or {}).get(channel, 0) for channel in Channel}
        async with asyncio.timeout(PATIENCE):
            async for chunk in server.follow(self.project, process, offsets):
                assert chunk.offset == at[chunk.channel] + chunk.dropped_bytes
                got[chunk.channel] += chunk.data
                at[chunk.channel] = chunk.next_offset
        return got

    async def count(self, server: DurableProcesses, pattern: str) -> int:
        """Return how many processes inside have a command line with *pattern* (for grep) in it."""
        script = "for f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$f; echo; done | grep -c \"$1\""
        done = await server.run(self.project, ["sh", "-c", script, "sh", pattern])
        return int(done.stdout)

    async def until_said(
        self, server: DurableProcesses, process: ProcessId, wanted: bytes
    ) -> list[Chunk]:
        """Follow a process until its stdout had *wanted* in it, and return all chunks until then."""
        chunks = []
        async with asyncio.timeout(PATIENCE):
            async for chunk in server.follow(self.project, process):
                chunks.append(chunk)
                if wanted in b"".join(c.data for c in chunks if c.channel is Channel.STDOUT):
                    return chunks
        raise AssertionError(f"it ended without {wanted!r}: {chunks}")


async def seen(true: Callable[[], bool]) -> None:
    """Wait until the host sees *true*."""

    async def ask() -> bool:
        return true()

    await until(ask)


async def running(engine: Engine, spec: ContainerSpec) -> AsyncIterator[Trial]:
    """Give a trial in a running container, which is removed afterwards."""
    places = {mount.target: mount.source for mount in spec.mounts}
    trial = Trial(engine, spec.project, places[WORKSPACE], places[RUN])
    await engine.ensure(spec)
    await engine.start(spec.project)
    try:
        yield trial
    finally:
        for server in trial.opened:
            await server.close()
        await engine.stop(spec.project, grace=GRACE)
        await engine.remove(spec.project)


class ProcessFixtures:
    """Fixtures over a driver's ``engine`` and ``make_spec``."""

    @pytest.fixture
    async def trial(self, engine: Engine, make_spec: MakeSpec) -> AsyncIterator[Trial]:
        """Give a trial in a running container, which is removed afterwards."""
        async for trial in running(engine, make_spec()):
            yield trial

    @pytest.fixture
    async def server(self, trial: Trial) -> DurableProcesses:
        """Give one server over the trial."""
        return trial.server()
