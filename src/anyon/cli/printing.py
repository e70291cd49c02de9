"""What the command line shows: JSON, tables, progress, errors; and other people's output, made harmless."""

import codecs
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor, queries
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|\x9c)"  # OSC, DCS and kin: titles, clipboard, links
    r"|\x1b[ -/]*[0-~]",
    re.DOTALL,
)
_UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x9c]{0,4096}|[ -/]*)?$", re.DOTALL)
_CONTROLS = {
    code: None for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"
} | dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)))


def harmless(text: str) -> str:
    """Return *text* without escape sequences, control characters and text-direction overrides."""
    return _ESCAPES.sub("", text.replace("\r\n", "\n")).translate(_CONTROLS)


class Cleaner:
    """Makes a stream of raw bytes harmless, piece by piece; sequences may be cut anywhere."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""

    def feed(self, data: bytes, *, final: bool = False) -> str:
        """Return what can be shown of *data* and of what was held back."""
        text = self._held + self._decoder.decode(data, final=final)
        self._held = ""
        if not final and (match := _UNFINISHED.search(text)) and match.group():
            text, self._held = text[: match.start()], match.group()
        return harmless(text)


def show_json(value: Any) -> None:
    """Print the one JSON document of a command: a model, a list of them, or plain data."""
    sys.stdout.write(json.dumps(_plain(value), ensure_ascii=False, indent=2) + "\n")


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def say(text: str) -> None:
    """Print a line for people."""
    sys.stdout.write(harmless(text) + "\n")


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; on a pipe it is plain columns, one line each."""
    cells = [[harmless(str(cell)).replace("\n", " ") for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in [[name.upper() for name in columns], *cells]:
            sys.stdout.write("\t".join(row) + "\n")
        return
    from rich.console import Console  # noqa: PLC0415 - start-up stays quick without it
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in columns:
        table.add_column(name.upper(), overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def show_error(
    code: str, message: str, hint: str, *, as_json: bool, status: int = 0, request_id: str = ""
) -> None:
    """Tell an error on stderr: for people, or as one JSON object.

    Of the server's own mistakes also the request's id, by which its log has more.
    """
    found_by = request_id if status >= 500 else ""
    if as_json:
        error = {"code": code, "message": message, "hint": hint, "status": status}
        if found_by:
            error["request_id"] = found_by
        sys.stderr.write(json.dumps({"error": error}, ensure_ascii=False) + "\n")
        return
    sys.stderr.write(f"error: {harmless(message)} [{harmless(code)}]\n")
    if hint:
        sys.stderr.write(f"hint: {harmless(hint)}\n")
    if found_by:
        sys.stderr.write(f"request: {harmless(found_by)} (in the server's log)\n")


@contextmanager
def progress(words: str, *, quiet: bool = False) -> Iterator[None]:
    """Show that something takes time, on a terminal only."""
    if quiet or not (sys.stdout.isatty() and sys.stderr.isatty()):
        yield
        return
    from rich.console import Console  # noqa: PLC0415 - start-up stays quick without it

    with Console(stderr=True).status(words):
        yield


@contextmanager
def bars(*, quiet: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """Yield what is told (words, done, total): one progress bar for each words, on a terminal only."""
    if quiet or not sys.stderr.isatty():
        yield lambda _words, _done, _total: None
        return
    from rich.console import Console  # noqa: PLC0415 - start-up stays quick without it
    from rich.progress import Progress, TaskID  # noqa: PLC0415 - as above

    rows: dict[str, TaskID] = {}
    with Progress(console=Console(stderr=True)) as shown:

        def told(words: str, done: int, total: int) -> None:
            if words not in rows:
                rows[words] = shown.add_task(harmless(words), total=total)
            shown.update(rows[words], completed=done, total=total)

        yield told


def byte_size(count: float) -> str:
    """Return a number of bytes as people read it."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
