"""One trace from the caller's ``traceparent`` to a collector: a real server and a real OTLP receiver."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.e2e.world import Server, Tenant

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector:
    """Keeps every span it is sent."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.raw = b""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.raw += body
                request = ExportTraceServiceRequest.FromString(body)
                for resource in request.resource_spans:
                    for scope in resource.scope_spans:
                        outer.spans += scope.spans
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"

    def of_trace(self) -> dict[str, Span]:
        return {span.name: span for span in self.spans if span.trace_id.hex() == TRACE}


@pytest.fixture
def collector() -> Iterator[Collector]:
    running = Collector()
    yield running
    running.http.shutdown()
    running.http.server_close()


def test_a_request_is_one_trace_through_every_room(
    own_server: Callable[..., Server], collector: Collector
) -> None:
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    server = own_server(VERIFY_INLINE_BYTES="0", **settings).start()
    server.wait_ready()
    tenant = Tenant(server)
    body = tenant.agent.body([tenant.agent.event({"secret": "canary-4711"})])
    assert tenant.post_raw(body, traceparent=f"00-{TRACE}-{CALLER}-01").status_code == 200
    ingest = "POST /api/v1/ves/events/ingest"
    append = f"Append sequencers/{tenant.tenant_id}"
    give_up = time.monotonic() + 20
    while not {ingest, append, "Seal encryptors", "Verify verifiers"} <= set(collector.of_trace()):
        assert time.monotonic() < give_up, sorted(collector.of_trace())
        time.sleep(0.05)
    found = collector.of_trace()
    assert found[ingest].parent_span_id.hex() == CALLER
    parents = {"Verify verifiers": ingest, append: ingest, "Seal encryptors": append}
    if "FindKeys registry" in found:
        parents["FindKeys registry"] = "Verify verifiers"
    for child, parent in parents.items():
        assert found[child].parent_span_id == found[parent].span_id, child
    assert TRACE in server.log.read_text(), "the log does not name the trace"
    assert server.terminate() == 0, server.tail()
    for secret in (b"canary-4711", tenant.api_key.encode(), server.bootstrap_key.encode()):
        assert secret not in collector.raw


@pytest.mark.slow  # the last spans are given up only after their deadline
def test_a_collector_that_is_away_costs_no_request(own_server: Callable[..., Server]) -> None:
    server = own_server(
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9",  # nobody listens on «discard»
        OTEL_BSP_SCHEDULE_DELAY="50",
    ).start()
    server.wait_ready()
    tenant = Tenant(server)
    for n in range(3):
        assert tenant.post(tenant.agent.event({"n": n})).status_code == 200
        time.sleep(0.1)
    assert server.terminate() == 0, server.tail()
