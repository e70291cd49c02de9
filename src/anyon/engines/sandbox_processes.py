"""The processes of a sandbox as the host's /proc shows them: who they are, how to signal them.

A process is known by its pid together with the time it was started and the boot it belongs to:
a pid alone is used again sooner or later.
"""

import contextlib
import functools
import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Identity:
    """A process that cannot be mistaken for a later one with the same pid."""

    pid: int
    started_ticks: int
    boot: str


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """What ``/proc/<pid>/stat`` says. ``cpu_seconds`` is the process's own, without children."""

    pid: int
    state: str
    parent: int
    cpu_seconds: float
    started_ticks: int
    memory_bytes: int


def parse_stat(text: str) -> ProcessStat:
    """Read a line of ``/proc/<pid>/stat``; the name in it may hold anything, brackets too."""
    head, _, rest = text.rpartition(")")
    fields = rest.split()
    return ProcessStat(
        pid=int(head.split("(", 1)[0]),
        state=fields[0],
        parent=int(fields[1]),
        cpu_seconds=(int(fields[11]) + int(fields[12])) / _TICKS,
        started_ticks=int(fields[19]),
        memory_bytes=int(fields[21]) * _PAGE,
    )


def stat(pid: int) -> ProcessStat | None:
    """Return how a process stands, or None when there is none."""
    try:
        text = (PROC / str(pid) / "stat").read_bytes().decode("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return parse_stat(text)


@functools.cache
def boot_id() -> str:
    """Return what names this boot of the machine."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def identify(pid: int) -> Identity | None:
    """Return a running process's identity, or None when it is over."""
    found = stat(pid)
    if found is None or found.state in "ZX":
        return None
    return Identity(pid, found.started_ticks, boot_id())


def lives(identity: Identity) -> bool:
    """Say whether exactly this process still runs."""
    return identify(identity.pid) == identity


def table() -> Mapping[int, ProcessStat]:
    """Return every process of the host."""
    found = {}
    for entry in os.scandir(PROC):
        if entry.name.isdigit() and (item := stat(int(entry.name))) is not None:
            found[item.pid] = item
    return found


def _namespace(pid: int) -> str | None:
    try:
        return str((PROC / str(pid) / "ns" / "pid").readlink())
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None  # gone, or another user's: not one of ours


def _inner_pid(pid: int) -> int | None:
    """Return the pid that a process has in its innermost namespace."""
    try:
        for line in (PROC / str(pid) / "status").read_text(errors="replace").splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    except (FileNotFoundError, ProcessLookupError):
        pass
    return None


def members(first: Identity) -> Sequence[ProcessStat]:
    """Return what runs in the pid namespace of its *first* process, deeper namespaces included.

    The first process is left out, zombies too. Nothing is returned once the first is over: its pid
    may be another's by then, and the namespace the host's own.
    """
    return [item for item in _everyone(first) if item.state not in "ZX"]


def _everyone(first: Identity) -> Sequence[ProcessStat]:
    namespace = _namespace(first.pid)
    if namespace is None or namespace == _namespace(os.getpid()) or not lives(first):
        return []
    everything = table()
    inside = {pid for pid in everything if _namespace(pid) == namespace}
    grew = True
    while grew:
        more = {item.pid for item in everything.values() if item.parent in inside} - inside
        grew = bool(more)
        inside |= more
    inside.discard(first.pid)
    return [everything[pid] for pid in sorted(inside)]


def programs(first: Identity) -> Sequence[ProcessStat]:
    """Return the members without the keeper: pid 2 inside, which only holds the sandbox open."""
    return [
        item
        for item in members(first)
        if not (item.parent == first.pid and _inner_pid(item.pid) == 2)
    ]


def send(number: signal.Signals, pids: Iterable[int]) -> None:
    """Send a signal to each process that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def suspend(first: Identity, *, rounds: int = 100) -> bool:
    """Stop every program by signal, until none of them runs; False if new ones came too fast."""
    for _ in range(rounds):
        running = [item.pid for item in programs(first) if item.state not in "Tt"]
        if not running:
            return True
        send(signal.SIGSTOP, running)
    return False


def resume(first: Identity) -> None:
    """Undo ``suspend``, also for parents outside: who entered stops along with its program.

    Also where that program is dead already: its end must be taken up for the sandbox to end.
    """
    found = _everyone(first)
    if not lives(first):
        return
    inside = {item.pid for item in found} | {first.pid}
    outside = {item.parent for item in found} - inside - {0, 1}
    send(signal.SIGCONT, [*outside, *inside])
