"""Progress bars: how far the server is with a project, and how far a download is. On a terminal only."""

import asyncio
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from anyon.sdk.errors import ApiError

if TYPE_CHECKING:
    from uuid import UUID

    from anyon.sdk.clients import Client

T = TypeVar("T")


class Bar(Protocol):
    """Shows how far something is."""

    def show(self, done: float, total: float | None) -> None:
        """Show that *done* of *total* (None or 0: not known) is done."""
        ...


class _Silent:
    def show(self, done: float, total: float | None) -> None:
        """Show nothing."""


@contextmanager
def bar(words: str, *, quiet: bool = False, is_late: bool = False) -> Iterator[Bar]:
    """Give a bar of bytes on stderr; one that shows nothing where nobody looks.

    One that *is_late* appears when there is something to show: most of such work takes no time.
    """
    if quiet or not (sys.stdout.isatty() and sys.stderr.isatty()):
        yield _Silent()
        return
    from rich.console import Console  # noqa: PLC0415 - start-up stays quick without it
    from rich.progress import (  # noqa: PLC0415 - as above
        BarColumn,
        DownloadColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
    )
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    task = progress.add_task(words, total=None)

    class Shown:
        def show(self, done: float, total: float | None) -> None:
            progress.start()
            progress.update(task, completed=done, total=total or None)

    try:
        if not is_late:
            progress.start()
        yield Shown()
    finally:
        progress.stop()


async def watched(
    client: "Client",
    project: "UUID",
    work: Coroutine[Any, Any, T],
    *,
    words: str,
    quiet: bool = False,
    is_late: bool = False,
) -> T:
    """Return what *work* (a call about *project*) returns; a bar shows meanwhile what the server tells of it."""
    with bar(words, quiet=quiet, is_late=is_late) as shown:
        if isinstance(shown, _Silent):
            return await work
        watching = asyncio.create_task(_watch(client, project, shown))
        try:
            return await work
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching


async def _watch(client: "Client", project: "UUID", shown: Bar) -> None:
    # The bar is a kindness: whatever is wrong with it, the work itself tells its own outcome.
    with suppress(ApiError):
        async for activities in client.checkpoints.activities(project, wait=5):
            if activities:
                shown.show(activities[-1].done_bytes, activities[-1].total_bytes)
