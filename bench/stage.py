"""A real server under measurement: on a fresh data directory on a disk, with its own PostgreSQL.

Owns how such a server comes and goes, its tenants and their signed requests, and what its database is asked: whether
a COMMIT waits for the disk, and whether it holds what was accepted. What is not as it should be ends the benchmark
with the reason; it is never a number.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import asyncpg
import httpx

from bench.first_touch import touch
from bench.joining import PERMISSIONS, join
from bench.machine import must_be_a_disk
from bench.playing import Play, Run, run_plays
from bench.results import Round, Row
from bench.signing import Sender, write_requests
from journal.embedded import embedded_dsn
from journal.embedded_cluster import APP_LOGIN, OWNER
from tests.e2e.world import ROOT, Agent, Server

DURABLE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}
MANY = 500
"""Tenants: more are created in the tables (``bench/joining.py``), not over HTTP."""
AGENTS_OF_A_STREAM = 8
"""At most, when all connections post to one stream."""


class Measurement(Protocol):
    """One row of the table, in its making. One that has a server of its own each time ignores the stage's."""

    row: Row

    def prepare(self, stage: Stage) -> None:
        """Once for each server, before the first round: what it needs stands ready, what is loaded on first use is loaded."""

    def round(self, stage: Stage, seconds: float) -> Round:
        """One turn. Checks what it measured; raises SystemExit if that was not what it meant to."""


