"""What a load test does: how many projects, how many tasks, and in which manner. Data only."""

from dataclasses import dataclass
from typing import Literal

Manner = Literal["tasks", "creates", "wakes", "cycles"]

QUICK_SCRIPT = "echo started; mkdir -p load; date > load/$(basename $PWD); echo ended"
"""A task that writes one file and says so: what is measured is Anyon, not an agent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One load test.

    ``manner`` is what is done to the projects: *tasks* (all created, then all tasks at once),
    *creates* (all created at once, nothing else), *wakes* (created, put to sleep, then woken at
    once), *cycles* (as *tasks*, again and again for ``seconds``, the projects made anew each time).
    """

    name: str
    manner: Manner
    projects: int
    tasks: int = 0
    seconds: float = 0.0
    agent: str = "shell"
    script: str = QUICK_SCRIPT
    patience_seconds: float = 600.0
    """How long one piece of work may take before it counts as failed."""

    @property
    def total_tasks(self) -> int:
        """How many tasks one round has."""
        return self.projects * self.tasks


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(name="plan", manner="tasks", projects=10, tasks=5),
        Profile(name="burst", manner="creates", projects=100),
        Profile(name="herd", manner="wakes", projects=30),
        Profile(name="soak", manner="cycles", projects=10, tasks=5, seconds=4 * 3600),
    )
}
"""The named ones: the plan's own (10 x 5), 100 creates at once, 30 wakes at once, hours."""

DESCRIPTIONS = {
    "plan": "10 projects, 5 tasks in each, all at once: the plan's load test",
    "burst": "100 projects created at once",
    "herd": "30 projects put to sleep and woken at once",
    "soak": "the plan's load again and again for hours; watches the server's memory",
}
