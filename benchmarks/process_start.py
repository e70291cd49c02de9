"""Start of a durable process in a warm container, against a bare ``docker exec true``.

The time until the process has its id and its directory and runs, by the launcher that is kept open in the container.
"""

import asyncio
import subprocess
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from anyon.clock import SystemClock
from anyon.domain.ids import ProcessId, ProjectId, new_id
from anyon.domain.layout import HOME, RUN, WORKSPACE
from anyon.engines import docker_sockets
from anyon.engines.bubblewrap import BubblewrapEngine
from anyon.engines.docker import DockerEngine
from anyon.engines.engine import ContainerSpec, Engine, Mount
from anyon.processes.durable import DurableProcesses
from anyon.processes.processes import ProcessSpec
from benchmarks.report import Row, percentile, rounds

SERVICES = ("docker", "images")
ROUNDS = rounds(200)
REFERENCE_ROUNDS = rounds(25)
AT_ONCE = 40
UID = 1000
REFERENCE = "docker exec true"


async def seconds_of_starts(engine: Engine, base: Path) -> dict[str, float]:
    """Return seconds of a start, of a whole short command and of one of many starts at once."""
    project = ProjectId(new_id())
    places = {place: base / place for place in ("files", "home", "run", "system")}
    for place in places.values():
        place.mkdir(parents=True)
        if isinstance(engine, DockerEngine):
            place.chmod(0o777)
    targets = {"files": WORKSPACE, "home": HOME, "run": RUN}
    mounts = [Mount(source=places[name], target=target) for name, target in targets.items()]
    await engine.ensure(ContainerSpec(project=project, mounts=mounts, system=places["system"]))
    await engine.start(project)
    processes = DurableProcesses(engine, lambda _: places["run"], SystemClock())
    try:
        await processes.run(project, ["true"])  # opens the launcher: the container is warm
        return {
            "start": await _starts(processes, project),
            "run": await _runs(processes, project),
            "many": await _many(processes, project),
        }
    finally:
        await processes.close()
        await engine.stop(project, grace=timedelta(seconds=1))
        await engine.remove(project)
        await engine.close()


def _spec() -> ProcessSpec:
    return ProcessSpec(id=ProcessId(new_id()), argv=["true"])


async def _starts(processes: DurableProcesses, project: ProjectId) -> float:
    lengths = []
    for _ in range(ROUNDS):
        spec = _spec()
        began = time.perf_counter()
        await processes.start(project, spec)
        lengths.append(time.perf_counter() - began)
        await processes.wait(project, spec.id)  # so that one start is measured, not two
        await processes.forget(project, spec.id)
    return percentile(lengths, 0.5)


async def _runs(processes: DurableProcesses, project: ProjectId) -> float:
    lengths = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        await processes.run(project, ["true"])
        lengths.append(time.perf_counter() - began)
    return percentile(lengths, 0.5)


async def _many(processes: DurableProcesses, project: ProjectId) -> float:
    began = time.perf_counter()
    await asyncio.gather(*(processes.start(project, _spec()) for _ in range(AT_ONCE)))
    return (time.perf_counter() - began) / AT_ONCE


def _bare_exec(name: str) -> float:
    began = time.perf_counter()
    subprocess.run(["docker", "exec", name, "true"], check=True)
    return time.perf_counter() - began


async def _reference(engine: DockerEngine, base: Path) -> float:
    project = ProjectId(new_id())
    mounts = [Mount(source=base, target=WORKSPACE)]
    info = await engine.ensure(ContainerSpec(project=project, mounts=mounts, system=base))
    await engine.start(project)
    try:
        return percentile([_bare_exec(info.name) for _ in range(REFERENCE_ROUNDS)], 0.5)
    finally:
        await engine.remove(project)
        await engine.close()


async def _measure(socket: str, base: Path) -> list[Row]:
    docker = DockerEngine(socket, instance=new_id(), uid=UID)
    reference = await _reference(DockerEngine(socket, instance=new_id(), uid=UID), base)
    rows = []
    for engine in (docker, BubblewrapEngine(base / "engine")):
        found = await seconds_of_starts(engine, base / engine.name)
        for key, what, target in (
            ("start", "start of a process", 0.1),
            ("run", "a short command, whole", None),
            ("many", f"one of {AT_ONCE} starts at once", None),
        ):
            row = Row(
                what=f"{what}, {engine.name}, p50",
                value=found[key] * 1000,
                unit="ms",
                reference=REFERENCE,
                reference_value=reference * 1000,
                target_ratio=target,
            )
            rows.append(row)
    return rows


def run() -> Sequence[Row]:
    """Measure on docker and bubblewrap; needs a Docker engine with the workspace image."""
    socket = docker_sockets.find()
    if socket is None:
        raise SystemExit("error: no Docker engine answers; start one, for the reference")
    with TemporaryDirectory(prefix="anyon-bench-") as base:
        Path(base).chmod(0o755)
        return asyncio.run(_measure(socket, Path(base)))
