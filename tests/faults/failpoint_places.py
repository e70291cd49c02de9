"""Stories of projects that move between the local disk and a mounted bucket, and a server that dies."""

import shutil
import signal
from functools import partial
from pathlib import Path
from urllib.error import HTTPError

import pytest
from tests.faults.agreement import Known, rows
from tests.faults.failpoint_stages import Archive, Stage
from tests.faults.mortal_servers import wait_for

from anyon.config import Settings, load
from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.errors import NotFoundError
from anyon.services.mounts import PLACE
from anyon.services.projects import NewProject
from anyon.storage.mounts.mounter import MountInfo, MountSpec
from anyon.testing.mounters import FolderMounter
from anyon.wiring import mounts, rollbacks
from anyon.wiring.assembly import assembled


class Lasting(FolderMounter):
    """A mounter whose mount dies with the server; which device it is, nobody is told."""

    async def look(self, spec: MountSpec) -> MountInfo:
        """Return what the mount is like."""
        return MountInfo(state=(await super().look(spec)).state)


def _on_mount(stage: Stage) -> Stage:
    """Return a home whose new projects lie on a mount, with its server."""
    home = stage.home.with_name(f"{stage.home.name}-mounted")
    bucket = home.with_name(f"{home.name}-bucket")

    def patch() -> None:
        _returned(home, bucket)
        mounter = Lasting(bucket)
        mounts.mounter = lambda _: mounter

    more = {"ANYON_STORAGE": "gcsfuse", "ANYON_MOUNT_BUCKET": "gs://bucket"}
    return stage.other("mounted", patch=patch, **more)


def _returned(home: Path, bucket: Path) -> None:
    """Let a former life's mount be gone with it: what was seen through it is in the bucket only."""
    for path in [*(home / PLACE).glob("*")]:
        bucket.mkdir(exist_ok=True)
        path.rename(bucket / path.name)


def move(stage: Stage, point: str) -> None:
    """Move a project to the other side and die: it is whole on one side, and the move repeated ends on the other."""
    other = _on_mount(stage)
    one = other.running()
    if point == "move.readdressed":
        other.archived()
    to = "disk" if _is_mounted(other, one) else "mount"
    former = Path(str(rows(other.home)[one.id]["path"]))
    path = f"/api/projects/{one.id}/move"
    other.server.arm(point)
    other.attempt("POST", path, {"to": to})
    assert other.server.end() == -signal.SIGKILL, f"the server did not die at {point}"
    other.server.start()
    other.server.answer()
    other.agreed()
    wait_for(lambda: _moved(other, path, to), "the project to be moved")
    other.agreed()
    assert _is_mounted(other, one) is (to == "mount")
    names = sorted(one.files)
    said = other.server.run(one.id, f"cat {' '.join(names)}; git status --short >&2 && echo sound")
    assert said == "".join(one.files[name] for name in names) + "sound\n"
    other.rest(one)
    assert to == "mount" or not former.exists(), f"the copy in the bucket is left: {former}"
    backups = [path.name for path in other.home.glob("projects-backup/*/*")]
    assert backups in ([], [one.id])


def roll_back(stage: Stage, point: str) -> None:
    """Die on the way back from a move of two projects to a mount; repeated it ends, and all is as it was."""
    home = stage.home.with_name(f"{stage.home.name}-back{stage.count()}")
    archive = Archive(home.with_name(f"{home.name}-unused"))
    archive.life(partial(_fill, home, stage.engine))
    archive.life(partial(_carry, home, stage.engine))
    archive.life(partial(_back, home, stage.engine), point)
    archive.life(partial(_back, home, stage.engine))
    archive.life(partial(_nothing_left, home, stage.engine))
    shutil.rmtree(archive.root)


FORMER = '# ours\nstorage   = "checkpoints"\n'


def _own(home: Path, engine: str) -> Settings:
    """Return a home's settings as its files say, its bucket a folder that outlives each process."""
    bucket = home.with_name(f"{home.name}-bucket")
    _returned(home, bucket)
    mounter = FolderMounter(bucket)
    mounts.mounter = lambda _: mounter
    more = {"ANYON_STORE": "none", "ANYON_REPLICA_INTERVAL": "0", "ANYON_LOG_LEVEL": "error"}
    return load({"ANYON_HOME": str(home), "ANYON_ENGINE": engine, **more})


async def _fill(home: Path, engine: str) -> None:
    settings = _own(home, engine)
    async with assembled(settings) as anyon:
        for name in ("one", "two"):
            made = await anyon.services.projects.create(LOCAL_ACTOR, NewProject(name=name))
            (Path(made.path) / "file").write_text(name)
    (home / "storage.toml").write_text(FORMER)
    mounts.keep(settings, storage="gcsfuse", bucket="gs://bucket", profile="tuned")


async def _carry(home: Path, engine: str) -> None:
    async with assembled(_own(home, engine)) as anyon:
        for project, _ in await anyon.services.moves.movable(LOCAL_ACTOR):
            await anyon.services.moves.move(LOCAL_ACTOR, project.id, to_mount=True)


async def _back(home: Path, engine: str) -> None:
    settings = _own(home, engine)
    report = await rollbacks.roll_back(
        settings, is_dry=False, discard_work=False, tell=lambda *_: None
    )
    assert sorted(one.name for one in report.projects) == sorted(report.answer) == ["one", "two"]


async def _nothing_left(home: Path, engine: str) -> None:
    assert (home / "storage.toml").read_text() == FORMER
    settings = _own(home, engine)
    assert settings.storage == "checkpoints"
    async with assembled(settings) as anyon:
        for project in await anyon.services.projects.list(LOCAL_ACTOR):
            assert f"/{PLACE}/" not in project.path
            assert (Path(project.path) / "file").read_text() == project.name
    with pytest.raises(NotFoundError) as refused:
        await rollbacks.roll_back(settings, is_dry=True, discard_work=False, tell=lambda *_: None)
    assert refused.value.code == "nothing_to_undo"


def _moved(other: Stage, path: str, to: str) -> bool:
    try:
        return other.server.call("POST", path, {"to": to})["state"] in {"moved", "there"}
    except HTTPError as error:
        if error.code not in {409, 503}:
            raise
        return False


def _is_mounted(other: Stage, one: Known) -> bool:
    return f"/{PLACE}/" in str(rows(other.home)[one.id]["path"])
