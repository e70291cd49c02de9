"""What is rendered is what Prometheus and Grafana read, and what the plan asks for."""

import json
import subprocess
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard as GrafanaDashboard
from tests.prometheus_fixtures import need, promtool

from anyon.domain.errors import InvalidInputError
from anyon.monitoring import grafana
from anyon.monitoring.dashboards import DASHBOARDS
from anyon.monitoring.folders import write
from anyon.monitoring.panels import Dashboard
from anyon.monitoring.project_dashboards import CONTAINERS
from anyon.monitoring.renderings import Targets, render
from anyon.telemetry import Metrics, Scene

CONFIG = PurePosixPath("prometheus/prometheus.yml")


def test_the_plans_dashboard_has_its_three_panels_first() -> None:
    """Titles and expressions are the plan's, to the letter."""
    assert CONTAINERS.title == "Anyon Container Metrics"
    assert [[query.expr for query in panel.queries] for panel in CONTAINERS.panels[:3]] == [
        ['anyon_containers_total{status="running"}'],
        ["anyon_idle_containers_total"],
        ["histogram_quantile(0.95, rate(anyon_container_exec_duration_seconds_bucket[5m]))"],
    ]


def test_the_plans_jobs_and_ports() -> None:
    """Three jobs, every 15 seconds; Prometheus on 9090, Alertmanager on 9093, the exporter on 9100, Grafana on 3001."""
    files = render(Targets())
    config = files[CONFIG]
    for job, port in (("anyon-containers", 8080), ("docker", 9323), ("node", 9100)):
        assert f"job_name: {job}\n" in config
        assert f'"localhost:{port}"' in config
    assert "scrape_interval: 15s" in config
    compose = files[PurePosixPath("compose.yml")]
    assert all(port in compose for port in (":9090", ":9093", ":9100", '"3001"'))


@pytest.mark.parametrize("with_token", [False, True])
def test_prometheus_accepts_configuration_and_rules(tmp_path: Path, with_token: bool) -> None:
    """Promtool finds no fault, with a token and without."""
    write(tmp_path, render(Targets(token_file="token" if with_token else None)))
    (tmp_path / "prometheus" / "token").write_text("anyon_x")
    code, words = promtool("check", "config", str(tmp_path / CONFIG))
    assert code == 0, words
    assert ("credentials_file" in (tmp_path / CONFIG).read_text()) is with_token


def test_prometheus_refuses_a_broken_rule(tmp_path: Path) -> None:
    """The check above is not blind."""
    write(tmp_path, render(Targets()))
    rules = tmp_path / "prometheus" / "rules.yml"
    rules.write_text(rules.read_text().replace("== 0", "== =", 1))
    assert promtool("check", "config", str(tmp_path / CONFIG))[0] != 0


@pytest.mark.parametrize("address", ["", "host", "host:0", "host:99999", 'a"b:1', "a\nb:1"])
def test_an_address_cannot_carry_configuration(address: str) -> None:
    """What goes into a file is a host and a port, nothing else."""
    with pytest.raises(InvalidInputError, match="no address"):
        Targets(server=address)


def amtool(*arguments: str) -> tuple[int, str]:
    """Run Alertmanager's own tool; return its exit code and all its words."""
    done = subprocess.run(
        [need("amtool"), *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("told", "receiver"),
    [
        ({}, "nobody"),
        ({"webhook": "https://hooks.example/x?token=a%20b"}, "webhook"),
        ({"email": "ops@example.org", "smtp": "mail.example.org:25"}, "email"),
        ({"webhook": "http://h/x", "email": "ops@example.org"}, "webhook"),
    ],
)
def test_alertmanager_accepts_its_configuration(
    tmp_path: Path, told: dict[str, str], receiver: str
) -> None:
    """Its tool finds no fault, and alerts go to whom the options name."""
    write(tmp_path, render(Targets(**told)))
    config = str(tmp_path / "alertmanager" / "alertmanager.yml")
    code, words = amtool("check-config", config)
    assert code == 0, words
    for labels in (["alertname=X", "severity=warning"], ["alertname=X", "severity=critical"]):
        code, words = amtool("config", "routes", "test", f"--config.file={config}", *labels)
        assert (code, words.splitlines()[:1]) == (0, [receiver])


def test_alertmanager_refuses_a_broken_configuration(tmp_path: Path) -> None:
    """The check above is not blind."""
    write(tmp_path, render(Targets()))
    config = tmp_path / "alertmanager" / "alertmanager.yml"
    config.write_text(config.read_text().replace("receiver: nobody", "receiver: no-such"))
    assert amtool("check-config", str(config))[0] != 0


@pytest.mark.parametrize(
    "told",
    [
        {"webhook": "ftp://host/x"},
        {"webhook": "http://host/x'\nroute: {}"},
        {"email": "no address"},
        {"email": "a@b'"},
        {"smtp": "host"},
        {"token_file": 'x"\n'},
    ],
)
def test_who_is_told_cannot_carry_configuration(told: dict[str, str]) -> None:
    """What goes into a file is a URL, an address or a path, nothing else."""
    with pytest.raises(InvalidInputError, match="no address"):
        Targets(**told)


def is_within(part: Any, whole: Any) -> bool:
    """Say whether *whole* has all that *part* has."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(
            key in whole and is_within(value, whole[key]) for key, value in part.items()
        )
    if isinstance(part, list):
        pairs = zip(part, whole, strict=False)
        return len(part) == len(whole) and all(is_within(*pair) for pair in pairs)
    return bool(part == whole)


def as_grafana_reads(document: dict[str, Any]) -> Any:
    """Return a dashboard after a round through Grafana's own schema, which drops what it does not know."""
    register_default_plugins()
    return json.loads(json.dumps(GrafanaDashboard.from_json(document), cls=JSONEncoder))


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda one: one.uid)
def test_a_dashboard_is_of_grafanas_schema(dashboard: Dashboard) -> None:
    """Grafana's published types know every field that is written, and keep its value."""
    document = grafana.document(dashboard)
    assert is_within(document, as_grafana_reads(document))
    assert json.loads(grafana.text_of(dashboard)) == document


def test_an_unknown_field_is_seen() -> None:
    """The check above is not blind: a misspelt field of a panel is found."""
    document = grafana.document(CONTAINERS)
    document["panels"][0]["titel"] = "x"
    assert not is_within(document, as_grafana_reads(document))


def test_the_metrics_are_good_prometheus() -> None:
    """Promtool's linter complains of the two names that the plan gives, and of nothing else."""
    metrics = Metrics()
    metrics.show(Scene(containers={"running": 1}, phases={"running": 1}, leases={"x": 1}))
    metrics.exec_ended("p", "completed", timedelta(seconds=1))
    metrics.request_served("GET", "/api/health", 200, 0.1)
    metrics.task_started("running", 0.5)
    metrics.stream_opened("tasks")
    _, words = promtool("check", "metrics", stdin=metrics.text())
    faults = {line.split()[0] for line in words.splitlines() if line.startswith("anyon_")}
    assert faults == {"anyon_containers_total", "anyon_idle_containers_total"}, words
