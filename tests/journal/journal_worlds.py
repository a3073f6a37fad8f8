"""Two nodes on one journal, and the faults between the first of them and the database.

The same faults for both kinds: PostgreSQL's are real bytes dropped by a proxy on its unix socket, memory's
are its switches. Tests say what is lost; a world says how.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, quote, urlsplit

import asyncpg
import trio
from journal_builders import uuid

from journal.aio import Strays, cross, open_loop
from journal.connections import Limits, use_our_types
from journal.embedded_cluster import ADMIN_LOGIN, OWNER
from journal.memory import Fault, MemoryDatabase, MemoryJournal
from journal.port import Journal
from journal.postgres import PostgresJournal, open_journal
from tests.chaos.wire import ClientMessages

LIMITS = Limits(
    connections_max=4,
    unit_deadline_s=4.0,
    statement_timeout_s=3.0,
    lock_timeout_s=2.0,
    idle_in_transaction_timeout_s=3.0,
)


class World(Protocol):
    journal: Journal
    """The node whose connection fails when told to."""
    other: Journal
    """Another node, always connected."""

    def fail_next(self, method: str, fault: Fault) -> None: ...

    async def release(self, *, commit: bool) -> None:
        """Ends what ``held`` holds; returns once it is over."""
        ...


class MemoryWorld:
    def __init__(self) -> None:
        self.database = MemoryDatabase(now_us=lambda: time.time_ns() // 1000)
        self._first = MemoryJournal(self.database, node_id=uuid())
        self.journal: Journal = self._first
        self.other: Journal = MemoryJournal(self.database, node_id=uuid())

    def fail_next(self, method: str, fault: Fault) -> None:
        self._first.fail_next(method, fault)

    async def release(self, *, commit: bool) -> None:
        self.database.release(commit=commit)


class PostgresWorld:
    def __init__(
        self, dsn: str, owner_dsn: str, proxy: Proxy, journal: PostgresJournal, other: PostgresJournal
    ) -> None:
        self.dsn = dsn
        self.owner_dsn = owner_dsn
        self.proxy = proxy
        self.journal: Journal = journal
        self.other: Journal = other
        self.units = journal._units
        self.appending = journal._appends.units
        self.pool: Any = journal._units._pool
        self.pools: list[Any] = [units._pool for units in (self.units, self.appending)]

    def fail_next(self, method: str, fault: Fault) -> None:
        self.proxy.next_fault = fault

    async def release(self, *, commit: bool) -> None:
        await self.proxy.release(commit=commit)


@asynccontextmanager
async def postgres_world(dsn: str, owner_dsn: str, *, strays_max: int = 0) -> AsyncIterator[PostgresWorld]:
    """``dsn`` logs in as the application does. ``strays_max``: what the driver may forget, where its server
    dies in the middle of a greeting."""
    async with open_loop() as strays, trio.open_nursery() as nursery:
        proxy = await nursery.start(run_proxy, dsn)
        async with (
            open_journal(
                proxy.dsn, node_id=uuid(), limits=LIMITS, application_name="through proxy"
            ) as journal,
            open_journal(dsn, node_id=uuid(), limits=LIMITS) as other,
        ):
            yield PostgresWorld(dsn, owner_dsn, proxy, journal, other)
            assert_nothing_strayed(strays, strays_max)
        nursery.cancel_scope.cancel()


def assert_nothing_strayed(strays: Strays, at_most: int = 0) -> None:
    assert strays.count <= at_most, "something failed on the asyncio side and nobody was waiting for it"


def admin_dsn(owner_dsn: str) -> str:
    """The login of commands, a member of sequencer_admin, on the same database."""
    return owner_dsn.replace(f"{OWNER}@", f"{ADMIN_LOGIN}@")


async def sql(dsn: str, *statements: str, arguments: tuple[Any, ...] = ()) -> list[Any]:
    """Runs the statements as this login in a session of its own; the last one's rows."""

    async def run() -> list[Any]:
        connection = await asyncpg.connect(dsn)
        try:
            await use_our_types(connection)
            for statement in statements[:-1]:
                await connection.execute(statement)
            rows: list[Any] = await connection.fetch(statements[-1], *arguments)
            return rows
        finally:
            await connection.close()

    return await cross(run)


