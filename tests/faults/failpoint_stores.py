"""Stories of what is saved in which a server dies: checkpoints, restores, collections, takeovers."""

import os
import shutil
from datetime import timedelta

from tests.faults.failpoint_stages import NOTHING, Archive, Stage

from anyon.domain.errors import ConflictError
from anyon.storage.drivers.files import FilesStore
from anyon.storage.owners import Claim, TakeOver
from anyon.wiring.recover import Wish, recover


def save(stage: Stage, point: str) -> None:
    """Take a checkpoint of a running project."""
    one = stage.running()
    stage.server.arm(point)
    stage.attempt("POST", f"/api/projects/{one.id}/checkpoints")


def claim(stage: Stage, point: str) -> None:
    """Take the first checkpoint of a project."""
    one = stage.create()
    assert one is not None
    stage.server.arm(point)
    stage.attempt("POST", f"/api/projects/{one.id}/checkpoints")


def go_back(stage: Stage, point: str) -> None:
    """Restore a former checkpoint; once that is recorded it is finished, else it never was."""
    one = stage.running()
    before = dict(one.files)
    saved = stage.server.call("POST", f"/api/projects/{one.id}/checkpoints")
    stage.write(one)
    stage.server.arm(point)
    stage.attempt("POST", f"/api/projects/{one.id}/checkpoints/{saved['id']}/restore")
    if point not in {"restore.halted", "restore.saved"}:
        one.files = before


def collect(stage: Stage, point: str) -> None:
    """Collect garbage; the next collection finishes it, and the last checkpoint is whole."""
    archive = Archive(stage.home.with_name(f"archive{stage.count()}"))

    async def fill() -> None:
        use = archive.checkpoints(0)
        for number in range(4):
            (archive.tree / "file").write_bytes(os.urandom(20_000) + b"%d" % number)
            await use.save("u/p", {"workspace": archive.tree})
        await use.close()

    async def sweep(hours: int) -> None:
        use = archive.checkpoints(hours)
        await use.collect("u/p", grace=NOTHING)
        await use.close()

    async def look() -> None:
        use = archive.checkpoints(9)
        (last,) = await use.list("u/p")
        assert not (await use.verify("u/p", last.id, read_data=True)).problems
        keys = [info.key for info in FilesStore(archive.root / "store").list("u/p/packs/")]
        packs = [key.rpartition("/")[2] for key in keys]
        assert sorted(packs) == sorted(last.packs), f"{packs} are there, {last.packs} are needed"
        await use.close()

    archive.life(fill)
    archive.life(lambda: sweep(3), point)
    archive.life(lambda: sweep(6))
    archive.life(look)


def give_up(stage: Stage, point: str) -> None:
    """Give a claim up; another server can take it at once."""
    archive = Archive(stage.home.with_name(f"archive{stage.count()}"))
    hour = timedelta(hours=1)

    async def hold() -> None:
        use = archive.checkpoints(0)
        await use.release("u/p", await use.claim("u/p", length=hour))

    async def take() -> None:
        use = archive.checkpoints(0, "two")
        found: Claim = await use.claim("u/p", length=hour, take_over=TakeOver.EXPIRED)
        assert found.server == "two"
        try:
            await archive.checkpoints(0).claim("u/p", length=hour)
        except ConflictError:
            return
        raise AssertionError("two servers have it")

    archive.life(hold, point)
    archive.life(take)


def take_over(stage: Stage, point: str) -> None:
    """Take up a project from a copy of the store, elsewhere; a second try finishes it."""
    one = stage.running()
    stage.server.call("POST", f"/api/projects/{one.id}/checkpoints")
    other = Stage(stage.home.with_name(f"{stage.home.name}-{stage.count()}"), stage.engine)
    shutil.copytree(stage.home / "store", other.home / "store")
    # As on a lost machine: one engine cannot have the containers of both homes.
    stage.server.call("DELETE", f"/api/projects/{one.id}")
    one.is_deleted = True

    async def try_it() -> None:
        settings = other.server.settings()
        await recover(settings, Wish(state="checkpoints", is_forced=True))

    archive = Archive(other.home / "unused")
    archive.life(try_it, point)
    archive.life(try_it)
    shutil.rmtree(archive.root)
    other.take_up(one)
