"""Reorganisations at every state, dropped transactions, a nonce that others used."""

from __future__ import annotations

import pytest

from tests.attacks.world import World

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
