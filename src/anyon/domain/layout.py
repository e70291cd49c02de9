"""Where things are, inside a container and below Anyon's home. The same on every machine.

These are names only (pure paths); whoever acts on them does so in its own room.
"""

from pathlib import PurePath, PurePosixPath

from anyon.domain.ids import AttemptId, ProcessId, ProjectId, UserId

WORKSPACE = PurePosixPath("/workspace")
"""The project, inside."""
HOME = PurePosixPath("/home/anyon")
"""The agent's HOME, inside."""
RUN = PurePosixPath("/run/anyon")
"""The process directories, inside; a bind of ``state/<project>/run``."""
SECRETS = PurePosixPath("/run/anyon-secrets")
"""A tmpfs, inside: secrets of starting processes, gone with the container."""
WORKTREES = WORKSPACE / ".worktrees"


def process_directory(process: ProcessId) -> PurePosixPath:
    """Return a process's directory as seen inside."""
    return RUN / process


def worktree(attempt: AttemptId, branch: str) -> PurePosixPath:
    """Return an attempt's worktree as seen inside; *branch* is already a safe name."""
    return WORKTREES / f"{attempt}-{branch.replace('/', '-')}"


def project_directory(home: PurePath, user: UserId, project: ProjectId) -> PurePath:
    """Return a project's files on the host."""
    return home / "projects" / user / project


def state_directory(home: PurePath, project: ProjectId) -> PurePath:
    """Return what Anyon keeps beside a project on the host: ``home/``, ``run/``, ``system/``."""
    return home / "state" / project
