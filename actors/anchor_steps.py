"""One open anchor and what the chain says of it: what is to be written down, sent again, offered more for.

The same answer whoever asks, however often, and after whatever crash: everything comes from rows and the
chain, nothing from memory. Whether a transaction succeeded, only a receipt in the present chain says; that it
stays there, only a block number that is final. Talks to nobody, writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from actors.anchor_policy import AnchorPolicy
from actors.chain import Block, TransactionReceipt
from journal.anchor_port import AnchorState, AnchorTransaction, AnchorTransition, OpenAnchor, Standing
from ves import anchor_calls

ON_CHAIN = ("included", "safe", "finalized")
REORGANISED = "reorganised"
REVERTED = "reverted: "
_CAUSE_MAX = 300

TroubleKind = Literal[
    "chain away",
    "chain lies",
    "another chain",
    "database away",
    "signer away",
    "signer refuses",
    "contract refuses",
    "account too poor",
    "pool refuses",
    "fees above the cap",
    "budget spent",
    "nonce behind",
    "account used elsewhere",
    "contract stands elsewhere",
    "no contract",
    "finalized anchor gone",
]


class Trouble(msgspec.Struct, frozen=True):
    kind: TroubleKind
    text: str
    """For the operator: what is so, and what helps."""


class NotYet(Exception):
    """Nothing is sent now; looked at again at the next tick."""

    def __init__(self, kind: TroubleKind, text: str) -> None:
        super().__init__(text)
        self.trouble = Trouble(kind, text)


class NeedsOperator(NotYet):
    """Nothing is sent until a person has looked at it."""


NOT_AUTHORISED = "Not authorized"


def refusal(reason: str, address: bytes) -> str:
    """What the contract would say to ``address``, and what helps."""
    remedies = {
        NOT_AUTHORISED: f"; let its owner call setSequencer(0x{address.hex()}, true)",
        "Paused": "; its owner can call unpause()",
    }
    return f"the contract would refuse: {reason}{remedies.get(reason, '')}"


# What became of it.


class Horizon(msgspec.Struct, frozen=True):
    """Numbers of the newest block, and of the newest safe and final ones. None: the chain does not say."""

    latest: int
    safe: int | None
    finalized: int | None


def horizon_of(policy: AnchorPolicy, latest: int, safe: Block | None, finalized: Block | None) -> Horizon:
    """By depth, a block has one confirmation when it is the latest one."""
    if policy.finality == "tags":
        numbers = [None if block is None else block.number for block in (safe, finalized)]
        return Horizon(latest, *numbers)
    half = -(-policy.confirmations // 2)
    return Horizon(latest, latest - half + 1, latest - policy.confirmations + 1)


Receipts = Mapping[bytes, TransactionReceipt]
"""By hash: those of an anchor's transactions that blocks of the present chain include."""


def next_transition(anchor: OpenAnchor, receipts: Receipts, horizon: Horizon) -> AnchorTransition | None:
    """The next row to write; asked again after each, until None. A revert's cause is ``REVERTED`` alone: why,
    only the chain can say."""
    last, success = anchor.last, succeeded(anchor, receipts)
    if last.state in ON_CHAIN:
        if success is None or (success.tx_hash, success.block_hash) != (last.tx_hash, last.block_hash):
            return _taken_back(last)
        return _risen(last, horizon)
    if success is not None:
        return _in_block(last, "included", success)
    if last.gas_used is not None and last.tx_hash not in receipts:  # it was refused in a block that is gone
        return _taken_back(last)
    failure = _failed(anchor, receipts)
    if failure is None or (last.state, last.block_hash, last.tx_hash) == (
        "pending",
        failure.block_hash,
        failure.tx_hash,
    ):
        return None
    return _in_block(last, "pending", failure, cause=REVERTED)


def succeeded(anchor: OpenAnchor, receipts: Receipts) -> TransactionReceipt | None:
    """The contract lets at most one of them."""
    found = [receipts[t.tx_hash] for t in anchor.transactions if t.tx_hash in receipts]
    return next((receipt for receipt in found if receipt.succeeded), None)


def _failed(anchor: OpenAnchor, receipts: Receipts) -> TransactionReceipt | None:
    """Of the newest nonce: older ones failed before it was signed, and are written down."""
    newest = anchor.transactions[-1].nonce if anchor.transactions else None
    ours = [t.tx_hash for t in anchor.transactions if t.nonce == newest]
    return next((receipts[tx_hash] for tx_hash in ours if tx_hash in receipts), None)


def _risen(last: AnchorTransition, horizon: Horizon) -> AnchorTransition | None:
    if last.state == "included" and _reached(last.block_number, horizon.safe, horizon.finalized):
        return _after(last, "safe")
    if last.state == "safe" and _reached(last.block_number, horizon.finalized):
        return _after(last, "finalized")
    return None


