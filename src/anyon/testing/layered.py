"""An engine in memory that keeps what is installed in each container, as docker does: a test double."""

import dataclasses
from pathlib import Path

from anyon.domain.ids import ProjectId, new_id
from anyon.engines.engine import ContainerInfo, ContainerSpec
from anyon.engines.layers import Layer
from anyon.engines.memory import MemoryEngine


class LayeredEngine(MemoryEngine):
    """Gives each container a layer of its own below *root*; what is below ``opt`` there is ``/opt`` inside."""

    def __init__(self, root: Path, *, hidden: list[Path]) -> None:
        super().__init__(hidden=hidden)
        self._root = root
        self.layers: dict[ProjectId, Layer] = {}
        self.image_id = "sha256:1"
        """Of the containers that are made from now on."""

    @property
    def name(self) -> str:
        """The driver's name."""
        return "layered"

    async def ensure(self, spec: ContainerSpec) -> ContainerInfo:
        """Return the project's container, made if it is not there."""
        if await self.inspect(spec.project) is None:
            container = new_id()
            path = self._root / container
            path.mkdir(parents=True)
            base = {"engine": self.name, "image": "image", "image_id": self.image_id}
            self.layers[spec.project] = Layer(container=container, path=path, base=base)
        path = self.layers[spec.project].path
        return await super().ensure(dataclasses.replace(spec, system=path))

    async def remove(self, project: ProjectId) -> None:
        """Remove the container with its layer."""
        await super().remove(project)
        self.layers.pop(project, None)

    async def why_hidden(self) -> str:
        """Layers are in reach."""
        return ""

    async def layer(self, project: ProjectId) -> Layer | None:
        """Return the container's layer, None when there is no container."""
        return self.layers.get(project)
