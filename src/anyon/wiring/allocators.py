"""Memory of a server that lives for long: what its allocator and its garbage collector are told (docs/adr/0017)."""

import asyncio
import ctypes
import gc
from datetime import timedelta

from anyon.lifecycle.loops import Loop

_ARENA_MAX = -8  # M_ARENA_MAX of malloc.h
ARENAS = 2
EVERY = timedelta(minutes=1)


def limit_arenas(most: int = ARENAS) -> bool:
    """Let all threads share *most* arenas from now on; False where the C library knows no such thing.

    Call it before there are threads: an arena that is there already stays.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not in musl
    return mallopt is not None and mallopt(_ARENA_MAX, most) == 1


def collect_and_spare() -> None:
    """Collect garbage, and spare what is left (modules, models, routes) all later collections.

    Call it once, when the server is about to serve.
    """
    gc.collect()
    gc.freeze()
    gc.collect()  # what is "old" is counted anew: else the next one waits for a quarter of all that


def give_back() -> None:
    """Give the pages that are free in the middle of the arenas back to the kernel; a few milliseconds."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # not in musl
    if trim is not None:
        trim(0)


def loop() -> Loop:
    """Return the loop that gives memory back: after a large save it would be kept for the next one."""

    async def tick() -> None:
        await asyncio.to_thread(give_back)

    return Loop(name="allocator", interval=EVERY, tick=tick)
