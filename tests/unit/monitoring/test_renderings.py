"""What is rendered is what Prometheus and Grafana read, and what the plan asks for."""

import json
import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard
from tests.prometheus_fixtures import need, promtool

from anyon.domain.errors import InvalidInputError
from anyon.monitoring.dashboards import DASHBOARDS, text_of
from anyon.monitoring.folders import write
from anyon.monitoring.project_dashboards import CONTAINERS
from anyon.monitoring.renderings import Targets, render
from anyon.telemetry import Metrics, Scene

CONFIG = PurePosixPath("prometheus/prometheus.yml")
RULES = PurePosixPath("prometheus/rules.yml")


def test_the_plans_dashboard_has_its_three_panels_first() -> None:
    """Titles and expressions are the plan's, to the letter."""
    assert CONTAINERS.title == "Anyon Container Metrics"
    assert DASHBOARDS[0] is CONTAINERS
    assert [panel.title for panel in CONTAINERS.panels[:3]] == [
        "Running Containers",
        "Idle Containers",
        "Execution Duration P95",
    ]
    assert [expressions(panel) for panel in CONTAINERS.panels[:3]] == [
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


def test_the_compose_file_fits_what_is_rendered_beside_it() -> None:
    """It is YAML; every image has a version, every file that is mounted is rendered, nothing listens beyond this machine."""
    files = render(Targets())
    compose = yaml.safe_load(files[PurePosixPath("compose.yml")])
    assert set(compose["services"]) == {"prometheus", "alertmanager", "node-exporter", "grafana"}
    for name, service in compose["services"].items():
        assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+", service["image"]), name
        listens = [*service.get("command", ()), *map(str, service.get("environment", {}).values())]
        assert any("127.0.0.1" in word for word in listens), name
        for mount in service["volumes"]:
            source = mount.split(":")[0]
            if source.startswith("./"):
                below = PurePosixPath(source)
                assert any(below in path.parents for path in files), mount
            else:
                assert source == "/" or source in compose["volumes"], mount


def test_grafana_is_told_where_all_lies() -> None:
    """Its provisioning is YAML that names the source which the panels ask, and the dashboards' directory."""
    files = render(Targets(dashboards="/some/where"))
    base = PurePosixPath("grafana/provisioning")
    sources = yaml.safe_load(files[base / "datasources/anyon.yml"])["datasources"]
    known = {(source["type"], source["uid"]) for source in sources}
    for dashboard in DASHBOARDS:
        for panel in dashboard.panels:
            for asked in (panel, *panel.targets):
                assert (asked.datasource.type_val, asked.datasource.uid) in known
    (provider,) = yaml.safe_load(files[base / "dashboards/anyon.yml"])["providers"]
    assert provider["options"]["path"] == "/some/where"


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


def as_grafana_reads(document: dict[str, Any]) -> Any:
    """Return a dashboard after a round through Grafana's own types, which drop what they do not know."""
    register_default_plugins()
    return json.loads(json.dumps(Dashboard.from_json(document), cls=JSONEncoder))


def expressions(panel: Any) -> list[str]:
    """Return what a panel asks."""
    return [asked.expr for asked in panel.targets]


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda one: one.uid)
def test_a_dashboard_is_of_grafanas_schema(dashboard: Dashboard) -> None:
    """What is written is read by Grafana's published types, each field of it, and written the same again."""
    document = json.loads(text_of(dashboard))
    assert as_grafana_reads(document) == document


def test_an_unknown_field_is_seen() -> None:
    """The check above is not blind: a misspelt field of a panel is found."""
    document = json.loads(text_of(CONTAINERS))
    document["panels"][0]["titel"] = "x"
    assert as_grafana_reads(document) != document


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda one: one.uid)
def test_every_panel_explains_itself(dashboard: Dashboard) -> None:
    """Each has a title of its own, a sentence of help, a unit that Grafana knows, and queries with legends."""
    known = {value for name, value in vars(units).items() if name[0].isupper()}
    titles = [panel.title for panel in dashboard.panels]
    assert len(set(titles)) == len(titles)
    for panel in dashboard.panels:
        assert panel.description.endswith("."), panel.title
        assert panel.field_config.defaults.unit in known, panel.title
        assert [asked.ref_id for asked in panel.targets] == list("ABC")[: len(panel.targets)]
        if panel.type_val in {"timeseries", "stat"}:
            assert all(asked.legend_format for asked in panel.targets), panel.title


def test_nothing_is_shown_twice() -> None:
    """No two panels of all dashboards ask the same."""
    asked = [tuple(expressions(panel)) for one in DASHBOARDS for panel in one.panels]
    assert [one for one in asked if asked.count(one) > 1] == []


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda one: one.uid)
def test_panels_lie_side_by_side(dashboard: Dashboard) -> None:
    """Three in a row, none over another, each with a number of its own: its address in Grafana."""
    panels = dashboard.panels
    places = [(panel.grid_pos.x, panel.grid_pos.y) for panel in panels]
    assert places == [(8 * (n % 3), 8 * (n // 3)) for n in range(len(panels))]
    assert [panel.id_val for panel in panels] == list(range(1, len(panels) + 1))


def test_a_limit_is_drawn_where_its_alert_fires() -> None:
    """A red line at the alert's limit; a number is red below or above it."""
    panels = {panel.title: panel for one in DASHBOARDS for panel in one.panels}
    drawn = panels["Oldest work not saved"].field_config.defaults
    assert [(step.value, step.color) for step in drawn.thresholds.steps] == [
        (None, "green"),
        (600, "red"),
    ]
    assert drawn.custom.thresholds_style.mode == "line"
    assert "anyon_checkpoint_age_seconds > 600" in render(Targets())[RULES]
    shown = panels["Up"].field_config.defaults.thresholds.steps
    assert [(step.value, step.color) for step in shown] == [(None, "red"), (1, "green")]


def test_rendering_again_gives_the_same_bytes() -> None:
    """Two processes with other hash seeds render every file the same."""
    words = (
        "import hashlib; from anyon.monitoring.renderings import Targets, render; "
        "print(hashlib.sha256(repr(sorted(render(Targets()).items())).encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", words],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path("src").absolute())},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_only_what_renders_pays_for_the_sdk() -> None:
    """Neither the server nor another command imports it."""
    words = (
        "import sys, anyon.cli.main, anyon.wiring.assembly, anyon.wiring.doctor, anyon.monitoring.keepers; "
        "print(sorted(name for name in sys.modules if name.startswith('grafana')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", words],
        env={**os.environ, "PYTHONPATH": str(Path("src").absolute())},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "[]"


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
