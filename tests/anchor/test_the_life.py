"""One anchor's life, fault by fault, on a chain in memory and virtual time."""

from __future__ import annotations

import pytest
import trio
from coincurve import PrivateKey
from trio.testing import MockClock

from actors.faults import Fault, armed
from journal.anchor_port import Lease
from journal.port import AuditEntry, Stored
from tests.anchor.memory_chain import ETHER, GWEI
from tests.anchor.worlds import ADDRESS, World, living, policy, with_fields
from ves.anchor_transactions import decode_transaction

POINTS = ("claimed", "planned", "signed", "written", "sent", "submitted", "included", "safe", "finalized")
WALK = ["pending", "submitted", "included", "safe", "finalized"]


def nonces(world: World) -> list[int]:
    return [one.nonce for one in world.database.anchors.transactions]


# The walk.


async def test_commitments_of_many_streams_become_one_anchor_and_final(autojump_clock: MockClock) -> None:
    world = World()
    node = world.node()
    for store in (1, 2, 3):
        world.commit(store)
    async with living(node):
        await world.pass_time(120)
        assert world.all_final()
        assert (node.vitals.role, node.vitals.trouble, node.vitals.sent) == ("active", None, 1)
    assert world.states() == WALK
    assert world.chain.latest.contract.count == 3
    assert len(world.chain.mined()) == 1
    assert node.deaths == []


async def test_a_stream_on_the_single_road_goes_range_by_range(autojump_clock: MockClock) -> None:
    world = World()
    for _ in range(3):
        world.commit(1)
    async with living(world.node(policy=policy(road="single", batch_threshold=1))):
        await world.pass_time(180)
        assert world.all_final()
    assert [one.road for one in world.database.anchors.anchors.values()] == ["single"] * 3
    assert len(world.chain.latest.contract.commitments) == 3


async def test_a_stream_that_is_on_the_aggregate_road_stays_there(autojump_clock: MockClock) -> None:
    world = World()
    world.commit(1, ask=True)
    async with living(world.node()):
        await world.pass_time(60)
    world.commit(1, ask=True)
    world.commit(2, ask=True)
    async with living(world.node(policy=policy(road="single"))):
        await world.pass_time(180)
        assert world.all_final()
    assert [one.road for one in world.database.anchors.anchors.values()] == [
        "aggregate",
        "aggregate",
        "single",
    ]


@pytest.mark.parametrize("why", ["a gap", "another contract"])
async def test_a_commitment_that_the_single_road_would_refuse_does_not_keep_the_others_waiting(
    autojump_clock: MockClock, why: str
) -> None:
    world = World()
    first = world.commit(1, ask=True)
    single = policy(road="single", batch_threshold=1)
    async with living(world.node(policy=single)):
        await world.pass_time(120)
        assert world.all_final()
    if why == "a gap":  # its numbers were lost with a database, and declared void
        world.commitments[0] = with_fields(first, sequence_end=first.sequence_end + 10)
    else:
        anchors = world.database.anchors.anchors
        anchors[1] = with_fields(anchors[1], contract=bytes(20))
    world.commit(1, ask=True)
    world.commit(2, ask=True)
    async with living(world.node(policy=single)):
        await world.pass_time(180)
        assert world.all_final()
    roads = [one.road for one in world.database.anchors.anchors.values()]
    assert roads == ["single", "aggregate", "single"]


async def test_one_transaction_is_in_flight_and_the_next_one_waits_for_a_block(
    autojump_clock: MockClock,
) -> None:
    world = World()
    async with living(world.node()):
        world.commit(1, ask=True)
        await trio.sleep(10)
        world.commit(2, ask=True)
        await trio.sleep(30)
        assert nonces(world) == [0]
        world.chain.mine()
        await trio.sleep(10)
        assert nonces(world) == [0, 1]


async def test_finality_by_depth_needs_no_tags(autojump_clock: MockClock) -> None:
    world = World()
    world.chain.knows_tags = False
    world.commit(ask=True)
    async with living(world.node(policy=policy(finality="depth", confirmations=6))):
        await trio.sleep(5)
        world.chain.mine(2)
        await trio.sleep(5)
        assert world.states()[-1] == "included"
        world.chain.mine(1)
        await trio.sleep(5)
        assert world.states()[-1] == "safe"
        world.chain.mine(2)
        await trio.sleep(5)
        assert world.states()[-1] == "safe"
        world.chain.mine(1)
        await trio.sleep(5)
        assert world.states()[-1] == "finalized"


