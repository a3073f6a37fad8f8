"""The house under attack: one server process, its PostgreSQL and the path between; each can be ended.

Alone starts and ends them. Draws no lots. Everything that blocks runs in a thread, so that the proxy, which
lives in this event loop, goes on carrying bytes; PostgreSQL alone is started from the loop's own thread,
because the kernel ends it with the thread that started it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import trio

from tests.chaos.database import Postgres
from tests.chaos.proxy import Proxy
from tests.e2e.world import Server

SERVER_SETTINGS = {
    "DB_UNIT_DEADLINE_S": "3",
    "DB_STATEMENT_TIMEOUT_S": "2",
    "DB_LOCK_TIMEOUT_S": "2",
    "REQUEST_TIMEOUT_SECS": "10",
    "COMMITMENT_EVENTS": "200",
    "COMMITMENT_INTERVAL_SECS": "1",
    "COMMITMENT_SWEEP_SECS": "1",
    "LOG_LEVEL": "info",
}
"""Deadlines short enough that a run of a minute meets them; durability as it is by default."""

START_DEADLINE_S = 60.0


class House:
    def __init__(self, folder: Path, postgres: Postgres, proxy: Proxy, **settings: str) -> None:
        self.postgres = postgres
        self.proxy = proxy
        self._folder = folder
        self._settings = {"DATABASE_URL": postgres.dsn(proxy.port), **SERVER_SETTINGS, **settings}
        self.server = Server(folder / "server", **self._settings)
        self._postgres_turn = trio.Lock()

    @property
    def url(self) -> str:
        return self.server.url

    async def start_server(self, *, crash_at: str | None = None) -> None:
        """A new life, with at most one crash point armed. AssertionError with its log if it ends instead."""
        more = {} if crash_at is None else {"SEQUENCER_FAULTS": "1", "SEQUENCER_CRASH_AT": crash_at}
        server = Server(self._folder / "server", **self._settings, **more)
        await trio.to_thread.run_sync(lambda: server.start(deadline_s=START_DEADLINE_S))
        self.server = server

    async def kill_server(self, *, group: bool) -> None:
        await trio.to_thread.run_sync(lambda: self.server.kill_9(group=group))

    def server_code(self) -> int | None:
        """None while it lives."""
        assert self.server.process is not None
        return self.server.process.poll()

    def workers(self) -> list[int]:
        return sorted(pid for pid, line in self.server.children() if "actors.worker" in line)

    async def restart_postgres(self, kind: signal.Signals, away_s: float) -> None:
        async with self._postgres_turn:
            await trio.to_thread.run_sync(self.postgres.end, kind)
            await trio.to_thread.run_sync(self.postgres.vacate)
            await trio.sleep(away_s)
            await self._spawn_postgres()

    async def _spawn_postgres(self) -> None:
        self.postgres.spawn()
        with trio.fail_after(START_DEADLINE_S):
            while not self.postgres.ready():  # noqa: ASYNC110 - it rings no bell
                await trio.sleep(0.02)

    async def sql(self, statement: str) -> list[str]:
        """As the superuser, past the proxy. Raises PsqlFailed."""
        return await trio.to_thread.run_sync(self.postgres.psql, statement)

    async def kill_actor(self, path: str) -> int:
        """By name, over the admin listener: the status."""
        async with httpx.AsyncClient(timeout=5) as http:
            answer = await http.post(
                self.server.admin_url + "/api/v1/admin/actors/kill",
                headers={"authorization": f"ApiKey {self.server.bootstrap_key}"},
                json={"path": path, "reason": "chaos"},
            )
            return answer.status_code

    async def new_api_key(self, tenant_id: str) -> str:
        async with httpx.AsyncClient(timeout=30) as http:
            answer = await http.post(
                self.server.admin_url + "/api/v1/admin/api-keys",
                headers={"authorization": f"ApiKey {self.server.bootstrap_key}"},
                json={"tenantId": tenant_id, "permissions": ["read", "write", "admin"]},
            )
            assert answer.status_code in (200, 201), answer.text
            return str(answer.json()["apiKey"])

    async def become_calm(self) -> None:
        """Fair weather, a fresh server, ready."""
        self.proxy.heal()
        async with self._postgres_turn:
            pass
        if self.server_code() is None:
            await self.kill_server(group=True)
        await self.start_server()
        await trio.to_thread.run_sync(self.server.wait_ready)

    def end_everything(self) -> None:
        """Also after a failure; blocking, seconds."""
        if self.server.process is not None:
            self.server.kill_9()


@asynccontextmanager
async def built(folder: Path, **settings: str) -> AsyncIterator[House]:
    """Everything up and ready; afterwards nothing is left running."""
    postgres = Postgres(folder / "database")
    await trio.to_thread.run_sync(postgres.vacate)
    await trio.to_thread.run_sync(postgres.cluster.prepare)
    async with trio.open_nursery() as nursery:
        proxy = Proxy(("127.0.0.1", postgres.port))
        await nursery.start(proxy.run)
        house = House(folder, postgres, proxy, **settings)
        try:
            await house._spawn_postgres()
            await trio.to_thread.run_sync(postgres.migrate)
            await house.start_server()
            await trio.to_thread.run_sync(house.server.wait_ready)
            yield house
        finally:
            house.end_everything()
            postgres.end(signal.SIGQUIT)
            postgres.vacate()
            nursery.cancel_scope.cancel()


def stop_process(pid: int, kind: signal.Signals) -> bool:
    """Whether it was there to be told."""
    try:
        os.kill(pid, kind)
    except ProcessLookupError:
        return False
    return True
