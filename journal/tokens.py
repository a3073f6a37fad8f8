"""Revoked tokens: rows that say until which second a subject's tokens are dead.

Revoking holds the tenant's key lock alone and raises its credential epoch, exactly as for API keys, and takes
its number from the same counter, so one poll tells both. Rows are never changed: the latest second counts.
Never sees a token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from journal.audit import write_audit
from journal.locks import raise_epoch
from journal.port import AuditEntry, TokenRevocation
from ves.records import Uuid

if TYPE_CHECKING:
    from journal.connections import Connection

_SELECT = """
SELECT revocation_number, tenant_id, subject, revoked_until_s, revoked_at, reason
FROM record.token_revocations
"""
_INSERT = """
WITH now AS (SELECT clock_timestamp() AS at),
next AS (UPDATE record.api_key_revocation_counters SET last_number = last_number + 1 RETURNING last_number)
INSERT INTO record.token_revocations
    (revocation_number, tenant_id, subject, revoked_until_s, revoked_at, reason)
SELECT last_number, $1, $2, ceil(extract(epoch FROM at))::bigint + $3, at, $4 FROM next, now
RETURNING revocation_number, tenant_id, subject, revoked_until_s, revoked_at, reason
"""
# The counter's row lock is held until COMMIT: the next number waits for this one to be visible.


async def revoke(
    connection: Connection,
    node_id: Uuid,
    name: tuple[Uuid, Uuid],
    ahead_s: int,
    reason: str | None,
    audit: AuditEntry,
) -> TokenRevocation:
    """``name``: tenant and subject. In a transaction that began alone for the tenant."""
    row = await connection.fetchrow(_INSERT, *name, ahead_s, reason)
    await raise_epoch(connection, name[0], credentials=1)
    await write_audit(connection, node_id, audit)
    return _revocation(row)


async def revoked_until(connection: Connection, tenant_id: Uuid, subject: Uuid) -> int:
    last: int = await connection.fetchval(
        "SELECT coalesce(max(revoked_until_s), -1) FROM record.token_revocations "
        "WHERE tenant_id = $1 AND subject IN ($1, $2)",
        tenant_id,
        subject,
    )
    return last


async def list_page(
    connection: Connection, tenant_id: Uuid | None, after: int, limit: int
) -> list[TokenRevocation]:
    rows = await connection.fetch(
        _SELECT + "WHERE ($1::uuid IS NULL OR tenant_id = $1) AND revocation_number > $2 "
        "ORDER BY revocation_number LIMIT $3",
        tenant_id,
        after,
        limit,
    )
    return [_revocation(row) for row in rows]


def _revocation(row: Any) -> TokenRevocation:
    return TokenRevocation(*row)
