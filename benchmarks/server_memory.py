"""Server memory at rest: resident bytes of a fresh server with one project, against 120 MB."""

import asyncio
import time
from collections.abc import Sequence

from anyon.sdk.clients import Client
from anyon.sdk.requests import CreateProject
from benchmarks._servers import RunningServer, server
from benchmarks.report import Row

LIMIT_BYTES = 120 * 10**6


async def _one_project(running: RunningServer) -> None:
    async with Client(running.address) as client:
        await client.projects.create(CreateProject(name="memory"))


def run() -> Sequence[Row]:
    """Measure both engines."""
    rows = []
    for engine in ("bubblewrap", "docker"):
        with server(engine) as running:
            asyncio.run(_one_project(running))
            time.sleep(2)
            rows.append(
                Row(
                    what=f"resident memory, {engine}",
                    value=running.resident_bytes() / 1e6,
                    unit="MB",
                    reference="limit",
                    reference_value=LIMIT_BYTES / 1e6,
                    target_ratio=1.0,
                )
            )
    return rows
