"""An attempt's way: worktree, chain, commit, review, follow-up, merge, cleanup."""

import asyncio
from pathlib import Path

import pytest

from anyon.domain.actors import LOCAL_ACTOR, Actor
from anyon.domain.errors import AnyonError, ConflictError, MissingError, NotFoundError
from anyon.domain.ids import TaskId, UserId, new_id
from anyon.domain.states import ExitReason, ProcessStatus, RunReason, TaskStatus
from anyon.engines.engine import ContainerState
from anyon.services.tasks import NewTask
from anyon.testing.worlds import GRACE, World, living, until


async def test_runs_to_review(world: World) -> None:
    """An attempt runs its agent in a worktree, commits what it changed and puts the task in review."""
    project = await world.project()
    attempt = await world.attempt(project, "echo hello; echo content > made.txt")
    processes = await world.over(attempt)
    assert [(p.run_reason, p.status) for p in processes] == [
        (RunReason.CODINGAGENT, ProcessStatus.COMPLETED)
    ]
    assert await world.printed(processes[0]) == b"hello\n"
    assert processes[0].before_head_commit != processes[0].after_head_commit
    view = await world.services.tasks.get(LOCAL_ACTOR, attempt.task_id)
    assert (view.task.status, view.executor) == (TaskStatus.INREVIEW, "SHELL")
    (diff,) = await world.services.attempts.diff(LOCAL_ACTOR, attempt.id)
    assert (diff.new_path, diff.new_content) == ("made.txt", "content\n")
    status = await world.services.attempts.status(LOCAL_ACTOR, attempt.id)
    assert status.branch is not None
    assert (status.branch.ahead, status.branch.behind, status.branch.uncommitted) == (1, 0, 0)


async def test_the_chain(world: World) -> None:
    """Setup (in the workspace, once), agent, cleanup run in that order; a second attempt needs no setup."""
    project = await world.project(
        setup_script="pwd; echo x >> /tmp/ran; touch installed",
        cleanup_script="cat made.txt; rm made.txt",
    )
    script = "test -e /workspace/installed && echo ok > made.txt; echo kept > kept.txt"
    first = await world.over(await world.attempt(project, script))
    setup, agent, cleanup = first
    assert [p.run_reason for p in first] == [
        RunReason.SETUPSCRIPT,
        RunReason.CODINGAGENT,
        RunReason.CLEANUPSCRIPT,
    ]
    assert {p.status for p in first} == {ProcessStatus.COMPLETED}
    assert await world.printed(setup) == b"/workspace\n"
    assert await world.printed(cleanup) == b"ok\n"
    assert agent.after_head_commit != cleanup.after_head_commit
    second = await world.over(await world.attempt(project, script))
    assert [p.run_reason for p in second] == [RunReason.CODINGAGENT, RunReason.CLEANUPSCRIPT]


async def test_two_attempts_share_one_setup(world: World) -> None:
    """Two attempts that begin at once wait for one setup: the script itself runs once."""
    project = await world.project(setup_script="sleep 0.5; echo x >> /workspace/setups")
    pair = await asyncio.gather(*(world.attempt(project, "cat /workspace/setups") for _ in "ab"))
    for attempt in pair:
        processes = await world.over(attempt)
        assert processes[-1].run_reason is RunReason.CODINGAGENT
        assert await world.printed(processes[-1]) == b"x\n"


async def test_a_failed_setup_ends_the_chain(world: World) -> None:
    """When the setup script fails no agent is started, and the next attempt tries the setup anew."""
    project = await world.project(setup_script="echo no >&2; exit 3")
    for _ in range(2):
        attempt = await world.attempt(project, "echo never")
        (setup,) = await world.over(attempt)
        assert (setup.run_reason, setup.status) == (RunReason.SETUPSCRIPT, ProcessStatus.FAILED)
        assert setup.exit_code == 3
        view = await world.services.tasks.get(LOCAL_ACTOR, attempt.task_id)
        assert view.last_attempt_failed
        assert view.task.status is TaskStatus.INREVIEW


async def test_a_failed_agent_keeps_its_work(world: World) -> None:
    """What an agent changed before it failed is committed; nothing of the chain comes after it."""
    project = await world.project(cleanup_script="echo never")
    attempt = await world.attempt(project, "echo half > half.txt; exit 7")
    (agent,) = await world.over(attempt)
    assert (agent.status, agent.exit_code) == (ProcessStatus.FAILED, 7)
    (diff,) = await world.services.attempts.diff(LOCAL_ACTOR, attempt.id)
    assert diff.new_path == "half.txt"


