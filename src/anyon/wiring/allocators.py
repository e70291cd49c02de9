"""Memory of a server that lives for long: what its allocator and its garbage collector are told (docs/adr/0017)."""

import ctypes
import gc

_ARENA_MAX = -8  # M_ARENA_MAX of malloc.h
ARENAS = 2


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
