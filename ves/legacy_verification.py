"""From a legacy ingest body to checked events (wire 23.1): what ``ves.verification`` is for signed ones.

    bytes -> Request -> in scope -> names, payload, hash -> LegacyBatch

It alone makes a ``LegacyEvent``. There is no signature to check: whoever holds the credential may have
written anything, and the hash only shows that the payload came as it was meant. Final refusals are decided
here, per event; what depends on state is not. Whatever the bytes, it answers and raises nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import UNSET
from msgspec.structs import replace

from ves.bodies import agent_mismatch, out_of_scope
from ves.canonical import NotCanonical
from ves.constants import (
    ENTITY_ID_BYTES_MAX,
    ENTITY_TYPE_BYTES_MAX,
    EVENT_TYPE_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
)
from ves.legacy import EmptyBatch, LegacyBatch, LegacyEvent, payload_hash
from ves.legacy_envelopes import Envelope, Request, read_request
from ves.legacy_text import legacy_text
from ves.records import BodyRefused, Finding, NeedsPolicy, NeedsSchemas, Refusal, Scope
from ves.verification import (
    RAW_PAYLOAD_BYTES_MAX,
    Demands,
    InvalidMember,
    from_the_future,
    name_bytes,
    refuse_half_pairs,
)

SCHEMA_VALIDATION = "SchemaValidation"
INVALID_PAYLOAD_HASH = "InvalidPayloadHash"


def verify_legacy_body(
    body: bytes,
    scope: Scope,
    *,
    now_us: int,
    demands_of: Callable[[Request], Demands | NeedsPolicy | NeedsSchemas] = lambda request: Demands(),
) -> LegacyBatch | EmptyBatch | BodyRefused | NeedsPolicy | NeedsSchemas:
    """Check one request; outcomes in request order, one per event. ``demands_of`` is asked once the request
    is typed and in scope; what it lacks is passed on."""
    request = read_request(body)
    if isinstance(request, BodyRefused):
        return request
    if not request.events:
        return agent_mismatch(request.agent_id, scope, "agent_id") or EmptyBatch()
    if refused := out_of_scope(
        request.agent_id, request.events, scope, member="agent_id", source="source_agent"
    ):
        return refused
    demands = demands_of(request)
    if not isinstance(demands, Demands):
        return demands
    first = request.events[0]
    outcomes = [_outcome(event, request.half_pair, now_us, demands) for event in request.events]
    return LegacyBatch(first.tenant_id, first.store_id, request.agent_id, outcomes)


def _outcome(event: Envelope, half_pair: str, now_us: int, demands: Demands) -> LegacyEvent | Refusal:
    wire = event.wire
    try:
        if half_pair:
            refuse_half_pairs(wire, half_pair, "payload")
        name_bytes(wire.entity_type, "entity_type", ENTITY_TYPE_BYTES_MAX)
        name_bytes(wire.entity_id, "entity_id", ENTITY_ID_BYTES_MAX)
        name_bytes(wire.event_type, "event_type", EVENT_TYPE_BYTES_MAX)
        payload = _payload(bytes(wire.payload))
    except InvalidMember as wrong:
        return Refusal(event.event_id, SCHEMA_VALIDATION, str(wrong))
    if payload_hash(payload) != event.payload_hash:
        return Refusal(event.event_id, INVALID_PAYLOAD_HASH, "Payload hash does not match payload")
    checked = LegacyEvent(
        event.event_id,
        event.source_agent_id,
        wire.entity_type,
        wire.entity_id,
        wire.event_type,
        event.created_at_us,
        payload,
        event.payload_hash,
        None if wire.signature is UNSET or wire.signature is None else bytes(wire.signature),
        event.command_id,
        None if wire.base_version is UNSET else wire.base_version,
    )
    findings = _findings(checked, now_us, demands)
    return replace(checked, findings=findings) if findings else checked


def _payload(raw: bytes) -> bytes:
    if len(raw) > RAW_PAYLOAD_BYTES_MAX:
        raise InvalidMember("payload", f"payload exceeds {PAYLOAD_BYTES_MAX} bytes by far")
    try:
        text = legacy_text(raw)  # the whole body's nesting is bounded already
    except NotCanonical as wrong:
        raise InvalidMember("payload", f"payload: {wrong}") from None
    if len(text) > PAYLOAD_BYTES_MAX:
        raise InvalidMember("payload", f"payload has {len(text)} bytes, at most {PAYLOAD_BYTES_MAX} fit")
    return text


def _findings(event: LegacyEvent, now_us: int, demands: Demands) -> tuple[Finding, ...]:
    found = () if demands.judge is None else demands.judge(event)
    if event.created_at_us > now_us + demands.future_us_max:
        found = (*found, from_the_future(demands.future_us_max, again="send"))
    return tuple(Finding(SCHEMA_VALIDATION, finding.message) for finding in found)
