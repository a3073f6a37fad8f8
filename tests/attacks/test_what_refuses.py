"""A contract that is paused or does not know us, an empty account, a budget that is spent."""

from __future__ import annotations

import pytest

from tests.anvil import ETHER
from tests.attacks.world import OWNER, World
from ves.anchor_calls import address_word, calldata, number_word

pytestmark = pytest.mark.slow


def test_a_paused_contract_costs_no_gas_and_is_tried_again(world: World) -> None:
    signed = len(world.transactions())
    world.owner_sends("pause()")
    batch = world.commit(world.tenant())
    world.says("Paused")
    assert len(world.transactions()) == signed
    world.owner_sends("unpause()")
    world.verdict(batch)


def test_a_contract_paused_while_we_were_in_the_pool_refuses_and_we_come_again(world: World) -> None:
    batch = world.commit(world.tenant())
    with world.miner.held():
        world.becomes(batch, "submitted")
        # Ahead of ours in the same block.
        world.chain.rpc("anvil_impersonateAccount", OWNER)
        pause = {"from": OWNER, "to": world.contract, "data": "0x" + calldata("pause()").hex()}
        dear = {"maxPriorityFeePerGas": hex(40 * 10**9), "maxFeePerGas": hex(400 * 10**9)}
        world.chain.rpc("eth_sendTransaction", pause | dear | {"gas": hex(200_000)})
        world.chain.mine(1)
        world.until(lambda: "pending (reverted: Paused)" in world.walk(batch))
    world.owner_sends("unpause()")
    world.verdict(batch)
    nonces = world.sql(
        "SELECT DISTINCT nonce FROM record.anchor_transactions "
        "JOIN record.anchor_batches USING (anchor_number) WHERE batch_id = $1",
        batch,
    )
    assert len(nonces) == 2


def test_an_account_that_was_deauthorised_waits_for_its_owner(world: World) -> None:
    world.owner_sends("setSequencer(address,bool)", address_word(world.account), number_word(0))
    batch = world.commit(world.tenant())
    world.says("Not authorized")
    assert world.state(batch) in ("waiting", "pending")
    world.owner_sends("setSequencer(address,bool)", address_word(world.account), number_word(1))
    world.verdict(batch)


def test_an_empty_account_says_so_and_goes_on_when_it_is_filled(world: World) -> None:
    world.fund(1)
    batch = world.commit(world.tenant())
    world.says("account too poor")
    world.fund(100 * ETHER)
    world.verdict(batch)


def test_what_a_day_may_cost_is_not_exceeded(world: World) -> None:
    world.anchor.stop()
    signed = len(world.transactions())
    batch = world.commit(world.tenant())
    world.anchor.start(ANCHOR_BUDGET_PER_DAY_ETH="0.000001", ANCHOR_AGE_MAX_SECS="1")
    world.says("budget spent")
    assert len(world.transactions()) == signed
    assert world.anchor.stop() == 0
    world.anchor.start()
    world.verdict(batch)
