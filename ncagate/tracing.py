"""OpenTelemetry, where the extra `otel` is installed and the standard environment says where traces go.

Nothing of it is imported otherwise, and every function here does nothing. One trace follows a job from the request that
made it through the queue to the worker and the deliveries: the row carries its context, as messages name no job.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
TRACEPARENT = "traceparent"
CONTEXT_MAX = 64
"""A `traceparent` (W3C Trace Context, version 00) has 55 characters."""

_provider: Any = None
_tracer: Any = None


def wanted() -> bool:
    """Whether the environment asks for traces, and they can be had."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or not any(map(os.environ.get, ENDPOINTS)):
        return False
    return find_spec("opentelemetry.sdk") is not None and find_spec("opentelemetry.exporter.otlp") is not None


def configure(process: str) -> None:
    """Send what this process does to the collector from now on, in a thread of its own; after a fork, not before."""
    global _provider, _tracer
    if not wanted():
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = os.environ.get("OTEL_SERVICE_NAME", f"ncagate-{process}")
    _provider = TracerProvider(resource=Resource.create({"service.name": name}))
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = _provider.get_tracer("ncagate")


def flush(seconds: float = 2.0) -> None:
    """Send what has not been sent: the process is about to end without saying so."""
    if _provider is not None:
        _provider.force_flush(int(seconds * 1000))


@contextmanager
def span(name: str, *, parent: str | None = None, kind: str = "internal", **attributes: Any) -> Iterator[Span]:
    """A part of the trace; ``parent`` is the context of one that began elsewhere, default: the one around.

    ``kind`` is one of OpenTelemetry's. Attributes are identifiers and names of ours, nothing that a client wrote.
    """
    if _tracer is None:
        yield Span(None)
        return
    from opentelemetry.trace import SpanKind

    options = {"context": _context(parent), "kind": SpanKind[kind.upper()], "attributes": _filled(attributes)}
    with _tracer.start_as_current_span(name, record_exception=False, **options) as one:  # its message may say a lot
        yield Span(one)


def past(name: str, start: float, end: float, *, parent: str | None, **attributes: Any) -> None:
    """A part that is over, of which only the times are known (seconds since the epoch)."""
    if _tracer is not None:
        one = _tracer.start_span(
            name, context=_context(parent), start_time=int(start * 1e9), attributes=_filled(attributes)
        )
        one.end(int(max(start, end) * 1e9))


def current() -> str | None:
    """The context of what is going on, to go on with elsewhere."""
    if _tracer is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get(TRACEPARENT)


def identifiers() -> Mapping[str, str]:
    """Of the trace and its part, for a line of the log."""
    context = (current() or "").split("-")
    return {"trace_id": context[1], "span_id": context[2]} if len(context) == 4 else {}


class Span:
    """A part that is going on; of one that nobody wants nothing is kept."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def tell(self, name: str | None = None, *, failed: bool = False, **attributes: Any) -> None:
        """Say what is known only now."""
        if self._inner is None:
            return
        from opentelemetry.trace import StatusCode

        if name is not None:
            self._inner.update_name(name)
        if failed:
            self._inner.set_status(StatusCode.ERROR)
        self._inner.set_attributes(_filled(attributes))


def _context(parent: str | None) -> Any:
    if parent is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({TRACEPARENT: parent})


def _filled(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Names without a dot are ours."""
    given = {name: value for name, value in attributes.items() if value is not None}
    return {name if "." in name else f"ncagate.{name}": value for name, value in given.items()}
