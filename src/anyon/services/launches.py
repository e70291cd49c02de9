"""How each kind of process is started: what must be there first, and its specification."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import PurePosixPath

from anyon.agents.agent import Agent, OutputReader
from anyon.clock import Clock
from anyon.db import attempts as attempt_rows
from anyon.db.databases import Database
from anyon.domain import actions, prompts
from anyon.domain.entities import Attempt, Process, Project
from anyon.domain.errors import ConflictError, InvalidInputError, MissingError
from anyon.domain.layout import WORKSPACE
from anyon.domain.states import RunReason
from anyon.git.names import copy_patterns
from anyon.git.repository import Begun, Repositories
from anyon.processes.processes import Processes, ProcessSpec
from anyon.telemetry.requests import VARIABLE
from anyon.telemetry.traces import PARENT, current_traceparent

# bash where there is one, since the wire calls these scripts Bash; sh is all an image must have.
_SCRIPT = 'if command -v bash >/dev/null 2>&1; then exec bash -c "$1"; else exec sh -c "$1"; fi'
_HAS_PROGRAM = 'command -v -- "$1" >/dev/null 2>&1'


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """An agent and one of its variants, found and checked."""

    agent: Agent
    variant: str | None

    @property
    def settings(self) -> Mapping[str, object]:
        """The variant's settings."""
        return self.agent.variants[self.variant or "DEFAULT"]


