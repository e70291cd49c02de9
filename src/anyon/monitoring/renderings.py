"""All files of a monitoring setup, as text by path; pure but for reading the templates."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from importlib import resources
from pathlib import PurePosixPath
from string import Template

from anyon.domain.errors import InvalidInputError
from anyon.monitoring.dashboards import DASHBOARDS, text_of

TOKEN_FILE = "token"  # noqa: S105 - the name of a file, beside prometheus.yml
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")
_AUTHORIZATION = """\
    authorization:
      type: Bearer
      credentials_file: "{}"
"""


_URL = re.compile(r"https?://[A-Za-z0-9._~:/?#@!&()*+,;=%\[\]-]+")
_EMAIL = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+")
_PATH = re.compile(r"[A-Za-z0-9._/ @+-]+")
_PLACEHOLDER_URL = "http://localhost:9095/alerts"
_PLACEHOLDER_EMAIL = "operators@localhost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """Where the server and those who watch it are, each as ``host:port``, and who is told of alerts.

    ``token_file`` is where Prometheus finds a token for the server (beside its configuration, or
    absolute); None: it asks for none. ``dashboards`` is where Grafana finds them. With neither
    ``webhook`` nor ``email`` alerts are shown and sent to nobody; ``smtp`` is the server for mail.
    InvalidInputError (``bad_address``) for what is no address.
    """

    server: str = "localhost:8080"
    docker: str = "localhost:9323"
    node: str = "localhost:9100"
    prometheus: str = "localhost:9090"
    alertmanager: str = "localhost:9093"
    interval: timedelta = timedelta(seconds=15)
    token_file: str | None = None
    dashboards: str = "/var/lib/grafana/dashboards"
    webhook: str | None = None
    email: str | None = None
    smtp: str = "localhost:25"

    def __post_init__(self) -> None:
        for address in (
            self.server,
            self.docker,
            self.node,
            self.prometheus,
            self.alertmanager,
            self.smtp,
        ):
            match = _ADDRESS.fullmatch(address)
            if match is None or not 0 < int(match[2]) < 65536:
                raise _bad(address, "Write host:port.")
        for given, form, hint in (
            (self.webhook, _URL, "Write http://host/path, without spaces and quotes."),
            (self.email, _EMAIL, "Write name@host."),
            (self.token_file, _PATH, "Give it a plain path."),
            (self.dashboards, _PATH, "Give it a plain path."),
        ):
            if given is not None and form.fullmatch(given) is None:
                raise _bad(given, hint)


def _bad(address: str, hint: str) -> InvalidInputError:
    return InvalidInputError(f"{address!r} is no address", code="bad_address", hint=hint)


def render(targets: Targets) -> Mapping[PurePosixPath, str]:
    """Return every file's text by its path below the output directory."""
    token = targets.token_file
    receiver = "webhook" if targets.webhook else "email" if targets.email else "nobody"
    values = {
        "server": targets.server,
        "docker": targets.docker,
        "node": targets.node,
        "prometheus": targets.prometheus,
        "alertmanager": targets.alertmanager,
        "interval": f"{max(1, round(targets.interval.total_seconds()))}s",
        "authorization": "" if token is None else _AUTHORIZATION.format(token),
        "dashboards": targets.dashboards,
        "receiver": receiver,
        "webhook": targets.webhook or _PLACEHOLDER_URL,
        "email": targets.email or _PLACEHOLDER_EMAIL,
        "smtp": targets.smtp,
    }
    places = {
        "compose.yml": "compose.yml",
        "prometheus/prometheus.yml": "prometheus.yml",
        "prometheus/rules.yml": "rules.yml",
        "alertmanager/alertmanager.yml": "alertmanager.yml",
        "grafana/provisioning/datasources/anyon.yml": "datasource.yml",
        "grafana/provisioning/dashboards/anyon.yml": "dashboards.yml",
    }
    files = {PurePosixPath(path): _filled(name, values) for path, name in places.items()}
    for dashboard in DASHBOARDS:
        path = PurePosixPath("grafana/dashboards") / f"{dashboard.uid}.json"
        files[path] = text_of(dashboard)
    return files


def _filled(name: str, values: Mapping[str, str]) -> str:
    template = resources.files("anyon.monitoring") / "templates" / name
    return Template(template.read_text(encoding="utf-8")).substitute(values)
