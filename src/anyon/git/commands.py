"""Running git inside a project's container: one ``sh`` script, one round trip, per operation.

A script is a constant of ours; whatever varies reaches it as a positional argument or on stdin.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Protocol

from anyon.domain.errors import DeadlineExceededError, UnavailableError
from anyon.domain.ids import ProjectId
from anyon.domain.layout import WORKSPACE
from anyon.domain.states import ExitReason
from anyon.git.journals import RECOVER
from anyon.git.refusals import Refusal, error_of, prelude
from anyon.processes.processes import Completed

READ_DEADLINE = timedelta(seconds=60)
WRITE_DEADLINE = timedelta(minutes=5)
_BUSY_TRIES = 40
_BUSY_WAIT_SECONDS = 0.25

_STALE_LOCK = re.compile(rb"Unable to create '([^'\n]+\.lock)': File exists")

# The container's environment is the tenant's: what would lead git elsewhere is dropped.
_PRELUDE = (
    prelude()
    + r"""
set -eu
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_OBJECT_DIRECTORY GIT_NAMESPACE GIT_COMMON_DIR \
  GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_CONFIG_PARAMETERS GIT_EXTERNAL_DIFF GIT_TRACE CDPATH
has() { git rev-parse -q --verify --end-of-options "$1" >/dev/null; }
resolve() {  # a branch, a remote branch, a tag or a whole object id -> its commit
  git rev-parse -q --verify --end-of-options "refs/heads/$1^{commit}" && return
  git rev-parse -q --verify --end-of-options "refs/remotes/$1^{commit}" && return
  git rev-parse -q --verify --end-of-options "refs/tags/$1^{commit}" && return
  case $1 in *[!0-9a-f]*) return 1 ;; esac
  [ "${#1}" -ge 40 ] && git rev-parse -q --verify --end-of-options "$1^{commit}"
}
identity() {  # Anyon signs where nobody is named
  git -c user.useConfigOnly=true var GIT_COMMITTER_IDENT >/dev/null 2>&1 && return
  export GIT_AUTHOR_NAME=Anyon GIT_AUTHOR_EMAIL=anyon@localhost
  export GIT_COMMITTER_NAME=Anyon GIT_COMMITTER_EMAIL=anyon@localhost
}
repository() { [ -d .git ] && [ ! -L .git ] || exit "$NOT_A_REPOSITORY"; }
"""
)
# The lock's descriptor is inherited on purpose: a git that outlives its script keeps the lock.
_LOCK = r"""
repository
if command -v flock >/dev/null; then
  exec 9>>.git/anyon.lock
  flock -w 30 9 || exit "$BUSY"
