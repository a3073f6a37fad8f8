"""Traces: a letter remembers whose request it serves, and each handling of it is a span of that trace.

Only the OpenTelemetry API is used here; without an SDK nothing is recorded, but the ids still travel, so that
log lines and dead letters name the trace of an incoming W3C ``traceparent``. Costs next to nothing for
requests that bring no trace when nothing records.
"""

from __future__ import annotations

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue

INSTRUMENTATION = "ves-sequencer"

_tracer = trace.get_tracer(INSTRUMENTATION)
_NOTHING = Context()


def current_trace() -> Context | None:
    """What a letter written now belongs to; None when nothing is traced here."""
    current = context.get_current()
    if not current or not trace.get_current_span(current).get_span_context().is_valid:
        return None
    return current


def trace_id_of(traced: Context | None) -> str | None:
    """32 hex digits, as in ``traceparent``."""
    if traced is None:
        return None
    return format(trace.get_current_span(traced).get_span_context().trace_id, "032x")


def begin_handling(traced: Context, message: str, address: str, waited_s: float) -> Span:
    """One incarnation has the letter in hand; what it asks for meanwhile belongs to this span."""
    attributes: dict[str, AttributeValue] = {
        "messaging.destination.name": address,
        "sequencer.waited_s": waited_s,
    }
    return _tracer.start_span(
        f"{message} {address}", traced, kind=SpanKind.CONSUMER, attributes=attributes, record_exception=False
    )


def work_in(traced: Context, span: Span) -> None:
    """From now on this task works for that span."""
    context.attach(trace.set_span_in_context(span, traced))


def work_in_nothing() -> None:
    """This task works for nobody's trace any more."""
    if context.get_current():
        context.attach(_NOTHING)


def end_handling(span: Span, trouble: str | None) -> None:
    """``trouble``: the name of what went wrong; never its text, which may hold what a customer sent."""
    if trouble is not None:
        span.set_status(Status(StatusCode.ERROR, trouble))
    span.end()
