"""The contract of anchors as the doors see them: how a commitment stands, requests, reports, sums."""

from __future__ import annotations

import os

import msgspec
import pytest
from anchor_builders import commitments
from journal_builders import AUDIT, uuid
from journal_worlds import World

from journal.port import (
    AnchorReport,
    JournalAway,
    JournalOutcomeUnknown,
    PendingCommitment,
    ReportConflict,
    ReportStored,
)


async def audited(world: World) -> int:
    chains = await world.journal.read_audit_chains(limit=100)
    return sum(chain.last_number for chain in chains)


async def test_a_commitment_nobody_anchored_is_pending_without_an_anchor(own_world: World) -> None:
    first, second = await commitments(own_world, 2)
    assert await own_world.journal.read_anchors([first.batch_id, second.batch_id, uuid()]) == {}
    assert await own_world.journal.read_anchor_evidence(first.batch_id) is None
    pending = await own_world.journal.list_pending_anchors(limit=10)
    assert pending == [PendingCommitment(first, None), PendingCommitment(second, None)]
    assert await own_world.journal.list_pending_anchors(limit=1) == pending[:1]
    assert await own_world.journal.list_pending_anchors(limit=0) == []
    told = await own_world.journal.anchor_summary()
    assert (told.waiting, told.oldest_waiting_us) == (2, first.committed_at_us)
    assert (told.open_anchors, told.oldest_unfinalized_us) == ({}, first.committed_at_us)
    assert (told.anchored_batches, told.anchored_events, told.gas_used, told.cost_wei) == (0, 0, 0, 0)
    assert (told.lease_holder, told.lease_epoch, told.lease_held_until_us) == (None, 0, 0)
    assert told.now_us > first.committed_at_us


async def test_too_many_batches_in_a_call_are_refused(world: World) -> None:
    with pytest.raises(ValueError, match="1000"):
        await world.journal.read_anchors([uuid()] * 1001)


async def test_a_report_is_kept_once_and_another_transaction_is_a_conflict(own_world: World) -> None:
    first, second = await commitments(own_world, 2)
    report = AnchorReport(first.batch_id, 5, os.urandom(32), 77)
    assert await own_world.journal.request_anchor(first.batch_id, AUDIT)
    before = await audited(own_world)
    assert await own_world.journal.report_anchor(report, AUDIT) == ReportStored(again=False)
    assert await own_world.other.report_anchor(report, AUDIT) == ReportStored(again=True)
    other = msgspec.structs.replace(report, tx_hash=os.urandom(32))
    assert await own_world.other.report_anchor(other, AUDIT) == ReportConflict()
    assert await audited(own_world) == before + 1

    found = await own_world.other.read_anchors([first.batch_id, second.batch_id])
    assert list(found) == [first.batch_id]
    told = found[first.batch_id]
    assert (told.state, told.chain_id, told.tx_hash, told.block_number) == ("reported", 5, report.tx_hash, 77)
    assert (told.contract, told.road, told.anchor_number, told.position, told.batch_count) == (
        (None,) * 4 + (1,)
    )
    assert told.since_us > first.committed_at_us
    assert not await own_world.journal.request_anchor(first.batch_id, AUDIT)
    pending = await own_world.journal.list_pending_anchors(limit=10)
    assert [one.commitment for one in pending] == [second]
    assert (await own_world.journal.anchor_summary()).waiting == 1
    for anchored, expected in ((True, [first]), (False, [second]), (None, [first, second])):
        page = await own_world.other.list_commitments(
            first.tenant_id, first.store_id, from_sequence=1, limit=5, anchored=anchored
        )
        assert page.commitments == expected


async def test_what_does_not_exist_is_neither_requested_nor_reported(world: World) -> None:
    for act in (
        world.journal.request_anchor(uuid(), AUDIT),
        world.journal.report_anchor(AnchorReport(uuid(), 1, bytes(32), None), AUDIT),
    ):
        with pytest.raises(LookupError):
            await act


async def test_a_request_is_audited_once_however_often_it_is_made(own_world: World) -> None:
    [first] = await commitments(own_world, 1)
    before = await audited(own_world)
    assert await own_world.journal.request_anchor(first.batch_id, AUDIT)
    assert await own_world.other.request_anchor(first.batch_id, AUDIT)
    assert await audited(own_world) == before + 1


@pytest.mark.parametrize("stored", [True, False])
async def test_a_report_whose_outcome_is_unknown_can_be_made_again(own_world: World, stored: bool) -> None:
    [first] = await commitments(own_world, 1)
    report = AnchorReport(first.batch_id, 5, os.urandom(32), None)
    own_world.fail_next("report_anchor", "unheard" if stored else "lost")
    with pytest.raises(JournalOutcomeUnknown):
        await own_world.journal.report_anchor(report, AUDIT)
    assert await own_world.journal.report_anchor(report, AUDIT) == ReportStored(again=stored)
    own_world.fail_next("request_anchor", "away")
    with pytest.raises(JournalAway):
        await own_world.journal.request_anchor(first.batch_id, AUDIT)
