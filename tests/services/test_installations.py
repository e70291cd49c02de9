"""What was installed in a container of an engine that keeps it there: through loss, faults and restores."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from anyon.clock import SystemClock
from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.entities import Event, Project
from anyon.domain.errors import AnyonError, ConflictError, InvalidInputError
from anyon.domain.ids import ProjectId
from anyon.domain.states import Phase
from anyon.services import installations
from anyon.services.homes import Homes
from anyon.services.recoveries import Recoveries
from anyon.storage.checkpoints import Checkpoints
from anyon.storage.drivers.memory import MemoryStore
from anyon.storage.objects import ObjectStore
from anyon.storage.records import Checkpoint
from anyon.storage.replays import Replayed
from anyon.testing.layered import LayeredEngine
from anyon.testing.store_faults import FaultyStore
from anyon.testing.worlds import GRACE, World, living


@dataclass
class Layered:
    """A server whose engine keeps what is installed in each container."""

    world: World
    engine: LayeredEngine
    project: Project

    async def wake(self) -> None:
        """Bring the container up, whatever became of it."""
        project = await self.world.services.projects.get(LOCAL_ACTOR, self.project.id)
        await self.world.services.containers.ensure(project)

    def tool(self) -> Path:
        """Where an installed tool lies now."""
        return self.engine.layers[self.project.id].path / "opt/tool"

    def install(self, text: str) -> None:
        """Install it, as a program inside would."""
        self.tool().parent.mkdir(exist_ok=True)
        self.tool().write_text(text)

    async def save(self) -> Checkpoint:
        """Take a checkpoint."""
        checkpoints = self.world.services.checkpoints
        assert checkpoints is not None
        return await checkpoints.take(LOCAL_ACTOR, self.project.id)

    async def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to a checkpoint."""
        checkpoints = self.world.services.checkpoints
        assert checkpoints is not None
        await checkpoints.restores.all_of(
            LOCAL_ACTOR, self.project.id, checkpoint.id, is_forced=False
        )

    async def events(self, kind: str) -> list[Event]:
        """Return what was recorded of a kind."""
        found = await self.world.services.outlooks.events(LOCAL_ACTOR, self.project.id)
        return [event for event in found if event.kind == kind]


@asynccontextmanager
async def layered(
    base: Path, store: ObjectStore, *, name: str = "home", **changes: Any
) -> AsyncIterator[Layered]:
    """Give a server with one project, over *store*."""
    home = base / name
    engine = LayeredEngine(base / f"{name}-layers", hidden=[home])
    checkpoints = Checkpoints(store, cache=base / f"{name}-cache", clock=SystemClock(), server=name)
    parts = {"checkpoints": checkpoints, "layers": engine} | changes
    async with living(home, engine=engine, **parts) as world:
        project = await world.project()
        yield Layered(world, engine, project)
    await checkpoints.close()


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Layered]:
    """A project with a tool installed, in a checkpoint."""
    async with layered(tmp_path, MemoryStore()) as found:
        found.install("saved")
        saved = await found.save()
        assert sorted(saved.roots) == ["home", "system", "workspace"]
        assert saved.roots["system"].base == found.engine.layers[found.project.id].base
        yield found


async def test_a_removed_container_comes_back_with_it(here: Layered) -> None:
    """What the last checkpoint has of it is in the next container, before its first program."""
    here.install("after the checkpoint")
    await here.engine.remove(here.project.id)
    await here.wake()
    assert here.tool().read_text() == "saved"
    (event,) = await here.events("system.brought_back")
    assert (event.reason, event.detail.startswith("1 files, 0 deletions")) == ("same_image", True)


async def test_where_layers_are_hidden_it_does_not(tmp_path: Path) -> None:
    """The control: a server that cannot read layers saves without, shows it, and the tool is gone."""
    trees = ("workspace", "home")
    async with layered(tmp_path, MemoryStore(), layers=None, saved_trees=trees) as found:
        found.install("saved")
        assert sorted((await found.save()).roots) == ["home", "workspace"]
        await found.engine.remove(found.project.id)
        await found.wake()
        assert not found.tool().exists()


async def test_another_image_is_told(here: Layered) -> None:
    """The layer is put over a new image as it is, and the event says over which it was saved."""
    here.engine.image_id = "sha256:2"
    await here.engine.remove(here.project.id)
    await here.wake()
    assert here.tool().read_text() == "saved"
    (event,) = await here.events("system.brought_back")
    assert event.reason == "image_changed"
    assert "sha256:1" in event.detail
    assert "sha256:2" in event.detail
    assert (await here.save()).roots["system"].base["image_id"] == "sha256:2"


async def test_a_save_without_a_container_keeps_it(here: Layered) -> None:
    """A checkpoint taken while a stranger has removed the container is not one without the tool."""
    before = await here.save()
    await here.engine.remove(here.project.id)
    Path(here.project.path, "new").write_text("new")
    after = await here.save()
    assert after.id != before.id
    assert after.roots["system"].node == before.roots["system"].node
    await here.wake()
    assert here.tool().read_text() == "saved"


