"""Logs, metrics, traces, and the id by which a request is found in all three."""

from anyon.telemetry.logs import KEPT_LOG, configure_logging
from anyon.telemetry.metrics import TIERS, Metrics, idle_bucket
from anyon.telemetry.scenes import CLASSES, Scene, Usage

__all__ = [
    "CLASSES",
    "KEPT_LOG",
    "TIERS",
    "Metrics",
    "Scene",
    "Usage",
    "configure_logging",
    "idle_bucket",
]
