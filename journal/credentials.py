"""API keys: created once, revoked by a row with a number, never stored in the clear.

Revoking holds the tenant's key lock alone and raises its credential epoch, so no append decided before can
be stored after. Revocations become visible in the order of their numbers, so whoever asks for those after
the last number seen misses none. Never sees a key, only its SHA-256.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from journal.audit import write_audit
from journal.locks import raise_epoch, tenant_lock
from journal.port import NEWS_MAX, ApiKey, AuditEntry, CredentialEnded, Revocations, TokenRevocation
from journal.units import Undo
from ves.records import Uuid

if TYPE_CHECKING:
    from journal.connections import Connection


_SELECT = """
SELECT k.id, k.key_hash, k.prefix, k.tenant_id, k.store_ids, k.agent_id, k.permissions, k.name, k.created_at,
       r.revoked_at, k.role, k.expires_at, k.rate_limit_per_minute
FROM record.api_keys k LEFT JOIN record.api_key_revocations r ON r.api_key_id = k.id
"""
_STILL_IN_FORCE = """
SELECT NOT EXISTS (
    SELECT FROM record.api_keys k LEFT JOIN record.api_key_revocations r ON r.api_key_id = k.id
    WHERE k.id = $1 AND (r.revoked_at IS NOT NULL OR k.expires_at <= clock_timestamp()))
"""
_COUNT_IN_FORCE = """
SELECT count(*) FROM record.api_keys k LEFT JOIN record.api_key_revocations r ON r.api_key_id = k.id
WHERE k.tenant_id = $1 AND k.agent_id = $2
  AND coalesce(least(r.revoked_at, k.expires_at), 'infinity')
      > clock_timestamp() - $3::bigint * interval '1 second'
"""
_OF_AGENT = (
    "WHERE k.tenant_id = $1 AND k.agent_id = $2 AND ($3::uuid[] IS NULL OR k.store_ids <@ $3::uuid[]) "
)
_PAGE = """
AND ($4::uuid IS NULL OR (k.created_at, k.id) < (
    SELECT a.created_at, a.id FROM record.api_keys a
    WHERE a.id = $4 AND a.tenant_id = $1 AND a.agent_id = $2))
AND starts_with(encode(k.key_hash, 'hex'), $6)
ORDER BY k.created_at DESC, k.id DESC LIMIT $5
"""
_NEWEST = """
ORDER BY r.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp()) DESC,
         k.created_at DESC, k.id DESC LIMIT 1
"""

# One snapshot: a number is seen together with all smaller ones, of whichever table.
_SINCE = """
SELECT revocation_number, api_key_id, NULL::uuid AS tenant_id, NULL::uuid AS subject,
       NULL::bigint AS revoked_until_s, revoked_at, NULL AS reason
FROM record.api_key_revocations WHERE revocation_number > $1
UNION ALL
SELECT revocation_number, NULL, tenant_id, subject, revoked_until_s, revoked_at, reason
FROM record.token_revocations WHERE revocation_number > $1
ORDER BY revocation_number LIMIT $2
"""


async def create(
    connection: Connection, node_id: Uuid, key: ApiKey, audit: AuditEntry, by: Uuid | None
) -> ApiKey:
    """In a transaction that began sharing the tenant's key lock. Undone when ``by`` is in force no more."""
    if by is not None and not await connection.fetchval(_STILL_IN_FORCE, by):
        raise Undo(CredentialEnded("the API key that asked is in force no more"))
    await connection.execute(
        "INSERT INTO record.api_keys (id, tenant_id, agent_id, created_at, key_hash, prefix, store_ids, "
        "permissions, name, role, expires_at, rate_limit_per_minute) "
        "VALUES ($1, $2, $3, clock_timestamp(), $4, $5, $6, $7, $8, $9, $10, $11)",
        key.id,
        key.tenant_id,
        key.agent_id,
        key.key_hash,
        key.prefix,
        None if key.store_ids is None else list(key.store_ids),
        list(key.permissions),
        key.name,
        key.role,
        key.expires_at_us,
        key.rate_limit_per_minute,
    )
    created = await _find(connection, key.id)
    assert created is not None, "inserted in this transaction"
    await write_audit(connection, node_id, audit)
    return created


async def create_for_agent(
    connection: Connection,
    node_id: Uuid,
    key: ApiKey,
    audit: AuditEntry,
    by: Uuid | None,
    in_force_max: int,
    freed_after_s: int,
) -> ApiKey:
    """Undone when the agent has so many already."""
    assert key.agent_id is not None, "this is for keys of agents"
    # Two at once would each count without the other's. The count is a statement of its own: it sees more
    # than the snapshot that waited for the lock.
    await connection.execute("SELECT pg_advisory_xact_lock($1)", tenant_lock(key.tenant_id + key.agent_id))
    in_force: int = await connection.fetchval(_COUNT_IN_FORCE, key.tenant_id, key.agent_id, freed_after_s)
    if in_force >= in_force_max:
        raise Undo(None)
    return await create(connection, node_id, key, audit, by)