async def test_the_use_of_the_key_is_in_the_audit_log(autojump_clock: MockClock) -> None:
    world = World()
    world.commit(ask=True)
    async with living(world.node()):
        await trio.sleep(10)
    ((text, _),) = world.database.audit_log[bytes([1]) * 16]
    (transaction,) = world.database.anchors.transactions
    assert '"action":"anchor.sign"' in text
    assert transaction.tx_hash.hex() in text


# Death at every point.


@pytest.mark.parametrize("point", POINTS)
async def test_a_death_at_any_point_anchors_everything_once(autojump_clock: MockClock, point: str) -> None:
    world = World()
    node = world.node()
    world.commit(1, ask=True)
    with armed({f"anchor.{point}": Fault("crash")}):
        async with living(node):
            await world.pass_time(150)
            assert world.all_final()
    assert len(node.deaths) == 1
    assert len(world.chain.mined()) == 1
    assert nonces(world) == [0]


@pytest.mark.parametrize("unit", ["anchor_plan", "anchor_transaction", "anchor_move"])
@pytest.mark.parametrize("fault", ["away", "lost", "unheard"])
async def test_a_write_that_fails_or_is_not_heard_anchors_everything_once(
    autojump_clock: MockClock, unit: str, fault: str
) -> None:
    world = World()
    node = world.node()
    world.commit(1, ask=True)
    node.journal.fail_next(unit, fault)  # type: ignore[arg-type]
    async with living(node):
        await world.pass_time(150)
        assert world.all_final()
    assert len(node.deaths) == (fault != "away")
    assert len(world.chain.mined()) == 1


@pytest.mark.parametrize("after", [False, True], ids=["not done", "done and unheard"])
async def test_a_send_that_is_not_answered_is_sent_again_and_mined_once(
    autojump_clock: MockClock, after: bool
) -> None:
    world = World()
    node = world.node()
    world.commit(1, ask=True)
    send, failed = node.endpoint.send, []

    async def unheard(raw: bytes):  # type: ignore[no-untyped-def]
        if not failed:
            failed.append(raw)
            node.endpoint.faults.append("away after" if after else "away")
        return await send(raw)

    node.endpoint.send = unheard  # type: ignore[method-assign]
    async with living(node):
        await world.pass_time(120)
        assert world.all_final()
    assert len({*world.chain.sent}) == 1
    assert len(world.chain.mined()) == 1


# The chain changes its mind.


@pytest.mark.parametrize("back_to_pool", [True, False], ids=["back in the pool", "dropped"])
@pytest.mark.parametrize("state", ["included", "safe"])
async def test_a_reorganisation_sends_the_same_bytes_again(
    autojump_clock: MockClock, state: str, back_to_pool: bool
) -> None:
    world = World()
    node = world.node()
    world.commit(1, ask=True)
    async with living(node):
        await trio.sleep(5)
        world.chain.mine(1 if state == "included" else 3)
        await trio.sleep(5)
        assert world.states()[-1] == state
        world.chain.reorg(3, back_to_pool=back_to_pool)
        await trio.sleep(5)
        assert "pending" in world.states()[1:]
        await world.pass_time(120)
        assert world.all_final()
    assert node.vitals.reorganised == 1
    assert len({*world.chain.sent}) == 1
    assert nonces(world) == [0]


async def test_a_reorganisation_of_several_anchors_sends_all_nonces_in_order(
    autojump_clock: MockClock,
) -> None:
    world = World()
    async with living(world.node()):
        for store in (1, 2, 3):
            world.commit(store, ask=True)
            await trio.sleep(5)
            world.chain.mine()
            await trio.sleep(5)
        world.chain.reorg(3, back_to_pool=False)
        await trio.sleep(5)
        assert [decode_transaction(raw).unsigned.nonce for raw in world.chain.sent] == [0, 1, 2, 0, 1, 2]
        await world.pass_time(120)
        assert world.all_final()
    assert len(world.chain.mined()) == 3


async def test_included_elsewhere_goes_back_and_forth_once(autojump_clock: MockClock) -> None:
    world = World()
    world.commit(1, ask=True)
    async with living(world.node()):
        await trio.sleep(5)
        world.chain.mine()
        await trio.sleep(5)
        world.chain.reorg(1, back_to_pool=True)
        world.chain.mine()
        await trio.sleep(5)
    assert world.states() == ["pending", "submitted", "included", "pending", "included"]


