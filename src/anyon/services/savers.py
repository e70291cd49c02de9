"""The interface by which a project's files are brought to safety before its container is let go."""

from typing import Protocol

from anyon.domain.entities import Project


class Saver(Protocol):
    """Saves a project's files where the loss of this machine cannot reach them."""

    async def save(self, project: Project, *, reason: str) -> None:
        """Return once the project's state as of now is confirmed in the store.

        *reason* is a stable code of the occasion (``stop``, ``interval``, ``archive``). Raises
        UnavailableError when the store does not take it; the former checkpoint stays.
        """
        ...


class LocalOnly:
    """For a server that is set to keep no checkpoints: its disk is all there is, and it says so."""

    async def save(self, project: Project, *, reason: str) -> None:
        """Do nothing: what is on the local disk is as safe as this server was asked to keep it."""
