"""Nodes that share a limit keep it together, and each by itself while nobody hears them."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from actors import rate_sharing
from actors.buckets import Limit
from actors.mailbox import Inbox, Mailbox
from actors.rate_limits import LIMITED, TENANT_EVENTS, RateLimits
from actors.rate_sharing import PATIENCE_NS, TOLD_AT_ONCE, RateKeeper, Sharing, now_ns, portion
from journal.memory import MemoryDatabase, MemoryJournal
from journal.port import RATE_REFILL_S_MAX, RATE_TOKEN, RateSpending

KEY = b"k" * 16
MS = 1_000_000
MINUTE_NS = 60_000 * MS


def a_node(limit: Limit) -> RateLimits:
    return RateLimits(dict.fromkeys(LIMITED, limit), sharing=Sharing())


def passes(node: RateLimits, at_ns: int, key: bytes = KEY) -> bool:
    verdict = node.of_credential(key, None, "events_ingest", at_ns)
    assert verdict is not None
    return verdict.allowed


@dataclass
class SharedTable:
    """What the database does, without one."""

    units: dict[bytes, int] = field(default_factory=dict)
    at_us: dict[bytes, int] = field(default_factory=dict)

    def spend(self, spendings: list[RateSpending], now_us: int) -> dict[bytes, int]:
        for one in spendings:
            full = one.burst * RATE_TOKEN
            since_us = now_us - self.at_us.get(one.bucket, now_us)
            refilled = self.units.get(one.bucket, full) + since_us * one.per_minute
            self.units[one.bucket] = min(full, refilled) - one.tokens * RATE_TOKEN
            self.at_us[one.bucket] = now_us
        return {one.bucket: self.units[one.bucket] for one in spendings}


ACTS = st.tuples(
    st.integers(0, 3),  # which node
    st.sampled_from(["asked", "asked", "flooded", "told", "told late"]),
    st.integers(0, 2_000),  # milliseconds before it
)


@given(
    st.integers(1, 4),
    st.builds(Limit, st.integers(1, 6_000), st.integers(1, 200)),
    st.lists(ACTS, max_size=150),
)
def test_nodes_that_are_heard_let_pass_what_one_would_and_a_few_portions(
    nodes: int, limit: Limit, acts: list[tuple[int, str, int]]
) -> None:
    shared = SharedTable()
    nodes_ = [a_node(limit) for _ in range(nodes)]
    now = 0
    passed = 0
    for which, act, pause_ms in acts:
        node = nodes_[which % nodes]
        sharing = node.sharing
        assert sharing is not None
        # Whoever waits longer than that to be heard is alone, which is another promise.
        now += min(pause_ms * MS, PATIENCE_NS // 40)
        for other in nodes_:
            _heard_in_time(other, shared, now)
        if act == "asked":
            passed += passes(node, now)
        elif act == "flooded":
            passed += sum(passes(node, now) for _ in range(limit.burst + 3))
        else:
            spendings = sharing.to_tell()
            levels = shared.spend(spendings, now // 1000)
            if act == "told late":
                passed += sum(passes(node, now) for _ in range(3))
                now += 20 * MS
            sharing.told(spendings, levels, now)
        most = limit.burst + now * limit.per_minute / MINUTE_NS + (2 * nodes - 1) * portion(limit)
        assert passed <= most


def _heard_in_time(node: RateLimits, shared: SharedTable, now: int) -> None:
    sharing = node.sharing
    assert sharing is not None
    since = sharing._waiting_since_ns
    if since is not None and now - since > PATIENCE_NS // 2:
        spendings = sharing.to_tell()
        sharing.told(spendings, shared.spend(spendings, now // 1000), now)


def test_a_node_that_let_a_portion_pass_untold_waits_until_it_was_heard() -> None:
    node = a_node(Limit(6000, 500))
    assert sum(passes(node, 0) for _ in range(500)) == 50
    sharing = node.sharing
    assert sharing is not None
    spendings = sharing.to_tell()
    assert [(one.tokens, one.burst, one.per_minute) for one in spendings] == [(50, 500, 6000)]
    assert not passes(node, MS), "told is not yet heard"
    sharing.told(spendings, {spendings[0].bucket: 450 * RATE_TOKEN}, MS)
    assert sum(passes(node, MS) for _ in range(500)) == 50


def test_the_events_of_a_tenant_are_told_as_many_as_they_were() -> None:
    node = a_node(Limit(6000, 500))
    sharing = node.sharing
    assert sharing is not None

    def left(now: int = 0, events: int = 1) -> bool:
        verdict = node.of_tenant(KEY, events, now)
        assert verdict is not None
        return verdict.allowed

    assert left(events=30)
    node.charge_tenant(KEY, 10, 0)
    assert left(events=40)
    assert not left(events=1000), "more than a portion is not told yet"
    spendings = sharing.to_tell()
    assert [(one.bucket, one.tokens) for one in spendings] == [(KEY + TENANT_EVENTS.encode(), 80)]
    sharing.told(spendings, {spendings[0].bucket: -100 * RATE_TOKEN}, 0)
    assert not left(), "other nodes had the rest, and more"
    assert not left(1009 * MS)
    assert left(1010 * MS)
    sharing.unheard()
    node.charge_tenant(KEY, 2, 1010 * MS)
    assert not left(1010 * MS)
    assert [one.tokens for one in sharing.to_tell()] == [1], "what is decided alone is nobody else's business"


def test_what_other_nodes_spent_is_believed_and_a_debt_waited_off() -> None:
    node = a_node(Limit(600, 100))
    assert passes(node, 0)
    sharing = node.sharing
    assert sharing is not None
    spendings = sharing.to_tell()
    sharing.told(spendings, {spendings[0].bucket: -4 * RATE_TOKEN}, 0)
    refused = node.of_credential(KEY, None, "events_ingest", 0)
    assert refused is not None
    assert (refused.allowed, refused.wait_s) == (False, 1)
    assert not passes(node, 499 * MS)
    assert passes(node, 500 * MS)


def test_nobody_heard_us_so_the_limit_is_our_own_and_never_none() -> None:
    node = a_node(Limit(60, 20))
    sharing = node.sharing
    assert sharing is not None
    assert sum(passes(node, 0) for _ in range(100)) == 2
    assert sum(passes(node, PATIENCE_NS) for _ in range(100)) == 0, "not yet"
    assert not sharing.alone
    assert sum(passes(node, PATIENCE_NS + 1) for _ in range(100)) == 19
    assert sharing.alone
    spendings = sharing.to_tell()
    assert spendings[0].tokens == 2, "what is decided alone is nobody else's business"
    sharing.unheard()
    assert (sharing.alone, sharing.failures) == (True, 1)
    assert sum(passes(node, PATIENCE_NS + 1) for _ in range(100)) == 0
    sharing.told(spendings, {spendings[0].bucket: 20 * RATE_TOKEN}, PATIENCE_NS + 1)
    assert not sharing.alone
    assert sum(passes(node, PATIENCE_NS + 1) for _ in range(100)) == 2


def test_a_bucket_made_anew_before_the_answer_is_the_one_that_is_corrected() -> None:
    node = a_node(Limit(60_000, 30))
    sharing = node.sharing
    assert sharing is not None
    assert passes(node, 0)
    node.forget_full(100 * MS)
    assert node.buckets == 0
    assert passes(node, 100 * MS)
    spendings = sharing.to_tell()
    assert [one.tokens for one in spendings] == [2]
    sharing.told(spendings, {spendings[0].bucket: 0}, 100 * MS)
    assert not passes(node, 100 * MS)


def test_what_passed_while_the_answer_was_on_its_way_is_not_forgotten() -> None:
    node = a_node(Limit(60, 50))
    sharing = node.sharing
    assert sharing is not None
    assert passes(node, 0)
    spendings = sharing.to_tell()
    assert passes(node, 0)
    sharing.told(spendings, {spendings[0].bucket: 2 * RATE_TOKEN}, 0)
    assert [passes(node, 0) for _ in range(2)] == [True, False]
    assert [one.tokens for one in sharing.to_tell()] == [2]


def test_of_very_many_buckets_those_that_wait_longest_are_told_first() -> None:
    node = a_node(Limit(6000, 500))
    sharing = node.sharing
    assert sharing is not None
    keys = [number.to_bytes(16, "big") for number in range(TOLD_AT_ONCE + 5)]
    for key in keys:
        assert passes(node, 0, key)
    first = sharing.to_tell()
    assert len(first) == TOLD_AT_ONCE
    assert all(passes(node, 0, key) for key in keys)
    sharing.told(first, {one.bucket: 400 * RATE_TOKEN for one in first}, 0)
    second = sharing.to_tell()
    assert [(one.bucket[:16], one.tokens) for one in second[:6]] == [
        *((key, 2) for key in keys[-5:]),
        (keys[0], 1),
    ]


class Beats:
    """The life of a keeper, on a journal of memory and virtual time."""

    def __init__(self, database: MemoryDatabase, limit: Limit) -> None:
        self.node = a_node(limit)
        self.journal = MemoryJournal(database, node_id=bytes(16))
        self.keeper = RateKeeper(self.node, journal=self.journal)

    async def run(self) -> None:
        await self.keeper.run(Inbox(Mailbox("rates", letters_max=1)))


async def test_two_keepers_hold_two_nodes_to_one_limit(autojump_clock: trio.testing.MockClock) -> None:
    database = MemoryDatabase(now_us=lambda: int(trio.current_time() * 1_000_000))
    limit = Limit(600, 100)
    lives = [Beats(database, limit) for _ in range(2)]
    async with trio.open_nursery() as nursery:
        for life in lives:
            nursery.start_soon(life.run)
        passed = 0
        for _ in range(1000):  # ten seconds of far too much
            for life in lives:
                passed += sum(passes(life.node, now_ns()) for _ in range(5))
            await trio.sleep(0.01)
        assert 100 + 100 - 2 <= passed <= 100 + 100 + 3 * portion(limit)
        nursery.cancel_scope.cancel()


async def test_a_database_that_is_away_leaves_each_node_its_own_limit_and_is_asked_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    database = MemoryDatabase(now_us=lambda: int(trio.current_time() * 1_000_000))
    limit = Limit(600, 100)
    lives = [Beats(database, limit) for _ in range(2)]
    async with trio.open_nursery() as nursery:
        for life in lives:
            nursery.start_soon(life.run)
        database.reachable = False
        assert all(passes(life.node, now_ns()) for life in lives)
        await trio.sleep(1)
        sharings = [life.node.sharing for life in lives]
        assert all(sharing is not None and sharing.alone and sharing.failures for sharing in sharings)
        assert [sum(passes(life.node, now_ns()) for _ in range(300)) for life in lives] == [100, 100]
        database.reachable = True
        await trio.sleep(1.1)
        assert not any(sharing is None or sharing.alone for sharing in sharings)
        assert {name: units // RATE_TOKEN for name, (units, _) in database.rates.items()} == {
            KEY + b"events_ingest": 98
        }
        nursery.cancel_scope.cancel()


async def test_a_keeper_lets_full_buckets_and_idle_rows_go(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_sharing, "FORGET_IDLE_EVERY_S", 5.0)
    database = MemoryDatabase(now_us=lambda: int(trio.current_time() * 1_000_000))
    life = Beats(database, Limit(60, 10))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(life.run)
        await trio.sleep(0.01)
        assert passes(life.node, now_ns())
        await trio.sleep(0.5)
        assert (life.node.buckets, len(database.rates)) == (1, 1)
        await trio.sleep(2)
        assert life.node.buckets == 0
        [(name, (units, at_us))] = database.rates.items()
        database.rates[name] = (units, at_us - RATE_REFILL_S_MAX * 1_000_000)
        await trio.sleep(6)
        assert len(database.rates) == 0
        nursery.cancel_scope.cancel()
