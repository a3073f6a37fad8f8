"""Validity proofs of commitments: stored once per batch, type and version, sealed, and read back.

Which bytes are stored is the caller's doing; here they are opaque: two proofs are
the same when their hashes are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from journal.audit import write_audit
from journal.port import AuditEntry, ProofConflict, ProofSubmitted, StoredProof, ValidityProof
from journal.units import Undo
from ves.records import Uuid

if TYPE_CHECKING:
    from journal.connections import Connection

_COLUMNS = """proof_id, batch_id, tenant_id, store_id, proof_type, proof_version, proof_hash, public_inputs,
    submitted_at"""
_SELECT = f"SELECT {_COLUMNS} FROM record.ves_validity_proofs "  # noqa: S608  texts of this module only

_LATER = """
WHERE batch_id = $1 AND ($2::uuid IS NULL OR (submitted_at, proof_id) > (
    SELECT submitted_at, proof_id FROM record.ves_validity_proofs WHERE proof_id = $2 AND batch_id = $1))
ORDER BY submitted_at, proof_id LIMIT $3
"""
_INSERT = """
INSERT INTO record.ves_validity_proofs (proof_id, batch_id, tenant_id, store_id, submitted_at, proof_type,
    proof_version, proof_hash, public_inputs, proof)
SELECT $1, c.batch_id, c.tenant_id, c.store_id, clock_timestamp(), $5, $6, $7, $8, $9
FROM record.ves_commitments c WHERE c.batch_id = $2 AND c.tenant_id = $3 AND c.store_id = $4
ON CONFLICT (batch_id, proof_type, proof_version) DO NOTHING
RETURNING submitted_at
"""


async def submit(
    connection: Connection, node_id: Uuid, submitted: StoredProof, audit: AuditEntry
) -> ProofSubmitted | ProofConflict | None:
    """Undone unless it is the first of its kind, or when there is no such commitment."""
    record = submitted.record
    submitted_at_us = await connection.fetchval(
        _INSERT,
        record.proof_id,
        record.batch_id,
        record.tenant_id,
        record.store_id,
        record.proof_type,
        record.proof_version,
        record.proof_hash,
        record.public_inputs,
        submitted.proof,
    )
    if submitted_at_us is None:
        raise Undo(await _present(connection, record))
    await write_audit(connection, node_id, audit)
    return ProofSubmitted(msgspec.structs.replace(record, submitted_at_us=submitted_at_us), already=False)


async def _present(connection: Connection, wanted: ValidityProof) -> ProofSubmitted | ProofConflict | None:
    """A statement of its own: what another transaction stored meanwhile is seen here."""
    row = await connection.fetchrow(
        _SELECT + "WHERE batch_id = $1 AND tenant_id = $2 AND store_id = $3 "
        "AND proof_type = $4 AND proof_version = $5",
        wanted.batch_id,
        wanted.tenant_id,
        wanted.store_id,
        wanted.proof_type,
        wanted.proof_version,
    )
    if row is None:
        return None
    present = ValidityProof(*row)
    if present.proof_hash != wanted.proof_hash:
        return ProofConflict(present.proof_id)
    return ProofSubmitted(present, already=True)


async def read_one(
    connection: Connection, proof_id: Uuid, tenant_id: Uuid | None, store_ids: tuple[Uuid, ...] | None
) -> StoredProof | None:
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS}, proof FROM record.ves_validity_proofs "  # noqa: S608  texts of this module only
        "WHERE proof_id = $1 AND ($2::uuid IS NULL OR tenant_id = $2) "
        "AND ($3::uuid[] IS NULL OR store_id = ANY($3))",
        proof_id,
        tenant_id,
        None if store_ids is None else list(store_ids),
    )
    if row is None:
        return None
    *record, proof = row
    return StoredProof(ValidityProof(*record), proof)


async def list_page(
    connection: Connection, batch_id: Uuid, after: Uuid | None, limit: int
) -> list[ValidityProof]:
    return [ValidityProof(*row) for row in await connection.fetch(_SELECT + _LATER, batch_id, after, limit)]
