"""Commitments of the legacy stream: what their leaves are made of, the one transaction, and the stored ones.

There is no counter: a commitment starts right after the last one, so of two at once the second meets the
first's start in the unique key. Never computes a tree; the state root it does compute, because the entities'
versions it is made of must be those of the commitment's own snapshot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
import msgspec

from journal.commitment_rows import CommitmentRows
from journal.commitments import LEAF_SOURCES_MAX, nodes_at
from journal.port import (
    LEGACY_ENTITIES_MAX,
    Away,
    CommitmentCounter,
    JournalAway,
    LegacyCommitmentPage,
    LegacyLeafSource,
    Moved,
    TooManyEntities,
)
from journal.units import Contended, Undo, Units
from ves.constants import ZERO_HASH
from ves.legacy_commitments import EntityVersions, LegacyCommitment
from ves.records import Uuid

if TYPE_CHECKING:
    from journal.connections import Connection

_ONE_SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ"
_ENTITIES_PER_READ = 5000
_COLUMNS = ", ".join(name.removesuffix("_us") for name in LegacyCommitment.__struct_fields__)
_SELECT = f"SELECT {_COLUMNS} FROM record.batch_commitments "  # noqa: S608  names of our own fields
stored = CommitmentRows(_SELECT, LegacyCommitment)

_COUNTER = """
SELECT b.sequence_end, b.new_state_root, c.current_sequence
FROM (SELECT $1::uuid AS tenant_id, $2::uuid AS store_id) q
LEFT JOIN record.sequence_counters c USING (tenant_id, store_id)
LEFT JOIN LATERAL (
    SELECT sequence_end, new_state_root FROM record.batch_commitments
    WHERE tenant_id = $1 AND store_id = $2 ORDER BY sequence_start DESC LIMIT 1
) b ON true
"""
_ENTITIES = """
SELECT entity_type, entity_id, version FROM record.entity_versions
WHERE tenant_id = $1 AND store_id = $2 AND (entity_type, entity_id) > ($3, $4)
ORDER BY entity_type COLLATE "C", entity_id COLLATE "C" LIMIT $5
"""
_INSERT = f"""
INSERT INTO record.batch_commitments ({_COLUMNS}, levels)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""  # noqa: S608  names of our own fields


async def read_counter(connection: Connection, tenant_id: Uuid, store_id: Uuid) -> CommitmentCounter:
    row = await connection.fetchrow(_COUNTER, tenant_id, store_id)
    assert row is not None, "one row, whatever joins"
    return CommitmentCounter(row[0] or 0, row[1] or ZERO_HASH, row[2] or 0)


async def read_leaf_sources(
    connection: Connection, tenant_id: Uuid, store_id: Uuid, sequence_start: int, sequence_end: int
) -> list[LegacyLeafSource]:
    """Of events that no commitment holds yet: those are in no archive."""
    if sequence_end - sequence_start >= LEAF_SOURCES_MAX:
        raise ValueError(f"at most {LEAF_SOURCES_MAX} leaf sources a call")
    rows = await connection.fetch(
        "SELECT sequence_number, payload_hash, entity_type, entity_id FROM record.events "
        "WHERE tenant_id = $1 AND store_id = $2 AND sequence_number BETWEEN $3 AND $4 "
        "ORDER BY sequence_number",
        tenant_id,
        store_id,
        sequence_start,
        sequence_end,
    )
    return [LegacyLeafSource(*row) for row in rows]


async def commit(
    units: Units, commitment: LegacyCommitment, levels: bytes
) -> LegacyCommitment | TooManyEntities | Moved | Away:
    """Raises JournalOutcomeUnknown once COMMIT was sent and not clearly answered."""
    try:
        return await units.write(
            lambda connection: _store(connection, commitment, levels),
            begin=_ONE_SNAPSHOT,
            named="commit_legacy",
        )
    except (Contended, asyncpg.UniqueViolationError) as error:
        return Moved(f"{type(error).__name__}: another committer was first")
    except JournalAway as error:
        return Away(str(error))


async def _store(connection: Connection, commitment: LegacyCommitment, levels: bytes) -> LegacyCommitment:
    counter = await read_counter(connection, commitment.tenant_id, commitment.store_id)
    if (counter.committed_through + 1, counter.state_root) != (
        commitment.sequence_start,
        commitment.prev_state_root,
    ):
        raise Undo(Moved("the last commitment"))
    if commitment.sequence_end > counter.head_sequence:
        raise Undo(Moved("the head: the range ends beyond it"))
    state_root = await _state_root(connection, commitment.tenant_id, commitment.store_id)
    commitment = msgspec.structs.replace(commitment, new_state_root=state_root)
    await connection.execute(_INSERT, *msgspec.structs.astuple(commitment), levels)
    return commitment


async def _state_root(connection: Connection, tenant_id: Uuid, store_id: Uuid) -> bytes:
    versions, count, last = EntityVersions(tenant_id, store_id), 0, ("", "")
    while True:
        rows = await connection.fetch(_ENTITIES, tenant_id, store_id, *last, _ENTITIES_PER_READ)
        for entity_type, entity_id, version in rows:
            versions.add(entity_type, entity_id, version)
        count += len(rows)
        if count > LEGACY_ENTITIES_MAX:
            raise Undo(TooManyEntities())
        if len(rows) < _ENTITIES_PER_READ:
            return versions.state_root()
        last = (rows[-1][0], rows[-1][1])


async def list_page(
    connection: Connection, tenant_id: Uuid, store_id: Uuid, from_sequence: int, limit: int
) -> LegacyCommitmentPage:
    """``from_sequence`` is the least ``sequence_start``."""
    return LegacyCommitmentPage(*await stored.page(connection, tenant_id, store_id, from_sequence, limit))


async def read_nodes(connection: Connection, batch_id: Uuid, positions: list[int]) -> list[bytes]:
    """Raises LookupError for a batch or a position that does not exist."""
    return await nodes_at(connection, "batch_commitments", batch_id, positions)
