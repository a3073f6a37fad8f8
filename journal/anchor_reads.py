"""What the anchor reads: where an account and a contract stand, what is under way, what waits."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from journal.anchor_port import (
    BACKLOG_COUNTED_MAX,
    Anchor,
    AnchorTransaction,
    AnchorTransition,
    Backlog,
    OpenAnchor,
    Standing,
    WaitingBatch,
)
from journal.anchor_rows import LAST, UNDER_WAY
from journal.anchor_rules import standing_after
from journal.commitments import COLUMNS
from ves.records import Commitment

if TYPE_CHECKING:
    from journal.connections import Connection

_ANCHOR = """a.anchor_number, a.chain_id, a.contract, a.road, a.batch_count, a.root, a.first_index,
    a.previous_head"""
_ANCHOR_WIDTH = 8
_TRANSACTION = """chain_id, address, nonce, attempt, anchor_number, purpose, tx_hash, raw, gas_limit,
    max_fee_per_gas, max_priority_fee_per_gas, signed_at"""
_TRANSITION = """t.anchor_number, t.transition_number, t.state, t.cause, t.tx_hash, t.block_number,
    t.block_hash, t.gas_used, t.effective_gas_price, t.at"""
_COMMITMENT = ", ".join(f"c.{name.strip()}" for name in COLUMNS.split(","))
_COMMITMENT_WIDTH = len(COLUMNS.split(","))

_NEXT_NONCES = """ARRAY(
    SELECT max(nonce) + 1 FROM record.anchor_transactions WHERE chain_id = {chain} AND address = {address}
    UNION ALL
    SELECT max(next_nonce) FROM record.anchor_resumptions WHERE chain_id = {chain} AND address = {address}
)"""
_STANDING = f"""
SELECT {_NEXT_NONCES.format(chain="$1", address="$3")},
    (SELECT coalesce(max(anchor_number), 0) FROM record.anchors),
    (SELECT max(next_nonce) FROM record.anchor_resumptions WHERE chain_id = $1 AND address = $3),
    r.next_index, r.head, {_ANCHOR}
FROM (SELECT) AS one_row
LEFT JOIN LATERAL (
    SELECT * FROM record.anchors WHERE chain_id = $1 AND contract = $2 AND road = 'aggregate'
    ORDER BY first_index DESC LIMIT 1
) a ON true
LEFT JOIN LATERAL (
    SELECT * FROM record.anchor_resumptions WHERE chain_id = $1 AND contract = $2
    ORDER BY next_index DESC, resumption_number DESC LIMIT 1
) r ON true
"""  # noqa: S608  texts of this module only

_OPEN = f"""
SELECT {_ANCHOR}, {_TRANSITION}
FROM {UNDER_WAY}
WHERE a.chain_id = $1 AND a.contract = $2 ORDER BY a.anchor_number LIMIT $3
"""  # noqa: S608
_THEIR_TRANSACTIONS = f"""
SELECT {_TRANSACTION} FROM record.anchor_transactions WHERE anchor_number = ANY ($1) ORDER BY nonce, attempt
"""  # noqa: S608
_THEIR_COMMITMENTS = f"""
SELECT b.anchor_number, {_COMMITMENT}
FROM record.anchor_batches b JOIN record.ves_commitments c USING (batch_id) WHERE b.anchor_number = ANY ($1)
"""  # noqa: S608

_IT_WAITS = """
    LEFT JOIN LATERAL (SELECT true AS is_there FROM record.ves_commitments s WHERE s.batch_id = w.batch_id
        LIMIT 1) known ON true
    LEFT JOIN LATERAL (SELECT true AS is_there FROM record.anchor_batches s WHERE s.batch_id = w.batch_id
        LIMIT 1) taken ON true
    WHERE known.is_there AND taken.is_there IS NULL
