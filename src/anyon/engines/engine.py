"""The interface of an engine, and the shapes it speaks in.

An engine knows containers by their project: one project has one container, named
``project-<project id>``, so that two callers can never make two. Every call has its own
deadline (``DeadlineExceededError``); an engine that cannot be reached raises
``EngineUnavailableError``, one that refuses ``EngineFailedError``, and a container that is not there
``NotFoundError`` with the code ``container_absent``. A call that fails may be repeated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Protocol, runtime_checkable

from anyon.domain.ids import ProjectId

ROOT = PurePosixPath("/")


class ContainerState(StrEnum):
    """What an engine says of a container."""

    RUNNING = "running"
    FROZEN = "frozen"
    STOPPED = "stopped"


class Channel(StrEnum):
    """Which output of a program a piece came from; a terminal has only ``STDOUT``."""

    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A host directory shown inside."""

    source: Path
    target: PurePosixPath
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one container may use; None leaves it to the machine.

    ``cpus`` in cores, ``memory_bytes`` without swap, ``pids`` counts processes and threads.
    """

    cpus: float | None = None
    memory_bytes: int | None = None
    pids: int | None = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """How a project's container is to be.

    ``system`` is the host directory that keeps what is installed outside the project, for engines
    that need one (bubblewrap's overlay; docker keeps it in the container). ``image`` is for
    engines with images. ``labels`` are added to the engine's own. No secret may stand in ``env``.
    """

    project: ProjectId
    mounts: Sequence[Mount]
    system: Path
    image: str | None = None
    limits: Limits = field(default_factory=Limits)
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerInfo:
    """What an engine knows of one container.

    ``id`` is the engine's own. ``pid`` is the host's id of the container's first process while it
    runs. ``started_at`` is the last start, None before the first.
    """

    project: ProjectId
    id: str
    name: str
    state: ContainerState
    pid: int | None = None
    started_at: datetime | None = None
    exit_code: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What a container uses now. ``cpu_seconds`` only grows; ``oom_kills`` counts since its start."""

    cpu_seconds: float
    memory_bytes: int
    pids: int
    oom_kills: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminalSize:
    """A terminal's size in characters."""

    columns: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program to run inside. ``argv[0]`` is looked up in the container's PATH.

    It runs as the container's user, in ``cwd``, with the container's environment and ``env``
    added. ``terminal`` gives it a terminal of that size instead of three pipes. ``is_lasting`` says
    that it is told to end by what it reads and that nobody asks for its exit code: an engine may then
    open it in a quicker way, in which the end of stdin does not reach it.
    """

    argv: Sequence[str]
    cwd: PurePosixPath = ROOT
    env: Mapping[str, str] = field(default_factory=dict)
    terminal: TerminalSize | None = None
    is_lasting: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What an engine says of itself; ``detail`` maps facts to words (version, cgroup, rootless…)."""

    engine: str
    version: str
    detail: Mapping[str, str] = field(default_factory=dict)


class Stream(Protocol):
    """A program that was opened inside, and its three pipes (or its terminal).

    It lives no longer than this connection promises: when server or engine goes, the stream is
    lost, and with a closed stream nothing is known of the program. What must outlive that is a
    durable process (room ``processes``), which needs a stream only to be started.
    """

    async def read(self) -> tuple[Channel, bytes] | None:
        """Return the next piece of output (never empty), or None once all outputs are closed.

        One reader at a time. Raises EngineUnavailableError when the connection breaks before the end.
        """
        ...

    async def write(self, data: bytes) -> None:
        """Give *data* to the program's stdin, waiting while it is full.

        Raises ConflictError (code ``stdin_closed``) once either side closed it.
        """
        ...

    async def close_stdin(self) -> None:
        """End the program's stdin (on a terminal: send end-of-file). Repeats are harmless."""
        ...

    async def resize(self, size: TerminalSize) -> None:
        """Change the terminal's size; without a terminal this does nothing."""
        ...

    async def wait(self) -> int:
        """Return the exit code, 128+n after signal n. Output that was not read is dropped."""
        ...

    async def close(self) -> None:
        """Let go of the connection, ending the program if it still runs. Repeats are harmless."""
        ...


class Engine(Protocol):
    """What makes and runs containers."""

    @property
    def name(self) -> str:
        """The driver's name, such as ``docker``."""
        ...

    async def health(self) -> Health:
        """Return what the engine says of itself, or raise EngineUnavailableError with a hint."""
        ...

    async def ensure(self, spec: ContainerSpec) -> ContainerInfo:
        """Return the project's container, made from *spec* if it is not there; never start it.

        A container that exists is adopted as it is, whoever made it, and whatever its state.
        However many callers ask at once, there is one container. A missing image is MissingError
        (code ``image_missing``); a failure leaves nothing behind.
        """
        ...

    async def start(self, project: ProjectId) -> ContainerInfo:
        """Bring the container to RUNNING from STOPPED; one that runs or is frozen stays as it is."""
        ...

    async def stop(self, project: ProjectId, *, grace: timedelta) -> ContainerInfo:
        """Bring it to STOPPED: TERM to its first process, *grace*, then KILL to everything in it.

        A frozen container is thawed first. One that is stopped stays so. What is installed in it
        and its mounts' files stay.
        """
        ...

    async def freeze(self, project: ProjectId) -> ContainerInfo:
        """Give its processes no CPU, keeping their memory. ConflictError ``not_running`` if stopped."""
        ...

    async def thaw(self, project: ProjectId) -> ContainerInfo:
        """Undo ``freeze``; a container that runs stays so. ConflictError ``not_running`` if stopped."""
        ...

    async def remove(self, project: ProjectId) -> None:
        """Kill and remove the container with everything installed in it; absent is success.

        The mounts' files stay.
        """
        ...

    async def inspect(self, project: ProjectId) -> ContainerInfo | None:
        """Return what is known of the project's container, or None when there is none."""
        ...

    async def list(self) -> Sequence[ContainerInfo]:
        """Return all containers of this Anyon's home, by label, in no order."""
        ...

    async def open(self, project: ProjectId, command: Command) -> Stream:
        """Run *command* inside a RUNNING container and return its stream.

        ConflictError ``not_running`` or ``frozen`` otherwise. A program that is not there or not
        executable ends with 127 or 126 and words on stderr, as a shell would say it.
        """
        ...

    async def stats(self, project: ProjectId) -> Stats | None:
        """Return what the container uses, or None while it is stopped."""
        ...

    async def close(self) -> None:
        """Let go of connections; containers go on."""
        ...


@runtime_checkable
class ShowsProcesses(Protocol):
    """What an engine on this machine may offer besides."""

    def host_pids(self, project: ProjectId) -> Sequence[int] | None:
        """Return all processes of a frozen container as this machine numbers them; None if unknown.

        Blocks shortly; to be called from a worker thread.
        """
        ...