class Launches:
    """Finds agents, checks what they need, and writes the specifications of processes.

    ``environment`` is where agents' secrets and addresses are looked up by name.
    """

    def __init__(
        self,
        *,
        db: Database,
        processes: Processes,
        repositories: Repositories,
        find_agent: Callable[[str], Agent],
        environment: Mapping[str, str],
        default_agent: str,
        clock: Clock,
        output_cap_bytes: int,
    ) -> None:
        self._db = db
        self._processes = processes
        self._repositories = repositories
        self._find_agent = find_agent
        self._environment = environment
        self._default_agent = default_agent
        self._clock = clock
        self._cap = output_cap_bytes

    def profile(self, project: Project, agent: str | None, variant: str | None) -> Profile:
        """Return the named agent, else the project's, else the server's default.

        InvalidInputError: ``agent_unknown``, ``variant_unknown``.
        """
        found = self._find_agent(agent or project.default_agent or self._default_agent)
        if variant is not None:
            variant = variant.strip().upper().replace("-", "_") or None
        if variant not in {None, *found.variants}:
            raise InvalidInputError(
                f"{found.name} has no variant {variant!r}",
                code="variant_unknown",
                hint=f"Known variants: {', '.join(found.variants)}.",
            )
        return Profile(agent=found, variant=variant)

    def agent(self, name: str) -> Agent:
        """Return an agent by its name."""
        return self._find_agent(name)

    def reader(self, process: Process) -> OutputReader:
        """Return a new reader of an agent's output; ConflictError (``not_an_agent``) for other processes."""
        if process.run_reason is not RunReason.CODINGAGENT:
            raise ConflictError(
                "only an agent's output is a conversation",
                code="not_an_agent",
                hint="Read the process's output instead.",
            )
        profile = actions.from_json(process.action)["typ"]["executor_profile_id"]
        return self._find_agent(profile["executor"]).reader()

    def secrets(self, agent: Agent) -> Mapping[str, str]:
        """Return the agent's secrets that are set; MissingError (``key_missing``) when it needs one and none is."""
        found = {
            name: value for name in agent.secret_names if (value := self._environment.get(name))
        }
        if agent.secret_names and not found:
            names = " or ".join(agent.secret_names)
            raise MissingError(
                f"{agent.name} needs a key and none is set",
                code="key_missing",
                hint=f"Set {names} in the server's environment and start it again.",
            )
        return found

    async def check_program(self, project: Project, agent: Agent) -> None:
        """Raise MissingError (``agent_missing``) unless the agent's program is in the container, which runs."""
        if agent.program is None:
            return
        argv = ("sh", "-c", _HAS_PROGRAM, "sh", agent.program)
        done = await self._processes.run(project.id, argv)
        if done.exit.code != 0:
            how = f"npm install -g {agent.npm_package}" if agent.npm_package else "its installer"
            raise MissingError(
                f"{agent.name}'s program {agent.program!r} is not in the project's container",
                code="agent_missing",
                hint=f"Install it: `anyon exec {project.name} -- {how}`, or use an image that has it.",
            )

    async def worktree(self, project: Project, attempt: Attempt) -> PurePosixPath:
        """Return the attempt's worktree, made and recorded if it is not yet; the container runs."""
        if attempt.worktree is not None:
            return PurePosixPath(attempt.worktree)
        path = (await self.begin_worktree(project, attempt)).path
        changes = {"worktree": str(path), "updated_at": self._clock.now()}
        await self._db.write(attempt_rows.change, attempt.id, changes)
        return path

    async def begin_worktree(
        self, project: Project, attempt: Attempt, *, is_current: bool = False
    ) -> Begun:
        """Make the attempt's worktree and tell where it is inside; repeats are harmless.

        ``is_current``: its target branch is only believed to be what the workspace has checked out.
        """
        return await self._repositories.of(project.id).begin_worktree(
            attempt.id,
            branch=attempt.branch,
            base=attempt.target_branch,
            is_current=is_current,
            copy_files=copy_patterns(project.copy_files),
        )

    def spec(
        self, project: Project, process: Process, worktree: PurePosixPath | None
    ) -> ProcessSpec:
        """Return how a recorded process of a chain is started; the setup script runs in the workspace.

        Setting up once serves all worktrees: they lie inside the workspace, where programs look
        upwards for what was installed. MissingError (``key_missing``).
        """
        action = actions.from_json(process.action)
        typ = action["typ"]
        if process.run_reason is RunReason.CODINGAGENT:
            return self._agent_spec(process, typ, worktree)
        if process.run_reason is RunReason.COMMAND:
            raise ConflictError("a command is started by its caller only", code="command_lost")
        if process.run_reason is RunReason.SETUPSCRIPT and project.setup_completed_at is not None:
            typ = {**typ, "script": "echo 'The project is set up already.'"}
        cwd = worktree if worktree and process.run_reason is not RunReason.SETUPSCRIPT else None
        return ProcessSpec(
            id=process.id,
            argv=("sh", "-c", _SCRIPT, "anyon", typ["script"]),
            cwd=cwd or WORKSPACE,
            env=_origin(process),
            output_cap_bytes=self._cap,
        )

    def _agent_spec(
        self, process: Process, typ: actions.Action, worktree: PurePosixPath | None
    ) -> ProcessSpec:
        if worktree is None:
            raise ConflictError("the attempt has no worktree", code="worktree_deleted")
        profile = typ["executor_profile_id"]
        agent = self._find_agent(profile["executor"])
        variant = agent.variants[profile.get("variant") or "DEFAULT"]
        prompt = prompts.with_pictures_of(typ["prompt"], str(worktree))
        launch = agent.launch(prompt, variant=variant, session_id=typ.get("session_id"))
        passed = {
            name: value for name in agent.passed_env if (value := self._environment.get(name))
        }
        return ProcessSpec(
            id=process.id,
            argv=launch.argv,
            cwd=worktree,
            env={**_origin(process), **passed, **launch.env},
            stdin=launch.stdin,
            secrets=self.secrets(agent),
            output_cap_bytes=self._cap,
        )

    def command_spec(
        self,
        process: Process,
        argv: Sequence[str],
        *,
        cwd: PurePosixPath,
        env: Mapping[str, str],
        stdin: bytes | None,
        timeout: timedelta | None,
    ) -> ProcessSpec:
        """Return how a user's command is started."""
        return ProcessSpec(
            id=process.id,
            argv=argv,
            cwd=cwd,
            env={**_origin(process), **env},
            stdin=stdin,
            timeout=timeout,
            output_cap_bytes=self._cap,
        )


def _origin(process: Process) -> Mapping[str, str]:
    """Return the variables by which a process knows the request, and the trace, that it came of."""
    found = {VARIABLE: process.request_id, PARENT.upper(): current_traceparent()}
    return {name: value for name, value in found.items() if value is not None}
