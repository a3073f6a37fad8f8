"""What the journal asks of the anchor's writes, decided on values: PostgreSQL and memory keep the same rules.

Somebody was there first: answered with what moved. A mistake of the anchor's own: ValueError. Where nothing
is wrong, None.
"""

from __future__ import annotations

from journal.anchor_port import Anchor, AnchorTransaction, AnchorTransition, PlannedBatch, Standing
from journal.anchor_rows import ON_A_BLOCK
from ves.anchor_records import Inclusion
from ves.anchoring import aggregate_head
from ves.constants import ZERO_HASH

PLANNED = "planned"


def standing_after(
    *,
    next_nonces: list[int],
    last_aggregate: Anchor | None,
    resumed_index: int | None,
    resumed_head: bytes,
    anchors: int,
    resumed_nonce: int | None,
) -> Standing:
    """``next_nonces``: what follows the last transaction, and what an operator said; the greater counts.
    ``last_aggregate`` and ``resumed_index``: of this contract, the farthest of each kind."""
    index, head = 0, ZERO_HASH
    if last_aggregate is not None:
        first, previous = last_aggregate.first_index, last_aggregate.previous_head
        assert first is not None, "an aggregate has one"
        assert previous is not None, "an aggregate has one"
        index = first + last_aggregate.batch_count
        head = aggregate_head(previous, last_aggregate.root, first, last_aggregate.batch_count)
    if resumed_index is not None and resumed_index >= index:
        index, head = resumed_index, resumed_head
    return Standing(max(next_nonces, default=None), index, head, anchors + 1, resumed_nonce or 0)


def check_plan(anchor: Anchor, batches: list[PlannedBatch]) -> None:
    aggregate = anchor.road == "aggregate"
    if (anchor.first_index is not None, anchor.previous_head is not None) != (aggregate, aggregate):
        raise ValueError("first_index and previous_head are an aggregate's, and an aggregate has them")
    if len(batches) != anchor.batch_count or not batches:
        raise ValueError("batch_count is another number than that of the batches")
    if not aggregate and len(batches) != 1:
        raise ValueError("the single road takes one batch")
    if len({batch.batch_id for batch in batches}) != len(batches):
        raise ValueError("a batch is planned twice")


def plan_moved(anchor: Anchor, standing: Standing) -> str | None:
    if anchor.anchor_number != standing.next_anchor_number:
        return "the anchor's number"
    place = (anchor.first_index, anchor.previous_head)
    if anchor.road == "aggregate" and place != (standing.next_index, standing.head):
        return "the contract's index or head"
    return None


def transaction_moved(
    transaction: AnchorTransaction, last_attempt: AnchorTransaction | None, next_nonce: int | None
) -> str | None:
    """``last_attempt``: the newest of its nonce."""
    if last_attempt is None:
        if next_nonce is not None and transaction.nonce < next_nonce:
            return "the nonce"
        if next_nonce is not None and transaction.nonce > next_nonce:
            raise ValueError(f"nonce {transaction.nonce} leaves a gap: the next one is {next_nonce}")
        if transaction.attempt != 1:
            raise ValueError(f"attempt {transaction.attempt} of a nonce that has none")
        return None
    if transaction.attempt <= last_attempt.attempt:
        return "the attempt"
    if transaction.attempt > last_attempt.attempt + 1:
        raise ValueError(f"attempt {transaction.attempt} leaves a gap after {last_attempt.attempt}")
    if transaction.anchor_number != last_attempt.anchor_number:
        raise ValueError("an attempt carries what the one carries that it replaces")
    return None


def check_transition(transition: AnchorTransition, inclusion: Inclusion | None) -> None:
    block = (transition.block_number, transition.block_hash)
    told = (*block, transition.gas_used, transition.effective_gas_price)
    on_a_block = transition.state in ON_A_BLOCK
    if transition.state != "pending" and transition.tx_hash is None:
        raise ValueError(f"{transition.state} without a transaction")
    if on_a_block and None in told:
        raise ValueError(f"{transition.state} without its block and what it cost")
    if inclusion is not None and (not on_a_block or (inclusion.block_number, inclusion.block_hash) != block):
        raise ValueError("the inclusion is of another block")


def transition_moved(transition: AnchorTransition, last: AnchorTransition) -> str | None:
    if last.state == "finalized":
        return "the anchor: it is finalized"
    return None if transition.transition_number == last.transition_number + 1 else "the anchor's transitions"


def check_resumption(standing: Standing, wanted: Standing) -> None:
    if wanted.next_nonce is None:
        raise ValueError("next_nonce has to be named")
    if wanted.next_nonce < (standing.next_nonce or 0):
        raise ValueError(f"next_nonce {wanted.next_nonce} is behind the journal's {standing.next_nonce}")
    if wanted.next_index < standing.next_index:
        raise ValueError(f"next_index {wanted.next_index} is behind the journal's {standing.next_index}")
