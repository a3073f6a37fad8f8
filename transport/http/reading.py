"""Reading streams back: pages of events, one event, heads, and an entity's history.

Payloads are opened by the encryptors and go out byte for byte as they were signed; the texts of whole events
come from there too, so that nothing is done here for each event of a page. Nothing is cached here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from msgspec import Raw

from actors.mailbox import ask_all
from actors.messages import Open, SealedPayload, ServedEvents, ServePage
from journal.packed import divided, packed
from journal.port import EntityPage, EventPage
from transport.http.errors import ApiError, Code
from transport.http.residency import must_be_served_here
from transport.http.routing import Reply, Route
from transport.http.shapes import (
    EntityPath,
    EntityQuery,
    EntityReply,
    EventPath,
    EventReply,
    EventsQuery,
    EventsReply,
    HeadReply,
    StreamQuery,
    VoidedReply,
)
from transport.http.visit import Visit
from ves.constants import ENTITY_ID_BYTES_MAX, ENTITY_TYPE_BYTES_MAX
from ves.records import EntityName, StoredEvent, Uuid
from ves.timestamps import utc_text

SERVED_AT_ONCE = 2
"""Into so many parts a large page is divided for opening: even the least machine has two to open them."""
SERVED_TOGETHER_MIN = 200
"""Events in a part: fewer are not worth another way to a process and back."""
ANSWER_SHARE_S = 2.0
"""What a long wait leaves of the request's time for reading the page."""


async def list_events(visit: Visit) -> EventsReply:
    query = visit.query(EventsQuery)
    tenant_id, store_id = visit.stream(query)
    start = max(1, query.from_)
    wait_s = min(query.wait_s, visit.remaining_s - ANSWER_SHARE_S)
    if wait_s > 0:
        await visit.door.heads.wait_for(tenant_id, store_id, sequence=start, wait_s=wait_s)
        if visit.who.tenant_id is not None:
            await must_be_served_here(visit.house, tenant_id)  # it may have been pinned meanwhile
    async with visit.door.pages:
        page = await visit.house.journal.read_events(
            tenant_id,
            store_id,
            from_sequence=start,
            limit=query.limit,
            bytes_max=visit.house.settings.page_bytes_max,
        )
        events = await served(visit, tenant_id, page)
    return EventsReply(events, page.count, page.head_sequence, page.has_more, page.next_from)


async def one_event(visit: Visit) -> Reply:
    event_id = visit.uuid(visit.path(EventPath), "event_id")
    tenant_id, store_id = visit.stream(visit.query(StreamQuery))
    async with visit.door.pages:
        event = await visit.house.journal.read_event(tenant_id, event_id, store_ids=(store_id,))
        if event is None:
            raise ApiError(Code.EVENT_NOT_FOUND, "no such event")
        message = ServePage(tenant_id=tenant_id, packed=packed(event), count=1)
        body = (await visit.house.encryptors.ask(message, deadline_s=visit.remaining_s)).texts
    visit.hold(len(body))
    return Reply(body)


async def head(visit: Visit) -> HeadReply:
    tenant_id, store_id = visit.stream(visit.query(StreamQuery))
    journal = visit.house.journal
    return HeadReply(
        await journal.read_head(tenant_id, store_id),
        [
            VoidedReply(void.first_number, void.last_number, utc_text(void.voided_at_us))
            for void in await journal.read_voided(tenant_id, store_id)
        ],
    )


async def entity_history(visit: Visit) -> EntityReply:
    path = visit.path(EntityPath)
    query = visit.query(EntityQuery)
    tenant_id, store_id = visit.stream(query)
    name = entity_name(store_id, path)
    async with visit.door.pages:
        page = await visit.house.journal.read_entity(
            tenant_id,
            name,
            from_sequence=max(1, query.from_),
            limit=query.limit,
            bytes_max=visit.house.settings.page_bytes_max,
        )
        events = await served(visit, tenant_id, page)
    return EntityReply(
        name.entity_type, name.entity_id, page.version, events, page.count, page.has_more, page.next_from
    )


def entity_name(store_id: Uuid, path: EntityPath) -> EntityName:
    return EntityName(
        store_id,
        _name(path.entity_type, "entity_type", ENTITY_TYPE_BYTES_MAX),
        _name(path.entity_id, "entity_id", ENTITY_ID_BYTES_MAX),
    )


def _name(text: str, field: str, bytes_max: int) -> str:
    if "\0" in text or len(text.encode()) > bytes_max:
        raise ApiError(
            Code.INVALID_FIELD_VALUE, f"{field} must be 1 to {bytes_max} bytes of UTF-8 without U+0000"
        )
    return text


async def served(visit: Visit, tenant_id: Uuid, page: EventPage | EntityPage) -> list[EventReply]:
    """The events with their payloads in clear, in order, ready to be encoded and for nothing else."""
    if not page.count:
        return []
    parts = min(SERVED_AT_ONCE, -(-page.count // SERVED_TOGETHER_MIN))
    messages = [
        ServePage(tenant_id=tenant_id, packed=rows, count=count)
        for rows, count in divided(page.packed, page.count, parts)
    ]
    found: list[ServedEvents] = await ask_all(visit.house.encryptors, messages, deadline_s=visit.remaining_s)
    # The texts of all of them, with their commas, stand for the elements of the list.
    return [cast(EventReply, Raw(b",".join(part.texts for part in found)))]


async def opened_payloads(visit: Visit, tenant_id: Uuid, events: Sequence[StoredEvent]) -> list[bytes]:
    """JSON texts, in order."""
    if not events:
        return []
    sealed = [
        SealedPayload(
            event.store_id,
            event.receipt.event_id,
            event.receipt.sequence_number,
            event.event_signing_hash,
            event.payload_sealed,
        )
        for event in events
    ]
    message = Open(tenant_id=tenant_id, payloads=sealed)
    return await visit.house.encryptors.ask(message, deadline_s=visit.remaining_s)


ROUTES = [
    Route(
        "GET",
        "/api/v1/ves/events",
        list_events,
        "A stream's events by sequence number",
        EventsReply,
        query_shape=EventsQuery,
    ),
    Route(
        "GET",
        "/api/v1/ves/events/{event_id}",
        one_event,
        "One event",
        EventReply,
        path_shape=EventPath,
        query_shape=StreamQuery,
        refuses=(Code.EVENT_NOT_FOUND,),
    ),
    Route(
        "GET",
        "/api/v1/ves/head",
        head,
        "A stream's last sequence number, 0 for none",
        HeadReply,
        query_shape=StreamQuery,
    ),
    Route(
        "GET",
        "/api/v1/ves/entities/{entity_type}/{entity_id}",
        entity_history,
        "An entity's version and its events by sequence number",
        EntityReply,
        path_shape=EntityPath,
        query_shape=EntityQuery,
    ),
]