async def test_a_finalized_anchor_that_is_gone_stops_everything_and_says_so(
    autojump_clock: MockClock,
) -> None:
    world = World()
    node = world.node()
    world.commit(1, ask=True)
    async with living(node):
        await world.pass_time(120)
        assert world.all_final()
        world.chain.reorg(10, back_to_pool=False)
        world.commit(2, ask=True)
        await world.pass_time(700)
        assert len(world.chain.sent) == 1
        assert node.vitals.role == "stopped"
        assert "finalized anchor gone" in (node.vitals.trouble or "")
    assert nonces(world) == [0]
    assert node.security.counts["anchor_failed"] == 1


async def test_a_receipt_of_a_block_that_is_gone_makes_nothing_final(autojump_clock: MockClock) -> None:
    world = World()
    node = world.node()
    world.commit(1, ask=True)
    async with living(node):
        await trio.sleep(5)
        world.chain.mine()
        await trio.sleep(5)
        (transaction,) = world.database.anchors.transactions
        old = world.chain.receipt(transaction.tx_hash)
        assert old is not None

        async def stale(tx_hash: bytes):  # type: ignore[no-untyped-def]
            return old

        node.endpoint.receipt = stale  # type: ignore[method-assign]
        world.chain.reorg(1, back_to_pool=False)
        await world.pass_time(120)
        assert world.states() == ["pending", "submitted", "included"]
        del node.endpoint.receipt
        await world.pass_time(120)
        assert world.all_final()


async def test_what_an_operator_knows_of_is_no_reason_to_stop(autojump_clock: MockClock) -> None:
    world = World()
    node = world.node()
    world.commit(1, ask=True)
    async with living(node):
        await trio.sleep(5)
        world.chain.drop_pool()
        world.chain.mine(empty=True)
        world.chain.latest.nonces[ADDRESS] = 1
        await world.pass_time(120)
        assert node.vitals.role == "stopped"
        operator = world.node(2)
        lease = await operator.journal.claim_lease(operator.holder, lease_s=20)
        assert isinstance(lease, Lease), "it is free"
        standing = await operator.journal.standing(node.endpoint.chain_id, node.policy.contract, ADDRESS)
        stored = await operator.journal.resume(
            lease,
            chain_id=node.endpoint.chain_id,
            contract=node.policy.contract,
            address=ADDRESS,
            standing=with_fields(standing, next_nonce=1),
            reason="the account was used by hand",
            audit=AuditEntry("cli", "anchor.resume", "anchor", None),
        )
        assert stored == Stored()
        await operator.journal.release_lease(lease)
        await world.pass_time(240)
        assert world.all_final()
        assert node.vitals.trouble is None
    assert nonces(world) == [0, 1]


# The contract refuses.


async def test_a_revert_is_told_with_its_reason_and_tried_again_under_the_next_nonce(
    autojump_clock: MockClock,
) -> None:
    world = World()
    node = world.node()
    world.commit(1, ask=True)
    async with living(node):
        await trio.sleep(5)
        world.chain.set_paused(True)
        world.chain.mine()
        await world.pass_time(300)
        assert world.history()[2].cause == "reverted: Paused"
        assert nonces(world) == [0], "it is dry-run first, which costs nothing"
        assert node.vitals.reverted == 1
        assert node.security.counts["anchor_failed"] >= 1
        world.chain.set_paused(False)
        await world.pass_time(180)
        assert world.all_final()
    assert nonces(world) == [0, 1]
    assert world.chain.latest.contract.count == 1


async def test_an_account_that_may_not_anchor_is_told_and_nothing_is_sent(autojump_clock: MockClock) -> None:
    world = World()
    world.chain.forbid(ADDRESS)
    node = world.node()
    world.commit(1, ask=True)
    async with living(node):
        await world.pass_time(60)
        assert "setSequencer" in (node.vitals.trouble or "")
        assert world.chain.sent == []
        world.chain.authorise(ADDRESS)
        await world.pass_time(120)
        assert world.all_final()


# Money.


async def test_a_stuck_transaction_is_replaced_by_one_that_raises_both_fields(
    autojump_clock: MockClock,
) -> None:
    world = World()
    node = world.node()
    world.commit(1, ask=True)
    async with living(node):
        await trio.sleep(5)
        world.chain.base_fee = 50 * GWEI
        await world.pass_time(200)
        assert world.all_final()
    first, second = world.database.anchors.transactions[:2]
    assert (first.nonce, second.nonce, second.attempt) == (0, 0, 2)
    assert second.max_fee_per_gas * 8 >= first.max_fee_per_gas * 9
    assert second.max_priority_fee_per_gas * 8 >= first.max_priority_fee_per_gas * 9
    assert decode_transaction(first.raw).unsigned.data == decode_transaction(second.raw).unsigned.data
    assert node.vitals.replaced >= 1


