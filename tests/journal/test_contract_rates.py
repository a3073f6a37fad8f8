"""Contract of the shared rate buckets, for every journal: refilled by the clock, charged, owed, forgotten."""

from __future__ import annotations

import time

import pytest
import trio
from journal_builders import uuid
from journal_worlds import MemoryWorld, PostgresWorld, World, sql

from journal.port import RATE_REFILL_S_MAX, RATE_TOKEN, JournalAway, RateSpending

SLOWLY = 1
"""Token a minute: what a test's time brings is less than one."""


def tokens(units: int) -> int:
    return units // RATE_TOKEN


async def test_a_bucket_nobody_knows_is_full_and_every_node_sees_what_was_spent(world: World) -> None:
    bucket = uuid() + b"events_read"
    spending = RateSpending(bucket, SLOWLY, 100, 30)
    assert tokens((await world.journal.spend_rates([spending]))[bucket]) == 70
    assert tokens((await world.other.spend_rates([spending]))[bucket]) == 40
    assert tokens((await world.journal.spend_rates([RateSpending(bucket, SLOWLY, 100, 0)]))[bucket]) == 40


async def test_more_than_there_is_becomes_a_debt(world: World) -> None:
    bucket = uuid()
    await world.journal.spend_rates([RateSpending(bucket, SLOWLY, 10, 9)])
    assert tokens((await world.other.spend_rates([RateSpending(bucket, SLOWLY, 10, 9)]))[bucket]) == -8


async def test_time_refills_a_bucket_evenly_and_never_over_its_burst(world: World) -> None:
    fast, full = uuid(), uuid()
    before = time.monotonic()
    levels = await world.journal.spend_rates(
        [RateSpending(fast, 60_000, 1_000_000, 1_000_000), RateSpending(full, 60_000_000, 10, 10)]
    )
    assert levels == {fast: 0, full: 0}
    began = time.monotonic()
    await trio.sleep(0.05)
    ended = time.monotonic()
    levels = await world.other.spend_rates([RateSpending(fast, 60_000, 1_000_000, 0)])
    brought = levels[fast] / RATE_TOKEN
    assert 1000 * (ended - began) - 1 <= brought <= 1000 * (time.monotonic() - before) + 1
    assert await world.other.spend_rates([RateSpending(full, 60_000_000, 10, 0)]) == {full: 10 * RATE_TOKEN}


async def test_nodes_that_tell_the_same_buckets_at_once_lose_nothing(world: World) -> None:
    buckets = [uuid() for _ in range(20)]

    async def tell(journal_number: int) -> None:
        journal = (world.journal, world.other)[journal_number % 2]
        ordered = buckets if journal_number % 3 else buckets[::-1]
        for _ in range(5):
            await journal.spend_rates([RateSpending(bucket, SLOWLY, 1000, 1) for bucket in ordered])

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(tell, number)
    levels = await world.journal.spend_rates([RateSpending(bucket, SLOWLY, 1000, 0) for bucket in buckets])
    assert {tokens(level) for level in levels.values()} == {1000 - 30}


async def test_nothing_told_is_answered_with_nothing(world: World) -> None:
    assert await world.journal.spend_rates([]) == {}


async def test_a_database_that_is_away_is_said_to_be(world: World) -> None:
    world.fail_next("spend_rates", "away")
    with pytest.raises(JournalAway):
        await world.journal.spend_rates([RateSpending(uuid(), SLOWLY, 10, 1)])
    assert await world.other.spend_rates([]) == {}


async def test_only_buckets_that_must_be_full_are_forgotten(own_world: World) -> None:
    old, young = uuid(), uuid()
    spendings = [RateSpending(bucket, SLOWLY, 10, 10) for bucket in (old, young)]
    await own_world.journal.spend_rates(spendings)
    await let_pass(own_world, old, RATE_REFILL_S_MAX + 5)
    await let_pass(own_world, young, RATE_REFILL_S_MAX - 60)
    await own_world.other.forget_idle_rates()
    levels = await own_world.journal.spend_rates(
        [RateSpending(bucket, SLOWLY, 1000, 0) for bucket in (old, young)]
    )
    assert tokens(levels[old]) == 1000, "forgotten, so full"
    assert tokens(levels[young]) == 59, "an hour's tokens and no more"


async def let_pass(world: World, bucket: bytes, seconds: int) -> None:
    """As if it had been told so long ago."""
    if isinstance(world, MemoryWorld):
        units, at_us = world.database.rates[bucket]
        world.database.rates[bucket] = (units, at_us - seconds * 1_000_000)
    else:
        assert isinstance(world, PostgresWorld)
        await sql(
            world.dsn,
            "UPDATE work.rate_buckets SET at_us = at_us - $1 WHERE bucket = $2 RETURNING 1",
            arguments=(seconds * 1_000_000, bucket),
        )
