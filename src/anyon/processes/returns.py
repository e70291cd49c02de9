"""The directory of a process that ran on another machine, made anew from what was kept of it."""

import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from anyon.domain.states import ExitReason
from anyon.engines.engine import Channel
from anyon.processes.directories import ProcessDirectory, RunDirectory
from anyon.processes.exits import ExitRecord


def put_back(
    run: Path,
    name: str,
    *,
    pieces: Mapping[Channel, Sequence[tuple[int, bytes]]],
    sizes: Mapping[Channel, int],
    code: int | None,
    reason: ExitReason | None,
    started_at: datetime,
    ended_at: datetime,
) -> None:
    """Make ``run/<name>``: a process that is over; what lies between *pieces* was dropped; blocks.

    One that is there already is left as it is.
    """
    with RunDirectory(run).create(name) as directory:
        if directory.has("pid"):
            return
        for channel in Channel:
            found = sorted(pieces.get(channel, ()))
            _write(directory, channel, found, sizes.get(channel, 0))
        directory.write("exit", ExitRecord(code, reason).to_bytes())
        _date(directory, "exit", ended_at)
        # The last: with it the process was started, as far as any reader sees.
        directory.write("pid", b"\n")
        _date(directory, "pid", started_at)


def dropped(pieces: Sequence[tuple[int, bytes]], size: int) -> tuple[int, int] | None:
    """Return the range of *size* bytes that sorted *pieces* do not hold, from the first gap to the last."""
    start: int | None = None
    end = reached = 0
    for offset, data in [*pieces, (size, b"")]:
        if offset > reached:
            start, end = reached if start is None else start, offset
        reached = max(reached, offset + len(data))
    return None if start is None else (start, end)


def _write(
    directory: ProcessDirectory, channel: Channel, pieces: Sequence[tuple[int, bytes]], size: int
) -> None:
    how = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(str(channel), how, 0o666, dir_fd=directory.descriptor)
    try:
        longest = max([size, *(offset + len(data) for offset, data in pieces)])
        os.ftruncate(file, longest)
        for offset, data in pieces:
            view, at = memoryview(data), offset
            while view:
                written = os.pwrite(file, view, at)
                view, at = view[written:], at + written
    finally:
        os.close(file)
    gap = dropped(pieces, longest)
    if gap is not None:
        directory.write(f"dropped.{channel}", json.dumps(list(gap)).encode())


def _date(directory: ProcessDirectory, name: str, at: datetime) -> None:
    seconds = at.timestamp()
    os.utime(name, (seconds, seconds), dir_fd=directory.descriptor, follow_symlinks=False)
