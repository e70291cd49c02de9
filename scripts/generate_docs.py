"""Write docs/reference from the code: settings, command line, API and error codes.

``--check`` writes nothing and fails when a page is not what the code says.
"""

import argparse
import ast
import dataclasses
import sys
import types
import typing
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import typer
from fastapi.routing import APIWebSocketRoute

from anyon.api import streams, terminals
from anyon.api.apps import create_app
from anyon.cli.main import app as command_line
from anyon.cli.sessions import ExitCode
from anyon.config import Settings
from anyon.domain import errors
from anyon.domain.capacity import QUIET, MemoryState, Thresholds, pressure, who_goes
from anyon.domain.entities import Lease, Project
from anyon.domain.ids import LOCAL_USER, LeaseId, ProjectId
from anyon.domain.life import DEADLINES, Facts, Tiers, next_step
from anyon.domain.states import Goal, Phase
from anyon.services import Services

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "reference"
NOTE = "<!-- Written by scripts/generate_docs.py; change the code, not this page. -->\n"


def main() -> int:
    """Write or check all pages; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when a page is out of date")
    check = parser.parse_args().check
    stale = []
    for name, text in pages().items():
        path = PAGES / name
        whole = NOTE + "\n" + text.strip() + "\n"
        if path.exists() and path.read_text(encoding="utf-8") == whole:
            continue
        stale.append(name)
        if not check:
            PAGES.mkdir(parents=True, exist_ok=True)
            path.write_text(whole, encoding="utf-8")
    if stale and check:
        print(f"out of date: {', '.join(stale)}; run `python scripts/generate_docs.py`")
        return 1
    print(f"docs/reference: {', '.join(stale) or 'nothing'} {'to write' if check else 'written'}")
    return 0


def pages() -> dict[str, str]:
    """Return every page's text by its file's name."""
    return {
        "settings.md": settings_page(),
        "cli.md": cli_page(),
        "api.md": api_page(),
        "errors.md": errors_page(),
        "life.md": life_page(),
    }


def table(*rows: tuple[str, ...]) -> str:
    """Return a Markdown table; the first row is its head."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    lines.insert(1, "|" + " --- |" * len(rows[0]))
    return "\n".join(lines)


def life_page() -> str:
    """Return the table of what is decided for a project, asked of the decision itself."""
    tiers = Tiers()
    idle = {
        "just now": timedelta(0),
        f"{_default(tiers.freeze_after)} ago": tiers.freeze_after,
        f"{_default(tiers.stop_after)} ago": tiers.stop_after,
        f"{_default(tiers.archive_after)} ago": tiers.archive_after,
    }
    rows = [("phase", "with a lease", *(f"without one, last work {words}" for words in idle))]
    for phase in Phase:
        held = _decided(phase, timedelta(0), tiers, is_held=True)
        rows.append((f"`{phase}`", held, *(_decided(phase, it, tiers) for it in idle.values())))
    wanted: list[tuple[str, ...]] = [
        (
            "phase",
            "stopped, with a lease of before",
            "stopped, without one",
            "archived, with a lease of before",
            "archived, without one",
        )
    ]
    for phase in Phase:
        cells = [
            _decided(phase, timedelta(0), tiers, is_held=is_held, goal=goal)
            for goal in (Goal.STOPPED, Goal.ARCHIVED)
            for is_held in (True, False)
        ]
        wanted.append((f"`{phase}`", *cells))
    late = [(f"`{phase}`", _default(length)) for phase, length in DEADLINES.items()]
    return f"""# What is decided for a project

The step and its reason, with the default idle times; a project's own and the server's settings come in their place.
A project that is to be deleted is deleted from any phase.

{table(*rows)}

Of one that was stopped or archived by name a moment ago (that is its goal; new work makes it `running` again, in one transaction
with its lease):

{table(*wanted)}

A phase of transition that lasts longer than its deadline is an error:

{table(("phase", "deadline"), *late)}

{_memory()}
"""


