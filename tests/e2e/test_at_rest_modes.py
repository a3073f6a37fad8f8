"""Modes and rings on a database that has lived: what is written, what opens, and which starts are refused."""

from __future__ import annotations

import asyncio
import json
import secrets
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from journal.embedded import embedded_dsn
from journal.embedded_cluster import APP_LOGIN, OWNER
from tests.e2e.world import Server, Tenant
from ves.at_rest import key_id

pytestmark = pytest.mark.slow

REQUIRED = "it is no frame, and PAYLOAD_ENCRYPTION_MODE is required"


def operator(server: Server, path: str, **query: Any) -> httpx.Response:
    key = {"authorization": f"ApiKey {server.bootstrap_key}"}
    base = (
        server.admin_url if path.startswith(("/metrics", "/health/detailed", "/api/v1/admin")) else server.url
    )
    return httpx.get(base + path, params=query, headers=key, timeout=30)


def metric(server: Server, name: str) -> float:
    [line] = [line for line in operator(server, "/metrics").text.splitlines() if line.startswith(name + " ")]
    return float(line.split()[1])


def refused_start(server: Server) -> str:
    """What it says when it does not start."""
    before = server.log.stat().st_size
    assert server.launch().wait(60) == 1
    return server.log.read_bytes()[before:].decode()


class Stage:
    """One DATA_DIR, lived on in one mode after the other."""

    def __init__(self, make: Callable[..., Server]) -> None:
        self.server = make()
        self.tenant: Tenant | None = None

    def live(self, mode: str) -> Tenant:
        self.server.environment["PAYLOAD_ENCRYPTION_MODE"] = mode
        self.server.start()
        self.server.wait_ready()
        self.tenant = self.tenant.moved_to(self.server) if self.tenant else Tenant(self.server)
        assert f"encryption at rest {mode}\n" in self.server.log.read_text()
        told = operator(self.server, "/health/detailed").json()["encryption_at_rest"]
        assert told["mode"] == mode
        [start, *_] = operator(self.server, "/api/v1/admin/audit", action="server.start").json()["entries"]
        details = json.loads(start["entry"])["details"]
        assert (details["payload_encryption_mode"], details["at_rest_key"]) == (mode, told["current_key"])
        return self.tenant

    @property
    def tenant_now(self) -> Tenant:
        assert self.tenant is not None
        return self.tenant

    def read(self, number: int) -> httpx.Response:
        assert self.tenant is not None
        return self.tenant.http.get(
            "/api/v1/ves/events", params={**self.tenant.stream, "from": number, "limit": 1}
        )

    def readable(self, *numbers: int) -> bool:
        payloads = [self.read(number).json()["events"][0]["payload"] for number in numbers]
        return payloads == [{"n": number} for number in numbers]

    def post(self, number: int) -> dict[str, Any]:
        assert self.tenant is not None
        event = self.tenant.agent.event({"n": number})
        assert self.tenant.post(event).json()["sequenceEnd"] == number
        return event

    def stop(self) -> None:
        assert self.server.terminate() == 0


def test_a_database_goes_through_all_modes_and_each_reads_what_it_should(
    own_server: Callable[..., Server],
) -> None:
    stage = Stage(own_server)
    stage.live("required")
    stage.post(1)
    stage.stop()

    stage.live("optional")
    stage.post(2)
    assert stage.readable(1, 2)
    assert metric(stage.server, "sequencer_at_rest_unencrypted_reads_total") == 0
    stage.stop()

    stage.live("disabled")
    plain = stage.post(3)
    assert stage.readable(1, 2, 3), "the ring opens frames in this mode too"
    assert metric(stage.server, "sequencer_at_rest_unencrypted_reads_total") == 1
    assert metric(stage.server, "sequencer_at_rest_writes_encrypted") == 0
    stage.stop()

    stage.live("optional")
    stage.post(4)
    assert stage.readable(1, 2, 3, 4)
    assert operator(stage.server, "/health/detailed").json()["encryption_at_rest"]["unencrypted_reads"] == 1
    stage.stop()

    stage.server.environment["PAYLOAD_ENCRYPTION_MODE"] = "required"
    assert "plaintext was written" in refused_start(stage.server)
    stage.server.environment["PAYLOAD_ENCRYPTION_MODE"] = "optional"
    sealed = stage.server.command("admin", "reencrypt-ves-events")
    assert sealed.returncode == 0, sealed.stdout + sealed.stderr
    stage.live("required")
    assert stage.readable(1, 2, 3, 4)
    again = stage.tenant_now.post(plain).json()
    assert (again["eventsAccepted"], again["eventsReplayed"]) == (0, 1)
    assert stage.post(5)
    stage.stop()


