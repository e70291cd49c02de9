"""Which engine: the only place that names the drivers."""

import hashlib

from anyon.config import Settings
from anyon.domain.errors import EngineUnavailableError
from anyon.engines import docker_sockets
from anyon.engines.bubblewrap import BubblewrapEngine
from anyon.engines.docker import DockerEngine
from anyon.engines.engine import Engine
from anyon.engines.layers import KeepsLayers
from anyon.engines.memory import MemoryEngine


def instance(settings: Settings) -> str:
    """Return the name by which this home's containers know their own: two homes may share an engine."""
    return hashlib.sha256(str(settings.home).encode()).hexdigest()[:12]


def bubblewrap(settings: Settings) -> BubblewrapEngine:
    """Return the embedded engine; it hides Anyon's own home from the projects."""
    return BubblewrapEngine(state=settings.home / "engine", hidden=[settings.home])


def docker_socket(settings: Settings) -> str:
    """Return the socket that is set or found, or raise EngineUnavailableError (``engine_unavailable``)."""
    found = settings.docker_socket or docker_sockets.find()
    if found is None:
        raise EngineUnavailableError(
            "no Docker or Podman socket was found",
            hint="Start the engine (systemctl start docker), or set ANYON_DOCKER_SOCKET.",
        )
    return found


def docker(settings: Settings) -> DockerEngine:
    """Return the Docker engine at the set or found socket, or raise EngineUnavailableError."""
    return DockerEngine(
        socket=docker_socket(settings),
        instance=instance(settings),
        uid=settings.container_uid,
        runtime=settings.docker_runtime,
    )


async def choose(settings: Settings) -> Engine:
    """Return the engine that is set, examined; ``auto`` is docker if it answers, else bubblewrap."""
    match settings.engine:
        case "memory":
            return MemoryEngine(hidden=[settings.home])
        case "bubblewrap":
            return await _examined(bubblewrap(settings))
        case "docker":
            return await _examined(docker(settings))
        case _:
            try:
                return await _examined(docker(settings))
            except EngineUnavailableError:
                return await _examined(bubblewrap(settings))


def layers(engine: Engine) -> KeepsLayers | None:
    """Return the power to reach layers of an engine that keeps them in a place of its own."""
    return engine.layers if isinstance(engine, DockerEngine) else None


async def _examined(engine: Engine) -> Engine:
    try:
        await engine.health()
    except BaseException:
        await engine.close()
        raise
    return engine
