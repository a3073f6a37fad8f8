"""The audit log: who did what to what, one hash chain per node, each entry in the transaction of its act.

The formulas are in ``ves.audit``. The JCS text (RFC 8785) of an entry is stored beside its hash, so the chain
can be checked with the table alone. The node's counter row is locked last in a transaction and held until it
ends, so numbers have no gaps. Reading the trail and its commitments is in ``journal.audit_trail``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from journal.port import AuditEntry
from ves.audit import entry_hash
from ves.canonical import jcs
from ves.constants import ZERO_HASH
from ves.encoding import uuid_text
from ves.records import Uuid

if TYPE_CHECKING:
    from journal.connections import Connection


def entry_text(node_id: Uuid, number: int, recorded_at_us: int, entry: AuditEntry) -> str:
    """What is hashed. Times are microseconds since the Unix epoch."""
    document: dict[str, Any] = {
        "node_id": uuid_text(node_id),
        "number": number,
        "recorded_at_us": recorded_at_us,
        "actor": entry.actor,
        "action": entry.action,
        "subject": entry.subject,
        "tenant_id": None if entry.tenant_id is None else uuid_text(entry.tenant_id),
        "details": entry.details,
    }
    return jcs(document).decode()


async def write_audit(connection: Connection, node_id: Uuid, entry: AuditEntry) -> None:
    """Last act of a transaction: another one of this node waits from here until it ends."""
    now_us, number, prev_hash = await _last(connection, node_id)
    number += 1
    text = entry_text(node_id, number, now_us, entry)
    digest = entry_hash(prev_hash, text)
    await connection.execute(
        "INSERT INTO record.audit_log (node_id, entry_number, recorded_at, tenant_id, actor, action, "
        "subject, entry, prev_hash, entry_hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        node_id,
        number,
        now_us,
        entry.tenant_id,
        entry.actor,
        entry.action,
        entry.subject,
        text,
        prev_hash,
        digest,
    )
    await connection.execute(
        "UPDATE record.audit_counters SET last_number = $2, last_hash = $3 "
        "WHERE node_id = $1 AND last_number = $2 - 1",
        node_id,
        number,
        digest,
    )


async def _last(connection: Connection, node_id: Uuid) -> tuple[int, int, bytes]:
    locked = (
        "SELECT clock_timestamp(), last_number, last_hash FROM record.audit_counters "
        "WHERE node_id = $1 FOR UPDATE"
    )
    row = await connection.fetchrow(locked, node_id)
    if row is None:
        await connection.execute(
            "INSERT INTO record.audit_counters (node_id, last_number, last_hash) VALUES ($1, 0, $2) "
            "ON CONFLICT DO NOTHING",
            node_id,
            ZERO_HASH,
        )
        row = await connection.fetchrow(locked, node_id)
    assert row is not None, "the counter was inserted, by us or by another"
    return row[0], row[1], row[2]
