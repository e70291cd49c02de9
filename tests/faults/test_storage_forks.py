"""Forking, giving back and forgetting, with the store failing at every call: a repeat converges."""

from datetime import timedelta
from pathlib import Path

import pytest

from anyon.clock import SystemClock
from anyon.domain.errors import AnyonError
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.memory import MemoryStore
from anyon.storage.objects import ObjectStore
from anyon.testing.store_faults import FailsAtN

SOURCE, FORK = "user/source", "user/fork"
MOST_CALLS = 60


def over(store: ObjectStore, tmp_path: Path) -> Checkpoints:
    """Return checkpoints over *store*."""
    return Checkpoints(store, cache=tmp_path / "cache", clock=SystemClock())


async def do(work: str, made: Checkpoints, checkpoint: str) -> None:
    """Do one piece of work on the family."""
    if work == "fork":
        await made.fork(SOURCE, checkpoint, FORK, rows=b"rows")
    elif work == "collect":
        await made.collect(FORK, grace=timedelta(days=-1))
    else:
        await made.delete(SOURCE if work == "delete source" else FORK)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("work", ["fork", "collect", "delete source", "delete fork"])
async def test_work_that_fails_at_every_call(tmp_path: Path, work: str, after: bool) -> None:
    """Whatever call fails: what lives is whole at once, a repeat succeeds, and in the end nothing is left."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_bytes(b"content" * 900)
    for n in range(1, MOST_CALLS):
        store = MemoryStore()
        made = over(store, tmp_path / str(n))
        saved = await made.save(SOURCE, {"workspace": tmp_path / "tree"})
        if work != "fork":
            await do("fork", made, saved.checkpoint.id)
        failing = over(FailsAtN(store, n, after=after), tmp_path / str(n))
        has_failed = True
        try:
            await do(work, failing, saved.checkpoint.id)
            has_failed = False
        except AnyonError:
            if work in {"delete source", "collect"}:
                assert (await made.verify(FORK, read_data=True)).is_whole
        await failing.close()
        if has_failed:
            if work == "fork":  # as a creation that failed is undone
                await made.delete(FORK)
                assert (await made.verify(SOURCE, read_data=True)).is_whole
                assert not list(store.list(f"{FORK}/"))
            store.delete(f"{FORK}/collection")  # as if its lease had run out
            await do(work, made, saved.checkpoint.id)
        for project, gone in ((SOURCE, "delete source"), (FORK, "delete fork")):
            if work != gone:
                assert (await made.verify(project, read_data=True)).is_whole
        for project in (SOURCE, FORK):
            await made.delete(project)
        assert not list(store.list(""))
        await made.close()
        if not has_failed:
            break
    else:
        pytest.fail("the work never ran to its end")
