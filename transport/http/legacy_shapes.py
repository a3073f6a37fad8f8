"""The legacy stream's JSON as types (wire 6 and 8), all in snake_case. No behaviour."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from transport.http.shapes import (
    U32,
    BareHex32In,
    Count,
    Hex32,
    RejectionReply,
    Sequence,
    Time,
    UuidText,
)
from ves.constants import (
    ENTITY_ID_BYTES_MAX,
    ENTITY_TYPE_BYTES_MAX,
    EVENT_TYPE_BYTES_MAX,
    EVENTS_PER_REQUEST_MAX,
    INTEGER_MAX,
    LEGACY_SIGNATURE_BYTES_MAX,
)

_Byte = Annotated[int, Meta(ge=0, le=255)]


class LegacyEnvelope(msgspec.Struct):
    """An unsigned event. ``payload_hash`` is the SHA-256 of its compact JSON, members sorted by their names'
    UTF-8 bytes. ``signature`` is kept and never verified; ``sequence_number`` is ignored."""

    event_id: UuidText
    tenant_id: UuidText
    store_id: UuidText
    entity_type: Annotated[str, Meta(description=f"1 to {ENTITY_TYPE_BYTES_MAX} bytes of UTF-8.")]
    entity_id: Annotated[str, Meta(description=f"1 to {ENTITY_ID_BYTES_MAX} bytes of UTF-8.")]
    event_type: Annotated[str, Meta(description=f"1 to {EVENT_TYPE_BYTES_MAX} bytes of UTF-8.")]
    payload: Any
    payload_hash: BareHex32In
    created_at: Annotated[str, Meta(description="A time with its offset.", examples=["2026-01-31T12:00:00Z"])]
    source_agent: UuidText
    envelope_version: U32 = 1
    command_id: UuidText | None = None
    base_version: Annotated[int, Meta(ge=0, le=INTEGER_MAX)] | None = None
    sequence_number: Annotated[int, Meta(ge=0, le=INTEGER_MAX)] | None = None
    signature: Annotated[list[_Byte], Meta(max_length=LEGACY_SIGNATURE_BYTES_MAX)] | None = None


class LegacyIngestBody(msgspec.Struct):
    """Unsigned events of one agent for one tenant and store."""

    agent_id: UuidText
    events: Annotated[list[LegacyEnvelope], Meta(max_length=EVENTS_PER_REQUEST_MAX)]


class LegacyIngestReply(msgspec.Struct):
    """accepted + rejected = sent; rejections in request order. ``DuplicateEventId``: it is there already, no
    more is to be done."""

    batch_id: UuidText
    events_accepted: Count
    events_rejected: Count
    assigned_sequence_start: Sequence | None
    assigned_sequence_end: Sequence | None
    head_sequence: Count
    rejections: list[RejectionReply] | UnsetType = UNSET


class LegacyEnvelopeReply(msgspec.Struct, omit_defaults=True):
    envelope_version: Literal[1]
    event_id: UuidText
    tenant_id: UuidText
    store_id: UuidText
    entity_type: str
    entity_id: str
    event_type: str
    payload: Raw
    payload_hash: Hex32
    created_at: Time
    sequence_number: Sequence
    source_agent: UuidText
    command_id: UuidText | UnsetType = UNSET
    base_version: Count | UnsetType = UNSET
    signature: list[_Byte] | UnsetType = UNSET


class LegacyEventReply(msgspec.Struct):
    envelope: LegacyEnvelopeReply
    sequenced_at: Time


class LegacyEventsReply(msgspec.Struct):
    """``next_from`` is the ``from`` of the next page, also when this one is empty."""

    count: Count
    events: list[LegacyEventReply]
    head_sequence: Count
    has_more: bool
    next_from: Sequence


class LegacyEntityReply(msgspec.Struct):
    """``version`` counts the entity's accepted events of both streams; 0 for an unknown one. ``events`` are
    those of this stream."""

    count: Count
    entity_id: str
    entity_type: str
    version: Count
    events: list[LegacyEventReply]
    has_more: bool
    next_from: Sequence
