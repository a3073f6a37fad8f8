"""The contract of the anchor's own port: the fenced lease, the write-ahead, states, what it reads."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
import trio
from anchor_builders import commitments
from anchoring_worlds import (
    ACCOUNT,
    CHAIN,
    CONTRACT,
    FEE_MAX,
    GAS_LIMIT,
    GAS_USED,
    PRICE,
    AnchoringWorld,
    a_transaction,
    a_transition,
    an_inclusion,
)
from journal_builders import AUDIT, uuid

from journal.anchor_port import AnchorJournal, Lease, LeaseHeld, Standing
from journal.anchor_rules import PLANNED
from journal.port import (
    AnchorReport,
    Away,
    JournalAway,
    JournalOutcomeUnknown,
    Moved,
    ReportConflict,
    ReportStored,
    Stored,
)
from ves.anchoring import aggregate_head
from ves.audit import entry_hash, next_audit_commitment

# The lease.


async def test_a_lease_is_one_holders_until_it_runs_out_or_is_released(anchoring: AnchoringWorld) -> None:
    first, second = uuid(), uuid()
    lease = await anchoring.anchor.claim_lease(first, lease_s=0.3)
    assert lease == Lease(first, 1)
    held = await anchoring.other.claim_lease(second, lease_s=60)
    assert isinstance(held, LeaseHeld)
    assert (held.holder, held.epoch) == (first, 1)
    assert held.now_us < held.held_until_us <= held.now_us + 300_000
    assert await anchoring.anchor.renew_lease(lease, lease_s=0.2)
    await trio.sleep(0.25)
    assert await anchoring.other.claim_lease(second, lease_s=60) == Lease(second, 2)
    assert not await anchoring.anchor.renew_lease(lease, lease_s=60)
    await anchoring.anchor.release_lease(lease)
    assert isinstance(await anchoring.anchor.claim_lease(first, lease_s=60), LeaseHeld)
    await anchoring.other.release_lease(Lease(second, 2))
    assert await anchoring.anchor.claim_lease(first, lease_s=60) == Lease(first, 3)
    # A life that lost its memory claims its own again, and the one before is deposed.
    assert await anchoring.anchor.claim_lease(first, lease_s=60) == Lease(first, 4)
    assert not await anchoring.anchor.renew_lease(Lease(first, 3), lease_s=60)
    told = await anchoring.world.journal.anchor_summary()
    assert (told.lease_holder, told.lease_epoch) == (first, 4)
    assert told.lease_held_until_us > told.now_us


async def test_of_many_that_claim_at_once_exactly_one_holds_the_lease(anchoring: AnchoringWorld) -> None:
    for epoch in (1, 2, 3):
        answers: list[Lease | LeaseHeld] = []

        async def claim(journal: AnchorJournal, to: list[Lease | LeaseHeld] = answers) -> None:
            to.append(await journal.claim_lease(uuid(), lease_s=60))

        async with trio.open_nursery() as nursery:
            for journal in (anchoring.anchor, anchoring.other) * 4:
                nursery.start_soon(claim, journal)
        [lease] = [answer for answer in answers if isinstance(answer, Lease)]
        assert lease.epoch == epoch
        await anchoring.anchor.release_lease(lease)


async def test_a_deposed_anchor_writes_nothing(anchoring: AnchoringWorld) -> None:
    one, two = await commitments(anchoring.world, 2)
    old = await anchoring.claim()
    anchor = await anchoring.planned(old, [one])
    transaction = await anchoring.signed(old, anchor)
    await anchoring.anchor.release_lease(old)
    assert isinstance(await anchoring.other.claim_lease(uuid(), lease_s=60), Lease)

    later, batches = await anchoring.an_anchor([two])
    standing = msgspec.structs.replace(await anchoring.standing(), next_nonce=9)
    writes: list[Awaitable[Any]] = [
        anchoring.anchor.plan(old, later, batches),
        anchoring.anchor.write_transaction(old, a_transaction(anchor, attempt=2), AUDIT),
        anchoring.anchor.move(old, a_transition(anchor, 2, "submitted", transaction)),
        anchoring.anchor.resume(
            old,
            chain_id=CHAIN,
            contract=CONTRACT,
            address=ACCOUNT,
            standing=standing,
            reason="restored",
            audit=AUDIT,
        ),
    ]
    for write in writes:
        assert await write == Moved("the lease")
    for forged in (Lease(old.holder, old.epoch + 1), Lease(uuid(), old.epoch)):
        assert await anchoring.anchor.plan(forged, later, batches) == Moved("the lease")
    assert await anchoring.standing() == msgspec.structs.replace(standing, next_nonce=1)
    [under_way] = await anchoring.other.read_open(CHAIN, CONTRACT, limit=9)
    assert (under_way.last.transition_number, len(under_way.transactions)) == (1, 1)
    assert (await anchoring.other.read_backlog(limit=9)).waiting == 1


# Plans.


async def test_a_plan_takes_its_batches_and_moves_what_stands(anchoring: AnchoringWorld) -> None:
    made = await commitments(anchoring.world, 5)
    lease = await anchoring.claim()
    assert await anchoring.standing() == Standing(None, 0, bytes(32), 1)
    first = await anchoring.planned(lease, made[:2])
    head = aggregate_head(bytes(32), first.root, 0, 2)
    assert await anchoring.standing() == Standing(None, 2, head, 2)
    single = await anchoring.planned(lease, made[2:3], road="single", first_index=None, previous_head=None)
    assert await anchoring.standing() == Standing(None, 2, head, 3)
    second = await anchoring.planned(lease, made[3:4])
    head = aggregate_head(head, second.root, 2, 1)
    assert await anchoring.standing() == Standing(None, 3, head, 4)
    elsewhere = await anchoring.planned(
        lease, made[4:], contract=b"D" * 20, first_index=0, previous_head=bytes(32)
    )
    assert await anchoring.standing() == Standing(None, 3, head, 5)

    under_way = await anchoring.other.read_open(CHAIN, CONTRACT, limit=9)
    assert [one.anchor for one in under_way] == [first, single, second]
    assert [one.commitment for one in under_way] == [None, made[2], None]
    for one in under_way:
        assert (one.last.state, one.last.cause, one.last.transition_number) == ("pending", PLANNED, 1)
        assert one.last.at_us > 0
        assert one.transactions == []
    assert [one.anchor for one in await anchoring.other.read_open(CHAIN, CONTRACT, limit=2)] == [
        first,
        single,
    ]
    assert [one.anchor for one in await anchoring.other.read_open(CHAIN, b"D" * 20, limit=9)] == [elsewhere]
    assert (await anchoring.other.read_backlog(limit=9)).batches == []


async def test_whoever_comes_second_with_a_number_an_index_or_a_batch_plans_nothing(
    anchoring: AnchoringWorld,
) -> None:
    one, two, three = await commitments(anchoring.world, 3)
    lease = await anchoring.claim()
    late, late_batches = await anchoring.an_anchor([two])
    await anchoring.planned(lease, [one])
    assert await anchoring.other.plan(lease, late, late_batches) == Moved("the anchor's number")
    renumbered = msgspec.structs.replace(late, anchor_number=2)
    assert await anchoring.other.plan(lease, renumbered, late_batches) == Moved(
        "the contract's index or head"
    )
    again, batches = await anchoring.an_anchor([two, one])
    assert isinstance(await anchoring.other.plan(lease, again, batches), Moved)
    gone, batches = await anchoring.an_anchor([two, msgspec.structs.replace(three, batch_id=uuid())])
    with pytest.raises(LookupError):
        await anchoring.anchor.plan(lease, gone, batches)
    assert (await anchoring.standing()).next_anchor_number == 2
    assert [b.commitment for b in (await anchoring.other.read_backlog(limit=9)).batches] == [two, three]


async def test_a_plan_that_contradicts_itself_is_a_mistake(anchoring: AnchoringWorld) -> None:
    [one] = await commitments(anchoring.world, 1)
    lease = await anchoring.claim()
    anchor, batches = await anchoring.an_anchor([one])
    for wrong in (
        {"batch_count": 2},
        {"first_index": None},
        {"previous_head": None},
        {"road": "single"},
    ):
        with pytest.raises(ValueError, match=r"batch_count|first_index"):
            await anchoring.anchor.plan(lease, msgspec.structs.replace(anchor, **wrong), batches)
    for count, road, more in (
        (2, "aggregate", {}),
        (2, "single", {"first_index": None, "previous_head": None}),
    ):
        twice = msgspec.structs.replace(anchor, batch_count=count, road=road, **more)
        with pytest.raises(ValueError, match=r"twice|takes one"):
            await anchoring.anchor.plan(lease, twice, batches * 2)


async def test_a_batch_goes_to_a_report_or_to_a_plan_never_to_both(anchoring: AnchoringWorld) -> None:
    one, two = await commitments(anchoring.world, 2)
    lease = await anchoring.claim()
    report = AnchorReport(one.batch_id, CHAIN, os.urandom(32), None)
    assert await anchoring.world.other.report_anchor(report, AUDIT) == ReportStored(again=False)
    both, batches = await anchoring.an_anchor([one, two])
    assert isinstance(await anchoring.anchor.plan(lease, both, batches), Moved)
    anchor = await anchoring.planned(lease, [two])
    report = msgspec.structs.replace(report, batch_id=two.batch_id)
    assert await anchoring.world.other.report_anchor(report, AUDIT) == ReportConflict()
    assert not await anchoring.world.other.request_anchor(two.batch_id, AUDIT)
    # An anchorer outside that tells what we know ourselves has told nothing new.
    transaction = await anchoring.signed(lease, anchor)
    await anchoring.moved(lease, a_transition(anchor, 2, "submitted", transaction))
    same = msgspec.structs.replace(report, tx_hash=transaction.tx_hash)
    assert await anchoring.world.other.report_anchor(same, AUDIT) == ReportStored(again=True)


async def test_of_a_report_and_a_plan_at_once_one_gets_the_batch(anchoring: AnchoringWorld) -> None:
    lease = await anchoring.claim()
    for commitment in await commitments(anchoring.world, 4):
        anchor, batches = await anchoring.an_anchor([commitment])
        report = AnchorReport(commitment.batch_id, CHAIN, os.urandom(32), None)
        answers: list[Any] = []

        async def do(act: Callable[[], Awaitable[Any]], to: list[Any] = answers) -> None:
            to.append(await act())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(do, lambda r=report: anchoring.world.other.report_anchor(r, AUDIT))
            nursery.start_soon(do, lambda a=anchor, b=batches: anchoring.anchor.plan(lease, a, b))
        assert sum(answer in (Stored(), ReportStored(again=False)) for answer in answers) == 1
        assert (await anchoring.other.read_backlog(limit=9)).batches == [] or len(answers) == 2
    assert (await anchoring.other.read_backlog(limit=9)).waiting == 0


@pytest.mark.parametrize("stored", [True, False])
async def test_a_plan_whose_outcome_is_unknown_is_there_or_not(
    anchoring: AnchoringWorld, stored: bool
) -> None:
    [one] = await commitments(anchoring.world, 1)
    lease = await anchoring.claim()
    anchor, batches = await anchoring.an_anchor([one])
    anchoring.fail_next("anchor_plan", "unheard" if stored else "lost")
    with pytest.raises(JournalOutcomeUnknown):
        await anchoring.anchor.plan(lease, anchor, batches)
    again = await anchoring.anchor.plan(lease, anchor, batches)
    assert isinstance(again, Moved if stored else Stored)
    assert [o.anchor for o in await anchoring.other.read_open(CHAIN, CONTRACT, limit=9)] == [anchor]
    assert (await anchoring.other.read_backlog(limit=9)).waiting == 0


# Transactions.


async def test_signed_bytes_are_there_in_order_and_attempts_leave_no_gap(anchoring: AnchoringWorld) -> None:
    made = await commitments(anchoring.world, 2)
    lease = await anchoring.claim()
    deploying = await anchoring.signed(lease, None)
    anchor, other = [await anchoring.planned(lease, [one]) for one in made]
    assert (await anchoring.standing()).next_nonce == 1
    first = await anchoring.signed(lease, anchor)
    second = a_transaction(anchor, nonce=1, attempt=2)
    for wrong, what in (
        (a_transaction(anchor, nonce=1, attempt=3), "gap"),
        (a_transaction(anchor, nonce=3), "gap"),
        (a_transaction(anchor, nonce=2, attempt=2), "none"),
        (a_transaction(other, nonce=1, attempt=2), "replaces"),
    ):
        with pytest.raises(ValueError, match=what):
            await anchoring.anchor.write_transaction(lease, wrong, AUDIT)
    assert await anchoring.anchor.write_transaction(lease, second, AUDIT) == Stored()
    same_bytes = a_transaction(anchor, nonce=2, tx_hash=first.tx_hash)
    for late in (first, second, same_bytes):
        assert isinstance(await anchoring.other.write_transaction(lease, late, AUDIT), Moved)
    unknown = msgspec.structs.replace(anchor, anchor_number=77)
    with pytest.raises(LookupError):
        await anchoring.anchor.write_transaction(lease, a_transaction(unknown, nonce=2), AUDIT)

    found = await anchoring.other.read_transactions(CHAIN, ACCOUNT, from_nonce=0, limit=9)
    assert [msgspec.structs.replace(t, signed_at_us=0) for t in found] == [deploying, first, second]
    assert 0 < found[0].signed_at_us <= found[1].signed_at_us <= found[2].signed_at_us
    assert await anchoring.other.read_transactions(CHAIN, ACCOUNT, from_nonce=1, limit=1) == found[1:2]
    assert await anchoring.other.read_transactions(CHAIN, b"B" * 20, from_nonce=0, limit=9) == []
    under_way = await anchoring.other.read_open(CHAIN, CONTRACT, limit=9)
    assert [one.transactions for one in under_way] == [found[1:], []]


async def test_the_use_of_the_key_is_audited_with_the_bytes_in_a_chain_that_is_committed_like_any_other(
    anchoring: AnchoringWorld,
) -> None:
    [one] = await commitments(anchoring.world, 1)
    lease = await anchoring.claim()
    anchor = await anchoring.planned(lease, [one])
    signed = await anchoring.signed(lease, anchor)
    assert isinstance(await anchoring.anchor.write_transaction(lease, signed, AUDIT), Moved)
    await anchoring.anchor.audit(AUDIT)
    journal = anchoring.world.journal
    entries = await journal.read_audit_chain(anchoring.node_id, from_number=1, limit=9)
    previous = bytes(32)
    for entry in entries:
        previous = entry_hash(previous, entry.text)
        assert entry.entry_hash == previous
    assert len(entries) == 2
    commitment = next_audit_commitment(
        anchoring.node_id,
        entry_start=1,
        entry_hashes=[entry.entry_hash for entry in entries],
        prev_state_root=bytes(32),
        committed_at_us=0,
    )
    assert await journal.commit_audit(commitment) == Stored()
    [chain] = await journal.read_audit_chains(only=anchoring.node_id, limit=1)
    assert (chain.committed_through, chain.last_hash) == (2, previous)


@pytest.mark.parametrize("stored", [True, False])
async def test_a_transaction_whose_outcome_is_unknown_is_read_before_anything_is_sent(
    anchoring: AnchoringWorld, stored: bool
) -> None:
    [one] = await commitments(anchoring.world, 1)
    lease = await anchoring.claim()
    anchor = await anchoring.planned(lease, [one])
    transaction = a_transaction(anchor)
    anchoring.fail_next("anchor_transaction", "unheard" if stored else "lost")
    with pytest.raises(JournalOutcomeUnknown):
        await anchoring.anchor.write_transaction(lease, transaction, AUDIT)
    found = await anchoring.anchor.read_transactions(CHAIN, ACCOUNT, from_nonce=0, limit=9)
    assert [t.tx_hash for t in found] == ([transaction.tx_hash] if stored else [])
    assert (await anchoring.standing()).next_nonce == (1 if stored else None)
    anchoring.fail_next("anchor_transaction", "away")
    assert isinstance(await anchoring.anchor.write_transaction(lease, transaction, AUDIT), Away)


# States.


async def test_an_anchor_goes_through_its_states_back_and_on_and_the_doors_see_each(
    anchoring: AnchoringWorld,
) -> None:
    made = await commitments(anchoring.world, 2)
    lease = await anchoring.claim()
    anchor = await anchoring.planned(lease, made)
    first = await anchoring.signed(lease, anchor)
    batch = made[1].batch_id

    async def told() -> Any:
        return (await anchoring.world.other.read_anchors([batch]))[batch]

    async def listed(anchored: bool) -> int:
        page = await anchoring.world.other.list_commitments(
            made[0].tenant_id, made[0].store_id, from_sequence=1, limit=9, anchored=anchored
        )
        return len(page.commitments)

    seen = await told()
    assert (seen.state, seen.tx_hash, seen.block_number, seen.cause) == ("pending", None, None, PLANNED)
    assert (seen.position, seen.batch_count, seen.anchor_number, seen.road) == (1, 2, 1, "aggregate")
    assert (seen.chain_id, seen.contract) == (CHAIN, CONTRACT)
    await anchoring.moved(lease, a_transition(anchor, 2, "submitted", first))
    seen = await told()
    assert (seen.state, seen.tx_hash, seen.block_hash) == ("submitted", first.tx_hash, None)
    assert (await listed(True), await listed(False)) == (0, 2)

    gone = an_inclusion(6)
    await anchoring.moved(lease, a_transition(anchor, 3, "included", first, block=6), gone)
    seen = await told()
    assert (seen.state, seen.block_number, seen.gas_used, seen.effective_gas_price) == (
        ("included", 6, GAS_USED, PRICE)
    )
    assert (await listed(True), await listed(False)) == (2, 0)
    evidence = await anchoring.world.other.read_anchor_evidence(batch)
    assert evidence is not None
    assert (evidence.inclusion, evidence.raw_transaction) == (gone, first.raw)

    reorganised = msgspec.structs.replace(
        a_transition(anchor, 4, "included", first, block=6), state="pending", cause="reorganised"
    )
    await anchoring.moved(lease, reorganised)
    seen = await told()
    assert (seen.state, seen.tx_hash, seen.block_number, seen.gas_used, seen.cause) == (
        ("pending", None, None, None, "reorganised")
    )
    assert (await listed(True), await listed(False)) == (0, 2)
    evidence = await anchoring.world.other.read_anchor_evidence(batch)
    assert evidence is not None
    assert (evidence.inclusion, evidence.raw_transaction) == (None, None)

    await anchoring.moved(lease, a_transition(anchor, 5, "submitted", first))
    proof = an_inclusion(7)
    await anchoring.moved(lease, a_transition(anchor, 6, "included", first), proof)
    await anchoring.moved(lease, a_transition(anchor, 7, "safe", first), an_inclusion(7))  # kept once
    pending = await anchoring.world.other.list_pending_anchors(limit=9)
    assert [(p.commitment, p.anchor and p.anchor.state) for p in pending] == [(c, "safe") for c in made]
    summary = await anchoring.world.other.anchor_summary()
    assert (summary.open_anchors, summary.anchored_batches, summary.waiting) == ({"safe": 1}, 0, 0)
    assert summary.oldest_unfinalized_us == made[0].committed_at_us
    await anchoring.moved(lease, a_transition(anchor, 8, "finalized", first))
    assert await anchoring.world.other.list_pending_anchors(limit=9) == []
    assert await anchoring.other.read_open(CHAIN, CONTRACT, limit=9) == []
    summary = await anchoring.world.other.anchor_summary()
    assert (summary.open_anchors, summary.oldest_unfinalized_us) == ({}, 0)
    assert (summary.anchored_batches, summary.anchored_events) == (2, 4)
    assert (summary.gas_used, summary.cost_wei) == (GAS_USED, GAS_USED * PRICE)
    evidence = await anchoring.world.other.read_anchor_evidence(batch)
    assert evidence is not None
    assert (evidence.inclusion, evidence.raw_transaction) == (proof, first.raw)
    assert (evidence.root, evidence.first_index, evidence.previous_head) == (anchor.root, 0, bytes(32))
    assert len(evidence.leaves) == 2
    assert evidence.anchor == await told()
    ended = Moved("the anchor: it is finalized")
    assert await anchoring.anchor.move(lease, a_transition(anchor, 9, "pending")) == ended


async def test_a_transition_is_entered_once_and_in_order(anchoring: AnchoringWorld) -> None:
    [one] = await commitments(anchoring.world, 1)
    lease = await anchoring.claim()
    anchor = await anchoring.planned(lease, [one], road="single", first_index=None, previous_head=None)
    transaction = await anchoring.signed(lease, anchor)
    submitted = a_transition(anchor, 2, "submitted", transaction)
    await anchoring.moved(lease, submitted)
    for number in (1, 2, 4):
        second = msgspec.structs.replace(submitted, transition_number=number)
        assert await anchoring.other.move(lease, second) == Moved("the anchor's transitions")
    with pytest.raises(LookupError):
        await anchoring.anchor.move(lease, a_transition(anchor, 3, "submitted", a_transaction(anchor)))
    unknown = msgspec.structs.replace(anchor, anchor_number=77)
    with pytest.raises(LookupError):
        await anchoring.anchor.move(lease, a_transition(unknown, 2, "submitted", transaction))
    included = a_transition(anchor, 3, "included", transaction)
    for wrong, inclusion in (
        (msgspec.structs.replace(included, tx_hash=None), None),
        (msgspec.structs.replace(included, block_hash=None), None),
        (msgspec.structs.replace(included, gas_used=None), None),
        (msgspec.structs.replace(submitted, transition_number=3), an_inclusion()),
        (included, an_inclusion(8)),
    ):
        with pytest.raises(ValueError, match=r"without|another block"):
            await anchoring.anchor.move(lease, wrong, inclusion)
    evidence = await anchoring.world.other.read_anchor_evidence(one.batch_id)
    assert evidence is not None
    assert (evidence.leaves, evidence.first_index, evidence.previous_head) == ([], None, None)


@pytest.mark.parametrize("stored", [True, False])
async def test_a_move_whose_outcome_is_unknown_can_be_made_again(
    anchoring: AnchoringWorld, stored: bool
) -> None:
    [one] = await commitments(anchoring.world, 1)
    lease = await anchoring.claim()
    anchor = await anchoring.planned(lease, [one])
    transaction = await anchoring.signed(lease, anchor)
    submitted = a_transition(anchor, 2, "submitted", transaction)
    anchoring.fail_next("anchor_move", "unheard" if stored else "lost")
    with pytest.raises(JournalOutcomeUnknown):
        await anchoring.anchor.move(lease, submitted)
    assert isinstance(await anchoring.anchor.move(lease, submitted), Moved if stored else Stored)
    [under_way] = await anchoring.other.read_open(CHAIN, CONTRACT, limit=9)
    assert msgspec.structs.replace(under_way.last, at_us=0) == submitted
    anchoring.fail_next("anchor_audit", "away")
    with pytest.raises(JournalAway):
        await anchoring.anchor.audit(AUDIT)


# What the anchor reads.


async def test_the_backlog_is_oldest_first_and_what_was_asked_for_before_all(
    anchoring: AnchoringWorld,
) -> None:
    lease = await anchoring.claim()
    later = await commitments(anchoring.world, 2, from_second=10)
    stream = (later[0].tenant_id, later[0].store_id)
    earlier = await commitments(anchoring.world, 2)
    asked = later[1]
    assert await anchoring.world.other.request_anchor(asked.batch_id, AUDIT)
    backlog = await anchoring.other.read_backlog(limit=9)
    assert [b.commitment for b in backlog.batches] == [asked, *earlier, later[0]]
    assert [b.requested for b in backlog.batches] == [True, False, False, False]
    before = [later[0].batch_id, None, earlier[0].batch_id, None]
    assert [b.previous_batch_id for b in backlog.batches] == before
    assert [b.previous_road for b in backlog.batches] == [None] * 4
    ends = [later[0].sequence_end, 0, earlier[0].sequence_end, 0]
    assert [b.previous_end for b in backlog.batches] == ends
    assert [b.previous_contract for b in backlog.batches] == [None] * 4
    assert (backlog.waiting, backlog.oldest_committed_at_us) == (4, earlier[0].committed_at_us)
    assert backlog.now_us > earlier[0].committed_at_us
    assert (await anchoring.other.read_backlog(limit=2)).batches == backlog.batches[:2]
    assert (await anchoring.other.read_backlog(limit=0)).waiting == 4

    await anchoring.planned(lease, [later[0]], road="single", first_index=None, previous_head=None)
    await anchoring.planned(lease, [earlier[0]])
    [third] = await commitments(anchoring.world, 1, stream=stream, from_second=12)
    rest = (await anchoring.other.read_backlog(limit=9)).batches
    roads = {b.commitment: b.previous_road for b in rest}
    assert roads == {asked: "single", earlier[1]: "aggregate", third: None}
    contracts = {b.commitment: b.previous_contract for b in rest}
    assert contracts == {asked: (CHAIN, CONTRACT), earlier[1]: (CHAIN, CONTRACT), third: None}
    # A request ends with its batch, so it is not before all others for ever.
    await anchoring.planned(lease, [asked])
    assert not await anchoring.world.other.request_anchor(asked.batch_id, AUDIT)
    assert await anchoring.other.refill_backlog() == 0
    assert (await anchoring.other.read_backlog(limit=9)).waiting == 2


async def test_what_was_spent_is_what_mined_ones_cost_and_the_most_that_others_may(
    anchoring: AnchoringWorld,
) -> None:
    made = await commitments(anchoring.world, 3)
    lease = await anchoring.claim()
    most, cost = GAS_LIMIT * FEE_MAX, GAS_USED * PRICE

    async def spent(since_us: int = 0, address: bytes = ACCOUNT) -> int:
        return await anchoring.other.spent_since(CHAIN, address, since_us)

    assert await spent() == 0
    mined, refused, waiting = [await anchoring.planned(lease, [one]) for one in made]
    await anchoring.finalized(lease, mined)
    assert await spent() == cost
    transaction = await anchoring.signed(lease, refused)
    assert await spent() == cost + most
    reverted = msgspec.structs.replace(
        a_transition(refused, 2, "included", transaction), state="pending", cause="reverted: paused"
    )
    await anchoring.moved(lease, reverted)
    assert await spent() == 2 * cost
    # A block that is gone has cost nothing yet, and the bytes may still be mined.
    gone = msgspec.structs.replace(reverted, transition_number=3, gas_used=None, cause="reorganised")
    await anchoring.moved(lease, gone)
    assert await spent() == cost + most
    await anchoring.moved(lease, msgspec.structs.replace(reverted, transition_number=4))
    assert await spent() == 2 * cost
    await anchoring.signed(lease, waiting)
    dearer = a_transaction(waiting, nonce=2, attempt=2, max_fee_per_gas=2 * FEE_MAX)
    assert await anchoring.anchor.write_transaction(lease, dearer, AUDIT) == Stored()
    assert await spent() == 2 * cost + 2 * most
    found = await anchoring.other.read_transactions(CHAIN, ACCOUNT, from_nonce=0, limit=9)
    assert await spent(found[1].signed_at_us) == cost + 2 * most
    assert await spent(found[3].signed_at_us) == 2 * most
    assert await spent(found[3].signed_at_us + 1) == 0
    assert await spent(0, b"B" * 20) == 0


async def test_the_newest_finalized_anchor_is_told_per_contract(anchoring: AnchoringWorld) -> None:
    made = await commitments(anchoring.world, 3)
    lease = await anchoring.claim()
    first, second, under_way = [await anchoring.planned(lease, [one]) for one in made]
    assert await anchoring.other.read_newest_finalized(CHAIN, CONTRACT) is None
    for anchor in (second, first):
        transaction = await anchoring.finalized(lease, anchor)
        newest = await anchoring.other.read_newest_finalized(CHAIN, CONTRACT)
        assert newest is not None
        assert (newest.anchor_number, newest.transition_number) == (second.anchor_number, 5)
        if anchor is second:
            assert (newest.state, newest.tx_hash) == ("finalized", transaction.tx_hash)
    assert await anchoring.other.read_newest_finalized(CHAIN, b"D" * 20) is None
    assert await anchoring.other.read_newest_finalized(CHAIN + 1, CONTRACT) is None
    [still_open] = await anchoring.other.read_open(CHAIN, CONTRACT, limit=9)
    assert still_open.anchor == under_way


async def test_an_operators_word_moves_what_stands_forward_and_never_back(anchoring: AnchoringWorld) -> None:
    one, two = await commitments(anchoring.world, 2)
    lease = await anchoring.claim()
    anchor = await anchoring.planned(lease, [one])
    await anchoring.signed(lease, anchor)

    async def resume(nonce: int | None, index: int, head: bytes) -> Any:
        return await anchoring.anchor.resume(
            lease,
            chain_id=CHAIN,
            contract=CONTRACT,
            address=ACCOUNT,
            standing=Standing(nonce, index, head, 0),
            reason="restored",
            audit=AUDIT,
        )

    for nonce, index, what in ((0, 1, "next_nonce 0"), (1, 0, "next_index 0"), (None, 1, "next_nonce")):
        with pytest.raises(ValueError, match=what):
            await resume(nonce, index, b"h" * 32)
    before = len(await anchoring.world.journal.read_audit_chain(anchoring.node_id, from_number=1, limit=9))
    assert (await anchoring.standing()).resumed_nonce == 0
    assert await resume(7, 1, b"h" * 32) == Stored()
    assert await anchoring.standing() == Standing(7, 1, b"h" * 32, 2, 7)
    assert await resume(7, 5, b"i" * 32) == Stored()
    assert await resume(8, 5, b"k" * 32) == Stored()
    assert await anchoring.standing() == Standing(8, 5, b"k" * 32, 2, 8)
    after = await anchoring.world.journal.read_audit_chain(anchoring.node_id, from_number=1, limit=9)
    assert len(after) == before + 3
    later = await anchoring.planned(lease, [two])
    assert (later.first_index, later.previous_head) == (5, b"k" * 32)
    await anchoring.signed(lease, later)
    assert await anchoring.standing() == Standing(9, 6, aggregate_head(b"k" * 32, later.root, 5, 1), 3, 8)
    late = a_transaction(later, nonce=3)
    assert await anchoring.anchor.write_transaction(lease, late, AUDIT) == Moved("the nonce")
