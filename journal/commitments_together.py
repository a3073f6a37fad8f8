"""Commitments of many streams together: one read of where they stand and of their leaves, one transaction.

What ``journal.commitments`` promises of one stream holds for each of them by itself: whoever was first with
one costs the others nothing. Nobody's lock on a counter is waited for: that stream is being committed. What
PostgreSQL refuses undoes all of it; then each has to go alone and hear its own truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import asyncpg

from journal.commitments import COLUMNS, COMMITTABLE, beyond_voided
from journal.locks import begin_together
from journal.port import (
    TOGETHER_LEAVES_MAX,
    TOGETHER_STREAMS_MAX,
    Away,
    CommitmentCounter,
    JournalAway,
    MadeCommitment,
    Moved,
    NotTogether,
    Stored,
    StreamRange,
    Uncommitted,
)
from journal.units import Contended, Undo, Units
from ves.constants import VES_VERSION, ZERO_HASH
from ves.records import Uuid

if TYPE_CHECKING:
    from journal.connections import Connection

_LOCK_TIMEOUT_S = 0.1

# One look into an index for each stream, whatever the planner believes.
_UNCOMMITTED = f"""
SELECT k.committed_through, k.state_root, c.head, e.sources
FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[]) WITH ORDINALITY
    AS w (tenant_id, store_id, sequence_start, sequence_end, place)
LEFT JOIN LATERAL (
    SELECT committed_through, state_root FROM record.ves_commitment_counters k
    WHERE k.tenant_id = w.tenant_id AND k.store_id = w.store_id LIMIT 1
) k ON true
LEFT JOIN LATERAL (
    SELECT {COMMITTABLE} AS head FROM record.ves_sequence_counters c
    WHERE c.tenant_id = w.tenant_id AND c.store_id = w.store_id LIMIT 1
) c ON true
LEFT JOIN LATERAL (
    SELECT string_agg(
        int8send(sequence_number) || event_signing_hash || agent_signature, ''::bytea
        ORDER BY sequence_number
    ) AS sources
    FROM record.ves_events e -- not committed, so not archived
    WHERE e.tenant_id = w.tenant_id AND e.store_id = w.store_id
      AND e.sequence_number BETWEEN w.sequence_start AND w.sequence_end
) e ON true
ORDER BY w.place
"""  # noqa: S608  texts of our modules only

# ``held``: counters as they are believed, and ours until the transaction ends. Where another node's first
# commitment of a stream is under way, it is waited for: in order, so that nobody waits in a circle.
_COMMIT = f"""
WITH wanted AS MATERIALIZED (
    SELECT w.*, ({beyond_voided("w.tenant_id", "w.store_id", "w.sequence_end")}) AS through
    FROM unnest(
        $1::uuid[], $2::uuid[], $3::uuid[], $4::int[], $5::int[], $6::int[], $7::int[],
        $8::bytea[], $9::bytea[], $10::bytea[], $11::bigint[], $12::bigint[], $13::timestamptz[], $14::bytea[]
    ) AS w ({COLUMNS}, levels)
    CROSS JOIN LATERAL (
        SELECT FROM record.ves_sequence_counters c
        WHERE c.tenant_id = w.tenant_id AND c.store_id = w.store_id AND c.current_sequence >= w.sequence_end
        LIMIT 1
    ) reaches
), held AS MATERIALIZED (
    SELECT w.batch_id, k.at FROM wanted w CROSS JOIN LATERAL (
        SELECT k.ctid AS at FROM record.ves_commitment_counters k
        WHERE k.tenant_id = w.tenant_id AND k.store_id = w.store_id
          AND k.committed_through = w.sequence_start - 1 AND k.state_root = w.prev_state_root
        LIMIT 1 FOR UPDATE SKIP LOCKED
    ) k
), advanced AS (
    UPDATE record.ves_commitment_counters k SET committed_through = w.through, state_root = w.new_state_root
    FROM held JOIN wanted w USING (batch_id) WHERE k.ctid = held.at
    RETURNING w.batch_id
), begun AS (
    INSERT INTO record.ves_commitment_counters (tenant_id, store_id, committed_through, state_root)
    SELECT tenant_id, store_id, through, new_state_root FROM wanted
    WHERE sequence_start = 1 AND prev_state_root = $15
    ORDER BY tenant_id, store_id
    ON CONFLICT DO NOTHING
    RETURNING tenant_id, store_id
), stored AS (
    SELECT batch_id FROM advanced UNION ALL SELECT batch_id FROM begun JOIN wanted USING (tenant_id, store_id)
)
INSERT INTO record.ves_commitments ({COLUMNS}, levels)
SELECT {COLUMNS}, levels FROM stored JOIN wanted USING (batch_id)
RETURNING batch_id
"""  # noqa: S608  texts of our modules only


async def read_uncommitted(units: Units, ranges: Sequence[StreamRange]) -> list[Uncommitted]:
    """Raises JournalAway, and NotTogether when one of them cannot be read."""
    check_ranges(ranges)
    try:
        return await units.read(lambda connection: read(connection, ranges))
    except asyncpg.PostgresError as error:
        raise NotTogether(f"{type(error).__name__} while leaves were read") from error


async def read(connection: Connection, ranges: Sequence[StreamRange]) -> list[Uncommitted]:
    rows = await connection.fetch(
        _UNCOMMITTED,
        [r.tenant_id for r in ranges],
        [r.store_id for r in ranges],
        [r.sequence_start for r in ranges],
        [r.sequence_end for r in ranges],
    )
    return [
        Uncommitted(CommitmentCounter(through or 0, root or ZERO_HASH, head or 0), sources or b"")
        for through, root, head, sources in rows
    ]


async def commit_together(units: Units, made: Sequence[MadeCommitment]) -> list[Stored | Moved] | Away:
    """Raises NotTogether, and JournalOutcomeUnknown once COMMIT was sent and not clearly answered."""
    check_together(made)
    try:
        stored = await units.write(
            lambda connection: store(connection, made),
            begin=begin_together(_LOCK_TIMEOUT_S),
            named="commit",
        )
    except Contended as error:
        return [Moved(f"{type(error).__name__}: another committer was first")] * len(made)
    except JournalAway as error:
        return Away(str(error))
    except asyncpg.PostgresError as error:
        raise NotTogether(f"{type(error).__name__} while commitments were stored") from error
    return [
        Stored() if m.commitment.batch_id in stored else Moved("the commitment counter or the head")
        for m in made
    ]


def check_ranges(ranges: Sequence[StreamRange]) -> None:
    """ValueError for what is a mistake of the asker's."""
    if len(ranges) > TOGETHER_STREAMS_MAX or any(r.leaf_count > TOGETHER_LEAVES_MAX for r in ranges):
        raise ValueError(f"at most {TOGETHER_STREAMS_MAX} ranges of {TOGETHER_LEAVES_MAX} events")