def test_plaintext_that_somebody_wrote_into_the_database_is_not_given_out(
    own_server: Callable[..., Server],
) -> None:
    stage = Stage(own_server)
    tenant = stage.live("required")
    plain = stage.post(1)
    stage.post(2)
    asyncio.run(
        behind_the_servers_back(
            stage.server,
            "ALTER TABLE record.ves_events DISABLE TRIGGER append_only_update",
            "UPDATE record.ves_events SET payload_sealed = '{\"n\":1}' WHERE sequence_number = 1",
        )
    )
    refused = stage.read(1)
    row = f"tenant {tenant.tenant_id}, store {tenant.store_id}, sequence_number 1"
    assert refused.status_code == 503
    told = (
        f"the payload stored at {row} does not open: its key is missing from the ring, or the row was changed"
    )
    assert refused.json()["message"] == told
    assert "details" not in refused.json()["error"], "the reason is for operators"
    seen = operator(stage.server, "/api/v1/ves/events", **tenant.stream, limit=10)
    assert seen.status_code == 503
    reason = f"the payload stored at {row} does not open: {REQUIRED}"
    assert seen.json()["error"]["details"] == {"reason": reason}
    kind = 'sequencer_security_events_total{kind="stored_value_unopened"}'
    assert metric(stage.server, kind) == 2
    assert row in stage.server.log.read_text()
    assert stage.readable(2)
    again = tenant.post(plain).json()
    assert (again["eventsAccepted"], again["eventsReplayed"]) == (0, 1), "a replay needs no payload"
    stage.stop()


async def behind_the_servers_back(server: Server, *statements: str) -> None:
    connection = await asyncpg.connect(embedded_dsn(server.data_dir).replace(APP_LOGIN, OWNER))
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def keys_of(server: Server) -> Path:
    return server.data_dir / "keys" / "payload-encryption-keys"


def test_a_start_without_a_key_that_data_exists_under_is_refused_and_makes_none(
    own_server: Callable[..., Server],
) -> None:
    stage = Stage(own_server)
    stage.live("required")
    stage.post(1)
    stage.stop()
    path = keys_of(stage.server)
    text = path.read_text()
    fingerprint = key_id(bytes.fromhex(text.strip())).hex()
    path.unlink()
    said = refused_start(stage.server)
    assert f"data exists under the at-rest key {fingerprint}, which is not in the ring" in said
    assert text.strip() not in said
    assert not path.exists(), "no new key silently"
    path.write_text(secrets.token_hex(32) + "\n" + text)
    path.chmod(0o600)
    stage.live("required")  # a new current key, and the old one behind it
    stage.post(2)
    assert stage.readable(1, 2)
    stage.stop()
    path.write_text(path.read_text().splitlines()[0])
    assert fingerprint in refused_start(stage.server)


def test_a_tenants_ring_lives_and_its_keys_are_missed_by_name(own_server: Callable[..., Server]) -> None:
    server = own_server()
    mine, his, new = (secrets.token_hex(32) for _ in range(3))
    tenant_id, other_id = uuid.uuid4(), uuid.uuid4()
    path = server.data_dir / "keys" / "payload-encryption-keys-by-tenant"

    def rings(given: dict[uuid.UUID, list[str]]) -> None:
        path.write_text(json.dumps({str(name): keys for name, keys in given.items()}))
        path.chmod(0o600)

    server.data_dir.mkdir(mode=0o700)
    path.parent.mkdir(mode=0o700)
    rings({tenant_id: [mine], other_id: [his]})
    server.start()
    server.wait_ready()
    tenants = [Tenant(server, tenant_id), Tenant(server, other_id), Tenant(server)]
    for tenant in tenants:
        assert tenant.post(tenant.agent.event({"n": 1})).json()["eventsAccepted"] == 1
    assert operator(server, "/health/detailed").json()["encryption_at_rest"]["tenants_with_own_ring"] == 2
    assert server.terminate() == 0

    fingerprint = key_id(bytes.fromhex(mine)).hex()
    missed = f"tenant {tenant_id} has data under the at-rest key {fingerprint}"
    for given in (
        {tenant_id: [new], other_id: [his]},
        {tenant_id: [new], other_id: [his, mine]},
        {other_id: [his]},
    ):
        rings(given)
        said = refused_start(server)
        assert missed in said, said
        assert not any(key in said for key in (mine, his, new))
    path.unlink()
    first = min(tenant_id, other_id)
    assert f"tenant {first} has data under the at-rest key" in (said := refused_start(server))
    assert "and has no ring of its own now: restore its ring" in said

    rings({tenant_id: [new, mine], other_id: [his]})
    server.start()
    server.wait_ready()
    for tenant in tenants:
        tenant.moved_to(server)
        assert tenant.post(tenant.agent.event({"n": 2})).json()["eventsAccepted"] == 1
        assert [event["payload"] for event in tenant.events()["events"]] == [{"n": 1}, {"n": 2}]
    assert server.terminate() == 0

    late = tenants[2].tenant_id  # has data under the default ring
    rings({tenant_id: [new, mine], other_id: [his], late: [new]})
    default = keys_of(server).read_text().strip()
    missed = f"tenant {late} has data under the at-rest key {key_id(bytes.fromhex(default)).hex()}"
    assert missed in refused_start(server)
    rings({tenant_id: [new, mine], other_id: [his], late: [new, default]})
    server.start()
    server.wait_ready()
    tenants[2].moved_to(server)
    assert len(tenants[2].events()["events"]) == 2
    assert server.terminate() == 0
