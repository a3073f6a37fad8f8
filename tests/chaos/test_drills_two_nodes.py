"""Drills with two servers on one database: one of them is stopped while its transaction is open."""

from __future__ import annotations

import os
import secrets
import signal
from pathlib import Path

import pytest
import trio

from tests.chaos.clients import MANY_EVENTS
from tests.chaos.house import built
from tests.chaos.shop import open_shop
from tests.chaos.wire import Point
from tests.e2e.world import Server

pytestmark = pytest.mark.slow

GOES_ON_WITHIN_S = 10.0
AS_BY_DEFAULT = {
    "DB_UNIT_DEADLINE_S": "15",
    "DB_STATEMENT_TIMEOUT_S": "10",
    "DB_LOCK_TIMEOUT_S": "5",
    "REQUEST_TIMEOUT_SECS": "30",
}
"""The promise is made for the settings that people run with."""


@pytest.mark.parametrize("point", ["commit", pytest.param("copied", marks=pytest.mark.thorough)])
async def test_a_node_stopped_inside_a_transaction_holds_up_the_other_for_at_most_ten_seconds(
    tmp_path: Path, point: Point
) -> None:
    """``copied``: PostgreSQL waits for rows, and has no timeout for that. ``commit``: idle in transaction."""
    shared = {"PAYLOAD_ENCRYPTION_KEYS": secrets.token_hex(32), **AS_BY_DEFAULT}
    async with built(tmp_path, **shared) as house, open_shop(house.server) as shop:
        other = Server(tmp_path / "other", DATABASE_URL=house.postgres.dsn(), **shared)
        await trio.to_thread.run_sync(other.start)
        try:
            await trio.to_thread.run_sync(other.wait_ready)
            await shop.post_until_answered(*shop.request())
            await shop.post_until_answered(*shop.request(), server=other)
            held, meanwhile = shop.request(MANY_EVENTS), shop.request()
            strike = house.proxy.strike(point, "held")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(shop.post_until_answered, *held)
                with trio.fail_after(10):
                    await strike.hit.wait()
                os.kill(house.server.pid, signal.SIGSTOP)
                with trio.fail_after(GOES_ON_WITHIN_S):
                    await shop.post_until_answered(*meanwhile, server=other)
                house.proxy.release()
                os.kill(house.server.pid, signal.SIGCONT)
            for request in (held, meanwhile):
                told = await shop.post_until_answered(*request)
                again = await shop.post_until_answered(*request, server=other)
                assert again["receipts"] == told["receipts"]
            assert await shop.head() == 9 + MANY_EVENTS
            assert await shop.broken_promises() == []
        finally:
            other.kill_9()
