"""What the anchor decides, on values: when, with what, for how much, and what comes next."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from actors.anchor_fees import Offer, first_offer, gas_limit, higher_offer, is_affordable
from actors.anchor_lease import Deposed, LeasedJournal
from actors.anchor_policy import choose, is_due
from actors.anchor_steps import (
    Horizon,
    NeedsOperator,
    NotYet,
    live_nonces,
    next_transition,
    submitted,
)
from actors.anchor_tenure import Suspicions
from actors.chain import FeeQuote, TransactionReceipt
from journal.anchor_port import (
    Anchor,
    AnchorTransaction,
    AnchorTransition,
    Backlog,
    Lease,
    OpenAnchor,
    WaitingBatch,
)
from journal.port import Moved
from tests.anchor.memory_chain import CONTRACT, GWEI
from tests.anchor.worlds import ADDRESS, policy, with_fields
from ves.commitments import next_commitment

CAP = 100 * GWEI
SAFE_AT_7 = Horizon(9, 7, 5)
HERE = (5, CONTRACT)


def waiting(store: int, place: int, road: Any = None, *, requested: bool = False) -> WaitingBatch:
    """The ``place``-th commitment (1, 2, 3 …) of a stream."""
    commitment = next_commitment(
        batch_id=bytes([store, place]) * 8,
        tenant_id=b"t" * 16,
        store_id=bytes([store]) * 16,
        merkle_root=b"r" * 32,
        prev_state_root=b"s" * 32,
        sequence_start=place,
        sequence_end=place,
        committed_at_us=0,
    )
    before = bytes([store, place - 1]) * 8 if place > 1 else None
    return WaitingBatch(commitment, road, requested, before, place - 1, HERE if road else None)


def backlog(count: int, age_s: float, *, requested: bool = False) -> Backlog:
    batches = [waiting(1, 1, requested=requested)][:count]
    return Backlog(batches, count, 1, 1 + round(age_s * 1e6))


# When.


@pytest.mark.parametrize(
    ("count", "age_s", "requested", "base_fee", "due"),
    [
        (0, 0, False, GWEI, False),
        (1, 29, False, GWEI, False),
        (1, 30, False, GWEI, True),
        (3, 0, False, GWEI, True),
        (3, 599, False, 11 * GWEI, False),
        (1, 600, False, 11 * GWEI, True),
        (1, 0, True, 11 * GWEI, True),
    ],
)
def test_it_is_due_by_count_age_or_wish_and_dear_gas_is_waited_for(
    count: int, age_s: float, requested: bool, base_fee: int, due: bool
) -> None:
    wanted = policy(fee_target=10 * GWEI)
    assert is_due(wanted, backlog(count, age_s, requested=requested), base_fee, 0) is due


@pytest.mark.parametrize(
    ("spent", "age_s", "due"), [(50, 0, True), (51, 0, False), (51, 599, False), (100, 600, True)]
)
def test_half_a_days_budget_is_left_to_what_is_old(spent: int, age_s: float, due: bool) -> None:
    for asked in (backlog(1, age_s, requested=True), backlog(3, age_s)):
        assert is_due(policy(budget_per_day=100), asked, GWEI, spent) is due


# With what.


def test_on_the_aggregate_road_all_go_together() -> None:
    batches = [waiting(1, 1), waiting(1, 2), waiting(2, 5)]
    chosen = choose("aggregate", batches, *HERE)
    assert chosen is not None
    assert (chosen.road, chosen.batches) == ("aggregate", batches)
    assert choose("single", [], *HERE) is None


@pytest.mark.parametrize(
    ("batches", "road", "first"),
    [
        ([waiting(1, 1)], "single", 0),
        ([waiting(1, 2, "single")], "single", 0),
        ([waiting(1, 2, "aggregate")], "aggregate", 0),
        ([waiting(1, 2)], "aggregate", 0),
        ([waiting(1, 2), waiting(1, 1)], "single", 1),
        ([waiting(1, 3), waiting(1, 2, "aggregate")], "aggregate", 1),
        ([with_fields(waiting(1, 2, "single"), previous_end=0)], "aggregate", 0),
        ([with_fields(waiting(1, 2, "single"), previous_contract=(6, CONTRACT))], "aggregate", 0),
        ([with_fields(waiting(1, 2, "single"), previous_contract=(5, bytes(20)))], "aggregate", 0),
    ],
    ids=[
        *("first", "after single", "after aggregate", "after a report", "before its turn", "two of one"),
        *("after lost numbers", "of another chain", "of another contract"),
    ],
)
def test_on_the_single_road_one_goes_when_its_predecessor_did(
    batches: list[WaitingBatch], road: str, first: int
) -> None:
    chosen = choose("single", batches, *HERE)
    assert chosen is not None
    assert (chosen.road, chosen.batches) == (road, [batches[first]])


# For how much.

WEI = st.integers(0, 200 * GWEI)


@given(WEI, WEI, WEI, WEI)
@settings(derandomize=True, deadline=None)
def test_an_offer_is_never_above_the_cap_and_a_replacement_raises_both(
    fee: int, tip: int, base: int, asked: int
) -> None:
    quote = FeeQuote(base, asked)
    first = first_offer(quote, CAP)
    assert (first is None) == (base > CAP)
    if first is not None:
        assert first.max_priority_fee_per_gas <= first.max_fee_per_gas <= CAP
    last = Offer(fee, min(fee, tip))
    higher = higher_offer(last, quote, CAP)
    if higher is not None:
        assert higher.max_priority_fee_per_gas <= higher.max_fee_per_gas <= CAP
        assert higher.max_fee_per_gas * 8 >= last.max_fee_per_gas * 9
        assert higher.max_priority_fee_per_gas * 8 >= last.max_priority_fee_per_gas * 9
        assert higher.max_fee_per_gas > last.max_fee_per_gas
        assert higher.max_priority_fee_per_gas > last.max_priority_fee_per_gas


def test_an_estimate_gets_a_fifth_on_top_and_an_absurd_one_is_refused() -> None:
    assert gas_limit(100_000) == 120_000
    assert gas_limit(1_700_000) is None


def test_a_budget_may_be_spent_to_the_last_wei() -> None:
    assert is_affordable(7, 3, 10)
    assert not is_affordable(7, 4, 10)


# What comes next.


def transaction(nonce: int, attempt: int = 1) -> AnchorTransaction:
    tx_hash = bytes([nonce, attempt]) * 16
    return AnchorTransaction(1, ADDRESS, nonce, attempt, 1, "anchor", tx_hash, b"", 9, 9, 9, 1000)


def receipt(of: AnchorTransaction, *, succeeded: bool = True, block: int = 7) -> TransactionReceipt:
    return TransactionReceipt(of.tx_hash, succeeded, block, bytes([block]) * 32, 0, 5, 5)


def opened(*transactions: AnchorTransaction, last: AnchorTransition | None = None) -> OpenAnchor:
    anchor = Anchor(1, 1, CONTRACT, "aggregate", 1, b"r" * 32, 0, bytes(32))
    return OpenAnchor(anchor, last or AnchorTransition(1, 1, "pending", "planned"), [*transactions], None)


def steps(anchor: OpenAnchor, *receipts: TransactionReceipt, horizon: Horizon = SAFE_AT_7) -> list[str]:
    """The states that follow, until nothing does."""
    found = []
    by_hash = {one.tx_hash: one for one in receipts}
    while (step := next_transition(anchor, by_hash, horizon)) is not None:
        found.append(step.state)
        assert step.transition_number == anchor.last.transition_number + 1
        anchor = OpenAnchor(anchor.anchor, step, anchor.transactions, None)
        assert len(found) < 9
    return found


def test_a_receipt_moves_it_as_far_as_block_numbers_say() -> None:
    first = transaction(0)
    anchor = opened(first)
    assert steps(anchor) == []
    assert steps(anchor, receipt(first, block=8)) == ["included"]
    assert steps(anchor, receipt(first, block=7)) == ["included", "safe"]
    assert steps(anchor, receipt(first, block=5)) == ["included", "safe", "finalized"]
    assert steps(anchor, receipt(first, block=5), horizon=Horizon(9, None, None)) == ["included"]
    assert steps(anchor, receipt(first, block=5), horizon=Horizon(9, None, 5))[-1] == "finalized"


def test_any_attempt_that_succeeded_counts() -> None:
    first, second, third = transaction(0), transaction(0, 2), transaction(1)
    anchor = opened(first, second, third)
    assert steps(anchor, receipt(first, block=8)) == ["included"]
    assert steps(anchor, receipt(first, block=8), receipt(third, succeeded=False, block=9)) == ["included"]


def test_a_revert_is_written_once_and_an_old_one_not_again() -> None:
    first, second = transaction(0), transaction(1)
    refused = receipt(first, succeeded=False)
    anchor = opened(first)
    assert steps(anchor, refused) == ["pending"]
    step = next_transition(anchor, {first.tx_hash: refused}, SAFE_AT_7)
    assert step is not None
    again = opened(first, second, last=submitted(step, second.tx_hash))
    assert steps(again, refused) == []
    assert steps(again, refused, receipt(second, succeeded=False, block=8)) == ["pending"]


def test_a_revert_whose_block_is_gone_is_taken_back() -> None:
    first = transaction(0)
    refused = receipt(first, succeeded=False)
    step = next_transition(opened(first), {first.tx_hash: refused}, SAFE_AT_7)
    assert step is not None
    gone = next_transition(opened(first, last=step), {}, SAFE_AT_7)
    assert gone is not None
    assert (gone.state, gone.cause, gone.gas_used) == ("pending", "reorganised", None)


def test_what_no_block_uses_is_live_in_order_and_young_when_it_just_lost_its_block() -> None:
    taken_back = AnchorTransition(1, 4, "pending", "reorganised", at_us=5000)
    transactions = [transaction(2), transaction(3), transaction(3, 2), transaction(4)]
    anchor = opened(*transactions, last=taken_back)
    mined = {transactions[0].tx_hash: receipt(transactions[0])}
    live = live_nonces(transactions, [anchor], mined)
    assert [[one.attempt for one in each.attempts] for each in live] == [[1, 2], [1]]
    assert [each.since_us for each in live] == [5000, 5000]


async def test_what_does_not_fit_stops_when_it_was_so_at_every_look_for_long_enough(
    autojump_clock: MockClock,
) -> None:
    suspicions = Suspicions(10.0)
    kinds = []
    for fits in (False, False, True, False, False, False, False):
        suspicions.next_look()
        if not fits:
            kinds.append(type(suspicions.suspect("account used elsewhere", "")))
        await trio.sleep(4)
    assert kinds == [NotYet] * 5 + [NeedsOperator]


async def test_a_write_that_stored_nothing_is_the_end_of_the_tenure() -> None:
    class Elsewhere:
        async def move(self, *_: Any) -> Moved:
            return Moved("the lease")

    leased = LeasedJournal(Elsewhere(), Lease(b"h" * 16, 1), lease_s=20)  # type: ignore[arg-type]
    with pytest.raises(Deposed):
        await leased.move(AnchorTransition(1, 2, "pending"))