async def test_a_fee_above_the_cap_is_waited_for_and_never_offered(autojump_clock: MockClock) -> None:
    world = World()
    node = world.node()
    world.commit(1, ask=True)
    async with living(node):
        await trio.sleep(5)
        world.chain.base_fee = 500 * GWEI
        world.commit(2, ask=True)
        await world.pass_time(400)
        assert "fees above the cap" in (node.vitals.trouble or "")
        assert max(one.max_fee_per_gas for one in world.database.anchors.transactions) <= 100 * GWEI
        world.chain.base_fee = GWEI
        await world.pass_time(200)
        assert world.all_final()


async def test_the_budget_of_a_day_is_kept_and_the_rest_goes_the_day_after(autojump_clock: MockClock) -> None:
    world = World()
    one_costs_at_most = 115_200 * 21 * GWEI // 10
    node = world.node(policy=policy(budget_per_day=2 * one_costs_at_most - 1, poll_s=60.0))
    async with living(node):
        for store in range(1, 5):
            world.commit(store, ask=True)
            await world.pass_time(200)
        await world.pass_time(600)
        assert "budget spent" in (node.vitals.trouble or "")
        cost = sum(m.receipt.gas_used * m.receipt.effective_gas_price for m in world.chain.mined())
        assert cost <= 2 * one_costs_at_most - 1
        await trio.sleep(86_400)
        await world.pass_time(500)
        assert world.all_final()


async def test_whoever_is_in_a_hurry_spends_half_a_days_budget_and_leaves_the_rest_to_all(
    autojump_clock: MockClock,
) -> None:
    world = World()
    budget = 20 * 115_200 * 21 * GWEI // 10
    node = world.node(policy=policy(budget_per_day=budget, batch_threshold=1, age_max_s=3600.0))
    async with living(node):
        for store in range(1, 61):
            world.commit(store, ask=True)
            await world.pass_time(48)
        hurried = len(world.chain.mined())
        cost = sum(m.receipt.gas_used * m.receipt.effective_gas_price for m in world.chain.mined())
        assert budget / 3 < cost <= budget * 2 / 3
        assert node.vitals.trouble is None
        await world.pass_time(3600)
        assert world.all_final()
    assert len(world.chain.mined()) == hurried + 1


async def test_an_empty_account_is_told_with_its_address(autojump_clock: MockClock) -> None:
    world = World()
    world.chain.latest.balances.clear()
    node = world.node()
    world.commit(1, ask=True)
    async with living(node):
        await world.pass_time(30)
        assert ADDRESS.hex() in (node.vitals.trouble or "")
        world.chain.fund(ADDRESS, ETHER)
        await world.pass_time(120)
        assert world.all_final()
    assert nonces(world) == [0]


async def test_a_nonce_that_lags_behind_what_is_final_replaces_nothing(autojump_clock: MockClock) -> None:
    world = World()
    node = world.node()
    async with living(node):
        for store in (1, 2):
            world.commit(store, ask=True)
            await world.pass_time(200)
        assert world.all_final()
        honest = node.endpoint.nonce_of

        async def lags(address: bytes) -> int:
            return await honest(address) - 1

        node.endpoint.nonce_of = lags  # type: ignore[method-assign]
        await world.pass_time(600)
        assert [one.attempt for one in world.database.anchors.transactions] == [1, 1]
        assert "nonce behind" in (node.vitals.trouble or "")
        node.endpoint.nonce_of = honest  # type: ignore[method-assign]
        world.commit(3, ask=True)
        await world.pass_time(300)
        assert world.all_final()
    assert nonces(world) == [0, 1, 2]


# Two of them, and somebody else.


async def test_of_two_anchors_one_works_and_the_other_takes_over(autojump_clock: MockClock) -> None:
    world = World()
    first, second = world.node(1), world.node(2)
    async with living(first, second):
        await trio.sleep(1)
        assert {first.vitals.role, second.vitals.role} == {"active", "standby"}
        working, waiting = (first, second) if first.vitals.role == "active" else (second, first)
        working.endpoint.away = True
        working.signer.away = True
        working.kill()
        world.commit(1, ask=True)
        await world.pass_time(150)
        assert waiting.vitals.role == "active"
        assert world.all_final()


