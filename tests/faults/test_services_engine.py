"""The engine fails at any one of its calls, before or after its effect: nothing half done stays."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anyon.db import processes as process_rows
from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.errors import AnyonError, EngineFailedError
from anyon.engines.memory import MemoryEngine
from anyon.services.tasks import NewTask
from anyon.testing.worlds import World, living, until


class UnsteadyEngine(MemoryEngine):
    """Fails its *n*-th call of those that the services make, on one *side* of its effect."""

    def __init__(self, hidden: Path, side: str) -> None:
        super().__init__([hidden])
        self._side = side
        self._left = 0
        self.has_failed = False

    def fail_at(self, number: int) -> None:
        """Fail the call of that number from now on, counted from 1; 0 never."""
        self._left = number
        self.has_failed = False

    async def _call(self, call: Callable[..., Any], *args: Any, **more: Any) -> Any:
        self._left -= 1
        is_due = self._left == 0
        self.has_failed |= is_due
        if is_due and self._side == "before":
            raise EngineFailedError("injected, before")
        answer = await call(*args, **more)
        if is_due:
            raise EngineFailedError("injected, after")
        return answer

    async def ensure(self, spec: Any) -> Any:
        """As the engine, or fail."""
        return await self._call(super().ensure, spec)

    async def start(self, project: Any) -> Any:
        """As the engine, or fail."""
        return await self._call(super().start, project)

    async def inspect(self, project: Any) -> Any:
        """As the engine, or fail."""
        return await self._call(super().inspect, project)

    async def open(self, project: Any, command: Any) -> Any:
        """As the engine, or fail."""
        return await self._call(super().open, project, command)

    async def thaw(self, project: Any) -> Any:
        """As the engine, or fail."""
        return await self._call(super().thaw, project)


async def _is_clean(world: World) -> bool:
    left = [path for place in ("state", "trash") for path in (world.home / place).glob("*")]
    files = [path for path in (world.home / "projects").glob("*/*") if path.is_dir()]
    listed = await world.services.projects.list(LOCAL_ACTOR)
    return not (left or files or listed or await world.engine.list())


@pytest.mark.parametrize("side", ["before", "after"])
async def test_creation(tmp_path: Path, side: str) -> None:
    """Whichever call fails, a creation succeeds or leaves nothing; the sweep ends when none failed."""
    engine = UnsteadyEngine(tmp_path / "home", side)
    async with living(tmp_path / "home", engine=engine) as world:
        for number in range(1, 50):
            engine.fail_at(number)
            try:
                project = await world.project()
            except AnyonError:
                engine.fail_at(0)
                await until(lambda: _is_clean(world))
            else:
                has_failed = engine.has_failed
                engine.fail_at(0)
                await world.services.projects.delete(LOCAL_ACTOR, project.id)
                if not has_failed:
                    break
        assert 3 < number < 49


@pytest.mark.parametrize("side", ["before", "after"])
async def test_attempts(tmp_path: Path, side: str) -> None:
    """Whichever call fails, an attempt is refused without a trace or comes to its end; a new one works."""
    engine = UnsteadyEngine(tmp_path / "home", side)
    async with living(tmp_path / "home", engine=engine) as world:
        project = await world.project()

        async def is_quiet() -> bool:
            return await world.db.read(process_rows.open_ones) == []

        for number in range(1, 50):
            await engine.freeze(project.id)
            new = NewTask(project_id=project.id, title="t", description="echo x > x.txt")
            task = (await world.services.tasks.create(LOCAL_ACTOR, new)).task
            engine.fail_at(number)
            try:
                await world.services.attempts.start(LOCAL_ACTOR, task.id, agent="SHELL")
            except AnyonError:
                assert list(await world.services.attempts.list(LOCAL_ACTOR, task.id)) == []
            await until(is_quiet)
            has_failed = engine.has_failed
            engine.fail_at(0)
            attempt = await world.services.attempts.start(LOCAL_ACTOR, task.id, agent="SHELL")
            (process,) = await world.over(attempt)
            assert process.exit_code == 0
            (diff,) = await world.services.attempts.diff(LOCAL_ACTOR, attempt.id)
            assert diff.new_path == "x.txt"
            if not has_failed:
                break
        assert 1 < number < 49
