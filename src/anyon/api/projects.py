"""Routes of projects."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Depends

from anyon.api import shapes
from anyon.api.contexts import ActorOf, ContextOf, actor_of
from anyon.domain.errors import InvalidInputError
from anyon.domain.ids import ProjectId
from anyon.sdk import models, requests
from anyon.sdk.models import Envelope
from anyon.services.projects import UNSET, NewProject, ProjectChanges

router = APIRouter(prefix="/api/projects", tags=["projects"], dependencies=[Depends(actor_of)])


@router.get("")
async def list_projects(context: ContextOf, actor: ActorOf) -> Envelope[list[models.Project]]:
    """Return the caller's projects, newest updated first; wakes none."""
    found = await context.services.projects.list(actor)
    newest = sorted(found, key=lambda project: project.updated_at, reverse=True)
    return Envelope.of([shapes.project(project) for project in newest])


@router.post("")
async def create_project(
    context: ContextOf, actor: ActorOf, asked: requests.CreateProject
) -> Envelope[models.Project]:
    """Make a project: a new repository, or one imported from a path or cloned from a URL."""
    if asked.use_existing_repo and not asked.git_repo_path.strip():
        raise InvalidInputError(
            "an existing repository needs its path", code="path_missing", hint="Give git_repo_path."
        )
    new = NewProject(
        name=asked.name,
        git_repo_path=asked.git_repo_path,
        clone_url=asked.clone_url,
        image=asked.image,
        default_agent=asked.default_agent or None,
        setup_script=asked.setup_script,
        dev_script=asked.dev_script,
        cleanup_script=asked.cleanup_script,
        copy_files=asked.copy_files,
    )
    return Envelope.of(shapes.project(await context.services.projects.create(actor, new)))


@router.get("/{project_id}")
async def get_project(
    context: ContextOf, actor: ActorOf, project_id: UUID
) -> Envelope[models.Project]:
    """Return one project; does not wake it."""
    found = await context.services.projects.get(actor, ProjectId(str(project_id)))
    return Envelope.of(shapes.project(found))


@router.put("/{project_id}")
async def update_project(
    context: ContextOf, actor: ActorOf, project_id: UUID, asked: requests.UpdateProject
) -> Envelope[models.Project]:
    """Change a project: a null name keeps it; null scripts and copy_files clear them."""
    projects, key = context.services.projects, ProjectId(str(project_id))
    if asked.git_repo_path is not None:
        current = await projects.get(actor, key)
        if asked.git_repo_path != current.path:
            raise InvalidInputError("a project's path cannot be changed", code="path_fixed")
    changes = ProjectChanges(
        name=UNSET if asked.name is None else asked.name,
        default_agent=(asked.default_agent or None)
        if "default_agent" in asked.model_fields_set
        else UNSET,
        setup_script=asked.setup_script,
        dev_script=asked.dev_script,
        cleanup_script=asked.cleanup_script,
        copy_files=asked.copy_files,
        **_idle_times(asked),
    )
    return Envelope.of(shapes.project(await projects.update(actor, key, changes)))


def _idle_times(asked: requests.UpdateProject) -> dict[str, Any]:
    names = ("freeze_after", "stop_after", "archive_after")
    return {name: getattr(asked, name) for name in names if name in asked.model_fields_set}


@router.delete("/{project_id}")
async def delete_project(context: ContextOf, actor: ActorOf, project_id: UUID) -> Envelope[None]:
    """Delete a project, its container with it."""
    await context.services.projects.delete(actor, ProjectId(str(project_id)))
    return Envelope.of(None)


@router.get("/{project_id}/branches")
async def list_branches(
    context: ContextOf, actor: ActorOf, project_id: UUID
) -> Envelope[list[models.GitBranch]]:
    """Return the branches: the current one first, then the newest."""
    found = await context.services.projects.branches(actor, ProjectId(str(project_id)))
    return Envelope.of([shapes.branch(branch) for branch in found])


@router.post("/{project_id}/exec")
async def exec_command(
    context: ContextOf, actor: ActorOf, project_id: UUID, asked: requests.Exec
) -> Envelope[models.ExecutionProcess]:
    """Start a command as a durable process; its output is read as any process's."""
    process = await context.services.processes.exec(
        actor,
        ProjectId(str(project_id)),
        asked.argv,
        cwd=asked.cwd,
        env=asked.env,
        stdin=None if asked.stdin is None else asked.stdin.encode(),
        timeout=None if asked.timeout is None else timedelta(seconds=asked.timeout),
    )
    return Envelope.of(shapes.process(process))