# The proxy.


class Proxy:
    """Between a journal and its server. ``next_fault`` strikes at the next COMMIT, ``away`` at once."""

    def __init__(self, dsn: str, server_socket: str) -> None:
        self.dsn = dsn
        self.next_fault: Fault | None = None
        self.thawed = trio.Event()
        self.thawed.set()
        self._server_socket = server_socket
        self._held: list[tuple[trio.SocketStream, bytes]] = []

    async def serve(self, client: trio.SocketStream) -> None:
        async with client:
            try:
                server = await trio.open_unix_socket(self._server_socket)
            except OSError:  # it is down, and so are we
                return
            link = _Link(self, client, server)
            try:
                async with trio.open_nursery() as nursery:
                    link.scope = nursery.cancel_scope
                    nursery.start_soon(link.upstream)
                    nursery.start_soon(link.downstream)
            finally:
                if not link.kept:
                    await trio.aclose_forcefully(server)

    def freeze(self) -> None:
        """From now on nothing passes, and nobody is told."""
        self.thawed = trio.Event()

    def hold(self, server: trio.SocketStream, commit: bytes) -> None:
        self._held.append((server, commit))

    async def release(self, *, commit: bool) -> None:
        held, self._held = self._held, []
        for server, message in held:
            if commit:
                await server.send_all(message)
                await server.receive_some(65536)
            await trio.aclose_forcefully(server)


class _Link:
    def __init__(self, proxy: Proxy, client: trio.SocketStream, server: trio.SocketStream) -> None:
        self.proxy = proxy
        self.client = client
        self.server = server
        self.scope: trio.CancelScope
        self.kept = False
        self.deaf = False
        """The client is cut as soon as the server answers."""

    async def upstream(self) -> None:
        said = ClientMessages()
        while data := await self._receive(self.client):
            if self.proxy.next_fault == "away":
                self.proxy.next_fault = None
                break
            points = {message.point for message in said.feed(data)}
            if self.proxy.next_fault is not None and points & {"commit", "commit-other"}:
                fault, self.proxy.next_fault = self.proxy.next_fault, None
                if fault == "unheard":
                    self.deaf = True
                else:
                    if fault == "held":
                        self.kept = True
                        self.proxy.hold(self.server, data)
                    break
            await self._send(self.server, data)
        self.scope.cancel()

    async def downstream(self) -> None:
        while data := await self._receive(self.server):
            if self.deaf:
                break
            await self._send(self.client, data)
        self.scope.cancel()

    async def _receive(self, stream: trio.SocketStream) -> bytes:
        try:
            data = bytes(await stream.receive_some(65536))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return b""
        await self.proxy.thawed.wait()
        return data

    async def _send(self, stream: trio.SocketStream, data: bytes) -> None:
        try:
            await stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.scope.cancel()


async def run_proxy(dsn: str, task_status: trio.TaskStatus[Proxy]) -> None:
    parts = urlsplit(dsn)
    server_dir = parse_qs(parts.query)["host"][0]
    with tempfile.TemporaryDirectory(prefix="jp") as home:
        path = Path(home) / ".s.PGSQL.5432"
        ours = f"postgresql://{parts.username}@{parts.path}?host={quote(home, safe='')}&port=5432"
        with trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM) as listening:
            await listening.bind(str(path))
            listening.listen(64)
            async with trio.open_nursery() as nursery:
                proxy = Proxy(ours, os.path.join(server_dir, ".s.PGSQL.5432"))
                task_status.started(proxy)
                while True:
                    peer, _ = await listening.accept()
                    nursery.start_soon(proxy.serve, trio.SocketStream(peer))
