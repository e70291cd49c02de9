"""The order in which every mounter's program mounts: what lives stays, what is dead goes, a failure leaves nothing."""

from collections.abc import Awaitable, Callable

from anyon.domain.mounts import MountState
from anyon.storage.mounts import programs
from anyon.storage.mounts.mounter import Mounter, MountInfo, MountSpec


async def mounted(
    mounter: Mounter, spec: MountSpec, start: Callable[[], Awaitable[None]]
) -> MountInfo:
    """Mount in the order that every driver keeps; *start* is its own part.

    A mount that lives, or may, stays as it is; what is left of a dead one goes first; a start
    that fails leaves nothing mounted.
    """
    mounter.check()
    info = await mounter.look(spec)
    if info.state in {MountState.ALIVE, MountState.SILENT}:
        return info
    await mounter.unmount(spec, is_forced=True)
    programs.refuse_full(spec.place)
    try:
        await start()
    except BaseException:
        await mounter.unmount(spec, is_forced=True)
        raise
    return await mounter.look(spec)