"""
"""What others may write into ``work`` is no reason to stop: rows that name no commitment, or a taken one."""

_WAITING = f"""
WITH waiting AS (
    (SELECT w.batch_id, w.committed_at, true AS requested
    FROM work.anchor_requests q JOIN work.anchor_backlog w USING (batch_id) {_IT_WAITS}
    ORDER BY w.committed_at, w.batch_id LIMIT $1)
    UNION ALL
    (SELECT w.batch_id, w.committed_at, false FROM work.anchor_backlog w {_IT_WAITS}
    AND NOT EXISTS (SELECT FROM work.anchor_requests q WHERE q.batch_id = w.batch_id)
    ORDER BY w.committed_at, w.batch_id LIMIT $1)
    ORDER BY requested DESC, committed_at, batch_id LIMIT $1
)
SELECT {_COMMITMENT}, a.road, w.requested, p.batch_id, p.sequence_end, a.chain_id, a.contract
FROM waiting w JOIN LATERAL (
    SELECT * FROM record.ves_commitments s WHERE s.batch_id = w.batch_id LIMIT 1
) c ON true
LEFT JOIN LATERAL (
    SELECT p.batch_id, p.sequence_end FROM record.ves_commitments p
    WHERE p.tenant_id = c.tenant_id AND p.store_id = c.store_id AND p.sequence_start < c.sequence_start
    ORDER BY p.sequence_start DESC LIMIT 1
) p ON true
LEFT JOIN LATERAL (
    SELECT road, chain_id, contract FROM record.anchor_batches b JOIN record.anchors USING (anchor_number)
    WHERE b.batch_id = p.batch_id LIMIT 1
) a ON true
ORDER BY w.requested DESC, c.committed_at, c.batch_id
"""  # noqa: S608
_WAITING_COUNT = f"""
SELECT (SELECT count(*) FROM (SELECT FROM work.anchor_backlog LIMIT {BACKLOG_COUNTED_MAX}) w),
    (SELECT min(committed_at) FROM work.anchor_backlog), clock_timestamp()