async def test_a_cut_off_filling_is_begun_again(
    here: Layered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of a layer is never started: the next work makes another container and fills it whole."""
    real = installations.replay

    def cut(saved: bytes, layer: bytes) -> Replayed:
        (Path(layer.decode()) / "half").mkdir()
        raise OSError(28, "no space")

    await here.engine.remove(here.project.id)
    monkeypatch.setattr(installations, "replay", cut)
    with pytest.raises(AnyonError) as failed:
        await here.wake()
    assert failed.value.code == "layer_failed"
    half = here.engine.layers[here.project.id]
    info = await here.engine.inspect(here.project.id)
    assert info is not None
    assert info.started_at is None
    monkeypatch.setattr(installations, "replay", real)
    await here.wake()
    now = here.engine.layers[here.project.id]
    assert now.container != half.container
    assert not (now.path / "half").exists()
    assert here.tool().read_text() == "saved"


async def test_a_death_while_filling_is_survived(
    here: Layered, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next life of the server finds what waits for a container, and fills a new one."""

    def die(saved: bytes, layer: bytes) -> Replayed:
        raise KeyError("as if killed")

    await here.engine.remove(here.project.id)
    with monkeypatch.context() as patched:
        patched.setattr(installations, "replay", die)
        with pytest.raises(KeyError):
            await here.wake()
    here.world = await here.world.reborn()
    await here.world.services.recover()
    await here.wake()
    assert here.tool().read_text() == "saved"
    await here.world.end()


@pytest.mark.parametrize("is_checked", [True, False])
async def test_half_of_a_layer_is_never_confirmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_checked: bool
) -> None:
    """A container that is removed while its layer is read fails the save; without the look it is lost."""
    removes: list[Layered] = []

    @asynccontextmanager
    async def pause(_: ProjectId) -> AsyncIterator[None]:
        # As an engine does: the files first, what is known of the container last.
        for each in removes:
            each.tool().unlink()
        yield
        while removes:
            each = removes.pop()
            del each.engine.layers[each.project.id]

    async with layered(tmp_path, MemoryStore(), pause=pause) as found:
        found.install("saved")
        await found.save()
        Path(found.project.path, "new").write_text("new")
        removes.append(found)
        if is_checked:
            with pytest.raises(ConflictError) as lost:
                await found.save()
            assert lost.value.code == "layer_lost"
        else:  # the control

            async def never(*_: object) -> None:
                pass

            archives = found.world.services.archives
            assert archives is not None
            monkeypatch.setattr(installations.Installations, "check", never)
            await found.save()
        await found.engine.remove(found.project.id)
        await found.save()
        await found.wake()
        assert found.tool().exists() == is_checked


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"checkpoint": "x"}'])
async def test_a_damaged_note_is_told(here: Layered, text: str) -> None:
    """What is not known is not guessed: neither started nor saved, until somebody decides."""
    note = here.world.services.homes.state(here.project.id) / "layer.json"
    note.write_text(text)
    await here.engine.stop(here.project.id, grace=GRACE)
    for work in (here.wake, here.save):
        with pytest.raises(AnyonError) as failed:
            await work()
        assert failed.value.code == "layer_failed"
        assert str(note) in failed.value.message
    note.unlink()
    await here.wake()
    assert here.tool().read_text() == "saved"


async def test_a_store_that_is_away_keeps_it_from_being_lost(tmp_path: Path) -> None:
    """A wake without the layer fails and may be repeated; nothing is started or saved without it."""
    is_down = [False]
    store = FaultyStore(MemoryStore(), lambda _number, _name, after: is_down[0] and not after)
    async with layered(tmp_path, store) as found:
        found.install("saved")
        await found.save()
        await found.engine.remove(found.project.id)
        is_down[0] = True
        for _ in range(2):
            with pytest.raises(AnyonError) as failed:
                await found.wake()
            assert failed.value.status == 503
        info = await found.engine.inspect(found.project.id)
        assert info is None
        is_down[0] = False
        await found.wake()
        assert found.tool().read_text() == "saved"


async def test_going_back_takes_it_along(here: Layered) -> None:
    """A restore of an earlier checkpoint makes the container anew with the layer of then."""
    first = await here.save()
    here.install("newer")
    second = await here.save()
    await here.engine.stop(here.project.id, grace=GRACE)
    await here.restore(first)
    # Saved before the next start: it is what waits, not what the old container still has.
    Path(here.project.path, "new").write_text("new")
    assert (await here.save()).roots["system"].node == first.roots["system"].node
    await here.wake()
    assert here.tool().read_text() == "saved"
    await here.engine.stop(here.project.id, grace=GRACE)
    await here.restore(second)
    await here.wake()
    assert here.tool().read_text() == "newer"


