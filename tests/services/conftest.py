"""A server for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from anyon.testing.worlds import World, living


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A server with nothing in it."""
    async with living(tmp_path / "home") as world:
        yield world
