"""What every project's repository does, over any engine: a driver's test is a class with a fixture.

    class TestOverDocker(RepositoryContract):
        @pytest.fixture
        async def trial(self): ...   # a Trial in a running container

The containers need ``sh``, git 2.39 or later and the basic programs of any distribution.
"""

from anyon.testing.git_attachments import AttachmentsContract
from anyon.testing.git_beginnings import BeginningsContract
from anyon.testing.git_diffs import DiffsContract
from anyon.testing.git_merges import MergesContract
from anyon.testing.git_spares import SparesContract
from anyon.testing.git_worktrees import WorktreesContract


class RepositoryContract(
    BeginningsContract,
    WorktreesContract,
    AttachmentsContract,
    SparesContract,
    DiffsContract,
    MergesContract,
):
    """All promises of ``git.repository.Repository``."""
