"""A task's pictures, laid into an attempt's worktree before its agent runs."""

from pathlib import PurePosixPath

import structlog

from anyon.clock import Clock
from anyon.db import events as event_rows
from anyon.db import pictures as picture_rows
from anyon.db.databases import Database
from anyon.domain import actions, prompts
from anyon.domain.entities import Attempt, Picture, Process
from anyon.domain.errors import AnyonError, ConflictError, NotFoundError
from anyon.domain.pictures import FOLDER, is_file
from anyon.domain.states import RunReason
from anyon.git.repository import Repositories, Repository

log = structlog.get_logger(__name__)
_UNKNOWN = "image_unknown"


class Attachments:
    """Lays pictures where an agent's prompt says they are.

    Each step may be repeated. What cannot be laid keeps no agent from its work: it is told in the
    server's log and in the project's events (``image.missing``).
    """

    def __init__(self, *, db: Database, repositories: Repositories, clock: Clock) -> None:
        self._db = db
        self._repositories = repositories
        self._clock = clock

    async def lay(self, process: Process, attempt: Attempt, worktree: PurePosixPath) -> None:
        """Write what is attached to the attempt's task and not there yet; its container runs."""
        if process.run_reason is not RunReason.CODINGAGENT:
            return
        named = prompts.pictures_in(str(actions.from_json(process.action)["typ"]["prompt"]))
        attached = await self._db.read(picture_rows.of_task, attempt.task_id)
        if not attached and not named:
            return
        repository = self._repositories.of(process.project_id)
        due = {one.file: one for one in attached}
        others = [file for file in named if file not in due]
        # One that an earlier run had may be there still.
        wanted = {file: one.size_bytes for file, one in due.items()} | {
            file: None for file in others if is_file(file)
        }
        try:
            missing = await repository.missing_attachments(worktree, FOLDER, wanted)
        except ConflictError as error:
            await self._tell(process, error, *dict.fromkeys([*due, *named]))
            return
        for file in missing:
            if file in due:
                await self._lay(process, repository, worktree, due[file])
        lost = [file for file in others if file in missing or file not in wanted]
        await self._tell(process, NotFoundError("no image of the task", code=_UNKNOWN), *lost)

    async def _lay(
        self, process: Process, repository: Repository, worktree: PurePosixPath, picture: Picture
    ) -> None:
        """Lay one: only one's bytes are held at a time."""
        content = await self._db.read(picture_rows.content, picture.id)
        if content is None:
            gone = NotFoundError("it was deleted just now", code=_UNKNOWN)
            await self._tell(process, gone, picture.file)
            return
        try:
            await repository.lay_attachment(worktree, FOLDER, picture.file, content)
        except ConflictError as error:
            await self._tell(process, error, picture.file)

    async def _tell(self, process: Process, error: AnyonError, *files: str) -> None:
        """Tell which files are not there for the agent; what is wrong with the container is no such thing."""
        if error.code not in {_UNKNOWN, "attachment_not_laid"}:
            raise error
        for file in files:
            # The name is a user's words: it stands in the project's events, not in the server's log.
            log.warning("image.missing", process=process.id, code=error.code)
            await self._db.write(
                event_rows.add,
                process.project_id,
                "image.missing",
                self._clock.now(),
                reason=error.code,
                detail=f"{process.run_reason} {process.id}: {FOLDER}/{file}: {error.message}",
            )