async def test_an_orderly_stop_leaves_the_lease_free(autojump_clock: MockClock) -> None:
    world = World()
    async with living(world.node(1)):
        await trio.sleep(1)
    claimed = await world.node(2).journal.claim_lease(bytes([2]) * 16, lease_s=20)
    assert isinstance(claimed, Lease)


async def test_a_deposed_anchor_writes_nothing(autojump_clock: MockClock) -> None:
    world = World()
    node = world.node(1)
    node.endpoint.latency_s = 15.0  # its look takes longer than its lease
    world.commit(1, ask=True)
    async with living(node):
        await trio.sleep(100)
        thief = world.node(2)
        world.database.anchors.lease.held_until_us = 0  # type: ignore[union-attr]
        assert isinstance(await thief.journal.claim_lease(thief.holder, lease_s=10_000), Lease)
        rows = len(world.database.anchors.transactions), len(world.history())
        await world.pass_time(300)
        assert (len(world.database.anchors.transactions), len(world.history())) == rows
        assert node.vitals.role == "standby"


@pytest.mark.parametrize("ours_waits", [True, False], ids=["a nonce we signed for", "the next nonce"])
async def test_an_account_that_is_used_elsewhere_stops_everything(
    autojump_clock: MockClock, ours_waits: bool
) -> None:
    world = World()
    node = world.node()
    async with living(node):
        world.commit(1, ask=True)
        await world.pass_time(120)
        assert world.all_final()
        if ours_waits:
            world.commit(2, ask=True)
            await trio.sleep(5)
        world.chain.drop_pool()
        world.chain.mine(empty=True)
        world.chain.latest.nonces[ADDRESS] = 2
        await trio.sleep(12)
        world.commit(3, ask=True)
        await world.pass_time(200)
        assert node.vitals.role == "stopped"
        assert "account used elsewhere" in (node.vitals.trouble or "")
    assert nonces(world) == ([0, 1] if ours_waits else [0])
    assert len({*world.chain.sent}) == len(nonces(world))


async def test_a_contract_that_others_use_stops_everything(autojump_clock: MockClock) -> None:
    world = World()
    node = world.node()
    async with living(node):
        await trio.sleep(5)
        world.chain.latest.contract.count = 7
        world.commit(1, ask=True)
        await world.pass_time(30)
        assert node.vitals.role == "active", "an endpoint that lags says such things, too"
        assert node.vitals.trouble is not None
        await world.pass_time(60)
        assert node.vitals.role == "stopped"
        assert "sequencer anchor resume" in (node.vitals.trouble or "")
        assert world.chain.sent == []
        lease = await world.node(2).journal.claim_lease(bytes([2]) * 16, lease_s=1)
        assert isinstance(lease, Lease), "the operator's command can have it"


async def test_a_signer_with_another_key_sends_nothing(autojump_clock: MockClock) -> None:
    world = World()
    node = world.node()
    node.signer.key = PrivateKey(b"\1" * 32)
    world.commit(1, ask=True)
    async with living(node):
        await world.pass_time(60)
        assert (node.vitals.role, world.chain.sent) == ("stopped", [])
        assert world.database.anchors.transactions == []


@pytest.mark.parametrize("what", ["chain", "journal", "signer"])
async def test_what_is_away_costs_no_life(autojump_clock: MockClock, what: str) -> None:
    world = World()
    node = world.node()
    world.commit(1, ask=True)
    node.endpoint.away = what == "chain"
    node.signer.away = what == "signer"
    world.database.reachable = what != "journal"
    async with living(node):
        await world.pass_time(100)
        assert "away" in (node.vitals.trouble or "")
        node.endpoint.away = node.signer.away = False
        world.database.reachable = True
        await world.pass_time(240)
        assert world.all_final()
        assert node.vitals.trouble is None
    assert node.deaths == []


async def test_a_chain_that_lies_or_is_another_one_is_not_believed(autojump_clock: MockClock) -> None:
    world = World()
    node = world.node()
    world.commit(1, ask=True)
    node.endpoint.faults.extend(["another chain"])
    async with living(node):
        await trio.sleep(5)
        assert (node.vitals.role, world.chain.sent) == ("stopped", [])
        await world.pass_time(62)
        assert node.vitals.role == "active"
        node.endpoint.faults.extend(["lies"] * 20)
        await trio.sleep(5)
        assert "chain lies" in (node.vitals.trouble or "")
        assert node.security.counts["anchor_failed"] == 2
        node.endpoint.faults.clear()
        await world.pass_time(120)
        assert world.all_final()
