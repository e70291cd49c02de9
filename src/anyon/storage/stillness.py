"""What a save is told of a project that is held still for it."""

from collections.abc import Sequence
from typing import Protocol


class Stillness(Protocol):
    """A project in which nothing runs for the moment."""

    @property
    def since(self) -> float:
        """When it began, or a little earlier, by ``time.monotonic``."""
        ...

    def pids(self) -> Sequence[int] | None:
        """Return everything that is held, as this machine numbers it; None if that cannot be told.

        Nothing means that nothing is there. Blocks shortly.
        """
        ...
