"""What every mounter must do. A driver's test is a class with a ``trial`` fixture.

A trial gives the mounter, what to mount, the bucket as its own service sees it, and ways to harm it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from anyon.domain.errors import AnyonError, ConflictError
from anyon.domain.mounts import MountState
from anyon.storage.mounts import tables
from anyon.storage.mounts.mounter import Mounter, MountSpec

PATIENCE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True, kw_only=True)
class MounterTrial:
    """A mounter over a bucket of its own.

    ``stored`` returns an object's content as the bucket's service has it, None if it has none.
    ``crash`` kills the mount's program; ``silence`` stops the bucket's service from answering,
    ``speak`` undoes it. ``is_real`` says that the kernel knows of its mounts.
    """

    mounter: Mounter
    spec: MountSpec
    stored: Callable[[str], bytes | None]
    crash: Callable[[], None]
    silence: Callable[[], None]
    speak: Callable[[], None]
    is_real: bool = True

    async def settled(self, name: str) -> bytes | None:
        """Return what the bucket has under *name* once all is written."""
        await self.mounter.settle(self.spec, deadline=PATIENCE)
        return self.stored(name)


class MounterContract:
    """The promises of ``Mounter``."""

    async def test_what_is_written_is_in_the_bucket(self, trial: MounterTrial) -> None:
        """A file written through the mount is an object of the same content once it has settled."""
        found = await trial.mounter.mount(trial.spec)
        assert found.state is MountState.ALIVE
        assert found.device is not None
        (trial.spec.place / "test.txt").write_bytes(b"hello")
        folder = trial.spec.place / "사용자" / "a b'c"
        folder.mkdir(parents=True)
        (folder / "읽어 봐.txt").write_bytes(b"\0\xff" * 1000)
        assert await trial.settled("test.txt") == b"hello"
        assert await trial.settled("사용자/a b'c/읽어 봐.txt") == b"\0\xff" * 1000

    async def test_a_repeat_is_one_mount(self, trial: MounterTrial) -> None:
        """Mounting what is mounted changes nothing."""
        first = await trial.mounter.mount(trial.spec)
        second = await trial.mounter.mount(trial.spec)
        assert first.device == second.device
        await trial.mounter.unmount(trial.spec)
        assert (await trial.mounter.look(trial.spec)).state is MountState.ABSENT

    async def test_unmounting_keeps_all_and_repeats(self, trial: MounterTrial) -> None:
        """After an unmount nothing is shown, nothing is lost, and a repeat is success."""
        await trial.mounter.mount(trial.spec)
        (trial.spec.place / "kept").write_bytes(b"1")
        await trial.mounter.unmount(trial.spec)
        await trial.mounter.unmount(trial.spec)
        assert not list(trial.spec.place.iterdir())
        assert trial.stored("kept") == b"1"
        await trial.mounter.mount(trial.spec)
        assert (trial.spec.place / "kept").read_bytes() == b"1"

    async def test_a_crash_is_seen_and_mended(self, trial: MounterTrial) -> None:
        """A mount whose program died is DEAD, and the next ``mount`` has another life."""
        first = await trial.mounter.mount(trial.spec)
        (trial.spec.place / "before").write_bytes(b"1")
        await trial.settled("before")
        trial.crash()
        assert (await trial.mounter.look(trial.spec)).state in {MountState.DEAD, MountState.ABSENT}
        second = await trial.mounter.mount(trial.spec)
        assert second.state is MountState.ALIVE
        assert (trial.spec.place / "before").read_bytes() == b"1"
        if trial.is_real:
            entry = tables.mounted(trial.spec.place)
            assert entry is not None
            assert entry.device == second.device
        assert first.device is not None

    async def test_silence_is_told_from_death(self, trial: MounterTrial) -> None:
        """While the bucket does not answer the mount is SILENT, in bounded time; then it is ALIVE, the same."""
        first = await trial.mounter.mount(trial.spec)
        trial.silence()
        try:
            found = await trial.mounter.look(trial.spec)
            assert found.state is MountState.SILENT
            assert found.detail
            assert (await trial.mounter.mount(trial.spec)).device == first.device
        finally:
            trial.speak()
        for _ in range(12):
            again = await trial.mounter.look(trial.spec)
            if again.state is MountState.ALIVE:
                break
        assert again.state is MountState.ALIVE
        assert again.device == first.device

    async def test_a_full_mountpoint_is_refused(self, trial: MounterTrial) -> None:
        """No file is hidden by a mount: ConflictError, and nothing is mounted."""
        trial.spec.place.mkdir(parents=True, exist_ok=True)
        (trial.spec.place / "mine").write_text("1")
        with pytest.raises(ConflictError) as refused:
            await trial.mounter.mount(trial.spec)
        assert refused.value.code == "mountpoint_not_empty"
        assert (trial.spec.place / "mine").read_text() == "1"
        assert (await trial.mounter.look(trial.spec)).state is MountState.ABSENT
        (trial.spec.place / "mine").unlink()

    async def test_a_bucket_that_is_not_there(self, trial: MounterTrial) -> None:
        """A mount that cannot be is an error, at the latest when it is first used; nothing stays."""
        nowhere = replace(trial.spec, bucket="no-such-bucket-here")
        try:
            with pytest.raises((AnyonError, OSError)):
                await _used(trial, nowhere)
        finally:
            await trial.mounter.unmount(nowhere, is_forced=True)
        assert not trial.spec.place.exists() or not list(trial.spec.place.iterdir())

    async def test_a_busy_mount_is_let_go_of_only_by_force(self, trial: MounterTrial) -> None:
        """With a file open ``unmount`` is ConflictError ``mount_busy`` and all stays; force lets go."""
        if not trial.is_real:
            return
        await trial.mounter.mount(trial.spec)
        with (trial.spec.place / "open").open("wb") as file:
            file.write(b"1")
            with pytest.raises(ConflictError) as refused:
                await trial.mounter.unmount(trial.spec)
            assert refused.value.code == "mount_busy"
            assert (await trial.mounter.look(trial.spec)).state is MountState.ALIVE
        await trial.mounter.unmount(trial.spec, is_forced=True)
        assert (await trial.mounter.look(trial.spec)).state is MountState.ABSENT


async def _used(trial: MounterTrial, spec: MountSpec) -> None:
    await trial.mounter.mount(spec)
    (spec.place / "x").write_bytes(b"1")


def bucket_path(spec: MountSpec, name: str) -> str:
    """Return an object's name for a file's path below the mount."""
    return f"{spec.prefix}/{name}" if spec.prefix else name
