"""An agent that is a program on the command line: the facts of one, and how it is started."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from anyon.agents.agent import Launch, OutputReader
from anyon.domain.errors import InvalidInputError

Kind = Literal["flag", "text", "texts"] | frozenset[str]
"""What a setting holds: a boolean, a text, a list of texts, or one of some words."""

COMMON: Mapping[str, Kind] = {
    "append_prompt": "text",
    "base_command_override": "text",
    "additional_params": "texts",
}
"""The settings of every agent."""


@dataclass(frozen=True, slots=True)
class Options:
    """A variant's settings after their check; one that is absent or null is off, empty or None."""

    settings: Mapping[str, Any]

    def flag(self, name: str) -> bool:
        """Return a boolean setting."""
        return bool(self.settings.get(name))

    def text(self, name: str) -> str | None:
        """Return a text setting, None if it is empty."""
        return self.settings.get(name) or None

    def texts(self, name: str) -> Sequence[str]:
        """Return a list setting."""
        return self.settings.get(name) or ()


Arguments = Callable[[Options, str | None], Sequence[str]]
"""Gives a program's arguments for its settings and the session to resume."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramAgent:
    """An Agent that is described, not coded: facts, its arguments, its reader.

    ``command`` is what is run unless the variant overrides it. The prompt goes to stdin, so that
    neither its length nor a leading dash matters and no process list shows it.
    """

    name: str
    program: str | None
    npm_package: str | None = None
    secret_names: Sequence[str] = ()
    passed_env: Sequence[str] = ()
    takes_title: bool = True
    capabilities: Sequence[str] = ()
    variants: Mapping[str, Mapping[str, Any]]
    kinds: Mapping[str, Kind]
    command: Callable[[Options], Sequence[str]]
    arguments: Arguments
    new_reader: Callable[[], OutputReader]
    env: Mapping[str, str] = field(default_factory=dict)

    def launch(
        self, prompt: str, *, variant: Mapping[str, Any], session_id: str | None = None
    ) -> Launch:
        """Return how to start it; InvalidInputError (``agent_setting_invalid``) for a wrong setting."""
        options = check(self.name, {**COMMON, **self.kinds}, variant)
        override = options.text("base_command_override")
        command = _words(self.name, override) if override else self.command(options)
        argv = [*command, *self.arguments(options, session_id), *options.texts("additional_params")]
        whole = prompt + (options.text("append_prompt") or "")
        return Launch(argv=argv, stdin=whole.encode("utf-8", "replace"), env=self.env)

    def reader(self) -> OutputReader:
        """Return a new reader for one run."""
        return self.new_reader()


def check(agent: str, kinds: Mapping[str, Kind], variant: Mapping[str, Any]) -> Options:
    """Return *variant*'s settings; one that *kinds* does not know is left alone, for a later version."""
    for name, value in variant.items():
        kind = kinds.get(name)
        if kind is not None and value is not None and not _is(kind, value):
            expected = "one of " + ", ".join(sorted(kind)) if isinstance(kind, frozenset) else kind
            raise InvalidInputError(
                f"setting {name} of agent {agent} cannot be {value!r}",
                code="agent_setting_invalid",
                hint=f"It must be: {expected}.",
            )
    return Options(variant)


def _is(kind: Kind, value: Any) -> bool:
    if isinstance(kind, frozenset):
        return isinstance(value, str) and value in kind
    if kind == "flag":
        return isinstance(value, bool)
    if kind == "texts":
        return isinstance(value, list | tuple) and all(_is("text", item) for item in value)
    return isinstance(value, str) and "\0" not in value


def _words(agent: str, command: str) -> Sequence[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        words = []
        reason = str(error)
    else:
        reason = "it is empty"
    if not words:
        raise InvalidInputError(
            f"base_command_override of agent {agent} is no command: {reason}",
            code="agent_setting_invalid",
            hint="Write it as in a shell, such as: npx -y some-package@1.2.3",
        )
    return words
