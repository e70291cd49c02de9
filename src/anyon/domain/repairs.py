"""What to record when the engine shows something else than was recorded; pure."""

from dataclasses import dataclass

from anyon.domain.states import ExitReason, Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """The phase to record, the stable code of why, and how processes ended, if they did."""

    phase: Phase
    reason: str
    ended: ExitReason | None = None


_AWAKE = {Phase.RUNNING, Phase.FROZEN}
_ASLEEP = {Phase.STOPPED, Phase.STOPPED_UNSAVED}
# Whoever is in these has the project's files in hand; each has a deadline of its own.
_IN_OTHER_HANDS = {
    Phase.CREATING,
    Phase.DELETING,
    Phase.RESTORING,
    Phase.ARCHIVING,
    Phase.ARCHIVED,
}


def repair(recorded: Phase, seen: Phase) -> Repair | None:
    """Return what to record for a project whose container is *seen* so, or None when that agrees.

    *seen* is RUNNING, FROZEN, STOPPED or ABSENT. The caller holds the project's lock, so nobody
    is in the middle of a transition. A container that stopped without our doing leaves files
    that no checkpoint is known of: it is ``stopped_unsaved``.
    """
    if recorded is seen or recorded in _IN_OTHER_HANDS:
        return None
    # The lock is ours, so a stop that is still recorded was its server's last.
    interrupted = "stop_interrupted" if recorded is Phase.STOPPING else None
    if seen in _AWAKE:
        return Repair(phase=seen, reason=interrupted or "changed_outside")
    if recorded in _ASLEEP and seen is Phase.STOPPED:
        return None
    if recorded is Phase.ERROR and seen is Phase.ABSENT:
        return None
    if seen is Phase.ABSENT:
        ended = ExitReason.MACHINE_LOST
        return Repair(phase=seen, reason=interrupted or "container_lost", ended=ended)
    reason = interrupted or "stopped_outside"
    return Repair(phase=Phase.STOPPED_UNSAVED, reason=reason, ended=ExitReason.CONTAINER_STOPPED)
