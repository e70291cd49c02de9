"""Looking wakes nothing: what may be asked of a project that sleeps was asked before it fell asleep."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.lifecycle.conftest import Life, begun, checkpoints_of, is_free
from tests.lifecycle.test_stops import ENGINES, real

from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.entities import Attempt, Project
from anyon.domain.errors import ConflictError, UnavailableError
from anyon.domain.states import Phase
from anyon.engines.engine import ContainerInfo, ContainerState
from anyon.git.repositories import GitRepository
from anyon.git.repository import BranchStatus
from anyon.services import views
from anyon.services.views import Views
from anyon.telemetry import Metrics
from anyon.testing.worlds import World, until

MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)


async def worked(life: Life, script: str = "echo x > x.txt") -> tuple[Project, Attempt]:
    """Return a project in which a task was done and that nobody has looked at since."""
    project = await life.world.project()
    return project, await worked_in(life, project, script)


async def worked_in(life: Life, project: Project, script: str) -> Attempt:
    """Let a task be done in a project."""
    attempt = await life.world.attempt(project, script)
    await life.world.over(attempt)
    await until(lambda: is_free(life, project))
    return attempt


async def seen(world: World, project: Project, attempt: Attempt) -> list[Any]:
    """Ask all that a page asks."""
    services = world.services
    return [
        await services.projects.branches(LOCAL_ACTOR, project.id),
        await services.saved_work.list(LOCAL_ACTOR, project.id),
        await services.attempts.status(LOCAL_ACTOR, attempt.id),
        await services.attempts.diff(LOCAL_ACTOR, attempt.id),
        await services.attempts.diff(LOCAL_ACTOR, attempt.id, with_contents=False),
    ]


async def refused(world: World, project: Project, attempt: Attempt) -> int:
    """Ask all that a page asks, one by one, and return how much of it is refused as asleep."""
    services = world.services
    count = 0
    for ask in (
        services.projects.branches(LOCAL_ACTOR, project.id),
        services.saved_work.list(LOCAL_ACTOR, project.id),
        services.attempts.status(LOCAL_ACTOR, attempt.id),
        services.attempts.diff(LOCAL_ACTOR, attempt.id),
        services.attempts.diff(LOCAL_ACTOR, attempt.id, with_contents=False),
    ):
        [answer] = await asyncio.gather(ask, return_exceptions=True)
        if isinstance(answer, ConflictError):
            assert answer.code == "project_asleep"
            assert "anyon project start" in answer.hint
            count += 1
        elif isinstance(answer, BaseException):
            raise answer
    return count


async def falls(life: Life, project: Project, minutes: int, phase: Phase) -> None:
    """Let time pass until the project is in *phase*; a chore of the server's may hold it for a moment."""
    await life.clock.advance(minutes * MINUTE)

    async def is_there() -> bool:
        await life.reconciler.tick()
        return await life.phase(project) is phase

    await until(is_there)


@asynccontextmanager
async def nothing_happens(life: Life, project: Project) -> AsyncIterator[None]:
    """Fail if the project's container, or what is recorded of it, is another one after the block."""
    before = await life.world.engine.inspect(project.id)
    phase = await life.phase(project)
    yield
    assert await life.world.engine.inspect(project.id) == before
    assert await life.phase(project) is phase


async def test_a_sleeping_project_answers_what_nobody_has_asked(life: Life) -> None:
    """Frozen, stopped, in a new life of the server, archived: each answer is there and git is not asked; then work renews it."""
    project, attempt = await worked(life)
    answers: list[list[Any]] = []
    for length, phase in ((6, Phase.FROZEN), (25, Phase.STOPPED), (60 * 24 * 8, Phase.ARCHIVED)):
        await falls(life, project, length, phase)
        async with nothing_happens(life, project):
            answers.append(await seen(life.world, project, attempt))
    assert answers[0] == answers[1] == answers[2]
    branches, saved, status, diff, stats = answers[0]
    assert {one.name for one in branches} == {"main", attempt.branch}
    assert saved == []
    assert (status.branch.ahead, status.branch.untracked) == (1, 0)
    assert [(one.new_path, one.new_content) for one in diff] == [("x.txt", "x\n")]
    assert [(one.new_path, one.new_content, one.additions) for one in stats] == [("x.txt", None, 1)]
    await life.world.services.goals.start(LOCAL_ACTOR, project.id)
    await until(lambda: is_free(life, project))
    assert await seen(life.world, project, attempt) == answers[0]
    await life.world.services.attempts.merge(LOCAL_ACTOR, attempt.id)
    await falls(life, project, 31, Phase.STOPPED)
    async with nothing_happens(life, project):
        assert (await seen(life.world, project, attempt))[2].merges


