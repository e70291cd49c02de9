"""The memory engine's sandboxes do not outlive the process that has it."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from anyon.engines.sandbox_processes import identify
from anyon.testing.engine_trials import until

SERVER = """
import asyncio, os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from anyon.engines.memory import MemoryEngine
from anyon.testing.engine_contract import spec_maker
from anyon.testing.engine_trials import sh

async def main():
    engine = MemoryEngine()
    spec = spec_maker(Path(sys.argv[2]))()
    await engine.ensure(spec)
    await engine.start(spec.project)
    await sh(engine, spec.project, "sleep 600 >/dev/null 2>&1 &")
    print((await engine.inspect(spec.project)).pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_a_killed_process_leaves_no_sandbox(tmp_path):
    """Its lifeline ends, and with it the sandbox and all that runs in it."""
    source = str(Path(__file__).parents[2] / "src")
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", SERVER, source, str(tmp_path)],
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    first = int(done.stdout)
    assert first != os.getpid()

    async def gone():
        return identify(first) is None

    await until(gone)
