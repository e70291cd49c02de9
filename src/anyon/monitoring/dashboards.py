"""Which dashboards there are, and their text as Grafana reads it (every Grafana from 10.1 on).

Built with Grafana's own SDK, which takes a while to import: only what renders imports this.
"""

import json

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from anyon.monitoring.project_dashboards import CONTAINERS, LIFECYCLE, TENANTS
from anyon.monitoring.server_dashboards import SERVER, STORAGE

DASHBOARDS = (CONTAINERS, LIFECYCLE, STORAGE, TENANTS, SERVER)
"""The plan's own first."""


def text_of(dashboard: Dashboard) -> str:
    """Return a dashboard's file, the same for the same dashboard."""
    text = json.dumps(dashboard, cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False)
    return f"{text}\n"
