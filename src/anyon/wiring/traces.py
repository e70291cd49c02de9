"""Whether traces are made, and where they go: the setting ``traces_endpoint``, made into a tracer."""

from anyon import __version__
from anyon.config import Settings
from anyon.telemetry.traces import OtlpTracer, Tracer


def tracer(settings: Settings) -> Tracer | None:
    """Return what takes spans, None where traces are off; MissingError (``traces_missing``)."""
    if not settings.traces_endpoint:
        return None
    return OtlpTracer(settings.traces_endpoint, version=__version__)
