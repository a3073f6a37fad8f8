"""Two real nodes on one database keep one limit together, and each its own while that is out of reach."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import httpx
import pytest

from tests.e2e.nodes import Operated, metrics
from tests.e2e.world import ROOMY, Tenant

pytestmark = [pytest.mark.slow, pytest.mark.alone]

PER_SECOND, BURST = 20, 100
PORTION = BURST // 10
LIMITED = ROOMY | {
    "RATE_LIMIT_SHARED": "true",
    "RATE_LIMIT_EVENTS_READ_PER_SECOND": str(PER_SECOND),
    "RATE_LIMIT_EVENTS_READ_BURST": str(BURST),
}


@pytest.fixture
def through_both(postgres: Operated, tmp_path: Path) -> Iterator[list[Tenant]]:
    """One tenant with one credential, seen through two nodes."""
    nodes = [postgres.node(tmp_path / name, **LIMITED) for name in ("one", "two")]
    for node in nodes:
        node.start()
    for node in nodes:
        node.wait_ready()
    tenant = Tenant(nodes[0])
    yield [tenant, tenant.seen_from(nodes[1])]
    for node in nodes:
        node.kill_9()


def ask_for(seconds: float, tenants: list[Tenant]) -> tuple[Counter[int], float]:
    """Everybody asks as fast as they can; how often which status came, and how long it took."""
    statuses: Counter[int] = Counter()
    lock = threading.Lock()

    def ask(tenant: Tenant) -> None:
        with httpx.Client(base_url=tenant.server.url, timeout=30, headers=tenant.http.headers) as http:
            while time.monotonic() < began + seconds:
                answer = http.get("/api/v1/ves/head", params=tenant.stream)
                assert answer.status_code == 200 or int(answer.headers["retry-after"]) >= 1
                with lock:
                    statuses[answer.status_code] += 1

    began = time.monotonic()
    threads = [threading.Thread(target=ask, args=(tenant,)) for tenant in tenants for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return statuses, time.monotonic() - began


def test_two_nodes_let_pass_what_one_would_and_three_portions(through_both: list[Tenant]) -> None:
    statuses, seconds = ask_for(5, through_both)
    print(f"{statuses} in {seconds:.1f} s")
    assert set(statuses) == {200, 429}
    allowed = BURST + PER_SECOND * seconds
    assert BURST <= statuses[200] <= allowed + 3 * PORTION


@contextmanager
def out_of_reach(postgres: Operated) -> Iterator[None]:
    """The shared buckets are locked: who asks for them hears nothing."""
    locked, done = threading.Event(), threading.Event()

    async def hold() -> None:
        connection = await asyncpg.connect(postgres.owner_dsn)
        async with connection.transaction():
            await connection.execute("LOCK TABLE work.rate_buckets IN ACCESS EXCLUSIVE MODE")
            locked.set()
            await asyncio.to_thread(done.wait)
        await connection.close()

    holder = threading.Thread(target=lambda: asyncio.run(hold()))
    holder.start()
    try:
        assert locked.wait(10)
        yield
    finally:
        done.set()
        holder.join(10)


def test_out_of_reach_of_the_shared_limit_each_node_keeps_its_own_and_goes_on(
    postgres: Operated, through_both: list[Tenant]
) -> None:
    with out_of_reach(postgres):
        statuses, seconds = ask_for(5, through_both)
        print(f"{statuses} in {seconds:.1f} s")
        one = BURST + PER_SECOND * seconds
        assert set(statuses) == {200, 429}
        assert BURST < statuses[200] <= 2 * one
        if statuses.total() > 2 * one:  # the machine had time to ask for more than both let pass
            assert statuses[200] > one + 3 * PORTION
        eventually(lambda: all(seen(tenant, "alone") == 1 for tenant in through_both))
        assert all(seen(tenant, "sharing_failures_total") > 0 for tenant in through_both)
    eventually(lambda: all(seen(tenant, "alone") == 0 for tenant in through_both))
    time.sleep(1)  # what was told late is told now, and some tokens come back
    statuses, seconds = ask_for(3, through_both)
    assert statuses[200] <= BURST + PER_SECOND * (seconds + 2) + 3 * PORTION


def seen(tenant: Tenant, name: str) -> float:
    return metrics(tenant.server)[f"sequencer_rate_limit_{name}"]


def eventually(true: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 15
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.1)