@dataclass(eq=False)
class Stage:
    """One running server and what a run against it needs. ``name`` tells servers apart that take turns."""

    name: str
    server: Server
    folder: Path
    signers: Executor
    signer_count: int
    http: httpx.Client
    """For everything that is not measured."""
    kept: dict[str, Any] = field(default_factory=dict)
    """What measurements prepared on this server, by their row's name."""
    page_touch_us: list[float] = field(default_factory=list)
    """Microseconds that a page of memory cost before each run."""

    # Streams.

    def senders(self, *, tenants: int, stores: int, agents: int) -> list[Sender]:
        """Fresh tenants of so many stores; ``agents`` of each stream, all with registered keys."""

        homes = [[Agent(tenant_id, uuid.uuid4()) for _ in range(agents)] for tenant_id in _new_ids(tenants)]
        keys = self._joined(homes)
        host = self.server.url.removeprefix("http://")
        return [
            Sender(
                one.tenant_id.bytes,
                shop.bytes,
                one.agent_id.bytes,
                one.key_id,
                one.key.private_bytes_raw(),
                api_key,
                host,
            )
            for known, api_key in zip(homes, keys, strict=True)
            for shop in _new_ids(stores)
            for one in known
        ]

    def _joined(self, homes: Sequence[Sequence[Agent]]) -> list[str]:
        """An API key of each tenant, whose agents are registered."""
        if len(homes) > MANY:
            began = time.perf_counter()
            keys = join(self.owner_dsn, homes)
            say(f"{len(homes):,} tenants created in {time.perf_counter() - began:.1f} s")
            return keys
        with ThreadPoolExecutor(min(len(homes), 16)) as threads:
            return list(threads.map(self._join, homes))

    def _join(self, agents: Sequence[Agent]) -> str:
        api_key = self._api_key(agents[0].tenant_id)
        for agent in agents:
            self._register(agent, api_key)
        return api_key

    def _api_key(self, tenant_id: uuid.UUID) -> str:
        body = {"tenantId": str(tenant_id), "permissions": PERMISSIONS}
        url = self.server.admin_url + "/api/v1/admin/api-keys"
        return str(self._post(url, self.server.bootstrap_key, body)["apiKey"])

    def _register(self, agent: Agent, api_key: str) -> None:
        body = {
            "tenantId": str(agent.tenant_id),
            "agentId": str(agent.agent_id),
            "keyId": agent.key_id,
            "publicKey": agent.public_key,
        }
        self._post(self.server.url + "/api/v1/agents/keys", api_key, body)

    def _post(self, url: str, api_key: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self.http.post(url, headers={"authorization": f"ApiKey {api_key}"}, json=body)
        if answer.status_code not in (200, 201):
            raise SystemExit(f"{url} was answered with {answer.status_code}: {answer.text[:300]}")
        return dict(answer.json())

    def get(self, sender: Sender, path: str) -> bytes:
        """The body that ``sender`` is answered with."""
        answer = self.http.get(self.server.url + path, headers={"authorization": f"ApiKey {sender.api_key}"})
        if answer.status_code != 200:
            raise SystemExit(f"{path} was answered with {answer.status_code}: {answer.text[:300]}")
        return answer.content

    def requests(
        self, senders: Sequence[Sender], batch: int, count: int, name: str = "requests"
    ) -> list[Path]:
        """Signed and on disk, those of the last call by that name overwritten."""
        return write_requests(self.folder / name, senders, batch, count, self.signers, self.signer_count)

    # A run.

    def load(
        self,
        files: Sequence[Path],
        *,
        connections: int,
        seconds: float,
        rate: float | None = None,
        repeat: bool = False,
    ) -> Run:
        [run] = self.play(Play(files, connections, seconds, rate, repeat))
        return run

    def play(self, *plays: Play) -> list[Run]:
        """All of them at the same time."""
        self.page_touch_us.append(touch(max(play.seconds for play in plays)))
        return run_plays(self.server.url, self.server.pid, plays)

    # The database behind the server.

    def fetch(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """As the database's owner."""
        return asyncio.run(_fetch(self.owner_dsn, statement, arguments))

    @cached_property
    def owner_dsn(self) -> str:
        return embedded_dsn(self.server.data_dir).replace(APP_LOGIN, OWNER)

    def database(self) -> dict[str, str]:
        """Version and durability as the server itself tells them; SystemExit if a COMMIT would not wait for the disk."""
        told = {
            name: str(self.fetch(f"SHOW {name}")[0][0])
            for name in ("server_version", "wal_sync_method", *DURABLE)
        }
        for name, wanted in DURABLE.items():
            if told[name] != wanted:
                raise SystemExit(
                    f"{name} is {told[name]}, not {wanted}: what this measured would not be durable"
                )
        return told

    def stored(self, tenants: Sequence[bytes]) -> int:
        """Events of these tenants; SystemExit if a stream has a gap, or a head that is not its last event."""
        streams = self.fetch(
            "SELECT e.count, e.first, e.last, c.current_sequence AS head FROM (SELECT tenant_id, store_id, count(*),"
            " min(sequence_number) AS first, max(sequence_number) AS last FROM record.ves_events"
            " WHERE tenant_id = ANY($1::uuid[]) GROUP BY 1, 2) e"
            " LEFT JOIN record.ves_sequence_counters c USING (tenant_id, store_id)",
            [uuid.UUID(bytes=raw) for raw in tenants],
        )
        for stream in streams:
            if (stream["first"], stream["last"], stream["head"]) != (1, stream["count"], stream["count"]):
                raise SystemExit(f"a stream is not gap-free: {dict(stream)}")
        return sum(stream["count"] for stream in streams)

    def head(self, sender: Sender) -> int:
        """As the server tells a reader."""
        tenant, store = (uuid.UUID(bytes=raw) for raw in (sender.tenant_id, sender.store_id))
        told = self.get(sender, f"/api/v1/ves/head?tenant_id={tenant}&store_id={store}")
        return int(json.loads(told)["head_sequence"])


async def _fetch(dsn: str, statement: str, arguments: tuple[Any, ...]) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsn)
    try:
        return list(await connection.fetch(statement, *arguments))
    finally:
        await connection.close()


def say(what: str) -> None:
    """What goes on, for who waits; results alone are on standard output."""
    print(what, file=sys.stderr, flush=True)


def _new_ids(count: int) -> Iterator[uuid.UUID]:
    return (uuid.uuid4() for _ in range(count))


def end_in_order() -> None:
    """A benchmark that is told to end (SIGTERM) stops its servers and removes what it made, as for Ctrl-C."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))


@contextmanager
def staged(
    name: str = "",
    *,
    root: Path = ROOT,
    python: str = sys.executable,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Stage]:
    """A server that is ready, of the source at ``root``, and gone afterwards with all its data."""
    must_be_a_disk(Path.cwd())
    cores = len(os.sched_getaffinity(0))
    with (
        tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as home,
        ProcessPoolExecutor(cores, get_context("spawn")) as signers,
        httpx.Client(timeout=60) as http,
    ):
        folder = Path(home)
        server = Server(folder / "data", **(settings or {}))
        server.root, server.python = root, python
        try:
            server.start()
            server.wait_ready()
            yield Stage(name, server, folder, signers, cores, http)
        finally:
            if server.process is not None:
                server.terminate()
