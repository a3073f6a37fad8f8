"""Follows the open anchors on the chain and writes down what became of each: included, safe, final, gone.

It alone moves an anchor that was sent. Every claim it writes is checked once more against the chain right
before: an inclusion with its proof, finality with the block that stands at that number then. Sends nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import structlog

from actors.anchor_lease import LeasedJournal
from actors.anchor_steps import (
    ON_CHAIN,
    REORGANISED,
    REVERTED,
    Horizon,
    calldata_of,
    next_transition,
    with_reason,
)
from actors.anchor_vitals import AnchorVitals
from actors.chain import Chain, Reverted, TransactionReceipt
from actors.faults import checkpoint
from journal.anchor_port import AnchorTransition, OpenAnchor
from ves.anchor_records import Inclusion

STEPS_MAX = 6
"""A way back and all the way up again takes five."""

log = structlog.get_logger(__name__)


class Follower:
    """``alarm``: told of a transaction that the contract refused, with what an operator wants to know."""

    def __init__(
        self, *, journal: LeasedJournal, chain: Chain, vitals: AnchorVitals, alarm: Callable[[str], None]
    ) -> None:
        self._journal = journal
        self._chain = chain
        self._vitals = vitals
        self._alarm = alarm
        self.mined: dict[bytes, TransactionReceipt] = {}
        """What this look found in blocks, by hash."""

    async def look(self, anchors: list[OpenAnchor], horizon: Horizon, now_us: int) -> list[OpenAnchor]:
        """As they stand now, without those that have become final. ``now_us``: by the database's clock."""
        self.mined = {}
        found = [await self._follow(anchor, horizon, now_us) for anchor in anchors]
        return [anchor for anchor in found if anchor.last.state != "finalized"]

    async def _follow(self, anchor: OpenAnchor, horizon: Horizon, now_us: int) -> OpenAnchor:
        await self._journal.keep()
        await self._find_receipts(anchor)
        for _ in range(STEPS_MAX):
            transition = next_transition(anchor, self.mined, horizon)
            if transition is None or not await self._write(anchor, transition):
                break
            anchor = moved(anchor, msgspec.structs.replace(transition, at_us=now_us))
        return anchor

    async def _find_receipts(self, anchor: OpenAnchor) -> None:
        """Of all its transactions; of the one on record alone, where that is still in its block."""
        last = anchor.last
        if last.state in ON_CHAIN and last.tx_hash is not None:
            receipt = await self._receipt(last.tx_hash)
            if receipt is not None and receipt.block_hash == last.block_hash:
                return
        for transaction in anchor.transactions:
            await self._receipt(transaction.tx_hash)

    async def _receipt(self, tx_hash: bytes) -> TransactionReceipt | None:
        receipt = await self._chain.receipt(tx_hash)
        if receipt is not None:
            self.mined[tx_hash] = receipt
        return receipt

    async def _write(self, anchor: OpenAnchor, transition: AnchorTransition) -> bool:
        """False: the chain has changed since we looked, or does not show it; the next tick looks again."""
        inclusion = None
        if transition.state == "included":
            assert transition.tx_hash is not None
            inclusion = await self._chain.inclusion(self.mined[transition.tx_hash])
            if inclusion is None:
                return False
        elif transition.state in ON_CHAIN:
            if not await self._still_there(transition):
                return False
        elif transition.cause == REVERTED:
            transition = with_reason(transition, await self._why(anchor, transition))
        await self._move(transition, inclusion)
        return True

    async def _move(self, transition: AnchorTransition, inclusion: Inclusion | None) -> None:
        await self._journal.move(transition, inclusion)
        if transition.state in ON_CHAIN:
            checkpoint(f"anchor.{transition.state}")
        elif transition.cause == REORGANISED:
            self._vitals.reorganised += 1
        else:
            self._vitals.reverted += 1
            self._alarm(f"anchor {transition.anchor_number} was {transition.cause}")
        log.info(
            "anchor moved",
            anchor_number=transition.anchor_number,
            state=transition.state,
            cause=transition.cause,
            block_number=transition.block_number,
        )

    async def _still_there(self, transition: AnchorTransition) -> bool:
        assert transition.block_number is not None
        block = await self._chain.block(transition.block_number)
        return block is not None and block.block_hash == transition.block_hash

    async def _why(self, anchor: OpenAnchor, transition: AnchorTransition) -> str:
        """By running it again where it ran, and on the state right before."""
        (transaction,) = [t for t in anchor.transactions if t.tx_hash == transition.tx_hash]
        if transition.gas_used == transaction.gas_limit:
            return "out of gas"
        assert transition.block_number is not None
        data, to = calldata_of(anchor), anchor.anchor.contract
        for block in (transition.block_number, transition.block_number - 1):
            answer = await self._chain.call(to, data, sender=transaction.address, block=block)
            if isinstance(answer, Reverted):
                return answer.reason
        return "the chain does not say why"


def moved(anchor: OpenAnchor, last: AnchorTransition) -> OpenAnchor:
    return OpenAnchor(anchor.anchor, last, anchor.transactions, anchor.commitment)
