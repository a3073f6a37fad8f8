"""Several nodes on one database: PostgreSQL of their own, started beside them, and clients that change doors.

The database is the embedded wheel's server, but to the nodes it is an operator's: each gets DATABASE_URL of a
login without any right to change the schema, and knows nothing of the others.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from journal.embedded import EmbeddedPostgres
from tests.clusters import lend
from tests.e2e.world import Load, Server, Tenant

LOGIN = "shop_sequencer"
ADMIN = "shop_operator"


@dataclass(frozen=True)
class Operated:
    """A PostgreSQL of the operator's: ``owner_dsn`` may do everything, ``app_dsn`` is for the nodes."""

    owner_dsn: str
    app_dsn: str
    admin_dsn: str
    """Of whoever archives: a member of sequencer_admin and nothing else."""
    at_rest_keys: str

    def node(self, data_dir: Path, **environment: str) -> Server:
        """A node with an identity of its own, on a port that survives a restart."""
        own = {
            "DATABASE_URL": self.app_dsn,
            "PAYLOAD_ENCRYPTION_KEYS": self.at_rest_keys,
            "VES_SEQUENCER_ID": str(uuid.uuid4()),
            "VES_SEQUENCER_SIGNING_KEY": secrets.token_hex(32),
            "PORT": str(free_port()),
            "ADMIN_BIND": "127.0.0.1:0",
            "VERIFIERS": "1",
            "ENCRYPTORS": "1",
        }
        return Server(data_dir, **(own | environment))


@contextmanager
def operated_postgres(folder: Path) -> Iterator[Operated]:
    """Running and migrated as an operator would do it: `sequencer migrate`, then a login for the nodes."""
    with EmbeddedPostgres(lend(folder)) as postgres:
        owner = postgres.owner_dsn
        migrated = Server(folder / "migrator", DATABASE_ADMIN_URL=owner).command("migrate")
        assert migrated.returncode == 0, migrated.stderr
        roles = {LOGIN: "sequencer_app", ADMIN: "sequencer_admin"}
        logins = "; ".join(f"CREATE ROLE {login} LOGIN IN ROLE {role}" for login, role in roles.items())
        asyncio.run(_execute(owner, logins))
        app, admin = (postgres.app_dsn.replace("sequencer_app_login", login) for login in (LOGIN, ADMIN))
        yield Operated(owner, app, admin, secrets.token_hex(32))


async def _execute(dsn: str, statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statements)
    finally:
        await connection.close()


def free_port() -> int:
    """Below the range from which the kernel takes ports for outgoing connections: free a moment later too."""
    for _ in range(1000):
        port = 20_000 + secrets.randbelow(10_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


@dataclass
class Posted:
    """A request that was acknowledged: to be sent again, anywhere, at any time."""

    tenant: Tenant
    body: bytes
    receipts: list[dict[str, Any]]
    node: Server


@dataclass
class RoamingLoad(Load):
    """Clients that start at their tenant's node and take a failed request to the next one."""

    nodes: list[Server] = field(default_factory=list)
    pause_s: float = 0.0
    """Between acknowledged requests: what is posted here is all audited afterwards."""
    roams: bool = True
    """Or each client asks its own node again: else all soon sit at the node that wins, uncontended."""
    posted: list[Posted] = field(default_factory=list)

    def _run(self, tenant: Tenant) -> None:
        doors = [httpx.Client(base_url=n.url, timeout=45, headers=tenant.http.headers) for n in self.nodes]
        at = self.nodes.index(tenant.server)
        while not self._stop.is_set():
            events = [tenant.agent.event({"n": n}) for n in range(self.batch)]
            body = tenant.agent.body(events)
            while not self._stop.is_set():
                if self._post(doors[at], body, events):
                    self._remember(tenant, body, events, self.nodes[at])
                    time.sleep(self.pause_s)
                    break
                at = (at + self.roams) % len(doors)
                time.sleep(0.05)
        for door in doors:
            door.close()

    def _remember(self, tenant: Tenant, body: bytes, events: list[dict[str, Any]], node: Server) -> None:
        with self._lock:
            receipts = [
                self.acknowledged[e["event_id"]] for e in events if e["event_id"] in self.acknowledged
            ]
            self.posted.append(Posted(tenant, body, receipts, node))


def metrics(node: Server) -> dict[str, float]:
    """Every sample of the node's /metrics, by its name with its labels."""
    key = {"authorization": f"ApiKey {node.bootstrap_key}"}
    lines = httpx.get(node.admin_url + "/metrics", headers=key, timeout=30).text.splitlines()
    samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}


def restarts(node: Server) -> dict[str, float]:
    """Lives after the first, by address below the house (``verifiers/0``)."""
    start = 'sequencer_actor_restarts{address="'
    return {n.removeprefix(start)[:-2]: v for n, v in metrics(node).items() if n.startswith(start)}
