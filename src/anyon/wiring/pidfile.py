"""One server for one home: a lock that the kernel lets go of when the server dies."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anyon.domain.errors import ConflictError


@contextmanager
def only_server(home: Path, *, address: str) -> Iterator[None]:
    """Hold *home* for this server; ConflictError (``home_in_use``) if another one has it."""
    path = home / "server.json"
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ConflictError(
                f"another server uses {home} ({file.read().strip()})",
                code="home_in_use",
                hint="use that one, end it, or set another ANYON_HOME",
            ) from None
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "address": address}))
        file.flush()
        yield
