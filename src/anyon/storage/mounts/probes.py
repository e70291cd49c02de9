"""Looking at a mount without ever being caught by it: the question is put by a process that may hang."""

import asyncio
import errno
import os
import sys
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

from anyon.domain.mounts import MountState
from anyon.storage.mounts import tables
from anyon.storage.mounts.mounter import MountInfo

_QUESTION = """\
import os, sys
try:
    os.stat(sys.argv[1])
except OSError as error:
    print(error.errno)
else:
    print(0)
"""
_GONE = frozenset({errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV})


async def look(place: Path, *, deadline: timedelta) -> MountInfo:
    """Return what is mounted at *place*, and whether it answers within *deadline*.

    A name that nobody has used is asked for, so that no cache but the bucket can answer. The
    process that asks is left to itself when it does not: in the kernel it may not be killable.
    """
    entry = tables.mounted(place)
    if entry is None:
        return MountInfo(state=MountState.ABSENT)
    code = await _asked(place / f".anyon-look-{uuid4()}", deadline)
    if code is None:
        detail = f"no answer in {deadline.total_seconds():g} s"
        return MountInfo(state=MountState.SILENT, device=entry.device, detail=detail)
    if code in _GONE:
        return MountInfo(state=MountState.DEAD, device=entry.device, detail=os.strerror(code))
    if code in {0, errno.ENOENT}:
        return MountInfo(state=MountState.ALIVE, device=entry.device)
    # Its program lives and says that the bucket does not answer: as good as no answer.
    return MountInfo(state=MountState.SILENT, device=entry.device, detail=os.strerror(code))


async def _asked(path: Path, deadline: timedelta) -> int | None:
    """Return the error number of a stat of *path*, 0 for none; None without an answer in time."""
    asking = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", "-c", _QUESTION, str(path)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(deadline.total_seconds()):
            said, _ = await asking.communicate()
    except TimeoutError:
        asking.kill()
        return None
    return int(said) if said.strip().isdigit() else None
