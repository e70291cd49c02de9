"""What is known of a container's kills for want of memory, and when the engine is asked."""

from pathlib import Path

from anyon.domain.ids import ProjectId, new_id
from anyon.engines.engine import Stats
from anyon.engines.memory import MemoryEngine
from anyon.processes.launchers import Launchers
from anyon.processes.settlements import Settlements


class Counting(MemoryEngine):
    """An engine that counts how often it is asked what a container uses."""

    asked = 0

    async def stats(self, project: ProjectId) -> Stats | None:
        """Answer as the engine does."""
        self.asked += 1
        return await super().stats(project)


async def test_of_a_container_that_was_just_started_nothing_is_asked(tmp_path: Path) -> None:
    """The first process after a start waits for no counts; of a container that ran before, they are asked for."""
    engine = Counting(hidden=[tmp_path])
    settlements = Settlements(engine, Launchers(engine), lambda _: tmp_path)
    project = ProjectId(new_id())
    settlements.container_started(project)
    assert await settlements.oom_kills(project) == 0
    assert engine.asked == 0
    settlements.forget(project)
    assert await settlements.oom_kills(project) == 0
    assert engine.asked == 1
    await engine.close()
