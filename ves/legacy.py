"""The legacy stream (VES 3.10): unsigned events, in a stream of their own beside the VES stream of a store.

    bytes -> LegacyEvent | Refusal -> NumberedLegacyEvent -> StoredLegacyEvent

The records, and the formulas of payload hash and Merkle leaf. What the two streams of a store share is only
the entities' versions: numbers, event ids and command ids are each stream's own. Nobody signs here, neither
agent nor sequencer: an event is what somebody with a credential sent. Pure data and hashes.
"""

from __future__ import annotations

from hashlib import sha256

import msgspec

from ves.constants import COMMITMENT_LEAF
from ves.encoding import string, u64
from ves.records import Finding, Refusal, SchemaChecks, Uuid


class LegacyEvent(msgspec.Struct, frozen=True, array_like=True, tag="legacy", gc=False):
    """An event whose form and payload hash were found right. Only ``ves.legacy_verification`` makes one."""

    event_id: Uuid
    source_agent: Uuid
    entity_type: str
    entity_id: str
    event_type: str
    created_at_us: int
    payload: bytes
    """Its legacy text (``ves.legacy_text``)."""
    payload_hash: bytes
    signature: bytes | None
    """Kept as sent, never verified."""
    command_id: Uuid | None
    base_version: int | None
    findings: tuple[Finding, ...] = ()


class LegacyBatch(msgspec.Struct, frozen=True, array_like=True, tag="legacy_batch"):
    """A whole request, at least one event; outcomes in request order, one per event sent."""

    tenant_id: Uuid
    store_id: Uuid
    agent_id: Uuid
    outcomes: list[LegacyEvent | Refusal]
    checks: SchemaChecks | None = None


class EmptyBatch(msgspec.Struct, frozen=True, array_like=True, tag="empty_batch"):
    """A request without events: it names no stream, and nothing is to be done."""


class NumberedLegacyEvent(msgspec.Struct, frozen=True, gc=False):
    """An event with its place in its stream. Nothing is promised yet."""

    event: LegacyEvent
    store_id: Uuid
    sequence_number: int
    sequenced_at_us: int


class StoredLegacyEvent(msgspec.Struct, frozen=True, gc=False):
    """One row of ``events``, in the order of its columns; the payload is as it is at rest."""

    sequence_number: int
    sequenced_at_us: int
    created_at_us: int
    base_version: int | None
    tenant_id: Uuid
    store_id: Uuid
    event_id: Uuid
    source_agent: Uuid
    command_id: Uuid | None
    entity_type: str
    entity_id: str
    event_type: str
    payload_hash: bytes
    signature: bytes | None
    payload_encrypted: bytes


def payload_hash(text: bytes) -> bytes:
    """Of a payload's legacy text, without a domain."""
    return sha256(text).digest()


def leaf_hash(
    tenant_id: Uuid,
    store_id: Uuid,
    sequence_number: int,
    payload_hash: bytes,
    entity_type: str,
    entity_id: str,
) -> bytes:
    """The leaf (version 1) of one sequenced event."""
    place = tenant_id + store_id + u64(sequence_number)
    names = string(entity_type) + string(entity_id)
    return sha256(COMMITMENT_LEAF + place + payload_hash + names).digest()