async def find_by_hash(connection: Connection, key_hash: bytes) -> ApiKey | None:
    row = await connection.fetchrow(_SELECT + "WHERE k.key_hash = $1", key_hash)
    return None if row is None else _api_key(row)


async def find_tenant(connection: Connection, credential_id: Uuid) -> Uuid | None:
    """Whose key this is: never changes."""
    tenant_id: Uuid | None = await connection.fetchval(
        "SELECT tenant_id FROM record.api_keys WHERE id = $1", credential_id
    )
    return tenant_id


async def list_all(
    connection: Connection, tenant_id: Uuid | None, after: Uuid | None, limit: int, prefix: str
) -> list[ApiKey]:
    rows = await connection.fetch(
        _SELECT + "WHERE ($1::uuid IS NULL OR k.tenant_id = $1) AND ($2::uuid IS NULL OR k.id > $2) "
        "AND starts_with(k.prefix, $4) ORDER BY k.id LIMIT $3",
        tenant_id,
        after,
        limit,
        prefix,
    )
    return [_api_key(row) for row in rows]


async def list_of_agent(
    connection: Connection,
    tenant_id: Uuid,
    agent_id: Uuid,
    store_ids: tuple[Uuid, ...] | None,
    after: Uuid | None,
    limit: int,
    hash_prefix: str,
) -> list[ApiKey]:
    rows = await connection.fetch(
        _SELECT + _OF_AGENT + _PAGE,
        tenant_id,
        agent_id,
        None if store_ids is None else list(store_ids),
        after,
        limit,
        hash_prefix,
    )
    return [_api_key(row) for row in rows]


async def newest_of_agent(
    connection: Connection, tenant_id: Uuid, agent_id: Uuid, store_ids: tuple[Uuid, ...] | None
) -> ApiKey | None:
    row = await connection.fetchrow(
        _SELECT + _OF_AGENT + _NEWEST,
        tenant_id,
        agent_id,
        None if store_ids is None else list(store_ids),
    )
    return None if row is None else _api_key(row)


async def revoke(connection: Connection, node_id: Uuid, credential_id: Uuid, audit: AuditEntry) -> ApiKey:
    """In a transaction that began alone for the key's tenant. Undone when it was revoked before."""
    present = await _find(connection, credential_id)
    assert present is not None, "its tenant was found and keys are never removed"
    if present.revoked_at_us is not None:
        raise Undo(present)
    await connection.execute(
        # The counter's row lock is held until COMMIT: the next number waits for this one to be visible.
        "WITH next AS (UPDATE record.api_key_revocation_counters SET last_number = last_number + 1 "
        "RETURNING last_number) "
        "INSERT INTO record.api_key_revocations (revocation_number, revoked_at, api_key_id) "
        "SELECT last_number, clock_timestamp(), $1 FROM next",
        credential_id,
    )
    await raise_epoch(connection, present.tenant_id, credentials=1)
    revoked = await _find(connection, credential_id)
    assert revoked is not None, "keys are never removed"
    # An operator names no tenant, and the tenant is to see what became of its key.
    await write_audit(connection, node_id, msgspec.structs.replace(audit, tenant_id=present.tenant_id))
    return revoked


async def revocations_since(connection: Connection, cursor: int | None) -> Revocations:
    if cursor is None:
        last = await connection.fetchval("SELECT last_number FROM record.api_key_revocation_counters")
        return Revocations([], last)
    rows = await connection.fetch(_SINCE, cursor, NEWS_MAX)
    return Revocations(
        [row[1] for row in rows if row[1] is not None],
        rows[-1][0] if rows else cursor,
        [TokenRevocation(row[0], *row[2:]) for row in rows if row[1] is None],
    )


async def _find(connection: Connection, credential_id: Uuid) -> ApiKey | None:
    row = await connection.fetchrow(_SELECT + "WHERE k.id = $1", credential_id)
    return None if row is None else _api_key(row)


def _api_key(row: Any) -> ApiKey:
    return ApiKey(
        id=row[0],
        key_hash=row[1],
        prefix=row[2],
        tenant_id=row[3],
        store_ids=None if row[4] is None else tuple(row[4]),
        agent_id=row[5],
        permissions=tuple(row[6]),
        name=row[7],
        created_at_us=row[8],
        revoked_at_us=row[9],
        role=row[10],
        expires_at_us=row[11],
        rate_limit_per_minute=row[12],
    )
