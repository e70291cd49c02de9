"""Which dashboards there are."""

from anyon.monitoring.project_dashboards import CONTAINERS, LIFECYCLE, TENANTS
from anyon.monitoring.server_dashboards import SERVER, STORAGE

DASHBOARDS = (CONTAINERS, LIFECYCLE, STORAGE, TENANTS, SERVER)
"""The plan's own first."""
