"""What the door counts, in its own Prometheus registry. No label value ever comes from a client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from actors.views import ActorView
from transport.house import House
from transport.http.limits import BytesInFlight
from ves.records import Refusal, SchemaChecks

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
    def __init__(self, in_flight: BytesInFlight, house: House) -> None:
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
        self._compared = Counter(
            "sequencer_schema_validations",
            "Payloads looked at for their schemas.",
            ["mode", "outcome"],
            registry=self.registry,
        )
        for mode in ("warn", "enforce", "required"):
            for outcome in ("validated", "failed", "encrypted"):
                self._compared.labels(mode, outcome)
        flying = Gauge("sequencer_bytes_in_flight", "Of requests and replies.", registry=self.registry)
        flying.set_function(lambda: float(in_flight.total))
        self.registry.register(_Inhabitants(house))

    def answered(self, method: str, path: str, status: int, seconds: float) -> None:
        self._requests.labels(method, path, str(status)).inc()
        self._latency.labels(method, path).observe(seconds)

    def checked(self, checks: SchemaChecks) -> None:
        """Replays count too: their payloads were looked at before anybody knew."""
        self._compared.labels(checks.mode, "validated").inc(checks.validated)
        self._compared.labels(checks.mode, "failed").inc(checks.failed)
        self._compared.labels(checks.mode, "encrypted").inc(checks.unread)

    def ingested(self, accepted: int, replayed: int, refusals: Iterable[Refusal]) -> None:
        self._accepted.inc(accepted)
        self._replayed.inc(replayed)
        for refusal in refusals:
            kind = refusal.reason.partition(":")[0]
            self._rejected.labels(kind if kind in REASONS else "other").inc()


class _Inhabitants:
    """The tree by address, as it is when somebody asks. A tenant's sequencer counts under its supervisor, so
    that no tenant id is a label."""

    def __init__(self, house: House) -> None:
        self._house = house

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        seen = self._house.overseer.look(children_max=0)
        depth = _gauge("sequencer_mailbox_depth", "Letters waiting.")
        deepest = _gauge("sequencer_mailbox_peak", "Most ever waiting.")
        refused = _gauge("sequencer_mailbox_refused", "Letters not accepted, since the mailbox was made.")
        restarts = _gauge("sequencer_actor_restarts", "Lives after the first.")
        children = _gauge("sequencer_actor_children", "Children of supervisors.")
        for actor in _actors(seen.tree):
            label = [actor.path.partition("/")[2] or actor.path]
            restarts.add_metric(label, actor.restarts + actor.children_restarts)
            if actor.kind != "actor":
                children.add_metric(label, actor.children_total)
            if actor.mailbox is not None:
                depth.add_metric(label, actor.mailbox.depth)
                deepest.add_metric(label, actor.mailbox.peak)
                refused.add_metric(label, actor.mailbox.refused)
        yield from (depth, deepest, refused, restarts, children)
        lag = self._house.lag
        yield _one_gauge("sequencer_event_loop_lag_seconds", "How late the last heartbeat was.", lag.lag_s)
        yield _one_gauge(
            "sequencer_event_loop_lag_peak_seconds", "The latest since the last scrape.", lag.take_peak()
        )
        yield _counter("sequencer_event_loop_hogs", "Times somebody held the loop too long.", lag.hogs)
        yield _counter(
            "sequencer_appends_moved",
            "Groups decided anew because another writer was first.",
            self._house.tally.moved,
        )
        events = CounterMetricFamily(
            "sequencer_security_events", "What somebody should look at.", labels=["kind"]
        )
        for kind, count in self._house.security.counts.items():
            events.add_metric([kind], count)
        yield events
        yield _counter(
            "sequencer_schema_checks_skipped",
            "Requests accepted without their schemas in mode warn.",
            self._house.policies.unchecked,
        )
        yield _one_gauge(
            "sequencer_token_keys_broken",
            "1 while JWT_JWKS_FILE holds what is not believed, and older keys are used.",
            float(self._house.tokens.key_file_broken),
        )
        yield _counter(
            "sequencer_failed_attempts_not_audited",
            "Failed attempts whose audit entries had to go because too many waited.",
            self._house.failed_attempts.dropped,
        )
        yield _counter("sequencer_dead_letters", "Letters nobody could handle.", seen.dead_letters_total)
        yield _counter(
            "sequencer_driver_strays", "Failures nobody waited for, in the driver.", self._house.strays()
        )


def _gauge(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=["address"])


def _one_gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, value=value)


def _actors(view: ActorView) -> Iterator[ActorView]:
    yield view
    for child in view.children:
        yield from _actors(child)
