"""Two servers, one project: the one that was stopped beyond its lease confirms nothing more."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

from anyon.clock import SystemClock
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.files import FilesStore
from anyon.storage.owners import Claim, OwnedElsewhereError

PROJECT = "user/project"
LEASE = timedelta(seconds=1)
ROUNDS = 4
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


async def taken(made: Checkpoints) -> Claim:
    """Claim the project as soon as the former owner's lease is over."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return await made.claim(PROJECT, length=LEASE)
        except OwnedElsewhereError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)


async def test_a_server_that_was_stopped_beyond_its_lease(tmp_path: Path) -> None:
    """SIGSTOP, takeover, SIGCONT: the former owner sees it has lost, and changes nothing."""
    last_epoch = 0
    for turn in range(ROUNDS):
        name = f"former-{turn}"
        server = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(tmp_path), name],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdout is not None
        for _ in range(2 + turn):
            assert (await asyncio.to_thread(server.stdout.readline)).startswith("saved")
        await asyncio.sleep(0.03 * turn)
        os.kill(server.pid, signal.SIGSTOP)
        made = Checkpoints(
            FilesStore(tmp_path / "store"),
            cache=tmp_path / f"new-{turn}",
            clock=SystemClock(),
            server=f"new-{turn}",
        )
        held = await taken(made)
        assert held.epoch > last_epoch
        last_epoch = held.epoch
        tree = tmp_path / f"tree-new-{turn}"
        tree.mkdir()
        (tree / "by").write_text(f"new {turn}")
        mine = await made.save(PROJECT, {"workspace": tree}, epoch=held.epoch)
        os.kill(server.pid, signal.SIGCONT)
        out, _ = await asyncio.to_thread(server.communicate)
        assert out.splitlines()[-1].split()[0] == "lost"
        assert await made.latest(PROJECT) == mine.checkpoint
        assert (await made.verify(PROJECT, read_data=True)).is_whole
        await made.release(PROJECT, held)
        await made.close()
