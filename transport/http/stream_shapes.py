"""The JSON of a tenant's streams. snake_case, like everything of a stream. No behaviour."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from transport.http.shapes import PAGE_DEFAULT, Count, Limit, Sequence, UuidText


class StreamsQuery(msgspec.Struct):
    tenant_id: UuidText | None = None
    after: Annotated[UuidText, Meta(description="``next_after`` of the page before.")] | None = None
    limit: Limit = PAGE_DEFAULT


class StreamReply(msgspec.Struct):
    """``committed_through``: the last committed sequence number, 0 for none."""

    store_id: UuidText
    head_sequence: Sequence
    committed_through: Count


class StreamsReply(msgspec.Struct):
    """By store_id; only streams of stores that the credential reaches."""

    streams: list[StreamReply]
    count: Count
    has_more: bool
    next_after: UuidText | None
