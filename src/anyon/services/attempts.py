"""Use cases on attempts: start, follow up, stop, look at, merge, rebase, clean."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import PurePosixPath

import structlog
from sqlalchemy import Connection

from anyon.clock import Clock
from anyon.db import attempts as attempt_rows
from anyon.db import merges as merge_rows
from anyon.db import processes as process_rows
from anyon.db.databases import Database
from anyon.domain import actions, names, prompts
from anyon.domain.actors import Actor
from anyon.domain.entities import Attempt, Merge, Process, Project, Task
from anyon.domain.errors import ConflictError, InvalidInputError
from anyon.domain.ids import AttemptId, PictureId, ProjectId, TaskId, new_id
from anyon.domain.states import Phase, RunReason
from anyon.git.names import branch_for
from anyon.git.repository import BranchStatus, FileDiff, Repositories, Repository
from anyon.locks import Locks
from anyon.services import claims, pictures
from anyon.services.chains import new_process
from anyon.services.containers import Containers
from anyon.services.feed import Change, Feed, Kind
from anyon.services.launches import Launches, Profile
from anyon.services.runs import Due, Runs
from anyon.services.spares import Spares
from anyon.services.supervisors import Supervisor
from anyon.services.views import Views
from anyon.telemetry import Metrics
from anyon.telemetry.traces import span

log = structlog.get_logger(__name__)
PREFIX = "anyon"
"""What the branches of attempts begin with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStatus:
    """How an attempt's branch stands; ``branch`` is None once its worktree is gone."""

    target_branch: str
    branch: BranchStatus | None
    merges: Sequence[Merge]


