"""Anchors as the doors see them: how commitments stand on their way to a chain, which ones somebody wants
next, and what anchorers outside report.

The server's login reads all of it and adds reports and requests; what the anchor itself writes is in
``journal.anchors``. A batch is taken by a report or by an anchor, never by both: both hold the one lock.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from journal.anchor_port import BACKLOG_COUNTED_MAX
from journal.anchor_rows import BATCHES_MAX, LAST, ON_A_BLOCK, THEIR_BATCHES, UNDER_WAY, as_told
from journal.audit import write_audit
from journal.commitments import COLUMNS
from journal.port import (
    AnchorEvidence,
    AnchorReport,
    AnchorSummary,
    AuditEntry,
    CommitmentAnchor,
    PendingCommitment,
    ReportConflict,
    ReportStored,
)
from journal.units import Undo
from ves.anchor_records import Inclusion
from ves.records import Commitment, Uuid

if TYPE_CHECKING:
    from journal.connections import Connection

_ANCHOR_COLUMNS = """b.batch_id, t.state, t.at, a.chain_id, a.contract, a.road, a.anchor_number, b.position,
    a.batch_count, t.tx_hash, t.block_number, t.block_hash, t.gas_used, t.effective_gas_price, t.cause"""
_ANCHORS_WIDTH = 15

_ANCHORS = f"""
SELECT {_ANCHOR_COLUMNS}
FROM record.anchor_batches b JOIN record.anchors a USING (anchor_number) {LAST}
WHERE b.batch_id = ANY ($1)
UNION ALL
SELECT batch_id, 'reported', reported_at, chain_id, NULL, NULL, NULL, NULL, 1, tx_hash, block_number,
    NULL, NULL, NULL, NULL
FROM record.anchor_reports WHERE batch_id = ANY ($1)
"""  # noqa: S608  texts of this module only

_PENDING = f"""
WITH open_batches AS (
    SELECT {_ANCHOR_COLUMNS}
    FROM {UNDER_WAY} {THEIR_BATCHES}
), oldest AS (
    (SELECT batch_id, committed_at FROM work.anchor_backlog ORDER BY committed_at, batch_id LIMIT $1)
    UNION ALL
    SELECT p.batch_id, c.committed_at FROM open_batches p JOIN LATERAL (
        SELECT committed_at FROM record.ves_commitments s WHERE s.batch_id = p.batch_id LIMIT 1
    ) c ON true
    ORDER BY committed_at, batch_id LIMIT $1
)
SELECT p.*, {", ".join(f"c.{name.strip()}" for name in COLUMNS.split(","))}
FROM oldest JOIN LATERAL (
    SELECT * FROM record.ves_commitments s WHERE s.batch_id = oldest.batch_id LIMIT 1
) c ON true LEFT JOIN open_batches p ON p.batch_id = oldest.batch_id
ORDER BY c.committed_at, c.batch_id
"""  # noqa: S608  texts of this module only

_SUMMARY = f"""
SELECT
    (SELECT count(*) FROM (SELECT FROM work.anchor_backlog LIMIT {BACKLOG_COUNTED_MAX}) w),
    (SELECT min(committed_at) FROM work.anchor_backlog),
    (SELECT json_object_agg(state, anchors)::text FROM (
        SELECT t.state, count(*) AS anchors FROM {UNDER_WAY} GROUP BY t.state) s),
    (SELECT min(a.oldest_committed_at) FROM {UNDER_WAY}),
    coalesce(s.batches, 0), coalesce(s.events, 0), coalesce(s.gas_used, 0), coalesce(s.cost_wei, 0),
    l.holder, coalesce(l.lease_epoch, 0), l.held_until, clock_timestamp()
FROM (SELECT) AS one_row LEFT JOIN work.anchor_totals s ON true LEFT JOIN record.anchor_leases l ON true
"""  # noqa: S608  texts of this module only

_EVIDENCE = f"""
SELECT {_ANCHOR_COLUMNS}, a.root, a.first_index, a.previous_head,
    ARRAY(SELECT leaf FROM record.anchor_batches s WHERE s.anchor_number = a.anchor_number ORDER BY position),
    x.raw, i.block_number, i.block_hash, i.block_header, i.transaction_index, i.receipt, i.proof
FROM record.anchor_batches b JOIN record.anchors a USING (anchor_number) {LAST}
LEFT JOIN record.anchor_transactions x ON x.tx_hash = t.tx_hash AND t.state IN {ON_A_BLOCK}
LEFT JOIN record.anchor_inclusions i ON i.anchor_number = a.anchor_number AND i.block_hash = t.block_hash
    AND t.state IN {ON_A_BLOCK}
