"""What tests of the docker engine share: an engine that answers, and the image they use."""

import os
from typing import NoReturn
from uuid import uuid4

import pytest

from anyon.engines import docker_sockets
from anyon.engines.docker import DockerEngine

IMAGE = os.environ.get("ANYON_TEST_IMAGE", "anyon/workspace:latest")
UID = 1000


def socket_or_skip() -> str:
    """Return the engine's address; without one this is a skip at home and a failure in CI."""
    found = docker_sockets.find()
    if found is None:
        missing("no Docker engine answers: run scripts/services/docker.sh start")
    return found


def missing(reason: str) -> NoReturn:
    """Skip, or fail where everything must be there."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def new_engine(socket: str, *, instance: str | None = None, image: str = IMAGE) -> DockerEngine:
    """Return an engine of an Anyon home of its own, so that tests do not list each other's."""
    return DockerEngine(socket, instance=instance or f"test-{uuid4()}", uid=UID, image=image)
