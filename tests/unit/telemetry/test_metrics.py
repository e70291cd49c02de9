"""The metrics have the names and labels that the dashboards ask for."""

import re
from datetime import timedelta

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from anyon.telemetry import Metrics, Scene, idle_bucket
from anyon.telemetry.requests import requested


def test_the_plans_metrics_are_there_by_name() -> None:
    """The dashboard's queries find what they ask for."""
    metrics = Metrics()
    metrics.set_containers({"running": 2})
    metrics.set_idle([timedelta(minutes=40)])
    metrics.exec_ended("p", "completed", timedelta(seconds=2))
    text = metrics.text()
    assert 'anyon_containers_total{status="running"} 2.0' in text
    assert 'anyon_containers_total{status="stopped"} 0.0' in text
    assert 'anyon_idle_containers_total{idle_duration="30m_to_24h"} 1.0' in text
    bucket = (
        'anyon_container_exec_duration_seconds_bucket{le="2.5",project_id="p",status="completed"}'
    )
    assert f"{bucket} 1.0" in text


def test_a_deleted_projects_series_go() -> None:
    """The number of series is bounded by the projects that exist."""
    metrics = Metrics()
    metrics.exec_ended("p", "failed", timedelta(seconds=2))
    metrics.project_deleted("p")
    assert 'project_id="p"' not in metrics.text()


def test_idle_times_fall_into_steps() -> None:
    """Each idle time has one label."""
    minutes = [idle_bucket(timedelta(minutes=m)) for m in (0, 5, 30, 24 * 60)]
    assert minutes == ["under_5m", "5m_to_30m", "30m_to_24h", "over_24h"]


def test_the_plans_buckets() -> None:
    """Run times fall into the plan's buckets, no others."""
    metrics = Metrics()
    metrics.exec_ended("p", "completed", timedelta(seconds=2))
    text = metrics.text()
    bounds = re.findall(r'exec_duration_seconds_bucket\{le="([^"]+)"', text)
    assert bounds == ["0.1", "0.5", "1.0", "2.5", "5.0", "10.0", "30.0", "60.0", "+Inf"]


def test_labels_of_projects_can_be_switched_off() -> None:
    """With very many projects their run times share one label."""
    metrics = Metrics(per_project=False)
    for number in range(100):
        metrics.exec_ended(f"p{number}", "completed", timedelta(seconds=2))
    text = metrics.text()
    assert 'seconds_count{project_id="all",status="completed"} 100.0' in text
    assert 'project_id="p' not in text


def test_a_project_that_is_gone_loses_its_series_at_the_next_scrape() -> None:
    """A process that is recorded after its project's deletion leaves nothing for ever."""
    metrics = Metrics()
    metrics.exec_ended("gone", "completed", timedelta(seconds=2))
    metrics.exec_ended("here", "completed", timedelta(seconds=2))
    metrics.show(Scene(containers={}, owners={"here": "u"}))
    text = metrics.text()
    assert 'project_id="here"' in text
    assert 'project_id="gone"' not in text


def test_an_engine_that_does_not_answer_has_no_containers() -> None:
    """No number is shown that may be wrong; the next look that succeeds shows it again."""
    metrics = Metrics()
    metrics.show(Scene(containers=None))
    text = metrics.text()
    assert "anyon_engine_up 0.0" in text
    assert "anyon_containers_total{" not in text
    metrics.show(Scene(containers={"running": 3}))
    assert 'anyon_containers_total{status="running"} 3.0' in metrics.text()


def test_first_events_are_seen() -> None:
    """Series whose labels are known begin at 0, so that a rate sees their first event."""
    text = Metrics().text()
    assert 'anyon_checkpoint_failures_total{reason="interval"} 0.0' in text
    assert 'anyon_reconciler_repairs_total{reason="container_lost"} 0.0' in text
    assert 'anyon_wake_seconds_count{tier="frozen"} 0.0' in text


def test_without_checkpoints_there_is_no_age() -> None:
    """Where none are kept, the age is no number, which no alert takes for good or bad."""
    metrics = Metrics()
    metrics.show(Scene(containers={}, checkpoint_ages=None))
    assert "anyon_checkpoint_age_seconds NaN" in metrics.text()


def test_exemplars_lead_to_the_request() -> None:
    """In OpenMetrics a bucket names a request that fell into it; the plain form has no such thing."""
    metrics = Metrics()
    with requested("request-1"):
        metrics.task_started("running", 0.3)
    metrics.task_started("running", 40)  # of no request: nothing to lead to
    told, kind = metrics.render("application/openmetrics-text; version=1.0.0, text/plain;q=0.5")
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    lines = [
        line for line in told.decode().splitlines() if "anyon_task_start_seconds_bucket" in line
    ]
    (led,) = [line for line in lines if " # " in line]
    assert led.startswith('anyon_task_start_seconds_bucket{le="0.5",tier="running"} 1.0 # ')
    assert '# {request_id="request-1"} 0.3 ' in led
    plain, kind = metrics.render("*/*")
    assert kind.startswith("text/plain")
    assert b"request-1" not in plain


def test_openmetrics_can_be_read() -> None:
    """The standard's own parser reads all of it, and finds the plan's series by their names."""
    metrics = Metrics()
    metrics.show(Scene(containers={"running": 1}, owners={"p": "u"}))
    metrics.exec_ended("p", "completed", timedelta(seconds=2))
    told, _ = metrics.render("application/openmetrics-text; version=1.0.0")
    families = {family.name for family in text_string_to_metric_families(told.decode())}
    assert {
        "anyon_containers_total",
        "anyon_idle_containers_total",
        "anyon_container_exec_duration_seconds",
    } <= families


@pytest.mark.parametrize(
    ("accept", "is_openmetrics"),
    [
        ("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5", True),
        ("application/openmetrics-text; version=1.0.0; escaping=allow-utf-8", True),
        ("text/html, application/openmetrics-text", True),
        ("application/openmetrics-text;version=0.0.1", False),
        ("application/openmetrics-text;version=foo", False),
        ("text/plain;version=foo", False),
        ("application/openmetrics-text;version=99\r\nX: y", False),
        (";,;=,", False),
        ("", False),
    ],
)
def test_the_form_is_the_one_that_is_accepted(accept: str, *, is_openmetrics: bool) -> None:
    """A header of no sense gets the plain form, and nothing of it is said back."""
    told, kind = Metrics().render(accept)
    assert told.endswith(b"# EOF\n") is is_openmetrics
    assert kind == (
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
        if is_openmetrics
        else "text/plain; version=0.0.4; charset=utf-8"
    )
