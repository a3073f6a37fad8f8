"""What tenants demand of their events: schemas by event type, allowed entity types, the mode of checking.

Every change takes the next number of one counter and holds its row until COMMIT, so changes are visible in
the order of their numbers and happen one at a time over all nodes. Texts of schemas never change, status
changes are new rows, version numbers are never used again. Judges no event and no schema.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from journal.audit import write_audit
from journal.port import (
    NEWS_MAX,
    SCHEMA_BYTES_ACTIVE_MAX,
    SCHEMAS_ACTIVE_MAX,
    AuditEntry,
    EventSchema,
    Moved,
    PinnedTenant,
    PolicyChanges,
    SchemaLimit,
    SchemaStatus,
    TenantPolicy,
)
from journal.units import Undo
from ves.policy import SchemaName
from ves.records import Uuid

if TYPE_CHECKING:
    from journal.connections import Connection


_SELECT = """
SELECT s.id, s.tenant_id, s.event_type, s.version, s.schema_json, s.compatibility, s.description,
       s.created_by, s.created_at, newest.status, newest.changed_at
FROM record.event_schemas s CROSS JOIN LATERAL (
    SELECT t.status, c.changed_at
    FROM record.event_schema_statuses t JOIN record.policy_changes c USING (change_number)
    WHERE t.schema_id = s.id ORDER BY t.change_number DESC LIMIT 1) newest
"""

_SUMS_ACTIVE = """
SELECT coalesce(sum(octet_length(s.schema_json)), 0), count(*)
FROM record.event_schemas s CROSS JOIN LATERAL (
    SELECT t.status FROM record.event_schema_statuses t
    WHERE t.schema_id = s.id ORDER BY t.change_number DESC LIMIT 1) newest
WHERE s.tenant_id = $1 AND newest.status = 'active'
"""

_POLICY = """
WITH active AS (
    SELECT DISTINCT ON (s.event_type) s.event_type, s.id, s.version
    FROM record.event_schemas s CROSS JOIN LATERAL (
        SELECT t.status FROM record.event_schema_statuses t
        WHERE t.schema_id = s.id ORDER BY t.change_number DESC LIMIT 1) newest
    WHERE s.tenant_id = $1 AND newest.status = 'active'
    ORDER BY s.event_type, s.version DESC)
SELECT (SELECT coalesce(max(change_number), 0) FROM record.policy_changes WHERE tenant_id = $1),
       p.entity_types, p.schema_mode,
       ARRAY(SELECT event_type FROM active ORDER BY event_type),
       ARRAY(SELECT id FROM active ORDER BY event_type),
       ARRAY(SELECT version FROM active ORDER BY event_type),
       (SELECT regions FROM record.tenant_regions WHERE tenant_id = $1 ORDER BY change_number DESC LIMIT 1)
FROM (SELECT) AS one LEFT JOIN (
    SELECT entity_types, schema_mode FROM record.tenant_policies
    WHERE tenant_id = $1 ORDER BY change_number DESC LIMIT 1) p ON true
"""


async def create_schema(
    connection: Connection, node_id: Uuid, schema: EventSchema, believed_stamp: int, audit: AuditEntry
) -> EventSchema | Moved | SchemaLimit:
    number = await _next_number(connection, schema.tenant_id, believed_stamp=believed_stamp)
    await connection.execute(
        "INSERT INTO record.event_schemas (id, tenant_id, created_at, version, event_type, compatibility, "
        "schema_json, description, created_by) "
        "SELECT $1, $2, (SELECT changed_at FROM record.policy_changes WHERE change_number = $8), "
        "coalesce(max(version), 0) + 1, $3, $4, $5, $6, $7 "
        "FROM record.event_schemas WHERE tenant_id = $2 AND event_type = $3",
        schema.id,
        schema.tenant_id,
        schema.event_type,
        schema.compatibility,
        schema.schema_json,
        schema.description,
        schema.created_by,
        number,
    )
    return await _with_status(connection, node_id, number, schema.id, schema.tenant_id, "active", audit)


async def set_status(
    connection: Connection,
    node_id: Uuid,
    schema_id: Uuid,
    tenant_id: Uuid | None,
    status: SchemaStatus,
    audit: AuditEntry,
) -> EventSchema | SchemaLimit | None:
    """Undone when there is no such schema; the same status again is no change."""
    present = await find_schema(connection, schema_id, tenant_id)
    if present is None:
        raise Undo(None)
    number = await _next_number(connection, present.tenant_id)
    # Once more, alone now: another change of this schema may have been under way.
    present = await find_schema(connection, schema_id, tenant_id)
    assert present is not None, "schemas are never removed"
    if present.status == status:
        raise Undo(present)
    return await _with_status(connection, node_id, number, schema_id, present.tenant_id, status, audit)


async def _with_status(
    connection: Connection,
    node_id: Uuid,
    number: int,
    schema_id: Uuid,
    tenant_id: Uuid,
    status: SchemaStatus,
    audit: AuditEntry,
) -> EventSchema | SchemaLimit:
    await connection.execute(
        "INSERT INTO record.event_schema_statuses (change_number, schema_id, status) VALUES ($1, $2, $3)",
        number,
        schema_id,
        status,
    )
    if status == "active":
        sums = await connection.fetchrow(_SUMS_ACTIVE, tenant_id)
        assert sums is not None, "an aggregate is always one row"
        if sums[0] > SCHEMA_BYTES_ACTIVE_MAX or sums[1] > SCHEMAS_ACTIVE_MAX:
            raise Undo(SchemaLimit())
    changed = await find_schema(connection, schema_id, tenant_id)
    assert changed is not None, "it was there in this transaction"
    await write_audit(connection, node_id, audit)
    return changed


async def set_policy(
    connection: Connection,
    node_id: Uuid,
    tenant_id: Uuid,
    entity_types: tuple[str, ...] | None,
    schema_mode: str | None,
    audit: AuditEntry,
) -> TenantPolicy:
    number = await _next_number(connection, tenant_id)
    await connection.execute(
        "INSERT INTO record.tenant_policies (change_number, tenant_id, schema_mode, entity_types) "
        "VALUES ($1, $2, $3, $4)",
        number,
        tenant_id,
        schema_mode,
        None if entity_types is None else list(entity_types),
    )
    policy = await read_policy(connection, tenant_id)
    await write_audit(connection, node_id, audit)
    return policy


async def set_regions(
    connection: Connection, node_id: Uuid, tenant_id: Uuid, regions: tuple[str, ...], audit: AuditEntry
) -> TenantPolicy:
    number = await _next_number(connection, tenant_id)
    await connection.execute(
        "INSERT INTO record.tenant_regions (change_number, tenant_id, regions) VALUES ($1, $2, $3)",
        number,
        tenant_id,
        list(regions),
    )
    policy = await read_policy(connection, tenant_id)
    await write_audit(connection, node_id, audit)
    return policy


async def _next_number(connection: Connection, tenant_id: Uuid, *, believed_stamp: int | None = None) -> int:
    """Alone from here on until the transaction ends. Undone when the tenant's stamp is another one."""
    number: int = await connection.fetchval(
        "UPDATE record.policy_change_counters SET last_number = last_number + 1 RETURNING last_number"
    )
    if believed_stamp is not None:
        stamp = await connection.fetchval(
            "SELECT coalesce(max(change_number), 0) FROM record.policy_changes WHERE tenant_id = $1",
            tenant_id,
        )
        if stamp != believed_stamp:
            raise Undo(Moved("the tenant's policy"))
    await connection.execute(
        "INSERT INTO record.policy_changes (change_number, changed_at, tenant_id) "
        "VALUES ($1, clock_timestamp(), $2)",
        number,
        tenant_id,
    )
    return number


