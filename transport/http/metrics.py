"""What the door counts, in its own Prometheus registry. No label value ever comes from a client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from actors.at_rest_watch import AtRestWatch
from actors.key_ages import KeyAges
from actors.rate_limits import RateLimits
from actors.views import ActorView
from journal.port import JournalVitals
from transport.house import FrontEndView, House
from transport.http.anchor_metrics import AnchorNumbers
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


_LEGACY_REASONS = {
    "SchemaValidation": "schema_validation",
    "InvalidPayloadHash": "invalid_payload_hash",
    "DuplicateEventId": "duplicate_event_id",
    "DuplicateCommandId": "duplicate_command_id",
    "VersionConflict": "version_conflict",
}
"""The same refusals as the legacy stream words them."""


class Metrics:
    def __init__(self, in_flight: BytesInFlight, house: House, anchor: AnchorNumbers) -> None:
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
        self._answered: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._accepted = Counter("sequencer_events_accepted", "New events.", registry=self.registry)
        self._replayed = Counter("sequencer_events_replayed", "Exact replays.", registry=self.registry)
        self._rejected = Counter(
            "sequencer_events_rejected", "Refused events.", ["reason"], registry=self.registry
        )
        for reason in (*REASONS, "other"):
            self._rejected.labels(reason)  # 0 from the start: an alert rule needs the series to exist
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
        self.registry.register(anchor)

    def answered(self, method: str, path: str, status: int, seconds: float) -> None:
        known = self._answered.get((method, path, status))
        if known is None:  # looking labels up each time costs as much as counting
            known = self._requests.labels(method, path, str(status)), self._latency.labels(method, path)
            self._answered[method, path, status] = known
        count, latency = known
        count.inc()
        latency.observe(seconds)

    def checked(self, checks: SchemaChecks) -> None:
        """Replays count too: their payloads were looked at before anybody knew."""
        self._compared.labels(checks.mode, "validated").inc(checks.validated)
        self._compared.labels(checks.mode, "failed").inc(checks.failed)
        self._compared.labels(checks.mode, "encrypted").inc(checks.unread)

    def ingested(self, accepted: int, replayed: int, refusals: Iterable[Refusal]) -> None:
        self._accepted.inc(accepted)
        if replayed:
            self._replayed.inc(replayed)
        for refusal in refusals:
            kind = _LEGACY_REASONS.get(refusal.reason, refusal.reason.partition(":")[0])
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
        yield _counter(
            "sequencer_gave_way_seconds",
            "For so long large groups let tenants pass that have little under way.",
            self._house.right_of_way.waited_s,
        )
        events = CounterMetricFamily(
            "sequencer_security_events", "What somebody should look at.", labels=["kind"]
        )
        for kind, count in self._house.security.counts.items():
            events.add_metric([kind], count)
        yield events
        yield from _key_ages(self._house.key_ages)
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
        yield from _front_ends(self._house.front_ends())
        yield from _at_rest(self._house.at_rest)
        yield from _rate_limits(self._house.rate_limits)
        expiry = GaugeMetricFamily(
            "sequencer_certificate_expires_seconds",
            "Until the listener's certificate expires; negative when it has.",
            labels=["listener"],
        )
        for listener, seconds in self._house.certificates.seconds_left().items():
            expiry.add_metric([listener], seconds)
        yield expiry
        yield from _of_the_database(self._house.journal.vitals())
        reasons = self._house.readiness.reasons
        yield _one_gauge("sequencer_ready", "1 when the node should get traffic.", float(not reasons))
        waiting = self._house.audit_spool.bytes_waiting
        yield _one_gauge("sequencer_audit_spool_bytes", "Audit entries not yet in the chain.", waiting)
        yield _counter("sequencer_dead_letters", "Letters nobody could handle.", seen.dead_letters_total)
        yield _counter(
            "sequencer_driver_strays", "Failures nobody waited for, in the driver.", self._house.strays()
        )


def _front_ends(seen: Sequence[FrontEndView]) -> Iterator[Metric]:
    """None where this process keeps the public door itself."""
    if not seen:
        return
    connections = GaugeMetricFamily(
        "sequencer_frontend_connections", "Open at a front-end process.", labels=["number"]
    )
    requests = GaugeMetricFamily(
        "sequencer_frontend_requests", "Under way for a front-end process.", labels=["number"]
    )
    for front_end in seen:
        connections.add_metric([str(front_end.number)], front_end.connections)
        requests.add_metric([str(front_end.number)], front_end.requests)
    yield connections
    yield requests


def _at_rest(watch: AtRestWatch) -> Iterator[Metric]:
    yield _one_gauge(
        "sequencer_at_rest_writes_encrypted",
        "0: PAYLOAD_ENCRYPTION_MODE is disabled, and new payloads are stored unencrypted.",
        watch.mode != "disabled",
    )
    yield _counter(
        "sequencer_at_rest_unencrypted_reads",
        "Stored values read that nobody had encrypted.",
        watch.unencrypted_reads,
    )


def _rate_limits(limits: RateLimits) -> Iterator[Metric]:
    refused = CounterMetricFamily(
        "sequencer_rate_limited", "Requests over their limit.", labels=["rate_class"]
    )
    for rate_class, count in limits.refused.items():
        refused.add_metric([rate_class], count)
    yield refused
    yield _one_gauge("sequencer_rate_limit_enforced", "0: RATE_LIMIT_MODE is off.", limits.enforced)
    yield _one_gauge("sequencer_rate_limit_buckets", "In memory; full ones are forgotten.", limits.buckets)
    sharing = limits.sharing
    yield _one_gauge(
        "sequencer_rate_limit_alone",
        "1: limits should be shared between nodes, and the database does not answer.",
        sharing is not None and sharing.alone,
    )
    yield _counter(
        "sequencer_rate_limit_sharing_failures",
        "Times the database did not hear what was spent of shared limits.",
        0 if sharing is None else sharing.failures,
    )


def _of_the_database(vitals: JournalVitals) -> Iterator[Metric]:
    units = CounterMetricFamily(
        "sequencer_database_units", "Units of work, by how they ended.", labels=["outcome"]
    )
    for outcome in ("done", "away", "contended", "unknown"):
        units.add_metric([outcome], getattr(vitals, outcome))
    yield units
    yield _counter("sequencer_database_units_slow", "Units that took longer than a second.", vitals.slow)
    connections = GaugeMetricFamily("sequencer_database_connections", "Of the pool.", labels=["state"])
    connections.add_metric(["in_use"], vitals.connections_in_use)
    connections.add_metric(["idle"], vitals.connections - vitals.connections_in_use)
    yield connections
    yield _one_gauge("sequencer_database_connections_max", "What the pool may open.", vitals.connections_max)


def _key_ages(ages: KeyAges) -> Iterator[Metric]:
    """As the last sweep found them."""
    for name, text, value in (
        (
            "agent_keys_overdue",
            "Agent keys older than allowed, without a successor.",
            ages.agent_keys_overdue,
        ),
        ("agent_keys_expiring", "Agent keys that end or are overdue in 14 days.", ages.agent_keys_expiring),
        ("receipt_keys_overdue", "This node's receipt keys older than allowed.", ages.receipt_keys_overdue),
        ("receipt_keys_expiring", "This node's receipt keys overdue in 14 days.", ages.receipt_keys_expiring),
    ):
        yield _one_gauge(f"sequencer_{name}", text, value)


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
