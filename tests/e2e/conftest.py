"""What end-to-end tests share: the engines, and a real server on each."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from anyon.engines import docker_sockets
from anyon.testing.servers import ServerProcess, serving


@pytest.fixture(params=["bubblewrap", "docker"])
def engine(request: pytest.FixtureRequest) -> str:
    """Each real engine; a missing Docker is a skip at home and a failure in CI."""
    if request.param == "docker" and docker_sockets.find() is None:
        reason = "no Docker engine answers: run scripts/services/docker.sh start"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return str(request.param)


@pytest.fixture
def server(tmp_path: Path, engine: str) -> Iterator[ServerProcess]:
    """A real server on the engine, with images that have node and python."""
    with serving(tmp_path / "home", engine, ANYON_IMAGE="anyon/workspace:full") as server:
        yield server
