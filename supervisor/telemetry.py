"""Whether spans leave the house: only when the operator names a collector, by OpenTelemetry's own variables.

Alone knows the SDK, which is an optional part of the installation. Everything else is its environment:
``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_TRACES_SAMPLER``, ``OTEL_SERVICE_NAME`` … A collector that is away
costs spans, never a request.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
EXPORT_S = 2.0
"""How long a batch of spans may take to be sent; at the end of the process too."""
INSTALL = "pip install --require-hashes -r requirements/otel.lock"


class TelemetryMissing(Exception):
    """A collector is named but the SDK is not installed; the text says what helps."""


@contextmanager
def exporting(environ: Mapping[str, str]) -> Iterator[None]:
    """Spans are sent in the background inside, and the last ones before it returns."""
    named = next((name for name in _ENDPOINTS if environ.get(name)), None)
    if named is None or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        yield
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise TelemetryMissing(f"{named} is set, but the exporter is not installed: {INSTALL}") from None
    service = environ.get("OTEL_SERVICE_NAME", "ves-sequencer")
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=EXPORT_S)))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()