fi
"""
_JOURNAL = r"""
[ ! -e .git/anyon-merge ] || exit "$MERGE_UNFINISHED"
"""
# A lock file without a git that could hold it was left by one that was killed.
_UNLOCK = r"""
case $1 in /workspace/.git/*.lock) ;; *) exit 1 ;; esac
for process in /proc/[0-9]*; do
  { read -r name <"$process/comm"; } 2>/dev/null || continue
  case $name in git | git-*) exit 1 ;; esac
done
rm -f -- "$1"
"""

_CONFIG = {
    # Anyon's own commands start nothing of the repository's but its filters and merge drivers.
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "commit.gpgSign": "false",
    # Collection is for the project's own git: here it would hold a caller up.
    "gc.auto": "0",
    "maintenance.auto": "false",
    "transfer.bundleURI": "false",
    "submodule.recurse": "false",
    "advice.addEmbeddedRepo": "false",
    "core.safecrlf": "false",
    "core.bigFileThreshold": "32m",
    # Many files are written side by side, where that is safe (git itself decides by the filters).
    "checkout.workers": "4",
}
_ENVIRONMENT = {
    "LC_ALL": "C",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_PAGER": "cat",
    "GIT_EDITOR": ":",
    "GIT_SEQUENCE_EDITOR": ":",
    "GIT_ASKPASS": "",
    "SSH_ASKPASS": "",
    "GIT_MERGE_AUTOEDIT": "no",
    "GIT_CEILING_DIRECTORIES": "/",
    # Stronger than protocol.*.allow: no configuration can add ext::, file:// or git:// again.
    "GIT_ALLOW_PROTOCOL": "https:ssh",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a script that did not refuse has said."""

    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """The output as one stripped string."""
        return self.stdout.decode("utf-8", "backslashreplace").strip()


class Runs(Protocol):
    """The one power of ``Processes`` that git needs."""

    async def run(
        self,
        project: ProjectId,
        argv: Sequence[str],
        *,
        cwd: PurePosixPath = WORKSPACE,
        env: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        timeout: timedelta = READ_DEADLINE,
    ) -> Completed:
        """Run a short command to its end inside the project's container."""
        ...


class Commands:
    """Runs scripts in one project's container; those that write, one at a time."""

    def __init__(self, processes: Runs, project: ProjectId) -> None:
        self._processes = processes
        self._project = project
        self.writing = asyncio.Lock()

    async def read(
        self,
        script: str,
        *arguments: str,
        worktree: PurePosixPath = WORKSPACE,
        stdin: bytes | None = None,
        deadline: timedelta = READ_DEADLINE,
    ) -> Answer:
        """Run a script that changes nothing; raise the error of its refusal."""
        return _answer(await self._run(script, arguments, worktree, stdin, deadline, reads=True))

    async def write(
        self,
        script: str,
        *arguments: str,
        worktree: PurePosixPath = WORKSPACE,
        stdin: bytes | None = None,
        deadline: timedelta = WRITE_DEADLINE,
    ) -> Answer:
        """Run a script that writes, under the repository's lock in the container.

        The caller holds ``writing``. A merge that was cut off is put right first. Lock files that
        a killed git left are removed; those of a git that lives are waited for, then
        ConflictError ``repository_busy``.
        """
        done = await self._locked(_JOURNAL + script, arguments, worktree, stdin, deadline)
        if done.exit.code == Refusal.MERGE_UNFINISHED:
            _answer(await self._locked(RECOVER, (), worktree, None, deadline))
            done = await self._locked(_JOURNAL + script, arguments, worktree, stdin, deadline)
        return _answer(done)

    async def _locked(
        self,
        script: str,
        arguments: tuple[str, ...],
        worktree: PurePosixPath,
        stdin: bytes | None,
        deadline: timedelta,
    ) -> Completed:
        for _ in range(_BUSY_TRIES):
            done = await self._run(_LOCK + script, arguments, worktree, stdin, deadline)
            stale = _STALE_LOCK.search(done.stderr) if done.exit.code else None
            if stale is None:
                return done
            if not await self._unlock(stale[1].decode("utf-8", "replace")):
                await asyncio.sleep(_BUSY_WAIT_SECONDS)
        raise error_of(Refusal.BUSY, b"", b"")

    async def bare(
        self,
        script: str,
        *arguments: str,
        stdin: bytes | None = None,
        deadline: timedelta = WRITE_DEADLINE,
    ) -> Answer:
        """Run a script that touches no repository, or one that is not there yet: nothing to lock."""
        return _answer(await self._run(script, arguments, WORKSPACE, stdin, deadline))

    async def _unlock(self, lock: str) -> bool:
        path = PurePosixPath(WORKSPACE, lock)
        if ".." in path.parts:
            return False
        done = await self._run(_UNLOCK, (str(path),), WORKSPACE, None, READ_DEADLINE)
        return done.exit.code == 0

    async def _run(
        self,
        script: str,
        arguments: tuple[str, ...],
        worktree: PurePosixPath,
        stdin: bytes | None,
        deadline: timedelta,
        *,
        reads: bool = False,
    ) -> Completed:
        return await self._processes.run(
            self._project,
            ["sh", "-c", _PRELUDE + script, "anyon-git", *arguments],
            cwd=WORKSPACE,
            env=_environment(worktree, reads=reads),
            stdin=stdin,
            timeout=deadline,
        )


def _environment(worktree: PurePosixPath, *, reads: bool) -> Mapping[str, str]:
    """Return what each command's environment carries; ownership is trusted for this path only."""
    pairs = [*_CONFIG.items(), ("safe.directory", str(WORKSPACE))]
    if worktree != WORKSPACE:
        pairs.append(("safe.directory", str(worktree)))
    environment = dict(_ENVIRONMENT)
    environment["GIT_CONFIG_COUNT"] = str(len(pairs))
    for index, (key, value) in enumerate(pairs):
        environment[f"GIT_CONFIG_KEY_{index}"] = key
        environment[f"GIT_CONFIG_VALUE_{index}"] = value
    if reads:
        environment["GIT_OPTIONAL_LOCKS"] = "0"
    return environment


def _answer(done: Completed) -> Answer:
    if done.exit.reason is ExitReason.TIMEOUT:
        raise DeadlineExceededError("git did not end within the time allowed for it")
    if done.exit.reason is not ExitReason.EXITED or done.exit.code is None:
        raise UnavailableError(
            f"git was interrupted ({done.exit.reason.value})",
            code="git_interrupted",
            hint="Repeat it: operations on a repository can be repeated.",
        )
    if done.exit.code != 0:
        raise error_of(done.exit.code, done.stdout, done.stderr)
    return Answer(stdout=done.stdout, stderr=done.stderr)
