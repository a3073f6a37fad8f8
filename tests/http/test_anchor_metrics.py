"""Anchoring in /metrics: what is told, how seldom the journal is asked, what is absent rather than wrong."""

from __future__ import annotations

from hashlib import sha256

import httpx

from tests.http import anchors
from tests.http.anchors import GAS_PRICE, GAS_USED, paper, samples
from tests.http.doubles import BOOTSTRAP, Cardboard, serving


async def scrape(client: httpx.AsyncClient) -> dict[str, float]:
    found = samples((await client.get("/metrics")).text)
    return {name: value for name, value in found.items() if name.startswith("sequencer_anchor_")}


async def test_with_anchor_off_there_is_the_role_and_nothing_else() -> None:
    async with serving() as house, house.client(house.api_key(role="monitor"), admin=True) as client:
        found = await scrape(client)
        assert found.pop('sequencer_anchor_role{role="off"}') == 1
        assert set(found.values()) == {0}
        assert {name.partition("{")[0] for name in found} == {"sequencer_anchor_role"}
        assert house.journal.anchor_reads == 0


async def test_numbers_of_the_process_and_of_the_journal() -> None:
    house = Cardboard({"anchor_budget_per_day_eth": 0.5}, anchoring=anchors.anchoring())
    async with serving(house=house), house.client(house.api_key(role="monitor"), admin=True) as client:
        batch = [house.journal.commit([sha256(b"%d" % n).digest() for n in range(4)], at) for at in (1, 5)]
        house.journal.commit([bytes(32)], 9)
        assert house.anchoring is not None
        number = anchors.planned(house.journal.anchors, *batch)
        anchors.mined(paper(house.anchoring), house.journal.anchors, number, *batch)
        anchors.moved(house.journal.anchors, number, "finalized")
        vitals = house.anchoring.vitals
        vitals.sent, vitals.replaced, vitals.reverted, vitals.reorganised = 5, 2, 1, 3
        vitals.trouble, vitals.breaker_open, vitals.looked_at_s = "budget spent: …", True, 1.5e9
        found = await scrape(client)
        assert found == {
            **{f'sequencer_anchor_role{{role="{role}"}}': 0 for role in ("off", "apart", "starting")},
            **{f'sequencer_anchor_role{{role="{role}"}}': 0 for role in ("standby", "stopped")},
            'sequencer_anchor_role{role="active"}': 1,
            "sequencer_anchor_budget_wei": 5e17,
            "sequencer_anchor_backlog_max": 10_000,
            "sequencer_anchor_local_chain": 0,
            "sequencer_anchor_trouble": 1,
            "sequencer_anchor_breaker_open": 1,
            "sequencer_anchor_spent_today_wei": 0,
            "sequencer_anchor_balance_wei": 1e18,
            "sequencer_anchor_last_look_seconds": 1.5e9,
            "sequencer_anchor_latest_block": 104,
            'sequencer_anchor_transactions_total{kind="sent"}': 5,
            'sequencer_anchor_transactions_total{kind="replaced"}': 2,
            'sequencer_anchor_transactions_total{kind="reverted"}': 1,
            "sequencer_anchor_reorganised_total": 3,
            "sequencer_anchor_waiting_commitments": 1,
            **{f'sequencer_anchor_open{{state="{state}"}}': 0 for state in ("pending", "submitted")},
            **{f'sequencer_anchor_open{{state="{state}"}}': 0 for state in ("included", "safe")},
            "sequencer_anchor_oldest_unfinalized_seconds": 99.877,
            "sequencer_anchor_lease_held": 0,
            "sequencer_anchor_gas_used_total": GAS_USED,
            "sequencer_anchor_cost_wei_total": GAS_USED * GAS_PRICE,
            "sequencer_anchor_anchored_events_total": 8,
            "sequencer_anchor_gas_per_1000_events": GAS_USED * 1000 / 8,
        }


async def test_scrapes_share_a_look_and_an_anchor_apart_has_no_numbers_of_its_own_here() -> None:
    house = Cardboard({"rate_limit_mode": "off"}, anchoring=anchors.anchoring())
    async with serving(house=house), house.client(house.api_key(role="monitor"), admin=True) as client:
        assert house.anchoring is not None
        house.anchoring.vitals.role = "apart"
        for _ in range(5):
            found = await scrape(client)
        assert house.journal.anchor_reads == 1
        assert "sequencer_anchor_waiting_commitments" in found
        assert "sequencer_anchor_balance_wei" not in found
        assert "sequencer_anchor_trouble" not in found


async def test_while_the_database_is_away_its_numbers_are_absent_and_it_is_not_asked() -> None:
    house = Cardboard(anchoring=anchors.anchoring())
    async with serving(house=house), house.client(BOOTSTRAP, admin=True) as client:
        assert "sequencer_anchor_waiting_commitments" in await scrape(client)
        house.readiness.wait_for("database", "does not answer")
        found = await scrape(client)
        assert "sequencer_anchor_waiting_commitments" not in found
        assert found["sequencer_anchor_balance_wei"] == 1e18
        assert house.journal.anchor_reads == 1
