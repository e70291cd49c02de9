"""What there is room for, when memory is short, and who goes then."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyon.domain.capacity import (
    ALLOWANCE_BYTES,
    QUIET,
    Capacity,
    MemoryState,
    Thresholds,
    pressure,
    who_goes,
)
from anyon.domain.entities import Project
from anyon.domain.ids import LOCAL_USER, ProjectId
from anyon.domain.states import Phase

MIB = 2**20
NOW = datetime(2026, 1, 1, tzinfo=UTC)
NEW = ProjectId("new")


def up(*bytes_each: int) -> dict[ProjectId, int]:
    """Return projects that are up."""
    return {ProjectId(str(number)): used for number, used in enumerate(bytes_each)}


@pytest.mark.parametrize(
    ("capacity", "used", "starting", "lacking"),
    [
        (Capacity(), (MIB,) * 99, 0, None),
        (Capacity(most_running=2), (0,), 0, None),
        (Capacity(most_running=2), (0, 0), 0, "max_running"),
        (Capacity(most_running=2), (0,), 1, "max_running"),
        # By their limits, whatever they use.
        (Capacity(most_memory_bytes=300 * MIB, each_bytes=100 * MIB), (1, 1), 0, None),
        (Capacity(most_memory_bytes=300 * MIB, each_bytes=100 * MIB), (1, 1, 1), 0, "max_memory"),
        (Capacity(most_memory_bytes=300 * MIB, each_bytes=100 * MIB), (1, 1), 1, "max_memory"),
        # By what they use, those being started by the allowance.
        (Capacity(most_memory_bytes=ALLOWANCE_BYTES + MIB), (MIB,), 0, None),
        (Capacity(most_memory_bytes=ALLOWANCE_BYTES + MIB), (2 * MIB,), 0, "max_memory"),
        (Capacity(most_memory_bytes=2 * ALLOWANCE_BYTES), (), 1, None),
        (Capacity(most_memory_bytes=2 * ALLOWANCE_BYTES), (), 2, "max_memory"),
        # The first that is lacking is told.
        (Capacity(most_running=1, most_memory_bytes=1), (1,), 0, "max_running"),
    ],
)
def test_room(
    capacity: Capacity, used: tuple[int, ...], starting: int, lacking: str | None
) -> None:
    """A new container waits for the setting that it would overstep, and for nothing else."""
    beginning = frozenset(ProjectId(f"s{number}") for number in range(starting))
    assert capacity.lacks(up(*used), beginning, NEW) == lacking


def test_who_is_up_has_a_place() -> None:
    """What runs, is frozen or is being started never waits, however full it is."""
    full = Capacity(most_running=1, most_memory_bytes=1)
    assert full.lacks({NEW: MIB}, frozenset(), NEW) is None
    assert full.lacks(up(MIB), frozenset([NEW]), NEW) is None


@given(
    st.lists(st.integers(0, 2**34), max_size=20),
    st.integers(0, 20),
    st.integers(1, 2**36),
    st.sampled_from([0, 2**28, 2**30]),
)
def test_memory_is_never_given_away_twice(
    used: list[int], starting: int, most: int, each: int
) -> None:
    """Whoever is let in, all of them together stay within the most, as each is counted."""
    capacity = Capacity(most_memory_bytes=most, each_bytes=each)
    beginning = frozenset(ProjectId(f"s{number}") for number in range(starting))
    if capacity.lacks(up(*used), beginning, NEW) is None:
        known = len(used) * each if each else sum(used)
        assert known + (starting + 1) * (each or ALLOWANCE_BYTES) <= most


@pytest.mark.parametrize(
    ("state", "is_short"),
    [
        (MemoryState(stalled_percent=25.0, available_bytes=2**40), True),
        (MemoryState(stalled_percent=24.9, available_bytes=0), False),  # the kernel knows better
        (MemoryState(available_bytes=256 * MIB - 1), True),
        (MemoryState(available_bytes=256 * MIB), False),
        (MemoryState(), False),
    ],
)
def test_when_memory_is_short(state: MemoryState, is_short: bool) -> None:
    """Stalls where they are told, else what is available; an unknown is no pressure."""
    assert (pressure(state, Thresholds()) is not None) is is_short
    off = Thresholds(stalled_percent=0, available_bytes=0)
    assert pressure(state, off) is None


def project(name: str, phase: Phase, idle: timedelta) -> Project:
    """Return a project that has been idle for so long."""
    return Project(
        id=ProjectId(name),
        user_id=LOCAL_USER,
        name=name,
        path="/p",
        phase=phase,
        phase_since=NOW - idle,
        last_active_at=NOW - idle,
        created_at=NOW - idle,
        updated_at=NOW - idle,
    )


def test_the_longest_asleep_goes_first() -> None:
    """Frozen before running, older before younger; stopped ones and those in transition never."""
    hour = timedelta(hours=1)
    projects = [
        project("running", Phase.RUNNING, 9 * hour),
        project("young", Phase.FROZEN, 2 * hour),
        project("old", Phase.FROZEN, 3 * hour),
        project("fresh", Phase.FROZEN, QUIET - timedelta(seconds=1)),
        *(
            project(phase, phase, 9 * hour)
            for phase in Phase
            if phase not in {Phase.RUNNING, Phase.FROZEN}
        ),
    ]
    assert [one.id for one in who_goes(projects, frozenset(), NOW)] == ["old", "young", "running"]


@given(st.lists(st.tuples(st.sampled_from(list(Phase)), st.integers(0, 10**6)), max_size=30))
def test_a_lease_is_never_broken(made: list[tuple[Phase, int]]) -> None:
    """Whatever there is: nobody goes that is held, and of two frozen ones never the younger first."""
    projects = [
        replace(project(str(number), phase, timedelta(seconds=idle)))
        for number, (phase, idle) in enumerate(made)
    ]
    held = frozenset(one.id for one in projects[::2])
    going = who_goes(projects, held, NOW)
    assert not held & {one.id for one in going}
    for first, second in pairwise(going):
        if first.phase is second.phase:
            assert first.last_active_at <= second.last_active_at
        else:
            assert (first.phase, second.phase) == (Phase.FROZEN, Phase.RUNNING)
