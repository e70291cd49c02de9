"""An attempt's way: worktree, chain, commit, review, merge."""

from anyon.domain.actors import LOCAL_ACTOR
from anyon.domain.states import ProcessStatus, RunReason, TaskStatus
from anyon.testing.worlds import World


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
