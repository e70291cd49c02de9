"""Traces: which parts of a request took how long, sent by OpenTelemetry where that is switched on.

A request's tracer is kept in the context, as its id is; deeper code says ``with span("…")`` and
need not know whether anybody listens. Where nobody does, that costs a look into the context.
"""

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from anyon.domain.errors import MissingError
from anyon.telemetry.requests import current_request_id

Value = str | int | float | bool
PARENT = "traceparent"
"""The header, and in capitals the variable of a process, by which W3C's Trace Context names a parent."""


class Tracer(Protocol):
    """Takes spans. One object per server."""

    def span(self, name: str, attributes: Mapping[str, Value], *, parent: str | None = None) -> Any:
        """Return a context manager: what is done inside is the span, its errors are noted.

        It is a child of *parent* (a ``traceparent``) if that is given and can be read, else of
        the span it is opened in, else the first of a new trace.
        """
        ...

    def describe(self, name: str, attributes: Mapping[str, Value]) -> None:
        """Give the open span another name, and more attributes: what is known at its end only."""
        ...

    def current(self) -> str | None:
        """Return the open span as a ``traceparent``; None if there is none."""
        ...

    def close(self) -> None:
        """Send what was not sent yet, for some seconds at most. Blocks."""
        ...


_TRACER: ContextVar[Tracer | None] = ContextVar("anyon_tracer", default=None)


@contextmanager
def traced(
    tracer: Tracer, name: str, attributes: Mapping[str, Value], *, parent: str | None = None
) -> Iterator[Any]:
    """Begin a trace with *tracer* (or go on with *parent*'s); ``span`` inside belongs to it."""
    token = _TRACER.set(tracer)
    try:
        with tracer.span(name, attributes, parent=parent) as one:
            yield one
    finally:
        _TRACER.reset(token)


@contextmanager
def span(name: str, /, **attributes: Value) -> Iterator[None]:
    """Measure the block as a part of the trace that it is in, if it is in one."""
    tracer = _TRACER.get()
    if tracer is None:
        yield
        return
    with tracer.span(name, attributes):
        yield


def current_traceparent() -> str | None:
    """Return the open span in W3C's form, None where nothing is traced."""
    tracer = _TRACER.get()
    return None if tracer is None else tracer.current()


def exemplar() -> dict[str, str] | None:
    """Return what leads from a measured value to its trace, else to its request; None for neither."""
    parent = current_traceparent()
    if parent is not None:
        return {"trace_id": parent.split("-")[1]}
    request_id = current_request_id()
    return None if request_id is None else {"request_id": request_id}


class OtlpTracer:
    """Sends spans to an OTLP/HTTP *endpoint* (``…/v1/traces``), in the background, in batches.

    What cannot be sent is told in the log and dropped. MissingError (``traces_missing``) where
    the package is not installed. The library's own variables (``OTEL_…``) set headers, sampling
    and batches.
    """

    def __init__(self, endpoint: str, *, version: str) -> None:
        try:
            sdk = importlib.import_module("opentelemetry.sdk.trace")
            export = importlib.import_module("opentelemetry.sdk.trace.export")
            resources = importlib.import_module("opentelemetry.sdk.resources")
            otlp = importlib.import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
            self._api = importlib.import_module("opentelemetry.trace")
            context = importlib.import_module("opentelemetry.trace.propagation.tracecontext")
        except ImportError as error:
            raise MissingError(
                f"traces are switched on, and what sends them is not installed: {error}",
                code="traces_missing",
                hint="Install it (pip install 'anyon[traces]'), or leave traces_endpoint empty.",
            ) from error
        resource = resources.Resource.create({"service.name": "anyon", "service.version": version})
        self._provider = sdk.TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = otlp.OTLPSpanExporter(endpoint=endpoint)
        self._provider.add_span_processor(export.BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("anyon", version)
        self._context = context.TraceContextTextMapPropagator()

    def span(self, name: str, attributes: Mapping[str, Value], *, parent: str | None = None) -> Any:
        """See ``Tracer.span``."""
        context = None if parent is None else self._context.extract({PARENT: parent})
        return self._tracer.start_as_current_span(name, context=context, attributes=attributes)

    def describe(self, name: str, attributes: Mapping[str, Value]) -> None:
        """See ``Tracer.describe``."""
        one = self._api.get_current_span()
        one.update_name(name)
        one.set_attributes(attributes)

    def current(self) -> str | None:
        """See ``Tracer.current``."""
        carrier: dict[str, str] = {}
        self._context.inject(carrier)
        return carrier.get(PARENT)

    def close(self) -> None:
        """See ``Tracer.close``."""
        self._provider.shutdown()