def check_together(made: Sequence[MadeCommitment]) -> None:
    """The same."""
    if len(made) > TOGETHER_STREAMS_MAX:
        raise ValueError(f"at most {TOGETHER_STREAMS_MAX} commitments together")
    if len({(m.commitment.tenant_id, m.commitment.store_id) for m in made}) < len(made):
        raise ValueError("each of another stream")
    if any(m.commitment.ves_version != VES_VERSION for m in made):
        raise ValueError(f"ves_version {VES_VERSION} only")


async def store(connection: Connection, made: Sequence[MadeCommitment]) -> set[Uuid]:
    """Inside a transaction: the ids of those that are stored."""
    in_order = [m.commitment for m in made]
    rows = await connection.fetch(
        _COMMIT,
        [c.batch_id for c in in_order],
        [c.tenant_id for c in in_order],
        [c.store_id for c in in_order],
        [c.ves_version for c in in_order],
        [c.tree_depth for c in in_order],
        [c.leaf_count for c in in_order],
        [c.padded_leaf_count for c in in_order],
        [c.merkle_root for c in in_order],
        [c.prev_state_root for c in in_order],
        [c.new_state_root for c in in_order],
        [c.sequence_start for c in in_order],
        [c.sequence_end for c in in_order],
        [c.committed_at_us for c in in_order],
        [m.levels for m in made],
        ZERO_HASH,
    )
    stored = {row[0] for row in rows}
    if not stored:
        raise Undo(stored)
    return stored
