"""Use cases on attempts: start, follow up, stop, look at, merge, rebase, clean."""

from collections.abc import Sequence
from dataclasses import dataclass

from anyon.domain.actors import Actor
from anyon.domain.entities import Attempt, Merge, Process
from anyon.domain.ids import AttemptId, TaskId
from anyon.git.repository import BranchStatus, FileDiff


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStatus:
    """How an attempt's branch stands; ``branch`` is None once its worktree is gone."""

    target_branch: str
    branch: BranchStatus | None
    merges: Sequence[Merge]


class Attempts:
    """What users do with attempts. A foreign or unknown id is NotFoundError (``attempt_unknown``)."""

    async def start(
        self,
        actor: Actor,
        task_id: TaskId,
        agent: str | None = None,
        variant: str | None = None,
        base_branch: str | None = None,
    ) -> Attempt:
        """Record an attempt and launch its chain: setup script, agent, cleanup script, commit.

        Returns when its worktree is there and the chain goes on in the background. Nothing is
        left when it fails: MissingError ``agent_missing``, ``key_missing`` (with a hint);
        NotFoundError ``branch_unknown``; InvalidInputError ``agent_unknown``, ``variant_unknown``;
        ConflictError ``attempt_running`` when the task has an attempt that is not over.
        """
        raise NotImplementedError

    async def list(self, actor: Actor, task_id: TaskId) -> Sequence[Attempt]:
        """Return the task's attempts, newest first."""
        raise NotImplementedError

    async def list_of_project(self, actor: Actor, project_id: str) -> Sequence[Attempt]:
        """Return all attempts of a project, newest first."""
        raise NotImplementedError

    async def get(self, actor: Actor, attempt_id: AttemptId) -> Attempt:
        """Return one attempt."""
        raise NotImplementedError

    async def processes(self, actor: Actor, attempt_id: AttemptId) -> Sequence[Process]:
        """Return the attempt's processes, oldest first."""
        raise NotImplementedError

    async def follow_up(
        self, actor: Actor, attempt_id: AttemptId, prompt: str, variant: str | None = None
    ) -> Process:
        """Let the agent go on with *prompt* in its session; the chain is agent, cleanup, commit.

        ConflictError ``attempt_running``, ``worktree_deleted``; InvalidInputError ``prompt_empty``.
        """
        raise NotImplementedError

    async def stop(self, actor: Actor, attempt_id: AttemptId) -> None:
        """End what runs of the attempt, whole trees; what was changed is committed. Repeats are harmless."""
        raise NotImplementedError

    async def diff(
        self, actor: Actor, attempt_id: AttemptId, *, with_contents: bool = True
    ) -> Sequence[FileDiff]:
        """Return the change against the target branch, untracked files too; after a merge, the merge's."""
        raise NotImplementedError

    async def status(self, actor: Actor, attempt_id: AttemptId) -> AttemptStatus:
        """Return how the branch stands against its target, and the merges, newest first."""
        raise NotImplementedError

    async def merge(self, actor: Actor, attempt_id: AttemptId) -> str:
        """Squash the branch onto its target and return the commit; the task is done.

        ConflictError: ``attempt_running``, ``merge_conflict``, ``target_dirty``, ``nothing_to_merge``.
        """
        raise NotImplementedError

    async def rebase(self, actor: Actor, attempt_id: AttemptId, target: str | None = None) -> str:
        """Rebase onto *target* (default: its target branch; else it becomes that) and return the new head."""
        raise NotImplementedError

    async def delete_worktree(self, actor: Actor, attempt_id: AttemptId) -> None:
        """Remove worktree and branch; work that is not merged is saved to a hidden ref first."""
        raise NotImplementedError