async def test_one_attempt_at_a_time(world: World) -> None:
    """Starting a task twice makes one attempt; following it up while it runs is refused; deleting it too."""
    project = await world.project()
    new = NewTask(project_id=project.id, title="t", description="read line < /workspace/go")
    task = (await world.services.tasks.create(LOCAL_ACTOR, new)).task
    await world.services.processes.exec(LOCAL_ACTOR, project.id, ["mkfifo", "go"])
    start = world.services.attempts.start
    results = await asyncio.gather(
        *(start(LOCAL_ACTOR, task.id, agent="SHELL") for _ in range(3)), return_exceptions=True
    )
    errors = [result for result in results if isinstance(result, ConflictError)]
    assert [error.code for error in errors] == ["attempt_running"] * 2
    (attempt,) = await world.services.attempts.list(LOCAL_ACTOR, task.id)
    calls = (
        (world.services.attempts.follow_up(LOCAL_ACTOR, attempt.id, "more"), "attempt_running"),
        (world.services.attempts.merge(LOCAL_ACTOR, attempt.id), "attempt_running"),
        (world.services.attempts.delete_worktree(LOCAL_ACTOR, attempt.id), "attempt_running"),
        (world.services.tasks.delete(LOCAL_ACTOR, task.id), "task_running"),
    )
    for call, code in calls:
        with pytest.raises(ConflictError) as caught:
            await call
        assert caught.value.code == code
    await world.services.attempts.stop(LOCAL_ACTOR, attempt.id)


async def test_stop(world: World) -> None:
    """A stop ends the whole tree, one that ignores TERM too; work and output stay, the chain ends."""
    project = await world.project(cleanup_script="echo never")
    script = "trap '' TERM; echo work > work.txt; echo begun; (while :; do sleep 1; done)"
    attempt = await world.attempt(project, script)
    (agent,) = await world.services.attempts.processes(LOCAL_ACTOR, attempt.id)
    chunks = world.services.processes.follow(LOCAL_ACTOR, agent.id)
    assert (await anext(aiter(chunks))).data == b"begun\n"
    await world.services.attempts.stop(LOCAL_ACTOR, attempt.id)
    await world.services.attempts.stop(LOCAL_ACTOR, attempt.id)
    (agent,) = await world.services.attempts.processes(LOCAL_ACTOR, attempt.id)
    assert (agent.status, agent.exit_reason) == (
        ProcessStatus.KILLED,
        ExitReason.KILLED_BY_USER,
    )
    view = await world.services.tasks.get(LOCAL_ACTOR, attempt.task_id)
    assert (view.task.status, view.has_in_progress_attempt) == (TaskStatus.INREVIEW, False)
    (diff,) = await world.services.attempts.diff(LOCAL_ACTOR, attempt.id)
    assert diff.new_path == "work.txt"


async def test_a_stop_before_the_start(world: World) -> None:
    """An attempt that waits for another's setup can be stopped: it never starts."""
    project = await world.project(setup_script="sleep 300")
    first, second = [await world.attempt(project, "true") for _ in "ab"]
    await world.services.attempts.stop(LOCAL_ACTOR, second.id)
    (waiting,) = await world.services.attempts.processes(LOCAL_ACTOR, second.id)
    assert (waiting.status, waiting.exit_code) == (ProcessStatus.KILLED, None)
    assert await world.processes.state(project.id, waiting.id) is None
    await world.services.attempts.stop(LOCAL_ACTOR, first.id)


async def test_follow_up_resumes_the_session(world: World) -> None:
    """A follow-up runs in the same worktree and session, as another process of the attempt."""
    project = await world.project()
    attempt = await world.attempt(project, "say one\nwrite a.txt A", agent="SCRIPTED")
    (first,) = await world.over(attempt)
    assert first.session_id
    await world.services.attempts.follow_up(LOCAL_ACTOR, attempt.id, "say two\nrun cat a.txt")
    _, second = await world.over(attempt)
    assert second.status is ProcessStatus.COMPLETED
    assert b'"turn":2' in await world.printed(second)
    entries: dict[int, str] = {}
    async for patches in world.services.processes.conversation(LOCAL_ACTOR, second.id):
        entries |= {patch.index: patch.entry["content"] for patch in patches}
    assert "two" in entries.values()


