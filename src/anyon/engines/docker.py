"""The engine over Docker's or Podman's socket: isolation between projects on one machine."""

import asyncio
import contextlib
import dataclasses
import math
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from anyon.clock import Clock, SystemClock
from anyon.domain.errors import AnyonError, ConflictError, EngineFailedError
from anyon.domain.ids import ProjectId
from anyon.engines import (
    docker_boots,
    docker_errors,
    docker_freezer,
    docker_options,
    docker_programs,
)
from anyon.engines.docker_client import DockerClient
from anyon.engines.docker_errors import RefusedError
from anyon.engines.docker_hosts import CHANGE, LOOK, DockerHost, asked
from anyon.engines.docker_layers import DockerLayers
from anyon.engines.docker_options import Host, container_name
from anyon.engines.docker_starts import Starts
from anyon.engines.docker_streams import DockerStream, hijack
from anyon.engines.engine import (
    Command,
    ContainerInfo,
    ContainerSpec,
    ContainerState,
    Health,
    Stats,
    Stream,
)
from anyon.locks import Locks

_AT_ONCE = 8
_ADOPTION_TRIES = 50


class DockerEngine:
    """Implements ``Engine`` over the Docker API (Docker 20.10 and later, Podman's socket).

    *socket* is ``unix:///path`` or ``tcp://host:port``; *instance* names this Anyon home, so that
    two homes on one engine list only their own. Work runs as *uid*:*gid* inside,
    or as the server's own user where that is not root and so can give no directory away. *image* is for
    projects that name none. *runtime* is an OCI runtime (runc, runsc, kata), empty for the
    engine's own. Projects cannot reach each other: they share the bridge *network*, which
    keeps its members apart, or have one each where the engine has no such bridge (Podman).
    """

    def __init__(
        self,
        socket: str,
        *,
        instance: str,
        uid: int = 1000,
        gid: int | None = None,
        image: str = "anyon/workspace:latest",
        runtime: str = "",
        network: str = docker_options.NETWORK,
        clock: Clock | None = None,
    ) -> None:
        self._client = DockerClient(socket)
        self._clock = clock or SystemClock()
        self._instance = instance
        wished = Host(
            instance=instance,
            uid=uid,
            gid=uid if gid is None else gid,
            image=image,
            network=network,
            runtime=runtime,
        )
        self._machine = DockerHost(self._client, wished)
        self.layers = DockerLayers(self._client, self._machine)
        self._locks = Locks[ProjectId]()
        self._starts = Starts()
        self._cgroups = docker_freezer.Cgroups()
        self._frozen_fast: dict[ProjectId, tuple[ContainerInfo, docker_freezer.Cgroup]] = {}

    @property
    def name(self) -> str:
        """The driver's name."""
        return "docker"

    @property
    def address(self) -> str:
        """Where the engine is: ``unix:///path`` or ``tcp://host:port``."""
        return self._client.address

    async def health(self) -> Health:
        """Return the engine's version and the facts that matter for safety and speed."""
        version = await self._client.version()
        info = await self._machine.info()
        host = await self._machine.facts()
        return Health(
            engine=self.name,
            version=version.version,
            detail={
                "socket": self._client.address,
                "kind": "podman" if host.is_podman else "docker",
                "api": version.api,
                "cgroup": f"v{host.cgroup_version}",
                "rootless": "yes" if host.is_rootless else "no",
                "storage": str(info.get("Driver", "")),
                "runtimes": ", ".join(sorted(info.get("Runtimes") or {})),
                "runc": version.components.get("runc", ""),
                "runtime": host.runtime or str(info.get("DefaultRuntime", "")),
            },
        )

    async def ensure(self, spec: ContainerSpec) -> ContainerInfo:
        """Return the project's container, made if it is not there."""
        async with self._locks.of(spec.project):
            for _ in range(_ADOPTION_TRIES):
                found = await self.inspect(spec.project)
                if found is not None:
                    return found
                await self._machine.create(spec)
                # One that is being removed still has the name for a moment.
                if (made := await self.inspect(spec.project)) is not None:
                    return made
                await self._clock.sleep(timedelta(milliseconds=100))
        raise EngineFailedError(
            f"{container_name(spec.project)} can neither be made nor adopted",
            code="container_stuck",
            hint="its removal may hang in the engine; `docker rm -f` it, or start the engine again",
        )

    async def start(self, project: ProjectId) -> ContainerInfo:
        """Start it if it is stopped."""
        start = f"/containers/{container_name(project)}/start"
        try:
            await self._client.post(start, deadline=CHANGE)
        except RefusedError as error:
            # One that runs or is frozen already is refused by some engines, in various words.
            now = await self._present(project)
            if now.state is not ContainerState.STOPPED:
                return now
            if error.status != 404 or "network" not in error.message:
                raise docker_errors.start_failed(error) from error
            await self._machine.connect_again(project, now.id)
            await asked(self._client.post(start, deadline=CHANGE), "start the container")
        found = await self._look(container_name(project), project)
        if found is None:
            raise docker_errors.absent(project)
        self._starts.began(*found)
        return found[0]

    async def stop(self, project: ProjectId, *, grace: timedelta) -> ContainerInfo:
        """TERM, *grace*, KILL."""
        info = await self._thawed(await self._present(project))
        self._frozen_fast.pop(project, None)
        if info.state is not ContainerState.STOPPED:
            await asked(
                self._client.post(
                    f"/containers/{info.id}/stop",
                    deadline=CHANGE + grace,
                    query={"t": str(math.ceil(grace.total_seconds()))},
                ),
                "stop the container",
            )
        return await self._present(project)

    async def freeze(self, project: ProjectId) -> ContainerInfo:
        """Freeze it by its cgroup, or by the engine's pause where that cannot be written."""
        info, cgroup = await self._running(project)
        if info.state is ContainerState.FROZEN:
            return info
        if cgroup is not None and await docker_freezer.tried(cgroup.freeze):
            self._frozen_fast[project] = (info, cgroup)
            return dataclasses.replace(info, state=ContainerState.FROZEN)
        await asked(
            self._client.post(f"/containers/{info.id}/pause", deadline=CHANGE),
            "freeze the container",
        )
        return await self._present(project)

    def host_pids(self, project: ProjectId) -> Sequence[int] | None:
        """See ``ShowsProcesses.host_pids``."""
        return self._frozen_fast[project][1].pids() if project in self._frozen_fast else None

    async def thaw(self, project: ProjectId) -> ContainerInfo:
        """Thaw it, however it was frozen."""
        fast = self._frozen_fast.pop(project, None)
        if fast is not None and await docker_freezer.tried(fast[1].thaw_if_frozen):
            return dataclasses.replace(fast[0], state=ContainerState.RUNNING)
        info, _ = await self._running(project)
        return await self._thawed(info)

    async def remove(self, project: ProjectId) -> None:
        """Remove it with what is installed in it."""
        info = await self.inspect(project)
        self._frozen_fast.pop(project, None)
        while info is not None:
            await self._thawed(info)  # a frozen process cannot even be killed under cgroup 1
            try:
                await self._client.delete(
                    f"/containers/{info.id}", deadline=CHANGE, query={"force": "1", "v": "1"}
                )
            except RefusedError as error:
                # 409 is a removal that somebody else began: wait for its end.
                if error.status not in {404, 409}:
                    raise docker_errors.failed("remove the container", error) from error
                await self._clock.sleep(timedelta(milliseconds=100))
            info = await self.inspect(project)
        self._starts.forget(project)
        self._cgroups.forget(project)
        await self._machine.release_network(project)

    async def inspect(self, project: ProjectId) -> ContainerInfo | None:
        """Return what is known of it, or None."""
        found = await self._look(container_name(project), project)
        return found[0] if found else None

    async def list(self) -> Sequence[ContainerInfo]:
        """Return the containers that carry this home's label."""
        label = f"{docker_options.LABEL_INSTANCE}={self._instance}"
        filters = f'{{"label": ["{label}"]}}'
        summaries = await asked(
            self._client.get(
                "/containers/json", deadline=LOOK, query={"all": "1", "filters": filters}
            ),
            "list containers",
        )
        turn = asyncio.Semaphore(_AT_ONCE)

        async def look(summary: Any) -> ContainerInfo | None:
            project = docker_options.project_of(summary)
            if project is None:
                return None
            async with turn:
                found = await self._look(str(summary["Id"]), project)
            return found[0] if found else None

        infos = await asyncio.gather(*(look(summary) for summary in summaries))
        return [info for info in infos if info is not None]

    async def open(self, project: ProjectId, command: Command) -> Stream:
        """Run *command* by an exec of the engine."""
        info = self._starts.running(project) or await self._open_to(project)
        boot = self._starts.take_boot(project) if command.is_lasting else None
        if boot is not None:
            with contextlib.suppress(RefusedError):  # then by an exec, which says what is wrong
                return await docker_boots.opened(self._client, boot, command)
        body = docker_options.exec_body(command)
        try:
            made = await self._client.post(f"/containers/{info.id}/exec", body, deadline=CHANGE)
            exec_id = str(made["Id"])
            reader, writer = await hijack(self._client, exec_id, terminal=command.terminal)
        except RefusedError as error:
            raise await self._why_not(project, error) from error
        stream = DockerStream(
            self._client,
            exec_id,
            reader,
            writer,
            terminal=command.terminal is not None,
            end_program=lambda pid: self._end_program(info, pid),
        )
        if command.terminal is not None:
            await stream.resize(command.terminal)
        return stream

    async def stats(self, project: ProjectId) -> Stats | None:
        """Return what it uses now."""
        found = await self._look(container_name(project), project)
        if found is None:
            raise docker_errors.absent(project)
        info, cgroup = found
        if info.state is ContainerState.STOPPED:
            return None
        answer = await asked(
            self._client.get(
                f"/containers/{info.id}/stats",
                deadline=LOOK,
                query={"stream": "false", "one-shot": "true"},
            ),
            "count what a container uses",
        )
        kills = cgroup.oom_kills() if cgroup is not None else 0
        return docker_options.parse_stats(answer or {}, oom_kills=kills)

    async def close(self) -> None:
        """Close connections."""
        await self._client.close()

    # What follows is how.

    async def _look(
        self, container: str, project: ProjectId
    ) -> tuple[ContainerInfo, docker_freezer.Cgroup | None] | None:
        try:
            answer = await self._client.get(f"/containers/{container}/json", deadline=LOOK)
        except RefusedError as error:
            if error.status == 404:
                return None
            raise docker_errors.failed("look at the container", error) from error
        info = docker_options.parse_info(answer, project)
        cgroup = self._cgroup(info)
        try:
            frozen = cgroup is not None and cgroup.is_frozen()
        except OSError:  # it ended while we looked
            cgroup, frozen = None, False
        if frozen:
            info = docker_options.parse_info(answer, project, is_frozen=True)
        return info, cgroup

    def _cgroup(self, info: ContainerInfo) -> docker_freezer.Cgroup | None:
        if info.pid is None or not self._client.is_local:
            return None
        return self._cgroups.of(info.project, info.pid, info.id)

    async def _present(self, project: ProjectId) -> ContainerInfo:
        info = await self.inspect(project)
        if info is None:
            raise docker_errors.absent(project)
        return info

    async def _running(
        self, project: ProjectId
    ) -> tuple[ContainerInfo, docker_freezer.Cgroup | None]:
        found = await self._look(container_name(project), project)
        if found is None:
            raise docker_errors.absent(project)
        if found[0].state is ContainerState.STOPPED:
            raise ConflictError(
                f"the container of project {project} is not running",
                code="not_running",
                hint="start it first",
            )
        return found

    async def _open_to(self, project: ProjectId) -> ContainerInfo:
        info, cgroup = await self._running(project)
        if info.state is ContainerState.FROZEN:
            raise docker_errors.frozen(project)
        self._starts.saw(info, cgroup)
        return info

    async def _thawed(self, info: ContainerInfo) -> ContainerInfo:
        """Undo either way of freezing: the engine does not know of a cgroup's, nor we of a pause."""
        if info.state is not ContainerState.FROZEN:
            return info
        self._frozen_fast.pop(info.project, None)
        cgroup = self._cgroup(info)
        answer = await asked(
            self._client.get(f"/containers/{info.id}/json", deadline=LOOK), "look at the container"
        )
        if answer["State"].get("Paused"):
            if cgroup is not None:
                # The engine refuses to thaw what it believes paused and finds running: help it.
                await docker_freezer.tried(cgroup.freeze)
            await asked(
                self._client.post(f"/containers/{info.id}/unpause", deadline=CHANGE),
                "thaw the container",
            )
        if cgroup is not None:
            await docker_freezer.tried(cgroup.thaw)
        found = await self._present(info.project)
        if found.state is ContainerState.FROZEN:
            raise EngineFailedError(
                f"the container of project {info.project} cannot be thawed",
                code="thaw_failed",
                hint="look at its cgroup's freezer; `docker unpause` it, or start the engine again",
            )
        return found

    async def _why_not(self, project: ProjectId, error: RefusedError) -> AnyonError:
        """Return why a program could not be opened: what the container is in now tells."""
        self._frozen_fast.pop(project, None)
        self._starts.forget(project)
        info = await self.inspect(project)
        if info is None:
            return docker_errors.absent(project)
        if info.state is ContainerState.STOPPED:
            return ConflictError(
                f"the container of project {project} is not running", code="not_running"
            )
        if info.state is ContainerState.FROZEN:
            return docker_errors.frozen(project)
        return docker_errors.failed("open a program", error)

    async def _end_program(self, info: ContainerInfo, pid: int) -> None:
        inner = docker_programs.kill(pid, info.id)
        if inner is None:
            return
        # Our user may not kill it from here; the container's own may, from inside.
        kill = Command(argv=["kill", "-9", "--", f"-{inner}"])
        body = docker_options.exec_body(kill) | {"AttachStdin": False}
        try:
            made = await self._client.post(f"/containers/{info.id}/exec", body, deadline=CHANGE)
            start = {"Detach": True, "Tty": False}
            await self._client.post(f"/exec/{made['Id']}/start", start, deadline=CHANGE)
        except RefusedError as error:
            if error.status not in {404, 409}:  # the container ended, and the program with it
                raise docker_errors.failed("end a program", error) from error
