"""Where a project's files are on this machine, and their making and unmaking."""

import asyncio
import errno
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from anyon.clock import SystemClock
from anyon.domain import layout
from anyon.domain.entities import Project
from anyon.domain.errors import ConflictError
from anyon.domain.ids import ProjectId, UserId, new_id
from anyon.engines.engine import Mount
from anyon.failpoints import reached
from anyon.services import trees
from anyon.services.mounts import PLACE, Mounts
from anyon.services.trees import Owner


def server_id(home: Path) -> str:
    """Return the id of the server of this home: random, made once."""
    path = home / "server-id"
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with path.open("x", encoding="ascii") as file:
            file.write(new_id())
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        pass
    return path.read_text(encoding="ascii").strip()


GIT_IDENTITY = "[user]\n\tname = Anyon\n\temail = anyon@localhost\n"
"""What a new home's ``.gitconfig`` says: an agent's own commit, merge or rebase needs a name."""


class Homes:
    """The directories of projects below Anyon's home.

    ``owner`` is who their files belong to, where the engine's programs do not run as the server's
    own user. ``is_on_mount`` says where new projects go; each one's own path says where it is.
    """

    def __init__(
        self,
        home: Path,
        *,
        owner: Owner | None = None,
        mounts: Mounts | None = None,
        is_on_mount: bool = False,
    ) -> None:
        self.home = home
        self.bucket = mounts or Mounts(place=home / PLACE, clock=SystemClock())
        self._owner = owner
        self._is_on_mount = is_on_mount
        self._sweeping = asyncio.Lock()

    def project(self, user: UserId, project: ProjectId) -> Path:
        """Return where a new project's files go, seen inside as ``/workspace``."""
        return self.mounted(user, project) if self._is_on_mount else self.local(user, project)

    def local(self, user: UserId, project: ProjectId) -> Path:
        """Return a project's place on the local disk."""
        return Path(layout.project_directory(self.home, user, project))

    def mounted(self, user: UserId, project: ProjectId) -> Path:
        """Return a project's place on the mounted bucket."""
        return self.bucket.place / user / project

    def is_mounted(self, project: Project) -> bool:
        """Say whether a project's files lie on the mounted bucket."""
        return self.bucket.covers(project)

    def backup(self, project: Project) -> Path:
        """Return where a project's former files are kept once it was moved onto the mount."""
        return self.home / "projects-backup" / project.user_id / project.id

    def owner(self, path: Path) -> Owner | None:
        """Return who files at *path* must be given to; on a mount all belong to one user anyway."""
        return None if path.is_relative_to(self.bucket.place) else self._owner

    def prepare(self, target: Path, *, to_mount: bool) -> None:
        """Make *target* an empty directory."""
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        target.mkdir(mode=0o755)
        if self._owner is not None and not to_mount:
            os.chown(target, *self._owner)

    def put_away(self, source: Path, backup: str) -> None:
        """Move *source* to *backup*, or delete it without one; repeats are harmless.

        Once nothing is left on the local disk, ``projects`` becomes a link to the mount.
        """
        own = (self.home / "projects", self.bucket.place)
        if not any(source.is_relative_to(place) and source != place for place in own):
            raise ConflictError(
                f"{source} is no project's place of this home", code="foreign_place"
            )
        if backup and (self.home / "projects").is_symlink():
            return  # all were put away: by that name the mount itself would be seen
        if source.exists() and backup:
            trees.delete(Path(backup))  # of an earlier move, from which it came back
            Path(backup).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            source.rename(backup)
        elif source.exists():
            shutil.rmtree(source)
        if backup:
            self._link()

    def bring_out(self, backup: str, source: Path) -> None:
        """Put what ``put_away`` has put away back to *source*; repeats are harmless."""
        self.unlink()
        source.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if backup and Path(backup).exists():
            Path(backup).rename(source)

    def _link(self) -> None:
        projects = self.home / "projects"
        if projects.is_symlink() or not projects.is_dir() or not self._is_on_mount:
            return
        for user in projects.iterdir():
            if next(user.iterdir(), None) is not None:
                return
        for user in projects.iterdir():
            user.rmdir()
        projects.rmdir()
        projects.symlink_to(self.bucket.place.name)

    def unlink(self) -> None:
        """See to it that ``projects`` is no link to the mount: something local goes there."""
        projects = self.home / "projects"
        if projects.is_symlink():
            projects.unlink()

    async def require(self, project: Project) -> None:
        """Return if the project's files can be reached; see ``Mounts.require``."""
        await self.bucket.require(project)

    def state(self, project: ProjectId) -> Path:
        """Return what is kept beside a project."""
        return Path(layout.state_directory(self.home, project))

    def mounts(self, project: Project) -> Sequence[Mount]:
        """Return what the project's container is shown."""
        state = self.state(project.id)
        return (
            Mount(source=Path(project.path), target=layout.WORKSPACE),
            Mount(source=state / "home", target=layout.HOME),
            Mount(source=state / "run", target=layout.RUN),
        )

    def system(self, project: ProjectId) -> Path:
        """Return where the embedded engine keeps what is installed."""
        return self.state(project) / "system"

    def trees(self, project: Project) -> dict[str, Path]:
        """Return what makes up a project's state, by the names that checkpoints use."""
        state = self.state(project.id)
        return {
            "workspace": Path(project.path),
            "home": state / "home",
            "system": state / "system",
        }

    def are_whole(self, project: Project) -> bool:
        """Say whether all of the project's files are on this machine."""
        return all(path.is_dir() for path in self.trees(project).values())

    def staging(self, project: ProjectId, unique: str) -> Path:
        """Return a place for a restore, on the same file system as where it goes."""
        return self.home / "restores" / f"{project}-{unique}"

    async def release(self, project: Project) -> None:
        """Move the project's files (not the records of its processes) to the trash; absent is success."""
        await asyncio.to_thread(self._release, project)

    def _release(self, project: Project) -> None:
        for name, path in self.trees(project).items():
            self._to_trash(path, f"{project.id}-{name}")
            reached("homes.tree_released")

    async def replace(self, project: Project, staged: Mapping[str, Path]) -> None:
        """Put *staged* trees in the place of the project's own, which go to the trash.

        Each is a rename. After a crash in between it is repeated from the checkpoint.
        """
        await asyncio.to_thread(self._replace, project, staged)

    def _replace(self, project: Project, staged: Mapping[str, Path]) -> None:
        for name, path in self.trees(project).items():
            self._to_trash(path, f"{project.id}-{name}")
            reached("homes.tree_cleared")
            if name in staged:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._put(staged[name], path)
                reached("homes.tree_replaced")

    async def replace_system(self, project: Project, staged: Path) -> None:
        """Put *staged* in the place of what is kept of what the project installed."""
        await asyncio.to_thread(self._replace_system, project, staged)

    def _replace_system(self, project: Project, staged: Path) -> None:
        path = self.system(project.id)
        self._to_trash(path, f"{project.id}-system")
        reached("system.cleared")
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        staged.rename(path)

    def _to_trash(self, path: Path, name: str) -> None:
        trash = self.home / "trash"
        trash.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            return
        try:
            path.rename(trash / f"{name}-{new_id()}")
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            # A mounted bucket: nothing can be moved off it, and moving within it is copying.
            shutil.rmtree(path)

    def _put(self, staged: Path, path: Path) -> None:
        try:
            staged.rename(path)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            path.mkdir()
            trees.copy_tree(staged, path)

    async def make(self, project: Project) -> None:
        """Make the directories that are missing; UnavailableError ``disk_full``, or as ``require``."""
        await self.require(project)
        await asyncio.to_thread(self._make, project)

    def _make(self, project: Project) -> None:
        state = self.state(project.id)
        try:
            if not self.is_mounted(project):
                self.unlink()
            for directory in (Path(project.path).parent, state):
                directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            for directory in (Path(project.path), state / "home", state / "run"):
                if not directory.is_dir():
                    directory.mkdir(mode=0o755)
                    self._give(directory)
                    if directory.name == "home":
                        self._introduce(directory / ".gitconfig")
            (state / "system").mkdir(exist_ok=True, mode=0o755)
        except OSError as error:
            raise trees.explained(error, "making the project's directories") from error

    def _introduce(self, settings: Path) -> None:
        """Tell git who commits here, until the user says otherwise."""
        settings.write_text(GIT_IDENTITY, encoding="ascii")
        self._give(settings)

    def _give(self, path: Path) -> None:
        if self._owner is not None:
            os.chown(path, *self._owner)

    async def fill(self, project: Project, source: Path) -> None:
        """Copy the repository *source* into the project's empty directory."""
        await asyncio.to_thread(
            trees.copy_repository, source, Path(project.path), owner=self._owner
        )

    async def stage(self, source: Path, staging: Path) -> None:
        """Copy the tree *source* to *staging* (see ``staging``), in place of what is there."""
        await asyncio.to_thread(self._stage, source, staging)

    def _stage(self, source: Path, staging: Path) -> None:
        trees.delete(staging)
        staging.mkdir(parents=True, mode=0o700)
        trees.copy_repository(source, staging, owner=self._owner)
        self._give(staging)

    async def discard(self, project: Project) -> None:
        """Move all of a project's files to the trash at once; absent is success. As ``require``."""
        await self.require(project)
        await asyncio.to_thread(self._discard, project)

    def _discard(self, project: Project) -> None:
        try:
            self._move_to_trash(project)
        except OSError as error:
            raise trees.explained(error, "moving a project's files to the trash") from error

    def _move_to_trash(self, project: Project) -> None:
        for kind, path in (
            ("files", Path(project.path)),
            ("state", self.state(project.id)),
            ("backup", self.backup(project)),
        ):
            self._to_trash(path, f"{project.id}-{kind}")

    async def discard_restores(self) -> None:
        """Move what restores of a dead server have staged to the trash; none may be under way."""
        await asyncio.to_thread(self._discard_restores)

    def _discard_restores(self) -> None:
        place = self.home / "restores"
        if place.is_dir():
            for path in place.iterdir():
                self._to_trash(path, path.name)

    async def empty_trash(self) -> None:
        """Delete what is in the trash, one sweep at a time; may be broken off and called again."""
        async with self._sweeping:
            await asyncio.to_thread(self._empty_trash)

    def _empty_trash(self) -> None:
        trash = self.home / "trash"
        if trash.is_dir():
            for path in sorted(trash.iterdir()):
                trees.delete(path)
                reached("homes.trash_emptied")
