"""Two servers, one project: the one that was stopped beyond its lease confirms nothing more."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from anyon.clock import SystemClock
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.files import FilesStore
from anyon.storage.objects import StoreUnavailableError
from anyon.storage.owners import OwnedElsewhereError
from anyon.storage.saves import Saved

PROJECT = "user/project"
LEASE = timedelta(minutes=5)  # the new owner's; the former one claims for a second
ROUNDS = int(os.environ.get("ANYON_SPLIT_BRAIN_ROUNDS", "4"))
"""How often a server is stopped and taken from; `./test split-brain` does a hundred."""
SERVER = """
import asyncio, sys
from datetime import timedelta
from pathlib import Path
from anyon.clock import SystemClock
from anyon.storage.archives import OwnershipLostError
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.files import FilesStore
from anyon.storage.owners import OwnedElsewhereError

async def main(base, name):
    made = Checkpoints(
        FilesStore(base / "store"), cache=base / name, clock=SystemClock(), server=name
    )
    tree = base / f"tree-{name}"
    tree.mkdir()
    held = await made.claim("user/project", length=timedelta(seconds=1))
    number = 0
    try:
        while True:
            number += 1
            (tree / "by").write_text(f"{name} {number}")
            # As a server would: a claim is kept by a loop, a save uses the epoch it has.
            if number % 5 == 0:
                held = await made.claim("user/project", length=timedelta(seconds=1))
            await made.save("user/project", {"workspace": tree}, epoch=held.epoch)
            print("saved", number, flush=True)
    except (OwnershipLostError, OwnedElsewhereError) as error:
        print("lost", error.code, flush=True)

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


async def taken_over(made: Checkpoints, server: subprocess.Popen[str], tree: Path) -> Saved:
    """Claim the project as soon as the former owner's lease is over, and save once.

    A process that was stopped while it held a lock of the directory blocks it: no other
    store has such locks. Then it is let go on for a moment.
    """
    deadline = time.monotonic() + 60
    while True:
        try:
            held = await made.claim(PROJECT, length=LEASE)
            return await made.save(PROJECT, {"workspace": tree}, epoch=held.epoch)
        except (OwnedElsewhereError, StoreUnavailableError) as error:
            if time.monotonic() > deadline:
                raise
            if isinstance(error, StoreUnavailableError):
                os.kill(server.pid, signal.SIGCONT)
                await asyncio.sleep(0.01)
                os.kill(server.pid, signal.SIGSTOP)
            await asyncio.sleep(0.05)


async def one_round(
    tmp_path: Path, server: subprocess.Popen[str], turn: int, last_epoch: int
) -> int:
    """Stop the server, take its project over, let it go on; return the new epoch."""
    assert server.stdout is not None
    for _ in range(2 + turn % 8):
        assert (await asyncio.to_thread(server.stdout.readline)).startswith("saved")
    await asyncio.sleep(0.03 * (turn % 20))
    os.kill(server.pid, signal.SIGSTOP)
    made = Checkpoints(
        FilesStore(tmp_path / "store", deadline=timedelta(seconds=1)),
        cache=tmp_path / f"new-{turn}",
        clock=SystemClock(),
        server=f"new-{turn}",
    )
    tree = tmp_path / f"tree-new-{turn}"
    tree.mkdir()
    (tree / "by").write_text(f"new {turn}")
    mine = await taken_over(made, server, tree)
    assert mine.checkpoint.epoch > last_epoch
    os.kill(server.pid, signal.SIGCONT)
    out, _ = await asyncio.to_thread(server.communicate, timeout=60)
    assert out.splitlines()[-1].split()[0] == "lost"
    assert await made.latest(PROJECT) == mine.checkpoint
    assert (await made.verify(PROJECT, read_data=True)).is_whole
    await made.release(PROJECT, await made.claim(PROJECT, length=LEASE))
    await made.close()
    return mine.checkpoint.epoch


@pytest.mark.timeout(120 + 30 * ROUNDS)
async def test_a_server_that_was_stopped_beyond_its_lease(tmp_path: Path) -> None:
    """SIGSTOP, takeover, SIGCONT: the former owner sees it has lost, and changes nothing."""
    last_epoch = 0
    began = time.monotonic()
    for turn in range(ROUNDS):
        name = f"former-{turn}"
        server = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(tmp_path), name],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            last_epoch = await one_round(tmp_path, server, turn, last_epoch)
        finally:
            server.kill()  # it may be stopped
            server.wait()
    print(
        f"{ROUNDS} rounds in {time.monotonic() - began:.0f} s: {ROUNDS} takeovers, "
        f"0 writes of a former owner confirmed after one, last epoch {last_epoch}"
    )
