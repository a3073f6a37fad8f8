"""Reading the legacy stream back: pages of events, its head, and an entity's history.

What ``transport.http.reading`` is for signed events. Payloads go out as the text that was hashed.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Raw

from actors.legacy_group import row_name
from actors.messages import OpenAtRest, RowBytes
from transport.http.legacy_shapes import (
    LegacyEntityReply,
    LegacyEnvelopeReply,
    LegacyEventReply,
    LegacyEventsReply,
)
from transport.http.reading import entity_name
from transport.http.routing import Route
from transport.http.shapes import EntityPath, EntityQuery, HeadReply, StreamQuery
from transport.http.visit import Visit
from ves.at_rest import legacy_payload_aad
from ves.encoding import uuid_text
from ves.kdf import Purpose
from ves.legacy import StoredLegacyEvent
from ves.records import Uuid
from ves.timestamps import zulu_text


async def list_events(visit: Visit) -> LegacyEventsReply:
    query = visit.query(EntityQuery)
    tenant_id, store_id = visit.stream(query)
    async with visit.door.pages:
        page = await visit.house.journal.read_legacy_events(
            tenant_id,
            store_id,
            from_sequence=max(1, query.from_),
            limit=query.limit,
            bytes_max=visit.house.settings.page_bytes_max,
        )
        events = await opened(visit, tenant_id, page.events)
    return LegacyEventsReply(len(events), events, page.head_sequence, page.has_more, page.next_from)


async def head(visit: Visit) -> HeadReply:
    tenant_id, store_id = visit.stream(visit.query(StreamQuery))
    return HeadReply(await visit.house.journal.read_legacy_head(tenant_id, store_id))


async def entity_history(visit: Visit) -> LegacyEntityReply:
    path = visit.path(EntityPath)
    query = visit.query(EntityQuery)
    tenant_id, store_id = visit.stream(query)
    name = entity_name(store_id, path)
    async with visit.door.pages:
        page = await visit.house.journal.read_legacy_entity(
            tenant_id,
            name,
            from_sequence=max(1, query.from_),
            limit=query.limit,
            bytes_max=visit.house.settings.page_bytes_max,
        )
        events = await opened(visit, tenant_id, page.events)
    return LegacyEntityReply(
        len(events), name.entity_id, name.entity_type, page.version, events, page.has_more, page.next_from
    )


async def opened(
    visit: Visit, tenant_id: Uuid, events: Sequence[StoredLegacyEvent]
) -> list[LegacyEventReply]:
    """The events with their payloads in clear, in order."""
    if not events:
        return []
    values = [RowBytes(*_row(event), event.payload_encrypted) for event in events]
    message = OpenAtRest(Purpose.EVENTS, tenant_id, values)
    payloads = await visit.house.encryptors.ask(message, deadline_s=visit.remaining_s)
    return [event_reply(event, payload) for event, payload in zip(events, payloads, strict=True)]


def _row(event: StoredLegacyEvent) -> tuple[str, bytes]:
    name = row_name(event.tenant_id, event.store_id, event.sequence_number)
    row_hash = legacy_payload_aad(
        event.tenant_id,
        event.store_id,
        event.event_id,
        event.sequence_number,
        event.entity_type,
        event.entity_id,
        event.event_type,
    )
    return name, row_hash


def event_reply(event: StoredLegacyEvent, payload: bytes) -> LegacyEventReply:
    """``payload``: the opened plaintext, JSON text that goes out byte for byte."""
    envelope = LegacyEnvelopeReply(
        1,
        uuid_text(event.event_id),
        uuid_text(event.tenant_id),
        uuid_text(event.store_id),
        event.entity_type,
        event.entity_id,
        event.event_type,
        Raw(payload),
        event.payload_hash.hex(),
        zulu_text(event.created_at_us),
        event.sequence_number,
        uuid_text(event.source_agent),
    )
    if event.command_id is not None:
        envelope.command_id = uuid_text(event.command_id)
    if event.base_version is not None:
        envelope.base_version = event.base_version
    if event.signature is not None:
        envelope.signature = list(event.signature)
    return LegacyEventReply(envelope, zulu_text(event.sequenced_at_us))


ROUTES = [
    Route(
        "GET",
        "/api/v1/events",
        list_events,
        "A legacy stream's events by sequence number",
        LegacyEventsReply,
        query_shape=EntityQuery,
    ),
    Route(
        "GET",
        "/api/v1/head",
        head,
        "A legacy stream's last sequence number, 0 for none",
        HeadReply,
        query_shape=StreamQuery,
    ),
    Route(
        "GET",
        "/api/v1/entities/{entity_type}/{entity_id}",
        entity_history,
        "An entity's version and its legacy events by sequence number",
        LegacyEntityReply,
        path_shape=EntityPath,
        query_shape=EntityQuery,
    ),
]
