"""Reorganisations at every state, dropped transactions, a nonce that others used."""

from __future__ import annotations

import itertools

import pytest

from tests.attacks.world import World
from ves.anchor_transactions import decode_transaction

pytestmark = pytest.mark.slow


def test_a_commitment_is_anchored_and_becomes_final(world: World) -> None:
    batch = world.commit(world.tenant())
    world.verdict(batch)
    assert world.walk(batch) == ["pending (planned)", "submitted", "included", "safe", "finalized"]


def test_a_reorganisation_that_drops_the_block_sends_the_same_bytes_again(world: World) -> None:
    batch = world.commit(world.tenant())
    with world.miner.held():
        world.becomes(batch, "submitted")
        world.chain.mine(1)
        world.becomes(batch, "included")
        before = world.transactions()
        world.chain.rpc("anvil_reorg", 1, [])
        world.becomes(batch, "pending", "submitted")
        assert world.transactions() == before
    world.verdict(batch)
    assert "pending (reorganised)" in world.walk(batch)
    assert world.transactions() == before


def test_a_reorganisation_of_a_safe_block_is_a_way_back_too(world: World) -> None:
    batch = world.commit(world.tenant())
    with world.miner.held():
        world.becomes(batch, "submitted")
        world.chain.mine(3)
        world.becomes(batch, "safe")
        world.chain.rpc("anvil_reorg", 3, [])
        world.becomes(batch, "pending", "submitted")
    world.verdict(batch)
    walked = world.walk(batch)
    assert walked.index("safe") < walked.index("pending (reorganised)") < walked.index("finalized")


def test_a_dropped_transaction_is_given_to_the_pool_again(world: World) -> None:
    batch = world.commit(world.tenant())
    with world.miner.held():
        world.becomes(batch, "submitted")
        [*_, last] = world.transactions()
        world.chain.rpc("anvil_dropTransaction", "0x" + last["tx_hash"].hex())
        assert world.chain.rpc("eth_getTransactionByHash", "0x" + last["tx_hash"].hex()) is None
        world.until(lambda: world.pooled() >= 1)
    world.verdict(batch)


def test_a_transaction_that_no_block_takes_is_replaced_by_one_that_offers_more_in_both(world: World) -> None:
    batch = world.commit(world.tenant())
    with world.miner.held():
        world.becomes(batch, "submitted")
        nonce = world.transactions()[-1]["nonce"]
        world.until(lambda: len([t for t in world.transactions() if t["nonce"] == nonce]) >= 3)
    world.verdict(batch)
    offers = world.sql(
        "SELECT max_fee_per_gas, max_priority_fee_per_gas, raw FROM record.anchor_transactions "
        "WHERE nonce = $1 ORDER BY attempt",
        nonce,
    )
    for (fee, tip, _), (next_fee, next_tip, _) in itertools.pairwise(offers):
        assert next_fee * 10 >= fee * 11
        assert next_tip * 10 >= tip * 11
    # All of them say the same to the contract.
    assert len({decode_transaction(raw).unsigned.data for _, _, raw in offers}) == 1


def test_while_gas_costs_more_than_the_cap_nothing_is_offered(world: World) -> None:
    signed = len(world.transactions())
    with world.miner.held():
        world.chain.rpc("anvil_setNextBlockBaseFeePerGas", hex(500 * 10**9))
        world.chain.mine(1)
        batch = world.commit(world.tenant())
        world.says("fees above the cap")
        assert len(world.transactions()) == signed
    # Empty blocks lower it by an eighth each.
    world.verdict(batch)


def test_a_spike_after_it_was_sent_is_outbid_or_waited_out(world: World) -> None:
    batch = world.commit(world.tenant())
    with world.miner.held():
        world.becomes(batch, "submitted")
        world.chain.rpc("anvil_setNextBlockBaseFeePerGas", hex(100 * 10**9))
        world.chain.mine(1)
        assert world.state(batch) == "submitted"
    world.verdict(batch)