WHERE b.batch_id = $1
"""  # noqa: S608  texts of this module only


async def read_anchors(connection: Connection, batch_ids: list[Uuid]) -> dict[Uuid, CommitmentAnchor]:
    if len(batch_ids) > BATCHES_MAX:
        raise ValueError(f"at most {BATCHES_MAX} batches a call")
    rows = await connection.fetch(_ANCHORS, batch_ids)
    return {row[0]: as_told(CommitmentAnchor(*row)) for row in rows}


async def list_pending(connection: Connection, limit: int) -> list[PendingCommitment]:
    """Oldest first. Reads the backlog as far as asked, and all anchors under way."""
    found = []
    for row in await connection.fetch(_PENDING, limit):
        anchor, commitment = row[:_ANCHORS_WIDTH], row[_ANCHORS_WIDTH:]
        told = None if anchor[0] is None else as_told(CommitmentAnchor(*anchor))
        found.append(PendingCommitment(Commitment(*commitment), told))
    return found


async def request(connection: Connection, node_id: Uuid, batch_id: Uuid, audit: AuditEntry) -> bool:
    """Under the anchoring lock. Undone unless it is the first request for a batch that waits."""
    await _require(connection, batch_id)
    if await _taken(connection, batch_id) is not None:
        raise Undo(False)
    done = await connection.execute(
        "INSERT INTO work.anchor_requests (batch_id, requested_at) VALUES ($1, clock_timestamp()) "
        "ON CONFLICT DO NOTHING",
        batch_id,
    )
    if done != "INSERT 0 1":
        raise Undo(True)
    await write_audit(connection, node_id, audit)
    return True


async def report(
    connection: Connection, node_id: Uuid, told: AnchorReport, audit: AuditEntry
) -> ReportStored | ReportConflict:
    """Under the anchoring lock. Undone unless it is the first that is known of the batch."""
    await _require(connection, told.batch_id)
    known = await _taken(connection, told.batch_id)
    if known is not None:
        same = known.tx_hash == told.tx_hash
        raise Undo(ReportStored(again=True) if same else ReportConflict())
    await connection.execute(
        "INSERT INTO record.anchor_reports (batch_id, chain_id, tx_hash, block_number, reported_at, actor) "
        "VALUES ($1, $2, $3, $4, clock_timestamp(), $5)",
        told.batch_id,
        told.chain_id,
        told.tx_hash,
        told.block_number,
        audit.actor,
    )
    await connection.execute("DELETE FROM work.anchor_backlog WHERE batch_id = $1", told.batch_id)
    await connection.execute("DELETE FROM work.anchor_requests WHERE batch_id = $1", told.batch_id)
    await write_audit(connection, node_id, audit)
    return ReportStored(again=False)


async def _require(connection: Connection, batch_id: Uuid) -> None:
    if not await connection.fetchval("SELECT true FROM record.ves_commitments WHERE batch_id = $1", batch_id):
        raise LookupError("no such commitment")


async def _taken(connection: Connection, batch_id: Uuid) -> CommitmentAnchor | None:
    return (await read_anchors(connection, [batch_id])).get(batch_id)


async def summary(connection: Connection) -> AnchorSummary:
    """Counts what waits and what is under way; what is finalized was summed up as it came."""
    row = await connection.fetchrow(_SUMMARY)
    assert row is not None, "one row, whatever joins"
    waiting, oldest_waiting, states, oldest_open, batches, events, gas, wei, holder, epoch, until, now = row
    return AnchorSummary(
        waiting=waiting,
        oldest_waiting_us=oldest_waiting or 0,
        open_anchors=json.loads(states) if states else {},
        oldest_unfinalized_us=min((at for at in (oldest_waiting, oldest_open) if at is not None), default=0),
        anchored_batches=batches,
        anchored_events=events,
        gas_used=int(gas),
        cost_wei=int(wei),
        lease_holder=holder,
        lease_epoch=epoch,
        lease_held_until_us=until or 0,
        now_us=now,
    )


async def read_evidence(connection: Connection, batch_id: Uuid) -> AnchorEvidence | None:
    row = await connection.fetchrow(_EVIDENCE, batch_id)
    if row is None:
        return None
    anchor = as_told(CommitmentAnchor(*row[:_ANCHORS_WIDTH]))
    root, first_index, previous_head, leaves, raw, block_number, *included = row[_ANCHORS_WIDTH:]
    return AnchorEvidence(
        anchor=anchor,
        root=root,
        first_index=first_index,
        previous_head=previous_head,
        leaves=leaves if anchor.road == "aggregate" else [],
        raw_transaction=raw,
        inclusion=None if block_number is None else Inclusion(block_number, *included),
    )
