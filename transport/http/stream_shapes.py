"""The JSON of a tenant's streams. snake_case, like everything of a stream. No behaviour."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from transport.http.shapes import PAGE_DEFAULT, Count, Limit, UuidText


class StreamsQuery(msgspec.Struct):
    tenant_id: UuidText | None = None
    after: Annotated[UuidText, Meta(description="``next_after`` of the page before.")] | None = None
    limit: Limit = PAGE_DEFAULT


class StreamReply(msgspec.Struct):
    """``committed_through``: the last committed sequence number, 0 for none. ``legacy_head_sequence``: the
    last number of the store's unsigned events, which count apart; 0 for none."""

    store_id: UuidText
    head_sequence: Count
    committed_through: Count
    legacy_head_sequence: Count


class StreamsReply(msgspec.Struct):
    """By store_id; only streams of stores that the credential reaches."""

    streams: list[StreamReply]
    count: Count
    has_more: bool
    next_after: UuidText | None
