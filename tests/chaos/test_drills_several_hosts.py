"""A drill with a primary that falls silent and its standby that is promoted: one address names both."""

from __future__ import annotations

import os
import secrets
import signal
from pathlib import Path

import pytest
import trio

from journal.embedded_cluster import APP_LOGIN
from tests.chaos.database import Postgres
from tests.chaos.house import SERVER_SETTINGS
from tests.chaos.shop import open_shop
from tests.chaos.standby import a_standby_of, wait_for_standbys
from tests.e2e.world import Server

pytestmark = pytest.mark.slow

READY_AGAIN_S = 20.0
"""Units on the old connections run into their deadline of three seconds; then the new primary is found."""


async def test_a_node_finds_the_new_primary_while_the_old_one_is_silent(tmp_path: Path) -> None:
    with (
        Postgres(tmp_path / "primary").running() as primary,
        a_standby_of(primary, tmp_path / "standby") as standby,
    ):
        primary.migrate()
        wait_for_standbys(primary, "standby")
        address = f"postgresql://{APP_LOGIN}@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/postgres"
        keys = {"PAYLOAD_ENCRYPTION_KEYS": secrets.token_hex(32)}
        node = Server(tmp_path / "node", **SERVER_SETTINGS, **keys, DATABASE_URL=address)
        await trio.to_thread.run_sync(node.start)
        stopped: list[int] = []
        try:
            await trio.to_thread.run_sync(node.wait_ready)
            async with open_shop(node) as shop:
                first = await shop.post_until_answered(*shop.request())
                stopped = [primary.pid, *backends_of(primary)]
                for pid in stopped:
                    os.kill(pid, signal.SIGSTOP)
                held = shop.request()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(shop.post_until_answered, *held)
                    await shop.ready_becomes(False, within_s=READY_AGAIN_S)
                    standby.psql("SELECT pg_promote()")
                    await shop.ready_becomes(True, within_s=READY_AGAIN_S)
                assert await shop.head() == 6
                again = await shop.post_until_answered(*held)
                assert again["eventsReplayed"] == 3
                assert first["sequenceEnd"] == 3
                assert await shop.broken_promises() == []
        finally:
            node.kill_9()
            for pid in stopped:
                os.kill(pid, signal.SIGKILL)


def backends_of(postgres: Postgres) -> list[int]:
    """All its processes but the first."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == postgres.pid:
                found.append(int(entry.name))
    return found
