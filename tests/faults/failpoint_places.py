"""Stories of a project that moves between the local disk and a mounted bucket, and a server that dies."""

import signal
from pathlib import Path
from urllib.error import HTTPError

from tests.faults.agreement import Known, rows
from tests.faults.failpoint_stages import Stage
from tests.faults.mortal_servers import wait_for

from anyon.services.mounts import PLACE
from anyon.storage.mounts.mounter import MountInfo, MountSpec
from anyon.testing.mounters import FolderMounter
from anyon.wiring import mounts


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
        # The former life's mount went with it: what was seen through it is in the bucket only.
        for path in [*(home / PLACE).glob("*")]:
            bucket.mkdir(exist_ok=True)
            path.rename(bucket / path.name)
        mounter = Lasting(bucket)
        mounts.mounter = lambda _: mounter

    more = {"ANYON_STORAGE": "gcsfuse", "ANYON_MOUNT_BUCKET": "gs://bucket"}
    return stage.other("mounted", patch=patch, **more)


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


def _moved(other: Stage, path: str, to: str) -> bool:
    try:
        return other.server.call("POST", path, {"to": to})["state"] in {"moved", "there"}
    except HTTPError as error:
        if error.code not in {409, 503}:
            raise
        return False


def _is_mounted(other: Stage, one: Known) -> bool:
    return f"/{PLACE}/" in str(rows(other.home)[one.id]["path"])
