"""What a dashboard is made of, and the questions that many panels ask of Prometheus."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Query:
    """An expression, and the legend of each series it returns (``{{label}}`` is filled in)."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One picture: a curve (``timeseries``) or a number (``stat``); ``unit`` in Grafana's words."""

    title: str
    queries: Sequence[Query]
    about: str = ""
    unit: str = "short"
    kind: Literal["timeseries", "stat"] = "timeseries"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """Panels under one title, in order. ``uid`` is its stable name in Grafana's addresses."""

    uid: str
    title: str
    about: str
    panels: Sequence[Panel]


def p95(metric: str, label: str) -> Sequence[Query]:
    """Return the question for a histogram's 95th percentile by *label*."""
    rates = f"sum by ({label}, le) (rate({metric}_bucket[5m]))"
    return (Query(f"histogram_quantile(0.95, {rates})", f"{{{{{label}}}}}"),)


def per_second(metric: str, *labels: str) -> Sequence[Query]:
    """Return the question for how often something is counted, by *labels*."""
    legend = " ".join(f"{{{{{label}}}}}" for label in labels)
    return (Query(f"sum by ({', '.join(labels)}) (rate({metric}[5m]))", legend),)
