"""One first checkpoint in a process of its own: its seconds, and by how much the process grew."""

import asyncio
import json
import resource
import sys
import time
from pathlib import Path

from anyon.clock import SystemClock
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.files import FilesStore
from anyon.wiring.allocators import limit_arenas

PROJECT = "user/project"


def resident_bytes() -> int:
    """Return what the process has in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


async def main(tree: Path, store: Path, cache: Path) -> None:
    """Save *tree* and print what it took."""
    limit_arenas()  # as the server does
    made = Checkpoints(FilesStore(store), cache=cache, clock=SystemClock())
    before = resident_bytes()
    began = time.perf_counter()
    await made.save(PROJECT, {"workspace": tree})
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    print(json.dumps({"seconds": seconds, "growth_bytes": peak - before}))
    await made.close()


if __name__ == "__main__":
    asyncio.run(main(*map(Path, sys.argv[1:4])))
