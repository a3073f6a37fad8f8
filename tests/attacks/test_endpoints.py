"""The endpoint lies, lags, hangs, loses answers, or speaks of another chain."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.attacks.world import World
from tests.chain import bad_endpoint as bad

pytestmark = pytest.mark.slow


def test_an_endpoint_of_another_chain_is_not_sent_a_thing(world: World) -> None:
    world.anchor.kill_9()
    signed = len(world.transactions())
    world.endpoint.does(bad.another_chain(1))
    before = world.endpoint.asked("eth_sendRawTransaction")
    batch = world.commit(world.tenant())
    world.anchor.start()
    world.says("another chain")
    assert len(world.transactions()) == signed
    assert world.endpoint.asked("eth_sendRawTransaction") == before
    world.endpoint.behaves()
    world.anchor.kill_9()
    world.anchor.start()
    world.verdict(batch)


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param(bad.flips_status, id="status"),
        pytest.param(bad.alters_logs, id="logs", marks=pytest.mark.thorough),
        pytest.param(bad.foreign_hashes, id="hashes", marks=pytest.mark.thorough),
    ],
)
def test_a_lie_about_what_became_of_it_is_noticed_and_not_written_down(
    world: World, lie: Callable[[], bad.Fault]
) -> None:
    world.endpoint.does(lie())
    batch = world.commit(world.tenant())
    world.says("chain lies")
    world.endpoint.behaves()
    world.verdict(batch)
    assert world.walk(batch) == ["pending (planned)", "submitted", "included", "safe", "finalized"]


@pytest.mark.parametrize(
    ("fault", "method"),
    [
        pytest.param(bad.loses_answer(), "eth_sendRawTransaction", id="sent and unheard"),
        pytest.param(bad.hangs(), "eth_getTransactionReceipt", id="hangs", marks=pytest.mark.thorough),
        pytest.param(bad.closes(), "eth_sendRawTransaction", id="not sent", marks=pytest.mark.thorough),
        pytest.param(bad.says_http(503), None, id="not now", marks=pytest.mark.thorough),
        pytest.param(
            bad.says_bytes(b"{]"), "eth_getBlockByNumber", id="nonsense", marks=pytest.mark.thorough
        ),
    ],
)
def test_an_endpoint_in_trouble_costs_time_and_nothing_else(
    world: World, fault: bad.Fault, method: str | None
) -> None:
    world.endpoint.does(fault, method=method, times=2)
    batch = world.commit(world.tenant())
    world.verdict(batch)
    assert world.never_went_back(batch)


def test_an_endpoint_that_stands_still_is_not_believed_about_nonces(world: World) -> None:
    first = world.commit(world.tenant())
    world.becomes(first, "included", "safe", "finalized")
    world.endpoint.does(bad.stands_still(20), times=60)
    second = world.commit(world.tenant())
    world.verdict(first, second)