def _memory() -> str:
    """Return what is decided when memory runs short, asked of the decision itself."""
    limits = Thresholds()
    states = [
        MemoryState(stalled_percent=limits.stalled_percent, available_bytes=2**40),
        MemoryState(stalled_percent=0.0, available_bytes=0),
        MemoryState(stalled_percent=None, available_bytes=limits.available_bytes - 1),
        MemoryState(stalled_percent=None, available_bytes=limits.available_bytes),
        MemoryState(),
    ]
    rows = [("stalled (10 s)", "available", "memory is short")]
    for state in states:
        stalled = "not told" if state.stalled_percent is None else f"{state.stalled_percent:g} %"
        left = state.available_bytes
        available = "not told" if left is None else f"{left / 2**20:.0f} MiB"
        rows.append((stalled, available, "yes" if pressure(state, limits) else "no"))
    then = datetime(2026, 1, 1, tzinfo=UTC)
    order = [("phase", "idle for", "lease", "may be stopped")]
    for phase in (Phase.FROZEN, Phase.RUNNING, Phase.STOPPED):
        for idle in (QUIET - timedelta(seconds=1), QUIET):
            for is_held in (False, True):
                project = _project(phase, then, then)
                held = frozenset([project.id] if is_held else [])
                goes = bool(who_goes([project], held, then + idle))
                words = ("yes" if is_held else "no", "yes" if goes else "no")
                order.append((f"`{phase}`", f"{idle.seconds} s", *words))
    return f"""When memory is short (with the default thresholds) one project is stopped every ten seconds:

{table(*rows)}

Frozen ones before running ones, and among them the longest idle first (`memory_pressure`):

{table(*order)}"""


def _project(phase: Phase, since: datetime, active: datetime) -> Project:
    return Project(
        id=ProjectId("p"),
        user_id=LOCAL_USER,
        name="p",
        path="/p",
        phase=phase,
        phase_since=since,
        last_active_at=active,
        created_at=active,
        updated_at=active,
    )


def _decided(
    phase: Phase,
    idle: timedelta,
    tiers: Tiers,
    *,
    is_held: bool = False,
    goal: Goal = Goal.RUNNING,
) -> str:
    then = datetime(2026, 1, 1, tzinfo=UTC)
    project = replace(_project(phase, then + idle, then), goal=goal)
    lease = Lease(
        id=LeaseId("l"),
        project_id=project.id,
        holder="h",
        reason="r",
        created_at=then,
        expires_at=then,
    )
    facts = Facts(phase=phase, leases=(lease,) if is_held else ())
    decision = next_step(project, facts=facts, tiers=tiers, now=then + idle)
    return "" if decision is None else f"{decision.step} (`{decision.reason}`)"


def settings_page() -> str:
    """Return the page of all settings."""
    kinds = typing.get_type_hints(Settings)
    rows = [("setting", "environment", "kind", "default", "what it does")]
    for one in dataclasses.fields(Settings):
        default = "~/.local/share/anyon" if one.name == "home" else _default(one.default)
        rows.append(
            (
                f"`{one.name}`",
                f"`ANYON_{one.name.upper()}`",
                _kind(kinds[one.name]),
                f"`{default}`" if default else "",
                one.metadata["doc"],
            )
        )
    return f"""# Settings

Read once at the start: from the environment, then from a TOML file (`ANYON_CONFIG`, else
`~/.config/anyon/config.toml`), then the defaults. An unknown name or a bad value is an error.

{table(*rows)}
"""


def _default(value: Any) -> str:
    if isinstance(value, timedelta):
        seconds = int(value.total_seconds())
        for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
            if seconds and seconds % size == 0:
                return f"{seconds // size}{unit}"
        return f"{seconds}s"
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _kind(kind: Any) -> str:
    if isinstance(kind, types.GenericAlias):
        return "list"
    names = {timedelta: "length", Path: "path", str: "text", int: "number", float: "number"}
    return names.get(kind, "yes/no")


