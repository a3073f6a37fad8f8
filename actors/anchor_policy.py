"""When the anchor acts and with which commitments: decided here, from values alone.

Anchoring costs money, so commitments wait until there are many or one is old; while gas is dear they wait
longer, up to a bound; those somebody asked for wait for nothing. Which road a commitment goes is decided once
and for its whole stream: a stream that is on the aggregate road stays there, because the contract's single
road takes only the range that follows the last one it took. Sends nothing, reads nothing, knows no clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from journal.anchor_port import Anchor, Backlog, PlannedBatch, Road, Standing, WaitingBatch
from ves.anchoring import AGGREGATE_LEAVES_MAX, aggregate_root, anchor_leaf
from ves.constants import ZERO_HASH
from ves.records import Uuid


@dataclass(frozen=True)
class AnchorPolicy:
    """What the operator wants: the ANCHOR_* settings, amounts in wei."""

    contract: bytes
    """20 bytes."""
    road: Road
    batch_threshold: int
    interval_s: float
    fee_target: int | None
    """Base fee per gas above which commitments wait until they are ``age_max_s`` old; None: at any fee."""
    age_max_s: float
    fee_cap: int
    """The most that is ever offered per gas."""
    budget_per_day: int
    stuck_s: float
    finality: Literal["tags", "depth"]
    confirmations: int
    poll_s: float
    lease_s: float


def is_due(policy: AnchorPolicy, backlog: Backlog, base_fee: int, spent_today: int) -> bool:
    """``backlog``: its first batch is enough, because requested ones come first. Whoever is in a hurry may
    spend half of what a day may cost, so that nobody's hurry keeps the others waiting for the next day."""
    if not backlog.batches:
        return False
    age_s = (backlog.now_us - backlog.oldest_committed_at_us) / 1e6
    if age_s >= policy.age_max_s:
        return True
    if 2 * spent_today > policy.budget_per_day:
        return False
    if backlog.batches[0].requested:
        return True
    if policy.fee_target is not None and base_fee > policy.fee_target:
        return False
    return backlog.waiting >= policy.batch_threshold or age_s >= policy.interval_s


class Chosen(msgspec.Struct, frozen=True):
    road: Road
    batches: list[WaitingBatch]
    """One on the single road; at most AGGREGATE_LEAVES_MAX."""


def choose(mode: Road, waiting: Sequence[WaitingBatch], chain_id: int, contract: bytes) -> Chosen | None:
    """What the next anchor of this contract holds. On the single road whatever comes first goes alone; those
    on the aggregate road go together. A commitment whose predecessor waits, too, on a road that is not
    decided yet, comes after it: None only when there is nothing at all."""
    present = {batch.commitment.batch_id for batch in waiting}
    roads = [(batch, _road(mode, batch, present, (chain_id, contract))) for batch in waiting]
    for batch, road in roads:
        if road == "single":
            return Chosen("single", [batch])
        if road == "aggregate":
            together = [other for other, theirs in roads if theirs == "aggregate"]
            return Chosen("aggregate", together[:AGGREGATE_LEAVES_MAX])
    return None


def _road(mode: Road, batch: WaitingBatch, present: set[Uuid], here: tuple[int, bytes]) -> Road | None:
    """None: only when its predecessor, which waits, has one. The single road is for what the contract takes
    there, or one commitment would keep all others waiting for ever: nothing after a gap (numbers that were
    lost), and nothing of a stream that began at another contract."""
    if mode == "aggregate" or batch.commitment.sequence_start != batch.previous_end + 1:
        return "aggregate"
    if batch.previous_batch_id is None or batch.previous_road == "single":
        return "single" if batch.previous_contract in (None, here) else "aggregate"
    # Its predecessor waits, or is on the aggregate road, or was put on a chain by others.
    return None if batch.previous_batch_id in present else "aggregate"


def plan(
    chosen: Chosen, standing: Standing, chain_id: int, contract: bytes
) -> tuple[Anchor, list[PlannedBatch]]:
    """The anchor that comes after ``standing``, and its batches in order."""
    if chosen.road == "single":
        return _plan_single(chosen.batches[0], standing, chain_id, contract)
    batches = [
        PlannedBatch(batch.commitment.batch_id, anchor_leaf(chain_id, contract, batch.commitment))
        for batch in chosen.batches
    ]
    anchor = Anchor(
        anchor_number=standing.next_anchor_number,
        chain_id=chain_id,
        contract=contract,
        road="aggregate",
        batch_count=len(batches),
        root=aggregate_root([batch.leaf for batch in batches]),
        first_index=standing.next_index,
        previous_head=standing.head,
    )
    return anchor, batches


def _plan_single(
    batch: WaitingBatch, standing: Standing, chain_id: int, contract: bytes
) -> tuple[Anchor, list[PlannedBatch]]:
    anchor = Anchor(
        anchor_number=standing.next_anchor_number,
        chain_id=chain_id,
        contract=contract,
        road="single",
        batch_count=1,
        root=batch.commitment.merkle_root,
        first_index=None,
        previous_head=None,
    )
    return anchor, [PlannedBatch(batch.commitment.batch_id, ZERO_HASH)]
