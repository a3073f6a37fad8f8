"""An operator's hands on a running server: looking and acting under load, suspending, and all of it while
the database is away. Read back from the audit log itself."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import httpx
import pytest
import trio

from journal.aio import cross, open_loop
from journal.embedded import EmbeddedPostgres
from journal.embedded_cluster import EMBEDDED_LOGINS, OWNER, Cluster
from journal.migrate import migrate
from tests.clusters import lend
from tests.e2e.world import Load, Server, Tenant

pytestmark = pytest.mark.slow

ACTORS = "/api/v1/admin/actors"
WHY = "a drill"


class Operator:
    def __init__(self, server: Server) -> None:
        self.server = server
        self.http = httpx.Client(
            base_url=server.admin_url,
            headers={"authorization": f"ApiKey {server.bootstrap_key}"},
            timeout=40,
        )

    def __enter__(self) -> Operator:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def act(self, action: str, path: str) -> dict[str, Any]:
        answer = self.http.post(f"{ACTORS}/{action}", json={"path": path, "reason": WHY})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def look(self, path: str = "house") -> dict[str, Any]:
        answer = self.http.get(ACTORS, params={"path": path})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def until_heard_of(self, part: str, server: Server, deadline_s: float = 20) -> None:
        give_up = time.monotonic() + deadline_s
        while part not in self.look()["waiting_for"]:
            assert time.monotonic() < give_up, server.tail()
            time.sleep(0.05)

    def until(self, path: str, state: str, *, incarnation: int, deadline_s: float = 20) -> None:
        give_up = time.monotonic() + deadline_s
        while True:
            seen = self.look(path)["tree"]
            if (seen["state"], seen["incarnation"]) == (state, incarnation):
                return
            assert time.monotonic() < give_up, seen
            time.sleep(0.05)


def audit_rows(dsn: str) -> list[dict[str, Any]]:
    """The acts in the audit chain, in order, without the uses of the credential."""
    rows: list[str] = []

    async def fetch() -> None:
        connection = await asyncpg.connect(dsn)
        try:
            found = await connection.fetch("SELECT entry FROM record.audit_log ORDER BY entry_number")
            rows.extend(row[0] for row in found)
        finally:
            await connection.close()

    async def read() -> None:
        with trio.fail_after(20):
            async with open_loop():
                await cross(fetch)

    trio.run(read)
    entries = [json.loads(row) for row in rows]
    return [entry for entry in entries if entry["action"].startswith(("actor.", "dead_letter."))]


def embedded_dsn(server: Server) -> str:
    where = quote(str(Cluster(server.data_dir, None).socket_dir), safe="")
    return f"postgresql://{OWNER}@/postgres?host={where}&port=5432"


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL of the operator's own, which a test may stop and start."""
    with EmbeddedPostgres(lend(tmp_path / "postgres")) as running:

        async def prepare() -> None:
            async with open_loop():
                await migrate(running.owner_dsn, EMBEDDED_LOGINS)

        trio.run(prepare)
        yield running


def test_killing_drawing_dry_and_reviving_under_load_loses_nothing(
    own_server: Callable[..., Server],
) -> None:
    server = own_server().start()
    server.wait_ready()
    tenants = [Tenant(server) for _ in range(2)]
    sequencer = f"house/sequencers/{tenants[0].tenant_id}"
    assert tenants[0].post(tenants[0].agent.event({"n": 0})).status_code == 200
    load = Load(tenants).start()
    with Operator(server) as operator:
        assert operator.look(sequencer)["tree"]["incarnation"] == 1
        killed = operator.act("kill", "house/verifiers/0")
        assert killed["ended"] == {"incarnation": 1, "how": "killed", "why": WHY}
        operator.until("house/verifiers/0", "running", incarnation=2)
        drained = operator.act("drain", sequencer)
        assert drained["state"] == "drained"
        before = tenants[0].head()
        time.sleep(0.5)
        assert tenants[0].head() == before, "a drained sequencer goes on"
        operator.act("restart", sequencer)
        give_up = time.monotonic() + 20
        while tenants[0].head() == before:
            assert time.monotonic() < give_up, operator.look(sequencer)
            time.sleep(0.05)
    load.stop()
    assert not load.problems
    stored = {event["event_id"] for tenant in tenants for event in everything(tenant)}
    assert load.acknowledged
    assert set(load.acknowledged) <= stored
    assert [
        (entry["action"], entry["subject"], entry["details"]["reason"])
        for entry in audit_rows(embedded_dsn(server))
    ] == [
        ("actor.kill", "house/verifiers/0", WHY),
        ("actor.drain", sequencer, WHY),
        ("actor.restart", sequencer, WHY),
    ]
    assert server.terminate() == 0


def everything(tenant: Tenant) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    while True:
        page = tenant.events(len(events) + 1)
        events += page["events"]
        if not page["has_more"]:
            return events


def test_suspended_sequencers_make_the_node_unready_and_resumed_ones_answer_what_waited(
    own_server: Callable[..., Server],
) -> None:
    server = own_server(REQUEST_TIMEOUT_SECS="3").start()
    server.wait_ready()
    tenant = Tenant(server)
    assert tenant.post(tenant.agent.event({"n": 1})).status_code == 200
    with Operator(server) as operator:
        operator.act("suspend", "house/sequencers")
        until_ready(server, False)
        answer = httpx.get(server.url + "/ready")
        assert answer.json()["error"]["details"] == {"waiting_for": ["operator"]}
        assert operator.look()["waiting_for"] == {"operator": "drained or suspended: house/sequencers"}
        body = tenant.agent.body([tenant.agent.event({"n": 2})])
        assert tenant.post_raw(body).status_code == 504
        operator.act("resume", "house/sequencers")
        until_ready(server, True)
    assert tenant.post_raw(body).status_code == 200
    assert tenant.head() == 2
    assert server.terminate() == 0


def until_ready(server: Server, wanted: bool, deadline_s: float = 20) -> None:
    give_up = time.monotonic() + deadline_s
    while (httpx.get(server.url + "/ready", timeout=20).status_code == 200) is not wanted:
        assert time.monotonic() < give_up, server.tail()
        time.sleep(0.05)


def test_without_postgresql_the_tree_is_seen_and_acted_on_and_the_audit_arrives_later(
    own_server: Callable[..., Server], postgres: EmbeddedPostgres
) -> None:
    server = own_server(DATABASE_URL=postgres.app_dsn).start()
    server.wait_ready()
    dsn = postgres.owner_dsn
    spool = server.data_dir / "audit-spool.jsonl"
    with Operator(server) as operator:
        operator.act("kill", "house/verifiers/0")
        postgres.stop()
        operator.until_heard_of("database", server)
        operator.act("kill", "house/verifiers/0")
        assert operator.http.get("/health/detailed").status_code == 503, "another route went on unaudited"
        assert operator.look()["audit_bytes_spooled"] == spool.stat().st_size > 0
        server.kill_9()
        postgres.start()
    again = own_server(DATABASE_URL=postgres.app_dsn).start()
    again.wait_ready()
    with Operator(again) as operator:
        operator.act("kill", "house/verifiers/0")
        give_up = time.monotonic() + 20
        while operator.look()["audit_bytes_spooled"]:
            assert time.monotonic() < give_up, again.tail()
            time.sleep(0.1)
    rows = audit_rows(dsn)
    assert [entry["action"] for entry in rows] == ["actor.kill"] * 3
    assert ["spooled_at" in entry["details"] for entry in rows][:2] == [False, True]
    assert len({entry["details"]["audit_id"] for entry in rows}) == 3
    assert spool.read_bytes() == b""
    assert again.terminate() == 0
