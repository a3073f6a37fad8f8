"""Anchoring in numbers: what this process sees of the chain, and what the journal says of all commitments.

Scrapes share one look at the journal every few seconds, and make none while the database is known to be away:
then its numbers are absent, because an old age of an anchor is a wrong one. With ANCHOR off there is only the
role ``off``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import trio
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from actors.anchor_vitals import Anchoring, AnchorVitals, Role
from journal.port import AnchorSummary, JournalError
from transport.house import House

GOOD_FOR_S = 5.0
WEI_PER_ETH = 10**18
OPEN_STATES = ("pending", "submitted", "included", "safe")


class AnchorNumbers:
    def __init__(self, house: House) -> None:
        self._house = house
        self._looking = trio.Lock()
        self._summary: AnchorSummary | None = None
        self._good_until = -float("inf")

    async def refresh(self) -> None:
        """Before a scrape is answered."""
        if self._house.anchoring is None:
            return
        async with self._looking:
            if "database" in self._house.readiness.reasons:
                self._summary = None
            elif trio.current_time() >= self._good_until:
                try:
                    self._summary = await self._house.journal.anchor_summary()
                except JournalError:
                    self._summary = None
                self._good_until = trio.current_time() + GOOD_FOR_S

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        anchoring = self._house.anchoring
        role = GaugeMetricFamily(
            "sequencer_anchor_role", "1 for what this process does for anchoring.", labels=["role"]
        )
        present = "off" if anchoring is None else anchoring.vitals.role
        for one in ("off", *get_args(Role)):
            role.add_metric([one], one == present)
        yield role
        if anchoring is None:
            return
        settings = self._house.settings
        yield _gauge(
            "budget_wei", "What may be spent in 24 hours.", settings.anchor_budget_per_day_eth * WEI_PER_ETH
        )
        yield _gauge("backlog_max", "ANCHOR_BACKLOG_MAX.", settings.anchor_backlog_max)
        yield _gauge("local_chain", "1: no third party witnesses the chain.", anchoring.development)
        if anchoring.vitals.role != "apart":
            yield from _of_this_process(anchoring)
        if self._summary is not None:
            yield from _of_all(self._summary)


def _of_this_process(anchoring: Anchoring) -> Iterator[Metric]:
    vitals: AnchorVitals = anchoring.vitals
    yield _gauge("trouble", "1: nothing is sent now, the status says why.", vitals.trouble is not None)
    yield _gauge(
        "breaker_open", "1: the chain failed again and again and is left alone.", vitals.breaker_open
    )
    yield _gauge("spent_today_wei", "In 24 hours, and what may still be.", vitals.spent_today_wei)
    if vitals.balance_wei is not None:
        yield _gauge("balance_wei", "Of the anchoring account.", vitals.balance_wei)
    if vitals.looked_at_s:
        yield _gauge("last_look_seconds", "When the chain was last seen, Unix time.", vitals.looked_at_s)
    if vitals.latest_block is not None:
        yield _gauge("latest_block", "The chain's height.", vitals.latest_block)
    transactions = CounterMetricFamily(
        "sequencer_anchor_transactions", "Given to the chain; some of them again.", labels=["kind"]
    )
    for kind, count in (
        ("sent", vitals.sent),
        ("replaced", vitals.replaced),
        ("reverted", vitals.reverted),
    ):
        transactions.add_metric([kind], count)
    yield transactions
    yield _counter("reorganised", "Anchors that a reorganisation took back.", vitals.reorganised)


def _of_all(summary: AnchorSummary) -> Iterator[Metric]:
    yield _gauge("waiting_commitments", "In no anchor yet, counted up to 100,000.", summary.waiting)
    states = GaugeMetricFamily("sequencer_anchor_open", "Anchors that are not final.", labels=["state"])
    for state in OPEN_STATES:
        states.add_metric([state], summary.open_anchors.get(state, 0))
    yield states
    oldest_us = summary.oldest_unfinalized_us
    age_s = max(0, summary.now_us - oldest_us) / 1_000_000 if oldest_us else 0
    yield _gauge("oldest_unfinalized_seconds", "Age of the oldest commitment that is not final.", age_s)
    held = summary.lease_held_until_us > summary.now_us
    yield _gauge("lease_held", "1: an anchor of some node works.", held)
    yield _counter("gas_used", "Of final anchors.", summary.gas_used)
    yield _counter("cost_wei", "Of final anchors.", summary.cost_wei)
    yield _counter("anchored_events", "In final anchors.", summary.anchored_events)
    if summary.anchored_events:
        gas = summary.gas_used * 1000 / summary.anchored_events
        yield _gauge("gas_per_1000_events", "Of final anchors.", gas)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"sequencer_anchor_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(f"sequencer_anchor_{name}", text, value=value)
