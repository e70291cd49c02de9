"""Run by the peers' own Python: SWE-ReX's times, as JSON: ``create`` and ``exec`` in milliseconds.

Usage: ``_peer_swerex.py IMAGE ROUNDS``.
"""

import asyncio
import json
import logging
import sys
import time

from swerex.deployment.docker import DockerDeployment
from swerex.runtime.abstract import Command


async def main(image: str, rounds: int) -> None:
    """Start a deployment *rounds* times, and run a command in the last as often."""
    creates, execs = [], []
    for number in range(rounds):
        deployment = DockerDeployment(image=image, pull="never")
        began = time.perf_counter()
        await deployment.start()
        try:
            await deployment.runtime.execute(Command(command=["true"]))
            creates.append((time.perf_counter() - began) * 1000)
            if number == rounds - 1:
                for _ in range(rounds * 3):
                    began = time.perf_counter()
                    await deployment.runtime.execute(Command(command=["echo", "on"]))
                    execs.append((time.perf_counter() - began) * 1000)
        finally:
            await deployment.stop()
    print(json.dumps({"create": creates, "exec": execs}))


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
