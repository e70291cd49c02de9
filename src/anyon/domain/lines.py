"""Who is next in a line that is fair between users; pure."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from anyon.domain.entities import Project
from anyon.domain.ids import ProjectId, UserId
from anyon.domain.states import Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiter:
    """A project that waits for a place, and whose it is."""

    project_id: ProjectId
    user_id: UserId


def fair_order(waiting: Sequence[Waiter], last_served: Mapping[UserId, int]) -> Sequence[Waiter]:
    """Return *waiting* (in order of arrival) in the order in which they are served.

    Users take turns: whoever was served longest ago (*last_served*, a number that grows) is
    first, one who never was before all others; each user's own projects keep their order.
    """
    queues: dict[UserId, deque[Waiter]] = {}
    for one in waiting:
        queues.setdefault(one.user_id, deque()).append(one)
    turns = deque(sorted(queues, key=lambda user: last_served.get(user, -1)))
    ordered: list[Waiter] = []
    while turns:
        user = turns.popleft()
        ordered.append(queues[user].popleft())
        if queues[user]:
            turns.append(user)
    return ordered


def who_makes_room(projects: Sequence[Project], held: frozenset[ProjectId]) -> Sequence[Project]:
    """Return the projects that may be stopped for another's sake, the first to go first.

    Frozen ones, the longest idle first; never one with a lease (*held*).
    """
    free = [one for one in projects if one.phase is Phase.FROZEN and one.id not in held]
    return sorted(free, key=lambda one: (one.last_active_at, one.id))