async def test_merge(world: World) -> None:
    """A merge puts one commit on the target, whose work tree follows; the task is done; again is the same."""
    project = await world.project()
    attempt = await world.attempt(project, "echo new > new.txt")
    await world.over(attempt)
    commit = await world.services.attempts.merge(LOCAL_ACTOR, attempt.id)
    assert (Path(project.path) / "new.txt").read_text() == "new\n"
    view = await world.services.tasks.get(LOCAL_ACTOR, attempt.task_id)
    assert (view.task.status, view.has_merged_attempt) == (TaskStatus.DONE, True)
    assert await world.services.attempts.merge(LOCAL_ACTOR, attempt.id) == commit
    status = await world.services.attempts.status(LOCAL_ACTOR, attempt.id)
    assert [merge.commit for merge in status.merges] == [commit]
    (diff,) = await world.services.attempts.diff(LOCAL_ACTOR, attempt.id)
    assert diff.new_path == "new.txt"


async def test_conflicts_change_nothing(world: World) -> None:
    """Of two attempts that conflict the second's merge and rebase are refused, and nothing has changed."""
    project = await world.project()
    first, second = [await world.attempt(project, f"echo {word} > same.txt") for word in "ab"]
    for attempt in (first, second):
        await world.over(attempt)
    await world.services.attempts.merge(LOCAL_ACTOR, first.id)
    for call in (world.services.attempts.merge, world.services.attempts.rebase):
        with pytest.raises(ConflictError) as caught:
            await call(LOCAL_ACTOR, second.id)
        assert caught.value.code == "merge_conflict"
    assert (Path(project.path) / "same.txt").read_text() == "a\n"
    view = await world.services.tasks.get(LOCAL_ACTOR, second.task_id)
    assert view.task.status is TaskStatus.INREVIEW


async def test_cleanup_saves_unmerged_work(world: World) -> None:
    """A worktree that goes leaves its unmerged work in a hidden ref; the attempt cannot be followed up."""
    project = await world.project()
    attempt = await world.attempt(project, "echo new > new.txt")
    await world.over(attempt)
    await world.services.attempts.delete_worktree(LOCAL_ACTOR, attempt.id)
    await world.services.attempts.delete_worktree(LOCAL_ACTOR, attempt.id)
    found = await world.services.attempts.get(LOCAL_ACTOR, attempt.id)
    assert found.worktree_deleted
    (saved,) = await world.repositories.of(project.id).saved_work()
    assert saved.ref == found.saved_ref
    with pytest.raises(ConflictError) as caught:
        await world.services.attempts.follow_up(LOCAL_ACTOR, attempt.id, "more")
    assert caught.value.code == "worktree_deleted"


async def test_what_is_missing_is_said_first(world: World) -> None:
    """A missing key, a missing program, an unknown agent, variant or branch: an error, and no attempt."""
    project = await world.project()
    task = (
        await world.services.tasks.create(LOCAL_ACTOR, NewTask(project_id=project.id, title="t"))
    ).task
    start = world.services.attempts.start
    cases = (
        ({"agent": "CODEX"}, "key_missing"),
        ({"agent": "NOBODY"}, "agent_unknown"),
        ({"agent": "SHELL", "variant": "ODD"}, "variant_unknown"),
        ({"agent": "SHELL", "base_branch": "nowhere"}, "branch_unknown"),
        ({"agent": "SHELL", "base_branch": "--output=x"}, "bad_ref_name"),
    )
    for words, code in cases:
        with pytest.raises(AnyonError) as caught:
            await start(LOCAL_ACTOR, task.id, **words)
        assert caught.value.code == code
    assert list(await world.services.attempts.list(LOCAL_ACTOR, task.id)) == []
    view = await world.services.tasks.get(LOCAL_ACTOR, task.id)
    assert view.task.status is TaskStatus.TODO
    assert list(Path(project.path).glob(".worktrees/*-anyon-*")) == []


async def test_a_missing_program(tmp_path: Path) -> None:
    """With its key but without its program an agent is refused, with how to install it."""
    secrets = {"OPENAI_API_KEY": "k", "CODEX_API_KEY": "k", "ANTHROPIC_API_KEY": "k"}
    async with living(tmp_path / "home", environment=secrets) as world:
        project = await world.project()
        new = NewTask(project_id=project.id, title="t")
        task = (await world.services.tasks.create(LOCAL_ACTOR, new)).task
        with pytest.raises(MissingError) as caught:
            await world.services.attempts.start(LOCAL_ACTOR, task.id, agent="codex")
        assert caught.value.code == "agent_missing"
        assert "npm install" in caught.value.hint


