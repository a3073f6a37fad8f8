"""What the door counts, in its own Prometheus registry. No label value ever comes from a client."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric

from transport.http.limits import BytesInFlight
from ves.records import Refusal

_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

REASONS = frozenset(
    {
        "schema_validation",
        "invalid_signature",
        "invalid_payload_hash",
        "invalid_cipher_hash",
        "agent_key_invalid",
        "duplicate_event_id",
        "duplicate_command_id",
        "version_conflict",
        "unsupported_version",
    }
)


class Metrics:
    def __init__(self, *, in_flight: BytesInFlight, snapshot: Callable[[], Any]) -> None:
        self.registry = CollectorRegistry()
        labels = ["method", "path", "status"]
        self._requests = Counter(
            "sequencer_http_requests", "Requests answered.", labels, registry=self.registry
        )
        self._latency = Histogram(
            "sequencer_http_request_latency_seconds",
            "From the request's head to the end of its reply.",
            ["method", "path"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._accepted = Counter("sequencer_events_accepted", "New events.", registry=self.registry)
        self._replayed = Counter("sequencer_events_replayed", "Exact replays.", registry=self.registry)
        self._rejected = Counter(
            "sequencer_events_rejected", "Refused events.", ["reason"], registry=self.registry
        )
        flying = Gauge("sequencer_bytes_in_flight", "Of requests and replies.", registry=self.registry)
        flying.set_function(lambda: float(in_flight.total))
        self.registry.register(_Mailboxes(snapshot))

    def answered(self, method: str, path: str, status: int, seconds: float) -> None:
        self._requests.labels(method, path, str(status)).inc()
        self._latency.labels(method, path).observe(seconds)

    def ingested(self, accepted: int, replayed: int, refusals: Iterable[Refusal]) -> None:
        self._accepted.inc(accepted)
        self._replayed.inc(replayed)
        for refusal in refusals:
            kind = refusal.reason.partition(":")[0]
            self._rejected.labels(kind if kind in REASONS else "other").inc()


class _Mailboxes:
    """Depths by address; dynamic children count under their supervisor, so that no tenant id is a label."""

    def __init__(self, snapshot: Callable[[], Any]) -> None:
        self._snapshot = snapshot

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        depth = GaugeMetricFamily("sequencer_mailbox_depth", "Letters waiting.", labels=["address"])
        deepest = GaugeMetricFamily("sequencer_mailbox_peak", "Most ever waiting.", labels=["address"])
        restarts = GaugeMetricFamily("sequencer_actor_restarts", "Lives after the first.", labels=["address"])
        sums: dict[str, list[int]] = {}
        for label, actor in _actors(msgspec.to_builtins(self._snapshot())):
            of_kind = sums.setdefault(label, [0, 0, 0])
            mailbox = actor.get("mailbox") or {"depth": 0, "peak": 0}
            of_kind[0] += mailbox["depth"]
            of_kind[1] = max(of_kind[1], mailbox["peak"])
            of_kind[2] += actor.get("restarts", 0)
        for kind, (waiting, most, lives) in sums.items():
            depth.add_metric([kind], waiting)
            deepest.add_metric([kind], most)
            restarts.add_metric([kind], lives)
        yield from (depth, deepest, restarts)


def _actors(view: Any, label: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every ``{"name", "kind", "mailbox", "children"}`` of the supervision tree's snapshot, labelled."""
    if "tree" in view:
        view = view["tree"]
    yield label or view["name"], view
    for child in view["children"]:
        yield from _actors(child, label or (view["name"] if view["kind"] == "dynamic" else None))
