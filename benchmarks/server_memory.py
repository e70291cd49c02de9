"""Server memory at rest: resident bytes of a fresh server with one project, against 120 MB.

Resident memory of the server's one process, two seconds after its first project was made.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from anyon.testing.servers import serving
from benchmarks.report import Row

SERVICES = ("docker", "images")
LIMIT_BYTES = 120 * 10**6


def run() -> Sequence[Row]:
    """Measure both engines."""
    rows = []
    for engine in ("bubblewrap", "docker"):
        with (
            tempfile.TemporaryDirectory(prefix="anyon-bench-") as directory,
            serving(Path(directory) / "home", engine) as running,
        ):
            running.call("POST", "/api/projects", {"name": "memory"})
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
