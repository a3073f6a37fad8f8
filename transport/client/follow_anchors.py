"""Watching how commitments reach the chain: forward only, never back from final, and not too late.

The server's word is compared with its earlier word; the chain itself is asked through ``ChainView`` when a
commitment is first called final, and for a random one of those at each look. Watches
the oldest ANCHORS_MAX that are not final.
"""

from __future__ import annotations

from typing import Protocol

from transport.client.errors import ClientError
from transport.client.follow_memory import AnchorKept
from transport.client.follow_view import Look, Shown, View, told
from transport.client.wire import encode
from ves.encoding import uuid_text
from ves.following import FINALIZED, AnchorSeen, Contradiction, Verified, anchor_fell, judge_anchor, name_of
from ves.records import Commitment

ANCHORS_MAX = 1000


class AnchorUnproven(ClientError):
    """A commitment is called final, and the server gives no evidence that a chain could be asked with."""


class NotFinalThere(ClientError):
    """A commitment is called final, and the chain has its block and does not call it final yet."""


class ChainView(Protocol):
    """What a chain says, asked by us."""

    async def contradiction(self, verified: Verified) -> tuple[Contradiction, bytes] | None:
        """Of a commitment that the server says is final, and what it showed for it. None: the chain holds
        exactly what was verified, and calls it final if it calls anything so. AnchorUnproven; NotFinalThere;
        Unanswered: no endpoint answered."""
        ...


class Anchors:
    """The anchors of one stream's commitments."""

    def __init__(self, view: View, chain: ChainView | None, within_s: float | None) -> None:
        self._view = view
        self._state = view.memory.state
        self._chain = chain
        self._within_s = within_s

    async def look(self, page: list[Shown], found: Look) -> None:
        """``page``: from the first commitment on whose anchor was not seen final; still what they were."""
        for index, shown in enumerate(page, self._state.finalized_through):
            kept = self._view.memory.at(index)
            now = await self._look_at(kept, shown, found)
            if now.state == FINALIZED and index == self._state.finalized_through:
                self._state.finalized_through = index + 1
                self._state.anchors.pop(uuid_text(kept.commitment.batch_id), None)

    async def still_final(self, kept: Verified, shown: Shown, found: Look) -> None:
        """Of one that was seen final; the chain still holds it, too."""
        self._judge(kept.commitment, AnchorSeen(FINALIZED), _seen(shown), shown)
        if self._chain is not None:
            await self._is_proven(kept, found)

    async def _look_at(self, kept: Verified, shown: Shown, found: Look) -> AnchorSeen:
        batch_id = uuid_text(kept.commitment.batch_id)
        before, now = self._state.anchors.get(batch_id), _seen(shown)
        was = AnchorSeen() if before is None else before.seen()
        self._judge(kept.commitment, was, now, shown)
        if anchor_fell(was, now):
            cause = shown.wire.anchor.cause if shown.wire.anchor is not None else None
            found.notices.append(
                f"{name_of(kept.commitment)}: its anchor was {was.state} and is {now.state or 'gone'} now, "
                f"or in another block: {cause or 'no cause is given'}"
            )
        if now.state == FINALIZED and was.state != FINALIZED and not await self._is_proven(kept, found):
            now = was  # asked about again at the next look
        since_s = self._waiting_since(kept.commitment) if before is None else before.since_s
        self._tell_if_late(kept.commitment, now, since_s, found)
        if now.state or self._within_s is not None:
            self._state.anchors[batch_id] = AnchorKept(
                now.state, now.tx_hash, now.block_number, now.block_hash, since_s=since_s
            )
        return now

    def _judge(self, of: Commitment, before: AnchorSeen, now: AnchorSeen, shown: Shown) -> None:
        wrong = judge_anchor(of, before, now)
        if wrong is not None:
            raise self._view.contradicted(wrong, encode(before), shown.raw)

    def _waiting_since(self, commitment: Commitment) -> int:
        return int(min(self._view.now().timestamp(), commitment.committed_at_us / 1_000_000))

    def _tell_if_late(self, commitment: Commitment, now: AnchorSeen, since_s: int, found: Look) -> None:
        waits_s = self._view.now().timestamp() - since_s
        if self._within_s is not None and now.state != FINALIZED and waits_s > self._within_s:
            found.alerts.append(
                f"anchor_late: {name_of(commitment)} waits for {waits_s:.0f} s and its anchor is not final: "
                f"{now.state or 'no anchor holds it'}"
            )

    async def _is_proven(self, kept: Verified, found: Look) -> bool:
        """By the chain, where there is one to ask; False: not yet, or nobody could be asked: it was told."""
        if self._chain is None:
            found.not_on_chain += 1
            return True
        try:
            wrong = await self._chain.contradiction(kept)
        except AnchorUnproven as unproven:
            found.alerts.append(f"anchor_unproven: {unproven}")
            return False
        except NotFinalThere as early:
            found.notices.append(str(early))
            return False
        if wrong is not None:
            raise self._view.contradicted(wrong[0], told(kept), wrong[1])
        found.on_chain += 1
        return True


def _seen(shown: Shown) -> AnchorSeen:
    anchor = shown.wire.anchor
    if anchor is None:
        return AnchorSeen()
    return AnchorSeen(anchor.state, anchor.tx_hash, anchor.block_number, anchor.block_hash)
