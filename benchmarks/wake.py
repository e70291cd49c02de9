"""Waking a project: from frozen and from stopped to first output, a herd on one, 30 projects at once.

The time runs from asking for a command in a sleeping project to the first byte of its output. From *frozen* it is compared
with the same command in a project that is awake, plus 5 ms; from *stopped*, with what `docker start` alone takes for a bare
container of the same image, which has not run anything then. The *herd* is a hundred callers on one stopped project: it is started
once, so all together they should wait little longer than one. Of thirty projects woken at once, what is told is the whole time by thirty.
"""

import asyncio
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

from anyon.config import load
from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.entities import Project
from anyon.domain.ids import new_id
from anyon.engines import docker_sockets
from anyon.engines.engine import ContainerState
from anyon.services.projects import NewProject
from anyon.testing.worlds import until
from anyon.wiring.assembly import Anyon, assembled
from benchmarks.report import Row, percentile, rounds

SERVICES = ("docker", "images")
ROUNDS = rounds(15)
HERD = 100
MANY = 30
ALLOWANCE_MS = 5.0
ENGINES = ("bubblewrap", "docker")


async def _first_output(anyon: Anyon, project: Project) -> float:
    """Return the milliseconds from asking for a command to its first output."""
    began = time.perf_counter()
    processes = anyon.services.processes
    process = await processes.exec(LOCAL_ACTOR, project.id, ["echo", "on"])
    async for chunk in processes.follow(LOCAL_ACTOR, process.id):
        if chunk.data:
            took = (time.perf_counter() - began) * 1000
            break
    await until(lambda: _is_free(anyon, project))
    return took


async def _is_free(anyon: Anyon, project: Project) -> bool:
    return not await anyon.services.leases.of(project.id)


async def _median(
    anyon: Anyon, project: Project, before: Callable[[], Awaitable[object]] | None = None
) -> float:
    lengths = []
    for _ in range(ROUNDS):
        if before is not None:
            await before()
        lengths.append(await _first_output(anyon, project))
    return percentile(lengths, 0.5)


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _bare_start() -> float:
    """Return the median milliseconds of ``docker start`` of a bare container of the same image."""
    image = load({"HOME": "/nonexistent"}).image
    name = f"anyon-bench-{new_id()}"
    _docker("create", "--init", "--name", name, image, "sleep", "infinity")
    try:
        lengths = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            _docker("start", name)
            lengths.append((time.perf_counter() - began) * 1000)
            _docker("kill", name)
        return percentile(lengths, 0.5)
    finally:
        _docker("rm", "--force", name)


async def _herd(anyon: Anyon, project: Project) -> tuple[float, float]:
    """Return milliseconds until one, and until a hundred callers on one stopped project are served."""

    async def caller(number: int) -> None:
        hold = anyon.services.containers.awake(project, holder=f"c{number}", reason="benchmark")
        async with hold:
            assert await anyon.services.containers.is_running(project.id)

    lengths = []
    for count in (1, HERD):
        await anyon.services.containers.halt(project.id)
        began = time.perf_counter()
        await asyncio.gather(*(caller(number) for number in range(count)))
        lengths.append((time.perf_counter() - began) * 1000)
    return lengths[0], lengths[1]


async def _at_once(anyon: Anyon, projects: Sequence[Project]) -> float:
    for project in projects:
        await anyon.services.containers.halt(project.id)
    began = time.perf_counter()
    await asyncio.gather(*(_first_output(anyon, project) for project in projects))
    return (time.perf_counter() - began) * 1000 / len(projects)


def _row(what: str, value: float, reference: str, limit: float, target: float | None) -> Row:
    return Row(
        what=what,
        value=value,
        unit="ms",
        reference=reference,
        reference_value=limit,
        target_ratio=target,
    )


async def _measure(home: Path, engine: str, bare: float | None) -> list[Row]:
    settings = replace(load({"HOME": str(home)}), home=home, engine=engine, wakes_per_hour=0)
    async with assembled(settings) as anyon:
        create = anyon.services.projects.create
        first = await create(LOCAL_ACTOR, NewProject(name="first"))
        try:
            return await _rows(anyon, first, engine, bare)
        finally:
            for project in await anyon.services.projects.list(LOCAL_ACTOR):
                await anyon.services.projects.delete(LOCAL_ACTOR, project.id)


async def _rows(anyon: Anyon, first: Project, engine: str, bare: float | None) -> list[Row]:
    async def freeze() -> None:
        info = await anyon.engine.inspect(first.id)
        if info is not None and info.state is ContainerState.RUNNING:
            await anyon.engine.freeze(first.id)

    async def stop() -> None:
        await anyon.services.containers.halt(first.id)

    await _first_output(anyon, first)
    warm = await _median(anyon, first)
    frozen = await _median(anyon, first, freeze)
    stopped = await _median(anyon, first, stop)
    one, herd = await _herd(anyon, first)
    rows = [
        _row(
            f"from frozen to first output, {engine}, p50",
            frozen,
            f"warm start + {ALLOWANCE_MS:g} ms",
            warm + ALLOWANCE_MS,
            1.0,
        )
    ]
    if bare is not None:
        target = 1.3 if engine == "docker" else 1.0
        what = f"from stopped to first output, {engine}, p50"
        rows.append(_row(what, stopped, "bare docker start", bare, target))
    rows.append(_row(f"herd of {HERD} on one, {engine}", herd, "one caller", one, None))
    create = anyon.services.projects.create
    many = [await create(LOCAL_ACTOR, NewProject(name=f"p{n}")) for n in range(MANY)]
    each = await _at_once(anyon, many)
    what = f"one of {MANY} projects woken at once, {engine}"
    rows.append(_row(what, each, "one alone, to first output", stopped, 1.0))
    return rows


def run() -> Sequence[Row]:
    """Measure on bubblewrap, and on docker where an engine answers."""
    has_docker = docker_sockets.find() is not None
    bare = _bare_start() if has_docker else None
    rows: list[Row] = []
    for engine in ENGINES if has_docker else ENGINES[:1]:
        with tempfile.TemporaryDirectory(prefix="anyon-bench-") as directory:
            Path(directory).chmod(0o755)
            rows += asyncio.run(_measure(Path(directory) / "home", engine, bare))
    return rows
