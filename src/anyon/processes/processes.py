"""The interface of durable processes, and the shapes it speaks in.

A process is known by an id that its caller chose; it has a directory ``run/<id>/`` that a
wrapper inside the container writes: ``stdout`` and ``stderr`` (append-only raw bytes), ``exit``
(by rename). Whatever dies outside the container, nothing of that is lost. The server reads the
directory from the host, as a stranger's: never through a link, never a special file.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import PurePosixPath
from typing import Protocol

from anyon.domain.ids import ProcessId, ProjectId
from anyon.domain.layout import WORKSPACE
from anyon.domain.states import ExitReason
from anyon.engines.engine import Channel


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """What to run.

    ``stdin`` is given whole and then closed; None is an empty stdin. ``secrets`` become
    environment variables: they travel over the launcher's stream into a tmpfs file that is read
    and removed at start, and stand in no argv, log or record. ``timeout`` ends the whole tree
    with ExitReason.TIMEOUT. ``output_cap_bytes`` bounds what each channel keeps: past it the
    middle is dropped, head and tail stay and offsets stay true.
    """

    id: ProcessId
    argv: Sequence[str]
    cwd: PurePosixPath = WORKSPACE
    env: Mapping[str, str] = field(default_factory=dict)
    stdin: bytes | None = None
    secrets: Mapping[str, str] = field(default_factory=dict)
    timeout: timedelta | None = None
    output_cap_bytes: int = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a process ended. ``code`` is 128+n after signal n, None where nobody could know."""

    code: int | None
    reason: ExitReason
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessState:
    """What the directory says of a process.

    ``stdout_bytes`` and ``stderr_bytes`` are how much was ever written (dropped parts included).
    """

    id: ProcessId
    started_at: datetime
    stdout_bytes: int
    stderr_bytes: int
    exit: Exit | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A piece of output: ``data`` began at ``offset``; the next one begins at ``next_offset``.

    ``dropped_bytes`` lie between ``offset`` of the request and ``offset`` here: the middle that
    the cap dropped. ``data`` may be empty only at the end of what there is.
    """

    channel: Channel
    offset: int
    data: bytes
    dropped_bytes: int = 0

    @property
    def next_offset(self) -> int:
        """Where to read on."""
        return self.offset + len(self.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A short command that was run to its end. Outputs are whole up to the cap."""

    exit: Exit
    stdout: bytes
    stderr: bytes


class Processes(Protocol):
    """Starts, follows and ends durable processes in RUNNING containers, over any engine."""

    async def start(self, project: ProjectId, spec: ProcessSpec) -> ProcessState:
        """Start *spec* and return once it has been started.

        The same id again, from any caller, also after a restart of the server, starts nothing and
        returns the process as it stands. A ``cwd`` that is not there ends it with 127 or 126
        and words on stderr, like a program that is not there. ConflictError ``not_running`` when the
        container does not run.
        """
        ...

    async def state(self, project: ProjectId, process: ProcessId) -> ProcessState | None:
        """Return how it stands, or None if it was never started here. Needs no container."""
        ...

    async def list(self, project: ProjectId) -> Sequence[ProcessState]:
        """Return every process that has a directory. Needs no container."""
        ...

    async def read(
        self, project: ProjectId, process: ProcessId, channel: Channel, offset: int, limit: int
    ) -> Chunk:
        """Return up to *limit* bytes from *offset* on, at once. Needs no container.

        NotFoundError (code ``process_unknown``) for an unknown process; an offset past the end is
        InvalidInputError (code ``offset_past_end``).
        """
        ...

    def follow(
        self,
        project: ProjectId,
        process: ProcessId,
        offsets: Mapping[Channel, int] | None = None,
    ) -> AsyncIterator[Chunk]:
        """Yield pieces of both channels as they come, from *offsets* on, and end after its exit.

        Every byte is yielded once (save what the cap dropped). Pieces of one channel come in order. A slow
        reader slows nobody else and never the process. Needs no container.
        """
        ...

    async def wait(self, project: ProjectId, process: ProcessId) -> Exit:
        """Return its exit once it is over and all it wrote can be read."""
        ...

    async def run(
        self,
        project: ProjectId,
        argv: Sequence[str],
        *,
        cwd: PurePosixPath = WORKSPACE,
        env: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        timeout: timedelta = timedelta(seconds=60),
    ) -> Completed:
        """Run a short command to its end, through the launcher, and forget its directory."""
        ...

    async def kill(
        self,
        project: ProjectId,
        process: ProcessId,
        *,
        reason: ExitReason = ExitReason.KILLED_BY_USER,
        grace: timedelta = timedelta(seconds=10),
    ) -> Exit:
        """End the whole tree: everything marked ``ANYON_PROCESS=<id>``: TERM, grace, KILL, twice.

        What it wrote stays. A process that is over keeps its first exit.
        """
        ...

    def prepare(self, project: ProjectId) -> None:
        """Make ready, in the background, for a start in a container that runs since a moment ago.

        Nothing is promised by it: what fails is told by the start itself.
        """
        ...

    async def adopt(self, project: ProjectId) -> Sequence[ProcessState]:
        """Take over what there is after a restart of the server, and return how each stands.

        What runs goes on and can be followed; what ended meanwhile has its true exit; what can
        neither be running nor has an exit (its container was stopped or lost) is given one:
        CONTAINER_STOPPED or MACHINE_LOST when that is known, else INTERRUPTED.
        """
        ...

    async def container_stopped(self, project: ProjectId, reason: ExitReason) -> None:
        """Give every process without an exit one with *reason*; for after a stop of its container."""
        ...

    async def forget(self, project: ProjectId, process: ProcessId) -> None:
        """Remove the directory of a process that is over; unknown is success.

        ConflictError (code ``process_running``) while it runs.
        """
        ...

    async def close(self) -> None:
        """Let go of the launchers; processes go on."""
        ...