"""  # noqa: S608

# Attempts of a nonce exclude each other, so a nonce costs once; and its last row says whether a block has it.
_SPENT = """
WITH recent AS (
    SELECT DISTINCT nonce FROM record.anchor_transactions
    WHERE chain_id = $1 AND address = $2 AND signed_at >= $3
), nonces AS (
    SELECT nonce, max(gas_limit::numeric * max_fee_per_gas) AS at_most, array_agg(tx_hash) AS hashes
    FROM recent JOIN record.anchor_transactions x USING (nonce) WHERE chain_id = $1 AND address = $2
    GROUP BY nonce
)
SELECT coalesce(sum(coalesce(m.cost, n.at_most)), 0) FROM nonces n LEFT JOIN LATERAL (
    SELECT t.gas_used::numeric * t.effective_gas_price AS cost FROM record.anchor_transitions t
    WHERE t.tx_hash = ANY (n.hashes)
    ORDER BY t.transition_number DESC LIMIT 1
) m ON true
"""


async def standing(connection: Connection, chain_id: int, contract: bytes, address: bytes) -> Standing:
    row = await connection.fetchrow(_STANDING, chain_id, contract, address)
    assert row is not None, "one row, whatever joins"
    nonces, anchors, resumed_nonce, resumed_index, resumed_head, *anchor = row
    return standing_after(
        next_nonces=[nonce for nonce in nonces if nonce is not None],
        last_aggregate=None if anchor[0] is None else Anchor(*anchor),
        resumed_index=resumed_index,
        resumed_head=resumed_head or b"",
        anchors=anchors,
        resumed_nonce=resumed_nonce,
    )


async def next_nonce(connection: Connection, chain_id: int, address: bytes) -> int | None:
    nonces = await connection.fetchval(
        f"SELECT {_NEXT_NONCES.format(chain='$1', address='$2')}",
        chain_id,
        address,
    )
    return max((nonce for nonce in nonces if nonce is not None), default=None)


async def last_attempt(
    connection: Connection, chain_id: int, address: bytes, nonce: int
) -> AnchorTransaction | None:
    row = await connection.fetchrow(
        f"SELECT {_TRANSACTION} FROM record.anchor_transactions "  # noqa: S608  texts of this module only
        "WHERE chain_id = $1 AND address = $2 AND nonce = $3 ORDER BY attempt DESC LIMIT 1",
        chain_id,
        address,
        nonce,
    )
    return None if row is None else AnchorTransaction(*row)


async def last_transition(connection: Connection, anchor_number: int) -> AnchorTransition | None:
    row = await connection.fetchrow(
        f"SELECT {_TRANSITION} FROM (SELECT $1::bigint AS anchor_number) a {LAST}",  # noqa: S608
        anchor_number,
    )
    return None if row is None else AnchorTransition(*row)


async def read_newest_finalized(
    connection: Connection, chain_id: int, contract: bytes
) -> AnchorTransition | None:
    row = await connection.fetchrow(
        f"SELECT {_TRANSITION} FROM record.anchor_transitions t JOIN record.anchors a USING (anchor_number) "  # noqa: S608
        "WHERE t.state = 'finalized' AND a.chain_id = $1 AND a.contract = $2 "
        "ORDER BY t.anchor_number DESC LIMIT 1",
        chain_id,
        contract,
    )
    return None if row is None else AnchorTransition(*row)


async def read_transactions(
    connection: Connection, chain_id: int, address: bytes, from_nonce: int, limit: int
) -> list[AnchorTransaction]:
    rows = await connection.fetch(
        f"SELECT {_TRANSACTION} FROM record.anchor_transactions "  # noqa: S608  texts of this module only
        "WHERE chain_id = $1 AND address = $2 AND nonce >= $3 ORDER BY nonce, attempt LIMIT $4",
        chain_id,
        address,
        from_nonce,
        limit,
    )
    return [AnchorTransaction(*row) for row in rows]


async def read_open(connection: Connection, chain_id: int, contract: bytes, limit: int) -> list[OpenAnchor]:
    """Only the anchor itself changes any of it, so three statements tell one story."""
    rows = await connection.fetch(_OPEN, chain_id, contract, limit)
    numbers = [row[0] for row in rows]
    transactions: dict[int, list[AnchorTransaction]] = defaultdict(list)
    for row in await connection.fetch(_THEIR_TRANSACTIONS, numbers):
        transaction = AnchorTransaction(*row)
        assert transaction.anchor_number is not None, "it was found by it"
        transactions[transaction.anchor_number].append(transaction)
    single = [row[0] for row in rows if row[3] == "single"]
    commitments = {row[0]: Commitment(*row[1:]) for row in await connection.fetch(_THEIR_COMMITMENTS, single)}
    return [
        OpenAnchor(
            Anchor(*row[:_ANCHOR_WIDTH]),
            AnchorTransition(*row[_ANCHOR_WIDTH:]),
            transactions[row[0]],
            commitments.get(row[0]),
        )
        for row in rows
    ]


async def read_backlog(connection: Connection, limit: int) -> Backlog:
    batches = []
    for row in await connection.fetch(_WAITING, limit):
        road, requested, previous, end, chain_id, contract = row[_COMMITMENT_WIDTH:]
        place = None if contract is None else (chain_id, contract)
        commitment = Commitment(*row[:_COMMITMENT_WIDTH])
        batches.append(WaitingBatch(commitment, road, requested, previous, end or 0, place))
    counted = await connection.fetchrow(_WAITING_COUNT)
    assert counted is not None, "it counts"
    waiting, oldest, now_us = counted
    return Backlog(batches, waiting, oldest or 0, now_us)


async def spent_since(connection: Connection, chain_id: int, address: bytes, since_us: int) -> int:
    return int(await connection.fetchval(_SPENT, chain_id, address, since_us))
