"""The programs that watch a server, as the distribution has them: which are there, and how each is started."""

import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from anyon.domain.errors import MissingError

HOST = "127.0.0.1"
PACKAGES = "prometheus prometheus-node-exporter prometheus-alertmanager"
PORTS = {"prometheus": 9090, "alertmanager": 9093, "node": 9100, "grafana": 3001}
"""The plan's; each listens on the loopback address only."""
_NAMES = {
    "prometheus": ("prometheus",),
    "alertmanager": ("prometheus-alertmanager", "alertmanager"),
    "node": ("prometheus-node-exporter", "node_exporter"),
    "grafana": ("grafana-server", "grafana"),
}
_GRAFANA_HOME = "/usr/share/grafana"


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One to be kept running. ``ready_path`` answers 200 once it is ready."""

    name: str
    argv: Sequence[str]
    port: int
    ready_path: str
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Where it listens, as ``host:port``."""
        return f"{HOST}:{self.port}"


def installed() -> Mapping[str, str]:
    """Return the paths of those that are there, by name; MissingError (``monitoring_missing``).

    Grafana may be missing: no distribution's package has it.
    """
    found = {
        name: path
        for name, names in _NAMES.items()
        for path in [next(filter(None, map(shutil.which, names)), None)]
        if path is not None
    }
    missing = [name for name in PORTS if name != "grafana" and name not in found]
    if missing:
        words = {"node": "the node exporter", "alertmanager": "Alertmanager"}
        raise MissingError(
            f"not installed: {', '.join(words.get(name, 'Prometheus') for name in missing)}",
            code="monitoring_missing",
            hint=f"As root: apt-get install {PACKAGES}. Or use images: `anyon monitoring render`.",
        )
    return found


def free_ports(names: Sequence[str]) -> Mapping[str, int]:
    """Return the plan's port for each name, or a free one where something listens there already."""
    return {name: PORTS[name] if _is_free(PORTS[name]) else _any_free() for name in names}


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def _any_free() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def plan(
    paths: Mapping[str, str], ports: Mapping[str, int], directory: Path, *, password: str
) -> Sequence[Program]:
    """Return how each of *paths* is started over what is rendered in ``directory/config``."""
    config, data = directory / "config", directory / "data"
    found = [
        Program(
            name="prometheus",
            argv=(
                paths["prometheus"],
                f"--config.file={config}/prometheus/prometheus.yml",
                f"--storage.tsdb.path={data}/prometheus",
                f"--web.listen-address={HOST}:{ports['prometheus']}",
                "--enable-feature=exemplar-storage",
            ),
            port=ports["prometheus"],
            ready_path="/-/ready",
        ),
        Program(
            name="alertmanager",
            argv=(
                paths["alertmanager"],
                f"--config.file={config}/alertmanager/alertmanager.yml",
                f"--storage.path={data}/alertmanager",
                f"--web.listen-address={HOST}:{ports['alertmanager']}",
                "--cluster.listen-address=",
            ),
            port=ports["alertmanager"],
            ready_path="/-/ready",
        ),
        Program(
            name="node",
            argv=(paths["node"], f"--web.listen-address={HOST}:{ports['node']}"),
            port=ports["node"],
            ready_path="/metrics",
        ),
    ]
    if "grafana" in paths:
        found.append(_grafana(paths["grafana"], ports["grafana"], directory, password))
    return tuple(found)


def _grafana(path: str, port: int, directory: Path, password: str) -> Program:
    verb = () if path.endswith("-server") else ("server",)
    return Program(
        name="grafana",
        argv=(path, *verb, f"--homepath={_GRAFANA_HOME}"),
        port=port,
        ready_path="/api/health",
        env={
            "GF_SERVER_HTTP_ADDR": HOST,
            "GF_SERVER_HTTP_PORT": str(port),
            "GF_PATHS_DATA": f"{directory}/data/grafana",
            "GF_PATHS_LOGS": f"{directory}/data/grafana/log",
            "GF_PATHS_PLUGINS": f"{directory}/data/grafana/plugins",
            "GF_PATHS_PROVISIONING": f"{directory}/config/grafana/provisioning",
            "GF_SECURITY_ADMIN_PASSWORD": os.environ.get("GRAFANA_ADMIN_PASSWORD") or password,
        },
    )
