"""Use cases on projects: create, look, change, delete."""

from collections.abc import Sequence
from dataclasses import dataclass

from anyon.domain.actors import Actor
from anyon.domain.entities import Project
from anyon.domain.ids import ProjectId
from anyon.git.repository import Branch


class Unset:
    """The type of UNSET."""


UNSET = Unset()
"""A field of a change that stays as it is; None empties the field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewProject:
    """What to create.

    ``git_repo_path`` empty makes a new repository; a path imports (copies) that local directory,
    history included. ``clone_url`` is cloned inside the container instead.
    """

    name: str
    git_repo_path: str = ""
    clone_url: str | None = None
    image: str | None = None
    default_agent: str | None = None
    setup_script: str | None = None
    dev_script: str | None = None
    cleanup_script: str | None = None
    copy_files: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectChanges:
    """What to change; UNSET stays. A changed setup script is run again at the next attempt."""

    name: str | Unset = UNSET
    default_agent: str | None | Unset = UNSET
    setup_script: str | None | Unset = UNSET
    dev_script: str | None | Unset = UNSET
    cleanup_script: str | None | Unset = UNSET
    copy_files: str | None | Unset = UNSET


class Projects:
    """What users do with projects. A foreign or unknown id is NotFoundError (``project_unknown``)."""

    async def create(self, actor: Actor, new: NewProject) -> Project:
        """Make the project, its directories, its container (RUNNING) and its repository.

        On failure nothing is left behind: no record, container or directory. InvalidInputError:
        ``name_empty``, ``name_too_long``, ``name_has_control_characters``, ``name_path_like``,
        ``path_not_absolute``, ``path_missing``, ``not_a_repository``, ``special_file``,
        ``bad_clone_url``, ``two_sources``, ``too_long``. ConflictError: ``name_taken``.
        MissingError: ``git_missing``, ``image_missing``. UnavailableError: ``disk_full``.
        """
        raise NotImplementedError

    async def list(self, actor: Actor) -> Sequence[Project]:
        """Return the actor's projects, newest first; never wakes one."""
        raise NotImplementedError

    async def get(self, actor: Actor, project_id: ProjectId) -> Project:
        """Return one project."""
        raise NotImplementedError

    async def update(self, actor: Actor, project_id: ProjectId, changes: ProjectChanges) -> Project:
        """Change fields and return the project."""
        raise NotImplementedError

    async def delete(self, actor: Actor, project_id: ProjectId) -> None:
        """End what runs, remove the container, files go by way of the trash; the name is free at once."""
        raise NotImplementedError

    async def branches(self, actor: Actor, project_id: ProjectId) -> Sequence[Branch]:
        """Return the repository's branches: the current one first, then the newest."""
        raise NotImplementedError