async def test_a_lost_machine(tmp_path: Path) -> None:
    """Recovered from the store alone, the project's first container has what was installed."""
    store = MemoryStore()
    async with layered(tmp_path, store) as lost:
        lost.install("saved")
        await lost.save()
    async with layered(tmp_path, store, name="other") as found:
        world = found.world
        checkpoints = world.changes["checkpoints"]
        homes = Homes(world.home)
        recoveries = Recoveries(
            checkpoints=checkpoints, db=world.db, homes=homes, clock=SystemClock()
        )
        await world.services.projects.delete(LOCAL_ACTOR, found.project.id)
        taken = await recoveries.recover(is_forced=True)
        assert "recovered" in {one.outcome.value for one in taken}
        found.project = await world.services.projects.get(LOCAL_ACTOR, lost.project.id)
        await found.wake()
        assert found.tool().read_text() == "saved"


async def test_a_fork_has_it_too(here: Layered) -> None:
    """A project that began as a fork has a container with what was installed in its source."""
    checkpoints = here.world.services.checkpoints
    assert checkpoints is not None
    fork = await checkpoints.forks.make(LOCAL_ACTOR, here.project.id, None, "fork")
    await here.world.services.containers.ensure(fork)
    assert (here.engine.layers[fork.id].path / "opt/tool").read_text() == "saved"
    here.install("the source's own")
    assert (here.engine.layers[fork.id].path / "opt/tool").read_text() == "saved"


async def test_a_path_in_it_is_refused(here: Layered) -> None:
    """One file of a layer cannot be put back where the engine keeps it: that is said, and nothing is done."""
    checkpoints = here.world.services.checkpoints
    assert checkpoints is not None
    saved = await here.save()
    with pytest.raises(InvalidInputError) as refused:
        await checkpoints.restores.path(
            LOCAL_ACTOR, here.project.id, saved.id, b"system/opt/tool", is_forced=False
        )
    assert refused.value.code == "bad_path"
    assert not any(here.world.services.homes.system(here.project.id).iterdir())


async def test_another_system_of_the_host_is_told(tmp_path: Path) -> None:
    """A layer that lay over one system and now lies over another is brought back, and that is told."""
    bases: dict[str, Any] = {"layers": None, "layer_base": {"system": "debian 12"}}
    async with layered(tmp_path, MemoryStore(), **bases) as found:
        installed = found.world.services.homes.system(found.project.id) / "opt"
        installed.mkdir(parents=True)
        (installed / "tool").write_text("saved")
        saved = await found.save()
        assert saved.roots["system"].base == {"engine": "layered", "system": "debian 12"}
        await found.engine.stop(found.project.id, grace=GRACE)
        await found.restore(saved)
        assert await found.events("system.brought_back") == []
        found.world.changes["layer_base"] = {"system": "debian 13"}
        found.world = await found.world.reborn()
        await found.restore(saved)
        (event,) = await found.events("system.brought_back")
        assert event.reason == "base_changed"
        assert "saved over debian 12, now over debian 13" in event.detail
        assert (installed / "tool").read_text() == "saved"
        await found.world.end()


async def test_a_layer_of_another_engine_is_left_out(tmp_path: Path) -> None:
    """It stays in its checkpoint, which is told, and the setup script may run again."""
    async with layered(tmp_path, MemoryStore()) as found:
        found.install("mine")
        saved = await found.save()
        homes = found.world.services.homes
        trees = homes.trees(found.project)
        trees["system"] = tmp_path / "strange"
        (trees["system"] / "opt").mkdir(parents=True)
        (trees["system"] / "opt/tool").write_text("of another form")
        strange = await found.world.changes["checkpoints"].save(
            f"{found.project.user_id}/{found.project.id}",
            trees,
            epoch=saved.epoch,
            bases={"system": {"engine": "other"}},
        )
        await found.engine.stop(found.project.id, grace=GRACE)
        await found.restore(strange.checkpoint)
        await found.wake()
        (event,) = await found.events("system.left_out")
        assert "engine other" in event.detail
        assert strange.checkpoint.id in event.detail
        # What this engine's container has is not the checkpoint's business: it stays.
        assert found.tool().read_text() == "mine"


async def test_who_takes_files_away_keeps_saves_out(here: Layered) -> None:
    """From the moment that a project is archived or deleted nobody saves what is left of it."""
    await here.engine.stop(here.project.id, grace=GRACE)
    containers = here.world.services.containers
    await containers.record(here.project.id, Phase.ARCHIVING, reason="test")
    with pytest.raises(ConflictError) as refused:
        await here.save()
    assert refused.value.code == "project_archived"
    archives = here.world.services.archives
    assert archives is not None
    project = await here.world.services.projects.get(LOCAL_ACTOR, here.project.id)
    await archives.confirm(project)  # who archives it still may