async def test_korean_titles_make_safe_branches(world: World) -> None:
    """Branches of titles in Hangul, of emoji and of shell words are plain ASCII, and told apart."""
    project = await world.project()
    titles = ["로그인 고치기", "🎉" * 300, "$(id); rm -rf /", "../../x"]
    attempts = [await world.attempt(project, "true", title=title) for title in titles]
    branches = {attempt.branch for attempt in attempts}
    assert len(branches) == len(titles)
    for attempt in attempts:
        assert attempt.branch.removeprefix("anyon/").replace("-", "").isalnum()
        assert attempt.branch.isascii()
        (process,) = await world.over(attempt)
        assert process.status is ProcessStatus.COMPLETED


async def test_strangers(world: World) -> None:
    """Another user's attempt, and one that is not there, are answered alike by every use case."""
    project = await world.project()
    attempt = await world.attempt(project, "true")
    await world.over(attempt)
    stranger = Actor(UserId(new_id()))
    attempts = world.services.attempts
    for call in (
        attempts.get(stranger, attempt.id),
        attempts.processes(stranger, attempt.id),
        attempts.follow_up(stranger, attempt.id, "x"),
        attempts.stop(stranger, attempt.id),
        attempts.diff(stranger, attempt.id),
        attempts.status(stranger, attempt.id),
        attempts.merge(stranger, attempt.id),
        attempts.rebase(stranger, attempt.id),
        attempts.delete_worktree(stranger, attempt.id),
        attempts.start(stranger, attempt.task_id),
        attempts.list(stranger, attempt.task_id),
        attempts.start(LOCAL_ACTOR, TaskId(new_id())),
    ):
        with pytest.raises(NotFoundError):
            await call


async def test_a_container_that_goes_away(world: World) -> None:
    """When the container is removed behind our back, the process is over and the attempt ends."""
    project = await world.project()
    attempt = await world.attempt(project, "echo begun; sleep 600")
    (agent,) = await world.services.attempts.processes(LOCAL_ACTOR, attempt.id)
    chunks = world.services.processes.follow(LOCAL_ACTOR, agent.id)
    assert (await anext(aiter(chunks))).data == b"begun\n"
    await world.engine.remove(project.id)
    await world.processes.container_stopped(project.id, ExitReason.CONTAINER_STOPPED)
    (agent,) = await world.over(attempt)
    assert agent.status is ProcessStatus.FAILED

    async def is_free() -> bool:
        found = await world.services.tasks.get(LOCAL_ACTOR, attempt.task_id)
        return not found.has_in_progress_attempt

    await until(is_free)


async def test_looking_at_a_sleeping_project_does_not_wake_it(world: World) -> None:
    """An open page's questions are answered while the project sleeps, as they were before.

    After work they are not any more, until it was awake again: what was seen before it is stale.
    """
    project = await world.project()
    attempt = await world.attempt(project, "echo x > x.txt")
    await world.over(attempt)
    attempts = world.services.attempts

    async def is_at_rest() -> bool:
        return list(await world.services.leases.of(project.id)) == []

    await until(is_at_rest)
    seen = (
        await attempts.status(LOCAL_ACTOR, attempt.id),
        await attempts.diff(LOCAL_ACTOR, attempt.id),
    )
    for step in (world.engine.freeze(project.id), world.engine.stop(project.id, grace=GRACE)):
        before = await step
        assert await attempts.status(LOCAL_ACTOR, attempt.id) == seen[0]
        assert await attempts.diff(LOCAL_ACTOR, attempt.id) == seen[1]
        now = await world.engine.inspect(project.id)
        assert now is not None
        assert now.state is before.state
    await attempts.merge(LOCAL_ACTOR, attempt.id)
    await world.engine.stop(project.id, grace=GRACE)
    with pytest.raises(ConflictError) as refused:
        await attempts.status(LOCAL_ACTOR, attempt.id)
    assert refused.value.code == "project_asleep"
    now = await world.engine.inspect(project.id)
    assert now is not None
    assert now.state is ContainerState.STOPPED
    await world.services.goals.start(LOCAL_ACTOR, project.id)
    await until(is_at_rest)
    await world.services.goals.stop(LOCAL_ACTOR, project.id, is_forced=False)
    status = await attempts.status(LOCAL_ACTOR, attempt.id)
    assert len(status.merges) == 1
    assert status.branch != seen[0].branch
