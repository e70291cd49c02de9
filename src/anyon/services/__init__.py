"""Use cases, one module per noun; the API and the loops call these and nothing below them."""

from anyon.services.attempts import Attempts
from anyon.services.builders import Services, build
from anyon.services.containers import Containers
from anyon.services.feed import Feed
from anyon.services.parts import Parts
from anyon.services.processes import ProcessRuns
from anyon.services.projects import Projects
from anyon.services.tasks import Tasks
from anyon.services.tokens import Tokens

__all__ = [
    "Attempts",
    "Containers",
    "Feed",
    "Parts",
    "ProcessRuns",
    "Projects",
    "Services",
    "Tasks",
    "Tokens",
    "build",
]
