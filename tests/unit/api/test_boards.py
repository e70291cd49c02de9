"""An answer to a creation waits until the open streams have shown the task, and no longer."""

import asyncio

from anyon.api.boards import Boards


async def test_it_waits_for_every_stream_of_the_project() -> None:
    """Two open streams: the wait ends with the second."""
    boards = Boards()
    with boards.open("p") as first, boards.open("p") as second, boards.open("other"):
        waiting = asyncio.create_task(boards.shown("p", "t", deadline=60))
        first.show("t")
        await asyncio.sleep(0)
        assert not waiting.done()
        second.show("t")
        await waiting


async def test_a_stream_that_ends_lets_go() -> None:
    """A client that leaves holds up nobody."""
    boards = Boards()
    with boards.open("p"):
        waiting = asyncio.create_task(boards.shown("p", "t", deadline=60))
        await asyncio.sleep(0)
    await waiting


async def test_a_stream_that_does_not_read_is_waited_for_a_bounded_time() -> None:
    """The deadline ends the wait without an error."""
    boards = Boards()
    with boards.open("p"):
        await boards.shown("p", "t", deadline=0.01)
