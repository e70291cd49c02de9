"""Dashboards in Grafana's own form (its JSON schema 36, which every Grafana since 9 reads)."""

import json
from typing import Any

from anyon.monitoring.panels import Dashboard, Panel

_SOURCE = {"type": "prometheus", "uid": "anyon-prometheus"}
_WIDTH, _HEIGHT, _COLUMNS = 8, 8, 3


def text_of(dashboard: Dashboard) -> str:
    """Return a dashboard's file, the same for the same dashboard."""
    return json.dumps(document(dashboard), indent=2, ensure_ascii=False) + "\n"


def document(dashboard: Dashboard) -> dict[str, Any]:
    """Return a dashboard as Grafana keeps it."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.about,
        "tags": ["anyon"],
        "timezone": "browser",
        "editable": True,
        "schemaVersion": 36,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "panels": [_panel(panel, place) for place, panel in enumerate(dashboard.panels)],
    }


def _panel(panel: Panel, place: int) -> dict[str, Any]:
    row, column = divmod(place, _COLUMNS)
    return {
        "id": place + 1,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0, "custom": _look(panel)},
            "overrides": [],
        },
        "options": _options(panel),
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": _SOURCE,
                "expr": query.expr,
                "legendFormat": query.legend,
                "range": True,
            }
            for number, query in enumerate(panel.queries)
        ],
    }


def _look(panel: Panel) -> dict[str, Any]:
    if panel.kind == "stat":
        return {}
    return {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 10, "showPoints": "never"}


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "stat":
        return {"reduceOptions": {"calcs": ["lastNotNull"], "values": False}}
    return {
        "legend": {
            "displayMode": "list",
            "placement": "bottom",
            "showLegend": True,
            "calcs": ["last"],
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
