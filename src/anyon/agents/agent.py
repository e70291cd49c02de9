"""The interface of a coding agent, and the shapes it speaks in; pure: no I/O here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How to start an agent's program inside a worktree.

    ``stdin`` carries the prompt where the agent takes it so. ``env`` holds no secret.
    """

    argv: Sequence[str]
    stdin: bytes | None = None
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """One change of the conversation: put ``entry`` (the wire's NormalizedEntry) at ``index``.

    ``is_new`` says that the index is one past the last; else it replaces what stands there.
    """

    index: int
    entry: Mapping[str, Any]
    is_new: bool


class OutputReader(Protocol):
    """Reads one run's raw output, in pieces of any size, into conversation entries. Not re-entrant."""

    @property
    def session_id(self) -> str | None:
        """The agent's own session, once its output has told it."""
        ...

    def feed(self, data: bytes, *, stderr: bool = False) -> Sequence[Patch]:
        """Take the next bytes and return the changes; UTF-8 and lines may be cut anywhere.

        Lines that are not of the agent's form become ``system_message`` (stdout) or
        ``error_message`` (stderr) entries: nothing an agent prints is lost.
        """
        ...

    def finish(self, exit_code: int | None) -> Sequence[Patch]:
        """Take the end: flush what is held, close open tool calls, tell a failure."""
        ...


class Agent(Protocol):
    """One kind of coding agent."""

    @property
    def name(self) -> str:
        """The wire's name, such as ``CLAUDE_CODE``."""
        ...

    @property
    def program(self) -> str | None:
        """The program that must be in the container's PATH, or None if it needs none."""
        ...

    @property
    def npm_package(self) -> str | None:
        """The npm package that brings the program, or None."""
        ...

    @property
    def secret_names(self) -> Sequence[str]:
        """Environment variables of which one must be given as a secret; empty if it needs none."""
        ...

    @property
    def passed_env(self) -> Sequence[str]:
        """Variables of the server's own environment that the agent is given too, where they are set.

        Whoever starts the agent reads them (``os.environ``) and adds them to the process's ``env``:
        addresses and model names, such as ``ANTHROPIC_BASE_URL``; never a secret.
        """
        ...

    @property
    def takes_title(self) -> bool:
        """Whether the first prompt begins with the task's title, as a text for a reader does.

        Where it does not, the prompt is the description alone (the title if there is none): a script.
        """
        ...

    @property
    def capabilities(self) -> Sequence[str]:
        """The wire's capabilities (``SESSION_FORK``, ``SETUP_HELPER``)."""
        ...

    @property
    def variants(self) -> Mapping[str, Mapping[str, Any]]:
        """The built-in variants' settings; ``DEFAULT`` is always there."""
        ...

    def launch(
        self, prompt: str, *, variant: Mapping[str, Any], session_id: str | None = None
    ) -> Launch:
        """Return how to start it with *prompt*, resuming *session_id* if given."""
        ...

    def reader(self) -> OutputReader:
        """Return a new reader for one run."""
        ...
