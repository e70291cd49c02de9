"""Trials of real mounters, each over an emulator of its own that may be stopped."""

import os
import signal
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anyon.storage.mounts.mounter import Mounter, MountSpec
from anyon.storage.mounts.profiles import PROFILES
from anyon.testing.gcs_emulator import make_bucket, running
from anyon.testing.mounter_contract import MounterTrial, bucket_path

BUCKET = "anyon-projects"


@contextmanager
def mount_trial(
    mounter: Mounter, directory: Path, *, prefix: str = "", profile: str = "plan"
) -> Iterator[MounterTrial]:
    """Give a trial below *directory*; what is mounted and what runs is gone after it."""
    with running() as emulator:
        make_bucket(emulator.url, BUCKET)
        spec = MountSpec(
            bucket=BUCKET,
            prefix=prefix,
            place=directory / "mount",
            work=directory / "work",
            profile=PROFILES[profile],
            uid=os.getuid(),
            gid=os.getgid(),
            endpoint=emulator.url,
        )
        try:
            yield MounterTrial(
                mounter=mounter,
                spec=spec,
                stored=lambda name: stored(emulator.url, BUCKET, bucket_path(spec, name)),
                crash=lambda: kill_server(spec.place),
                silence=lambda: emulator.send(signal.SIGSTOP),
                speak=lambda: emulator.send(signal.SIGCONT),
            )
        finally:
            emulator.send(signal.SIGCONT)
            tidy(spec.place)


def stored(url: str, bucket: str, name: str) -> bytes | None:
    """Return an object's content, or None if the bucket has none of that name."""
    quoted = urllib.parse.quote(name, safe="")
    address = f"{url}/storage/v1/b/{bucket}/o/{quoted}?alt=media"
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:  # noqa: S310 - a loopback URL of ours
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


def servers_of(place: Path) -> list[int]:
    """Return the processes that serve the mount at *place*: those that were told its path."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        program = words[0].rsplit(b"/", 1)[-1]
        if program in {b"gcsfuse", b"rclone"} and os.fsencode(place) in words:
            found.append(int(path.parent.name))
    return found


def kill_server(place: Path) -> None:
    """Kill the program that serves the mount at *place*, and wait until it is gone."""
    pids = servers_of(place)
    assert pids, f"nobody serves {place}"
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for _ in range(600):
        if not servers_of(place):
            return
        subprocess.run(["sleep", "0.05"], check=True)
    raise AssertionError(f"the server of {place} does not die")


def tidy(place: Path) -> None:
    """Unmount *place* whatever its state, and end its program."""
    subprocess.run(["umount", "-l", str(place)], check=False, capture_output=True)
    for pid in servers_of(place):
        os.kill(pid, signal.SIGKILL)
