"""What the suite of engines is made of: specs, short ways to run things, fixtures."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path, PurePosixPath

import pytest

from anyon.domain.ids import ProjectId, new_id
from anyon.domain.layout import HOME, RUN, WORKSPACE
from anyon.engines.engine import (
    Channel,
    Command,
    ContainerSpec,
    Engine,
    Mount,
    Stream,
)

SHARED = PurePosixPath("/srv/shared")
"""Where the suite mounts a read-only directory."""
GRACE = timedelta(seconds=1)
PATIENCE = 60.0
"""Seconds after which something that should have happened never will."""

MakeSpec = Callable[[], ContainerSpec]


def spec_maker(base: Path, *, owner: int | None = None, image: str | None = None) -> MakeSpec:
    """Return what makes specs of new projects whose directories lie below *base*.

    *owner* is given the directories, for an engine whose containers run as another user.
    """

    def make() -> ContainerSpec:
        project = ProjectId(new_id())
        here = base / project
        places = {name: here / name for name in ("files", "home", "run", "system", "shared")}
        for place in places.values():
            place.mkdir(parents=True)
            if owner is not None:
                _chown(place, owner)
        (places["shared"] / "given").write_bytes(b"from the host\n")
        return ContainerSpec(
            project=project,
            mounts=(
                Mount(source=places["files"], target=WORKSPACE),
                Mount(source=places["home"], target=HOME),
                Mount(source=places["run"], target=RUN),
                Mount(source=places["shared"], target=SHARED, read_only=True),
            ),
            system=places["system"],
            image=image,
            env={"FROM_SPEC": "spec value", "BOTH": "spec"},
            labels={"anyon.test": "contract"},
        )

    return make


def _chown(place: Path, owner: int) -> None:
    os.chown(place, owner, owner)


async def drain(stream: Stream) -> tuple[bytes, bytes]:
    """Return all that the program writes from now on: stdout, stderr."""
    pieces: dict[Channel, list[bytes]] = {Channel.STDOUT: [], Channel.STDERR: []}
    while (piece := await stream.read()) is not None:
        assert piece[1], "a piece of output is never empty"
        pieces[piece[0]].append(piece[1])
    return b"".join(pieces[Channel.STDOUT]), b"".join(pieces[Channel.STDERR])


async def run(
    engine: Engine, project: ProjectId, *argv: str, stdin: bytes = b""
) -> tuple[int, bytes, bytes]:
    """Run a command to its end: exit code, stdout, stderr."""
    async with asyncio.timeout(PATIENCE):
        stream = await engine.open(project, Command(argv=argv))
        try:
            if stdin:
                await stream.write(stdin)
            await stream.close_stdin()
            out, err = await drain(stream)
            return await stream.wait(), out, err
        finally:
            await stream.close()


async def sh(engine: Engine, project: ProjectId, script: str) -> bytes:
    """Run a shell script that must succeed and return its stdout."""
    code, out, err = await run(engine, project, "sh", "-c", script)
    assert code == 0, (code, out, err)
    return out


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    """Wait until *true* says so."""
    async with asyncio.timeout(PATIENCE):
        while not await true():  # noqa: ASYNC110 - what is waited for is outside this process
            await asyncio.sleep(0.05)


async def read_until(stream: Stream, wanted: bytes) -> bytes:
    """Read stdout until *wanted* was in it, and return what was read."""
    seen = b""
    async with asyncio.timeout(PATIENCE):
        while wanted not in seen:
            piece = await stream.read()
            assert piece is not None, f"the output ended before {wanted!r}: {seen!r}"
            seen += piece[1] if piece[0] is Channel.STDOUT else b""
    return seen


def size(path: Path) -> int:
    """Return the length of a file, 0 while it is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


class EngineTrials:
    """The fixtures of the suite. A driver's test overrides ``engine`` and ``make_spec``."""

    installed_path = "/opt/installed"
    """A file outside the mounts that the container's user may make."""

    @pytest.fixture
    def engine(self) -> Engine:
        """The driver under test (an async generator where it must be closed)."""
        raise NotImplementedError

    @pytest.fixture
    def make_spec(self, tmp_path: Path) -> MakeSpec:
        """What makes a spec of a new project."""
        return spec_maker(tmp_path)

    @pytest.fixture
    async def spec(self, engine: Engine, make_spec: MakeSpec) -> AsyncIterator[ContainerSpec]:
        """A project that has a stopped container; removed afterwards."""
        spec = make_spec()
        await engine.ensure(spec)
        yield spec
        await engine.remove(spec.project)

    @pytest.fixture
    async def project(self, engine: Engine, spec: ContainerSpec) -> ProjectId:
        """A project whose container runs."""
        await engine.start(spec.project)
        return spec.project
