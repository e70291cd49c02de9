"""Running mounters' programs: with a deadline, their words kept, no pipe that a daemon could hold open."""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from anyon.domain.errors import ConflictError, DeadlineExceededError, MissingError, UnavailableError
from anyon.storage.mounts import tables

_FUSE = Path("/dev/fuse")
_LAST_BYTES = 2000
_UNMOUNT_DEADLINE = timedelta(seconds=60)


def check_fuse(device: Path = _FUSE) -> None:
    """Raise MissingError ``fuse_missing`` where the kernel or the unmounting program is not there."""
    if not device.exists():
        raise MissingError(
            "this machine has no /dev/fuse",
            code="fuse_missing",
            hint="modprobe fuse; in a container give it the device and the capability to mount",
        )
    unmounter()


def found(name: str, *, code: str, hint: str) -> str:
    """Return the path of a program, or raise MissingError."""
    path = shutil.which(name)
    if path is None:
        raise MissingError(f"the program {name} is not installed", code=code, hint=hint)
    return path


def unmounter() -> str:
    """Return the program that unmounts, or raise MissingError ``fuse_missing``."""
    return found(
        "fusermount3",
        code="fuse_missing",
        hint="install the package fuse3 (Debian, Ubuntu: apt-get install fuse3)",
    )


async def run(
    argv: Sequence[str],
    *,
    log: Path,
    own_log: Path,
    deadline: timedelta,
    env: Mapping[str, str] | None = None,
) -> None:
    """Run a program that ends, or goes into the background, within *deadline*.

    What it says goes to *log*, what it logs by itself to *own_log*.
    UnavailableError ``mount_failed`` with its last words; DeadlineExceededError ``mount_deadline``,
    its whole process group killed.
    """
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with log.open("wb") as words:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=words,
            stderr=words,
            start_new_session=True,
            env=None if env is None else {**os.environ, **env},
        )
        try:
            async with asyncio.timeout(deadline.total_seconds()):
                code = await process.wait()
        except TimeoutError:
            raise DeadlineExceededError(
                f"{Path(argv[0]).name} did not mount within {deadline}: {last_words(log, own_log)}",
                code="mount_deadline",
                hint="Is the bucket reachable from this machine?",
            ) from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
    if code != 0:
        raise UnavailableError(
            f"{Path(argv[0]).name} did not mount: {last_words(log, own_log)}",
            code="mount_failed",
            hint="Check the bucket's name and the credentials; the same call may succeed later.",
        )


def last_words(*logs: Path) -> str:
    """Return the end of what a program has said, as one line."""
    texts = [log.read_bytes()[-_LAST_BYTES:] for log in logs if log.exists()]
    return " ".join(b" ".join(texts).decode("utf-8", "replace").split()) or "it said nothing"


def refuse_full(place: Path) -> None:
    """Make the mountpoint; ConflictError ``mountpoint_not_empty`` where a mount would hide files."""
    place.mkdir(parents=True, exist_ok=True, mode=0o755)
    names = sorted(path.name for path in place.iterdir())
    if names:
        raise ConflictError(
            f"{place} holds {len(names)} entries that a mount would hide, such as {names[0]!r}",
            code="mountpoint_not_empty",
            hint="Move them away; nothing was mounted.",
        )


async def unmount(place: Path, *, is_forced: bool) -> None:
    """Unmount *place*; ABSENT is success; ConflictError ``mount_busy``."""
    while tables.mounted(place) is not None:
        argv = [unmounter(), "-uz" if is_forced else "-u", str(place)]
        process = await asyncio.create_subprocess_exec(
            *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        try:
            async with asyncio.timeout(_UNMOUNT_DEADLINE.total_seconds()):
                said, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            said = b"it did not answer"
        if process.returncode != 0:
            raise ConflictError(
                f"{place} cannot be unmounted: {said.decode('utf-8', 'replace').strip()}",
                code="mount_busy",
                hint="End what has files of it open and repeat, or `anyon mount down --force`.",
            )