class Attempts:
    """What users do with attempts. A foreign or unknown id is NotFoundError (``attempt_unknown``)."""

    def __init__(
        self,
        *,
        db: Database,
        containers: Containers,
        repositories: Repositories,
        launches: Launches,
        runs: Runs,
        feed: Feed,
        clock: Clock,
        supervisor: Supervisor,
        views: Views,
        metrics: Metrics | None = None,
    ) -> None:
        self._metrics = metrics or Metrics()
        self._db = db
        self._containers = containers
        self._repositories = repositories
        self._launches = launches
        self._runs = runs
        self._feed = feed
        self._clock = clock
        self._supervisor = supervisor
        self._views = views
        self._spares = Spares(
            containers=containers, repositories=repositories, clock=clock, supervisor=supervisor
        )
        self._locks = Locks[AttemptId]()

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
        task, project = await self._db.read(claims.task_of, actor.user_id, task_id)
        profile = self._launches.profile(project, agent, variant)
        self._launches.secrets(profile.agent)
        with span("attempt.start", task=task_id, agent=profile.agent.name):
            work = self._start(task, project, profile, base_branch)
            return await self._supervisor.finish(work, name=f"start of an attempt at {task_id}")

    async def _start(
        self, task: Task, project: Project, profile: Profile, base: str | None
    ) -> Attempt:
        began = self._clock.monotonic()
        believed = base or await self._spares.base(project)
        now = self._clock.now()
        attempt = Attempt(
            id=(attempt_id := AttemptId(new_id())),
            task_id=task.id,
            project_id=project.id,
            branch=branch_for(PREFIX, attempt_id, task.title, width=8),
            target_branch=believed,
            agent=profile.agent.name,
            variant=profile.variant,
            created_at=now,
            updated_at=now,
        )
        first = new_process(project.id, attempt_id, claims.chain(task, project, profile), now)
        claim = partial(claims.claim, attempt=attempt, first=first, now=now)
        try:
            async with self._hold(project, first, also=claim) as hold:
                await self._launches.check_program(project, profile.agent)
                attempt, first, due = await self._begun(
                    project, attempt, first, is_current=base is None
                )
                run = self._runs.begin(first, hold=hold.pop_all(), due=due)
                run.when_started = partial(self._observe_start, project.phase, began)
        except Exception:
            await self._db.write(claims.unclaim, attempt, task.status, self._clock.now())
            raise
        if base is None:
            self._spares.learn_base(project.id, attempt.target_branch)
        self._publish(attempt)
        self._runs.publish(first)
        self._spares.make_next(project, attempt.target_branch, after=run.started)
        log.info("attempt.started", attempt=attempt.id, agent=attempt.agent)
        return attempt

    def _observe_start(self, phase: Phase, began: float) -> None:
        tier = phase.value if phase in {Phase.RUNNING, Phase.FROZEN, Phase.ARCHIVED} else "stopped"
        self._metrics.task_started(tier, self._clock.monotonic() - began)

    async def _begun(
        self, project: Project, attempt: Attempt, first: Process, *, is_current: bool
    ) -> tuple[Attempt, Process, Due | None]:
        """Make the worktree and record where it is and what it begins with."""
        await self._spares.settled(project.id)
        begun = await self._launches.begin_worktree(project, attempt, is_current=is_current)
        attempt = replace(attempt, worktree=str(begun.path), target_branch=begun.base)
        first = replace(first, before_head_commit=begun.head)
        is_due = await self._db.write(claims.begin, attempt, first)
        if not is_due or first.run_reason is RunReason.SETUPSCRIPT:  # it waits for its turn first
            return attempt, first, None
        return attempt, first, Due(is_stopping=False, attempt=attempt, project=project)

    async def list(self, actor: Actor, task_id: TaskId) -> Sequence[Attempt]:
        """Return the task's attempts, newest first; NotFoundError (``task_unknown``)."""
        return await self._db.read(claims.attempts_of, actor.user_id, task_id)

    async def list_of_project(self, actor: Actor, project_id: ProjectId) -> Sequence[Attempt]:
        """Return all attempts of a project, newest first."""
        return await self._db.read(attempt_rows.of_project, actor.user_id, project_id)

    async def get(self, actor: Actor, attempt_id: AttemptId) -> Attempt:
        """Return one attempt."""
        return (await self._found(actor, attempt_id)).attempt

    async def processes(self, actor: Actor, attempt_id: AttemptId) -> Sequence[Process]:
        """Return the attempt's processes, oldest first."""
        return await self._db.read(claims.processes_of, actor.user_id, attempt_id)

    async def follow_up(
        self,
        actor: Actor,
        attempt_id: AttemptId,
        prompt: str,
        variant: str | None = None,
        picture_ids: Sequence[PictureId] = (),
    ) -> Process:
        """Let the agent go on with *prompt* in its session; the chain is agent, cleanup, commit.

        The pictures are attached to the task. ConflictError ``attempt_running``, ``worktree_deleted``;
        InvalidInputError ``prompt_empty``, ``too_long``; MissingError ``agent_missing``,
        ``key_missing``; NotFoundError ``image_unknown``.
        """
        if not names.text(prompt, "the prompt").strip():
            raise InvalidInputError("the prompt is empty", code="prompt_empty")
        found = await self._found(actor, attempt_id)
        _ = found.worktree
        attempt, project = found.attempt, found.project
        profile = self._launches.profile(project, attempt.agent, variant or attempt.variant)
        self._launches.secrets(profile.agent)
        await self._db.read(pictures.check, actor.user_id, attempt.task_id, picture_ids)
        claim = partial(claims.claim_more, user=actor.user_id, attached=picture_ids)
        work = self._follow_up(found, profile, prompt, claim)
        return await self._supervisor.finish(work, name=f"follow-up of {attempt_id}")

    async def _follow_up(
        self,
        found: claims.Found,
        profile: Profile,
        prompt: str,
        claim: Callable[[Connection, Attempt, Process, datetime], None],
    ) -> Process:
        attempt, project = found.attempt, found.project
        async with self._lock(attempt.id):
            action = actions.agent(
                prompt,
                profile.agent.name,
                profile.variant,
                session_id=await self._db.read(claims.session_of, attempt),
                then=claims.cleanup(project),
            )
            now = self._clock.now()
            process = new_process(project.id, attempt.id, action, now)
            async with self._hold(project, process) as hold:
                await self._launches.check_program(project, profile.agent)
                await self._db.write(claim, attempt, process, now)
                self._runs.begin(process, hold=hold.pop_all())
            self._runs.publish(process)
            return process

    @asynccontextmanager
    async def _hold(
        self,
        project: Project,
        process: Process,
        *,
        also: Callable[[Connection], object] | None = None,
    ) -> AsyncIterator[AsyncExitStack]:
        """Hold the container for a process that is about to begin; its run may take the hold over."""
        reason = str(process.run_reason)
        awake = self._containers.awake(project, holder=process.id, reason=reason, also=also)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(awake)
            yield stack

    async def stop(self, actor: Actor, attempt_id: AttemptId) -> None:
        """End what runs of the attempt, whole trees; what was changed is committed. Repeats are harmless."""
        await self._found(actor, attempt_id)
        await self._supervisor.finish(self._stop(attempt_id), name=f"end of {attempt_id}")

    async def _stop(self, attempt_id: AttemptId) -> None:
        patience = 100
        # A process that ends of itself just then may still be followed by the next of its chain.
        while running := await self._db.read(process_rows.open_ones, attempt=attempt_id):
            for process in running:
                if self._runs.find(process.id) is None:  # recorded, but not taken up yet
                    patience -= 1
                    await self._clock.sleep(timedelta(milliseconds=50))
                await self._runs.stop(process)
            if patience <= 0:
                raise ConflictError(
                    "nobody carries the attempt's processes here",
                    code="attempt_not_carried",
                    hint="Another server has the project; try again in a minute.",
                )

    async def diff(
        self, actor: Actor, attempt_id: AttemptId, *, with_contents: bool = True
    ) -> Sequence[FileDiff]:
        """Return the change against the target branch, untracked files too; after a merge, the merge's.

        Wakes nothing: see ``Views``.
        """
        found = await self._found(actor, attempt_id)
        return await self._views.diff(found.project, found.attempt, with_contents=with_contents)

    async def status(self, actor: Actor, attempt_id: AttemptId) -> AttemptStatus:
        """Return how the branch stands against its target, and the merges, newest first."""
        found = await self._found(actor, attempt_id)
        branch = await self._views.status(found.project, found.attempt)
        merges = await self._db.read(merge_rows.of_attempt, actor.user_id, attempt_id)
        target = found.attempt.target_branch
        return AttemptStatus(target_branch=target, branch=branch, merges=merges)

    async def merge(self, actor: Actor, attempt_id: AttemptId) -> str:
        """Squash the branch onto its target and return the commit; the task is done.

        ConflictError: ``attempt_running``, ``merge_conflict``, ``target_dirty``, ``worktree_deleted``.
        """
        found = await self._found(actor, attempt_id)
        work = self._merge(found, found.worktree)
        return await self._supervisor.finish(work, name=f"merge of {attempt_id}")

    async def _merge(self, found: claims.Found, worktree: PurePosixPath) -> str:
        attempt, task = found.attempt, found.task
        async with self._quiet(found) as repository:
            await repository.commit_all(worktree, prompts.commit_message(task.title))
            commit = await repository.squash_merge(
                worktree,
                branch=attempt.branch,
                target=attempt.target_branch,
                message=prompts.commit_message(task.title, task.description),
            )
            merge = Merge(
                id=new_id(),
                attempt_id=attempt.id,
                commit=commit,
                target_branch=attempt.target_branch,
                created_at=self._clock.now(),
            )
            await self._db.write(claims.record_merge, attempt, merge)
        self._publish(attempt)
        log.info("attempt.merged", attempt=attempt.id, commit=commit)
        return commit

    async def rebase(self, actor: Actor, attempt_id: AttemptId, target: str | None = None) -> str:
        """Rebase onto *target* (default: its target branch; else it becomes that) and return the new head.

        ConflictError: ``attempt_running``, ``merge_conflict``, ``worktree_deleted``.
        """
        found = await self._found(actor, attempt_id)
        work = self._rebase(found, found.worktree, target or found.attempt.target_branch)
        return await self._supervisor.finish(work, name=f"rebase of {attempt_id}")

    async def _rebase(self, found: claims.Found, worktree: PurePosixPath, target: str) -> str:
        async with self._quiet(found) as repository:
            await repository.commit_all(worktree, prompts.commit_message(found.task.title))
            head = await repository.rebase(worktree, target=target)
            changes = {"target_branch": target, "updated_at": self._clock.now()}
            await self._db.write(attempt_rows.change, found.attempt.id, changes)
        self._publish(found.attempt)
        return head

    async def delete_worktree(self, actor: Actor, attempt_id: AttemptId) -> None:
        """Remove worktree and branch; work that is not merged is saved to a hidden ref first. Repeats are harmless.

        ConflictError: ``attempt_running``.
        """
        found = await self._found(actor, attempt_id)
        if found.attempt.worktree is not None and not found.attempt.worktree_deleted:
            work = self._delete_worktree(found, found.worktree)
            await self._supervisor.finish(work, name=f"cleanup of {attempt_id}")

    async def _delete_worktree(self, found: claims.Found, worktree: PurePosixPath) -> None:
        attempt = found.attempt
        async with self._quiet(found) as repository:
            saved = await repository.remove_worktree(
                attempt.id, worktree, branch=attempt.branch, target=attempt.target_branch
            )
            changes = {
                "worktree_deleted": True,
                "saved_ref": None if saved is None else saved.ref,
                "updated_at": self._clock.now(),
            }
            await self._db.write(attempt_rows.change, attempt.id, changes)
        self._publish(attempt)

    @asynccontextmanager
    async def _quiet(self, found: claims.Found) -> AsyncIterator[Repository]:
        """Hold the container and the attempt for work on its branch: no process of it may run."""
        attempt = found.attempt
        hold = self._containers.awake(found.project, holder=attempt.id, reason="branch")
        async with self._lock(attempt.id), hold:
            if await self._db.read(process_rows.open_ones, attempt=attempt.id):
                raise claims.running()
            yield self._repositories.of(attempt.project_id)

    def _lock(self, attempt_id: AttemptId) -> asyncio.Lock:
        """Return what keeps follow-ups of an attempt and work on its branch apart."""
        return self._locks.of(attempt_id)

    async def _found(self, actor: Actor, attempt_id: AttemptId) -> claims.Found:
        return await self._db.read(claims.find, actor.user_id, attempt_id)

    def _publish(self, attempt: Attempt) -> None:
        self._feed.publish(
            Change(
                kind=Kind.ATTEMPT,
                id=attempt.id,
                project_id=attempt.project_id,
                attempt_id=attempt.id,
            )
        )
