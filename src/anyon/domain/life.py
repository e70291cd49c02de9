"""The decision what to do next with a project's container; pure: nothing is done here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from anyon.domain.entities import Lease, Project
from anyon.domain.states import Goal, Phase


class Step(StrEnum):
    """One act that brings a project nearer its goal."""

    WAKE = "wake"
    FREEZE = "freeze"
    STOP = "stop"
    SAVE = "save"
    ARCHIVE = "archive"
    RESTORE = "restore"
    DELETE = "delete"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiers:
    """Idle times after which a project steps down; zero switches a tier off.

    ``can_archive`` is false where a project's local files may not be let go at all.
    """

    freeze_after: timedelta = timedelta(minutes=5)
    stop_after: timedelta = timedelta(minutes=30)
    archive_after: timedelta = timedelta(days=7)
    can_archive: bool = True

    def of(self, project: Project) -> "Tiers":
        """Return what holds for *project*: its own times where it has some, over these."""
        return replace(
            self,
            freeze_after=_own(project.freeze_after, self.freeze_after),
            stop_after=_own(project.stop_after, self.stop_after),
            archive_after=_own(project.archive_after, self.archive_after)
            if self.can_archive
            else timedelta(0),
        )


def _own(seconds: int | None, otherwise: timedelta) -> timedelta:
    return otherwise if seconds is None else timedelta(seconds=seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was observed: the phase, the leases that have not expired, whether anything is left of it."""

    phase: Phase
    leases: Sequence[Lease] = field(default_factory=tuple)
    exists: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A step and the stable code of why."""

    step: Step
    reason: str


DEADLINES: Mapping[Phase, timedelta] = {
    Phase.CREATING: timedelta(minutes=15),
    Phase.STOPPING: timedelta(minutes=5),
    Phase.ARCHIVING: timedelta(hours=2),
    Phase.RESTORING: timedelta(hours=2),
    Phase.DELETING: timedelta(hours=2),
}
"""How long a phase of transition may last before it is an error."""

_ASLEEP = frozenset(
    {Phase.FROZEN, Phase.STOPPED, Phase.STOPPED_UNSAVED, Phase.ARCHIVED, Phase.ABSENT}
)


_UNFINISHED = {Phase.RESTORING: Decision(step=Step.RESTORE, reason="restoring_interrupted")}


def next_step(project: Project, *, facts: Facts, tiers: Tiers, now: datetime) -> Decision | None:
    """Return the one act that brings *project* nearer its goal, or None when it is there.

    Who acts on it holds the project's lock: a restore that is recorded then is nobody's any more.
    """
    if project.goal is Goal.DELETED:
        return Decision(step=Step.DELETE, reason="deleted_by_user") if facts.exists else None
    deadline = DEADLINES.get(facts.phase)
    if deadline is not None:
        late = now - project.phase_since > deadline
        failed = Decision(step=Step.FAIL, reason=f"{facts.phase}_deadline")
        return failed if late else _UNFINISHED.get(facts.phase)
    # New work makes the goal RUNNING again: what is held under another was there before, and wakes nothing.
    if facts.leases and facts.phase in _ASLEEP and project.goal is Goal.RUNNING:
        return Decision(step=Step.WAKE, reason="lease")
    if facts.phase is Phase.STOPPED_UNSAVED:
        return Decision(step=Step.SAVE, reason="unsaved")
    if facts.leases:  # something is running or watched: never touch it
        return None
    return _asked_for(project.goal, facts.phase, tiers) or _step_down(
        facts.phase, now - project.last_active_at, tiers.of(project)
    )


def next_step_down(project: Project, *, tiers: Tiers) -> tuple[Step, datetime] | None:
    """Return the step that comes next if nothing happens, and when; None if none will."""
    asked = _asked_for(project.goal, project.phase, tiers)
    if asked is not None:
        return asked.step, project.last_active_at  # at the next look
    tiers = tiers.of(project)
    after = {
        Phase.RUNNING: ((Step.FREEZE, tiers.freeze_after), (Step.STOP, tiers.stop_after)),
        Phase.FROZEN: ((Step.STOP, tiers.stop_after),),
        Phase.STOPPED: ((Step.ARCHIVE, tiers.archive_after),),
    }.get(project.phase, ())
    for step, length in after:
        if length:
            return step, project.last_active_at + length
    return None


def _asked_for(goal: Goal, phase: Phase, tiers: Tiers) -> Decision | None:
    """Return the step that somebody asked for by name; an archived project was stopped on its way."""
    match goal, phase:
        case Goal.STOPPED, Phase.RUNNING | Phase.FROZEN:
            return Decision(step=Step.STOP, reason="stop_requested")
        case Goal.ARCHIVED, Phase.RUNNING | Phase.FROZEN:
            return Decision(step=Step.STOP, reason="archive_requested")
        case Goal.ARCHIVED, Phase.STOPPED if tiers.can_archive:
            return Decision(step=Step.ARCHIVE, reason="archive_requested")
        case _:
            return None


def _step_down(phase: Phase, idle: timedelta, tiers: Tiers) -> Decision | None:
    match phase:
        case Phase.RUNNING if _is_due(idle, tiers.stop_after):
            return Decision(step=Step.STOP, reason="idle")
        case Phase.RUNNING if _is_due(idle, tiers.freeze_after):
            return Decision(step=Step.FREEZE, reason="idle")
        case Phase.FROZEN if _is_due(idle, tiers.stop_after):
            return Decision(step=Step.STOP, reason="idle")
        case Phase.STOPPED if _is_due(idle, tiers.archive_after):
            return Decision(step=Step.ARCHIVE, reason="idle")
        case _:
            return None


def _is_due(idle: timedelta, after: timedelta) -> bool:
    return timedelta(0) < after <= idle
