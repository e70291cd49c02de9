"""What the guides and the errors' hints tell to type is there: every command, with every option."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from anyon.cli.main import app

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs/guides").glob("*.md"))]
_LINE = re.compile(
    r"^[ ]*(?:sudo (?:-u \w+ )?)?(?:[A-Z_]+=\S+ )*(?:\S*/)?(anyon (?:--|[a-z])[^`\n]*)",
    re.MULTILINE,
)
_BLOCK = re.compile(r"^```\w*\n(.*?)^```|^((?:    .*\n?)+)", re.MULTILINE | re.DOTALL)
_WORDS = re.compile(r"`((?:\.venv/bin/)?anyon [^`]+)`")


def typed(text: str) -> list[str]:
    """Return the commands of a page: those of its blocks, and those between backticks."""
    blocks = ["".join(groups) for groups in _BLOCK.findall(text)]
    lines = [found for block in blocks for found in _LINE.findall(block)]
    outside = _BLOCK.sub("", text)
    return [line.split(" #")[0].strip() for line in lines] + _WORDS.findall(outside)


def problem(line: str) -> str | None:
    """Say what of a command line is not there, None if all is."""
    words = shlex.split(line.replace("…", "").removeprefix(".venv/bin/"), comments=True)[1:]
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while rest:
        options = {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
        options |= {"--help", "-h"}
        word = rest.pop(0)
        if (
            word not in {"-", "--"}
            and word.startswith("-")
            and word.partition("=")[0] not in options
        ):
            return f"{line}: no option {word}"
        known = getattr(command, "commands", None)
        if word == "--":
            return None
        if word.startswith("-") or known is None:
            continue
        if word in known:
            command = known[word]
        elif not _is_value(word):
            return f"{line}: no command {word}"
    return None


def _is_value(word: str) -> bool:
    """Say whether *word* stands where an option's value does, or for what a reader puts there."""
    return word.isupper() or "/" in word or "." in word or "|" in word


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_tells_to_type_is_there(page: Path) -> None:
    """A command that was renamed is renamed in the guides too."""
    found = [problem(line) for line in typed(page.read_text())]
    assert [one for one in found if one] == []


_HINT = re.compile(r"`(anyon [a-z][^`\n]*)`")


def test_what_a_hint_tells_to_type_is_there() -> None:
    """An error does not send anybody to a command that nobody has written."""
    sources = (ROOT / "src/anyon").rglob("*.py")
    hints = [line for source in sources for line in _HINT.findall(source.read_text())]
    assert len(hints) > 20
    assert [found for found in map(problem, hints) if found] == []


def test_a_command_that_is_not_there_is_seen() -> None:
    """The check is no formality: a wrong command, a wrong subcommand and a wrong option are seen."""
    page = "Use `anyon projekt list`.\n\n    anyon project lits\n\n```\nanyon project list --jsno\n```\n"
    assert len([line for line in typed(page) if problem(line)]) == 3
    assert [line for line in typed(page.replace("projekt", "project")) if problem(line)] != []
