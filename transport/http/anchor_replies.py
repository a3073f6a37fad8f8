"""What a commitment's anchor looks like on the wire: states, hashes, confirmations, cost. It asks nobody.

Heights come from the anchor's own looks at the chain; a node that does not look knows none, and says so.
"""

from __future__ import annotations

from typing import Any, Literal

from actors.anchor_vitals import Anchoring
from journal.port import CommitmentAnchor
from transport.http.anchor_shapes import AnchoredReply, State
from transport.http.anchor_waits import IN_A_BLOCK, SETTLED
from transport.http.replies import commitment_members
from transport.http.shapes import AnchoredCommitmentReply, CommitmentAnchorReply
from ves.encoding import prefixed_hex, uuid_text
from ves.records import Commitment
from ves.timestamps import zulu_text

LOCAL_CHAIN = "this chain is the sequencer's own, on its machine: no third party witnesses it"

_MEANS: dict[State, str] = {
    "waiting": "no anchor holds it yet; the next one takes it",
    "pending": "an anchor holds it; nothing of it is on the chain",
    "submitted": "its transaction was given to the chain; no block includes it yet",
    "included": "a block includes it, which a reorganisation can still take back: not final",
    "safe": "in a block that the chain calls safe: not final yet",
    "finalized": "in a block that is final",
    "reported": "somebody else reported that it is anchored; nobody here has verified it",
}


def anchored_commitment_reply(
    commitment: Commitment, anchor: CommitmentAnchor | None, anchoring: Anchoring | None
) -> AnchoredCommitmentReply:
    return AnchoredCommitmentReply(**commitment_members(commitment), **chain_members(anchor, anchoring))


def chain_members(anchor: CommitmentAnchor | None, anchoring: Anchoring | None) -> dict[str, Any]:
    """The chain's part of a commitment; empty, for null, without an anchor."""
    if anchor is None:
        return {}
    sent = anchor.tx_hash is not None
    return {
        "is_anchored": anchor.state in SETTLED,
        "chain_id": anchor.chain_id if sent else None,
        "chain_tx_hash": anchor.tx_hash.hex() if anchor.tx_hash is not None else None,
        "chain_block_number": anchor.block_number,
        "anchored_at": zulu_text(anchor.since_us) if anchor.state == "finalized" else None,
        "anchor": _anchor_reply(anchor, anchoring),
    }


def _anchor_reply(anchor: CommitmentAnchor, anchoring: Anchoring | None) -> CommitmentAnchorReply:
    return CommitmentAnchorReply(
        state=anchor.state,
        since=zulu_text(anchor.since_us),
        cause=anchor.cause,
        road=anchor.road,
        chain_id=anchor.chain_id,
        contract=None if anchor.contract is None else prefixed_hex(anchor.contract),
        local_chain=is_local(anchor.chain_id, anchoring),
        tx_hash=None if anchor.tx_hash is None else anchor.tx_hash.hex(),
        block_number=anchor.block_number,
        block_hash=None if anchor.block_hash is None else anchor.block_hash.hex(),
        confirmations=confirmations(anchor, anchoring),
        batch_count=anchor.batch_count,
        position=anchor.position,
        gas_used=anchor.gas_used,
        cost_wei=_cost_share(anchor),
    )


def anchored_reply(
    commitment: Commitment, anchor: CommitmentAnchor | None, anchoring: Anchoring, *, already: bool
) -> AnchoredReply:
    """``already``: it was there before anybody asked."""
    state: State = "waiting" if anchor is None else anchor.state
    told = chain_members(anchor, anchoring)
    chain_id = anchoring.chain.chain_id if anchor is None else anchor.chain_id
    local = is_local(chain_id, anchoring)
    return AnchoredReply(
        batch_id=uuid_text(commitment.batch_id),
        status=_status(state, already=already),
        state=state,
        finalized=state == "finalized",
        message=f"{_MEANS[state]}; {LOCAL_CHAIN}" if local else _MEANS[state],
        local_chain=local,
        chain_id=chain_id,
        chain_tx_hash=told.get("chain_tx_hash"),
        chain_block_number=told.get("chain_block_number"),
        confirmations=None if anchor is None else confirmations(anchor, anchoring),
        merkle_root=commitment.merkle_root.hex(),
        prev_state_root=commitment.prev_state_root.hex(),
        new_state_root=commitment.new_state_root.hex(),
        sequence_start=commitment.sequence_start,
        sequence_end=commitment.sequence_end,
    )


def _status(state: State, *, already: bool) -> Literal["anchored", "already_anchored", "pending", "reported"]:
    if state in IN_A_BLOCK:
        return "already_anchored" if already else "anchored"
    return "reported" if state == "reported" else "pending"


def is_local(chain_id: int, anchoring: Anchoring | None) -> bool | None:
    if anchoring is None or anchoring.chain.chain_id != chain_id:
        return None
    return anchoring.development


def confirmations(anchor: CommitmentAnchor, anchoring: Anchoring | None) -> int | None:
    """Its own block is the first. None without a block of ours, or without a height of that chain."""
    if anchor.block_number is None or anchor.state not in IN_A_BLOCK:
        return None
    if anchoring is None or anchoring.chain.chain_id != anchor.chain_id:
        return None
    latest = anchoring.vitals.latest_block
    return None if latest is None else max(1, latest - anchor.block_number + 1)


def _cost_share(anchor: CommitmentAnchor) -> str | None:
    """Of the transaction's cost, the same for each commitment in it, rounded down."""
    if anchor.gas_used is None or anchor.effective_gas_price is None:
        return None
    return str(anchor.gas_used * anchor.effective_gas_price // anchor.batch_count)
