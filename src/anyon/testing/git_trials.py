"""What a test of a repository is given: the repository, and a way to do things beside it."""

from dataclasses import dataclass, field
from pathlib import PurePosixPath

from anyon.domain.ids import AttemptId, ProjectId, new_id
from anyon.git.commands import Runs
from anyon.git.repositories import GitRepositories
from anyon.git.repository import Repository


@dataclass(kw_only=True)
class Trial:
    """A repository in a running container, and what a test does there by other means."""

    processes: Runs
    project: ProjectId
    repository: Repository = field(init=False)

    def __post_init__(self) -> None:
        self.repository = GitRepositories(self.processes).of(self.project)

    async def inside(self, script: str, *arguments: str, stdin: bytes | None = None) -> str:
        """Run a shell script in the workspace and return what it prints; it must succeed."""
        return (await self.raw(script, *arguments, stdin=stdin)).decode()

    async def raw(self, script: str, *arguments: str, stdin: bytes | None = None) -> bytes:
        """Do the same and return bytes."""
        done = await self.processes.run(
            self.project,
            ["sh", "-c", f"set -eu\n{_NAMED}\n{script}", "trial", *arguments],
            stdin=stdin,
        )
        assert done.exit.code == 0, (script, done)
        return done.stdout

    async def write(self, path: str, content: bytes) -> None:
        """Write a file, relative to the workspace or absolute, making its directories."""
        await self.inside('mkdir -p "$(dirname "$1")"; cat >"$1"', path, stdin=content)

    async def started(self) -> str:
        """Make a new repository with three files on main; return its commit."""
        await self.repository.init()
        await self.inside(_FILES)
        return (await self.inside("git rev-parse HEAD")).strip()

    async def attempt(self, branch: str = "t/one", base: str = "main") -> "Attempt":
        """Make an attempt's worktree."""
        attempt = AttemptId(new_id())
        path = await self.repository.add_worktree(attempt, branch=branch, base=base)
        return Attempt(id=attempt, branch=branch, path=path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An attempt's worktree."""

    id: AttemptId
    branch: str
    path: PurePosixPath


_NAMED = """
export GIT_AUTHOR_NAME=T GIT_AUTHOR_EMAIL=t@t GIT_COMMITTER_NAME=T GIT_COMMITTER_EMAIL=t@t
"""
_FILES = r"""
printf 'one\ntwo\nthree\n' >a.txt
mkdir -p src
seq 1 100 >src/b.txt
printf '#!/bin/sh\n' >run.sh
git add -A
git commit -qm files
"""
