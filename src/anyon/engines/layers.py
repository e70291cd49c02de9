"""Where what was installed in a container lies, for engines that keep it in a place of their own."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from anyon.domain.ids import ProjectId


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A container's own layer: an overlay's upper directory on this machine.

    ``container`` is the engine's id of it. ``base`` says what it lies over (``engine``, ``image``,
    ``image_id``), for people and to compare.
    """

    container: str
    path: Path
    base: Mapping[str, str] = field(default_factory=dict)


class KeepsLayers(Protocol):
    """What an engine can do besides, that keeps what is installed outside of ``ContainerSpec.system``."""

    async def why_hidden(self) -> str:
        """Return why layers cannot be read and written from here, in words; empty where they can."""
        ...

    async def layer(self, project: ProjectId) -> Layer | None:
        """Return the container's layer, None when there is no container, or its removal has begun.

        It may be read at any time, and written while the container has never been started.
        MissingError (``layer_hidden``) where it is out of reach.
        """
        ...
