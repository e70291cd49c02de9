"""Repositories over a sandbox for each command: the room's rules without an engine."""

from pathlib import Path

import pytest

from anyon.domain.ids import ProjectId, new_id
from anyon.testing.git_contract import RepositoryContract
from anyon.testing.git_sandboxes import SandboxedCommands
from anyon.testing.git_trials import Trial


class TestOverSandbox(RepositoryContract):
    """All promises, quickly."""

    @pytest.fixture
    async def trial(self, tmp_path: Path) -> Trial:
        """A new project in an empty directory."""
        return Trial(processes=SandboxedCommands(tmp_path), project=ProjectId(new_id()))
