"""All files of a monitoring setup, as text by path; pure but for reading the templates."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from importlib import resources
from pathlib import PurePosixPath
from string import Template

from anyon.domain.errors import InvalidInputError
from anyon.monitoring import grafana
from anyon.monitoring.panels import DASHBOARDS

TOKEN_FILE = "token"  # noqa: S105 - the name of a file, beside prometheus.yml
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")
_AUTHORIZATION = f"""\
    authorization:
      type: Bearer
      credentials_file: {TOKEN_FILE}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """What Prometheus scrapes, as ``host:port``; InvalidInputError (``bad_address``) for anything else.

    *with_token* has it read a token for the server from the file ``token`` beside its own.
    """

    server: str = "localhost:8080"
    docker: str = "localhost:9323"
    node: str = "localhost:9100"
    interval: timedelta = timedelta(seconds=15)
    with_token: bool = False

    def __post_init__(self) -> None:
        for address in (self.server, self.docker, self.node):
            match = _ADDRESS.fullmatch(address)
            if match is None or not 0 < int(match[2]) < 65536:
                raise InvalidInputError(
                    f"{address!r} is no address", code="bad_address", hint="Write host:port."
                )


def render(targets: Targets) -> Mapping[PurePosixPath, str]:
    """Return every file's text by its path below the output directory."""
    values = {
        "server": targets.server,
        "docker": targets.docker,
        "node": targets.node,
        "interval": f"{max(1, round(targets.interval.total_seconds()))}s",
        "authorization": _AUTHORIZATION if targets.with_token else "",
    }
    places = {
        "compose.yml": "compose.yml",
        "prometheus/prometheus.yml": "prometheus.yml",
        "prometheus/rules.yml": "rules.yml",
        "grafana/provisioning/datasources/anyon.yml": "datasource.yml",
        "grafana/provisioning/dashboards/anyon.yml": "dashboards.yml",
    }
    files = {PurePosixPath(path): _filled(name, values) for path, name in places.items()}
    for dashboard in DASHBOARDS:
        path = PurePosixPath("grafana/dashboards") / f"{dashboard.uid}.json"
        files[path] = grafana.text_of(dashboard)
    return files


def _filled(name: str, values: Mapping[str, str]) -> str:
    template = resources.files("anyon.monitoring") / "templates" / name
    return Template(template.read_text(encoding="utf-8")).substitute(values)
