"""The line for a place to run is fair between users; who makes room has no lease."""

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.domain.test_life import PROJECT

from anyon.domain.ids import ProjectId, UserId
from anyon.domain.lines import Waiter, fair_order, who_makes_room
from anyon.domain.states import Phase

USERS = st.sampled_from([UserId(name) for name in "abc"])


def line(users: list[UserId]) -> list[Waiter]:
    """Return a line of one project for each entry."""
    return [Waiter(project_id=ProjectId(f"{n:03}"), user_id=user) for n, user in enumerate(users)]


@given(st.lists(USERS, max_size=12), st.dictionaries(USERS, st.integers(0, 9)))
def test_users_take_turns(users: list[UserId], served: dict[UserId, int]) -> None:
    """Nobody is lost; each user's own order stays; nobody gets a second turn before another's first."""
    waiting = line(users)
    order = fair_order(waiting, served)
    assert Counter(order) == Counter(waiting)
    for user in set(users):
        assert [w for w in order if w.user_id == user] == [w for w in waiting if w.user_id == user]
    turns: Counter[UserId] = Counter()
    total = Counter(users)
    for one in order:
        turns[one.user_id] += 1
        assert all(turns[user] >= min(turns[one.user_id] - 1, total[user]) for user in total), (
            "a user was passed over"
        )


def test_who_waited_longest_for_a_turn_is_first() -> None:
    """A user who was just served comes after those who were not, however early they came."""
    greedy, modest = UserId("greedy"), UserId("modest")
    order = fair_order(line([greedy] * 3 + [modest]), {greedy: 7})
    assert [one.user_id for one in order] == [modest, greedy, greedy, greedy]


@given(st.lists(st.tuples(st.sampled_from(Phase), st.booleans(), st.integers(0, 99))))
def test_room_is_made_by_the_longest_idle_without_a_lease(
    given_projects: list[tuple[Phase, bool, int]],
) -> None:
    """Only frozen projects go, oldest first, and never one that somebody holds."""
    projects, held = [], set()
    for number, (phase, is_held, minute) in enumerate(given_projects):
        at = PROJECT.last_active_at.replace(microsecond=minute)
        project_id = ProjectId(f"{number:03}")
        projects.append(replace(PROJECT, id=project_id, phase=phase, last_active_at=at))
        if is_held:
            held.add(project_id)
    chosen = who_makes_room(projects, frozenset(held))
    assert {one.id for one in chosen} == {
        one.id for one in projects if one.phase is Phase.FROZEN and one.id not in held
    }
    assert [one.last_active_at for one in chosen] == sorted(one.last_active_at for one in chosen)
