"""The layers of Docker's containers: read on this machine, where the engine's answers say they lie.

Not by the engine's archive calls: those follow what is inside while it changes.
"""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anyon.domain.errors import MissingError
from anyon.domain.ids import ProjectId
from anyon.engines import docker_errors
from anyon.engines.docker_client import DockerClient
from anyon.engines.docker_errors import RefusedError
from anyon.engines.docker_hosts import LOOK, DockerHost
from anyon.engines.docker_options import Host, container_name
from anyon.engines.layers import Layer

_HINT = "Checkpoints go on without what is installed outside the project."
_DRIVERS = frozenset({"overlay2", "overlay"})


class DockerLayers:
    """Implements ``KeepsLayers`` for Docker and Podman run by root on this machine."""

    def __init__(self, client: DockerClient, machine: DockerHost) -> None:
        self._client = client
        self._machine = machine

    async def why_hidden(self) -> str:
        """Return why layers cannot be read and written from here; empty where they can."""
        info, host = await self._machine.info(), await self._machine.facts()
        return why_hidden(info, host, is_local=self._client.is_local)

    async def layer(self, project: ProjectId) -> Layer | None:
        """Return the container's layer, None when there is no container."""
        path = f"/containers/{container_name(project)}/json"
        try:
            answer = await self._client.get(path, deadline=LOOK)
        except RefusedError as error:
            if error.status == 404:
                return None
            raise docker_errors.failed("look at the container", error) from error
        # The engine deletes the layer first and forgets the container last.
        is_going = str((answer.get("State") or {}).get("Status")) in {"removing", "dead"}
        return None if is_going else parse_layer(answer)


def why_hidden(info: Mapping[str, Any], host: Host, *, is_local: bool) -> str:
    """Return why containers' layers cannot be read and written from here; empty where they can."""
    driver = str(info.get("Driver", ""))
    status = {str(row[0]): str(row[1]) for row in info.get("DriverStatus") or [] if len(row) > 1}
    root = str(info.get("DockerRootDir") or "/")
    in_containerd = status.get("driver-type", "").startswith("io.containerd.snapshotter")
    is_mapped = any("userns" in str(item) for item in info.get("SecurityOptions") or [])
    reasons = (
        (not is_local, "the engine is reached by network: its files are another machine's"),
        (host.is_rootless, "the engine is rootless: its files are in its own namespace only"),
        (os.geteuid() != 0, "the server does not run as root: the engine's files are closed to it"),
        (is_mapped, "the engine maps users (userns-remap): owners would mean others elsewhere"),
        (in_containerd, "the engine keeps layers in containerd, which tells no place of them"),
        (driver not in _DRIVERS, f"the storage driver {driver!r} has no layer that is a directory"),
        (status.get("Using metacopy") == "true", "the engine's overlays copy no data (metacopy)"),
        (not Path(root).is_dir(), f"the engine's files ({root}) are not on this machine"),
    )
    return next((words for is_so, words in reasons if is_so), "")


def parse_layer(answer: Mapping[str, Any]) -> Layer:
    """Read the answer of ``GET /containers/…/json``; MissingError ``layer_hidden``."""
    graph = answer.get("GraphDriver") or {}
    upper = str((graph.get("Data") or {}).get("UpperDir") or "")
    path = Path(upper)
    if graph.get("Name") not in _DRIVERS or not path.is_absolute() or ".." in path.parts:
        raise hidden(f"the engine tells no place for the layer (driver {graph.get('Name')!r})")
    try:
        is_directory = stat.S_ISDIR(path.lstat().st_mode)
    except OSError as error:
        raise hidden(f"{path}: {error.strerror}") from error
    if not is_directory:
        raise hidden(f"{path} is not a directory")
    image = str((answer.get("Config") or {}).get("Image", ""))
    base = {"engine": "docker", "image": image, "image_id": str(answer.get("Image", ""))}
    return Layer(container=str(answer["Id"]), path=path, base=base)


def hidden(reason: str) -> MissingError:
    """Return the error for a layer that is out of reach."""
    return MissingError(
        f"what is installed in the container cannot be read: {reason}",
        code="layer_hidden",
        hint=_HINT,
    )
