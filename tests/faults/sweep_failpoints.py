"""Kill a server at each failpoint, start it again, and look whether all agree.

`python -m tests.faults.sweep_failpoints ENGINE DIRECTORY [POINT…]`: a line for each point with the
seconds that it took until database, engine and disk agreed; the last is `ok`, how many points, and
the longest of these times. `… ENGINE DIRECTORY unsafe NAME` does it once with one step out of order:
then the look must find it.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.failpoint_lives import create, delete, stop
from tests.faults.failpoint_pasts import put_back
from tests.faults.failpoint_places import roll_back
from tests.faults.failpoint_scenarios import SCENARIOS
from tests.faults.failpoint_stages import Scenario, Stage

from anyon.db import projects as project_rows
from anyon.domain.states import Phase
from anyon.services import swaps
from anyon.services.builders import Services
from anyon.services.journals import Journal
from anyon.services.projects import Projects
from anyon.services.steps import Steps


def die(stage: Stage, point: str, scenario: Scenario) -> float:
    """Let the server die at *point*; return how long the next life needed until all agreed."""
    stage.tidy()
    after = scenario.act(stage, point)
    if scenario.is_apart:
        return 0.0
    assert stage.server.end() == -signal.SIGKILL, f"the server did not die at {point}"
    stage.server.start(**scenario.settings)
    stage.server.answer()
    taken = stage.agreed()
    if after is not None:
        after()
    return taken


def sweep(stage: Stage, points: list[str]) -> None:
    """Die at each point."""
    longest, count = 0.0, 0
    for point in points:
        began = time.monotonic()
        try:
            taken = die(stage, point, SCENARIOS[point])
        except BaseException:
            print(f"at {point}:\n{stage.server.said()}")
            raise
        print(f"{point}: agreed after {taken:.2f} s, {time.monotonic() - began:.1f} s", flush=True)
        longest, count = max(longest, taken), count + 1
    print(f"ok {count} {longest:.2f}")


async def _called_stopped(steps: Any, _: Any) -> bool:
    # No save while it stops, and before the one that follows it is called stopped.
    async def save_too_late(project: Any) -> None:
        await steps._containers.record(project.id, Phase.STOPPED, reason="saved")
        await SAVE_STOPPED(steps, project)

    steps._save_stopped = save_too_late
    return True


async def _called_deleted(projects: Projects, project: Any) -> None:
    now = projects._clock.now()
    await projects._db.write(
        project_rows.set_phase, project.id, Phase.ABSENT, now, reason="too_soon"
    )
    await ERASE(projects, project)


async def _not_undone(*_: object) -> None:
    return


def _not_noted(*_: object) -> None:
    return


def _in_two_steps(name: bytes, *, one: int, other: int) -> bool:
    os.rename(name, b"former", src_dir_fd=other, dst_dir_fd=one)
    return False


SAVE_STOPPED, ERASE = Steps._save_stopped, Projects.erase
UNSAFE: dict[str, tuple[Any, str, Any, Callable[[Stage, str], object], str]] = {
    "stopped_before_saved": (Steps, "_save_stopping", _called_stopped, stop, "checkpoint.pack_put"),
    "deleted_before_removed": (
        Projects,
        "erase",
        _called_deleted,
        delete,
        "delete.processes_abandoned",
    ),
    "path_put_in_by_two_steps": (
        swaps,
        "exchange",
        _in_two_steps,
        put_back,
        "path_restore.exchanged",
    ),
    "rollback_not_noted": (Journal, "begin_undoing", _not_noted, roll_back, "rollback.unmounted"),
    "creation_not_undone": (Services, "_recover", _not_undone, create, "create.container_up"),
}
"""What is broken, by what, and the story and the point at which that shows."""


def find(stage: Stage, name: str) -> None:
    """Die with one step out of order; what is wrong then must be seen."""
    owner, attribute, broken, act, point = UNSAFE[name]

    def patch() -> None:
        setattr(owner, attribute, broken)

    stage.server.kill()
    if SCENARIOS[point].is_apart:
        patch()
        try:
            act(stage, point)
        except AssertionError as error:
            print(f"found {error}")
            return
        raise AssertionError(f"{name} was not seen")
    stage.server.start(patch=patch)
    stage.server.answer()
    act(stage, point)
    assert stage.server.end() == -signal.SIGKILL
    stage.server.start(patch=patch)
    stage.server.answer()
    try:
        stage.agreed(within=3.0)
    except AssertionError as error:
        print(f"found {error}")
        return
    raise AssertionError(f"{name} was not seen")


def main(engine: str, top: Path, words: list[str]) -> None:
    """Sweep, or look for one thing that is broken; leave nothing behind."""
    # A name of its own: what an earlier sweep left behind is not taken for ours.
    stage = Stage(top / f"sweep-{engine}-{os.getpid()}", engine)
    stage.server.start()
    try:
        stage.server.answer()
        if words[:1] == ["unsafe"]:
            find(stage, words[1])
        else:
            mine = [p for p, scenario in SCENARIOS.items() if engine in scenario.engines]
            sweep(stage, words or mine)
    finally:
        stage.leave_nothing()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
