"""Which events a key signed, found by walking the tenant's streams a bounded step at a time.

On purpose without an index of its own: each event would pay for it for ever, and the question is asked after
an incident. One step reads at most so many rows in the order of the primary key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from journal.port import SignedEvent, SignedPage
from ves.records import KeyName, Uuid

if TYPE_CHECKING:
    from journal.connections import Connection

_STEP = """
WITH step AS MATERIALIZED (
    SELECT store_id, sequence_number, event_id, sequenced_at,
           source_agent_id = $2 AND agent_key_id = $3 AS wanted
    FROM record.ves_events_all
    WHERE tenant_id = $1 AND (store_id, sequence_number) > ($4, $5)
    ORDER BY store_id, sequence_number LIMIT $6
), last AS (
    SELECT store_id, sequence_number FROM step ORDER BY store_id DESC, sequence_number DESC LIMIT 1
)
SELECT store_id, sequence_number, event_id, sequenced_at, wanted, (SELECT count(*) FROM step)
FROM step WHERE wanted OR (store_id, sequence_number) = (SELECT store_id, sequence_number FROM last)
ORDER BY store_id, sequence_number
"""
FIRST: tuple[Uuid, int] = (bytes(16), 0)


async def read_signed_by(
    connection: Connection, key: KeyName, after: tuple[Uuid, int] | None, limit: int, looked_at_max: int
) -> SignedPage:
    rows = await connection.fetch(_STEP, *key, *(after or FIRST), looked_at_max)
    if not rows:
        return SignedPage([], None)
    looked_at, last = rows[-1][5], (rows[-1][0], rows[-1][1])
    found = [SignedEvent(*row[:4]) for row in rows if row[4]]
    return signed_page(found, limit, last if looked_at == looked_at_max else None)


def signed_page(found: list[SignedEvent], limit: int, next_after: tuple[Uuid, int] | None) -> SignedPage:
    """At most ``limit`` of what one step found, and from where to go on."""
    if len(found) > limit:
        next_after = (found[limit - 1].store_id, found[limit - 1].sequence_number)
    return SignedPage(found[:limit], next_after)
