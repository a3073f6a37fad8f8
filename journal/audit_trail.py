"""The audit trail as it is read and committed: chains by number, entries by time, commitments of ranges.

Writes nothing but commitments, each by compare-and-set against the node's last one; entries are written by
``journal.audit`` in the transactions of their acts. Never computes a root: those come in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg

from journal.port import AuditChain, AuditWish, Away, JournalAway, Moved, Stored
from journal.units import Contended, Undo, Units
from ves.audit import AuditCommitment, AuditRecord
from ves.constants import ZERO_HASH
from ves.records import Uuid

if TYPE_CHECKING:
    from journal.connections import Connection

_ENTRY = "node_id, entry_number, recorded_at, tenant_id, actor, action, subject, entry, prev_hash, entry_hash"
_COMMITMENT = "node_id, entry_start, entry_end, merkle_root, prev_state_root, new_state_root, committed_at"

_CHAINS = """
SELECT c.node_id, c.last_number, c.last_hash, k.entry_end, k.new_state_root, e.recorded_at
FROM record.audit_counters c
LEFT JOIN LATERAL (
    SELECT entry_end, new_state_root FROM record.audit_commitments k
    WHERE k.node_id = c.node_id ORDER BY entry_start DESC LIMIT 1
) k ON true
LEFT JOIN LATERAL (
    SELECT recorded_at FROM record.audit_log e
    WHERE e.node_id = c.node_id AND e.entry_number = coalesce(k.entry_end, 0) + 1
) e ON true
WHERE ($1::uuid IS NULL OR c.node_id = $1) AND ($2::uuid IS NULL OR c.node_id > $2)
ORDER BY c.node_id LIMIT $3
"""


async def read_chains(
    connection: Connection, only: Uuid | None, after: Uuid | None, limit: int
) -> list[AuditChain]:
    rows = await connection.fetch(_CHAINS, only, after, limit)
    return [AuditChain(row[0], row[1], row[2], row[3] or 0, row[4] or ZERO_HASH, row[5] or 0) for row in rows]


async def read_chain(
    connection: Connection, node_id: Uuid, from_number: int, limit: int
) -> list[AuditRecord]:
    rows = await connection.fetch(
        f"SELECT {_ENTRY} FROM record.audit_log "  # noqa: S608  texts of this module only
        "WHERE node_id = $1 AND entry_number >= $2 ORDER BY entry_number LIMIT $3",
        node_id,
        from_number,
        limit,
    )
    return [AuditRecord(*row) for row in rows]


async def find_entries(connection: Connection, wish: AuditWish, limit: int) -> list[AuditRecord]:
    conditions, arguments = _conditions(wish)
    rows = await connection.fetch(
        f"SELECT {_ENTRY} FROM record.audit_log WHERE {' AND '.join(conditions)} "  # noqa: S608  see below
        f"ORDER BY recorded_at DESC, node_id DESC, entry_number DESC LIMIT ${len(arguments) + 1}",
        *arguments,
        limit,
    )
    return [AuditRecord(*row) for row in rows]


def _conditions(wish: AuditWish) -> tuple[list[str], list[Any]]:
    """Texts of this module with numbered parameters, and the parameters."""
    after = wish.after
    place = (None,) * 3 if after is None else (after.recorded_at_us, after.node_id, after.entry_number)
    conditions = ["true"]
    arguments: list[Any] = []
    for text, values in (
        ("tenant_id = ${}", (wish.tenant_id,)),
        ("node_id = ${}", (wish.node_id,)),
        ("actor = ${}", (wish.actor,)),
        ("action = ${}", (wish.action,)),
        ("recorded_at >= ${}", (wish.from_us,)),
        ("recorded_at < ${}", (wish.to_us,)),
        ("(recorded_at, node_id, entry_number) < (${}, ${}, ${})", place),
    ):
        if values[0] is not None:
            first = len(arguments) + 1
            conditions.append(text.format(*range(first, first + len(values))))
            arguments += values
    return conditions, arguments


async def commit(units: Units, commitment: AuditCommitment) -> Stored | Moved | Away:
    """Raises JournalOutcomeUnknown once COMMIT was sent and not clearly answered."""
    try:
        return await units.write(lambda connection: _store(connection, commitment), named="commit_audit")
    except (Contended, asyncpg.UniqueViolationError) as error:
        return Moved(f"{type(error).__name__}: another committer was first")
    except JournalAway as error:
        return Away(str(error))


_STORE = f"""
WITH last AS (
    SELECT entry_end, new_state_root FROM record.audit_commitments
    WHERE node_id = $1 ORDER BY entry_start DESC LIMIT 1
)
INSERT INTO record.audit_commitments ({_COMMITMENT})
SELECT $1, $2, $3, $4, $5, $6, $7
WHERE $2 = coalesce((SELECT entry_end FROM last), 0) + 1
  AND $5 = coalesce((SELECT new_state_root FROM last), $8)
  AND $3 <= (SELECT last_number FROM record.audit_counters WHERE node_id = $1)
"""  # noqa: S608  texts of this module only


async def _store(connection: Connection, commitment: AuditCommitment) -> Stored:
    values = [getattr(commitment, name) for name in AuditCommitment.__struct_fields__]
    # Two that see the same last row want the same primary key: one of them is refused.
    done = await connection.execute(_STORE, *values, ZERO_HASH)
    if done != "INSERT 0 1":
        raise Undo(Moved("the chain's last commitment, or its head"))
    return Stored()


async def list_commitments(
    connection: Connection, node_id: Uuid, from_number: int, limit: int
) -> list[AuditCommitment]:
    rows = await connection.fetch(
        f"SELECT {_COMMITMENT} FROM record.audit_commitments "  # noqa: S608  texts of this module only
        # A commitment is never longer than 1024 entries, so this is one short range of the index.
        "WHERE node_id = $1 AND entry_start > $2::bigint - 1024 AND entry_end >= $2 "
        "ORDER BY entry_start LIMIT $3",
        node_id,
        from_number,
        limit,
    )
    return [AuditCommitment(*row) for row in rows]
