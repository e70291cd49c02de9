"""How a specification is written for the shell inside; pure.

``command`` is a file in the process's directory that the wrapper reads in its child before it
becomes the program. Single quotes keep every byte but NUL as it is. Secrets have the same form,
but only ever travel over the launcher's stream.
"""

import os
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta

from anyon.domain.errors import InvalidInputError
from anyon.processes.processes import ProcessSpec

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def is_name(text: str) -> bool:
    """Say whether *text* is a process id, and so a safe name of a directory."""
    return _NAME.fullmatch(text) is not None


def check_id(process: str) -> None:
    """Raise InvalidInputError (``process_id_invalid``) unless *process* can name a directory safely."""
    if not is_name(process):
        raise InvalidInputError(
            "a process id is 1 to 64 letters, digits, - or _",
            code="process_id_invalid",
            hint="use a UUID",
        )


def check_spec(spec: ProcessSpec) -> None:
    """Raise InvalidInputError for what no program could be started with."""
    check_id(spec.id)
    if not spec.argv or not spec.argv[0]:
        raise InvalidInputError("there is no program to run", code="argv_empty")
    if not spec.cwd.is_absolute():
        raise InvalidInputError("a working directory must be absolute", code="cwd_relative")
    for text in (*spec.argv, str(spec.cwd), *spec.env.values(), *spec.secrets.values()):
        if "\0" in text:
            raise InvalidInputError("a NUL byte cannot be handed to a program", code="nul_byte")
    for name in (*spec.env, *spec.secrets):
        if not _VARIABLE.fullmatch(name):
            raise InvalidInputError(
                f"{name!r} cannot name an environment variable",
                code="variable_name_invalid",
                hint="use letters, digits and _",
            )
    if spec.timeout is not None and spec.timeout.total_seconds() <= 0:
        raise InvalidInputError("a timeout must be longer than nothing", code="timeout_invalid")
    if spec.output_cap_bytes < 1:
        raise InvalidInputError("an output cap must be at least a byte", code="output_cap_invalid")


def command_text(spec: ProcessSpec) -> bytes:
    """Return the file that takes the wrapper's child to *spec*'s directory, variables and words."""
    lines = [b"cd " + _quoted(str(spec.cwd)) + b" || exit 127"]
    lines += _exports(spec.env)
    lines.append(b"set -- " + b" ".join(_quoted(word) for word in spec.argv))
    return b"\n".join(lines) + b"\n"


def secret_lines(secrets: Mapping[str, str]) -> Sequence[bytes]:
    """Return the lines, without their ends, that set *secrets* in a shell."""
    return b"\n".join(_exports(secrets)).split(b"\n") if secrets else []


def _exports(variables: Mapping[str, str]) -> list[bytes]:
    return [b"export " + name.encode() + b"=" + _quoted(value) for name, value in variables.items()]


def _quoted(text: str) -> bytes:
    # surrogateescape: what is no UTF-8 came in as bytes and leaves as the same bytes
    return b"'" + os.fsencode(text).replace(b"'", b"'\\''") + b"'"


LATE = timedelta(seconds=5)
"""How much later than the server the watcher inside ends what overran its timeout."""


def watch_word(timeout: timedelta | None) -> str:
    """Return the seconds after which the watcher inside ends a process, as the launcher reads it."""
    return "-" if timeout is None else str(int((timeout + LATE).total_seconds()) + 1)
