"""The engine's machine: its facts, the bridge of the projects, and making containers on it."""

import dataclasses
import resource
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any, TypeVar

from anyon.domain.errors import NotFoundError
from anyon.engines import docker_errors, docker_mounts, docker_options
from anyon.engines.docker_client import DockerClient
from anyon.engines.docker_errors import RefusedError
from anyon.engines.docker_options import Host, container_name
from anyon.engines.engine import ContainerSpec

T = TypeVar("T")

LOOK = timedelta(seconds=20)
"""The deadline of a question; asked of an engine that has nothing else to do it takes 2 ms."""
CHANGE = timedelta(seconds=90)
"""The deadline of a change: create, start, remove (on a loaded machine, seconds)."""


class DockerHost:
    """What is asked of an engine once and kept: *wished* is completed by what it says of itself."""

    def __init__(self, client: DockerClient, wished: Host) -> None:
        self._client = client
        self._wished = wished
        self._facts: Host | None = None
        self._network_known = False

    async def info(self) -> dict[str, Any]:
        """Return the engine's long description of itself."""
        found: dict[str, Any] = await asked(
            self._client.get("/info", deadline=LOOK), "describe itself"
        )
        return found

    async def facts(self) -> Host:
        """Return what the options of a container depend on."""
        if self._facts is None:
            version = await self._client.version()
            info = await self.info()
            security = " ".join(str(item) for item in info.get("SecurityOptions") or [])
            self._facts = dataclasses.replace(
                self._wished,
                is_podman=version.is_podman,
                is_rootless="rootless" in security or bool(info.get("Rootless")),
                cgroup_version=str(info.get("CgroupVersion") or "1"),
                # An engine without the right to raise limits mostly has those that we have.
                max_files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
            )
        return self._facts

    async def create(self, spec: ContainerSpec) -> None:
        """Make the container; one that has the name already is as good."""
        host = await self.facts()
        for mount in spec.mounts:
            docker_mounts.prepare(mount, uid=host.uid, gid=host.gid)
        await self.need_network()
        body = docker_options.container_body(spec, host)
        try:
            await self._client.post(
                "/containers/create",
                body,
                deadline=CHANGE,
                query={"name": container_name(spec.project)},
            )
        except RefusedError as error:
            if error.status == 409:
                return  # the name is taken: whoever made it, it is adopted
            if error.status == 404 and "image" in error.message.lower():
                raise docker_errors.image_missing(str(body["Image"]), error) from error
            raise docker_errors.failed("make the container", error) from error

    async def need_network(self, *, again: bool = False) -> None:
        """Make the bridge if it is not there; *again* looks even if it was there before."""
        if self._network_known and not again:
            return
        host = await self.facts()
        try:
            await self._client.get(f"/networks/{host.network}", deadline=LOOK)
        except RefusedError as error:
            if error.status != 404:
                raise docker_errors.failed("look at the network", error) from error
            await self._make_network(host)
        self._network_known = True

    async def connect_again(self, container: str) -> None:
        """Connect a stopped container to the bridge anew: somebody removed the one that it knew."""
        await self.need_network(again=True)
        host = await self.facts()
        body = {"Container": container, "Force": True}
        try:
            await self._client.post(f"/networks/{host.network}/disconnect", body, deadline=CHANGE)
        except RefusedError as error:
            if error.status not in {403, 404, 500}:  # it was not connected, in various words
                raise docker_errors.failed("leave the network", error) from error
        body = {"Container": container}
        await asked(
            self._client.post(f"/networks/{host.network}/connect", body, deadline=CHANGE),
            "connect the container to its network",
        )

    async def _make_network(self, host: Host) -> None:
        try:
            body = docker_options.network_body(host)
            await self._client.post("/networks/create", body, deadline=CHANGE)
        except RefusedError as error:
            # Another caller, or another home, made it meanwhile.
            if error.status != 409 and "already" not in error.message:
                raise docker_errors.failed(f"make the network {host.network}", error) from error


async def asked(call: Awaitable[T], what: str) -> T:
    """Return the answer of *call*, or raise what its refusal means: the container is gone, or words."""
    try:
        return await call
    except RefusedError as error:
        if error.status == 404:
            raise NotFoundError(
                f"the container is gone: {error.message}", code="container_absent"
            ) from error
        raise docker_errors.failed(what, error) from error
