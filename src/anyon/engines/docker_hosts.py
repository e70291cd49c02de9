"""The engine's machine: its facts, the bridge of the projects, and making containers on it."""

import asyncio
import dataclasses
import os
import resource
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any, TypeVar

from anyon.domain.errors import NotFoundError
from anyon.domain.ids import ProjectId
from anyon.engines import docker_errors, docker_mounts, docker_options
from anyon.engines.docker_client import DockerClient
from anyon.engines.docker_errors import RefusedError
from anyon.engines.docker_options import Host, container_name, network_name
from anyon.engines.engine import ContainerSpec
from anyon.failpoints import reached

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
        self._networks: set[str] = set()
        self._making = asyncio.Lock()

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
            rootless = "rootless" in security or bool(info.get("Rootless"))
            uid, gid = docker_options.user_inside(
                (self._wished.uid, self._wished.gid),
                (os.geteuid(), os.getegid()),
                is_rootless=rootless,
                is_podman=version.is_podman,
            )
            self._facts = dataclasses.replace(
                self._wished,
                uid=uid,
                gid=gid,
                is_podman=version.is_podman,
                is_rootless=rootless,
                cgroup_version=str(info.get("CgroupVersion") or "1"),
                # An engine without the right to raise limits mostly has those that we have.
                max_files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
                max_processes=resource.getrlimit(resource.RLIMIT_NPROC)[1],
            )
        return self._facts

    async def create(self, spec: ContainerSpec) -> None:
        """Make the container; one that has the name already is as good."""
        host = await self.facts()
        for mount in spec.mounts:
            docker_mounts.prepare(mount, uid=host.uid, gid=host.gid)
        await self.need_network(spec.project)
        reached("docker.network_ready")
        body = docker_options.container_body(spec, host)
        try:
            await self._client.post(
                "/containers/create",
                body,
                deadline=CHANGE,
                query={"name": container_name(spec.project)},
            )
        except RefusedError as error:
            if error.status == 409 or "already in use" in error.message:
                return  # the name is taken: whoever made it, it is adopted
            if error.status == 404 and "image" in error.message.lower():
                raise docker_errors.image_missing(str(body["Image"]), error) from error
            raise docker_errors.failed("make the container", error) from error
        reached("docker.container_created")

    async def need_network(self, project: ProjectId, *, again: bool = False) -> str:
        """Make the project's bridge if it is not there and return its name; *again* looks anew."""
        host = await self.facts()
        name = network_name(project, host)
        if name in self._networks and not again:
            return name
        # One by one: of two bridges that are made at once an engine refuses both by some names.
        async with self._making:
            if name in self._networks and not again:
                return name
            try:
                await self._client.get(f"/networks/{name}", deadline=LOOK)
            except RefusedError as error:
                if error.status != 404:
                    raise docker_errors.failed("look at the network", error) from error
                await self._make_network(project, host)
            self._networks.add(name)
        return name

    async def connect_again(self, project: ProjectId, container: str) -> None:
        """Connect a stopped container to its bridge anew: somebody removed the one that it knew."""
        name = await self.need_network(project, again=True)
        body = {"Container": container, "Force": True}
        try:
            await self._client.post(f"/networks/{name}/disconnect", body, deadline=CHANGE)
        except RefusedError as error:
            if error.status not in {403, 404, 500}:  # it was not connected, in various words
                raise docker_errors.failed("leave the network", error) from error
        await asked(
            self._client.post(
                f"/networks/{name}/connect", {"Container": container}, deadline=CHANGE
            ),
            "connect the container to its network",
        )

    async def release_network(self, project: ProjectId) -> None:
        """Remove a bridge that was this project's alone."""
        reached("docker.container_removed")
        host = await self.facts()
        name = network_name(project, host)
        if name == host.network:
            return
        self._networks.discard(name)
        try:
            await self._client.delete(f"/networks/{name}", deadline=CHANGE)
        except RefusedError as error:
            if error.status != 404:
                raise docker_errors.failed(f"remove the network {name}", error) from error

    async def _make_network(self, project: ProjectId, host: Host) -> None:
        body = docker_options.network_body(project, host)
        try:
            await self._client.post("/networks/create", body, deadline=CHANGE)
        except RefusedError as error:
            # Another caller, or another home, made it meanwhile.
            if error.status != 409 and "already" not in error.message:
                raise docker_errors.failed(f"make the network {body['Name']}", error) from error


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
