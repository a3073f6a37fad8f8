"""Two nodes on one database, with nothing between them but the compare-and-set of the append.

The same tenants go through both at once. Neither node knows of the other or is told when it dies.
"""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from tests.e2e.nodes import Posted, RoamingLoad, metrics, restarts
from tests.e2e.verdict import acknowledged_everything, audited
from tests.e2e.world import Server, Tenant

pytestmark = pytest.mark.slow

REPLAYS_MAX = 120
CONTENTION_PATIENCE_S = 60


def through_both(nodes: list[Server], tenants: int) -> list[Tenant]:
    first = [Tenant(nodes[0]) for _ in range(tenants)]
    return [seen for tenant in first for seen in (tenant, tenant.seen_from(nodes[1]))]


def replays_are_the_same_on_the_other_node(load: RoamingLoad) -> None:
    one, two = load.nodes
    for posted in random.Random(5).sample(load.posted, min(REPLAYS_MAX, len(load.posted))):
        other = posted.tenant.seen_from(two if posted.node is one else one)
        answer = other.post_raw(posted.body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["eventsReplayed"] == len(posted.receipts)
        assert answer.json()["receipts"] == posted.receipts
        other.http.close()


def signers(posted: list[Posted]) -> set[str]:
    return {receipt["sequencerId"] for one in posted for receipt in one.receipts}


def test_two_nodes_that_are_killed_in_turn_lose_double_and_skip_nothing(nodes: list[Server]) -> None:
    chance = random.Random(11)
    tenants = through_both(nodes, 3)
    load = RoamingLoad(tenants, batch=5, nodes=nodes, pause_s=0.05)
    load.start()
    for turn in range(4):
        time.sleep(chance.uniform(0.5, 1.0))
        for node in nodes:
            workers = [pid for pid, line in node.children() if "actors.worker" in line]
            os.kill(chance.choice(workers), signal.SIGKILL)
        time.sleep(chance.uniform(0.3, 0.8))
        victim = nodes[turn % 2]
        victim.kill_9()
        time.sleep(chance.uniform(0.2, 0.6))
        victim.start()
        victim.wait_ready()
    time.sleep(1.0)
    load.stop()
    assert len(load.acknowledged) > 300
    assert signers(load.posted) == {n.environment["VES_SEQUENCER_ID"] for n in nodes}, "one node did nothing"
    acknowledged_everything(tenants[::2], load)
    audited(tenants[1::2], load)  # as the second node shows it; the first must show the same:
    assert [t.events(limit=1000) for t in tenants[::2]] == [t.events(limit=1000) for t in tenants[1::2]]
    replays_are_the_same_on_the_other_node(load)


def test_lost_compare_and_sets_cost_no_life_on_either_node(nodes: list[Server]) -> None:
    tenants = through_both(nodes, 1)
    load = RoamingLoad(tenants * 3, batch=2, nodes=nodes, roams=False, pause_s=0.01)
    load.start()
    give_up_at = time.monotonic() + CONTENTION_PATIENCE_S
    while sum(moved := [metrics(node)["sequencer_appends_moved_total"] for node in nodes]) < 20:
        assert time.monotonic() < give_up_at, f"there was no contention: {moved}"
        time.sleep(0.2)
    load.stop()
    for node in nodes:
        assert {"sequencers", "verifiers/0", "encryptors/0"} <= restarts(node).keys()
        assert not any(restarts(node).values())
    assert set(load.answers) <= {200, 503}
    acknowledged_everything(tenants[:1], load)
    audited(tenants[:1], load)
    replays_are_the_same_on_the_other_node(load)
