"""Reading events back: a stream from a number on, one event, an entity's history. One statement each.

A page ends at its number of events or at its bytes of sealed payload, whichever comes first, but holds at
least one event if there is one; PostgreSQL knows a payload's length without reading it. The head comes in
the same snapshot as the events. Never opens a payload.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from journal import packed
from journal.port import EntityPage, EventPage, StreamHead
from ves.records import EntityName, Receipt, StoredEvent, Uuid

if TYPE_CHECKING:
    from journal.connections import Connection

_COLUMNS = """tenant_id, store_id, source_agent_id, agent_key_id, entity_type, entity_id, event_type,
    created_at, payload_kind, payload_sealed, payload_plain_hash, payload_cipher_hash, agent_signature,
    event_signing_hash, command_id, base_version,
    event_id, sequence_number, sequenced_at, receipt_hash, sequencer_id, sequencer_key_version,
    sequencer_signature"""
_EVENT_COLUMNS = 16
"""The first so many are StoredEvent's own fields, the rest is its receipt."""
_COLUMN_COUNT = 23

# $1 tenant, $2 store, $3 from, $4 limit, $5 bytes. {more} narrows, {head} is asked beside the events. {table}
# is one of the two streams', {payload} its column of payloads. A page is rows with the same scalar in each,
# or one row with all events in one run of bytes (``journal.packed``).
_FOUND = """
WITH found AS (
    SELECT e.*,
           row_number() OVER w AS place,
           sum(octet_length({payload})) OVER w AS bytes_so_far,
           count(*) OVER () AS found_count
    FROM (SELECT * FROM record.{table}_all
          WHERE tenant_id = $1 AND store_id = $2 AND sequence_number >= $3 {more}
          ORDER BY sequence_number LIMIT $4::bigint + 1) e
    WINDOW w AS (ORDER BY sequence_number ROWS UNBOUNDED PRECEDING)
)
"""
_ROWS = """
SELECT {columns}, asked.head, f.found_count
FROM (SELECT coalesce(({head}), 0) AS head) asked
LEFT JOIN found f ON f.place <= $4 AND (f.place = 1 OR f.bytes_so_far <= $5)
ORDER BY f.sequence_number
"""
_PACKED = """
SELECT coalesce(({head}), 0), count(*), count(*) FILTER (WHERE fits),
    max(sequence_number) FILTER (WHERE fits),
    coalesce(string_agg(row_packed, ''::bytea ORDER BY sequence_number) FILTER (WHERE fits), ''::bytea)
FROM (SELECT sequence_number, place <= $4 AND (place = 1 OR bytes_so_far <= $5) AS fits,
          record_send(ROW({columns})) AS row_packed
      FROM found) f
"""
_ENTITY = 'entity_type = $6::text COLLATE "C" AND entity_id = $7::text COLLATE "C"'


def page_statements(
    *, table: str, counters: str, payload: str, columns: str, form: str = _ROWS
) -> tuple[str, str]:
    """A page of a stream, and one of an entity's history; archived events too."""
    of_stream = "tenant_id = $1 AND store_id = $2"
    head = f"SELECT current_sequence FROM record.{counters} WHERE {of_stream}"  # noqa: S608
    version = f"SELECT version FROM record.entity_versions WHERE {of_stream} AND {_ENTITY}"  # noqa: S608
    common = {"table": table, "payload": payload, "columns": columns}
    page = _FOUND + form
    return (
        page.format(more="", head=head, **common),
        page.format(more=f"AND {_ENTITY}", head=version, **common),
    )


_STREAM_PAGE, _ENTITY_PAGE = page_statements(
    table="ves_events",
    counters="ves_sequence_counters",
    payload="payload_sealed",
    columns=packed.COLUMNS,
    form=_PACKED,
)
_ONE = f"""
SELECT {_COLUMNS} FROM record.ves_events_all
WHERE tenant_id = $1 AND event_id = $2 AND ($3::uuid[] IS NULL OR store_id = ANY($3))
"""  # noqa: S608  texts of this module only


async def read_events(
    connection: Connection, tenant_id: Uuid, store_id: Uuid, from_sequence: int, limit: int, bytes_max: int
) -> EventPage:
    row = await connection.fetchrow(_STREAM_PAGE, tenant_id, store_id, from_sequence, limit, bytes_max)
    return EventPage(*_page(row, from_sequence))


async def read_entity(
    connection: Connection,
    tenant_id: Uuid,
    entity: EntityName,
    from_sequence: int,
    limit: int,
    bytes_max: int,
) -> EntityPage:
    row = await connection.fetchrow(
        _ENTITY_PAGE,
        tenant_id,
        entity.store_id,
        from_sequence,
        limit,
        bytes_max,
        entity.entity_type,
        entity.entity_id,
    )
    return EntityPage(*_page(row, from_sequence))


async def read_event(
    connection: Connection, tenant_id: Uuid, event_id: Uuid, store_ids: tuple[Uuid, ...] | None
) -> StoredEvent | None:
    row = await connection.fetchrow(_ONE, tenant_id, event_id, None if store_ids is None else list(store_ids))
    return None if row is None else _stored_event(row)


async def read_head(connection: Connection, tenant_id: Uuid, store_id: Uuid) -> int:
    head = await connection.fetchval(
        "SELECT current_sequence FROM record.ves_sequence_counters WHERE tenant_id = $1 AND store_id = $2",
        tenant_id,
        store_id,
    )
    return head or 0


_OF_THESE_STORES = (
    "WHERE c.tenant_id = $1 AND ($2::uuid[] IS NULL OR c.store_id = ANY($2)) "
    "AND ($3::uuid IS NULL OR c.store_id > $3) ORDER BY c.store_id LIMIT $4"
)
# The first stores of both kinds together are among the first of each.
_STREAMS = f"""
SELECT store_id, max(signed), max(committed), max(unsigned) FROM (
    (SELECT c.store_id, c.current_sequence AS signed, coalesce(k.committed_through, 0) AS committed,
        0::bigint AS unsigned
    FROM record.ves_sequence_counters c
    LEFT JOIN record.ves_commitment_counters k USING (tenant_id, store_id) {_OF_THESE_STORES})
    UNION ALL
    (SELECT c.store_id, 0, 0, c.current_sequence FROM record.sequence_counters c {_OF_THESE_STORES})
) both_kinds
GROUP BY store_id ORDER BY store_id LIMIT $4
"""  # noqa: S608  words of our own


async def list_streams(
    connection: Connection,
    tenant_id: Uuid,
    store_ids: tuple[Uuid, ...] | None,
    after: Uuid | None,
    limit: int,
) -> list[StreamHead]:
    rows = await connection.fetch(
        _STREAMS,
        tenant_id,
        None if store_ids is None else list(store_ids),
        after,
        limit,
    )
    return [StreamHead(*row) for row in rows]


def _page(row: Any, asked: int) -> tuple[int, bytes, int, bool, int]:
    """The scalar asked beside the events, they, how many, whether more were found than fit, and the next."""
    assert row is not None, "one row, whatever is found"
    head, found, count, last, rows = row
    return head, rows, count, found > count, asked if last is None else last + 1


def _stored_event(row: Any) -> StoredEvent:
    fields: list[Any] = [*row[:_EVENT_COLUMNS], Receipt(*row[_EVENT_COLUMNS:_COLUMN_COUNT])]
    return StoredEvent(*fields)
