"""What the node says about itself: who signs receipts, whether it lives, whether it is ready, its numbers."""

from __future__ import annotations

import time
from importlib.metadata import PackageNotFoundError, version

import trio
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from actors.at_rest_watch import AtRestWatch
from actors.rate_limits import RateLimits
from journal.port import Journal, JournalError
from transport.http.errors import ApiError, Code
from transport.http.rate_shapes import RateLimitsReply
from transport.http.routing import Reply, Route
from transport.http.shapes import (
    AtRestReply,
    DatabaseReply,
    DetailedHealthReply,
    HealthReply,
    ReadyReply,
    ReceiptKeyReply,
    WellKnownReply,
)
from transport.http.visit import Visit
from ves.encoding import prefixed_hex, uuid_text
from ves.timestamps import utc_text

SERVICE = "ves-sequencer"
NOT_READY_PAUSE_S = 1.0
PING_GOOD_FOR_S = 0.5
"""Whoever asks more often shares an answer: /ready is public and must not become a load on the database."""


def _version() -> str:
    try:
        return version(SERVICE)
    except PackageNotFoundError:
        return "unknown"


VERSION = _version()


def _now() -> str:
    return utc_text(time.time_ns() // 1000)


class DatabasePulse:
    """Asks the database whether it is there, for everybody who wants to know at the same time."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._lock = trio.Lock()
        self._answer: float | None = None
        self._good_until = -float("inf")

    async def response_time_ms(self) -> float | None:
        """None when it did not answer. Takes as long as the journal's own deadline at worst."""
        async with self._lock:
            if trio.current_time() >= self._good_until:
                self._answer = await self._ping()
                self._good_until = trio.current_time() + PING_GOOD_FOR_S
            return self._answer

    async def _ping(self) -> float | None:
        started = time.perf_counter()
        try:
            await self._journal.ping()
        except JournalError:
            return None
        return round((time.perf_counter() - started) * 1000, 2)


async def well_known(visit: Visit) -> WellKnownReply:
    keys = await visit.house.journal.receipt_keys()
    return WellKnownReply(
        uuid_text(visit.house.sequencer_id),
        [
            ReceiptKeyReply(
                uuid_text(key.sequencer_id),
                key.key_version,
                "ed25519",
                prefixed_hex(key.public_key),
                key.active,
                utc_text(key.created_at_us),
                None if key.previous_signature is None else prefixed_hex(key.previous_signature),
            )
            for key in keys
        ],
    )


async def health(visit: Visit) -> HealthReply:
    """The process answers; the database is not asked."""
    return HealthReply("healthy", SERVICE, VERSION, _now())


async def ready(visit: Visit) -> ReadyReply:
    # Only the names: the reasons may tell addresses and belong to the operator.
    waiting = sorted(visit.house.readiness.reasons)
    answer_ms = None if waiting else await visit.door.pulse.response_time_ms()
    if answer_ms is None:
        waiting = waiting or ["database"]
        text = f"not ready, waiting for: {', '.join(waiting)}"
        details = {"waiting_for": waiting}
        raise ApiError(Code.NOT_READY, text, retry_after_s=NOT_READY_PAUSE_S, details=details)
    return ReadyReply("ready", DatabaseReply(True, answer_ms))


async def detailed_health(visit: Visit) -> DetailedHealthReply:
    reasons = dict(visit.house.readiness.reasons)
    if not reasons and await visit.door.pulse.response_time_ms() is None:
        reasons["database"] = "does not answer"
    return DetailedHealthReply(
        "not_ready" if reasons else "healthy",
        SERVICE,
        VERSION,
        _now(),
        reasons,
        visit.door.in_flight.total,
        _rate_limits(visit.house.rate_limits),
        _at_rest(visit.house.at_rest),
        visit.house.overseer.look(children_max=0),
    )


def _rate_limits(limits: RateLimits) -> RateLimitsReply:
    sharing = limits.sharing
    return RateLimitsReply(
        "enforce" if limits.enforced else "off",
        "off" if sharing is None else "alone" if sharing.alone else "shared",
        limits.buckets,
        dict(limits.refused),
    )


def _at_rest(watch: AtRestWatch) -> AtRestReply:
    return AtRestReply(watch.mode, watch.current_key, watch.tenants_with_own_ring, watch.unencrypted_reads)


async def metrics(visit: Visit) -> Reply:
    await visit.door.anchor_numbers.refresh()
    return Reply(generate_latest(visit.door.metrics.registry), content_type=CONTENT_TYPE_LATEST)


WELL_KNOWN = Route(
    "GET",
    "/.well-known/ves-sequencer",
    well_known,
    "The public keys that sign receipts",
    WellKnownReply,
)
HEALTH = Route("GET", "/health", health, "The process answers", HealthReply)
READY = Route(
    "GET",
    "/ready",
    ready,
    "Whether this node should get traffic",
    ReadyReply,
    refuses=(Code.NOT_READY,),
)
METRICS = Route("GET", "/metrics", metrics, "Prometheus metrics", str, content_type="text/plain")
DETAILED_HEALTH = Route(
    "GET",
    "/health/detailed",
    detailed_health,
    "The supervision tree and what the node waits for",
    DetailedHealthReply,
)
