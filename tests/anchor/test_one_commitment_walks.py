"""A commitment's walk to finality, on a chain in memory and virtual time."""

from __future__ import annotations

import pytest
from trio.testing import MockClock

from tests.anchor.worlds import World, living


@pytest.fixture
def clock(autojump_clock: MockClock) -> MockClock:
    return autojump_clock


async def test_commitments_become_one_anchor_and_final(clock: MockClock) -> None:
    world = World()
    node = world.node()
    for store in (1, 2, 3):
        world.commit(store)
    async with living(node):
        await world.pass_time(120)
        assert world.all_final()
    assert world.states() == ["pending", "submitted", "included", "safe", "finalized"]
    assert world.chain.latest.contract.count == 3
    assert len(world.chain.mined()) == 1
    assert (node.vitals.trouble, node.deaths) == (None, [])
