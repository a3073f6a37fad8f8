"""The span of one HTTP request: joins the caller's W3C ``traceparent``, names the route, tells the status.

Without a recording SDK it costs a header look-up; with a ``traceparent`` the ids travel on into letters and
log lines either way. Nothing a caller sent but those two headers gets into a span.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache

from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, ProxyTracerProvider, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from actors.tracing import INSTRUMENTATION
from transport.http.asked import Asked

_tracer = trace.get_tracer(INSTRUMENTATION)
_propagator = TraceContextTextMapPropagator()
_HEADERS = (b"traceparent", b"tracestate")


_UNTRACED = nullcontext(INVALID_SPAN)
"""For requests that bring no trace while nothing records."""


def request_span(asked: Asked, method: str) -> AbstractContextManager[Span]:
    """The current span while the request is answered. A malformed ``traceparent`` is as good as none."""
    carrier = {name.decode(): value.decode("latin-1") for name, value in asked.lines if name in _HEADERS}
    if not carrier and not _is_recorded():
        return _UNTRACED
    above = _propagator.extract(carrier) if carrier else None
    return _tracer.start_as_current_span(
        method, above, kind=SpanKind.SERVER, record_exception=False, set_status_on_exception=False
    )


@cache
def _is_recorded() -> bool:
    """An SDK is installed before the house is built, or never; asking for it reads the environment."""
    return not isinstance(trace.get_tracer_provider(), ProxyTracerProvider)


def describe(span: Span, method: str, route: str, status: int, request_id: str) -> None:
    """What is known only when the request is over. HTTP semantic conventions of OpenTelemetry."""
    if not span.is_recording():
        return
    span.update_name(f"{method} {route}")
    span.set_attributes(
        {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
            "sequencer.request_id": request_id,
        }
    )
    if status >= 500:
        span.set_status(Status(StatusCode.ERROR))
