"""Commitments: which streams wait for one, what their leaves are made of, and the stored ones.

A commitment is stored with a compare-and-set of the stream's commitment counter, a row of its own, so
appends are not held up. Never computes a tree or a root: those come in, and go out for checking.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg

from journal.anchor_rows import anchored_only
from journal.commitment_rows import CommitmentRows
from journal.port import (
    Away,
    CommitmentCounter,
    CommitmentPage,
    CommittedLeaf,
    JournalAway,
    Moved,
    Stored,
    StreamBehind,
)
from journal.units import Contended, Undo, Units
from ves.constants import VES_VERSION, ZERO_HASH
from ves.records import Commitment, Uuid

if TYPE_CHECKING:
    from journal.connections import Connection

LEAF_SOURCES_MAX = 4096
_NODE_BYTES = 32

COLUMNS = """batch_id, tenant_id, store_id, ves_version, tree_depth, leaf_count, padded_leaf_count,
    merkle_root, prev_state_root, new_state_root, sequence_start, sequence_end, committed_at"""
_SELECT = f"SELECT {COLUMNS} FROM record.ves_commitments "  # noqa: S608  texts of this module only
stored = CommitmentRows(_SELECT, Commitment)

# A commitment ends before voided numbers at the latest, and the next one starts after them.
COMMITTABLE = """least(c.current_sequence, (
        SELECT min(v.first_number) - 1 FROM record.voided_numbers v
        WHERE v.tenant_id = c.tenant_id AND v.store_id = c.store_id
          AND v.first_number > coalesce(k.committed_through, 0)
    ))"""


def beyond_voided(tenant_id: str, store_id: str, sequence_end: str) -> str:
    """The number after which the next commitment starts; asked with SQL texts of ours."""
    return f"""
    WITH RECURSIVE beyond (number) AS (
        SELECT {sequence_end}::bigint
        UNION ALL
        SELECT v.last_number FROM beyond JOIN record.voided_numbers v
        ON v.tenant_id = {tenant_id} AND v.store_id = {store_id} AND v.first_number = beyond.number + 1
    )
    SELECT max(number) FROM beyond
    """  # noqa: S608  texts of this module only


_BEYOND_VOIDED = beyond_voided("$1", "$2", "$3")

_BEHIND = f"""
WITH behind AS MATERIALIZED (
    SELECT c.tenant_id, c.store_id, coalesce(k.committed_through, 0) AS committed_through,
        {COMMITTABLE} AS current_sequence
    FROM record.ves_sequence_counters c
    LEFT JOIN record.ves_commitment_counters k USING (tenant_id, store_id)
    WHERE c.current_sequence > coalesce(k.committed_through, 0)
      AND ($1::uuid IS NULL OR (c.tenant_id, c.store_id) > ($1, $2::uuid))
    ORDER BY c.tenant_id, c.store_id
    LIMIT $3
)
SELECT b.tenant_id, b.store_id, b.committed_through, b.current_sequence, e.sequenced_at
FROM behind b LEFT JOIN LATERAL (
    SELECT sequenced_at FROM record.ves_events e -- not committed, so not archived
    WHERE e.tenant_id = b.tenant_id AND e.store_id = b.store_id
      AND e.sequence_number = b.committed_through + 1
    LIMIT 1 -- one look into the index per stream, whatever the planner believes
) e ON true -- without its first event a stream is damaged, and still behind
ORDER BY b.tenant_id, b.store_id
"""  # noqa: S608  texts of this module only


# One run of bytes: nobody makes an object of a leaf's parts.
_LEAF_SOURCES = """
SELECT string_agg(source, ''::bytea ORDER BY sequence_number) FROM (
    SELECT sequence_number, int8send(sequence_number) || event_signing_hash || agent_signature AS source
    FROM record.ves_events_all
    WHERE tenant_id = $1 AND store_id = $2 AND sequence_number BETWEEN $3 AND $4
    ORDER BY sequence_number
) sources
"""


# Where the siblings stand in ``levels`` is ``ves.merkle.sibling_positions`` once more: to ask for them by
# place one has to know the commitment first, and one look costs half of two.
_LEAF = f"""
SELECT {COLUMNS}, substr(levels, (leaf_index * 32 + 1)::int, 32), ARRAY(
    SELECT substr(levels, (32 * (width - (width >> height) + ((leaf_index >> height) # 1)) + 1)::int, 32)
    FROM generate_series(0, tree_depth - 1) height ORDER BY height
)
FROM (
    SELECT {COLUMNS}, levels,
        $3::bigint - sequence_start AS leaf_index, 2 * padded_leaf_count::bigint AS width
    FROM record.ves_commitments
    WHERE tenant_id = $1 AND store_id = $2 AND sequence_start <= $3
    ORDER BY sequence_start DESC
    LIMIT 1
) held
WHERE sequence_end >= $3
"""  # noqa: S608  texts of this module only


async def streams_behind(
    connection: Connection, after: tuple[Uuid, Uuid] | None, limit: int
) -> list[StreamBehind]:
    tenant_id, store_id = after or (None, None)
    rows = await connection.fetch(_BEHIND, tenant_id, store_id, limit)
    return [StreamBehind(row[0], row[1], row[2], row[3], row[4] or 0) for row in rows]


async def read_counter(connection: Connection, tenant_id: Uuid, store_id: Uuid) -> CommitmentCounter:
    row = await connection.fetchrow(
        f"SELECT k.committed_through, k.state_root, {COMMITTABLE} "  # noqa: S608  texts of this module only
        "FROM (SELECT $1::uuid AS tenant_id, $2::uuid AS store_id) q "
        "LEFT JOIN record.ves_sequence_counters c USING (tenant_id, store_id) "
        "LEFT JOIN record.ves_commitment_counters k USING (tenant_id, store_id)",
        tenant_id,
        store_id,
    )
    assert row is not None, "one row, whatever joins"
    return CommitmentCounter(row[0] or 0, row[1] or ZERO_HASH, row[2] or 0)


async def read_leaf_sources(
    connection: Connection, tenant_id: Uuid, store_id: Uuid, sequence_start: int, sequence_end: int
) -> bytes:
    if sequence_end - sequence_start >= LEAF_SOURCES_MAX:
        raise ValueError(f"at most {LEAF_SOURCES_MAX} leaf sources a call")
    row = await connection.fetchrow(_LEAF_SOURCES, tenant_id, store_id, sequence_start, sequence_end)
    return b"" if row is None or row[0] is None else bytes(row[0])


async def commit(
    units: Units, commitment: Commitment, levels: bytes, believed_through: int
) -> Stored | Moved | Away:
    """Raises JournalOutcomeUnknown once COMMIT was sent and not clearly answered."""
    if commitment.ves_version != VES_VERSION or commitment.sequence_start != believed_through + 1:
        raise ValueError("a commitment starts right after the last one")
    try:
        return await units.write(
            lambda connection: _store(connection, commitment, levels, believed_through), named="commit"
        )
    except (Contended, asyncpg.UniqueViolationError) as error:
        return Moved(f"{type(error).__name__}: another committer was first")
    except JournalAway as error:
        return Away(str(error))


async def _store(
    connection: Connection, commitment: Commitment, levels: bytes, believed_through: int
) -> Stored:
    if not await _advance(connection, commitment, believed_through):
        raise Undo(Moved("the commitment counter"))
    head = await connection.fetchval(
        "SELECT current_sequence FROM record.ves_sequence_counters WHERE tenant_id = $1 AND store_id = $2",
        commitment.tenant_id,
        commitment.store_id,
    )
    if head is None or commitment.sequence_end > head:
        raise Undo(Moved("the head: the range ends beyond it"))
    await connection.execute(
        f"INSERT INTO record.ves_commitments ({COLUMNS}, levels) "  # noqa: S608  texts of this module only
        "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        commitment.batch_id,
        commitment.tenant_id,
        commitment.store_id,
        commitment.ves_version,
        commitment.tree_depth,
        commitment.leaf_count,
        commitment.padded_leaf_count,
        commitment.merkle_root,
        commitment.prev_state_root,
        commitment.new_state_root,
        commitment.sequence_start,
        commitment.sequence_end,
        commitment.committed_at_us,
        levels,
    )
    return Stored()


async def _advance(connection: Connection, commitment: Commitment, believed_through: int) -> bool:
    """The compare-and-set; the row is ours until the transaction ends."""
    stream = (commitment.tenant_id, commitment.store_id)
    through = await connection.fetchval(_BEYOND_VOIDED, *stream, commitment.sequence_end)
    to = (through, commitment.new_state_root)
    if believed_through == 0:
        if commitment.prev_state_root != ZERO_HASH:
            return False
        done = await connection.execute(
            "INSERT INTO record.ves_commitment_counters (tenant_id, store_id, committed_through, state_root) "
            "VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
            *stream,
            *to,
        )
        return done == "INSERT 0 1"
    done = await connection.execute(
        "UPDATE record.ves_commitment_counters SET committed_through = $3, state_root = $4 "
        "WHERE tenant_id = $1 AND store_id = $2 AND committed_through = $5 AND state_root = $6",
        *stream,
        *to,
        believed_through,
        commitment.prev_state_root,
    )
    return done == "UPDATE 1"


async def list_page(
    connection: Connection,
    tenant_id: Uuid,
    store_id: Uuid,
    from_sequence: int,
    limit: int,
    anchored: bool | None,
) -> CommitmentPage:
    """``from_sequence`` is the least ``sequence_start``."""
    only = "" if anchored is None else anchored_only(anchored)
    return CommitmentPage(*await stored.page(connection, tenant_id, store_id, from_sequence, limit, only))


async def find_leaf(
    connection: Connection, tenant_id: Uuid, store_id: Uuid, sequence_number: int
) -> CommittedLeaf | None:
    row = await connection.fetchrow(_LEAF, tenant_id, store_id, sequence_number)
    if row is None:
        return None
    *commitment, leaf, path = row
    return CommittedLeaf(Commitment(*commitment), leaf, path)


async def read_nodes(connection: Connection, batch_id: Uuid, positions: list[int]) -> list[bytes]:
    """Raises LookupError for a batch or a position that does not exist."""
    return await nodes_at(connection, "ves_commitments", batch_id, positions)


async def read_leaves(connection: Connection, batch_id: Uuid, leaf_count: int) -> bytes:
    """Raises LookupError."""
    found = await connection.fetchval(
        "SELECT substr(levels, 1, $2) FROM record.ves_commitments WHERE batch_id = $1",
        batch_id,
        leaf_count * _NODE_BYTES,
    )
    if found is None or len(found) != leaf_count * _NODE_BYTES:
        raise LookupError("no such commitment, or not so many leaves in it")
    return bytes(found)


async def nodes_at(connection: Connection, table: str, batch_id: Uuid, positions: list[int]) -> list[bytes]:
    """Of either stream's commitments. ``table`` is ours."""
    rows = await connection.fetch(
        # Stored uncompressed, so each substr reads its own slice only.
        "SELECT substr(c.levels, ($3::int * p.position + 1)::int, $3::int) "  # noqa: S608  a table of ours
        f"FROM unnest($2::bigint[]) WITH ORDINALITY AS p (position, place), record.{table} c "
        "WHERE c.batch_id = $1 ORDER BY p.place",
        batch_id,
        positions,
        _NODE_BYTES,
    )
    nodes: list[Any] = [row[0] for row in rows]
    if len(nodes) != len(positions) or any(len(node) != _NODE_BYTES for node in nodes):
        raise LookupError("no such commitment, or no such node in it")
    return nodes
