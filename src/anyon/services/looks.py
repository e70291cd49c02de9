"""Looks into a repository: asked inside while the container runs, else answered from what was kept.

A page that stays open asks again every few seconds; that must neither wake a project nor keep it
from its sleep. What is kept still holds: work removes it (see ``anyon.db.looks``).
"""

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

import structlog
from pydantic import TypeAdapter, ValidationError

from anyon.clock import Clock
from anyon.db import looks as look_rows
from anyon.db.databases import Database
from anyon.domain.entities import Project
from anyon.domain.errors import ConflictError
from anyon.domain.ids import ProjectId
from anyon.domain.states import Goal, Phase
from anyon.services.containers import Containers
from anyon.services.leases import Leases
from anyon.telemetry import Metrics

T = TypeVar("T")
MOST_BYTES = 128 * 1024
"""How much one answer may take up when it is kept, compressed."""
_TRIES, _PAUSE_SECONDS = 40, 0.05

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question(Generic[T]):
    """What is asked of a repository: ``see`` asks it inside, ``kind`` reads and writes the answer.

    ``reduced`` gives the part of an answer that is kept where the whole is too large, by
    ``is_large`` or when it is written. ``is_lasting`` is what no work changes. What is not
    ``is_kept`` is answered by what another question of the same key has kept.
    """

    key: str
    kind: TypeAdapter[T]
    see: Callable[[], Awaitable[T]]
    reduced: Callable[[T], T] | None = None
    is_large: Callable[[T], bool] = lambda _: False
    is_lasting: bool = False
    is_kept: bool = True


class Looks:
    """Answers questions of users, and keeps answers for the time in which nobody can be asked."""

    def __init__(
        self,
        *,
        db: Database,
        containers: Containers,
        leases: Leases,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._db = db
        self._containers = containers
        self._leases = leases
        self._clock = clock
        self._metrics = metrics

    async def look(self, project: Project, question: Question[T]) -> T:
        """Return the answer as things are now; nothing is woken for it.

        ConflictError ``project_asleep`` where the project sleeps and it was not kept; else what
        asking raises, and ``Containers.look``.
        """
        # A project that is recorded to run was woken since, or may have changed under a look.
        is_resting = project.phase is not Phase.RUNNING
        if (is_resting or question.is_lasting) and (kept := await self._kept(project.id, question)):
            return kept.answer
        for _ in range(_TRIES):
            async with self._containers.look(project) as is_up:
                if is_up:
                    answer = await question.see()
                    if question.is_kept and not await self._leases.is_worked_in(project.id):
                        await self._keep(project.id, question, answer, since=project.last_active_at)
                    return answer
            if kept := await self._kept(project.id, question):
                return kept.answer
            if not await self._is_awaited(project):
                break
            await asyncio.sleep(_PAUSE_SECONDS)  # work is about to wake it
        self._metrics.foresaw("refused")
        raise asleep(project)

    async def _is_awaited(self, project: Project) -> bool:
        """Say whether work will have it up in a moment; what was there before a stop by name wakes nothing."""
        return project.goal is Goal.RUNNING and await self._leases.is_worked_in(project.id)

    async def foresee(
        self, project: Project, question: Question[T], *, since: datetime | None
    ) -> bool:
        """Ask now, with the container RUNNING, and keep the answer; raises what asking raises.

        *since* is the project's last activity, if work may come meanwhile: False if it did.
        """
        return await self._keep(project.id, question, await question.see(), since=since)

    async def keys(self, project_id: ProjectId) -> frozenset[str]:
        """Return the keys of the questions to which an answer is kept."""
        return await self._db.read(look_rows.keys, project_id)

    async def forget(self, project_id: ProjectId) -> None:
        """Forget what may not hold any more."""
        await self._db.write(look_rows.forget, project_id)

    async def _kept(self, project_id: ProjectId, question: Question[T]) -> "_Kept[T] | None":
        body = await self._db.read(look_rows.find, project_id, question.key)
        if body is None:
            return None
        try:
            return _Kept(question.kind.validate_json(zlib.decompress(body)))
        except (ValidationError, zlib.error) as error:  # another version's, say: as if it were not
            log.warning("look.unreadable", project=project_id, key=question.key, error=repr(error))
            return None

    async def _keep(
        self, project_id: ProjectId, question: Question[T], answer: T, *, since: datetime | None
    ) -> bool:
        """Keep an answer, if that is not too large; False if work came and it may not hold any more."""
        body = await asyncio.to_thread(_packed, question, answer)
        if body is None:
            self._metrics.foresaw("too_large")
            log.info("look.too_large", project=project_id, key=question.key)
            return True
        if body == await self._db.read(look_rows.find, project_id, question.key):
            return True
        return await self._db.write(
            look_rows.keep,
            project_id,
            question.key,
            body,
            self._clock.now(),
            is_lasting=question.is_lasting,
            if_idle_since=since,
        )


@dataclass(frozen=True, slots=True)
class _Kept(Generic[T]):
    answer: T


def asleep(project: Project) -> ConflictError:
    """Return the refusal of a question that only a running project could answer."""
    return ConflictError(
        f"the project is asleep ({project.phase.value}), and this was not seen before it fell asleep",
        code="project_asleep",
        hint="Looking wakes nothing; `anyon project start` does, or any work, and it can be asked then.",
    )


def _packed(question: Question[T], answer: T) -> bytes | None:
    """Return what is kept of an answer; None if even the part of it is too large."""
    whole = None if question.is_large(answer) else _compressed(question, answer)
    if whole is None and question.reduced is not None:
        return _compressed(question, question.reduced(answer))
    return whole


def _compressed(question: Question[T], answer: T) -> bytes | None:
    body = zlib.compress(question.kind.dump_json(answer), 6)
    return body if len(body) <= MOST_BYTES else None