def _reached(number: int | None, *horizons: int | None) -> bool:
    return number is not None and any(number <= horizon for horizon in horizons if horizon is not None)


def _after(last: AnchorTransition, state: AnchorState) -> AnchorTransition:
    """In the same block."""
    number = last.transition_number + 1
    return msgspec.structs.replace(last, transition_number=number, state=state, cause=None, at_us=0)


def _taken_back(last: AnchorTransition) -> AnchorTransition:
    """With where it was; what it cost is not known again."""
    return msgspec.structs.replace(
        _after(last, "pending"), cause=REORGANISED, gas_used=None, effective_gas_price=None
    )


def _in_block(
    last: AnchorTransition, state: AnchorState, receipt: TransactionReceipt, *, cause: str | None = None
) -> AnchorTransition:
    return AnchorTransition(
        anchor_number=last.anchor_number,
        transition_number=last.transition_number + 1,
        state=state,
        cause=cause,
        tx_hash=receipt.tx_hash,
        block_number=receipt.block_number,
        block_hash=receipt.block_hash,
        gas_used=receipt.gas_used,
        effective_gas_price=receipt.effective_gas_price,
    )


def submitted(last: AnchorTransition, tx_hash: bytes) -> AnchorTransition:
    number = last.transition_number + 1
    return AnchorTransition(last.anchor_number, number, "submitted", tx_hash=tx_hash)


def with_reason(transition: AnchorTransition, reason: str) -> AnchorTransition:
    return msgspec.structs.replace(transition, cause=(REVERTED + reason)[:_CAUSE_MAX])


# What is to be sent.


class Live(msgspec.Struct, frozen=True):
    """A nonce that no block has used yet."""

    attempts: list[AnchorTransaction]
    since_us: int
    """When its last attempt was signed, given to the chain or lost its block."""


def live_nonces(
    transactions: Iterable[AnchorTransaction], anchors: Iterable[OpenAnchor], mined: Receipts
) -> list[Live]:
    """In order. ``transactions``: all of the account from the chain's next nonce on, which was read before
    ``mined``: that may know of more."""
    moved_at = {anchor.anchor.anchor_number: anchor.last.at_us for anchor in anchors}
    by_nonce: dict[int, list[AnchorTransaction]] = {}
    for transaction in transactions:
        by_nonce.setdefault(transaction.nonce, []).append(transaction)
    return [
        Live(attempts, max(attempts[-1].signed_at_us, moved_at.get(attempts[-1].anchor_number or 0, 0)))
        for _, attempts in sorted(by_nonce.items())
        if not any(attempt.tx_hash in mined for attempt in attempts)
    ]


def is_stuck(live: Live, now_us: int, stuck_s: float) -> bool:
    return now_us - live.since_us >= stuck_s * 1e6


def next_unsent(anchors: Sequence[OpenAnchor]) -> OpenAnchor | None:
    """With no nonce live: the first that is in no block, which needs a transaction under a new nonce."""
    return next((anchor for anchor in anchors if anchor.last.state not in ON_CHAIN), None)


def is_taken_by_others(anchor: OpenAnchor, next_nonce: int, mined: Receipts, standing: Standing) -> bool:
    """Blocks use its last nonce, but for none of the transactions we signed, and no operator knows of it."""
    if not anchor.transactions or anchor.transactions[-1].nonce < standing.resumed_nonce:
        return False
    nonce = anchor.transactions[-1].nonce
    ours = [t.tx_hash for t in anchor.transactions if t.nonce == nonce]
    return nonce < next_nonce and not any(tx_hash in mined for tx_hash in ours)


def expected_on_contract(anchors: Iterable[OpenAnchor], standing: Standing) -> tuple[int, bytes]:
    """(aggregatedCount, aggregateHead) when no transaction of ours is under way."""
    for open_anchor in anchors:
        anchor = open_anchor.anchor
        if open_anchor.last.state not in ON_CHAIN and anchor.road == "aggregate":
            assert anchor.first_index is not None
            assert anchor.previous_head is not None
            return anchor.first_index, anchor.previous_head
    return standing.next_index, standing.head


def calldata_of(open_anchor: OpenAnchor) -> bytes:
    """The same for every attempt, ever."""
    anchor = open_anchor.anchor
    if anchor.road == "single":
        assert open_anchor.commitment is not None
        return anchor_calls.anchor(open_anchor.commitment)
    assert anchor.first_index is not None
    return anchor_calls.anchor_many(anchor.root, anchor.batch_count, anchor.first_index)