async def test_answers_outlive_the_server(life: Life) -> None:
    """A new life of the server, which nobody has asked anything, answers as the last would have."""
    project, attempt = await worked(life)
    await falls(life, project, 31, Phase.STOPPED)
    before = await seen(life.world, project, attempt)
    life.world = await life.world.reborn()
    try:
        await life.world.services.recover()
        async with nothing_happens(life, project):
            assert await seen(life.world, project, attempt) == before
    finally:
        await life.world.end()


async def test_a_project_that_was_not_asked_before_refuses(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the questions before its sleep left out all are refused, and all the same nothing is woken."""

    async def _unforeseen(*_: object, **__: object) -> None:
        return

    monkeypatch.setattr(Views, "foresee", _unforeseen)
    project, attempt = await worked(life)
    for length, phase in ((6, Phase.FROZEN), (25, Phase.STOPPED), (60 * 24 * 8, Phase.ARCHIVED)):
        await falls(life, project, length, phase)
        async with nothing_happens(life, project):
            assert await refused(life.world, project, attempt) == 5


@pytest.mark.parametrize("kind", ENGINES)
async def test_on_real_engines(tmp_path: Path, kind: str) -> None:
    """Bubblewrap and docker: frozen and stopped, all answers are there, and the container stays as it is."""
    async with real(tmp_path, kind) as (life, project):
        attempt = await worked_in(life, project, "echo x > x.txt")
        for length, phase in ((6, Phase.FROZEN), (25, Phase.STOPPED)):
            await falls(life, project, length, phase)
            async with nothing_happens(life, project):
                found = await seen(life.world, project, attempt)
            assert [one.new_path for one in found[3]] == ["x.txt"]


async def test_nothing_stale_is_told(life: Life) -> None:
    """What was seen before work is not told after it, where the project came to rest behind our back."""
    project, attempt = await worked(life)
    before = await seen(life.world, project, attempt)
    await life.world.engine.stop(project.id, grace=SECOND)
    assert await seen(life.world, project, attempt) == before, "nothing has changed it"
    await life.pass_time(SECOND)
    assert await life.phase(project) is Phase.STOPPED
    assert await seen(life.world, project, attempt) == before
    async with life.world.services.containers.awake(project, holder="w", reason="test"):
        pass
    await life.world.engine.stop(project.id, grace=SECOND)
    assert await refused(life.world, project, attempt) == 5


async def test_what_changes_in_idle_time_is_seen_before_the_sleep(life: Life) -> None:
    """A program that nobody holds the project for has written since a look: the sleeping project tells of it."""
    project, attempt = await worked(life)
    before = await seen(life.world, project, attempt)
    worktree = (
        Path(project.path) / ".worktrees" / Path(attempt_path(await found(life, attempt))).name
    )
    (worktree / "y.txt").write_text("late\n")
    await falls(life, project, 6, Phase.FROZEN)
    after = await seen(life.world, project, attempt)
    assert len(after[3]) == len(before[3]) + 1
    (worktree / "z.txt").write_text("while it is frozen: by nobody inside\n")
    await falls(life, project, 25, Phase.STOPPED)
    assert await seen(life.world, project, attempt) == after, "it was frozen: it is not asked again"


async def found(life: Life, attempt: Attempt) -> Attempt:
    """Return the attempt as it is recorded."""
    return await life.world.services.attempts.get(LOCAL_ACTOR, attempt.id)


def attempt_path(attempt: Attempt) -> str:
    """Return its worktree's path inside."""
    assert attempt.worktree is not None
    return attempt.worktree


async def test_a_question_that_fails_keeps_nobody_awake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted and refused later; the others are answered, and the project sleeps."""

    async def fails(*_: object, **__: object) -> BranchStatus:
        raise UnavailableError("git does not answer", code="git_failed")

    metrics = Metrics()
    async with begun(tmp_path, metrics=metrics) as life:
        project, attempt = await worked(life)
        monkeypatch.setattr(GitRepository, "status", fails)
        await falls(life, project, 6, Phase.FROZEN)
        assert await refused(life.world, project, attempt) == 1
        told = metrics.text()
        assert 'anyon_foresights_total{outcome="failed"} 1.0' in told
        assert 'anyon_foresights_total{outcome="refused"} 1.0' in told


async def test_what_takes_too_long_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time the project falls asleep without the rest, which is counted and refused later."""

    async def slow(*_: object, **__: object) -> Sequence[object]:
        await asyncio.sleep(600)
        return []

    metrics = Metrics()
    async with begun(tmp_path, metrics=metrics) as life:
        project, attempt = await worked(life)
        monkeypatch.setattr(GitRepository, "diff", slow)
        monkeypatch.setattr(views, "PATIENCE", timedelta(seconds=3))
        await falls(life, project, 6, Phase.FROZEN)
        assert await refused(life.world, project, attempt) >= 2
        assert 'anyon_foresights_total{outcome="late"} 0.0' not in metrics.text()


async def test_of_a_large_diff_the_contents_are_omitted(life: Life) -> None:
    """What changed in which file is told asleep too; the contents only with the container up."""
    script = "head -c 400000 /dev/urandom | base64 > noise"
    project, attempt = await worked(life, script)
    [awake] = await life.world.services.attempts.diff(LOCAL_ACTOR, attempt.id)
    assert awake.new_content
    await falls(life, project, 6, Phase.FROZEN)
    [asleep] = await life.world.services.attempts.diff(LOCAL_ACTOR, attempt.id)
    assert (asleep.new_path, asleep.additions) == (awake.new_path, awake.additions)
    assert (asleep.new_content, asleep.content_omitted) == (None, True)


async def test_a_merge_is_told_for_ever(life: Life) -> None:
    """The diff of a commit never changes: it is told after work too, once it was seen, its worktree gone."""
    project, attempt = await worked(life)
    attempts = life.world.services.attempts
    await attempts.merge(LOCAL_ACTOR, attempt.id)
    await attempts.delete_worktree(LOCAL_ACTOR, attempt.id)
    await until(lambda: is_free(life, project))
    await falls(life, project, 31, Phase.STOPPED)
    [before] = await attempts.diff(LOCAL_ACTOR, attempt.id)
    async with life.world.services.containers.awake(project, holder="w", reason="test"):
        pass
    await life.world.engine.stop(project.id, grace=SECOND)
    assert [before] == list(await attempts.diff(LOCAL_ACTOR, attempt.id))


async def test_a_look_waits_for_a_start_that_is_under_way(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work wakes the project; who looks meanwhile is answered by the running one, not refused."""
    project, attempt = await worked(life)
    await falls(life, project, 6, Phase.FROZEN)
    begins, goes_on = asyncio.Event(), asyncio.Event()
    thaw = life.world.engine.thaw

    async def slow(project_id: Any) -> ContainerInfo:
        begins.set()
        await goes_on.wait()
        return await thaw(project_id)

    monkeypatch.setattr(life.world.engine, "thaw", slow)
    starting = asyncio.create_task(life.world.services.goals.start(LOCAL_ACTOR, project.id))
    await begins.wait()
    looking = asyncio.create_task(seen(life.world, project, attempt))
    done, _ = await asyncio.wait({looking}, timeout=0.3)
    assert not done
    goes_on.set()
    await starting
    assert (await looking)[3]
    assert await life.state(project) is ContainerState.RUNNING


async def test_a_restore_forgets(life: Life) -> None:
    """One path put back under a frozen project, or all of it: what was seen before is not told any more."""
    project, attempt = await worked(life)
    use = checkpoints_of(life)
    (Path(project.path) / "one").write_text("1")
    first = (await use.take(LOCAL_ACTOR, project.id)).id
    await falls(life, project, 6, Phase.FROZEN)
    assert await refused(life.world, project, attempt) == 0
    await use.restores.path(LOCAL_ACTOR, project.id, first, b"workspace/one", is_forced=False)
    async with nothing_happens(life, project):
        assert await refused(life.world, project, attempt) == 5
    await falls(life, project, 25, Phase.STOPPED)
    assert await refused(life.world, project, attempt) == 0, "asked again on its way down"
    await use.restores.all_of(LOCAL_ACTOR, project.id, first, is_forced=False)
    assert await refused(life.world, project, attempt) == 5


async def test_work_at_the_last_moment_keeps_the_project_awake(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work that comes while the questions are asked does not wait for them, and there is no freeze."""
    project, _ = await worked(life)
    services = life.world.services
    foresee = Views.foresee
    worked_at_once: list[bool] = []

    async def with_work(self: Views, project: Project, **more: bool) -> None:
        async with services.containers.awake(project, holder="w", reason="test"):
            worked_at_once.append(True)
        await foresee(self, project, **more)

    monkeypatch.setattr(Views, "foresee", with_work)
    await life.clock.advance(6 * MINUTE)

    async def has_worked() -> bool:
        await life.reconciler.tick()
        return bool(worked_at_once)

    await until(has_worked)
    assert await life.phase(project) is Phase.RUNNING
