"""Drives a load test against a server through the typed client; removes what it made."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

from prometheus_client.parser import text_string_to_metric_families

from anyon.loads.profiles import Profile
from anyon.loads.results import Container, Reading, Result, Sample
from anyon.sdk.clients import Client
from anyon.sdk.errors import ApiError
from anyon.sdk.models import Project
from anyon.sdk.requests import CreateProject, CreateTask, Exec, UpdateProject

T = TypeVar("T")

Told = Callable[[str, int, int], None]
"""Called with what is under way, how many of it are done, and of how many."""

_POLL_SECONDS = 0.1
_DOWN = frozenset({"stopped", "archived"})


class WorkFailedError(Exception):
    """A piece of work ended other than it should; ``code`` says how."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class Drive:
    """One load test under way."""

    client: Client
    profile: Profile
    told: Told
    prefix: str
    """What the names of its projects begin with."""
    samples: list[Sample] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    made: list[Project] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)

    async def run(self, *, keep: bool = False, engine_listing: Callable[[], str | None]) -> Result:
        """Do the whole profile; *keep* leaves the projects there. What fails is in the result.

        Raises ApiError only if the server does not answer at the beginning.
        """
        started_at, version = datetime.now(UTC), (await self.client.info()).version
        self._began = time.monotonic()
        containers: Sequence[Container] = ()
        listing: str | None = None
        metrics = ""
        try:
            await self._read()
            await self._manner()
            wall = time.monotonic() - self._began
            await self._read()
            containers = await self._containers()
            metrics = await self.client.metrics()
            listing = await asyncio.to_thread(engine_listing)
        finally:
            if not keep:
                await self._remove(self.made)
        return Result(
            profile=self.profile.name,
            server=self.client.base_url,
            version=version,
            projects=self.profile.projects,
            tasks=self.profile.total_tasks,
            started_at=started_at,
            wall_seconds=wall,
            samples=self.samples,
            containers=containers,
            readings=self.readings,
            metrics=metrics,
            engine_listing=listing,
        )

    async def _manner(self) -> None:
        match self.profile.manner:
            case "tasks":
                await self._tasks(await self._create())
            case "creates":
                await self._create()
            case "wakes":
                await self._wake(await self._create())
            case "cycles":
                await self._cycles()

    async def _cycles(self) -> None:
        """Do the work of *tasks* until the time is over; every cycle with new projects."""
        end = time.monotonic() + self.profile.seconds
        while True:
            projects = await self._create()
            await self._tasks(projects)
            if time.monotonic() >= end:
                return
            await self._remove(projects)
            await self._read()

    async def _create(self) -> list[Project]:
        first = len(self.made)
        new = [
            CreateProject(name=f"{self.prefix}-{first + number}", default_agent=self.profile.agent)
            for number in range(self.profile.projects)
        ]
        made = await self._all(
            "project created", (self._timed("create", self.client.projects.create(n)) for n in new)
        )
        projects = [project for project in made if project is not None]
        self.made.extend(projects)
        return projects

    async def _tasks(self, projects: Sequence[Project]) -> None:
        work = (self._task(p.id) for p in projects for _ in range(self.profile.tasks))
        await self._all("task done", work)

    async def _task(self, project: UUID) -> None:
        """Start one task; measure to its acceptance, its first output and its end."""
        began = time.perf_counter()
        new = CreateTask(project_id=project, description=self.profile.script)
        task = await self._timed("task accepted", self.client.tasks.create(new))
        if task is None:
            return
        seen: list[float] = []

        async def follow() -> None:
            async for chunk in self.client.tasks.follow(task.id):
                if chunk.data and not seen:
                    seen.append(time.perf_counter() - began)
            if (await self.client.tasks.ended(task.id)).last_attempt_failed:
                raise WorkFailedError("task_failed")
            if not seen:
                raise WorkFailedError("no_output")

        await self._timed("task done", follow(), began=began)
        if seen:
            self.samples.append(Sample(operation="task's first output", seconds=seen[0]))

    async def _wake(self, projects: Sequence[Project]) -> None:
        await self._all("project asleep", (self._to_sleep(p.id) for p in projects))
        await self._all("project woken", (self._wake_one(p.id) for p in projects))

    async def _to_sleep(self, project: UUID) -> None:
        """Wait until the project is stopped, its idle times cut short."""
        quick = UpdateProject(freeze_after=1, stop_after=2)
        await self.client.projects.update(project, quick)

        async def is_stopped() -> bool:
            return (await self.client.projects.get(project)).phase in _DOWN

        await self._timed("fell asleep", _until(is_stopped))

    async def _wake_one(self, project: UUID) -> None:
        async def work() -> None:
            process = await self.client.projects.exec(project, Exec(argv=["echo", "awake"]))
            async for chunk in self.client.processes.follow(process.id):
                if chunk.data:
                    return
            raise WorkFailedError("no_output")

        await self._timed("wake to first output", work())

    async def _remove(self, projects: Sequence[Project]) -> None:
        gone = list(projects)
        await self._all(
            "project deleted",
            (self._timed("delete", self.client.projects.delete(p.id)) for p in gone),
        )
        self.made = [project for project in self.made if project not in gone]

    async def _timed(
        self, operation: str, work: Awaitable[T], *, began: float | None = None
    ) -> T | None:
        """Return what *work* does and keep how long it took; None if it failed, which is kept too."""
        began = time.perf_counter() if began is None else began
        result, failure = None, None
        try:
            async with asyncio.timeout(self.profile.patience_seconds):
                result = await work
        except (ApiError, WorkFailedError) as error:
            failure = error.code
        except TimeoutError:
            failure = "took_too_long"
        took = time.perf_counter() - began
        self.samples.append(Sample(operation=operation, seconds=took, failure=failure))
        return result

    async def _all(self, words: str, work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
        """Do all of *work* at once and tell how far it is."""
        pieces = list(work)
        done = 0

        async def counted(piece: Coroutine[Any, Any, T]) -> T:
            nonlocal done
            result = await piece
            done += 1
            self.told(words, done, len(pieces))
            return result

        return list(await asyncio.gather(*(counted(piece) for piece in pieces)))

    async def _containers(self) -> list[Container]:
        mine = {project.id for project in self.made}
        return [
            Container(project=str(project.id), name=project.name, phase=project.phase)
            for project in await self.client.projects.list()
            if project.id in mine
        ]

    async def _read(self) -> None:
        values = {
            sample.name: sample.value
            for family in text_string_to_metric_families(await self.client.metrics())
            for sample in family.samples
            if sample.name in {"process_resident_memory_bytes", "process_open_fds"}
        }
        if len(values) == 2:  # a server on a kernel without /proc has neither
            self.readings.append(
                Reading(
                    at_seconds=time.monotonic() - self._began,
                    resident_bytes=values["process_resident_memory_bytes"],
                    open_fds=values["process_open_fds"],
                )
            )


async def _until(is_so: Callable[[], Awaitable[bool]]) -> None:
    while True:
        if await is_so():
            return
        await asyncio.sleep(_POLL_SECONDS)
