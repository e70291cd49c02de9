"""How the bubblewrap engine's containers stand: their records held against the kernel's word."""

import subprocess
from collections.abc import Callable
from typing import Any, TypeVar

from anyon.domain.errors import EngineFailedError
from anyon.engines import sandbox_processes
from anyon.engines.bubblewrap_records import Record
from anyon.engines.engine import ContainerInfo, ContainerState
from anyon.engines.sandbox_ends import KILLED

T = TypeVar("T")


def alive(record: Record) -> bool:
    """Say whether the container's first process runs."""
    return record.first is not None and sandbox_processes.lives(record.first)


def wake(record: Record) -> None:
    """Let a frozen container run again, however it was frozen."""
    if record.group is not None:
        translated(record.group.thaw)
    if record.suspended and record.first is not None:
        sandbox_processes.resume(record.first)


def state_of(record: Record) -> ContainerState:
    """Return the state as the kernel has it now."""
    if not alive(record):
        return ContainerState.STOPPED
    if record.suspended or (record.group is not None and record.group.frozen):
        return ContainerState.FROZEN
    return ContainerState.RUNNING


def describe(record: Record) -> ContainerInfo:
    """Return what is known of a container."""
    state = state_of(record)
    stopped = state is ContainerState.STOPPED
    code = record.exit_code
    if stopped and record.first is not None:
        code = KILLED  # it went without being asked to
    return ContainerInfo(
        project=record.spec.project,
        id=record.id,
        name=f"project-{record.spec.project}",
        state=state,
        pid=None if stopped or record.first is None else record.first.pid,
        started_at=record.started_at,
        exit_code=code if stopped else None,
        labels={**record.spec.labels, "anyon.project": record.spec.project},
    )


def translated(call: Callable[..., T], *arguments: Any) -> T:
    """Make the system's refusals this engine's."""
    try:
        return call(*arguments)
    except (OSError, subprocess.SubprocessError) as error:
        raise EngineFailedError(f"the system refused: {error}") from error
