"""What the C library's allocator makes and gives back for a server, and what Python's collector spares."""

import subprocess
import sys

import pytest

_COUNT = """
import ctypes, sys, tempfile, threading
from anyon.wiring import allocators
if sys.argv[1] == "limited":
    assert allocators.limit_arenas()
libc = ctypes.CDLL(None)
inside = threading.Barrier(12)
def work():
    inside.wait()  # all at once, so that none takes over another's arena
    kept = [bytes(2000) for _ in range(100)]
    inside.wait()
threads = [threading.Thread(target=work) for _ in range(12)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.fopen.restype = ctypes.c_void_p
libc.fclose.argtypes = [ctypes.c_void_p]
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
with tempfile.NamedTemporaryFile() as told:
    stream = libc.fopen(told.name.encode(), b"w")
    libc.malloc_info(0, stream)
    libc.fclose(stream)
    print(told.read().count(b"<heap nr="))
"""

_SPARED = """
import gc
from anyon.wiring import allocators
allocators.collect_and_spare()
assert gc.get_freeze_count() > 1000
assert len(gc.get_objects()) < 1000
class Ring: pass
for _ in range(10): one = Ring(); one.itself = one
del one
assert gc.collect() >= 10
"""

_GIVEN_BACK = """
from anyon.wiring import allocators

def resident():
    line = next(it for it in open("/proc/self/status") if it.startswith("VmRSS"))
    return int(line.split()[1])

pieces = [b"x" * 60_000 for _ in range(1000)]
last = pieces[-1]
del pieces
above = resident()
allocators.give_back()
print(above - resident())
"""


def _arenas(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _COUNT, how], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator is glibc's")
def test_many_threads_share_two_arenas() -> None:
    """Twelve threads that allocate at once make no more than two arenas; left alone they make more."""
    assert _arenas("limited") <= 2
    assert _arenas("alone") > 2


def test_what_is_there_at_the_start_is_collected_no_more() -> None:
    """Modules and their like are left out of later collections; what becomes garbage after is collected."""
    subprocess.run([sys.executable, "-c", _SPARED], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator is glibc's")
def test_free_memory_below_what_is_in_use_is_given_back() -> None:
    """Of 60 MB that were freed below one block that is kept, most is the kernel's again."""
    done = subprocess.run(
        [sys.executable, "-c", _GIVEN_BACK], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) > 30_000
