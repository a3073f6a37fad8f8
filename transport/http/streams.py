"""Which streams a tenant has, and how far each goes: where whoever copies or audits a tenant begins.

Shows only stores that the credential reaches. Reads counters, never an event.
"""

from __future__ import annotations

from transport.http.routing import Route
from transport.http.stream_shapes import StreamReply, StreamsQuery, StreamsReply
from transport.http.visit import Visit
from ves.encoding import uuid_text


async def list_streams(visit: Visit) -> StreamsReply:
    query = visit.query(StreamsQuery)
    tenant_id = visit.who.tenant_named(visit.optional_uuid(query, "tenant_id"))
    found = await visit.house.journal.list_streams(
        tenant_id,
        store_ids=visit.who.store_ids,
        after=visit.optional_uuid(query, "after"),
        limit=query.limit + 1,
    )
    streams = [
        StreamReply(
            uuid_text(one.store_id), one.head_sequence, one.committed_through, one.legacy_head_sequence
        )
        for one in found[: query.limit]
    ]
    has_more = len(found) > query.limit
    return StreamsReply(streams, len(streams), has_more, streams[-1].store_id if has_more else None)


ROUTES = [
    Route(
        "GET",
        "/api/v1/ves/streams",
        list_streams,
        "A tenant's streams, signed and unsigned, with their last sequence and last committed numbers",
        StreamsReply,
        query_shape=StreamsQuery,
    ),
]