# Reading.


async def read_policy(connection: Connection, tenant_id: Uuid) -> TenantPolicy:
    row = await connection.fetchrow(_POLICY, tenant_id)
    assert row is not None, "a row for every tenant, known or not"
    schemas = tuple(SchemaName(*name) for name in zip(row[3], row[4], row[5], strict=True))
    types = None if row[1] is None else tuple(row[1])
    return TenantPolicy(row[0], types, row[2], schemas, tuple(row[6] or ()))


async def list_pinned(connection: Connection, after: Uuid | None, limit: int) -> list[PinnedTenant]:
    rows = await connection.fetch(
        "SELECT tenant_id, regions FROM (SELECT DISTINCT ON (tenant_id) tenant_id, regions "
        "FROM record.tenant_regions WHERE $1::uuid IS NULL OR tenant_id > $1 "
        "ORDER BY tenant_id, change_number DESC) newest WHERE regions <> '{}' LIMIT $2",
        after,
        limit,
    )
    return [PinnedTenant(row[0], tuple(row[1])) for row in rows]


async def changes_since(connection: Connection, cursor: int | None) -> PolicyChanges:
    if cursor is None:
        last = await connection.fetchval("SELECT last_number FROM record.policy_change_counters")
        return PolicyChanges([], last)
    rows = await connection.fetch(
        "SELECT tenant_id, change_number FROM record.policy_changes WHERE change_number > $1 "
        "ORDER BY change_number LIMIT $2",
        cursor,
        NEWS_MAX,
    )
    return PolicyChanges([row[0] for row in rows], rows[-1][1] if rows else cursor)


async def find_schema(connection: Connection, schema_id: Uuid, tenant_id: Uuid | None) -> EventSchema | None:
    row = await connection.fetchrow(
        _SELECT + "WHERE s.id = $1 AND ($2::uuid IS NULL OR s.tenant_id = $2)", schema_id, tenant_id
    )
    return None if row is None else _schema(row)


async def find_version(
    connection: Connection, tenant_id: Uuid, event_type: str, version: int | None
) -> EventSchema | None:
    which = "newest.status = 'active'" if version is None else "s.version = $3"
    more = () if version is None else (version,)
    row = await connection.fetchrow(
        f"{_SELECT} WHERE s.tenant_id = $1 AND s.event_type = $2 AND {which} ORDER BY s.version DESC LIMIT 1",
        tenant_id,
        event_type,
        *more,
    )
    return None if row is None else _schema(row)


async def list_schemas(
    connection: Connection, tenant_id: Uuid, event_type: str | None, after: Uuid | None, limit: int
) -> list[EventSchema]:
    last = None if after is None else await find_schema(connection, after, tenant_id)
    if after is not None and last is None:
        return []
    rows = await connection.fetch(
        _SELECT + "WHERE s.tenant_id = $1 AND ($2::text IS NULL OR s.event_type = $2) "
        "AND ($3::text IS NULL OR (s.event_type, -s.version) > ($3, -$4::integer)) "
        "ORDER BY s.event_type, s.version DESC LIMIT $5",
        tenant_id,
        event_type,
        None if last is None else last.event_type,
        None if last is None else last.version,
        limit,
    )
    return [_schema(row) for row in rows]


async def read_texts(connection: Connection, schema_ids: list[Uuid]) -> dict[Uuid, str]:
    rows = await connection.fetch(
        "SELECT id, schema_json FROM record.event_schemas WHERE id = ANY($1::uuid[])", schema_ids
    )
    return {row[0]: row[1] for row in rows}


def _schema(row: Any) -> EventSchema:
    return EventSchema(*row)
