"""Programs in a container, seen from this machine."""

import contextlib
import os
import signal
from pathlib import Path


def kill(pid: int, container_id: str, *, proc: Path = Path("/proc")) -> str | None:
    """Kill the program that the host knows as *pid*, with its session's other processes.

    Nothing is done unless it is one of the container's: a pid may have been used again, or be of
    another machine. Returns the pid that it has inside when this user may not kill it, else None.
    """
    try:
        memberships = (proc / str(pid) / "cgroup").read_text(encoding="utf-8")
        status = (proc / str(pid) / "status").read_text(encoding="utf-8")
    except OSError:
        return None  # over, or not here: its connection is closed, which is all that can be done
    if container_id not in memberships:
        return None
    try:
        _kill(pid)
    except PermissionError:
        return inner_pid(status)
    return None


def _kill(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)  # what an engine starts leads its session, once it has begun
    except ProcessLookupError:
        with contextlib.suppress(ProcessLookupError):  # it ended by itself
            os.kill(pid, signal.SIGKILL)


def inner_pid(status: str) -> str | None:
    """Return the innermost pid that ``/proc/<pid>/status`` tells."""
    for line in status.splitlines():
        if line.startswith("NSpid:"):
            return line.split()[-1]
    return None
