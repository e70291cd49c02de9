"""Server at rest with 500 projects: CPU against 0.5 % of a core, resident memory against 150 MB.

What it costs to have many projects in which nothing happens: the reconciler looks at all of them every 15 s.
"""

import sqlite3
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from anyon.testing.servers import ServerProcess
from benchmarks.report import Row, rounds

PROJECTS = 500
SETTLE_SECONDS = 20
MEASURE_SECONDS = rounds(8) * 15
CPU_SHARE = 0.005
MEMORY_BYTES = 150 * 10**6


def _fill(database: Path) -> None:
    """Copy the one project that is there, as stopped ones, until there are 500 with their members."""
    with sqlite3.connect(database) as connection:
        connection.row_factory = sqlite3.Row
        (first,) = connection.execute("SELECT * FROM projects").fetchall()
        (member,) = connection.execute("SELECT * FROM members").fetchall()
        for number in range(PROJECTS - 1):
            fresh = {"id": str(uuid4()), "name": f"rest-{number}", "phase": "stopped"}
            _insert(connection, "projects", {**dict(first), **fresh})
            _insert(connection, "members", {**dict(member), "project_id": fresh["id"]})
    connection.close()


def _insert(connection: sqlite3.Connection, table: str, row: dict[str, object]) -> None:
    columns = ", ".join(f'"{name}"' for name in row)
    places = ", ".join("?" for _ in row)
    connection.execute(
        f"INSERT INTO {table} ({columns}) VALUES ({places})",
        tuple(row.values()),
    )


def run() -> Sequence[Row]:
    """Measure a server on the embedded engine over two minutes, after it has settled."""
    with tempfile.TemporaryDirectory(prefix="anyon-bench-") as directory:
        server = ServerProcess(Path(directory) / "home", "bubblewrap")
        server.start()
        try:
            server.call("POST", "/api/projects", {"name": "first"})
            (first,) = server.call("GET", "/api/projects")
            server.stop()
            _fill(server.home / "anyon.db")
            server.start()
            time.sleep(SETTLE_SECONDS)
            used, began = server.cpu_seconds(), time.monotonic()
            time.sleep(MEASURE_SECONDS)
            share = (server.cpu_seconds() - used) / (time.monotonic() - began)
            assert len(server.call("GET", "/api/projects")) == PROJECTS
            resident = server.resident_bytes()
            server.call("DELETE", f"/api/projects/{first['id']}")  # the only one with a container
        finally:
            server.stop()
    return [
        Row(
            what=f"CPU with {PROJECTS} projects at rest",
            value=share * 100,
            unit="% of a core",
            reference="limit",
            reference_value=CPU_SHARE * 100,
            target_ratio=1.0,
        ),
        Row(
            what=f"resident memory with {PROJECTS} projects at rest",
            value=resident / 1e6,
            unit="MB",
            reference="limit",
            reference_value=MEMORY_BYTES / 1e6,
            target_ratio=1.0,
        ),
    ]
