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

from tests.chaos.database import Embedded, Postgres
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
    "RATE_LIMIT_MODE": "off",
}
"""Deadlines short enough that a run of a minute meets them; durability as it is by default; no rate limits,
which the clients' load is far beyond."""

START_DEADLINE_S = 60.0


async def new_api_key(server: Server, tenant_id: str) -> str:
    """That may do everything in its tenant."""
    async with httpx.AsyncClient(timeout=30) as http:
        answer = await http.post(
            server.admin_url + "/api/v1/admin/api-keys",
            headers={"authorization": f"ApiKey {server.bootstrap_key}"},
            json={"tenantId": tenant_id, "permissions": ["read", "write", "admin"]},
        )
        assert answer.status_code in (200, 201), answer.text
        return str(answer.json()["apiKey"])


class House:
    """``proxy`` carries all between server and ``postgres``; nothing, if the server keeps its own."""

    def __init__(self, folder: Path, postgres: Postgres | Embedded, proxy: Proxy, **settings: str) -> None:
        self.postgres = postgres
        self.proxy = proxy
        self._folder = folder
        self._settings = {**SERVER_SETTINGS, **settings}
        if isinstance(postgres, Postgres):
            self._settings["DATABASE_URL"] = postgres.dsn(proxy.port)
        self.server = Server(folder / "server", **self._settings)
        self._postgres_turn = trio.Lock()
        self._serving = False
        """Started, and nobody is ending it at the moment."""

    @property
    def url(self) -> str:
        return self.server.url

    async def start_server(self, *, crash_at: str | None = None) -> None:
        """A new life, with at most one crash point armed. AssertionError with its log if it ends instead."""
        more = {} if crash_at is None else {"SEQUENCER_FAULTS": "1", "SEQUENCER_CRASH_AT": crash_at}
        server = Server(self._folder / "server", **self._settings, **more)
        await trio.to_thread.run_sync(lambda: server.start(deadline_s=START_DEADLINE_S))
        self.server = server
        self._serving = True

    async def kill_server(self, *, group: bool) -> None:
        self._serving = False
        await trio.to_thread.run_sync(lambda: self.server.kill_9(group=group))

    def server_code(self) -> int | None:
        """None while it lives."""
        assert self.server.process is not None
        return self.server.process.poll()

    def workers(self) -> list[int]:
        """And front-ends: whatever may be killed without a restart of the server."""
        programs = ("actors.worker", "transport.front")
        return sorted(pid for pid, line in self.server.children() if any(one in line for one in programs))

    async def restart_postgres(self, kind: signal.Signals, away_s: float) -> None:
        """Ended, and away for ``away_s`` if it is ours to bring back; an embedded one comes back by itself.
        That one is left alone while its server starts: a database that ends then is a refused start."""
        async with self._postgres_turn:
            if isinstance(self.postgres, Embedded):
                while not (self._serving and signal_embedded(self.postgres, kind)):  # noqa: ASYNC110
                    await trio.sleep(0.02)
                return
            await trio.to_thread.run_sync(self.postgres.end, kind)
            await trio.to_thread.run_sync(self.postgres.vacate)
            await trio.sleep(away_s)
            await spawned(self.postgres)

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
        return await new_api_key(self.server, tenant_id)

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


async def spawned(postgres: Postgres) -> None:
    """Up and ready. In this thread, not in a helper: the kernel ends it with the thread that started it."""
    postgres.spawn()
    with trio.fail_after(START_DEADLINE_S):
        while not postgres.ready():  # noqa: ASYNC110 - it rings no bell
            await trio.sleep(0.02)


def signal_embedded(postgres: Embedded, kind: signal.Signals) -> bool:
    """Whether the signal was delivered to one that was ready."""
    pid = postgres.postmaster()
    return pid is not None and signalled(pid, kind)


@asynccontextmanager
async def built_embedded(folder: Path, **settings: str) -> AsyncIterator[House]:
    """As ``built``, with the PostgreSQL that the server keeps under its own DATA_DIR."""
    data_dir = folder / "server"
    data_dir.mkdir(mode=0o700)
    house = House(folder, Embedded(data_dir), Proxy(("127.0.0.1", 0)), **settings)
    try:
        await house.start_server()
        await trio.to_thread.run_sync(house.server.wait_ready)
        yield house
    finally:
        house.end_everything()


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
            await spawned(postgres)
            await trio.to_thread.run_sync(postgres.migrate)
            await house.start_server()
            await trio.to_thread.run_sync(house.server.wait_ready)
            yield house
        finally:
            house.end_everything()
            postgres.end(signal.SIGQUIT)
            postgres.vacate()
            nursery.cancel_scope.cancel()


def signalled(pid: int, kind: signal.Signals) -> bool:
    """Whether it was there to be told."""
    try:
        os.kill(pid, kind)
    except ProcessLookupError:
        return False
    return True
