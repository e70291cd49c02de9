"""The metrics have the names and labels that the dashboards ask for."""

from datetime import timedelta

from anyon.telemetry import Metrics, idle_bucket


def test_the_plans_metrics_are_there_by_name() -> None:
    """The dashboard's queries find what they ask for."""
    metrics = Metrics()
    metrics.set_containers({"running": 2})
    metrics.set_idle([timedelta(minutes=40)])
    metrics.exec_ended("p", "completed", timedelta(seconds=2))
    text = metrics.render().decode()
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
    assert 'project_id="p"' not in metrics.render().decode()


def test_idle_times_fall_into_steps() -> None:
    """Each idle time has one label."""
    minutes = [idle_bucket(timedelta(minutes=m)) for m in (0, 5, 30, 24 * 60)]
    assert minutes == ["under_5m", "5m_to_30m", "30m_to_24h", "over_24h"]
