"""What is remembered of containers that this server brought up: enough to open a program without a look.

It is never trusted blindly: the container's own cgroup says whether it still is what it was, and the
engine refuses an id that is no more.
"""

from anyon.domain.ids import ProjectId
from anyon.engines import docker_boots
from anyon.engines.docker_freezer import Cgroup
from anyon.engines.engine import ContainerInfo, ContainerState


class Starts:
    """The containers that were seen RUNNING, with their cgroups."""

    def __init__(self) -> None:
        self._seen: dict[ProjectId, tuple[ContainerInfo, Cgroup]] = {}
        self._fresh: dict[ProjectId, ContainerInfo] = {}

    def saw(self, info: ContainerInfo, cgroup: Cgroup | None) -> None:
        """Remember a container, if it runs and its cgroup can be looked at."""
        if cgroup is not None and info.state is ContainerState.RUNNING:
            self._seen[info.project] = (info, cgroup)

    def began(self, info: ContainerInfo, cgroup: Cgroup | None) -> None:
        """Remember that this server has started a container just now, and nothing was opened in it yet."""
        self.saw(info, cgroup)
        if info.state is ContainerState.RUNNING and docker_boots.LABEL in info.labels:
            self._fresh[info.project] = info

    def take_boot(self, project: ProjectId) -> str | None:
        """Return the container whose first process waits for a program, once."""
        info = self._fresh.pop(project, None)
        return info.id if info else None

    def running(self, project: ProjectId) -> ContainerInfo | None:
        """Return a container that runs by what its cgroup says now; None if it must be looked at."""
        seen = self._seen.get(project)
        if seen is None:
            return None
        info, cgroup = seen
        try:
            if not cgroup.is_frozen():
                return info
        except OSError:  # it ended
            self.forget(project)
        return None

    def forget(self, project: ProjectId) -> None:
        """Look at it anew the next time."""
        self._seen.pop(project, None)
        self._fresh.pop(project, None)