def cli_page() -> str:
    """Return the page of all commands."""
    group = typer.main.get_command(command_line)
    parts = [
        "# Command line",
        (
            "Every command that asks a server takes its address from `--server` or `ANYON_SERVER`, else from the"
            " settings, and a token from `ANYON_TOKEN`. With `--json` stdout holds one JSON document; errors"
            " are on stderr, with a [code](errors.md) and a hint."
        ),
        table(
            ("exit code", "meaning"), *((str(code.value), code.name.lower()) for code in ExitCode)
        ),
        (
            "`anyon exec` and `anyon project shell` end with their command's own exit code."
            " `anyon --install-completion` sets up completion for bash, zsh or fish."
        ),
    ]
    parts += [_command(path, command) for path, command in _commands(group, ("anyon",))]
    return "\n\n".join(parts)


def _commands(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    subcommands = getattr(command, "commands", None)
    if subcommands is None:
        yield path, command
        return
    for name in sorted(subcommands):
        yield from _commands(subcommands[name], (*path, name))


def _command(path: tuple[str, ...], command: Any) -> str:
    arguments, rows = [], [("option", "what it does")]
    for one in command.params:
        if one.name == "help":
            continue
        if one.param_type_name == "argument":
            word = str(one.name).upper()
            arguments.append(word if one.required else f"[{word}]")
            rows.append((word, one.help or ""))
        else:
            rows.append((", ".join(f"`{name}`" for name in one.opts), one.help or ""))
    usage = " ".join([*path, "[OPTIONS]", *arguments])
    words = (command.help or "").strip()
    return f"## {' '.join(path)}\n\n{words}\n\n    {usage}\n\n{table(*rows)}"


def api_page() -> str:
    """Return the page of all routes."""
    services: Services = typing.cast("Services", None)  # the document needs routes, no use cases
    app = create_app(services, Settings(home=Path("/nonexistent")))
    rows = [("call", "what it does")]
    for path, methods in app.openapi()["paths"].items():
        for method, operation in methods.items():
            words = operation["description"].split("\n\n")[0].replace("\n", " ")
            rows.append((f"`{method.upper()} {path}`", words))
    sockets = [("WebSocket", "what it carries")]
    for router in (streams.router, terminals.router):
        for route in router.routes:
            assert isinstance(route, APIWebSocketRoute)
            words = (route.endpoint.__doc__ or "").split("\n\n")[0].replace("\n", " ")
            sockets.append((f"`{route.path}`", " ".join(words.split())))
    return f"""# API

The whole document, with all shapes, is served at `/api/openapi.json`.

{app.description.strip()}

A server that asks for tokens takes them as `Authorization: Bearer anyon_…`; scopes are `read`, `write`
and `*`. Requests must come to a name of the server's (`allowed_hosts`) and from no other web site.

{table(*rows)}

## Streams

A stream is closed with 1000 only after `{{"finished":true}}`; 1011 says that the reader fell behind or something
failed, 1012 that the server restarts: connect again, the snapshot comes first.

{table(*sockets)}
"""


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Raised:
    """One place that raises an error."""

    code: str
    kind: str
    message: str


def errors_page() -> str:
    """Return the page of all error codes."""
    found = sorted(set(_raised()))
    rows = [("code", "HTTP", "what it says")]
    for code in sorted({one.code for one in found}):
        mine = [one for one in found if one.code == code]
        status = sorted({str(getattr(errors, one.kind).status) for one in mine})
        says = "<br>".join(dict.fromkeys(one.message for one in mine if one.message))
        rows.append((f"`{code}`", ", ".join(status), says))
    tree = (errors.__doc__ or "").split("\n\n")[1]
    return f"""# Errors

Every error has a stable code, words that say what happened, and a hint that says what to do. `…` stands for
what differs from case to case.

```
{tree}
```

{table(*rows)}
"""


def _raised() -> Iterator[Raised]:
    for path in sorted((ROOT / "src" / "anyon").rglob("*.py")):
        if "testing" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                yield from _of_call(node, node.func.id)


def _of_call(call: ast.Call, name: str) -> Iterator[Raised]:
    kind = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, errors.AnyonError)):
        return
    codes = [key.value for key in call.keywords if key.arg == "code"]
    code = kind.default_code if not codes else None
    if codes and isinstance(codes[0], ast.Constant):
        code = str(codes[0].value)
    if code is not None:
        yield Raised(code, name, _words(call.args[0]) if call.args else "")


def _words(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_words(part) for part in node.values)
    return "…"


if __name__ == "__main__":
    sys.exit(main())
