"""Drills with the disk, full and read-only: not ready, 503 with Retry-After, nothing lost, back by itself."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import trio

from tests.chaos.house import built
from tests.chaos.shop import Json, Shop, open_shop
from tests.e2e.world import Server

pytestmark = pytest.mark.slow

DISK_MB = 160
PADDING = 20_000
"""Bytes of each payload: a small disk fills soon."""
REQUESTS_MAX = 400


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=0700", "tmpfs", str(disk)],
        capture_output=True,
        check=False,
    )
    if made.returncode != 0:
        pytest.skip(f"this account may not mount: {made.stderr.decode(errors='replace').strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


async def refused_for_now(shop: Shop) -> tuple[httpx.Response, tuple[list[Json], bytes]]:
    """Posts until something is not taken: the answer, and the request."""
    for _ in range(REQUESTS_MAX):
        request = shop.request(3, padding=PADDING)
        answer = await shop.post(*request)
        if answer.status_code != 200:
            return answer, request
    raise AssertionError(f"all {REQUESTS_MAX} requests were accepted")


def fill(disk: Path) -> Path:
    """Nothing more fits, whatever frees itself meanwhile."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(65536))
    return filler


async def test_a_full_disk_is_503_and_not_ready_until_there_is_space_again(small_disk: Path) -> None:
    server = Server(small_disk / "data", COMMITMENT_INTERVAL_SECS="3600")
    server.log = small_disk.parent / "server.log"
    await trio.to_thread.run_sync(server.start)
    try:
        await trio.to_thread.run_sync(server.wait_ready)
        async with open_shop(server) as shop:
            await shop.post_until_answered(*shop.request())
            filler = fill(small_disk)
            answer, unanswered = await refused_for_now(shop)
            assert answer.status_code == 503, answer.text
            assert "retry-after" in answer.headers
            await shop.ready_becomes(False, within_s=10)
            assert (await shop.post(*unanswered)).status_code == 503
            assert not await shop.ready(), "ready again while nothing fits"
            filler.unlink()
            await shop.ready_becomes(True, within_s=60)
            await shop.post_until_answered(*unanswered)
            assert await shop.broken_promises() == []
            assert server.process is not None
            assert server.process.poll() is None, "the server itself must not have restarted"
    finally:
        server.kill_9()


READ_ONLY = "ALTER SYSTEM SET default_transaction_read_only = {}"


async def test_a_read_only_database_is_503_and_not_ready_until_it_is_writable_again(tmp_path: Path) -> None:
    async with built(tmp_path) as house, open_shop(house.server) as shop:
        await shop.post_until_answered(*shop.request())
        await house.sql(READ_ONLY.format("on"))
        await house.sql("SELECT pg_reload_conf()")
        await shop.ready_becomes(False, within_s=10)
        events, body = shop.request()
        answer = await shop.post(events, body)
        assert answer.status_code == 503, answer.text
        assert "retry-after" in answer.headers
        await house.sql(READ_ONLY.format("off"))
        await house.sql("SELECT pg_reload_conf()")
        await shop.ready_becomes(True, within_s=30)
        assert (await shop.post_until_answered(events, body))["eventsAccepted"] == len(events)
        assert await shop.head() == 6
        assert await shop.broken_promises() == []
